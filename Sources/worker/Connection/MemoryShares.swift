// Whose memory it is. Everything that connections hold is charged to a share: a room's, for its members and the blocks
// they wait for, or, for connections that are in no room yet, their address's. Shares belong to a source, the address
// that opened the room or connected (Address.memoryKey), because one client can have many rooms.
//
//     source (address) ──▶ shares: its rooms, and its connections in no room ──▶ connections
//
// When memory is short the source that holds most gives way, of its shares the largest, of that share's connections the
// largest: so nobody pays for what others hold. Sources stand in lists by the power of two of their bytes, so that the
// largest is found by looking at a few, however many there are; every walk has a bound, at the price of a victim that
// is only among the largest.
//
// A source's shares are in lists by the power of four of their bytes. A share is in a list only if it holds something
// and is not spared; a source only if it has such a share. So every entry is a possible victim, one is found as long as
// there is one, and thousands of rooms that hold next to nothing do not hide a room that holds much.
//
// A connection that leaves its room stays with the room's share until it ends, since what it still waits for is the
// room's. A share ends with the last of its room, its connections and its blocks; a source with its last share.

import Shared

struct MemoryShares: ~Copyable {
    static let none = UInt32.max

    private struct Source {
        var key: UInt64
        var bytes = 0
        var list = MemoryShares.none
        /// The share of its connections that are in no room; `none` if there are none.
        var connecting = MemoryShares.none
        /// The first of those that can give way, by class.
        var lists = InlineArray<20, UInt32>(repeating: MemoryShares.none)
        var listedCount = 0
        /// All of its shares.
        var shareCount = 0
        var next = MemoryShares.none
        var previous = MemoryShares.none
    }

    private struct Share {
        var source: UInt32
        var bytes = 0
        /// Its room, while that is open, its connections, and its blocks.
        var references = 1
        var firstConnection = MemoryShares.none
        /// Whether no connection of it can give way at the moment.
        var isSpared = false
        /// Which of its source's lists it stands in; `none` if in none.
        var list = MemoryShares.none
        var next = MemoryShares.none
        var previous = MemoryShares.none
    }

    private var sources: [Source] = []
    private var freeSources: [UInt32] = []
    private var sourcesByKey: [UInt64: UInt32] = [:]
    private var shares: [Share] = []
    private var freeShares: [UInt32] = []
    /// First source of each list, by the bit width of its bytes.
    private var lists = InlineArray<64, UInt32>(repeating: MemoryShares.none)
    private var spared: [UInt32] = []
    /// Bytes of all shares.
    private(set) var bytes = 0

    init() {}

    var count: Int { shares.count - freeShares.count }
    var sourceCount: Int { sourcesByKey.count }

    // MARK: - Shares come and go

    /// The share of a source's connections that are in no room, with one more reference.
    mutating func connecting(source key: UInt64) -> UInt32 {
        let source = source(key)
        let share = sources[Int(source)].connecting
        guard share == Self.none else {
            shares[Int(share)].references += 1
            return share
        }
        let fresh = insert(into: source)
        sources[Int(source)].connecting = fresh
        return fresh
    }

    /// A new share for a room that this source opens, with one reference, the room's.
    mutating func openRoom(source key: UInt64) -> UInt32 {
        insert(into: source(key))
    }

    mutating func retain(_ share: UInt32) {
        shares[Int(share)].references += 1
    }

    mutating func release(_ share: UInt32) {
        shares[Int(share)].references -= 1
        guard shares[Int(share)].references == 0 else { return }
        let old = shares[Int(share)]
        precondition(old.bytes == 0 && old.firstConnection == Self.none, "what a share was charged with has been freed")
        let source = Int(old.source)
        if sources[source].connecting == share { sources[source].connecting = Self.none }
        freeShares.append(share)
        sources[source].shareCount -= 1
        guard sources[source].shareCount == 0 else { return }
        sourcesByKey[sources[source].key] = nil
        freeSources.append(old.source)
    }

    /// The source of this key.
    private mutating func source(_ key: UInt64) -> UInt32 {
        if let known = sourcesByKey[key] { return known }
        let source = freeSources.popLast() ?? UInt32(sources.count)
        if source == sources.count { sources.append(Source(key: key)) } else { sources[Int(source)] = Source(key: key) }
        sourcesByKey[key] = source
        return source
    }

    private mutating func insert(into source: UInt32) -> UInt32 {
        let share = freeShares.popLast() ?? UInt32(shares.count)
        let fresh = Share(source: source)
        if share == shares.count { shares.append(fresh) } else { shares[Int(share)] = fresh }
        sources[Int(source)].shareCount += 1
        return share
    }

    // MARK: - Sums

