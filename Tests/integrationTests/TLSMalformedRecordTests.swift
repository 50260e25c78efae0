import Testing

@Suite struct `Malformed TLS records` {
    private enum Alert: UInt8 {
        case unexpectedMessage = 10
        case badRecordMAC = 20
        case recordOverflow = 22
        case illegalParameter = 47
        case decodeError = 50
    }

    /// Records that end a connection, by the alert that it must end with (RFC 8446).
    private struct Case: Sendable {
        var name: String
        var alert: Alert
        var bytes: @Sendable (KeyedClient) -> [UInt8]

        init(_ name: String, _ alert: Alert, _ bytes: @escaping @Sendable (KeyedClient) -> [UInt8]) {
            (self.name, self.alert, self.bytes) = (name, alert, bytes)
        }
    }

    private static let unauthentic = [
        Case("a tag changed", .badRecordMAC) { changed($0.data([1, 2, 3]), at: -1) },
        Case("content changed", .badRecordMAC) { changed($0.data([1, 2, 3]), at: 5) },
        // The header is authenticated as it came.
        Case("a version changed", .badRecordMAC) { changed($0.data([1, 2, 3]), at: 2) },
        Case("a byte cut off", .badRecordMAC) { shortened($0.data([1, 2, 3])) },
        Case("a record twice", .badRecordMAC) { twice($0.data([])) },
        Case("a record left out", .badRecordMAC) { client in
            _ = client.data([])
            return client.data([])
        },
        Case("no room for a tag", .badRecordMAC) { _ in [0x17, 3, 3, 0, 15] + [UInt8](repeating: 0, count: 15) },
        Case("an empty record", .badRecordMAC) { _ in [0x17, 3, 3, 0, 0] },
        Case("a key not renewed", .badRecordMAC) { $0.record(0x16, [24, 0, 0, 1, 0]) + $0.data([]) },
        Case("a key renewed in secret", .badRecordMAC) { client in
            _ = client.keyUpdate(requested: false)
            return client.data([])
        },
    ]

    private static let misshapen = [
        Case("a header over the limit", .recordOverflow) { _ in [0x17, 3, 3, 0x41, 0x01] },
        Case("content over the limit", .recordOverflow) { $0.data([UInt8](repeating: 0x61, count: 16_385)) },
        Case("padding over the limit", .recordOverflow) { $0.record(0x17, [], padding: 16_385) },
        Case("padding alone", .unexpectedMessage) { $0.inner([0, 0, 0]) },
        Case("nothing inside", .unexpectedMessage) { $0.inner([]) },
        Case("change_cipher_spec inside", .unexpectedMessage) { $0.record(0x14, [1]) },
        Case("a heartbeat", .unexpectedMessage) { $0.record(0x18, [1, 0, 1, 0]) },
        Case("an unknown type inside", .unexpectedMessage) { $0.record(0xFF, [1]) },
        Case("plain change_cipher_spec", .unexpectedMessage) { _ in [0x14, 3, 3, 0, 1, 1] },
        Case("a plain alert", .unexpectedMessage) { _ in [0x15, 3, 3, 0, 2, 1, 0] },
        Case("a plain ClientHello", .unexpectedMessage) { _ in [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3] },
        Case("plain HTTP", .unexpectedMessage) { _ in Array("GET / HTTP/1.1\r\n\r\n".utf8) },
        Case("empty records without end", .unexpectedMessage) { client in
            (0..<40).flatMap { _ in client.record(0x17, [], padding: 3) }
        },
    ]

