import Glibc
import Testing

@Suite struct `relay-load check` {
    private func check(_ relay: Relay, rooms: Int) async throws {
        let result = try await run(
            try program("relay-load"),
            ["check", "--url", "ws://127.0.0.1:\(relay.port)", "--rooms", "\(rooms)", "--timeout", "60"], seconds: 120)
        #expect(result.end == .status(0), "\(result.output)\n\(result.errors)")
    }

    @Test(arguments: [(1, 4), (2, 8), (4, 16)])
    func `finds nothing wrong`(workers: Int, rooms: Int) async throws {
        try await Relay.run(workers: workers, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            try await check(relay, rooms: rooms)
        }
    }

    @Test func `finds nothing wrong over TLS`() async throws {
        try await Relay.runTLS(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let result = try await run(
                try program("relay-load"),
                [
                    "check", "--url", "wss://127.0.0.1:\(relay.port)", "--insecure", "--rooms", "8", "--timeout", "60",
                ], seconds: 120)
            #expect(result.end == .status(0), "\(result.output)\n\(result.errors)")
        }
    }

    @Test func `finds nothing wrong after a worker was replaced`() async throws {
        try await Relay.run(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"], losesWorkers: true) { relay in
            let victim = try #require(relay.workerPIDs.first)
            kill(victim, SIGKILL)
            try await eventually("a successor") { !relay.workerPIDs.contains(victim) && relay.workerPIDs.count == 2 }
            try await relay.healthy()
            try await check(relay, rooms: 8)
        }
    }

    @Test func `says that a relay can't be reached`() async throws {
        // A port that was free a moment ago.
        var port = 0
        try await Relay.run(workers: 1) { relay in
            port = relay.port
            relay.process.signal(SIGTERM)
            _ = try await relay.process.ended()
        }
        let result = try await run(try program("relay-load"), ["check", "--url", "ws://127.0.0.1:\(port)"])
        #expect(result.end == .status(2))
    }
}
