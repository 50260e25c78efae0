// Who has more to say than its share stands behind those who have just begun. epoll goes round all that are ready: where
// thousands have more than one read takes, or where one byte of each sets off the work of a whole message, a voice
// frame would wait for all of them, however small each one's share is. So while more are ready than have a full read
// each, such a connection is set aside: it is not watched for reading, and waits in a queue until it has been read
// empty. Those that epoll names are then the ones that have been silent for a moment, and are served first; the queue
// has what time they leave, and `Limits.turnAsideNanosecondsMin` in any case.
//
// Invariant: a connection with `isAside` stands in one of the two queues, once. Only who takes it out clears the flag.

import Shared

/// Connections that have been set aside, in the order in which they are served.
struct AsideQueues {
    var members = SlotQueue()
    var strangers = SlotQueue()
}

extension Connection {
    /// What its socket is watched for.
    @inline(__always)
    var watched: Interest { isAside ? interest.subtracting(.read) : interest }
}

extension Worker {
    /// Whether a connection that has just been read, or is about to be, goes behind the others.
    @inline(__always)
    func isBehindOthers(_ slot: UInt32) -> Bool { share.isCut && (hasReadItsShare || hasBegunMuch(slot)) }

    /// Whether the next byte may set off the work of a large message.
    @inline(__always)
    private func hasBegunMuch(_ slot: UInt32) -> Bool {
        connections[slot].message.count > Limits.begunMessageAsideBytes
    }

    /// Whether more waits in a connection's socket than it may read now. To look costs a tenth of the read: a crowd of
    /// thousands is told apart in some milliseconds, and those who have little to say are not behind its first reads.
    mutating func hasMoreThanItsShare(_ slot: UInt32) -> Bool {
        guard connections[slot].phase == .open, connections[slot].interest.contains(.read) else { return false }
        return receiveBuffer.hasWaiting(share.bytes, in: connections[slot].socket.number)
    }

    /// Puts a connection behind those that have just become ready.
    mutating func setAside(_ slot: UInt32) {
        switch connections[slot].phase {
        case .request, .open, .closing, .lingering: break
        // Handshakes have a queue of their own.
        case .proxyHeader, .handshake, .handingOver, .condemned, .doomed, .departed: return
        }
        guard !connections[slot].isAside, connections[slot].interest.contains(.read) else { return }
        let before = connections[slot].watched
        connections[slot].isAside = true
        watch(slot, before)
        appendAside(slot)
    }

    private mutating func appendAside(_ slot: UInt32) {
        let id = connections.id(slot)
        if connections[slot].isMember { aside.members.append(id) } else { aside.strangers.append(id) }
    }

    /// A connection that is in no queue any more is watched again for whatever it waits for.
    private mutating func bringBack(_ slot: UInt32) {
        guard connections[slot].isServed else { return }
        let before = connections[slot].watched
        connections[slot].isAside = false
        watch(slot, before)
    }

    /// Serves members that have been set aside, each once, as far as there is time.
    mutating func serveAsideMembers() {
        for _ in 0..<min(aside.members.count, Limits.eventsPerWaitMax) {
            guard !clock.isOver, let id = aside.members.popFirst() else { return }
            serveAside(id)
        }
    }

    /// The same for connections that are in no room.
    mutating func serveAsideStrangers() {
        for _ in 0..<min(aside.strangers.count, Limits.eventsPerWaitMax) {
            guard !clock.isOver, let id = aside.strangers.popFirst() else { return }
            serveAside(id)
        }
    }

    private mutating func serveAside(_ id: SlotID) {
        guard connections.contains(id), connections[id.slot].isAside else { return }
        let slot = id.slot
        // A pause, a move or its end has come in between: who ends that watches it as before.
        guard connections[slot].interest.contains(.read), !connections[slot].isFrozen else {
            bringBack(slot)
            return
        }
        // What has been read of its requests is answered first, and what has been said in its room is sent.
        guard !connections[slot].isUnanswered, isRead(slot), connections[slot].debt.mayBeServed(share) else {
            appendAside(slot)
            return
        }
        hasReadItsShare = false
        read(slot)
        connections[slot].debt.charge(lookAtClock(), share)
        if hasReadItsShare && connections[slot].isServed { appendAside(slot) } else { bringBack(slot) }
    }
}
