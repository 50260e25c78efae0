// What has begun to come and has not ended: half a message, half a TLS record. It takes memory and says nothing, so it
// must end: a record within Limits.begunSeconds, a message within the same and a second more for each
// Limits.begunBytesPerSecond of it that have come. A connection that the relay itself does not read is not timed.

import Shared

/// Since when a connection's input has been in the middle of something.
struct BegunInput {
    /// Seconds (CLOCK_MONOTONIC); 0 while nothing has begun.
    private var messageSince: UInt32 = 0
    private var recordSince: UInt32 = 0
    /// Messages that had ended when it was last looked at.
    private var messagesEnded: UInt32 = 0

    /// After frames have been taken apart.
    mutating func updateMessage(_ frames: FrameReader, at second: UInt32) {
        if frames.isBetweenMessages {
            messageSince = 0
        } else if messageSince == 0 || frames.messagesEnded != messagesEnded {
            messageSince = second
        }
        messagesEnded = frames.messagesEnded
    }

    /// After records have been taken apart.
    ///
    /// - Parameters:
    ///   - isHalf: whether bytes of one are left.
    ///   - hasEnded: whether one came to its end.
    mutating func updateRecord(isHalf: Bool, hasEnded: Bool, at second: UInt32) {
        if !isHalf {
            recordSince = 0
        } else if recordSince == 0 || hasEnded {
            recordSince = second
        }
    }

    /// The relay did not read: the time runs from now on.
    mutating func restart(at second: UInt32) {
        if messageSince != 0 { messageSince = second }
        if recordSince != 0 { recordSince = second }
    }

    /// The second by which what has begun must have ended; nil if nothing has.
    ///
    /// - Parameter messageBytes: how much of the message has come.
    func deadline(messageBytes: Int) -> UInt32? {
        let message = messageSince == 0 ? UInt32.max : messageSince + Self.seconds(messageBytes)
        let record = recordSince == 0 ? UInt32.max : recordSince + UInt32(Limits.begunSeconds)
        let deadline = min(message, record)
        return deadline == .max ? nil : deadline
    }

    private static func seconds(_ bytes: Int) -> UInt32 {
        UInt32(Limits.begunSeconds + bytes / Limits.begunBytesPerSecond)
    }
}

extension Worker {
    /// Sees to it that the connection is looked at when what has begun must have ended.
    mutating func watchBegunInput(_ slot: UInt32) {
        guard let deadline = begunInputDeadline(slot), deadline < connections[slot].timer.due else { return }
        connectionTimers.set(slot, in: &connections, due: deadline)
    }

    @inline(__always)
    func begunInputDeadline(_ slot: UInt32) -> UInt32? {
        connections[slot].begunInput.deadline(messageBytes: connections[slot].frames.messageBytesTaken)
    }
}
