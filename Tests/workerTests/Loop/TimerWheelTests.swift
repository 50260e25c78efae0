import Testing

@testable import worker

private struct Item: ~Copyable, Timed {
    var timer = TimerLinks()
}

/// A wheel, its slab, and what should be in them.
private struct Fixture: ~Copyable {
    var slab = Slab<Item>()
    var wheel: TimerWheel<Item>
    /// The second in which each slot's timer is due.
    var model: [UInt32: UInt32] = [:]

    init(now: UInt32) {
        wheel = TimerWheel(now: now)
    }

    mutating func insert() -> UInt32 {
        slab.insert(Item()).slot
    }

    mutating func set(_ slot: UInt32, due: UInt32) {
        model[slot] = max(due, wheel.now + 1)
        wheel.set(slot, in: &slab, due: due)
    }

    mutating func clear(_ slot: UInt32) {
        model[slot] = nil
        wheel.clear(slot, in: &slab)
    }

    mutating func turn(to now: UInt32) -> [UInt32] {
        var due: [UInt32] = []
        while let slot = wheel.next(upTo: now, in: &slab) { due.append(slot) }
        return due
    }

    /// What the model says of a turn, second by second; within a second in no order.
    mutating func expected(to now: UInt32) -> [[UInt32]] {
        let due = model.filter { $0.value <= now }
        for slot in due.keys { model[slot] = nil }
        let seconds = Dictionary(grouping: due, by: \.value)
        return seconds.keys.sorted().map { second in (seconds[second] ?? []).map(\.key).sorted() }
    }
}

@Suite struct `Timers` {
    @Test(arguments: [1, 2, 254, 255, 256, 257, 300, 511, 512, 1000, 3600] as [UInt32])
    func `go off in their second, not before and not after, however far off`(seconds: UInt32) {
        // 250: so that bucket 0 is passed.
        var fixture = Fixture(now: 250)
        let slot = fixture.insert()
        fixture.set(slot, due: 250 + seconds)
        for second in 1..<seconds {
            let due = fixture.turn(to: 250 + second)
            #expect(due == [], "second \(second)")
        }
        let (isSet, noted) = (fixture.slab[slot].timer.isSet, fixture.slab[slot].timer.due)
        #expect(isSet)
        #expect(noted == 250 + seconds)
        let due = fixture.turn(to: 250 + seconds)
        #expect(due == [slot])
        let isSetAfter = fixture.slab[slot].timer.isSet
        #expect(!isSetAfter)
        let again = fixture.turn(to: 250 + 2 * seconds + 600)
        #expect(again == [])
    }

    @Test func `go off once in a turn over many seconds, in the order of their seconds`() {
        var fixture = Fixture(now: 7)
        let slots = (0..<5).map { _ in fixture.insert() }
        for (slot, due) in zip(slots, [900, 8, 300, 263, 262] as [UInt32]) { fixture.set(slot, due: due) }
        let due = fixture.turn(to: 1000)
        #expect(due == [slots[1], slots[4], slots[3], slots[2], slots[0]])
        let now = fixture.wheel.now
        #expect(now == 1000)
    }

    @Test func `that are due already go off in the next second`() {
        var fixture = Fixture(now: 100)
        let slots = (0..<3).map { _ in fixture.insert() }
        for (slot, due) in zip(slots, [0, 99, 100] as [UInt32]) { fixture.set(slot, due: due) }
        let none = fixture.turn(to: 100)
        #expect(none == [])
        let due = fixture.turn(to: 101)
        #expect(due.sorted() == slots)
    }

    @Test func `that are set again go off in the new second alone`() {
        for (first, second) in [(5, 300), (300, 5), (5, 6), (5, 5), (255, 511)] as [(UInt32, UInt32)] {
            var fixture = Fixture(now: 0)
            let slot = fixture.insert()
            fixture.set(slot, due: first)
            fixture.set(slot, due: second)
            let before = fixture.turn(to: second - 1)
            let then = fixture.turn(to: second)
            let after = fixture.turn(to: 1000)
            #expect(before == [])
            #expect(then == [slot])
            #expect(after == [])
        }
    }

    @Test func `that are cleared don't go off, and those beside them do`() {
        // The first, one in the middle and the last of a bucket's list.
        for cleared in 0..<3 {
            var fixture = Fixture(now: 0)
            let slots = (0..<3).map { _ in fixture.insert() }
            for slot in slots { fixture.set(slot, due: 10) }
            fixture.clear(slots[cleared])
            fixture.clear(slots[cleared])
            let due = fixture.turn(to: 10)
            #expect(due.sorted() == slots.filter { $0 != slots[cleared] })
        }
    }

    @Test func `do as a naive list of due times does`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var fixture = Fixture(now: UInt32.random(in: 0...100_000, using: &random))
        var slots = (0..<150).map { _ in fixture.insert() }
        for round in 0..<20_000 {
            let index = Int.random(in: 0..<slots.count, using: &random)
            let slot = slots[index]
            switch Int.random(in: 0..<12, using: &random) {
            case 0...6:
                let far: UInt32 = [3, 60, 255, 256, 257, 1000].randomElement(using: &random) ?? 1
                fixture.set(slot, due: fixture.wheel.now + UInt32.random(in: 0...far, using: &random))
            case 7:
                fixture.clear(slot)
            case 8:
                // A value goes and another takes its slot.
                fixture.clear(slot)
                _ = fixture.slab.remove(slot)
                slots[index] = fixture.insert()
            default:
                let most: UInt32 = round.isMultiple(of: 50) ? 700 : 4
                let now = fixture.wheel.now + UInt32.random(in: 0...most, using: &random)
                var due = fixture.turn(to: now)
                for expected in fixture.expected(to: now) {
                    let part = due.prefix(expected.count).sorted()
                    #expect(part == expected, "seed \(seed), round \(round)")
                    due.removeFirst(min(due.count, expected.count))
                }
                #expect(due == [], "seed \(seed), round \(round): more than is due")
            }
            let isSet = fixture.slab[slots[index]].timer.isSet
            let isExpected = fixture.model[slots[index]] != nil
            #expect(isSet == isExpected, "seed \(seed), round \(round)")
        }
    }
}
