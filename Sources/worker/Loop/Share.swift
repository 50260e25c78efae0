// What one connection may take of a worker's time while others wait: deficit round-robin, counted in nanoseconds. epoll
// goes round the connections that are ready, and each has a share of the round. A connection that has cost more than
// its share is passed over in later rounds until its shares have paid for it, so that a voice frame waits for the
// others' shares and not for what they send: work for a byte differs by a factor of fifty between one pattern and
// another (SECURITY.md).
//
// A connection that is alone pays its debt within moments, because rounds in which nobody is served take none.

import Shared

/// The share of each connection in a round, by how many are ready.
struct RoundShare {
    let ready: Int
    /// Time of the worker, nanoseconds.
    let nanoseconds: UInt32
    /// Bytes of one read.
    let bytes: Int
    /// Whether that is less than a read takes of a connection that is alone.
    let isCut: Bool

    /// The most that a connection owes: what its shares pay in `Limits.roundsPassedOverMax` rounds.
    var debtMax: UInt32 { UInt32(clamping: UInt64(nanoseconds) * Limits.roundsPassedOverMax) }

    /// - Parameter ready: connections that are ready.
    init(ready: Int) {
        self.ready = ready
        let count = max(1, ready)
        nanoseconds = max(Limits.shareNanosecondsMin, Limits.roundNanoseconds / UInt32(clamping: count))
        bytes = min(Limits.receiveBytesMax, max(Limits.shareBytesMin, Limits.roundBytes / count))
        isCut = bytes < Limits.receiveBytesMax
    }
}

/// What a connection owes to the others.
struct Debt {
    private(set) var nanoseconds: UInt32 = 0
    /// Bytes of recent reads and their cost; older reads count less.
    private var bytes: UInt32 = 0
    private var cost: UInt32 = 0

    /// Bytes of its next read: as many as its share pays for at the cost of recent reads. The cost of a byte differs by
    /// a factor of fifty, and all others wait for the whole read, even if its sender is passed over afterwards.
    func readBytesMax(_ share: RoundShare) -> Int {
        // Of small reads the system calls are most of the cost.
        guard bytes >= Limits.shareBytesMin, cost > 0 else { return share.bytes }
        let time = UInt64(share.nanoseconds) * Limits.readSharesPercent / 100
        return min(share.bytes, max(Limits.shareBytesMin, Int(clamping: UInt64(bytes) * time / UInt64(cost))))
    }

    /// So many bytes have been read.
    mutating func hasRead(_ count: Int) {
        bytes = bytes / 4 * 3 + UInt32(clamping: count)
        cost = cost / 4 * 3
    }

    /// A round has come to the connection: its share pays for what it has cost before.
    ///
    /// - Parameter least: what it is paid at the least.
    /// - Returns: whether it is served in this round.
    mutating func mayBeServed(_ share: RoundShare, least: UInt32 = 0) -> Bool {
        let paid = max(share.nanoseconds, least)
        // It may have been charged while few were ready, and shares were larger.
        let owed = min(nanoseconds, share.debtMax)
        guard owed > paid else {
            nanoseconds = 0
            return true
        }
        nanoseconds = owed - paid
        return false
    }

    /// The connection has cost so much. It is passed over in `Limits.roundsPassedOverMax` rounds at the most, or one
    /// large message would silence its sender's voice while many others talk.
    mutating func charge(_ cost: UInt64, _ share: RoundShare) {
        nanoseconds = UInt32(clamping: min(UInt64(nanoseconds) + cost, UInt64(share.debtMax)))
        self.cost = UInt32(clamping: UInt64(self.cost) + cost)
    }
}
