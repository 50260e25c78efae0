// A worker leaves: everything it has goes to the next generation's workers, and nobody whom it serves notices.
//
//     route      new inboxes and a new placement are in force: whoever joins here is handed over by them, and nobody is accepted
//     (now)      requests that have not come whole and TLS clients that have said nothing go to a successor as they are
//     each turn  some rooms: a room's members freeze, are sent in their order, each with all that waits, then `complete`
//     lastCall   nobody sends to this worker's inbox any more: when it is empty, no room can appear here
//     done       said to every successor behind the last room, and `moved` to the supervisor
//     the end    when the last connection is gone: handshakes under way and closing connections are finished here
//
// A room is quiet from its first member's leaving until its last one's arrival. So rooms go one by one, and none begins to move
// while much waits unread in the inbox that it goes to.

import CLinux
import Glibc
import Logging
import Shared

/// Where a worker that leaves stands.
struct Leaving {
    /// The room that is on its way, its members in order, and which of them is next.
    struct Transit {
        var room: UInt32
        var owner: Int
        var members: [UInt32]
        var next = 0
        var startedAt: UInt64
    }

    var transit: Transit?
    /// Slot from which the next room is looked for.
    var nextRoom: UInt32 = 0
    /// Slot from which the next request is looked for, which goes as it is; nil when all have been looked at.
    var nextRequest: UInt32? = 0
    /// Whether the last turn had no time for all that could go.
    var isCutShort = false
    /// Nobody sends to this worker any more, and then: the inbox is empty.
    var hasHeardLastCall = false
    /// Host keys that are still to be sent.
    var keys: [(room: RoomID, key: SurvivingKey)] = []
    /// Successors that have been told that this was all.
    var told = 0
    var isDone = false
    /// CLOCK_MONOTONIC nanoseconds at which the process ends, whoever is left.
    var deadline = UInt64.max
    var moved = ControlMessage.Moved()
}

extension Worker {
    /// The supervisor has named the inboxes of a generation; they are in force from here on.
    mutating func take(route workers: Int, leaves: Bool) {
        guard nextOutboxes.count == workers, !nextOutboxes.contains(-1) else {
            // Without them it could hand nothing over: it ends, and another takes what waits.
            logger.error("route without its inboxes")
            hasFailed = true
            for inbox in nextOutboxes { _ = Glibc.close(inbox) }
            nextOutboxes = []
            return
        }
        for inbox in outboxes { _ = Glibc.close(inbox) }
        outboxes = nextOutboxes
        nextOutboxes = []
        if leaves { placement = Placement(key: placementKey, workers: workers) }
        // One that has left already, and has a connection or two yet, only learns where they may go now.
        if leaves && leaving == nil {
            leaving = Leaving()
            page.state = .draining
            stopAccepting()
            logger.debug("leaving", metadata: ["rooms": "\(rooms.count)", "connections": "\(connections.count)"])
        }
        startReadingInbox()
        rerouteHandovers()
        if leaves {
            for room in awaiting.roomsWaitedFor { admitWaiting(for: room) }
            leaving?.nextRequest = 0
        }
        report(.routed)
    }

    /// Those who wait for an inbox ask again where to go.
    private mutating func rerouteHandovers() {
        let waiting = handovers
        handovers.removeAll()
        for id in waiting where connections.contains(id) && connections[id.slot].phase == .handingOver {
            askAgain(id.slot)
        }
    }

    /// A connection that has waited with its whole request: it is looked at again, and not counted again.
    mutating func askAgain(_ slot: UInt32) {
        connections[slot].phase = .request
        connections[slot].hops = max(1, connections[slot].hops)
        setInterest(slot, connections[slot].interest.union(.read))
        let due = connections[slot].acceptedAt + UInt32(Limits.requestSeconds)
        connectionTimers.set(slot, in: &connections, due: due)
        answerLater(slot)
    }

    /// Sends connections that have not said what they want to a successor, as many as there is time for. What can't go
    /// now is looked at again in a second.
    private mutating func moveRequests() {
        guard let first = leaving?.nextRequest else { return }
        let owner = index % outboxes.count
        for slot in first..<max(first, connections.slots.upperBound) where connections.isOccupied(slot) {
            guard !clock.isOver else {
                leaving?.nextRequest = slot
                leaving?.isCutShort = true
                return
            }
            switch connections[slot].phase {
            case .request:
                guard connections[slot].outbox.isEmpty,
                    connections[slot].sealed.count <= Limits.handoffOutputBytesMax
                else { continue }
            case .handshake where handshakes[slot] == nil, .proxyHeader: break
            default: continue
            }
            // One that waits with its request goes with it.
            connections[slot].isUnanswered = false
            defer { lookAtClock() }
            guard case .sent = attempt(slot, owner, counts: false) else {
                answerLater(slot)
                break
            }
        }
        leaving?.nextRequest = nil
    }

