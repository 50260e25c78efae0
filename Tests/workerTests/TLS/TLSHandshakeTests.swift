import COpenSSL
import Shared
import Testing

@testable import worker

@Suite struct `TLS handshakes` {
    /// Data both ways, over whatever the handshake left.
    func exchange(_ client: TLSClient, _ server: SessionLoop) {
        client.write(Array("ping".utf8))
        server.run(client.output())
        #expect(server.received == Array("ping".utf8))
        client.receive(server.send(Array("pong".utf8)))
        #expect(client.read() == Array("pong".utf8))
        #expect(!client.hasFailed && server.events.isEmpty)
    }

    @Test(arguments: Suite.allCases, TestCertificate.Kind.allCases)
    func `agree on each suite with each kind of certificate`(suite: Suite, kind: TestCertificate.Kind) throws {
        let certificate = TestCertificate.of(kind)
        let (client, server, parameters) = try connect(
            .init(suites: "\(suite.name)", trusted: certificate.root), context: makeContext(certificate))
        #expect(parameters == TLSParameters(suite: suite, isResumed: false, hasALPN: true))
        #expect(SSL_get_verify_result(client.ssl) == X509_V_OK)
        exchange(client, server)
        #expect(client.tickets.count == Limits.tlsTickets)
    }

    @Test(arguments: [
        ("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", Suite.chacha20Poly1305),
        ("TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", .aes128GCM),
        ("TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256", .aes256GCM),
    ])
    func `prefer AES-128, and ChaCha20 if the client does`(offered: String, expected: Suite) throws {
        #expect(try connect(.init(suites: offered)).parameters.suite == expected)
    }

    @Test(arguments: ["X25519", "P-256", "P-384"])
    func `agree on each group`(group: String) throws {
        let (client, server, _) = try connect(.init(groups: group))
        exchange(client, server)
    }

    @Test func `ask again when the client's key share is of a group that is not served`() throws {
        // OpenSSL sends a share of its first group only.
        let (client, server, _) = try connect(.init(groups: "P-521:P-384"))
        exchange(client, server)
        // RFC 8446, 4.1.4.
        #expect(client.hellosSent == 2)
        #expect(SSL_ctrl(client.ssl, SSL_CTRL_GET_NEGOTIATED_GROUP, 0, nil) == Int(NID_secp384r1))
    }

    @Test func `send the issuers' certificates too`() throws {
        let (client, _, _) = try connect()
        #expect(OPENSSL_sk_num(SSL_get_peer_cert_chain(client.ssl)) == 2)
    }

    @Test(arguments: [nil, "other.example", "a", String(repeating: "a.", count: 120) + "example"])
    func `serve any server name`(name: String?) throws {
        let (client, server, _) = try connect(.init(serverName: name))
        exchange(client, server)
    }

    // MARK: - ALPN

    @Test(arguments: [["http/1.1"], ["h2", "http/1.1"], ["http/1.1", "h2"], ["http/1.0", "http/1.1", "x"]])
    func `choose http/1.1 among what ALPN offers`(offered: [String]) throws {
        let (client, _, parameters) = try connect(.init(alpn: offered))
        #expect(parameters.hasALPN)
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(client.ssl, &name, &count)
        #expect(Array(UnsafeBufferPointer(start: name, count: Int(count))) == Array("http/1.1".utf8))
    }

    @Test func `go without ALPN if the client does`() throws {
        let (client, server, parameters) = try connect(.init(alpn: []))
        #expect(!parameters.hasALPN)
        exchange(client, server)
    }

    @Test(arguments: [["h2"], ["h2", "http/1.0"], ["http/1.1x"], ["http/1"], ["HTTP/1.1"]])
    func `are refused if ALPN offers other protocols only`(offered: [String]) throws {
        let client = TLSClient(.init(alpn: offered))
        let server = try HandshakeLoop(makeContext())
        shakeHands(client, server)
        #expect(server.failure?.reason == .applicationProtocol)
        #expect(client.alertReceived == Alert.noApplicationProtocol.rawValue)
    }

    // MARK: - Cut in pieces

    @Test(arguments: [1, 2, 3, 7, 64, 100])
    func `do not mind how the client's bytes are cut`(chunkBytes: Int) throws {
        let client = TLSClient()
        let server = try HandshakeLoop(makeContext())
        let rest = shakeHands(client, server, chunkBytes: chunkBytes, request: Array("request".utf8))
        let loop = try server.session()
        loop.run(rest)
        #expect(loop.received == Array("request".utf8))
        #expect(loop.send(Array("answer".utf8)).count == TLSSession.recordBytes(plaintext: 6))
    }

