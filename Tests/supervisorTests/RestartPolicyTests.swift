import Testing

@testable import supervisor

@Suite struct `The restart policy` {
    private let second: UInt64 = 1_000_000_000
    private let millisecond: UInt64 = 1_000_000

    @Test func `replaces a worker at once, then after 100 ms that double up to 10 s, for ever`() {
        var policy = RestartPolicy()
        let pauses = (0..<12).map { _ in policy.died(uptime: second) / millisecond }
        #expect(pauses == [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000])
        for _ in 0..<1000 { #expect(policy.died(uptime: 0) == 10 * second) }
        #expect(policy.deathsInRow == 1012)
    }

    @Test func `forgets what was before a process that lived for 60 s`() {
        for (uptime, pause) in [
            (60 * second, 0), (61 * second, 0), (.max, 0), (60 * second - 1, 400), (0, 400),
        ] as [(UInt64, UInt64)] {
            var policy = RestartPolicy()
            for _ in 0..<3 { _ = policy.died(uptime: 0) }
            #expect(policy.died(uptime: uptime) == pause * millisecond, "after \(uptime) ns")
            // And goes on from there.
            #expect(policy.died(uptime: 0) == (pause == 0 ? 100 : 800) * millisecond)
        }
    }

    @Test func `treats the first death like any later one of a healthy process`() {
        var policy = RestartPolicy()
        #expect(policy.died(uptime: 3600 * second) == 0)
        #expect(policy.died(uptime: 3600 * second) == 0)
        #expect(policy.died(uptime: 0) == 100 * millisecond)
    }
}
