import Shared
import Testing

@testable import worker

@Suite struct `Shares of memory` {
    @Test func `are charged, and their sources with them`() {
        var shares = MemoryShares()
        let room = shares.openRoom(source: 1)
        let other = shares.openRoom(source: 2)
        let connecting = shares.connecting(source: 1)
        shares.charge(100, to: room)
        shares.charge(70, to: connecting)
        shares.charge(150, to: other)
        let bytes = shares.bytes
        #expect(bytes == 320)
        // The source holds most with both, and of them the room is the larger.
        let largest1 = shares.largest()
        #expect(largest1 == room)
        shares.charge(-40, to: room)
        let largest2 = shares.largest()
        #expect(largest2 == other)
        shares.charge(-150, to: other)
        let largest3 = shares.largest()
        #expect(largest3 == connecting)
    }

    @Test func `of one source's connections are one, which ends with the last`() {
        var shares = MemoryShares()
        let first = shares.connecting(source: 7)
        let (same, another) = (shares.connecting(source: 7), shares.connecting(source: 8))
        #expect(same == first && another != first)
        let both = (shares.count, shares.sourceCount)
        #expect(both == (2, 2))
        shares.release(first)
        let still = shares.count
        #expect(still == 2)
        shares.release(first)
        let left = (shares.count, shares.sourceCount)
        #expect(left == (1, 1))
    }

    @Test func `are left out while nothing of them can give way`() {
        var shares = MemoryShares()
        let (large, small) = (shares.openRoom(source: 1), shares.openRoom(source: 2))
        shares.charge(1000, to: large)
        shares.charge(10, to: small)
        shares.spare(large)
        let largest4 = shares.largest()
        #expect(largest4 == small)
        shares.spare(small)
        let largest5 = shares.largest()
        #expect(largest5 == nil)
        shares.forgetSpared()
        let largest6 = shares.largest()
        #expect(largest6 == large)
    }

    @Test func `are found behind thousands that hold little or are left out, in one source and in many`() {
        let looked = UInt64(Limits.memorySharesLookedAtMax)
        for isOneSource in [true, false] {
            var shares = MemoryShares()
            let large = shares.openRoom(source: 1)
            let small = shares.openRoom(source: isOneSource ? 1 : 2)
            shares.charge(1 << 20, to: large)
            shares.charge(100, to: small)
            var others: [UInt32] = []
            for number in 0..<(2 * looked) {
                let other = shares.openRoom(source: isOneSource ? 1 : 3 + number)
                shares.charge(100, to: other)
                others.append(other)
            }
            let first = shares.largest()
            #expect(first == large)
            // As many as there are in front of it, if those who can't give way stood there.
            for other in others { shares.spare(other) }
            shares.spare(large)
            let second = shares.largest()
            #expect(second == small)
            shares.forgetSpared()
            let third = shares.largest()
            #expect(third == large)
            shares.charge(100 - 1 << 20, to: large)
            let fourth = shares.largest()
            #expect(fourth != nil)
        }
    }

    @Test func `are found as by a look at all of them, whatever happens`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var shares = MemoryShares()
        /// By share: source and bytes.
        var model: [UInt32: (source: UInt64, bytes: Int)] = [:]
        for round in 0..<5000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<2:
                let source = UInt64.random(in: 0..<12, using: &random)
                let share = shares.openRoom(source: source)
                #expect(model[share] == nil, "seed \(seed), round \(round)")
                model[share] = (source, 0)
            case 2:
                guard let share = model.keys.randomElement(using: &random), let old = model.removeValue(forKey: share)
                else { continue }
                shares.charge(-old.bytes, to: share)
                shares.release(share)
            default:
                guard let (share, old) = model.randomElement(using: &random) else { continue }
                let bytes = Int.random(in: 0...(1 << Int.random(in: 0...20, using: &random)), using: &random)
                shares.charge(bytes - old.bytes, to: share)
                model[share]?.bytes = bytes
            }
            var sources: [UInt64: Int] = [:]
            for (source, bytes) in model.values { sources[source, default: 0] += bytes }
            let most = sources.values.max() ?? 0
            guard shares.bytes == sources.values.reduce(0, +), shares.count == model.count,
                shares.sourceCount == sources.count
            else {
                Issue.record("seed \(seed), round \(round): the sums")
                return
            }
            let largest = shares.largest()
            guard let largest, let found = model[largest] else {
                #expect(most == 0 && largest == nil, "seed \(seed), round \(round)")
                continue
            }
            let largestOfSource = model.values.filter { $0.source == found.source }.map(\.bytes).max()
            guard sources[found.source] == most, found.bytes == largestOfSource else {
                Issue.record("seed \(seed), round \(round): the largest")
                return
            }
        }
        for (share, old) in model {
            shares.charge(-old.bytes, to: share)
            shares.release(share)
        }
        let left = (shares.bytes, shares.count, shares.sourceCount)
        #expect(left == (0, 0, 0))
    }
}