    /// Charges a share with `bytes` more, or less.
    mutating func charge(_ bytes: Int, to share: UInt32) {
        let source = shares[Int(share)].source
        shares[Int(share)].bytes += bytes
        sources[Int(source)].bytes += bytes
        self.bytes += bytes
        precondition(shares[Int(share)].bytes >= 0, "no more is given back than was taken")
        list(share)
        listSource(source)
    }

    private func width(_ bytes: Int) -> Int { Int.bitWidth - bytes.leadingZeroBitCount }

    /// Puts a share into the list of its bytes, or into none if it can't give way.
    private mutating func list(_ share: UInt32) {
        let now = shares[Int(share)]
        let canGiveWay = now.bytes > 0 && !now.isSpared
        let source = Int(now.source)
        let list = canGiveWay ? UInt32(min(width(now.bytes) / 2, sources[source].lists.count - 1)) : Self.none
        guard list != now.list else { return }
        if now.list != Self.none {
            if now.previous == Self.none {
                sources[source].lists[Int(now.list)] = now.next
            } else {
                shares[Int(now.previous)].next = now.next
            }
            if now.next != Self.none { shares[Int(now.next)].previous = now.previous }
            sources[source].listedCount -= 1
        }
        shares[Int(share)].list = list
        (shares[Int(share)].previous, shares[Int(share)].next) = (Self.none, Self.none)
        guard list != Self.none else { return }
        let first = sources[source].lists[Int(list)]
        shares[Int(share)].next = first
        if first != Self.none { shares[Int(first)].previous = share }
        sources[source].lists[Int(list)] = share
        sources[source].listedCount += 1
    }

    /// Puts a source into the list of its bytes, or into none if none of its shares can give way.
    private mutating func listSource(_ source: UInt32) {
        let canGiveWay = sources[Int(source)].listedCount > 0
        let list = canGiveWay ? UInt32(width(sources[Int(source)].bytes)) : Self.none
        guard list != sources[Int(source)].list else { return }
        unlink(source)
        guard list != Self.none else { return }
        let first = lists[Int(list)]
        sources[Int(source)].list = list
        sources[Int(source)].next = first
        if first != Self.none { sources[Int(first)].previous = source }
        lists[Int(list)] = source
    }

    private mutating func unlink(_ source: UInt32) {
        let old = sources[Int(source)]
        guard old.list != Self.none else { return }
        if old.previous == Self.none {
            lists[Int(old.list)] = old.next
        } else {
            sources[Int(old.previous)].next = old.next
        }
        if old.next != Self.none { sources[Int(old.next)].previous = old.previous }
        sources[Int(source)].list = Self.none
        sources[Int(source)].next = Self.none
        sources[Int(source)].previous = Self.none
    }

    func bytes(of share: UInt32) -> Int { shares[Int(share)].bytes }
    func bytesOfSource(of share: UInt32) -> Int { sources[Int(shares[Int(share)].source)].bytes }

    // MARK: - Connections

    /// The first connection of a share; the others follow in their own links.
    func firstConnection(of share: UInt32) -> UInt32 { shares[Int(share)].firstConnection }

    mutating func setFirstConnection(_ slot: UInt32, of share: UInt32) {
        shares[Int(share)].firstConnection = slot
    }

    // MARK: - Who gives way

    /// The largest share of the largest source, of those not spared.
    func largest() -> UInt32? {
        for list in lists.indices.reversed() where lists[list] != Self.none {
            var (best, source, looked) = (lists[list], lists[list], 0)
            while source != Self.none && looked < Limits.memorySharesLookedAtMax {
                looked += 1
                if sources[Int(source)].bytes > sources[Int(best)].bytes { best = source }
                source = sources[Int(source)].next
            }
            return largestShare(of: best)
        }
        return nil
    }

    private func largestShare(of source: UInt32) -> UInt32? {
        for list in sources[Int(source)].lists.indices.reversed() {
            let first = sources[Int(source)].lists[list]
            guard first != Self.none else { continue }
            var (best, share, looked) = (first, first, 0)
            while share != Self.none && looked < Limits.memorySharesLookedAtMax {
                looked += 1
                if shares[Int(share)].bytes > shares[Int(best)].bytes { best = share }
                share = shares[Int(share)].next
            }
            return best
        }
        return nil
    }

    /// Leaves a share out of `largest` until `forgetSpared`: nothing in it can give way.
    mutating func spare(_ share: UInt32) {
        setSpared(share, true)
        spared.append(share)
    }

    mutating func forgetSpared() {
        for share in spared { setSpared(share, false) }
        spared.removeAll(keepingCapacity: true)
    }

    private mutating func setSpared(_ share: UInt32, _ isSpared: Bool) {
        shares[Int(share)].isSpared = isSpared
        list(share)
        listSource(shares[Int(share)].source)
    }
}

/// A connection's place in its share's list.
struct ShareLinks {
    var share = MemoryShares.none
    var next = MemoryShares.none
    var previous = MemoryShares.none
}
