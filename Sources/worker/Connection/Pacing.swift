// RELAY_MAX_MESSAGES_PER_SECOND and RELAY_MAX_BYTES_PER_SECOND: a member that sends more is not read for a while, so
// that the network slows it down and nothing of what it says is lost. It is not silent meanwhile, for it is the relay
// that does not listen.

import Shared

/// How far a member is ahead of the pace at which it may send: two leaky buckets, each by the time at which it is empty
/// (GCRA).
struct SendingPace {
    /// CLOCK_MONOTONIC nanoseconds, like all times here.
    private var messagesEmptyAt: UInt64 = 0
    private var bytesEmptyAt: UInt64 = 0

    /// A member has sent something.
    ///
    /// - Returns: when it may be read again; nil: at once. What it may send in a second it may send in a moment.
    mutating func add(messages: Int, messagesPerSecond: Int, bytes: Int, bytesPerSecond: Int, at now: UInt64) -> UInt64?
    {
        var resume: UInt64 = 0
        if messagesPerSecond > 0 {
            resume = max(resume, Self.add(messages, perSecond: messagesPerSecond, to: &messagesEmptyAt, at: now))
        }
        if bytesPerSecond > 0 {
            resume = max(resume, Self.add(bytes, perSecond: bytesPerSecond, to: &bytesEmptyAt, at: now))
        }
        return resume > now ? resume : nil
    }

    private static func add(_ amount: Int, perSecond: Int, to emptyAt: inout UInt64, at now: UInt64) -> UInt64 {
        let second: UInt64 = 1_000_000_000
        // One read brings `receiveBytesMax` at most, so that no product overflows.
        emptyAt = max(emptyAt, now) + UInt64(amount) * second / UInt64(perSecond)
        return emptyAt - min(emptyAt, second)
    }
}

/// The settings that each message is looked at with.
struct MessageLimits {
    let messageBytesMax: Int
    let messagesPerSecondMax: Int
    let bytesPerSecondMax: Int
    /// Whether members have a pace at all.
    let hasPace: Bool

    init(_ configuration: Configuration) {
        messageBytesMax = configuration.messageBytesMax
        messagesPerSecondMax = configuration.messagesPerSecondMax
        bytesPerSecondMax = configuration.bytesPerSecondMax
        hasPace = configuration.messagesPerSecondMax > 0 || configuration.bytesPerSecondMax > 0
    }
}

extension Worker {
    /// Counts what a member has just sent, and leaves it unread for a while if that was too much.
    mutating func pace(_ slot: UInt32, messages: Int, bytes: Int) {
        guard connections[slot].phase == .open else { return }
        let resume = connections[slot].pace.add(
            messages: messages, messagesPerSecond: messageLimits.messagesPerSecondMax, bytes: bytes,
            bytesPerSecond: messageLimits.bytesPerSecondMax, at: now)
        guard let resume, !connections[slot].isPaused else { return }
        connections[slot].isPaused = true
        setInterest(slot, connections[slot].interest.subtracting(.read))
        pauses.add(connections.id(slot), due: resume)
        page.add(1, to: .readsPaused)
    }

    /// Reads those again whose pause is over.
    mutating func resumePaused() {
        while let id = pauses.next(upTo: now) {
            guard connections.contains(id), connections[id.slot].isPaused else { continue }
            guard !connections[id.slot].isFrozen else {
                // Its room migrates, or is about to go on here.
                pauses.add(id, due: now + UInt64(Limits.busyTurnMilliseconds) * 1_000_000)
                continue
            }
            connections[id.slot].isPaused = false
            // Nothing has come because nothing was read.
            connections[id.slot].heardAt = second
            connections[id.slot].begunInput.restart(at: second)
            guard connections[id.slot].phase == .open else { continue }
            setInterest(id.slot, connections[id.slot].interest.union(.read))
        }
    }
}
