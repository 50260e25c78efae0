// How many KeyUpdates a client may send. Each costs the derivation of a secret, a key and an IV, some hundred times
// what a byte of data costs, and no client needs more than one in many thousand records. RFC 8446, 4.6.3 lets an
// implementation end the connection.

import Shared

/// A bucket of updates that fills with time. A connection that migrates begins with a full one.
struct KeyUpdateBudget {
    private var left = Limits.tlsKeyUpdatesBurst
    private var second: UInt32 = 0

    /// The client has sent a KeyUpdate.
    ///
    /// - Parameter second: CLOCK_MONOTONIC seconds, or any clock that does not go back.
    /// - Returns: false if that is one too many.
    mutating func spend(at second: UInt32) -> Bool {
        let passed = second > self.second ? second - self.second : 0
        left = min(Limits.tlsKeyUpdatesBurst, left + min(passed, Limits.tlsKeyUpdatesBurst))
        self.second = max(second, self.second)
        guard left > 0 else { return false }
        left -= 1
        return true
    }
}