    @Test func `do not mind where the ClientHello is cut`() throws {
        let context = try makeContext()
        let length = {
            let client = TLSClient()
            client.receive([])
            return client.output().count
        }()
        for split in 1..<length {
            let client = TLSClient()
            client.receive([])
            let hello = client.output()
            let server = try HandshakeLoop(context)
            #expect(server.run(Array(hello[..<split])).isEmpty)
            client.receive(server.run(Array(hello[split...])))
            #expect(client.isConnected)
            client.receive(server.run(client.output()))
            exchange(client, try server.session())
        }
    }

    @Test func `do not mind where the last flight and the request behind it are cut`() throws {
        let context = try makeContext()
        let request = [UInt8](repeating: 0x61, count: 50)
        var length = 2
        var split = 0
        while split <= length {
            let client = TLSClient()
            client.receive([])
            let server = try HandshakeLoop(context)
            client.receive(server.run(client.output()))
            // Finished and request leave together.
            client.write(request)
            let flight = client.output()
            length = flight.count
            var toClient = server.run(Array(flight[..<split]))
            var rest = Array(flight[split...])
            if !server.isOver {
                toClient += server.run(rest)
                rest = []
            }
            let loop = try server.session()
            loop.run(rest)
            #expect(loop.received == request)
            client.receive(toClient + loop.send(Array("pong".utf8)))
            #expect(client.read() == Array("pong".utf8))
            #expect(client.tickets.count == Limits.tlsTickets)
            split += 1
        }
    }