    private static let misplaced = [
        Case("a ClientHello", .unexpectedMessage) { $0.record(0x16, [1, 0, 0, 2, 3, 3]) },
        Case("a NewSessionTicket", .unexpectedMessage) { $0.record(0x16, [4, 0, 0, 1, 0]) },
        Case("a Certificate", .unexpectedMessage) { $0.record(0x16, [11, 0, 0, 1, 0]) },
        Case("a second Finished", .unexpectedMessage) { $0.record(0x16, [20, 0, 0, 1, 0]) },
        Case("an empty handshake", .unexpectedMessage) { $0.record(0x16, []) },
        Case("an empty alert", .unexpectedMessage) { $0.record(0x15, []) },
        Case("data within a KeyUpdate", .unexpectedMessage) { $0.record(0x16, [24, 0]) + $0.data([1]) },
        Case("more behind a KeyUpdate", .unexpectedMessage) { $0.record(0x16, twice([24, 0, 0, 1, 0])) },
        Case("KeyUpdates without end", .unexpectedMessage) { client in
            (0..<40).flatMap { _ in client.keyUpdate(requested: true) }
        },
        Case("a KeyUpdate of another value", .illegalParameter) { $0.record(0x16, [24, 0, 0, 1, 2]) },
        Case("a KeyUpdate too long", .decodeError) { $0.record(0x16, [24, 0, 0, 2, 0, 0]) },
        Case("a KeyUpdate of nothing", .decodeError) { $0.record(0x16, [24, 0, 0, 0]) },
        Case("an alert too short", .decodeError) { $0.record(0x15, [1]) },
        Case("two alerts in one record", .decodeError) { $0.record(0x15, [1, 90, 1, 0]) },
    ]

    private static func twice(_ bytes: [UInt8]) -> [UInt8] { bytes + bytes }

    private static func changed(_ bytes: [UInt8], at place: Int) -> [UInt8] {
        var bytes = bytes
        bytes[place < 0 ? bytes.count + place : place] ^= 1
        return bytes
    }

    /// With a byte less, and a header that says so.
    private static func shortened(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        bytes[4] -= 1
        return Array(bytes.dropLast())
    }

    @Test func `end with the alert that the standard demands, in rooms and before them, and harm nobody`() async throws
    {
        try await Relay.runTLS(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            var witnesses = try await Witnesses(relay)
            let cases = Self.unauthentic + Self.misshapen + Self.misplaced
            for (index, test) in cases.enumerated() {
                let (name, alert) = (test.name, test.alert)
                let session = Session()
                let isInRoom = index % 2 == 0
                let client: KeyedClient
                var host: WebSocketClient?
                if isInRoom {
                    host = try await relay.join(session.host())
                    client = try await KeyedClient.join(relay, session.guest("g"))
                    // What was said before counts.
                    try await client.socket.send(client.data(RawFrame.client(text: "before")) + test.bytes(client))
                } else {
                    client = try await KeyedClient.connect(relay)
                    try await client.socket.send(test.bytes(client))
                }
                // Nothing but the alert; no close frame, no answer.
                #expect(try await client.rest() == [], "\(name)")
                #expect(client.alerts == [[2, alert.rawValue]], "\(name): \(client.alerts)")
                #expect(client.oddities == 0, "\(name)")
                if let host {
                    #expect(try await host.data(2).first == "before", "\(name)")
                    #expect(host.data.last?.contains("session:leave") == true && host.data.count == 2, "\(name)")
                }
                if index % 10 == 0 { try await witnesses.talk() }
            }
            try await witnesses.talk()
            witnesses.check(relay)
        }
    }

