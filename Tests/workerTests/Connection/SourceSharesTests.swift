import Testing

@testable import worker

@Suite struct `Shares by source` {
    @Test func `name the party that has most, its oldest and its newest`() {
        var shares = SourceShares()
        #expect(shares.greediest == nil && shares.isEmpty && shares.oldest(of: 1) == nil)
        for (slot, party) in [(5, 1), (7, 2), (2, 1), (9, 1), (0, 2)] as [(UInt32, UInt64)] {
            shares.insert(slot, of: party)
        }
        #expect(shares.greediest?.key == 1 && shares.greediest?.count == 3)
        #expect(shares.count == 5 && shares.count(of: 1) == 3 && shares.count(of: 2) == 2 && shares.count(of: 3) == 0)
        #expect(shares.oldest(of: 1) == 5 && shares.newest(of: 1) == 9)
        shares.remove(5)
        shares.remove(5)
        #expect(shares.oldest(of: 1) == 2 && shares.count(of: 1) == 2)
        shares.remove(9)
        #expect(shares.greediest?.key == 2 && shares.greediest?.count == 2 && shares.newest(of: 1) == 2)
        for slot in [2, 7, 0] as [UInt32] { shares.remove(slot) }
        #expect(shares.greediest == nil && shares.isEmpty && shares.partyCount == 0)
    }

    @Test func `give each party its turn, however many it has in line`() {
        var shares = SourceShares()
        for slot in 0..<100 as Range<UInt32> { shares.insert(slot, of: 1) }
        for slot in 100..<103 as Range<UInt32> { shares.insert(slot, of: 2) }
        shares.insert(103, of: 3)
        var order: [UInt32] = []
        while let next = shares.next(looks: 1, where: { _ in true }) {
            shares.take(next)
            order.append(next)
            // Whoever comes meanwhile has a turn when all others have had one.
            if order.count == 2 { shares.insert(200, of: 4) }
        }
        #expect(order.prefix(10) == [0, 100, 103, 1, 101, 200, 2, 102, 3, 4])
        #expect(order.count == 105 && order.dropFirst(10).elementsEqual((5..<100).map { UInt32($0) }))
    }

    @Test func `pass over parties that can't, and ask no more than they may`() {
        var shares = SourceShares()
        for party in 0..<50 as Range<UInt64> { shares.insert(UInt32(party), of: party) }
        #expect(shares.next(looks: 10, where: { $0 == 9 }) == 9)
        #expect(shares.next(looks: 10, where: { $0 == 10 }) == nil)
        #expect(shares.next(looks: 1000, where: { _ in false }) == nil)
        shares.take(9)
        // The turn goes on behind the one that was taken.
        #expect(shares.next(looks: 1, where: { _ in true }) == 10)
    }

    /// The same, by what anybody would write.
    private struct Model {
        var slots: [(slot: UInt32, party: UInt64)] = []
        func count(of party: UInt64) -> Int { slots.count { $0.party == party } }
        var most: Int { Set(slots.map(\.party)).map { count(of: $0) }.max() ?? 0 }
    }

    @Test func `agree with a list, whoever comes and goes`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var shares = SourceShares()
        var model = Model()
        for round in 0..<20_000 {
            // Few parties with many, and many with few.
            let party =
                UInt64.random(in: 0..<3, using: &random) == 0
                ? UInt64.random(in: 0..<40, using: &random) : UInt64.random(in: 0..<3, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<4 where model.slots.count < 200:
                let free = (0..<300 as Range<UInt32>).first { slot in
                    !model.slots.contains { $0.slot == slot } && UInt8.random(in: 0..<3, using: &random) == 0
                }
                guard let free else { continue }
                shares.insert(free, of: party)
                model.slots.append((free, party))
            case 4:
                guard let next = shares.next(looks: 1, where: { _ in true }) else { continue }
                shares.take(next)
                model.slots.removeAll { $0.slot == next }
            case 5:
                guard let greediest = shares.greediest, let oldest = shares.oldest(of: greediest.key) else { continue }
                #expect(greediest.count == model.most, "seed \(seed), round \(round)")
                #expect(
                    oldest == model.slots.first { $0.party == greediest.key }?.slot, "seed \(seed), round \(round)")
                shares.remove(oldest)
                model.slots.removeAll { $0.slot == oldest }
            default:
                let slot = UInt32.random(in: 0..<300, using: &random)
                #expect(shares.contains(slot) == model.slots.contains { $0.slot == slot })
                shares.remove(slot)
                model.slots.removeAll { $0.slot == slot }
            }
            #expect(shares.count == model.slots.count, "seed \(seed), round \(round)")
            #expect(shares.count(of: party) == model.count(of: party), "seed \(seed), round \(round)")
            #expect(
                shares.newest(of: party) == model.slots.last { $0.party == party }?.slot, "seed \(seed), round \(round)"
            )
            #expect((shares.greediest?.count ?? 0) == model.most, "seed \(seed), round \(round)")
            #expect(shares.partyCount == Set(model.slots.map(\.party)).count)
        }
    }
}
