// A large room is sent a batch in pieces. A send takes some microseconds, so sending to all members of a room of
// thousands takes many times the output time of a turn. The worker looks at the clock after each piece and goes on in the
// next turn with the next member. Small rooms come first and are sent whole; large rooms have a minimum of time.
//
// `Room.flush` is the batch that is being sent; nothing is added to it. New messages go into the room's next batch,
// which is sent after it. So each member gets everything once and in order:
//
//     a member joins  it is added after the end of the flush. The next batch is not for it either, so its join waits
//                     until the next batch is being sent (`joinLater`)
//     a member leaves the parts of the list keep their members (`Room.remove`); nothing more is sent to it
//     a slow member   what it could not take waits in its outbox; what comes next is appended there
//     a full batch    while the previous batch is being sent, the room's members are not read (`isRead`)
//     a room moves    when both batches are empty; its members are not read from the moment it is to move (`quieten`)
//
// A room that closes is sent everything at once.

import Shared

extension Worker {
    /// Whether a room is sent its batch in pieces.
    @inline(__always)
    func isFlushedInPieces(_ room: UInt32) -> Bool {
        rooms[room].members.count > flushPieceMembers || rooms[room].flush != nil
    }

    /// Whether a connection is read. A member of a room whose messages must be sent first is not.
    @inline(__always)
    func isRead(_ slot: UInt32) -> Bool {
        let room = connections[slot].room
        return room == Room.none || !(rooms[room].isFull || rooms[room].quietSince != nil)
    }

    /// Begins to send a room's batch: members that join later do not get it.
    mutating func beginFlush(_ room: UInt32) {
        precondition(rooms[room].flush == nil, "one batch of a room is sent at a time")
        guard let batch = takeBatch(of: room) else { return }
        rooms[room].flush = PartFlush(batch: batch, end: rooms[room].members.count)
    }

    /// Takes a room's batch to be sent: nothing is added to it any more.
    @inline(__always)
    mutating func takeBatch(of room: UInt32) -> UInt32? {
        guard let batch = rooms[room].batch.take() else { return nil }
        rooms[room].isFull = false
        if rooms[room].isAwaited {
            rooms[room].isAwaited = false
            joinsDue = laterJoins.count
        }
        return batch
    }

    /// Sends pieces of large rooms' batches in turn: as many as there is time for, and at least one.
    mutating func flushPieces() {
        clock.extend(least: Limits.turnLargeRoomsNanosecondsMin)
        var (pieces, before) = (0, -1)
        let count = activeBatches.count
        // The previous turn stopped here. A start at the first batch each time would leave the last ones without time.
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
                // The room's previous batch is being sent first.
                guard rooms[room].flush?.batch == batch else { continue }
                let members = Limits.flushPieceBytes / max(1, batches[batch].byteCount)
                flushPiece(of: room, membersMax: max(1, min(members, flushPieceMembers)))
                pieces += 1
            }
        }
    }

    /// A room's batch is full, and another message is to be added.
    mutating func makePlace(in room: UInt32) {
        if !isFlushedInPieces(room) {
            flushRoom(room)
        } else if rooms[room].flush == nil {
            beginFlush(room)
        } else {
            rooms[room].isFull = true
        }
    }

    /// A member joins: earlier messages are not for it.
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

    /// Whether a join must wait: two batches of the room are still to be sent, and neither is for a new member.
    @inline(__always)
    func mustJoinLater(_ room: UInt32) -> Bool { rooms[room].flush != nil && rooms[room].batch != nil }

    /// Keeps a join, unread, until the room's second batch is being sent.
    mutating func joinLater(_ slot: UInt32, _ room: UInt32) {
        rooms[room].isAwaited = true
        connections[slot].isUnanswered = true
        laterJoins.append(connections.id(slot))
    }

    /// Tries waiting joins again: a few in each turn, and each once after a batch was begun. A join succeeds if its room
    /// has no new batch since; the others keep waiting in their order.
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

    /// Prepares a large room to move: its members are not read any more, and what was said is sent.
    ///
    /// - Returns: whether this takes another turn. A batch that was opened after the first call holds only notices of
    ///   members that left. The move does not wait for it, because each turn may bring more; it goes with the members
    ///   (`postpone`).
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

    /// Puts a room's messages into its members' outboxes without sending them: they move with the members. A send could
    /// fail, and the notice that this member left would be a new message.
    mutating func postpone(_ room: UInt32) {
        repeat {
            if rooms[room].flush == nil { beginFlush(room) }
            flushPiece(of: room, membersMax: rooms[room].members.count, isSent: false)
        } while rooms[room].batch != nil
    }
}