@Suite struct `A worker's part of the memory` {
    private let piece = Limits.memoryPieceBytes

    private func make(workers: Int, pieces: Int) throws -> (Configuration, MemoryPool) {
        var configuration = Configuration()
        configuration.workers = workers
        let floors = workers * Limits.memoryFloorBytes(configuration)
        configuration.memoryBytesMax = (floors + piece - 1) / piece * piece + pieces * piece
        return (configuration, try SharedMemory.create(in: try SharedMemory.makeFile()).memoryPool)
    }

    @Test func `is its floor, and pieces of the pool as it needs them`() throws {
        let (configuration, pool) = try make(workers: 1, pieces: 16)
        var budget = MemoryBudget(configuration, pool)
        budget.takeFloor()
        let floor = Limits.memoryFloorBytes(configuration)
        #expect((budget.granted, pool.taken) == (floor, floor))
        let did7 = budget.grow(toHold: floor)
        #expect(did7)
        #expect(pool.taken == floor)
        let did8 = budget.grow(toHold: floor + 1)
        #expect(did8)
        #expect((budget.granted, pool.taken) == (floor + piece, floor + piece))
        let did9 = budget.grow(toHold: floor + 3 * piece)
        #expect(did9)
        #expect(pool.taken == floor + 3 * piece)
        let did10 = budget.grow(toHold: floor + 100 * piece)
        #expect(!did10)
        #expect((budget.granted, pool.taken) == (floor + 3 * piece, floor + 3 * piece))
    }

    @Test func `shrinks to what is needed and two pieces, never below the floor`() throws {
        let (configuration, pool) = try make(workers: 1, pieces: 32)
        var budget = MemoryBudget(configuration, pool)
        budget.takeFloor()
        let floor = Limits.memoryFloorBytes(configuration)
        let did11 = budget.grow(toHold: floor + 20 * piece)
        #expect(did11)
        var told: [Int] = []
        // The page says it before the pool does: a worker that dies in between must not be given back more than it had.
        let tell = { (left: Int) in
            #expect(pool.taken > left)
            told.append(left)
        }
        budget.shrink(toHold: floor + 10 * piece, tell: tell)
        #expect((floor + 11 * piece)...(floor + 12 * piece) ~= budget.granted)
        #expect(pool.taken == budget.granted)
        budget.shrink(toHold: floor + 10 * piece, tell: tell)
        #expect(told == [budget.granted])
        budget.shrink(toHold: 0, tell: tell)
        #expect((budget.granted, pool.taken) == (floor, floor))
        budget.shrink(toHold: 0, tell: tell)
        #expect(told.count == 2 && told.last == floor)
    }

    @Test func `is not the last eighth of the pool for one that has more than its equal part`() throws {
        let (configuration, pool) = try make(workers: 2, pieces: 40)
        var greedy = MemoryBudget(configuration, pool)
        var quiet = MemoryBudget(configuration, pool)
        greedy.takeFloor()
        quiet.takeFloor()
        while greedy.grow(toHold: greedy.granted + 1) {}
        let max = configuration.memoryBytesMax
        #expect(pool.taken <= max - max / 8)
        #expect(pool.taken > max - max / 8 - piece)
        let did16 = quiet.grow(toHold: quiet.granted + 1)
        #expect(did16)
        while quiet.granted + piece <= max / 2 && quiet.grow(toHold: quiet.granted + 1) {}
        #expect(pool.taken > max - piece && pool.taken <= max)
    }

    @Test func `has its floor at a reload, though others have all there is`() throws {
        let (configuration, pool) = try make(workers: 1, pieces: 4)
        pool.takeAnyhow(configuration.memoryBytesMax)
        var budget = MemoryBudget(configuration, pool)
        budget.takeFloor()
        #expect(pool.taken == configuration.memoryBytesMax + budget.granted)
        let did17 = budget.grow(toHold: budget.granted + 1)
        #expect(!did17)
        pool.give(configuration.memoryBytesMax)
        let did18 = budget.grow(toHold: budget.granted + 1)
        #expect(did18)
    }
}
