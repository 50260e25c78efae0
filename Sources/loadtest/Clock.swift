// Time, in nanoseconds.

import CLinux
import Glibc

enum Clock {
    /// CLOCK_MONOTONIC: for deadlines and latencies.
    static func monotonic() -> UInt64 { read(CLOCK_MONOTONIC) }

    /// CLOCK_REALTIME since 1970: for tokens and timestamps.
    static func unix() -> UInt64 { read(CLOCK_REALTIME) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        let result = unsafe clock_gettime(clock, &time)
        precondition(result == 0, "clock_gettime can't fail for a clock that Linux always has")
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Sleeps; a signal may end it early, which no caller minds.
    static func sleep(nanoseconds: UInt64) {
        var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        _ = unsafe nanosleep(&time, nil)
    }
}

/// A moment after which waiting is given up. Everything that waits takes one, so nothing hangs.
struct Deadline {
    let moment: UInt64

    init(seconds: Double) {
        moment = Clock.monotonic() + UInt64(max(0, seconds) * 1e9)
    }

    /// This many seconds, or the other deadline if that is earlier.
    init(seconds: Double, within other: Deadline) {
        moment = min(Deadline(seconds: seconds).moment, other.moment)
    }

    var remaining: UInt64 {
        let now = Clock.monotonic()
        return now >= moment ? 0 : moment - now
    }

    var hasPassed: Bool { remaining == 0 }

    /// For poll(2): whole milliseconds, rounded up so that waiting does not spin.
    var pollMilliseconds: Int32 {
        Int32(clamping: (remaining + 999_999) / 1_000_000)
    }
}