    @Test func `leave every byte behind Finished to the session`() throws {
        let client = TLSClient()
        client.receive([])
        let server = try HandshakeLoop(makeContext())
        client.receive(server.run(client.output()))
        let data = (0..<60_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        client.write(data)
        let flight = client.output()
        _ = server.run(flight)
        #expect(try server.session().received == data)
    }

    // MARK: - Resumption

    @Test(arguments: Suite.allCases)
    func `resume on another worker with a ticket of the same ring`(suite: Suite) throws {
        let (first, firstServer, _) = try connect(.init(suites: "\(suite.name)"))
        exchange(first, firstServer)
        let ticket = try first.ticket()
        defer { SSL_SESSION_free(ticket) }
        let (second, server, parameters) = try connect(
            .init(suites: "\(suite.name)", session: ticket), context: makeContext())
        #expect(parameters == TLSParameters(suite: suite, isResumed: true, hasALPN: true))
        #expect(SSL_session_reused(second.ssl) == 1)
        exchange(second, server)
        // And gets a new ticket, to be used once (RFC 8446, C.4).
        #expect(second.tickets.count == 1)
    }

    @Test func `make full handshakes of tickets whose key has left the ring`() throws {
        let (first, firstServer, _) = try connect(context: makeContext(ring: ticketRing(1)))
        exchange(first, firstServer)
        let ticket = try first.ticket()
        defer { SSL_SESSION_free(ticket) }
        let context = try makeContext(ring: ticketRing(2, 1))
        #expect(try connect(.init(session: ticket), context: context).parameters.isResumed)
        try ticketRing(3, 2).withUnsafeBytes { try context.replaceTicketKeys($0) }
        let (client, server, parameters) = try connect(.init(session: ticket), context: context)
        #expect(!parameters.isResumed)
        exchange(client, server)
        try ticketRing(4, 3, 1).withUnsafeBytes { try context.replaceTicketKeys($0) }
        #expect(try connect(.init(session: ticket), context: context).parameters.isResumed)
    }

    @Test func `seal tickets with the newest key`() throws {
        let (first, firstServer, _) = try connect(context: makeContext(ring: ticketRing(2, 1)))
        exchange(first, firstServer)
        let ticket = try first.ticket()
        defer { SSL_SESSION_free(ticket) }
        #expect(try !connect(.init(session: ticket), context: makeContext(ring: ticketRing(1))).parameters.isResumed)
        #expect(try connect(.init(session: ticket), context: makeContext(ring: ticketRing(2))).parameters.isResumed)
    }

    @Test func `make full handshakes of tickets that somebody has changed`() throws {
        let (first, firstServer, _) = try connect()
        exchange(first, firstServer)
        // Same name, other keys: the MAC is wrong.
        var ring = ticketRing(1)
        for index in 16..<80 { ring[index] ^= 1 }
        let ticket = try first.ticket()
        defer { SSL_SESSION_free(ticket) }
        let (client, server, parameters) = try connect(.init(session: ticket), context: makeContext(ring: ring))
        #expect(!parameters.isResumed)
        exchange(client, server)
    }

    @Test func `refuse early data and go on`() throws {
        // A server of libssl's own makes a ticket that allows early data, and shares our ticket keys.
        let ticket = try earlyDataTicket()
        defer { SSL_SESSION_free(ticket) }
        #expect(SSL_SESSION_get_max_early_data(ticket) > 0)
        let client = TLSClient(.init(session: ticket, earlyData: Array("early".utf8)))
        let server = try HandshakeLoop(makeContext())
        let rest = shakeHands(client, server)
        #expect(rest.isEmpty)
        #expect(SSL_get_early_data_status(client.ssl) == SSL_EARLY_DATA_REJECTED)
        let loop = try server.session()
        #expect(loop.received.isEmpty)
        exchange(client, loop)
    }

    /// A ticket that says early data is welcome: our context's, but for that.
    private func earlyDataTicket() throws -> OpaquePointer {
        let context = try makeContext()
        SSL_CTX_set_max_early_data(context.pointer, 1000)
        // Else a ticket that allows early data is remembered by the server.
        SSL_CTX_set_options(context.pointer, 1 << 24)
        let (client, server, _) = try connect(context: context)
        exchange(client, server)
        return try client.ticket()
    }

    // MARK: - Refused

    func refusal(_ options: TLSClient.Options) throws -> (TLSHandshakeFailure?, UInt8?) {
        let client = TLSClient(options)
        let server = try HandshakeLoop(makeContext())
        shakeHands(client, server)
        return (server.failure, client.alertReceived)
    }

    @Test func `refuse a client without TLS 1.3`() throws {
        let (failure, alert) = try refusal(.init(versionMax: Int(TLS1_2_VERSION)))
        #expect(failure?.reason == .protocolVersion)
        #expect(alert == Alert.protocolVersion.rawValue && failure?.alert == alert)
        #expect(failure?.description == "protocol_version: unsupported protocol")
    }

    @Test func `refuse a client without a suite or group in common`() throws {
        for options in [TLSClient.Options(suites: "TLS_AES_128_CCM_SHA256"), .init(groups: "P-521")] {
            let (failure, alert) = try refusal(options)
            #expect(failure?.reason == .nothingInCommon)
            #expect(alert == Alert.handshakeFailure.rawValue)
        }
    }

    @Test func `tell of a client that does not trust the certificate`() throws {
        let (failure, _) = try refusal(.init(trusted: TestCertificate.of(.rsa).root))
        #expect(failure?.reason == .refusedByClient)
        #expect(failure?.alert == Alert.unknownCA.rawValue)
        #expect(failure?.description == "the client sent unknown_ca")
    }

    @Test(arguments: [
        (Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), nil), ([UInt8](repeating: 0, count: 100), nil),
        ([0x16, 3, 1, 0xFF, 0xFF, 1], Alert.recordOverflow), ([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], .decodeError),
        ([0x16, 3, 1, 0, 4, 2, 0, 0, 0], .unexpectedMessage),
        ([0x17, 3, 3, 0, 20] + [UInt8](repeating: 7, count: 20), .unexpectedMessage),
    ])
    func `refuse what is no ClientHello`(bytes: [UInt8], alert: Alert?) throws {
        let server = try HandshakeLoop(makeContext())
        let output = server.run(bytes)
        let failure = try #require(server.failure)
        #expect(failure.reason == .malformed, "\(failure)")
        #expect(failure.alert == alert?.rawValue, "\(failure)")
        // The alert is there to be sent, in the clear.
        #expect(output == (alert.map { [21, 3, 3, 0, 2, 2, $0.rawValue] } ?? []), "\(failure)")
    }

    @Test func `end at once when a record is not authentic`() throws {
        let client = TLSClient()
        client.receive([])
        let server = try HandshakeLoop(makeContext())
        client.receive(server.run(client.output()))
        var flight = client.output()
        flight[flight.count - 1] ^= 1
        client.receive(server.run(flight))
        #expect(server.failure?.alert == Alert.badRecordMAC.rawValue)
        _ = client.read()
        #expect(client.alertReceived == Alert.badRecordMAC.rawValue)
    }

