import Testing

@testable import worker

/// Counts the values that are alive.
private final class Census {
    var alive = 0
}

/// A value that is noticed when it is destroyed.
private struct Citizen: ~Copyable {
    var name: Int
    private let census: Census

    init(_ name: Int, _ census: Census) {
        self.name = name
        self.census = census
        census.alive += 1
    }

    deinit {
        census.alive -= 1
    }
}

@Suite struct `Slabs` {
    private func address(_ slab: inout Slab<Citizen>, _ slot: UInt32) -> UInt {
        withUnsafeMutablePointer(to: &slab[slot]) { UInt(bitPattern: $0) }
    }

    @Test func `recognise an id whose value is gone, also when the slot is used again`() {
        let census = Census()
        var slab = Slab<Citizen>()
        let first = slab.insert(Citizen(1, census))
        let isThere = slab.contains(first)
        #expect(isThere)
        _ = slab.remove(first.slot)
        let isGone = !slab.contains(first)
        #expect(isGone)
        let second = slab.insert(Citizen(2, census))
        #expect(second.slot == first.slot, "the slot that was freed last is used first: it is in the cache")
        #expect(second != first)
        let (old, new) = (slab.contains(first), slab.contains(second))
        #expect(!old)
        #expect(new)
        let current = slab.id(second.slot)
        #expect(current == second)
    }

    @Test func `know ids that never were`() {
        let census = Census()
        var slab = Slab<Citizen>()
        let never = [SlotID(slot: 0, generation: 0), SlotID(slot: 0, generation: 1), SlotID(word: .max)]
        for id in never {
            let isThere = slab.contains(id)
            #expect(!isThere)
        }
        let id = slab.insert(Citizen(1, census))
        // A free slot of the chunk, with the generation that it has.
        let free = slab.id(id.slot + 1)
        for id in [free, SlotID(slot: id.slot, generation: id.generation + 2), SlotID(slot: 128, generation: 1)] {
            let isThere = slab.contains(id)
            #expect(!isThere)
        }
    }

    @Test func `write an id as one word and read it back`() {
        for id in [
            SlotID(slot: 0, generation: 0), SlotID(slot: 1, generation: 2), SlotID(slot: .max, generation: 0),
            SlotID(slot: 0, generation: .max), SlotID(slot: 0x1234_5678, generation: 0x9ABC_DEF0),
        ] {
            #expect(SlotID(word: id.word) == id)
        }
        #expect(SlotID(slot: 1, generation: 2).word == 0x0000_0002_0000_0001)
    }

    @Test func `do as a dictionary does, never move a value and destroy each once`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        let census = Census()
        do {
            var slab = Slab<Citizen>()
            var model: [UInt32: (id: SlotID, name: Int, address: UInt)] = [:]
            var gone: [SlotID] = []
            for round in 0..<20_000 {
                // Fills over several chunks, then thins out, and again.
                let fills = !(round / 2000).isMultiple(of: 2)
                if model.isEmpty || Int.random(in: 0..<10, using: &random) < (fills ? 7 : 3) {
                    let id = slab.insert(Citizen(round, census))
                    #expect(model[id.slot] == nil, "seed \(seed): a slot has one value")
                    model[id.slot] = (id, round, address(&slab, id.slot))
                } else if let (slot, entry) = model.randomElement(using: &random) {
                    let value = slab.remove(slot)
                    let name = value.name
                    #expect(name == entry.name, "seed \(seed)")
                    model[slot] = nil
                    gone.append(entry.id)
                }
                if let (slot, entry) = model.randomElement(using: &random) {
                    let (name, isThere, place) = (slab[slot].name, slab.contains(entry.id), address(&slab, slot))
                    #expect(name == entry.name && isThere && place == entry.address, "seed \(seed), round \(round)")
                    slab[slot].name = -round
                    model[slot]?.name = -round
                }
                if let id = gone.randomElement(using: &random) {
                    let isThere = slab.contains(id)
                    #expect(!isThere, "seed \(seed), round \(round): \(id) is gone")
                }
                let count = slab.count
                #expect(count == model.count && census.alive == count, "seed \(seed), round \(round)")
            }
            let occupied = slab.slots.filter { slab.isOccupied($0) }
            #expect(occupied == model.keys.sorted(), "seed \(seed)")
            #expect(!model.isEmpty)
        }
        #expect(census.alive == 0, "seed \(seed): what is left goes with the slab")
    }
}
