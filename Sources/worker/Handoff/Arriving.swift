// Rooms arrive from the generation before: their members one by one, frozen until `complete` says that all are there; then the room
// goes on as if nothing had been. Who wants to join a room that may still be on its way waits for it.

import Glibc
import Logging
import Shared

/// What this worker still expects.
struct Awaiting {
    /// Where the rooms were before.
    private let placement: Placement
    /// Workers of the generation before that may have rooms yet.
    private var pending: Set<Int>
    /// Those that have died: what they had sent before has not been read to its end.
    private(set) var gone: [Int] = []
    /// Connections that wait for a room, whole request and all.
    private var waiting: [RoomID: [SlotID]] = [:]

    init(_ awaited: ControlMessage.Awaited, placementKey: [UInt8]) {
        placement = Placement(key: placementKey, workers: awaited.workers)
        pending = Set(awaited.pending)
    }

    var isOver: Bool { pending.isEmpty }

    /// Whether a room that is not here may still come.
    func mayCome(_ room: [UInt8]) -> Bool {
        !pending.isEmpty && pending.contains(placement.owner(of: room))
    }

    func comes(_ room: [UInt8], from source: Int) -> Bool { placement.owner(of: room) == source }

    /// - Returns: whether anything was expected from this one.
    mutating func over(_ source: Int) -> Bool { pending.remove(source) != nil }

    mutating func gone(_ source: Int) { gone.append(source) }

    mutating func takeGone() -> [Int] {
        defer { gone.removeAll() }
        return gone
    }

    mutating func wait(_ id: SlotID, for room: RoomID) { waiting[room, default: []].append(id) }

    /// Takes out those who wait for a room.
    mutating func takeWaiting(for room: RoomID) -> [SlotID] { waiting.removeValue(forKey: room) ?? [] }

    var roomsWaitedFor: [RoomID] { Array(waiting.keys) }
}

extension Worker {
    /// Whether a room is about to arrive, in whole or in part.
    func isOnItsWay(_ room: [UInt8]) -> Bool {
        if let slot = roomsByID[RoomID(bytes: room)] { return rooms[slot].isFrozen }
        return awaiting.mayCome(room)
    }

    /// Lets a join wait for its room.
    mutating func awaitRoom(_ slot: UInt32, _ room: [UInt8]) {
        connections[slot].phase = .handingOver
        setInterest(slot, connections[slot].interest.subtracting(.read))
        connectionTimers.set(slot, in: &connections, due: second + UInt32(Limits.roomArrivalSeconds))
        awaiting.wait(connections.id(slot), for: RoomID(bytes: room))
        page.add(1, to: .joinAwaitedRoom)
    }

    mutating func admitWaiting(for room: RoomID) {
        for id in awaiting.takeWaiting(for: room) where connections.contains(id) {
            guard connections[id.slot].phase == .handingOver else { continue }
            askAgain(id.slot)
        }
    }

    /// A member has come. Its room opens with the first one.
    mutating func receiveMember(_ member: consuming Member, session: UInt32) {
        let (id, hostKey, source, charge) = (member.room, member.hostKey, member.roomSource, member.roomCharge)
        var connection = (consume member).connection
        connection.session = session
        connection.interest = []
        connection.isFrozen = true
        connection.isMember = true
        page.add(1, to: .membersMovedIn)
        guard let slot = adopt(connection) else { return }
        account(slot)
        guard drainDeadline == nil else {
            // Its room is closed here, or is about to be.
            close(slot, drainReason)
            return
        }
        let room: UInt32
        if let existing = roomsByID[RoomID(bytes: id)] {
            guard rooms[existing].hostKey == hostKey else {
                // Two rooms of one id: never, while an id has one owner.
                logger.error("a member came with another host key than its room's")
                close(slot, .restart)
                return
            }
            room = existing
        } else {
            room = openRoom(id, hostKey: hostKey, source: source, charge: charge)
            // At once: the worker that had it will say that it is gone there.
            tellHostKeys()
            rooms[room].isFrozen = true
            arrivingRooms += 1
        }
        // Who speaks in a batch is known by the slot alone: whoever gets one must not be taken for who had it before.
        closeBatch(of: room)
        connections[slot].room = room
        connections[slot].place = rooms[room].add(slot)
        held.shares.retain(rooms[room].share)
        enterShare(slot, rooms[room].share)
        page[.clients] += 1
        // Behind its room: the worker that had it died in the middle.
        if !rooms[room].isFrozen { goOn(slot) }
    }

