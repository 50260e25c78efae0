import Glibc
import Testing

/// PROXY headers as a proxy writes them.
private enum ProxyHeader {
    /// Version 1.
    static func line(_ client: String) -> [UInt8] {
        let family = client.contains(":") ? "TCP6" : "TCP4"
        return Array("PROXY \(family) \(client) \(family == "TCP6" ? "::1" : "127.0.0.1") 40000 443\r\n".utf8)
    }

    /// Version 2, of an IPv4 client, with a TLV behind the addresses.
    static func block(_ client: [UInt8], command: UInt8 = 0x21) -> [UInt8] {
        let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
        return signature + [command, 0x11, 0, 17] + client + [127, 0, 0, 1, 0x9C, 0x40, 0x01, 0xBB] + [4, 0, 2, 0, 0]
    }
}

private let health = Array("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".utf8)

extension Relay {
    /// Connects as a proxy that sends these bytes first, in one write.
    fileprivate func connect(_ bytes: [UInt8], source: UInt8? = nil) async throws -> RawClient {
        let client = try await RawClient(port, source: source)
        try await client.send(bytes)
        return client
    }

    /// The status that a connection gets which begins with these bytes.
    fileprivate func status(_ bytes: [UInt8]) async throws -> Int {
        let client = try await connect(bytes)
        return try await client.response().status
    }
}

@Suite struct `Clients that the PROXY protocol names` {
    private static let setting = ["RELAY_CLIENT_ADDRESS": "proxy-protocol"]

    @Test func `are served with a header of either version, whatever comes in the same packet and however it is cut`()
        async throws
    {
        try await Relay.run(workers: 3, Self.setting.merging(["RELAY_RATE_LIMIT_PER_IP": "0"]) { $1 }) { relay in
            for header in [
                ProxyHeader.line("192.0.2.1"), ProxyHeader.line("2001:db8::1"), ProxyHeader.block([192, 0, 2, 1]),
                ProxyHeader.block([0, 0, 0, 0], command: 0x20), Array("PROXY UNKNOWN\r\n".utf8),
            ] {
                #expect(try await relay.status(header + health) == 200)
                let slow = try await RawClient(relay.port)
                for byte in header + health { try await slow.send([byte]) }
                #expect(try await slow.response().status == 200)
                // A room, of whatever worker, and a frame behind the request.
                let session = Session()
                let host = try await relay.connect(header + Array(session.host().head.utf8))
                #expect(try await host.response().status == 101)
                let guest = try await relay.connect(
                    ProxyHeader.line("192.0.2.2") + Array(session.guest().head.utf8) + RawFrame.client(text: "early"))
                #expect(try await guest.response().status == 101)
                #expect(try await host.frame().payload == Array("early".utf8))
                try await host.send(RawFrame.client(text: "answer"))
                #expect(try await guest.frame().payload == Array("answer".utf8))
            }
        }
    }

