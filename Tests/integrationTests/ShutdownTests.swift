import Glibc
import Testing

@Suite struct `Stopping` {
    /// A few rooms of two.
    private func members(_ relay: Relay) async throws -> [WebSocketClient] {
        var members: [WebSocketClient] = []
        for _ in 0..<8 {
            let session = Session()
            members.append(try await relay.join(session.host()))
            members.append(try await relay.join(session.guest()))
        }
        return members
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func `closes every connection with 1001 and exits 0 without a process left`(signal: Int32) async throws {
        try await Relay.run(workers: 3) { relay in
            let members = try await members(relay)
            let idle = try await RawClient(relay.port)
            try await idle.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(try await idle.response().status == 200)
            let workers = relay.workerPIDs
            #expect(workers.count == 3)
            relay.process.signal(signal)
            for member in members {
                #expect(try await member.ended() == .closed(code: 1001))
                // Nobody is told that the others leave.
                #expect(member.messages.isEmpty)
                #expect(member.oddities == [])
            }
            #expect(try await idle.rest() == [])
            #expect(try await relay.process.finished() == .status(0))
            for worker in workers { #expect(Processes.isGone(worker)) }
        }
    }

    @Test func `is unavailable to health while it goes on`() async throws {
        try await Relay.run(workers: 1) { relay in
            let members = try await members(relay)
            let late = try await RawClient(relay.port)
            try await late.send("GET /health HTTP/1.1\r\n")
            // What stands behind this connection's request has been read, so the half of that has.
            try await relay.healthy()
            relay.process.signal(SIGTERM)
            for member in members { #expect(try await member.ended() == .closed(code: 1001)) }
            try await late.send("Host: x\r\n\r\n")
            #expect(try await late.response().answer == #"503 {"status":"unavailable"}"#)
            #expect(try await late.rest() == [])
            #expect(try await relay.process.ended() == .status(0))
        }
    }

    @Test func `takes no longer than the grace, whoever does not let go`() async throws {
        try await Relay.run(workers: 2, ["RELAY_SHUTDOWN_GRACE": "0"]) { relay in
            let workers = relay.workerPIDs
            _ = try await members(relay)
            var clients: [RawClient] = []
            for _ in 0..<4 {
                clients.append(try await RawClient(relay.port))
                try await clients[clients.count - 1].send("GET ")
            }
            relay.process.signal(SIGTERM)
            #expect(try await relay.process.ended() == .status(0))
            for worker in workers { #expect(Processes.isGone(worker)) }
        }
    }

    @Test func `is forced by a second signal`() async throws {
        try await Relay.run(workers: 2, ["RELAY_SHUTDOWN_GRACE": "3600"]) { relay in
            let workers = relay.workerPIDs
            let session = Session()
            let slow = try await relay.rawJoin(session.host(), receiveBuffer: 8192)
            let sender = try await relay.join(session.guest())
            // It has not taken what it was sent: the relay waits for it, for an hour if it must.
            for _ in 0..<32 { sender.send(String(repeating: "x", count: 16_384)) }
            sender.ping([1])
            try await eventually("all to be taken by the relay") { sender.pongs == [[1]] }
            for worker in workers { kill(worker, SIGSTOP) }
            for worker in workers { try await eventually("a halt") { Processes.state(of: worker) == "T" } }
            relay.process.signal(SIGTERM)
            try await eventually("the first signal to be seen") { relay.process.errors.contains("draining") }
            #expect(relay.process.end == nil)
            relay.process.signal(SIGTERM)
            #expect(try await relay.process.ended() == .status(0))
            for worker in workers { #expect(Processes.isGone(worker)) }
            #expect(try await slow.rest().isEmpty == false)
        }
    }

    @Test func `happens by itself where the supervisor is gone`() async throws {
        try await Relay.run(workers: 3) { relay in
            let members = try await members(relay)
            let workers = relay.workerPIDs
            defer { for worker in workers where !Processes.isGone(worker) { kill(worker, SIGKILL) } }
            #expect(workers.count == 3)
            relay.process.signal(SIGKILL)
            #expect(try await relay.process.ended() == .signal(SIGKILL))
            for member in members { #expect(try await member.ended() == .closed(code: 1001)) }
            for worker in workers { try await eventually("a worker's end") { Processes.isGone(worker) } }
        }
    }
}

extension `Stopping` {
    @Test func `lets nobody in and says so, to whoever still comes, while the last ones go`() async throws {
        try await Relay.run(workers: 1, ["RELAY_SHUTDOWN_GRACE": "3600"]) { relay in
            let session = Session()
            let slow = try await relay.rawJoin(session.host(), receiveBuffer: 8192)
            let sender = try await relay.join(session.guest())
            // It has not taken what it was sent, and is waited for.
            for _ in 0..<64 { sender.send(String(repeating: "x", count: 16_384)) }
            sender.ping([1])
            try await eventually("all to be taken by the relay") { sender.pongs == [[1]] }
            relay.process.signal(SIGTERM)
            #expect(try await sender.ended() == .closed(code: 1001))
            for _ in 0..<3 {
                #expect(try await relay.health().answer == #"503 {"status":"unavailable"}"#)
                let answer = try await relay.answer(Session().host())
                #expect(answer.answer == "503 shutting down")
                #expect(answer["retry-after"] == "1")
            }
            #expect(relay.process.end == nil)
            _ = try await slow.rest()
            slow.close()
            #expect(try await relay.process.ended() == .status(0))
        }
    }

    @Test func `leaves no worker behind, at whatever moment of the start the supervisor is killed`() async throws {
        var random = SplitMix64()
        let path = try program("relay")
        for _ in 0..<8 {
            let process = try ChildProcess(path, environment: ["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "6"])
            let moment = Int.random(in: 1...6, using: &random)
            try await eventually("\(moment) workers") { Processes.children(of: process.pid).count >= moment }
            // It starts no more while they are counted.
            process.signal(SIGSTOP)
            try await eventually("a halt") { Processes.state(of: process.pid) == "T" }
            let workers = Processes.children(of: process.pid)
            process.signal(SIGKILL)
            #expect(try await process.ended() == .signal(SIGKILL))
            for worker in workers {
                try await eventually("the end of worker \(worker), seed \(random.seed)") { Processes.isGone(worker) }
            }
        }
    }
}
