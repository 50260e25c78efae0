import Glibc
import Testing

@Suite struct `The relay's memory` {
    @Test func `is less than the workers need: an error that says how much, and 78`() async throws {
        let environment = ["RELAY_WORKERS": "4", "RELAY_MAX_MEMORY": "33554431", "RELAY_ADDR": "127.0.0.1:0"]
        let result = try await run(try program("relay"), ["run"], environment: environment)
        #expect(result.end == .status(78))
        #expect(result.errors.contains("RELAY_MAX_MEMORY=\"33554431\": allowed: at least 33554432"))
        #expect(result.errors.contains("RELAY_WORKERS=4"))
    }

    /// One worker that may keep 16 MiB; rooms of others that hold as much as they can, by not reading.
    @Test func `is bounded whatever slow rooms hold, and a quick room hears everything`() async throws {
        let variables = ["RELAY_MAX_MEMORY": "16M", "RELAY_MAX_BACKLOG": "8M", "RELAY_METRICS_ADDR": "127.0.0.1:0"]
        try await Relay.run(workers: 1, variables) { relay in
            let admin = try await Admin(relay.process)
            let session = Session()
            let (host, guest) = (try await relay.join(session.host()), try await relay.join(session.guest()))
            var slow: [RawClient] = []
            var senders: [RawClient] = []
            for _ in 0..<4 {
                let session = Session()
                senders.append(try await relay.rawJoin(session.host()))
                for _ in 0..<4 { slow.append(try await relay.rawJoin(session.guest(), receiveBuffer: 8192)) }
            }
            let message = RawFrame.client(0x82, [UInt8](repeating: 0x78, count: 1 << 20))
            var said: [String] = []
            for round in 0..<8 {
                for sender in senders where !sender.isAtEnd() { try? await sender.send(message) }
                said.append("round \(round)")
                host.send(said[round])
                #expect(try await guest.data(said.count) == said)
                let held = try await admin.metrics()["relay_memory_bytes"] ?? -1
                #expect(held >= 0 && held <= 16 * 1_048_576)
            }
            // A busy worker reads the last messages after their senders have handed them to the kernel.
            try await eventually("a room that gives way, and messages that wait once for all of their readers") {
                let metrics = try await admin.metrics()
                return metrics[#"relay_closes_total{reason="memory"}"#] ?? 0 > 0
                    && metrics["relay_shared_blocks_total"] ?? 0 > 0
            }
            #expect(try await admin.metrics()["relay_memory_limit_bytes"] ?? 0 == 16_777_216.0)
            #expect(host.isOpen && guest.isOpen)
            slow = []
            senders = []
            try await eventually("the memory to go back") {
                let metrics = try await admin.metrics()
                return metrics["relay_memory_granted_bytes"] == 8_388_608.0
                    && metrics["relay_memory_bytes"] ?? .infinity < 1_048_576
            }
        }
    }

    @Test func `that a worker had is others' when it dies, and over a reload`() async throws {
        let variables = ["RELAY_MAX_MEMORY": "64M", "RELAY_METRICS_ADDR": "127.0.0.1:0"]
        try await Relay.run(workers: 2, variables, losesWorkers: true) { relay in
            let admin = try await Admin(relay.process)
            let granted = { try await admin.metrics()["relay_memory_granted_bytes"] }
            #expect(try await granted() == 16_777_216.0)
            let workers = relay.workerPIDs
            for worker in workers { kill(worker, SIGKILL) }
            try await eventually("successors") {
                relay.workerPIDs.count == 2 && Set(relay.workerPIDs).isDisjoint(with: workers)
            }
            try await relay.healthy()
            try await eventually("their floors and no more") { try await granted() == 16_777_216.0 }
        }
    }
}