    @Test func `have limits of their own, and no header of a request changes them`() async throws {
        let variables = Self.setting.merging(
            ["RELAY_MAX_CONNECTIONS_PER_IP": "2", "RELAY_RATE_LIMIT_PER_IP": "3"]) { $1 }
        try await Relay.run(workers: 2, variables) { relay in
            var clients: [RawClient] = []
            for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
                for _ in 0..<2 {
                    // Counted with the header, before there is a request.
                    clients.append(try await relay.connect(ProxyHeader.line(client) + health))
                    #expect(try await clients[clients.count - 1].response().status == 200)
                }
                let refused = try await relay.connect(ProxyHeader.line(client))
                let answer = try await refused.response()
                #expect(answer.answer == "429 too many connections" && answer["retry-after"] == "1")
                #expect(try await refused.rest() == [])
            }
            // The proxy's own are not counted.
            for _ in 0..<4 {
                clients.append(try await relay.connect(Array("PROXY UNKNOWN\r\n".utf8) + health))
                #expect(try await clients[clients.count - 1].response().status == 200)
            }
            clients.removeFirst(2)
            _ = try await awaited("a place") { () -> RawClient? in
                let client = try await relay.connect(ProxyHeader.block([192, 0, 2, 1]) + health)
                return try await client.response().status == 200 ? client : nil
            }
        }
        try await Relay.run(workers: 2, Self.setting.merging(["RELAY_RATE_LIMIT_PER_IP": "3"]) { $1 }) { relay in
            func join(_ client: String, _ made: Int) async throws -> Int {
                let request = "GET /ws HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.\(made)\r\n\r\n"
                return try await relay.status(ProxyHeader.line(client) + Array(request.utf8))
            }
            var refused = 0
            for made in 0..<40 { refused += try await join("192.0.2.1", made) == 429 ? 1 : 0 }
            #expect(refused > 0, "a made-up header leaves no limit")
            #expect(try await join("192.0.2.2", 1) == 400)
        }
    }

    @Test func `come from a trusted proxy that sends a good header, or not at all`() async throws {
        let variables = Self.setting.merging(["RELAY_TRUSTED_PROXIES": "127.0.0.1"]) { $1 }
        try await Relay.runAdmin(workers: 1, variables) { relay, admin in
            let stranger = try await RawClient(relay.port, source: 2)
            let answer = try await stranger.response()
            #expect(answer.status == 403)
            for bytes in [health, Array("PROXY TCP4 x\r\n".utf8), ProxyHeader.block([1, 2, 3, 4], command: 0x2F)] {
                let client = try await relay.connect(bytes)
                #expect(try await client.response().status == 400)
                #expect(try await client.rest() == [])
            }
            let cut = try await relay.connect(Array("PROXY TCP4 192.".utf8))
            cut.finish()
            #expect(try await cut.response().status == 400)
            // One that only looks whether the port is open.
            try await RawClient(relay.port).finish()
            try await admin.counts([
                #"relay_connections_refused_total{reason="no_proxy"}"#: 1,
                #"relay_closes_total{reason="proxy_header"}"#: 4,
            ])
            for text in ["it comes from no trusted proxy", "RELAY_TRUSTED_PROXIES", "no good PROXY header"] {
                try await relay.process.says(text)
            }
        }
    }

    @Test func `speak TLS behind the header, and keep their address over a reload`() async throws {
        let variables = Self.setting.merging(["RELAY_MAX_CONNECTIONS_PER_IP": "2"]) { $1 }
        try await Relay.runChangeable(workers: 3, variables, tls: true) { relay in
            let tls = try #require(relay.tls)
            func join(_ join: Join, _ header: [UInt8]) async throws -> TLSClient {
                let client = try await TLSClient(relay.port, tls, prefix: header)
                try await client.send(join.head)
                #expect(try await client.response().status == 101)
                return client
            }
            let session = Session()
            let host = try await join(session.host(), ProxyHeader.line("192.0.2.1"))
            let guest = try await join(session.guest(), ProxyHeader.block([192, 0, 2, 1]))
            // Cut off in the middle of its header, and in the middle of its ClientHello.
            let slow = try await RawClient(relay.port)
            try await slow.send(Array(ProxyHeader.line("192.0.2.7").prefix(20)))
            for round in 0..<2 {
                try await host.send(RawFrame.client(text: "\(round)"))
                #expect(try await guest.frame().payload == Array("\(round)".utf8))
                // The address has two: over TLS a third is closed without a word.
                let refused = try await relay.connect(ProxyHeader.line("192.0.2.1"))
                #expect(try await refused.rest() == [])
                let silent = try await relay.connect(health)
                #expect(try await silent.rest() == [])
                if round == 0 { try await relay.change() }
            }
            // What has come of its header has moved along: the rest is no TLS, and so gets its answer.
            try await slow.send(Array(ProxyHeader.line("192.0.2.7").dropFirst(20)) + health)
            #expect(try await slow.response().status == 400)
            let other = try await join(session.guest("other"), ProxyHeader.line("192.0.2.2"))
            try await other.send(RawFrame.client(text: "here"))
            #expect(try await host.frame().payload == Array("here".utf8))
        }
    }

    @Test func `are answered 400 for a PROXY header where none is expected`() async throws {
        try await Relay.run(workers: 1) { relay in
            for header in [ProxyHeader.line("192.0.2.1"), ProxyHeader.block([192, 0, 2, 1])] {
                let status = try await relay.status(header + health)
                #expect(status == 400)
            }
        }
    }
}

