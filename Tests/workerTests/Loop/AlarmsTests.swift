import Testing

@testable import worker

@Suite struct `The alarms of a worker` {
    private static func id(_ number: Int) -> SlotID { SlotID(slot: UInt32(number), generation: 1) }

    @Test func `go off in the order of their times, none before its own`() {
        var random = SplitMix64(seed: 7)
        var alarms = Alarms()
        var model: [(due: UInt64, slot: UInt32)] = []
        var now: UInt64 = 0
        for number in 0..<2000 {
            if random.next() % 3 != 0 {
                let due = now + random.next() % 50
                alarms.add(Self.id(number), due: due)
                model.append((due, UInt32(number)))
            } else {
                now += random.next() % 20
                var gone: [UInt32] = []
                while let id = alarms.next(upTo: now) { gone.append(id.slot) }
                let expected = model.filter { $0.due <= now }
                model.removeAll { $0.due <= now }
                #expect(gone.sorted() == expected.map(\.slot).sorted())
            }
            let (due, first) = (alarms.due, model.map(\.due).min() ?? .max)
            #expect(due == first && alarms.count == model.count)
        }
    }
}
