// A connection with more input than its share is served after those that have just become ready. epoll returns ready
// connections in turn. Where thousands have more input than one read takes, or where one byte of each completes a large
// message, a voice frame would wait for all of them, however small each share is. So while so many are ready that reads
// are cut, such a connection is set aside: epoll does not watch it for reading, and it waits in a queue until its socket
// has been read empty. The connections that epoll returns are then those that were silent for a moment; they are served
// first. The queue gets the time that is left, and at least `Limits.turnAsideNanosecondsMin`.
//
// Invariant: a connection with `isAside` is in one of the two queues, once. Only the code that takes it out of the queue
// clears the flag.

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
    /// Whether a connection that has just been read, or is about to be read, is to be set aside.
    @inline(__always)
    func isBehindOthers(_ slot: UInt32) -> Bool { share.isCut && (hasReadItsShare || hasBegunMuch(slot)) }

    /// Whether the next byte may complete a large message.
    @inline(__always)
    private func hasBegunMuch(_ slot: UInt32) -> Bool {
        connections[slot].message.count > Limits.begunMessageAsideBytes
    }

    /// Whether a connection's socket holds more than it may read now. The look costs a tenth of a read, so thousands of
    /// connections are sorted in some milliseconds, and those with little input do not wait for the first reads of the
    /// others.
    mutating func hasMoreThanItsShare(_ slot: UInt32) -> Bool {
        guard connections[slot].phase == .open, connections[slot].interest.contains(.read) else { return false }
        return receiveBuffer.hasWaiting(share.bytes, in: connections[slot].socket.number)
    }

    /// Sets a connection aside.
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

    /// Watches a connection again as before. It has been taken out of its queue.
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