    /// Something about the move itself.
    mutating func receive(_ message: MoveMessage) {
        switch message {
        case .complete(let id, let charge, let activeAt, let quietSince):
            guard let room = roomsByID[RoomID(bytes: id)] else {
                // None of its members could be taken here: it is closed, and its place in the quota free.
                if awaiting.mayCome(id) && drainDeadline == nil { memory.rooms.give() }
                abandonRoomAddress(charge)
                admitWaiting(for: RoomID(bytes: id))
                return
            }
            // It is here, with its charge.
            forgetExpectedRoom(charge)
            guard isArriving(room) else { return }
            rooms[room].activeAt = min(second, activeAt)
            completeRoom(room)
            let time = Clock.monotonicNanoseconds()
            let pause = time - min(time, quietSince)
            page.record(pause, in: .movePause)
            page[.movePauseMax] = max(page[.movePauseMax], pause)
        case .hostKey(let room, let publicKey, let expiry):
            takeKey(room, publicKey, expiry)
        case .done(let source):
            sourceOver(source)
        }
    }

    /// Whether a part of a room has come, and the rest may. A room that this worker itself sends is frozen as well.
    private func isArriving(_ room: UInt32) -> Bool {
        rooms.isOccupied(room) && rooms[room].isFrozen && leaving?.transit?.room != room
    }

    /// Everybody is there: the room goes on.
    private mutating func completeRoom(_ room: UInt32) {
        rooms[room].isFrozen = false
        arrivingRooms -= 1
        page.add(1, to: .roomsMovedIn)
        roomTimers.set(room, in: &rooms, due: max(second, rooms[room].activeAt + UInt32(configuration.roomIdleSeconds)))
        for member in rooms[room].members { goOn(member) }
        admitWaiting(for: RoomID(bytes: rooms[room].id))
    }

    /// A member that has arrived is read from and written to again.
    private mutating func goOn(_ slot: UInt32) {
        guard connections[slot].isFrozen else { return }
        connections[slot].isFrozen = false
        setInterest(slot, .read)
        connections[slot].outbox.isBlocked = false
        resumeLiveness(slot)
        // What waits for the client may be sent, and more of it may be owed.
        touch(slot)
    }

    /// A host key that outlived its room's worker.
    mutating func takeKey(_ room: [UInt8], _ publicKey: [UInt8], _ expiry: UInt64) {
        let expiry = expiry == 0 ? now + Limits.hostKeySurvivalNanoseconds : expiry
        let key = SurvivingKey(publicKey: publicKey, expiry: expiry)
        if let open = roomsByID[RoomID(bytes: room)] {
            // It has opened again before. When it closes the key goes on to its end.
            if rooms[open].hostKey == publicKey { survivingKeys[RoomID(bytes: room)] = key }
            return
        }
        let isKnown = survivingKeys.updateValue(key, forKey: RoomID(bytes: room)) != nil
        page.add(1, to: .hostKeysRestored)
        reportHostKey(room, publicKey, expiry: expiry, isKnown: isKnown)
        // At once: whoever had it says, or has said, that it is gone there.
        tellHostKeys()
    }

    /// Ends the wait for workers that have died, and for the rest of rooms that they left half sent. Not before the inbox is empty:
    /// what they had sent before stands in it.
    mutating func forgetGone() {
        guard !awaiting.gone.isEmpty || (arrivingRooms > 0 && awaiting.isOver), isInboxEmpty else { return }
        for source in awaiting.takeGone() { sourceOver(source) }
        // This process may have been started when its predecessor had heard the end of it.
        guard arrivingRooms > 0, awaiting.isOver else { return }
        for room in rooms.slots where isArriving(room) { completeRoom(room) }
    }

    /// Nothing more comes from a worker of the generation before, and what came has been read.
    mutating func sourceOver(_ source: Int) {
        guard awaiting.over(source) else { return }
        // Of a room that was cut short in its move, those who are here go on.
        for room in rooms.slots where isArriving(room) {
            if awaiting.comes(rooms[room].id, from: source) { completeRoom(room) }
        }
        for room in awaiting.roomsWaitedFor where !isOnItsWay(room.bytes) { admitWaiting(for: room) }
    }
}
