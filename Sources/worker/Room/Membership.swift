// Rooms open, fill, empty and close.

import Glibc
import Logging
import Shared

extension Worker {
    /// Opens a room. Its place in the relay's quota is already taken.
    ///
    /// - Parameter source: whose memory it takes (Address.memoryKey).
    mutating func openRoom(_ id: [UInt8], hostKey: [UInt8], source: UInt64) -> UInt32 {
        let share = held.shares.openRoom(source: source)
        let slot = rooms.insert(Room(id: id, hostKey: hostKey, share: share, source: source, now: second)).slot
        roomsByID[RoomID(bytes: id)] = slot
        roomTimers.set(slot, in: &rooms, due: second + UInt32(configuration.roomIdleSeconds))
        let isKnown = survivingKeys.removeValue(forKey: RoomID(bytes: id)) != nil
        page.add(1, to: .roomsOpened)
        page[.rooms] = UInt64(rooms.count)
        reportHostKey(id, hostKey, isKnown: isKnown)
        logger.debug("room opened", metadata: ["room": "\(String(decoding: id, as: UTF8.self))"])
        return slot
    }

    /// Puts a connection into a room.
    mutating func enter(_ slot: UInt32, _ room: UInt32) {
        // What was said before is not for the one who comes.
        flushRoom(room)
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
        let place = connections[slot].place
        if let moved = rooms[room].remove(at: place) { connections[moved].place = place }
        connections[slot].room = Room.none
        connections[slot].peerID = []
        page[.clients] -= 1
    }

    /// Removes a room that nobody is in; its host key goes with it.
    private mutating func closeRoom(_ slot: UInt32) {
        flushRoom(slot)
        roomTimers.clear(slot, in: &rooms)
        let room = rooms.remove(slot)
        held.shares.release(room.share)
        if room.isFrozen { arrivingRooms -= 1 }
        roomsByID[RoomID(bytes: room.id)] = nil
        // In this order: a worker that dies in between leaves the quota one room short, not one over.
        page[.rooms] = UInt64(rooms.count)
        memory.rooms.give()
        page.add(1, to: .roomsClosed)
        reportHostKeyGone(room.id)
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
            page.add(1, to: .hostKeysExpired)
            reportHostKeyGone(id.bytes)
        }
    }
}

/// A host key that outlived the worker of its room.
struct SurvivingKey {
    var publicKey: [UInt8]
    /// CLOCK_MONOTONIC nanoseconds.
    var expiry: UInt64
}
