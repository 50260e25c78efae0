import Testing

@testable import loadtest

@Suite struct `Timers of a soak` {
    @Test func `fire in the order of their times, and not before`() {
        var timers = SoakTimers()
        var random = SoakRandom(seed: 4)
        let times = (0..<500).map { _ in UInt64(random.pick(0...1000)) }
        for time in times { timers.add(.act, at: time, member: UInt32(time)) }
        var fired: [UInt64] = []
        for now in UInt64(0)...1000 {
            while let entry = timers.take(now: now) {
                #expect(entry.due == now)
                fired.append(entry.due)
            }
        }
        #expect(fired == times.sorted())
        #expect(timers.nextDue == .max)
    }
}
