import Glibc
import Testing

@Suite struct `Connections of one address` {
    private static let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    /// Opens connections from an address until one is refused, and says how many were not: kept open by a first request.
    private func admitted(_ relay: Relay, from source: UInt8, atMost: Int) async throws -> [RawClient] {
        var clients: [RawClient] = []
        for _ in 0..<atMost {
            let client = try await RawClient(relay.port, source: source)
            try await client.send(Self.health)
            // A connection that is closed with a request unread may end with a reset.
            guard let answer = try? await client.response(), answer.status != 429 else { break }
            clients.append(client)
        }
        return clients
    }

    /// Waits until all of an address's connections are forgotten: exactly as many as may be are admitted again.
    private func expectEmpty(_ relay: Relay, _ sources: [UInt8], max: Int, _ note: String = "") async throws {
        for source in sources {
            var last = 0
            do {
                try await eventually("\(max) connections of 127.0.0.\(source)") {
                    last = try await admitted(relay, from: source, atMost: max + 1).count
                    return last == max
                }
            } catch {
                Issue.record("\(last) connections of 127.0.0.\(source) are admitted, not \(max) \(note)")
            }
        }
    }

    @Test func `are limited over all workers, by the socket's peer`() async throws {
        let variables = ["RELAY_MAX_CONNECTIONS_PER_IP": "5", "RELAY_TRUSTED_PROXIES": "10.0.0.0/8"]
        try await Relay.run(workers: 3, variables) { relay in
            let clients = try await admitted(relay, from: 2, atMost: 5)
            #expect(clients.count == 5)
            for _ in 0..<5 {
                let refused = try await RawClient(relay.port, source: 2)
                let answer = try await refused.response()
                #expect(answer.answer == "429 too many connections")
                #expect(answer["retry-after"] == "1")
                #expect(try await refused.rest() == [])
            }
            // Another's are its own.
            let others = try await admitted(relay, from: 3, atMost: 9)
            #expect(others.count == 5)
            // Who goes makes room for one.
            clients[0].close()
            let late = try await awaited("a place") { () -> RawClient? in
                let client = try await RawClient(relay.port, source: 2)
                try await client.send(Self.health)
                return try? await client.response().status == 200 ? client : nil
            }
            #expect(try await admitted(relay, from: 2, atMost: 1).isEmpty)
            for client in clients.dropFirst() + [late] {
                try await client.send(Self.health)
                #expect(try await client.response().status == 200)
            }
            #expect(relay.process.errors.contains("connection refused: its address has too many"))
            #expect(!relay.process.errors.contains("127.0.0.2"))
        }
    }