    @Test func `end when a ClientHello never does`() throws {
        // A ClientHello of 131,000 bytes, in records of 16,384, is legal until it is too much.
        let server = try HandshakeLoop(makeContext())
        var message: [UInt8] = [1, 1, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 131_000)
        while !message.isEmpty && !server.isOver {
            let part = Array(message.prefix(16_384))
            message.removeFirst(part.count)
            _ = server.run([22, 3, 1, UInt8(part.count >> 8), UInt8(part.count & 0xFF)] + part)
        }
        #expect(server.failure?.reason == .tooLong)
    }

    @Test func `survive seeded mutations of both flights`() throws {
        let context = try makeContext()
        var random = SplitMix64(seed: 3)
        for _ in 0..<300 {
            let client = TLSClient()
            client.receive([])
            let server = try HandshakeLoop(context)
            var hello = client.output()
            if Bool.random(using: &random) {
                hello[Int.random(in: 0..<hello.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            client.receive(server.run(hello))
            guard !server.isOver, client.isConnected else { continue }
            var flight = client.output()
            let place = Int.random(in: 0..<flight.count, using: &random)
            flight[place] ^= UInt8.random(in: 1...255, using: &random)
            _ = server.run(flight)
            // Nothing of the last flight may be changed but the record version, which is ignored.
            if server.parameters != nil { #expect(place == 1 || place == 2) }
        }
    }

    // MARK: - Another libssl

    @Test(arguments: [0, 1, 2, 5, 20])
    func `count any number of tickets`(tickets: Int) throws {
        let context = try makeContext()
        #expect(SSL_CTX_set_num_tickets(context.pointer, tickets) == 1)
        let (client, server, _) = try connect(context: context)
        exchange(client, server)
        #expect(client.tickets.count == tickets)
    }

    /// A handshake with a libssl that tells other things than the one that this was written for.
    func failure(_ change: (TLSContext) -> Void) throws -> TLSHandshakeFailure? {
        let context = try makeContext()
        change(context)
        let server = try HandshakeLoop(context)
        shakeHands(TLSClient(), server)
        return server.failure
    }

    @Test func `fail if libssl derives another secret, none, or one of another length`() throws {
        let other = try failure { context in
            context.takeSecret = { side in
                guard let secret = TrafficSecrets.take(side) else { return nil }
                if side == .server { secret.unsafeBytes[31] ^= 1 }
                return secret
            }
        }
        let none = try failure { context in
            context.takeSecret = { side in
                _ = TrafficSecrets.take(side)
                return nil
            }
        }
        let half = try failure { context in
            context.takeSecret = { side in
                guard let secret = TrafficSecrets.take(side) else { return nil }
                return Secret(
                    copying: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(secret.unsafeBytes)[..<16]))
            }
        }
        for failure in [other, none, half] { #expect(failure?.reason == .libraryChanged) }
    }

    @Test func `fail if libssl tells of more records than it writes, fewer, or of one read too many`() throws {
        let more = try failure { context in
            SSL_CTX_set_msg_callback(context.pointer) { isWritten, version, type, bytes, count, ssl, argument in
                TLSHandshake.messagePassed(isWritten, version, type, bytes, count, ssl, argument)
                if isWritten == 1 { TLSHandshake.messagePassed(isWritten, version, type, bytes, count, ssl, argument) }
            }
        }
        let none = try failure { SSL_CTX_set_msg_callback($0.pointer) { _, _, _, _, _, _, _ in } }
        let read = try failure { context in
            SSL_CTX_set_msg_callback(context.pointer) { isWritten, version, type, bytes, count, ssl, argument in
                TLSHandshake.messagePassed(isWritten, version, type, bytes, count, ssl, argument)
                TLSHandshake.messagePassed(0, version, type, bytes, count, ssl, argument)
            }
        }
        for failure in [more, none, read] { #expect(failure?.reason == .libraryChanged) }
    }

    @Test func `are told apart from plain HTTP by their first byte`() {
        #expect(FirstBytes(0x16) == .tls)
        for method in ["GET", "POST", "OPTIONS", "PRI", "get"] {
            #expect(method.utf8.first.map(FirstBytes.init) == .http)
        }
        for byte: UInt8 in [0, 0x15, 0x17, 0x80, 0x0D, 0x20, 0xFF, 0x40, 0x5B, 0x60, 0x7B] {
            #expect(FirstBytes(byte) == .other)
        }
    }
}