    /// What of leaving this turn has time for. Called when everything that was said has been flushed.
    mutating func leaveSome() {
        guard leaving != nil, drainDeadline == nil else { return }
        clock.allot(Limits.turnMigrationNanoseconds)
        leaving?.isCutShort = false
        for _ in 0..<Limits.roomsMovedPerTurnMax {
            guard !clock.isOver else {
                leaving?.isCutShort = true
                break
            }
            guard beginTransit(), continueTransit() else { break }
        }
        if second != leaveSecond {
            leaveSecond = second
            leaving?.nextRequest = 0
        }
        moveRequests()
        finishLeaving()
        settle()
    }

    /// Finds the next room and freezes it. False if there is none, or its owner has enough to do.
    private mutating func beginTransit() -> Bool {
        guard let leaving, leaving.transit == nil else { return true }
        guard let room = nextRoom(from: leaving.nextRoom) else { return false }
        self.leaving?.nextRoom = room
        let owner = placement.owner(of: rooms[room].id)
        guard clinux_unread_bytes(outboxes[owner]) <= Limits.moveUnreadBytesMax else { return false }
        // A room of many is sent what was said in pieces, in later turns.
        guard !quieten(room) else {
            self.leaving?.isCutShort = true
            return false
        }
        // What was said before goes the old way, and who is about to be closed does not move.
        while rooms.isOccupied(room) && (rooms[room].batch != nil || rooms[room].flush != nil || !doomed.isEmpty) {
            if isFlushedInPieces(room) { postpone(room) } else { flushRoom(room) }
            while !doomed.isEmpty { removeDoomed() }
        }
        guard rooms.isOccupied(room) else {
            self.leaving?.isCutShort = true
            return false
        }
        // Out of the room: a slot that one of them leaves may be another's before the last has gone.
        let members = rooms[room].removeAll()
        for member in members {
            connections[member].isFrozen = true
            connections[member].room = Room.none
        }
        rooms[room].isFrozen = true
        self.leaving?.transit = Leaving.Transit(
            room: room, owner: owner, members: members, startedAt: Clock.monotonicNanoseconds())
        return true
    }

    /// The first room from a slot on, and round again: one may still come from the generation before, by way of the inbox. Such a
    /// room waits until all of it is here.
    private func nextRoom(from first: UInt32) -> UInt32? {
        guard rooms.count > arrivingRooms else { return nil }
        let end = rooms.slots.upperBound
        for step in 0..<end {
            let slot = (first + step) % end
            if rooms.isOccupied(slot) && !rooms[slot].isFrozen { return slot }
        }
        return nil
    }

    /// Sends members until all are gone or the inbox is full. True when the room has moved.
    private mutating func continueTransit() -> Bool {
        // Taken out and put back: what is assigned over by way of an optional in a noncopyable struct is never freed
        // (Swift 6.3).
        guard var transit = leaving?.transit.take() else { return false }
        while transit.next < transit.members.count {
            guard !clock.isOver else {
                leaving?.transit = transit
                leaving?.isCutShort = true
                return false
            }
            defer { lookAtClock() }
            let member = transit.members[transit.next]
            switch attemptMember(member, transit) {
            case .sent:
                break
            case .busy:
                leaving?.transit = transit
                return false
            case .impossible(let error):
                if let suppressed = handoffLogRate.admit(nowNanoseconds: now) {
                    logger.error(
                        "a client can't be moved", metadata: ["reason": "\(error)", "suppressed": "\(suppressed)"])
                }
                page[.clients] -= 1
                close(member, .restart)
            }
            transit.next += 1
        }
        let complete = MoveMessage.complete(
            room: rooms[transit.room].id, charge: rooms[transit.room].addressCharge,
            activeAt: rooms[transit.room].activeAt, quietSince: transit.startedAt)
        guard say(complete, to: transit.owner)
        else {
            leaving?.transit = transit
            return false
        }
        let pause = Clock.monotonicNanoseconds() - transit.startedAt
        leaving?.moved.add(pause: pause)
        forgetRoom(transit.room)
        return true
    }