    @Test func `are limited at their join where a trusted proxy brings them, by what it says`() async throws {
        let variables = ["RELAY_MAX_CONNECTIONS_PER_IP": "3", "RELAY_RATE_LIMIT_PER_IP": "0"]
        try await Relay.run(workers: 3, variables) { relay in
            func join(_ join: Join, for client: String) async throws -> RawClient {
                try await relay.rawJoin(join.with("X-Forwarded-For", client))
            }
            var members: [RawClient] = []
            let sessions = (0..<6).map { _ in Session() }
            // Two clients of three each, in rooms of whatever worker.
            for (index, session) in sessions.enumerated() {
                members.append(try await join(session.host(), for: index < 3 ? "192.0.2.1" : "2001:db8::\(index)"))
            }
            for session in sessions {
                for client in ["192.0.2.1", "2001:db8:0:0:9::1"] {
                    let answer = try await relay.answer(session.guest().with("X-Forwarded-For", client))
                    #expect(answer.answer == "429 too many connections")
                    #expect(answer["retry-after"] == "1")
                }
                members.append(try await join(session.guest(), for: "2001:db8:0:\(members.count)::1"))
            }
            // The proxy's own requests are counted by no one.
            for _ in 0..<10 { #expect(try await relay.health().status == 200) }
            let idle = try await withThrowingTaskGroup(of: RawClient.self) { group in
                for _ in 0..<10 { group.addTask { try await RawClient(relay.port) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(idle.count == 10)
            members[0].reset()
            let guest = sessions[1].guest()
            let late = try await awaited("a place") { try? await join(guest, for: "192.0.2.1") }
            #expect(try await relay.answer(guest.with("X-Forwarded-For", "192.0.2.1")).status == 429)
            late.close()
        }
    }

    @Test func `are closed without a word where TLS is spoken`() async throws {
        let variables = ["RELAY_MAX_CONNECTIONS_PER_IP": "2", "RELAY_TRUSTED_PROXIES": ""]
        try await Relay.runTLS(workers: 2, variables) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            for _ in 0..<4 {
                let refused = try await RawClient(relay.port)
                #expect(try await refused.rest() == [])
            }
            guest.abort()
            _ = try await host.data(1)
            let again = try await awaited("a place") { try? await relay.join(session.guest()) }
            again.send("here")
            #expect(try await host.data(2).last == "here")
        }
    }

    @Test(arguments: [false, true])
    func `stay counted over reloads and an upgrade, and are forgotten though the limit is off by then`(
        tls: Bool
    ) async throws {
        let variables = ["RELAY_MAX_CONNECTIONS_PER_IP": "4", "RELAY_TRUSTED_PROXIES": ""]
        try await Relay.runChangeable(workers: 3, variables, tls: tls) { relay in
            var rooms: [(Session, WebSocketClient, WebSocketClient)] = []
            for _ in 0..<2 {
                let session = Session()
                rooms.append((session, try await relay.join(session.host()), try await relay.join(session.guest())))
            }
            for (signal, text) in [(SIGHUP, "supervisor reloaded"), (SIGUSR2, "supervisor upgraded")] {
                try await relay.change(signal, until: text)
                for _ in 0..<3 {
                    let refused = try await RawClient(relay.port)
                    if tls {
                        #expect(try await refused.rest() == [])
                    } else {
                        #expect(try await refused.response().status == 429)
                    }
                }
                for (_, host, guest) in rooms { #expect(host.isOpen && guest.isOpen) }
            }
            rooms[0].2.abort()
            let again = try await awaited("a place") { try? await relay.join(rooms[0].0.guest()) }
            #expect((try? await relay.join(rooms[0].0.guest())) == nil)
            again.abort()
            try relay.set("RELAY_MAX_CONNECTIONS_PER_IP", "0")
            try await relay.change()
            for _ in 0..<6 { #expect(try await relay.health().status == 200) }
            for (session, _, _) in rooms { for _ in 0..<3 { _ = try await relay.join(session.guest()) } }
            for (_, host, guest) in rooms {
                host.abort()
                guest.abort()
            }
            try relay.set("RELAY_MAX_CONNECTIONS_PER_IP", "4")
            try await relay.change()
            guard !tls else { return }
            try await expectEmpty(relay, [1], max: 4)
        }
    }

    @Test func `are all forgotten when they have gone, whatever has happened to them and their workers`() async throws {
        var random = SplitMix64()
        let max = 6
        let sources = [UInt8](2...5)
        let variables = [
            "RELAY_MAX_CONNECTIONS_PER_IP": "\(max)", "RELAY_TRUSTED_PROXIES": "", "RELAY_RATE_LIMIT_PER_IP": "0",
        ]
        try await Relay.runChangeable(workers: 3, variables, losesWorkers: true) { relay in
            let sessions = (0..<8).map { _ in Session() }
            var clients: [RawClient] = []
            for step in 0..<400 {
                switch Int.random(in: 0..<20, using: &random) {
                case 0..<12:
                    // A join that nobody waits for: it is handed over, refused or lost while other things happen.
                    let client = try await RawClient(relay.port, source: sources.randomElement(using: &random))
                    let session = sessions[Int.random(in: 0..<sessions.count, using: &random)]
                    let join = Bool.random(using: &random) ? session.host() : session.guest()
                    try await client.send(join.head)
                    clients.append(client)
                case 12..<18:
                    guard !clients.isEmpty else { break }
                    let client = clients.remove(at: Int.random(in: 0..<clients.count, using: &random))
                    if Bool.random(using: &random) { client.reset() } else { client.close() }
                case 18:
                    clients.removeAll { $0.isAtEnd() }
                    // Rooms move to other workers, as far as these live.
                    if step % 3 == 0 { relay.process.signal(SIGHUP) }
                default:
                    // A few at a time: a relay that keeps crashing waits ever longer.
                    guard step % 4 == 0, let worker = relay.workerPIDs.randomElement(using: &random) else { break }
                    kill(worker, SIGKILL)
                }
            }
            clients = []
            try await relay.healthy(seconds: 60)
            try await expectEmpty(relay, sources, max: max, "seed \(random.seed)")
        }
    }
}
