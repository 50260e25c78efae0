// The time of one turn. A turn is bounded in time, whatever arrives: each source of work looks at the clock after each
// piece of it, stops when its allotment is over, and goes on in the next turn with what is left. So the longest turn is
// the allotments of all sources, and of each the one piece that was begun last.
//
//     input     members' events, then the inbox, strangers' requests, timers: `Limits.turnInputNanoseconds` together. What one source
//               does not use is the next one's. Of a source that has work, each later one is left its least.
//     output    rooms' batches, touched connections, removals: `Limits.turnOutputNanoseconds`
//     migration `Limits.turnMigrationNanoseconds`
//
// Work that is left makes the next wait short. It is taken up in the order in which it came.

import Shared

struct TurnClock {
    /// CLOCK_MONOTONIC nanoseconds at the last look.
    private(set) var now: UInt64
    /// Before the first allotment there is none.
    private var deadline: UInt64
    /// Nanoseconds by which the clock goes on at each look within a turn; nil: it is CLOCK_MONOTONIC. For tests, whose
    /// pieces of work take as long as they say.
    private let stride: UInt64?

    init(now: UInt64, stride: UInt64? = nil) {
        self.now = now
        self.stride = stride
        deadline = .max
    }

    /// A turn begins.
    mutating func begin() -> UInt64 {
        now = max(now, Clock.monotonicNanoseconds())
        return now
    }

    /// Looks at the clock.
    ///
    /// - Returns: the nanoseconds since the last look: what the piece of work in between has cost.
    @discardableResult
    mutating func look() -> UInt64 {
        let before = now
        if let stride { now += stride } else { now = max(before, Clock.monotonicNanoseconds()) }
        return now - before
    }

    /// Gives the part of the turn that begins so many nanoseconds, from the last look on.
    mutating func allot(_ nanoseconds: UInt64) {
        deadline = now + nanoseconds
    }

    /// Gives the part of the turn that begins the time until `end`, and `least` nanoseconds at the least.
    mutating func allot(until end: UInt64, least: UInt64) {
        deadline = max(end, now + least)
    }

    /// Gives a source of work within a part of the turn its least, though others in front of it may have taken all.
    mutating func extend(least: UInt64) {
        deadline = max(deadline, now + least)
    }

    /// Whether the allotment was over at the last look.
    var isOver: Bool { now >= deadline }
    /// Nanoseconds that were left of the allotment at the last look.
    var timeLeft: UInt64 { deadline - min(now, deadline) }
}