    /// One attempt to send a member. On success it is gone from here.
    private mutating func attemptMember(_ slot: UInt32, _ transit: Leaving.Transit) -> Attempt {
        let queued = MemberState.queuedBytes(connections[slot])
        // One file at a time: all that wait for a room's members would be memory that nobody counts.
        if queued > Limits.moveInlineBytesMax && clinux_unread_bytes(outboxes[transit.owner]) > 0 { return .busy }
        var message = ByteQueue()
        defer { message.wipe() }
        let session = connections[slot].session
        let sessionBytes = session == Connection.noSession ? 0 : sessions[session].encodedBytes
        let file: Int32?
        do throws(SystemError) {
            file = try MemberState.encode(
                connections[slot], held.blocks, room: rooms[transit.room], sessionBytes: sessionBytes, into: &message)
        } catch {
            // Out of descriptors or memory: others give theirs back, but a room is not kept quiet for ever.
            let age = Clock.monotonicNanoseconds() - transit.startedAt
            let isLate = age > UInt64(Limits.handoffSeconds) * 1_000_000_000
            return isLate ? .impossible(error) : .busy
        }
        defer { if let file { _ = Glibc.close(file) } }
        takeSession(slot, into: &message)
        page[.clients] -= 1
        let result = dispatch(slot, transit.owner, message, sessionBytes: sessionBytes, file: file)
        guard case .sent = result else {
            page[.clients] += 1
            return result
        }
        page.add(1, to: .membersMovedOut)
        leaving?.moved.clients += 1
        leaving?.moved.bytes += UInt64(queued)
        page.add(UInt64(queued), to: .bytesMoved)
        return .sent
    }

    /// Says something to a successor. False if its inbox is full.
    private mutating func say(_ message: MoveMessage, to owner: Int) -> Bool {
        let bytes = message.bytes
        if unsafe clinux_send_message(outboxes[owner], bytes, bytes.count, nil, 0) == 0 { return true }
        switch errno {
        case EAGAIN, ENOBUFS, ENOMEM: return false
        case let code:
            // Nobody reads there any more: the supervisor knows why.
            logger.error("a successor can't be told", metadata: ["reason": "\(SystemError("sendmsg", code))"])
            return true
        }
    }

    /// A room that has moved: it stays in the relay's count, and in its address's.
    private mutating func forgetRoom(_ slot: UInt32) {
        departRoomAddress(slot)
        roomTimers.clear(slot, in: &rooms)
        let room = rooms.remove(slot)
        held.shares.release(room.share)
        roomsByID[RoomID(bytes: room.id)] = nil
        page[.rooms] = UInt64(rooms.count)
        page.add(1, to: .roomsMovedOut)
        // A key that outlived its worker follows the rooms.
        reportHostKeyAfterRoom(room.id)
    }

    /// When no room is left, and none can come: tells everybody.
    private mutating func finishLeaving() {
        guard var leaving, !leaving.isDone, leaving.transit == nil, rooms.count == 0 else { return }
        // Keys of rooms that have not opened again since their worker died; some come by way of the inbox.
        leaving.keys += survivingKeys.map { ($0.key, $0.value) }
        survivingKeys.removeAll()
        while let last = leaving.keys.last {
            let owner = placement.owner(of: last.room.bytes)
            let key = MoveMessage.hostKey(
                room: last.room.bytes, publicKey: last.key.publicKey, expiry: last.key.expiry)
            guard say(key, to: owner) else { break }
            leaving.keys.removeLast()
            reportHostKeyGone(last.room.bytes)
        }
        if leaving.keys.isEmpty && leaving.hasHeardLastCall && isInboxEmpty && handovers.isEmpty {
            while leaving.told < outboxes.count, say(.done(source: index), to: leaving.told) { leaving.told += 1 }
            if leaving.told == outboxes.count {
                leaving.isDone = true
                leaving.deadline = now + UInt64(Limits.leaveSeconds) * 1_000_000_000
                report(.moved(leaving.moved))
                logger.debug("left", metadata: ["connections": "\(connections.count)"])
            }
        }
        self.leaving = leaving
    }

    /// Whether no message waits in the inbox.
    var isInboxEmpty: Bool {
        var polled = pollfd(fd: inbox.number, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&polled, 1, 0) == 0
    }

    /// The relay drains: what has not moved is let go here.
    mutating func stopLeaving() {
        for room in rooms.slots where rooms.isOccupied(room) { rooms[room].quietSince = nil }
        guard let transit = leaving?.transit.take() else { return }
        rooms[transit.room].isFrozen = false
        for member in transit.members[transit.next...] {
            connections[member].isFrozen = false
            connections[member].room = transit.room
            connections[member].place = rooms[transit.room].add(member)
        }
    }
}
