// Rooms open, fill, empty and close.

import Glibc
import Logging
import Shared

extension Worker {
    /// Opens a room. Its place in the relay's quota is already taken.
    ///
    /// - Parameters:
    ///   - source: whose memory it takes (Address.memoryKey).
    ///   - charge: where it is counted.
    mutating func openRoom(
        _ id: [UInt8], hostKey: [UInt8], source: UInt64, charge: AddressCharge = .none
    ) -> UInt32 {
        let share = held.shares.openRoom(source: source)
        let slot = rooms.insert(Room(id: id, hostKey: hostKey, share: share, source: source, now: second)).slot
        roomsByID[RoomID(bytes: id)] = slot
        holdRoomAddress(slot, charge)
        roomTimers.set(slot, in: &rooms, due: second + UInt32(configuration.roomIdleSeconds))
        // It stays: its time is not over because somebody has come.
        let isKnown = survivingKeys[RoomID(bytes: id)] != nil
        page.add(1, to: .roomsOpened)
        page[.rooms] = UInt64(rooms.count)
        reportHostKey(id, hostKey, isKnown: isKnown)
        logger.debug("room opened", metadata: ["room": "\(String(decoding: id, as: UTF8.self))"])
        return slot
    }

    /// Puts a connection into a room.
    mutating func enter(_ slot: UInt32, _ room: UInt32) {
        // What was said before is not for the one who comes.
        closeBatch(of: room)
        connections[slot].room = room
        connections[slot].place = rooms[room].add(slot)
        held.shares.retain(rooms[room].share)
        enterShare(slot, rooms[room].share)
        rooms[room].activeAt = second
        page[.clients] += 1
    }

    /// Takes a connection out of its room, if it is in one, and tells those who stay.
    mutating func leave(_ slot: UInt32) {
        let room = connections[slot].room
        guard room != Room.none else { return }
        let peerID = connections[slot].peerID
        detach(slot)
        rooms[room].activeAt = second
        if rooms[room].members.isEmpty {
            closeRoom(room)
        } else {
            page.add(UInt64(rooms[room].members.count), to: .leaveNotices)
            let milliseconds = Int64(Clock.unixNanoseconds() / 1_000_000)
            announce(leaveNotice(peerID: peerID, unixMilliseconds: milliseconds), to: room)
        }
    }

    private mutating func detach(_ slot: UInt32) {
        let room = connections[slot].room
        let changed = rooms[room].remove(at: connections[slot].place)
        for index in changed.indices where changed[index] != Room.none {
            connections[rooms[room].members[Int(changed[index])]].place = changed[index]
        }
        connections[slot].room = Room.none
        connections[slot].peerID = []
        page[.clients] -= 1
    }

    /// Removes a room that nobody is in; its host key goes with it, unless it has outlived a worker and its time is not
    /// over.
    private mutating func closeRoom(_ slot: UInt32) {
        flushRoom(slot)
        releaseRoomAddress(slot)
        roomTimers.clear(slot, in: &rooms)
        let room = rooms.remove(slot)
        held.shares.release(room.share)
        if room.isFrozen { arrivingRooms -= 1 }
        roomsByID[RoomID(bytes: room.id)] = nil
        // In this order: a worker that dies in between leaves the quota one room short, not one over.
        page[.rooms] = UInt64(rooms.count)
        memory.rooms.give()
        page.add(1, to: .roomsClosed)
        reportHostKeyAfterRoom(room.id)
        logger.debug("room closed", metadata: ["room": "\(String(decoding: room.id, as: UTF8.self))"])
    }

    /// A room's timer has gone off: it is closed if nothing has happened in it for long enough.
    mutating func roomDue(_ slot: UInt32) {
        let due = rooms[slot].activeAt + UInt32(configuration.roomIdleSeconds)
        if rooms[slot].isFrozen {
            roomTimers.set(slot, in: &rooms, due: second + 1)
        } else if second < due {
            roomTimers.set(slot, in: &rooms, due: due)
        } else {
            disband(slot, .idleRoom)
        }
    }

    /// Closes a room with everybody in it. Nobody is told that the others leave.
    mutating func disband(_ room: UInt32, _ reason: CloseReason) {
        flushRoom(room)
        let members = rooms[room].members
        for member in members { detach(member) }
        closeRoom(room)
        for member in members where connections[member].phase == .open { close(member, reason) }
    }

    /// Forgets host keys whose time is up.
    mutating func expireKeys() {
        guard !survivingKeys.isEmpty else { return }
        let expired = survivingKeys.filter { now >= $0.value.expiry }
        for id in expired.keys {
            survivingKeys[id] = nil
            // A room that has opened again has the key by itself.
            guard roomsByID[id] == nil else { continue }
            page.add(1, to: .hostKeysExpired)
            reportHostKeyGone(id.bytes)
        }
    }

    /// The room of this id is not here any more: its key holds as long as it would have without the room.
    mutating func reportHostKeyAfterRoom(_ id: [UInt8]) {
        if let key = survivingKeys[RoomID(bytes: id)] {
            reportHostKey(id, key.publicKey, expiry: key.expiry, isKnown: true)
        } else {
            reportHostKeyGone(id)
        }
    }
}

/// A host key that outlived the worker of its room. Whoever comes and goes meanwhile, it holds until its time is over:
/// a guest who gives up before the host is back must not leave the room's id to strangers.
struct SurvivingKey {
    var publicKey: [UInt8]
    /// CLOCK_MONOTONIC nanoseconds.
    var expiry: UInt64
}
