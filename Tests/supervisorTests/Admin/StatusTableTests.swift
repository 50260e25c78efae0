import Testing

@testable import supervisor

@Suite struct `The table` {
    @Test func `is aligned, numbers to the right and words to the left`() {
        #expect(
            StatusTable.text(.example()) == """
                relay 1.2.3: degraded, 1 of 2 workers serving, up 3h 4m
                generation 2, 3 rooms, 12 clients, 14 connections, 2 restarts
                memory for connections 0.0M of 512.0M, the kernel's for TCP 0.0M
                sandbox: limits, seccomp; without capabilities, no_new_privileges, landlock

                WORKER  GEN   PID  STATE       UP  RESTARTS  ROOMS  CLIENTS  CONNS     LAG  BEAT  MEMORY    CPU  LAST EXIT
                     0    2  4711  serving  3h 4m         0      3       12     14  0.15ms  0.3s   15.5M  12.3s  -
                     1    2     -  down         -         2      0        0      0  0.00ms     -       -   0.0s  exit 71 (could not begin): "no" memory

                """)
    }

    @Test func `says what became of the last change, and that one goes on`() {
        var report = RelayReport.example()
        report.lastChange = "reloaded: 3 rooms with 12 clients moved to 2 workers in 9 ms"
        report.isChanging = true
        let lines = StatusTable.text(report).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[4] == "last change: reloaded: 3 rooms with 12 clients moved to 2 workers in 9 ms")
        #expect(lines[5] == "rooms are moving to other workers")
        #expect(lines[6].isEmpty)
    }

    @Test(
        arguments: [
            (0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (86_399, "23h 59m"),
            (86_400, "1d 0h"), (90_000, "1d 1h"), (-1, "-"), (.nan, "-"), (1e300, "-"),
        ] as [(Double, String)])
    func `tells a duration by its two largest units`(seconds: Double, text: String) {
        #expect(StatusTable.duration(seconds) == text)
    }
}