    @Test func `that only look so are served`() async throws {
        try await Relay.runTLS(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            for round in 0..<6 {
                let session = Session()
                let host = try await relay.join(session.host())
                let client = try await KeyedClient.connect(relay)
                let head = Array(session.guest("g").head.utf8)
                // Padding, empty records, an update in two halves, user_canceled (RFC 8446, 6.1); new keys around the moment
                // at which the connection moves, all in one segment or byte by byte.
                var bytes = client.record(0x17, Array(head[..<10]), padding: 100) + client.record(0x17, [])
                bytes += client.keyUpdate(requested: true) + client.record(0x15, [1, 90])
                bytes += client.record(0x17, Array(head[10...]), padding: 16_384 - head.count + 9)
                bytes += client.keyUpdate(requested: round % 2 == 0)
                bytes += client.record(0x16, [24, 0]) + client.record(0x16, [0, 1, 0])
                // The key is another from here on.
                _ = client.keyUpdate(requested: false)
                let frame = RawFrame.client(text: "early")
                for byte in frame { bytes += client.record(0x17, [byte], padding: Int(byte)) }
                if round < 4 {
                    try await client.socket.send(bytes)
                } else {
                    for start in stride(from: 0, to: bytes.count, by: 97) {
                        try await client.socket.send(Array(bytes[start..<min(start + 97, bytes.count)]))
                    }
                }
                #expect(try await client.response().status == 101)
                #expect(try await host.data(1) == ["early"])
                host.send("hello")
                #expect(try await client.frame().payload == Array("hello".utf8))
                // It was asked for its own key, once or twice, and never asks back.
                #expect(!client.updates.isEmpty && client.updates.allSatisfy { $0 == 0 }, "\(client.updates)")
                try await client.socket.send(client.data(RawFrame.client(0x88, [])) + client.record(0x15, [1, 0]))
                #expect(try await client.closeCode() == 0)
                #expect(try await client.rest() == [])
                #expect(client.alerts == [[1, 0]] && client.oddities == 0)
            }
        }
    }

    @Test func `behind close_notify are thrown away`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let client = try await KeyedClient.join(relay, session.guest("g"))
            let last = client.data(RawFrame.client(text: "last")) + client.record(0x15, [1, 0])
            try await client.socket.send(last + client.data(RawFrame.client(text: "never")) + [0xFF, 0xFF, 0xFF])
            #expect(try await client.rest() == [])
            #expect(client.alerts == [[1, 0]] && client.oddities == 0)
            #expect(try await host.data(2).first == "last")
            #expect(host.data.count == 2 && host.data[1].contains("session:leave"))
        }
    }

    @Test func `that are a fatal alert end the connection without another`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let alerts: [[UInt8]] = [[2, 80], [1, 20], [2, 255]]
            for (index, alert) in alerts.enumerated() {
                let client = try await KeyedClient.join(relay, session.guest("g"))
                try await client.socket.send(client.record(0x15, alert))
                #expect(try await client.rest() == [])
                #expect(client.alerts == [] && client.oddities == 0)
                #expect(try await host.data(index + 1).last?.contains("session:leave") == true)
            }
        }
    }

    @Test func `of a client that has no key are noticed by nobody else`() async throws {
        var random = SplitMix64()
        let seed = random.seed
        try await Relay.runTLS(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            var witnesses = try await Witnesses(relay)
            let session = Session()
            let host = try await relay.join(session.host())
            for round in 0..<40 {
                let guest = try await relay.tlsJoin(session.guest("g"))
                var bytes = try await guest.seal(RawFrame.client(text: "good"))
                switch round % 4 {
                // Random bytes between records.
                case 0: bytes += random.bytes(Int.random(in: 1...2000, using: &random))
                // A record changed somewhere.
                case 1:
                    let next = try await guest.seal(RawFrame.client(text: "bad"))
                    bytes += Self.changed(next, at: Int.random(in: 5..<next.count, using: &random))
                // A record cut short by the end.
                case 2:
                    let next = try await guest.seal(RawFrame.client(text: "cut"))
                    bytes += next[..<Int.random(in: 1..<next.count, using: &random)]
                // Two records in the wrong order.
                default:
                    let first = try await guest.seal(RawFrame.client(text: "bad"))
                    bytes += try await guest.seal(RawFrame.client(text: "bad")) + first
                }
                try await guest.socket.send(bytes)
                guest.socket.finish()
                #expect(try await guest.rest() == [], "seed \(seed), round \(round)")
                _ = try await host.data(2 * round + 2)
                if round % 10 == 0 { try await witnesses.talk() }
            }
            // Of each only what was in good order, and that it left.
            #expect(host.data.count == 80, "seed \(seed)")
            #expect(host.data.filter { $0 == "good" }.count == 40, "seed \(seed)")
            #expect(host.data.filter { $0.contains("session:leave") }.count == 40, "seed \(seed)")
            try await witnesses.talk()
            witnesses.check(relay, seed: seed)
        }
    }
}
