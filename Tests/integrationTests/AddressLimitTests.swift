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
            try await relay.process.says("connection refused: its address has too many")
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

@Suite struct `Rooms of one address` {
    private func open(_ relay: Relay, for client: String, _ session: Session = Session()) async throws -> RawClient {
        try await relay.rawJoin(session.host().with("X-Forwarded-For", client))
    }

    private func answer(_ relay: Relay, for client: String) async throws -> String {
        try await relay.answer(Session().host().with("X-Forwarded-For", client)).answer
    }

    @Test func `are limited over all workers, stay counted over reloads and crashes, and are forgotten`() async throws {
        let variables = ["RELAY_MAX_ROOMS_PER_IP": "4", "RELAY_MAX_ROOMS": "9"]
        try await Relay.runChangeable(workers: 3, variables, losesWorkers: true) { relay in
            var hosts: [RawClient] = []
            let sessions = (0..<4).map { _ in Session() }
            for session in sessions { hosts.append(try await open(relay, for: "192.0.2.1", session)) }
            func expectFull(_ note: String) async throws {
                for _ in 0..<3 { #expect(try await answer(relay, for: "192.0.2.1") == "429 too many rooms", "\(note)") }
            }
            try await expectFull("at first")
            // Guests of theirs, and hosts of rooms that are open, whatever address they have; and others' rooms.
            for session in sessions {
                _ = try await relay.rawJoin(session.guest().with("X-Forwarded-For", "192.0.2.1"))
                _ = try await relay.rawJoin(session.host().with("X-Forwarded-For", "192.0.2.1"))
            }
            var others: [RawClient] = []
            for _ in 0..<4 { others.append(try await open(relay, for: "192.0.2.2")) }
            others.append(try await open(relay, for: "192.0.2.3"))
            // Before the relay's own limit.
            try await expectFull("with a full relay")
            #expect(try await answer(relay, for: "192.0.2.4") == "503 max rooms reached")
            for other in others { other.reset() }
            try await relay.change()
            try await expectFull("after a reload")
            try relay.set("RELAY_WORKERS", "2")
            try await relay.change()
            try await expectFull("after another")
            // All workers die, and with them what they had.
            for worker in relay.workerPIDs { kill(worker, SIGKILL) }
            try await relay.healthy()
            var again: [RawClient] = []
            try await eventually("as many rooms as may be, and no more") {
                for client in again { client.reset() }
                again = []
                for _ in 0..<5 {
                    guard let client = try? await open(relay, for: "192.0.2.1") else { break }
                    again.append(client)
                }
                return again.count == 4
            }
        }
    }

    @Test func `are limited by /64 and eight times as loosely by /48`() async throws {
        try await Relay.run(workers: 3, ["RELAY_MAX_ROOMS_PER_IP": "2"]) { relay in
            var hosts: [RawClient] = []
            for network in 0..<8 {
                for host in 1...2 { hosts.append(try await open(relay, for: "2001:db8:0:\(network)::\(host)")) }
                #expect(try await answer(relay, for: "2001:db8:0:\(network)::9") == "429 too many rooms")
            }
            #expect(try await answer(relay, for: "2001:db8:0:99::1") == "429 too many rooms")
            hosts.append(try await open(relay, for: "2001:db8:1::1"))
            // IPv4 behind NAT64 is counted by its own address.
            for host in 1...3 {
                hosts.append(try await open(relay, for: "64:ff9b::192.0.2.\(host)"))
                hosts.append(try await open(relay, for: "192.0.2.\(host)"))
                #expect(try await answer(relay, for: "64:ff9b::192.0.2.\(host)") == "429 too many rooms")
            }
        }
    }
}

@Suite struct `Whoever is at another address` {
    private static let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    private static let nobody = ["RELAY_TRUSTED_PROXIES": ""]

    @Test func `is served while one asks for pages without end`() async throws {
        let variables = Self.nobody.merging(["RELAY_RATE_LIMIT_PER_IP": "1"]) { $1 }
        try await Relay.run(workers: 2, variables) { relay in
            let refused = try await awaited("a refusal") { () -> HTTPResponse? in
                let client = try await RawClient(relay.port, source: 2)
                try await client.send(Self.health)
                let answer = try await client.response()
                return answer.status == 429 ? answer : nil
            }
            #expect(refused.answer == "429 rate limit exceeded")
            #expect(refused["retry-after"] == "1" && refused["connection"] == "close")
            for _ in 0..<5 { #expect(try await relay.health().status == 200) }
        }
    }

    @Test func `gets in while one holds all connections that it can`() async throws {
        let variables = Self.nobody.merging(["RELAY_MAX_CONNECTIONS": "40", "RELAY_RATE_LIMIT_PER_IP": "0"]) { $1 }
        try await Relay.run(workers: 1, variables) { relay in
            var attackers: [RawClient] = []
            for _ in 0..<60 {
                let client = try await RawClient(relay.port, source: 2)
                try await client.send("GET / HTTP/1.1\r\n")
                attackers.append(client)
            }
            let session = Session()
            let host = try await relay.join(session.host())
            for _ in 0..<20 {
                #expect(try await relay.health().status == 200)
                attackers.append(try await RawClient(relay.port, source: 2))
            }
            let guest = try await relay.join(session.guest())
            guest.send("here")
            #expect(try await host.data(1) == ["here"])
            try await eventually("a line in the log") {
                relay.process.errors.contains("connections that have not joined are many")
            }
        }
    }

    @Test func `gets a handshake while one begins as many as it can`() async throws {
        let variables = Self.nobody.merging(["RELAY_RATE_LIMIT_PER_IP": "0"]) { $1 }
        try await Relay.runTLS(workers: 1, variables) { relay in
            var attackers: [RawClient] = []
            for index in 0..<600 {
                let client = try await RawClient(relay.port, source: 2)
                // A byte, half a head, and what is whole and means nothing.
                try await client.send([[22], [22, 3, 1, 2], [22, 3, 1, 0, 5, 1, 0, 0, 1, 0]][index % 3])
                attackers.append(client)
                guard index % 60 == 59 else { continue }
                #expect(try await relay.health().status == 200)
            }
            // What is not whole is given three seconds.
            try await eventually("the end of those that say nothing more") {
                attackers.removeAll { $0.isAtEnd() }
                return attackers.isEmpty
            }
            #expect(try await relay.health().status == 200)
        }
    }

    @Test func `gets a handshake while one uses up its rate`() async throws {
        let variables = Self.nobody.merging(["RELAY_RATE_LIMIT_PER_IP": "1"]) { $1 }
        try await Relay.runTLS(workers: 2, variables) { relay in
            // No ClientHello, but whole: each is worth a token, and an alert.
            try await eventually("one that is closed without an alert") {
                let client = try await RawClient(relay.port, source: 2)
                try await client.send([22, 3, 1, 0, 5, 1, 0, 0, 1, 0])
                return (try? await client.rest()) == []
            }
            #expect(try await relay.health().status == 200)
        }
    }
}
