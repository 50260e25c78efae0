// A busy worker lets a room's data gather. A send costs the kernel some microseconds, whatever is in it, and where many talk at
// once sends are most of a worker's time: so the data of a room that has been sent to too often waits for more, to leave with it
// in one send a member. It waits until the first turn that is `Limits.dataSendIntervalNanoseconds` behind the last send, which is
// also the pace at which nothing waits: a room may run ahead of it by `Limits.dataSendsAhead` sends, so that only a room that
// talks on and on ever waits.
//
// Voice never waits, and takes along the data that does; neither do large messages, nor anything in a worker with time to spare
// (LoadMeter) or in one that is about to give its rooms away or to close them.

import Shared

extension Worker {
    /// Sends rooms' batches, as many as there is time for, and one at the least. Those that are held back stay in
    /// `activeBatches`, and are looked at in each turn; so do those for which the time was short, in their order.
    mutating func flushRooms() {
        var (kept, held, flushed, hasLarge) = (0, 0, 0, false)
        for index in activeBatches.indices {
            let batch = activeBatches[index]
            let room = batches[batch].room
            // One without a room was flushed ahead of the turn's end.
            if room != Room.none {
                if holdsBack(batch, of: room) {
                    held += 1
                    batches[batch].isHeld = true
                } else if isFlushedInPieces(room) {
                    hasLarge = true
                } else if flushed == 0 || !clock.isOver {
                    flushRoom(room)
                    flushed += 1
                }
            }
            sortOut(batch, &kept)
        }
        // Mostly it is one.
        while activeBatches.count > kept { activeBatches.removeLast() }
        heldBatches = held
        guard hasLarge else { return }
        flushPieces()
        kept = 0
        for index in activeBatches.indices { sortOut(activeBatches[index], &kept) }
        activeBatches.removeLast(activeBatches.count - kept)
    }

    /// Keeps an active batch after `kept` others. One without a room is spare from here on.
    @inline(__always)
    private mutating func sortOut(_ batch: UInt32, _ kept: inout Int) {
        if batches[batch].room == Room.none {
            spareBatches.append(batch)
        } else {
            activeBatches[kept] = batch
            kept += 1
        }
    }

    /// Whether a batch is to wait for more messages. A batch whose room still sends the previous one waits anyway.
    @inline(__always)
    func holdsBack(_ batch: UInt32, of room: UInt32) -> Bool {
        load.isBusy && batches[batch].voice.frames == 0 && rooms[room].flush == nil
            && batches[batch].data.bytes.count < Limits.dataSendBytes
            && batches[batch].data.longestFrame < Limits.dataSendMessageBytes
            && rooms[room].pace.isAhead(at: now) && !isLeaving && drainDeadline == nil
    }
}

/// How far a room's sends are ahead of the pace at which none is held back: a leaky bucket, by the time at which it is empty
/// (GCRA's theoretical arrival time).
struct SendPace {
    /// CLOCK_MONOTONIC nanoseconds, like all times here.
    private var emptyAt: UInt64 = 0

    /// Whether the next send should wait; never for more than an interval since the last.
    func isAhead(at now: UInt64) -> Bool {
        emptyAt > now + Limits.dataSendsAhead * Limits.dataSendIntervalNanoseconds
    }

    mutating func addSend(at now: UInt64) {
        let interval = Limits.dataSendIntervalNanoseconds
        // What did not wait, such as voice, does not make what follows wait longer.
        emptyAt = min(max(emptyAt, now) + interval, now + (Limits.dataSendsAhead + 1) * interval)
    }
}
