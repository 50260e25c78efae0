import Glibc
import Shared
import Testing

@testable import worker

/// Sends bytes from a client's end.
private func send(_ bytes: some Sequence<UInt8>, to socket: Int32) {
    let bytes = Array(bytes)
    #expect(write(socket, bytes, bytes.count) == bytes.count)
}

private func receive(from socket: Int32) -> String {
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let count = read(socket, &buffer, buffer.count)
    return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
}

@Suite struct `A connection that begins with a PROXY header` {
    private static let line = Array("PROXY TCP4 198.51.100.7 192.0.2.9 12345 443\r\n".utf8)
    private static let block: [UInt8] =
        [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21, 0x11, 0, 15]
        + [198, 51, 100, 7, 192, 0, 2, 9, 1, 2, 3, 4, 4, 0, 0]
    private static let headers = [line, block]
    private let request = Array("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n".utf8)
    private let client = Address(ipv4: 0xC633_6407)

    /// A worker whose proxies are where `WorkerFixture.accept` has its peers.
    private func fixture() throws -> WorkerFixture {
        var options = WorkerFixture.Options()
        options.configuration.clientAddress = .proxyProtocol
        options.configuration.trustedProxies = [AddressRange("192.0.2.1")].compactMap(\.self)
        return try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
    }

    private func accept(_ fixture: inout WorkerFixture, isSecure: Bool = false) throws -> (slot: UInt32, client: Int32)
    {
        let (slot, client) = try fixture.accept(isSecure: isSecure)
        fixture.worker.connections[slot].phase = .proxyHeader
        return (slot, client)
    }

    @Test(arguments: headers)
    func `takes the header and not a byte more, wherever it is cut`(header: [UInt8]) throws {
        for cut in 0...header.count {
            for isSecure in [false, true] {
                var fixture = try fixture()
                let (slot, end) = try accept(&fixture, isSecure: isSecure)
                if cut > 0 {
                    send(header[..<cut], to: end)
                    fixture.worker.read(slot)
                }
                if cut < header.count {
                    let phase = fixture.worker.connections[slot].phase
                    #expect(phase == .proxyHeader, "\(cut)")
                    fixture.worker.read(slot)
                    send(header[cut...] + request, to: end)
                    fixture.worker.read(slot)
                } else {
                    send(request, to: end)
                }
                let (phase, named) = (fixture.worker.connections[slot].phase, fixture.worker.connections[slot].client)
                #expect(phase == (isSecure ? .handshake : .request), "\(cut)")
                #expect(named == client)
                let peer = fixture.worker.connections[slot].peer
                #expect(peer == Address("192.0.2.1"), "a socket's peer stays what it is")
                let isEmpty = fixture.worker.connections[slot].input.isEmpty
                #expect(isEmpty)
                // The rest is where libssl, or the request's reader, will look for it.
                #expect(clinuxUnread(fixture.worker.connections[slot].socket.number) == request.count)
            }
        }
    }

