// When a dead worker is replaced: at once, unless it keeps dying; then after a pause that doubles, never giving up, because the
// other workers' rooms go on meanwhile and what made it die may pass.

/// The deaths of one worker's place.
struct RestartPolicy: Equatable {
    /// A process that lived this long was healthy: what came before is forgotten.
    static let healthySeconds: UInt64 = 60
    static let pauseMillisecondsFirst: UInt64 = 100
    static let pauseMillisecondsMax: UInt64 = 10_000

    /// Deaths in a row of processes that did not live long.
    private(set) var deathsInRow = 0

    /// A process has lived for `uptime` nanoseconds.
    mutating func lived(uptime: UInt64) {
        if uptime >= Self.healthySeconds * 1_000_000_000 { deathsInRow = 0 }
    }

    /// A process died after `uptime` nanoseconds.
    ///
    /// - Returns: nanoseconds to wait before the next one starts.
    mutating func died(uptime: UInt64) -> UInt64 {
        lived(uptime: uptime)
        deathsInRow += 1
        guard deathsInRow > 1 else { return 0 }
        let doublings = min(deathsInRow - 2, 10)
        return min(Self.pauseMillisecondsFirst << doublings, Self.pauseMillisecondsMax) * 1_000_000
    }
}
