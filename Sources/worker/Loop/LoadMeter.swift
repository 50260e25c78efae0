// How busy a worker is. What it does to save time, at somebody's small expense, it does only then (Room/HoldingBack.swift).

import Shared

/// The share of the time that turns of the loop take, measured over windows of many turns.
struct LoadMeter {
    /// Whether turns took at least `Limits.busyPercentMin` of some window, and of none since less than `Limits.calmPercentMax`:
    /// the second is below the first, because what a busy worker does makes it less so.
    private(set) var isBusy = false
    private var windowStart: UInt64
    private var turns: UInt64 = 0

    /// - Parameter now: CLOCK_MONOTONIC nanoseconds, like all times here.
    init(now: UInt64) {
        windowStart = now
    }

    /// Adds a turn, from the end of its wait to its own.
    mutating func addTurn(from start: UInt64, to end: UInt64) {
        turns += end - min(start, end)
        let window = end - min(windowStart, end)
        guard window >= Limits.loadWindowNanoseconds else { return }
        isBusy = turns * 100 >= window * (isBusy ? Limits.calmPercentMax : Limits.busyPercentMin)
        windowStart = end
        turns = 0
    }
}
