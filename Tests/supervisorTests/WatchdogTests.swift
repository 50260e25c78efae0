import Shared
import Testing

@testable import supervisor

@Suite struct `The watchdog` {
    /// Verdicts of looks at one process, a second apart.
    private func verdicts(
        _ looks: [(heartbeat: UInt64, state: Character?, cpuSeconds: Double?)], looksMax: Int = 5
    ) -> [Watchdog.Verdict] {
        var watchdog = Watchdog()
        return looks.map { look in
            watchdog.look(
                Watchdog.Look(heartbeat: look.heartbeat, state: look.state, cpuSeconds: look.cpuSeconds),
                looksMax: looksMax)
            return watchdog.verdict
        }
    }

    @Test func `finds well what moves, however much it uses`() {
        let looks = (1...100).map { (UInt64($0), Character?("R"), Optional(Double($0))) }
        #expect(verdicts(looks).allSatisfy { $0 == .well })
    }

    @Test(arguments: ["S", "D", "T", "t", "Z"] as [Character])
    func `finds that hangs what waits, at its fifth silent look`(state: Character) {
        let looks = Array(repeating: (UInt64(7), Optional(state), Optional(3.0)), count: 7)
        #expect(verdicts(looks) == [.well, .well, .well, .well, .well, .hangs, .hangs])
    }

    @Test func `finds that hangs what runs in a circle`() {
        let looks = (0..<7).map { (UInt64(7), Character?("R"), Optional(Double($0))) }
        #expect(verdicts(looks) == [.well, .well, .well, .well, .well, .hangs, .hangs])
        // From the first silent look on: a second of CPU time, and not a tick less.
        let ticks = [0, 5, 5, 5, 5, 5.99, 6].map { (UInt64(7), Character?("R"), Optional($0)) }
        #expect(verdicts(ticks).suffix(2) == [.starved, .hangs])
    }

    @Test func `leaves alone what wants to run and is not let, and finds it well when it moves again`() {
        let silent = Array(repeating: (UInt64(7), Character?("R"), Optional(3.0)), count: 20)
        #expect(
            verdicts(silent + [(8, "R", 3)]) == Array(repeating: .well, count: 5)
                + Array(repeating: .starved, count: 15) + [.well])
    }

    @Test func `goes by the heartbeat alone where /proc does not say`() {
        #expect(verdicts(Array(repeating: (7, nil, nil), count: 6)).last == .hangs)
        #expect(verdicts(Array(repeating: (7, "R", nil), count: 6)).last == .hangs)
    }

    @Test func `gives a process that begins more looks`() {
        let looks = Array(repeating: (UInt64(7), Character?("S"), Optional(3.0)), count: 31)
        #expect(verdicts(looks, looksMax: 30).firstIndex(of: .hangs) == 30)
    }

    @Test func `counts anew from each beat`() {
        let beats: [UInt64] = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]
        #expect(verdicts(beats.map { ($0, "S", 1) }).allSatisfy { $0 == .well })
    }
}
