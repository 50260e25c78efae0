// How long things take, counted by how long: the form of Prometheus's histograms, in the worker's page of shared memory. One
// writer, fixed buckets, and no memory but the page's.

/// The histograms of a worker's page, in the order in shared memory, whose version a change of it raises.
package enum Histogram: Int, CaseIterable, Sendable {
    /// Turns of the loop, from the moment it wakes up to its end: what comes meanwhile waits so long at the most.
    case loopLag
    /// Messages passed on, from the wake-up of the turn that took them to the end of the one that sent them, mostly the same: a
    /// little more than each took. Where a turn sent what had been held back, from the wake-up that took the oldest of it.
    case deliveryLatency
    /// Connections handed over, from the wish to the moment when the owner took them.
    case handoffDuration
    /// Rooms that moved to another worker, from the moment when they went quiet to the one when they went on.
    case movePause

    /// Upper bounds of the buckets, nanoseconds; a last bucket has none. From what an idle turn takes to what hangs.
    package static let bounds: [UInt64] = [
        10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
        1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000,
        100_000_000, 200_000_000, 500_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000,
    ]

    /// The bucket of a duration: the first whose bound it does not pass.
    static func bucket(of nanoseconds: UInt64) -> Int {
        var bucket = 0
        // In order, because the short ones are the many.
        while bucket < bounds.count && nanoseconds > bounds[bucket] { bucket += 1 }
        return bucket
    }
}

/// A histogram as it stood, or the sum of several.
package struct HistogramCounts: Equatable, Sendable {
    /// Not cumulative; the last is of those beyond every bound.
    package var buckets = [UInt64](repeating: 0, count: Histogram.bounds.count + 1)
    /// Nanoseconds.
    package var sum: UInt64 = 0

    package init() {}

    package static func += (one: inout HistogramCounts, other: HistogramCounts) {
        for index in one.buckets.indices { one.buckets[index] &+= other.buckets[index] }
        one.sum &+= other.sum
    }
}

extension WorkerPage {
    /// Counts `count` things that took `nanoseconds` each. Only the process that owns the page may.
    package func record(_ nanoseconds: UInt64, count: UInt64 = 1, in histogram: Histogram) {
        add(count, at: histogram, Histogram.bucket(of: nanoseconds))
        add(nanoseconds &* count, at: histogram, Histogram.bounds.count + 1)
    }

    package subscript(histogram: Histogram) -> HistogramCounts {
        var counts = HistogramCounts()
        // Before the buckets: a sum that is behind its buckets is a little off, one ahead of them may be of nothing.
        counts.sum = value(at: histogram, counts.buckets.count)
        for index in counts.buckets.indices { counts.buckets[index] = value(at: histogram, index) }
        return counts
    }
}