    private func clinuxUnread(_ socket: Int32) -> Int {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        return recv(socket, &buffer, buffer.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
    }

    @Test func `goes on with a request whose head names nobody else`() throws {
        var fixture = try fixture()
        let (slot, end) = try accept(&fixture)
        send(Self.line + request, to: end)
        fixture.worker.read(slot)
        fixture.worker.read(slot)
        fixture.worker.settle()
        #expect(receive(from: end).hasPrefix("HTTP/1.1 200 OK\r\n"))
        let named = fixture.worker.connections[slot].client
        #expect(named == client)
    }

    @Test(arguments: ["PROXY UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\n\u{20}\0\0\0"])
    func `is the peer's own where the header names nobody`(header: String) throws {
        var fixture = try fixture()
        let (slot, end) = try accept(&fixture)
        send(Array(header.utf8) + request, to: end)
        fixture.worker.read(slot)
        fixture.worker.read(slot)
        let (phase, named) = (fixture.worker.connections[slot].phase, fixture.worker.connections[slot].client)
        #expect(phase == .request)
        #expect(named == Address("192.0.2.1"))
    }

    @Test(arguments: ["GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 x\r\n", "\u{16}\u{3}\u{1}"])
    func `is closed for a header that is missing or malformed, with an answer where one can be read`(
        bytes: String
    ) throws {
        for isSecure in [false, true] {
            var fixture = try fixture()
            let (slot, end) = try accept(&fixture, isSecure: isSecure)
            send(bytes.utf8, to: end)
            fixture.worker.read(slot)
            fixture.worker.settle()
            #expect(receive(from: end).hasPrefix(isSecure ? "" : "HTTP/1.1 400 Bad Request\r\n"))
            let isThere = fixture.worker.connections.isOccupied(slot)
            #expect(isThere != isSecure)
            let closes = fixture.worker.page[.close(.proxyHeader)]
            #expect(closes == 1)
        }
    }

    @Test func `is closed for a header cut short, and without a count where nothing has come`() throws {
        var fixture = try fixture()
        let (slot, end) = try accept(&fixture)
        send(Self.line.dropLast(), to: end)
        fixture.worker.read(slot)
        #expect(shutdown(end, Int32(SHUT_WR)) == 0)
        fixture.worker.read(slot)
        fixture.worker.settle()
        var closes = fixture.worker.page[.close(.proxyHeader)]
        #expect(closes == 1)
        let (silent, other) = try accept(&fixture)
        #expect(shutdown(other, Int32(SHUT_WR)) == 0)
        fixture.worker.read(silent)
        fixture.worker.settle()
        let isThere = fixture.worker.connections.isOccupied(silent)
        #expect(!isThere)
        closes = fixture.worker.page[.close(.proxyHeader)]
        #expect(closes == 1)
    }

    @Test func `has the request's deadline for it`() throws {
        var fixture = try fixture()
        let (slot, end) = try accept(&fixture)
        send(Self.line.prefix(9), to: end)
        fixture.worker.read(slot)
        fixture.pass(seconds: UInt32(Limits.requestSeconds) - 1)
        var isThere = fixture.worker.connections.isOccupied(slot)
        #expect(isThere)
        fixture.pass(seconds: 1)
        isThere = fixture.worker.connections.isOccupied(slot)
        #expect(!isThere)
        let closes = fixture.worker.page[.close(.requestTimeout)]
        #expect(closes == 1)
    }

    @Test func `comes from a trusted proxy, or is refused at the accept`() throws {
        let fixture = try fixture()
        let (isTrusted, isStranger) = (
            fixture.worker.mayConnect(try #require(Address("192.0.2.1"))),
            fixture.worker.mayConnect(try #require(Address("192.0.2.2")))
        )
        #expect(isTrusted && !isStranger)
        let plain = try WorkerFixture()
        let mayConnect = plain.worker.mayConnect(try #require(Address("192.0.2.2")))
        #expect(mayConnect)
    }
}

@Suite struct `The client of a request` {
    private func fixture(_ change: (inout Configuration) -> Void = { _ in }) throws -> WorkerFixture {
        var options = WorkerFixture.Options()
        options.configuration.trustedProxies = [AddressRange("192.0.2.0/24")].compactMap(\.self)
        change(&options.configuration)
        return try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
    }

    @Test func `is settled with each request of a connection anew`() throws {
        var fixture = try fixture()
        let (slot, end) = try fixture.accept()
        for (line, expected) in [
            ("X-Forwarded-For: 198.51.100.1", "198.51.100.1"), ("X-Real-IP: 198.51.100.2", "198.51.100.2"),
            ("A: b", "192.0.2.1"), ("X-Real-IP: 198.51.100.2\r\nX-Forwarded-For: 198.51.100.1", "192.0.2.1"),
        ] {
            send("GET /health HTTP/1.1\r\nHost: a\r\n\(line)\r\n\r\n".utf8, to: end)
            fixture.worker.read(slot)
            fixture.worker.settle()
            let client = fixture.worker.connections[slot].client
            #expect(client.description == expected)
        }
        let conflicts = fixture.worker.page[.clientAddressDisagreement]
        #expect(conflicts == 1)
    }

    @Test func `takes of its own limit, whatever headers it makes up`() throws {
        var fixture = try fixture { $0.joinsPerSecondPerAddress = 1 }
        func join(_ lines: String) throws -> String {
            let (slot, end) = try fixture.accept()
            send("GET /ws HTTP/1.1\r\nHost: a\r\n\(lines)\r\n\r\n".utf8, to: end)
            fixture.worker.read(slot)
            fixture.worker.settle()
            return String(receive(from: end).dropFirst(9).prefix(3))
        }
        // A proxy that sets X-Real-IP alone: two joins for the client, two more for its proxy, and no more whatever it
        // makes up.
        var answers: [String: Int] = [:]
        for made in 0..<20 {
            answers[try join("X-Forwarded-For: 1.1.1.\(made)\r\nX-Real-IP: 198.51.100.1"), default: 0] += 1
        }
        for _ in 0..<5 { answers[try join("X-Real-IP: 198.51.100.1"), default: 0] += 1 }
        #expect(answers == ["400": 4, "429": 21])
        // Who was named has all of theirs.
        #expect(try join("X-Real-IP: 1.1.1.1") == "400")
        #expect(try join("X-Forwarded-For: 1.1.1.1") == "400")
        #expect(try join("X-Forwarded-For: 1.1.1.1") == "429")
    }
}

@Suite struct `The pages from which browsers join` {
    private func isAllowed(_ lines: String..., by origins: [String]) throws -> Bool {
        let text = (["GET /ws HTTP/1.1", "Host: relay.example"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
        return try head(text).isOriginAllowed(origins.compactMap { Origin($0) })
    }

    @Test func `are any by default`() throws {
        for line in ["Origin: https://evil.example", "Origin: null", "Origin:", "A: b"] {
            #expect(try isAllowed(line, by: []))
        }
    }

    @Test func `are those of the list, and a client that names none`() throws {
        let origins = ["https://chat.example", "http://localhost:3000"]
        for line in [
            "Origin: https://chat.example", "origin: HTTPS://CHAT.example", "Origin: https://chat.example:443",
            "Origin: http://localhost:3000", "A: b",
        ] {
            #expect(try isAllowed(line, by: origins), "\(line)")
        }
        for line in [
            "Origin: http://chat.example", "Origin: https://chat.example:8443", "Origin: https://x.chat.example",
            "Origin: https://chat.example.evil", "Origin: null", "Origin:", "Origin: http://localhost",
            "Origin: https://chat.example, https://evil.example",
        ] {
            #expect(try !isAllowed(line, by: origins), "\(line)")
        }
        #expect(try !isAllowed("Origin: https://chat.example", "Origin: https://chat.example", by: origins))
    }
}
