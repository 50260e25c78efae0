// Whether a worker hangs: it has not moved for some looks a second apart, and it could have. What does not move because
// others have the CPU is left alone: to kill it would close its clients' connections and give its successor no more
// time.

import Shared

/// Looks at one process.
struct Watchdog: Equatable {
    enum Verdict: Equatable {
        case well
        /// It wants to run and is not let.
        case starved
        /// It waits for something other than its clients, or runs in a circle.
        case hangs
    }

    /// What can be seen of a process in a moment.
    struct Look: Equatable {
        var heartbeat: UInt64
        /// Of /proc/PID/stat: "R" is one that runs or could; nil where /proc does not say.
        var state: Character?
        /// CPU time that it has used; nil where /proc does not say.
        var cpuSeconds: Double?
    }

    /// The heartbeat at the last look, and at how many looks in a row it has been the same.
    private var heartbeatSeen: UInt64 = 0
    private var silentLooks = 0
    /// CPU time at the first of them.
    private var cpuSecondsBefore: Double?
    private(set) var verdict = Verdict.well

    /// Another second has passed.
    ///
    /// - Parameters:
    ///   - looksMax: looks in a row at which a process may show the same heartbeat.
    ///   - look: what it shows now.
    mutating func look(_ look: Look, looksMax: Int) {
        guard look.heartbeat == heartbeatSeen else {
            (heartbeatSeen, silentLooks, cpuSecondsBefore, verdict) = (look.heartbeat, 0, nil, .well)
            return
        }
        silentLooks += 1
        if silentLooks == 1 { cpuSecondsBefore = look.cpuSeconds }
        guard silentLooks >= looksMax else { return }
        guard look.state == "R", let before = cpuSecondsBefore, let now = look.cpuSeconds else {
            verdict = .hangs
            return
        }
        verdict = now - before >= Limits.hangCPUSeconds ? .hangs : .starved
    }
}
