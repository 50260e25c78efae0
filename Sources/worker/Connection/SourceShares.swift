// Who has how many of something that is short, and in which order they came: connections that have not joined,
// handshakes that wait, handshakes under way. Each party (AddressKeys.party: an IPv4 address or a /48) has a list of
// slots, oldest first. When places are short, the party that has most gives way; where turns are given out, each party
// has one in its turn, however many it has in line.
//
// Every operation takes a fixed number of steps, however the slots are spread: slots are threaded into lists, parties
// into a list of those that have as many, and into a ring. A party is there as long as it has something. Memory: 12
// bytes a slot up to the highest in use, and some 100 bytes a party.

/// Slots by the party that they are of.
struct SourceShares {
    private static let none = UInt32.max

    private struct Entry {
        var party = SourceShares.none
        var previous = SourceShares.none
        var next = SourceShares.none
    }

    private struct Party {
        var key: UInt64 = 0
        var count = 0
        /// Slots.
        var oldest = SourceShares.none
        var newest = SourceShares.none
        /// Parties that have as many.
        var previousEqual = SourceShares.none
        var nextEqual = SourceShares.none
        /// The ring of all parties.
        var previous = SourceShares.none
        var next = SourceShares.none
    }

    private var entries: [Entry] = []
    private var parties: [Party] = []
    private var freeParties: [UInt32] = []
    private var partiesByKey: [UInt64: UInt32] = [:]
    /// By count: the first of the parties that have so many.
    private var firstWith: [UInt32] = [none]
    private var most = 0
    /// The party in the ring whose turn it is.
    private var turn = none

    /// How many slots there are, over all parties.
    private(set) var count = 0
    var isEmpty: Bool { count == 0 }
    var partyCount: Int { partiesByKey.count }

    func contains(_ slot: UInt32) -> Bool {
        slot < entries.count && entries[Int(slot)].party != Self.none
    }

    /// How many a party has.
    func count(of party: UInt64) -> Int {
        partiesByKey[party].map { parties[Int($0)].count } ?? 0
    }

    // MARK: - Coming and going

    /// Adds a slot, as its party's newest.
    mutating func insert(_ slot: UInt32, of key: UInt64) {
        precondition(!contains(slot), "a slot is in one place")
        if slot >= entries.count {
            entries.append(contentsOf: repeatElement(Entry(), count: Int(slot) + 1 - entries.count))
        }
        let party = partiesByKey[key] ?? add(key)
        let newest = parties[Int(party)].newest
        entries[Int(slot)] = Entry(party: party, previous: newest, next: Self.none)
        if newest == Self.none {
            parties[Int(party)].oldest = slot
        } else {
            entries[Int(newest)].next = slot
        }
        parties[Int(party)].newest = slot
        change(party, by: 1)
        count += 1
    }

    /// Removes a slot, if it is there.
    mutating func remove(_ slot: UInt32) {
        guard contains(slot) else { return }
        let entry = entries[Int(slot)]
        entries[Int(slot)] = Entry()
        let party = Int(entry.party)
        if entry.previous == Self.none {
            parties[party].oldest = entry.next
        } else {
            entries[Int(entry.previous)].next = entry.next
        }
        if entry.next == Self.none {
            parties[party].newest = entry.previous
        } else {
            entries[Int(entry.next)].previous = entry.previous
        }
        change(entry.party, by: -1)
        count -= 1
        if parties[party].count == 0 { forget(entry.party) }
    }

    private mutating func add(_ key: UInt64) -> UInt32 {
        let party: UInt32
        if let free = freeParties.popLast() {
            party = free
        } else {
            party = UInt32(parties.count)
            parties.append(Party())
        }
        parties[Int(party)] = Party(key: key)
        partiesByKey[key] = party
        // Its turn comes when everybody else has had one.
        if turn == Self.none {
            parties[Int(party)].previous = party
            parties[Int(party)].next = party
            turn = party
        } else {
            let last = parties[Int(turn)].previous
            parties[Int(party)].previous = last
            parties[Int(party)].next = turn
            parties[Int(last)].next = party
            parties[Int(turn)].previous = party
        }
        return party
    }

    private mutating func forget(_ party: UInt32) {
        let gone = parties[Int(party)]
        partiesByKey[gone.key] = nil
        freeParties.append(party)
        if gone.next == party {
            turn = Self.none
        } else {
            parties[Int(gone.previous)].next = gone.next
            parties[Int(gone.next)].previous = gone.previous
            if turn == party { turn = gone.next }
        }
    }

    /// Puts a party among those that have one more, or one less.
    private mutating func change(_ party: UInt32, by difference: Int) {
        let (before, previous, next) = (
            parties[Int(party)].count, parties[Int(party)].previousEqual, parties[Int(party)].nextEqual
        )
        if before > 0 {
            if previous == Self.none {
                firstWith[before] = next
            } else {
                parties[Int(previous)].nextEqual = next
            }
            if next != Self.none { parties[Int(next)].previousEqual = previous }
        }
        let now = before + difference
        parties[Int(party)].count = now
        parties[Int(party)].previousEqual = Self.none
        parties[Int(party)].nextEqual = Self.none
        if now > 0 {
            if now == firstWith.count { firstWith.append(Self.none) }
            let first = firstWith[now]
            parties[Int(party)].nextEqual = first
            if first != Self.none { parties[Int(first)].previousEqual = party }
            firstWith[now] = party
        }
        // The party that had most has at most one less, so this is a step.
        most = max(most, now)
        if most > 0 && firstWith[most] == Self.none { most -= 1 }
    }

    // MARK: - Who gives way

    /// A party that has most, and how many; nil if there is none.
    var greediest: (key: UInt64, count: Int)? {
        most == 0 ? nil : (parties[Int(firstWith[most])].key, most)
    }

    func oldest(of party: UInt64) -> UInt32? {
        partiesByKey[party].map { parties[Int($0)].oldest }
    }

    func newest(of party: UInt64) -> UInt32? {
        partiesByKey[party].map { parties[Int($0)].newest }
    }

    // MARK: - Turns

    /// The oldest of the party whose turn it is, of those parties whose oldest may: as many are asked as `looks`. They
    /// are asked in the order of their turns.
    func next(looks: Int, where isReady: (UInt32) -> Bool) -> UInt32? {
        var party = turn
        for _ in 0..<min(looks, partyCount) {
            let slot = parties[Int(party)].oldest
            if isReady(slot) { return slot }
            party = parties[Int(party)].next
        }
        return nil
    }

    /// Takes out a slot that has its turn: the next turn is that of the party after its own.
    mutating func take(_ slot: UInt32) {
        guard contains(slot) else { return }
        turn = parties[Int(entries[Int(slot)].party)].next
        remove(slot)
    }
}
