// A room of many is flushed in pieces: a send takes some microseconds, so that to send all members of a room of thousands
// what was said takes many times what a turn has for output. After each piece the clock is looked at, and what is left
// goes on in the next turn with the member where it stopped. Rooms of few go first, whole, and rooms of many have a least.
//
// The batch that is being sent is `Room.flush`, and nothing is added to it any more. What is said meanwhile goes into the
// room's next batch, which waits for the first. So each member gets everything once and in order:
//
//     who comes       stands behind the flush's end. What the next batch has is not for them either: their join waits
//                     until that one is being sent (`joinLater`)
//     who leaves      leaves the parts of the list as they are (`Room.remove`), and is sent no more
//     who is slow     has what it could not take in its outbox, where what comes next is put behind it
//     a full batch    while the one before is being sent ends the reading of the room's members (`isRead`)
//     a room moves    when both are empty; its members are read no more from when its turn has come (`quieten`)
//
// A room that closes is sent all there is at once.

import Shared

extension Worker {
    /// Whether a room is not sent its batch in one go.
    @inline(__always)
    func isFlushedInPieces(_ room: UInt32) -> Bool {
        rooms[room].members.count > flushPieceMembers || rooms[room].flush != nil
    }

    /// Whether a connection is read: not while its room waits for what has been said in it to be sent.
    @inline(__always)
    func isRead(_ slot: UInt32) -> Bool {
        let room = connections[slot].room
        return room == Room.none || !(rooms[room].isFull || rooms[room].quietSince != nil)
    }

    /// From here on nothing is added to a room's batch, and nobody who comes is sent it.
    mutating func beginFlush(_ room: UInt32) {
        precondition(rooms[room].flush == nil, "one batch of a room is sent at a time")
        guard let batch = rooms[room].batch.take() else { return }
        rooms[room].flush = PartFlush(batch: batch, end: rooms[room].members.count)
        rooms[room].isFull = false
        if rooms[room].isAwaited {
            rooms[room].isAwaited = false
            joinsDue = laterJoins.count
        }
    }

    /// Sends pieces of what has been said in rooms of many, in turn, as many as there is time for, and one at the least.
    mutating func flushPieces() {
        clock.extend(least: Limits.turnLargeRoomsNanosecondsMin)
        var (pieces, before) = (0, -1)
        let count = activeBatches.count
        // From where the turn before stopped, or those in front would have all of the time.
        let first = nextInPieces.flatMap { activeBatches.firstIndex(of: $0) } ?? 0
        nextInPieces = nil
        while pieces > before {
            before = pieces
            for offset in 0..<count {
                let batch = activeBatches[(first + offset) % count]
                let room = batches[batch].room
                guard room != Room.none, isFlushedInPieces(room), !holdsBack(batch, of: room) else { continue }
                guard pieces == 0 || !clock.isOver else {
                    nextInPieces = batch
                    return
                }
                if rooms[room].flush == nil { beginFlush(room) }
                // Another batch of the room's may be in front of this one.
                guard rooms[room].flush?.batch == batch else { continue }
                let members = Limits.flushPieceBytes / max(1, batches[batch].byteCount)
                flushPiece(of: room, membersMax: max(1, min(members, flushPieceMembers)))
                pieces += 1
            }
        }
    }

    /// A room's batch is full, and there is more to be said in it.
    mutating func makePlace(in room: UInt32) {
        if !isFlushedInPieces(room) {
            flushRoom(room)
        } else if rooms[room].flush == nil {
            beginFlush(room)
        } else {
            rooms[room].isFull = true
        }
    }

    /// Somebody comes: what has been said before is not for them.
    mutating func closeBatch(of room: UInt32) {
        guard rooms[room].batch != nil else { return }
        guard isFlushedInPieces(room) else {
            flushRoom(room)
            return
        }
        finishFlush(room)
        beginFlush(room)
    }

    // MARK: - Joins that wait

    /// Whether two batches are on their way to a room's members, of which none is for one who comes.
    @inline(__always)
    func mustJoinLater(_ room: UInt32) -> Bool { rooms[room].flush != nil && rooms[room].batch != nil }

    /// Lets a join wait, unread, until the room's second batch is being sent.
    mutating func joinLater(_ slot: UInt32, _ room: UInt32) {
        rooms[room].isAwaited = true
        connections[slot].isUnanswered = true
        laterJoins.append(connections.id(slot))
    }

    /// Looks at joins that have waited, some in each turn and each once after a batch has been begun. Those of a room in
    /// which nothing has been said since get in; the others wait on, in their order.
    mutating func joinDue() {
        var looked = 0
        while joinsDue > 0 && looked < Limits.laterJoinsPerTurnMax && (looked == 0 || !clock.isOver) {
            joinsDue -= 1
            looked += 1
            guard let id = laterJoins.popFirst() else { continue }
            guard connections.contains(id), connections[id.slot].isUnanswered else { continue }
            connections[id.slot].isUnanswered = false
            serveRequests(id.slot)
            endIfClosed(id.slot)
            lookAtClock()
        }
    }

    // MARK: - A room that is about to move

    /// Lets a room of many become quiet before it moves: its members are read no more, and what has been said is sent.
    ///
    /// - Returns: whether that takes another turn. A batch that has been opened since holds notices of those who leave,
    ///   and is no reason to wait: there may be more in each turn, and they go with the members (`postpone`).
    mutating func quieten(_ room: UInt32) -> Bool {
        let since = rooms[room].quietSince ?? now
        if let part = rooms[room].flush {
            guard batches[part.batch].openedAt <= since else { return false }
        } else {
            guard isFlushedInPieces(room), let batch = rooms[room].batch, batches[batch].openedAt <= since else {
                return false
            }
            beginFlush(room)
        }
        rooms[room].quietSince = since
        return true
    }

    /// Lets what has been said in a room wait for its members, unsent: it goes with them. No send fails, so that nobody
    /// is found to be gone meanwhile, of whom the others would have to be told in turn.
    mutating func postpone(_ room: UInt32) {
        repeat {
            if rooms[room].flush == nil { beginFlush(room) }
            flushPiece(of: room, membersMax: rooms[room].members.count, isSent: false)
        } while rooms[room].batch != nil
    }
}
