import Glibc
import Testing

@Suite struct `A worker that ends` {
    @Test func `is told of in the log, with what was lost`() async throws {
        try await Relay.runAdmin(workers: 1, losesWorkers: true) { relay, admin in
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            let victim = try #require(relay.workerPIDs.first)
            kill(victim, SIGKILL)
            for member in [host, guest] { #expect(try await member.ended() == .cut) }
            let line = try await awaited("the report") {
                relay.process.errors.split(separator: "\n").first { $0.contains(" worker died ") }
            }
            for field in [
                "worker=0", "pid=\(victim)", #"cause="signal 9 (Killed)""#, "rooms=1", "clients=2", "connections=2",
                "restart_in=0ms", "uptime=",
            ] {
                #expect(line.contains(field), "\(field) in \(line)")
            }
            try await relay.healthy()
        }
    }

    @Test(arguments: [78, 69, 64] as [Int32])
    func `before any has served, for a reason that stays, ends the relay with it`(status: Int32) async throws {
        try await runRelay(worker: "exit \(status)", [:]) { process in
            let end = try await process.finished()
            #expect(end == .status(status))
            #expect(process.errors.contains("can't start: a worker could not begin, and none ever will"))
            #expect(process.errors.contains("exit \(status) ("))
        }
    }

    @Test func `before any has served, for a reason that may pass, is tried again`() async throws {
        try await runRelay(worker: "exit 71", ["RELAY_METRICS_ADDR": "127.0.0.1:0"]) { process in
            let admin = try await Admin(process)
            try await eventually("a few attempts") {
                let health = try await admin.health()
                #expect(health.status == "unavailable")
                return health.restarts >= 3 && health.workers[0].lastExit == "exit 71 (could not begin)"
            }
            #expect(try await admin.answer("/readyz").answer == "503 starting\n")
            process.signal(SIGTERM)
            #expect(try await process.ended() == .status(0))
        }
    }
}