@Suite struct `Clients that a proxy's headers name` {
    @Test func `can't leave their limit by a header of their own, nor use up another's`() async throws {
        try await Relay.runAdmin(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "1"]) { relay, admin in
            func join(_ lines: String...) async throws -> Int {
                let head = (["GET /ws HTTP/1.1", "Host: x"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
                return try await relay.answer(head).status
            }
            // A proxy that sets X-Real-IP and passes X-Forwarded-For on.
            var passed = 0
            for made in 0..<60 {
                let status = try await join("X-Forwarded-For: 198.51.100.\(made)", "X-Real-IP: 192.0.2.1")
                passed += status == 429 ? 0 : 1
            }
            #expect(passed < 30, "all of them count for the proxy")
            for made in 0..<3 { #expect(try await join("X-Real-IP: 198.51.100.\(made)") == 400) }
            let conflicts = try await admin.metrics()[#"relay_client_address_conflicts_total{reason="disagreement"}"#]
            #expect(conflicts == 60)
            #expect(relay.count("set RELAY_CLIENT_ADDRESS to the header that the proxy sets itself") >= 1)
            // Each worker says once that it believes headers from loopback.
            let notices = relay.count("headers from loopback are believed to name the client")
            #expect(notices >= 1 && notices <= 2)
        }
    }

    @Test func `are named by one header alone where the setting says which, and the log has nothing to say`()
        async throws
    {
        for (setting, header) in [
            ("x-forwarded-for", "X-Forwarded-For"), ("x-real-ip", "X-Real-IP"),
            ("cf-connecting-ip", "CF-Connecting-IP"),
        ] {
            let variables = ["RELAY_RATE_LIMIT_PER_IP": "1", "RELAY_CLIENT_ADDRESS": setting]
            try await Relay.run(workers: 1, variables) { relay in
                let headers = ["X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP"].filter { $0 != header }
                var statuses: [Int] = []
                for made in 0..<20 {
                    let lines = headers.map { "\($0): 198.51.100.\(made)\r\n" }.joined()
                    let head = "GET /ws HTTP/1.1\r\nHost: x\r\n\(lines)\(header): 192.0.2.1\r\n\r\n"
                    statuses.append(try await relay.answer(head).status)
                }
                #expect(statuses.prefix(2) == [400, 400] && statuses.contains(429), "\(setting)")
                #expect(!relay.process.errors.contains("RELAY_CLIENT_ADDRESS"), "\(setting)")
            }
        }
    }
}

@Suite struct `Pages of browsers` {
    @Test func `join where RELAY_ALLOWED_ORIGINS names them`() async throws {
        let variables = ["RELAY_ALLOWED_ORIGINS": "https://chat.example, http://localhost:3000"]
        try await Relay.runAdmin(workers: 2, variables) { relay, admin in
            let session = Session()
            let host = try await relay.rawJoin(session.host())
            for origin in ["https://chat.example", "HTTPS://CHAT.EXAMPLE:443", "http://localhost:3000"] {
                _ = try await relay.rawJoin(session.guest().with("Origin", origin))
            }
            for origin in ["https://evil.example", "http://chat.example", "null", "https://chat.example.evil.example"] {
                let answer = try await relay.answer(session.guest().with("Origin", origin))
                #expect(answer.answer == "403 origin not allowed", "\(origin)")
            }
            // After the handshake's checks, before the key's.
            let evil = session.host().with("Origin", "null")
            #expect(try await relay.answer(evil.with("Sec-WebSocket-Version", "12")).status == 426)
            var odd = evil
            odd.publicKey = "x"
            #expect(try await relay.answer(odd).status == 403)
            #expect(try await relay.answer("GET /health HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n").status == 200)
            try await admin.counts([#"relay_joins_total{result="origin_not_allowed"}"#: 5])
            host.close()
        }
        try await Relay.run(workers: 1) { relay in
            _ = try await relay.rawJoin(Session().host().with("Origin", "https://evil.example"))
        }
    }

    @Test func `learn nothing at the admin port, by whatever name they reach it`() async throws {
        try await Relay.runAdmin(workers: 1, ["RELAY_METRICS_HOSTS": "metrics.example"]) { relay, admin in
            func ask(_ lines: String...) async throws -> HTTPResponse {
                let client = try await RawClient(admin.port)
                try await client.send((["GET /metrics HTTP/1.1"] + lines).joined(separator: "\r\n") + "\r\n\r\n")
                return try await client.response()
            }
            for host in ["127.0.0.1:\(admin.port)", "[::1]", "localhost", "METRICS.example:9090"] {
                #expect(try await ask("Host: \(host)").status == 200, "\(host)")
            }
            let refused = try await ask("Host: evil.example")
            #expect(refused.status == 403 && refused.body.contains("RELAY_METRICS_HOSTS"))
            #expect(try await ask("Host: localhost", "Origin: http://localhost").status == 403)
            let status = try await run(try program("relay"), ["health", "--address", "127.0.0.1:\(admin.port)"])
            #expect(status.end == .status(0))
            let metrics = try await admin.metrics()
            #expect(metrics[#"relay_admin_refusals_total{reason="host"}"#] == 1)
            #expect(metrics[#"relay_admin_refusals_total{reason="origin"}"#] == 1)
        }
    }
}
