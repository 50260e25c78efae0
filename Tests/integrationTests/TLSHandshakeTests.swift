import Foundation
import Testing

@Suite struct `TLS handshakes` {
    /// A request over `openssl s_client` that verifies the certificate; its output.
    private func served(_ relay: Relay, _ arguments: String...) async throws -> String {
        let result = try await SClient.run(relay, ["-verify_return_error"] + arguments)
        #expect(result.end == .status(0), "\(arguments): \(result.errors)")
        #expect(result.output.contains(SClient.answer), "\(arguments): \(result.output) \(result.errors)")
        return result.output
    }

    /// What `openssl s_client` says about a handshake that must fail.
    private func refused(_ relay: Relay, _ arguments: String...) async throws -> String {
        let result = try await SClient.run(relay, arguments)
        #expect(result.end == .status(1), "\(arguments)")
        #expect(!result.output.contains(SClient.answer), "\(arguments)")
        return result.errors
    }

    @Test func `take each suite of TLS 1.3, and by themselves AES-128-GCM or the client's ChaCha20`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            let (aes128, aes256) = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
            let chacha = "TLS_CHACHA20_POLY1305_SHA256"
            for (offer, agreed) in [
                (aes128, aes128), (aes256, aes256), (chacha, chacha), ("\(aes256):\(chacha):\(aes128)", aes128),
                // First in the list of a client that has no hardware for AES.
                ("\(chacha):\(aes128)", chacha), ("\(aes256):\(chacha)", aes256),
            ] {
                let output = try await served(relay, "-ciphersuites", offer)
                #expect(output.contains("New, TLSv1.3, Cipher is \(agreed)\n"), "\(offer)")
            }
            #expect(try await refused(relay, "-ciphersuites", "TLS_AES_128_CCM_SHA256").contains("alert number 40"))
        }
    }

    @Test(arguments: [
        (Certificate.Kind.ecdsa, "ECDSA"), (.rsa, "RSA-PSS"), (.ed25519, "ed25519"), (.chain, "ECDSA"),
    ])
    func `serve a certificate of any kind, verified`(kind: Certificate.Kind, signature: String) async throws {
        try await Relay.runTLS(kind, workers: 1) { relay in
            let output = try await served(
                relay, "-showcerts", "-servername", "localhost", "-verify_hostname", "localhost")
            #expect(output.contains("Peer signature type: \(signature)\n"))
            #expect(output.contains("Verify return code: 0 (ok)"))
            // The whole chain and nothing else, leaf first; the root is the client's own.
            let sent = output.components(separatedBy: "-----BEGIN CERTIFICATE-----").count - 1
            #expect(sent == (kind == .chain ? 2 : 1))
            // BoringSSL and libcurl agree.
            if kind != .ed25519 { #expect(try await relay.health().body == SClient.answer) }
            #expect(try await curl("--cacert", "\(relay.folder)/ca.pem", relay.url("/health")) == SClient.answer)
        }
    }

    @Test func `take each group, those that a client has not made a share for by a second ClientHello`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            for (groups, agreed, isSecond) in [
                ("X25519", "X25519", false), ("P-256", "ECDH, prime256v1", false), ("P-384", "ECDH, secp384r1", false),
                // A client makes a share for its first group alone.
                ("P-521:X25519", "X25519", true), ("P-521:P-256", "ECDH, prime256v1", true),
                ("X448:P-384", "ECDH, secp384r1", true),
            ] {
                let output = try await served(relay, "-groups", groups, "-msg")
                #expect(output.contains("Server Temp Key: \(agreed),"), "\(groups)")
                let hellos = output.components(separatedBy: "], ClientHello").count - 1
                #expect(hellos == (isSecond ? 2 : 1), "\(groups)")
            }
            #expect(try await refused(relay, "-groups", "P-521").contains("alert number 40"))
        }
    }

    @Test func `ignore which name a client asks for`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            for name in ["localhost", "elsewhere.example", "x", "xn--bcher-kva.example"] {
                _ = try await served(relay, "-servername", name)
            }
            _ = try await served(relay, "-noservername")
        }
    }

    @Test func `agree on http/1.1 and on no other protocol`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            for offer in ["http/1.1", "h2,http/1.1", "spdy/3,http/1.1,h2"] {
                let output = try await served(relay, "-alpn", offer)
                #expect(output.contains("ALPN protocol: http/1.1\n"), "\(offer)")
            }
            let silent = try await served(relay)
            #expect(silent.contains("No ALPN negotiated"))
            // no_application_protocol (RFC 7301, 3.2).
            for offer in ["h2", "http/1.0,h2,http/1.1x"] {
                let errors = try await refused(relay, "-alpn", offer)
                #expect(errors.contains("alert number 120"), "\(offer)")
            }
        }
    }

    @Test func `refuse every older version with protocol_version`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            #expect(try await refused(relay, "-tls1_2").contains("alert number 70"))
            // Old ones are off in this client unless it is told that they may be weak.
            let old = try await refused(relay, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
            #expect(old.contains("alert number 70"))
            try await relay.healthy()
        }
    }

    @Test func `answer plain HTTP in a way that its sender can read`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "get / HTTP/1.0\r\n\r\n", "POST /ws?"] {
                let client = try await RawClient(relay.port)
                try await client.send(request)
                let response = try await client.response()
                #expect(response.answer == "400 this port speaks TLS: use https:// or wss://", "\(request)")
                #expect(try await client.rest() == [])
            }
            let body = try await curl("http://127.0.0.1:\(relay.port)/health")
            #expect(body.contains("https://"))
        }
    }

    @Test(arguments: [
        ("zeroes", [UInt8](repeating: 0, count: 64)), ("random", [0x80, 0xFF, 0x13, 0x37, 0x00, 0x01, 0x02]),
        ("a record of data", [0x17, 3, 3, 0, 2, 1, 2]), ("an alert", [0x15, 3, 3, 0, 2, 2, 40]),
        ("a record too long", [0x16, 3, 1, 0xFF, 0xFF, 1]), ("a ServerHello", [0x16, 3, 1, 0, 4, 2, 0, 0, 0]),
        ("a ClientHello that is none", [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3]),
    ])
    func `end with an alert, or none, for what is no ClientHello`(name: String, bytes: [UInt8]) async throws {
        try await Relay.runTLS(workers: 1) { relay in
            let workers = relay.workerPIDs
            let client = try await RawClient(relay.port)
            try await client.send(bytes)
            client.finish()
            let answer = try await client.rest()
            // An alert record, fatal, or silence.
            if !answer.isEmpty { #expect(answer.count == 7 && answer[0] == 0x15 && answer[5] == 2, "\(answer)") }
            try await relay.healthy()
            #expect(relay.workerPIDs == workers)
        }
    }

    @Test func `that come byte by byte are served`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let client = try await relay.tlsClient(sendsFlight: false)
            let records = client.flight + (try await client.seal(Array(SClient.lastRequest.utf8)))
            for byte in records { try await client.socket.send([byte]) }
            #expect(try await client.response().body == SClient.answer)
            #expect(try await client.rest() == [] && client.isClosed)
        }
    }

    @Test func `that stall end after ten seconds`() async throws {
        try await Relay.runTLS(workers: 1) { relay in
            // Nothing; half of a ClientHello; all but the client's Finished.
            let silent = try await RawClient(relay.port)
            let partial = try await RawClient(relay.port)
            try await partial.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3])
            let unfinished = try await relay.tlsClient(sendsFlight: false)
            try await eventually("the end of all") {
                silent.isAtEnd() && partial.isAtEnd() && unfinished.socket.isAtEnd()
            }
            // Nothing was said in them but what a handshake says: no word of HTTP.
            #expect(silent.unread() == [] && partial.unread() == [])
            try await relay.healthy()
        }
    }

    @Test func `refuse early data, and the request is served all the same`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let path = "\(relay.folder)/session.pem"
            _ = try await served(relay, "-sess_out", path)
            // The relay's tickets allow none: this client is made to believe that they do.
            try allowEarlyData(path)
            try write("GET /?early HTTP/1.1\r\nHost: x\r\n\r\n", to: "\(relay.folder)/early")
            let output = try await served(relay, "-sess_in", path, "-early_data", "\(relay.folder)/early")
            #expect(output.contains("Reused, TLSv1.3"))
            #expect(output.contains("Early data was rejected"))
            // What came early was thrown away: there is one answer.
            #expect(output.components(separatedBy: "HTTP/1.1 200").count == 2)
        }
    }

    /// Puts `max_early_data` (EXPLICIT [15] INTEGER) into libssl's SSL_SESSION, a SEQUENCE whose optional fields stand in the
    /// order of their tags.
    private func allowEarlyData(_ path: String) throws {
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
        let begin = try #require(lines.firstIndex { $0.hasPrefix("-----BEGIN") })
        let end = try #require(lines.firstIndex { $0.hasPrefix("-----END") })
        let data = try #require(Data(base64Encoded: lines[(begin + 1)..<end].joined()))
        let whole = try #require(element(Array(data)[...]))
        var fields: [UInt8] = []
        var (rest, isPut) = (whole.content, false)
        while let next = element(rest) {
            // A context-specific constructed tag: 0xA0 and the number, or 0xBF and the number behind it.
            let number =
                next.bytes[next.bytes.startIndex] & 0xE0 == 0xA0 ? Int(next.bytes[next.bytes.startIndex] & 0x1F) : -1
            if number == 15 {
                rest = rest[next.bytes.endIndex...]
                continue
            }
            if number > 15 && !isPut {
                fields += [0xAF, 4, 2, 2, 0x40, 0]
                isPut = true
            }
            fields += next.bytes
            rest = rest[next.bytes.endIndex...]
        }
        if !isPut { fields += [0xAF, 4, 2, 2, 0x40, 0] }
        let der = [0x30, 0x82, UInt8(fields.count >> 8), UInt8(fields.count & 0xFF)] + fields
        let pem = Data(der).base64EncodedString(options: [.lineLength64Characters, .endLineWithLineFeed])
        try write("-----BEGIN SSL SESSION PARAMETERS-----\n\(pem)\n-----END SSL SESSION PARAMETERS-----\n", to: path)
    }

    /// The first DER element: all of it, and its content.
    private func element(_ bytes: ArraySlice<UInt8>) -> (bytes: ArraySlice<UInt8>, content: ArraySlice<UInt8>)? {
        guard bytes.count >= 2 else { return nil }
        var offset = bytes.startIndex + 1
        var length = Int(bytes[offset])
        offset += 1
        if length >= 0x80 {
            let count = length & 0x7F
            guard bytes.endIndex - offset >= count else { return nil }
            length = bytes[offset..<(offset + count)].reduce(0) { $0 << 8 | Int($1) }
            offset += count
        }
        guard bytes.endIndex - offset >= length else { return nil }
        return (bytes[bytes.startIndex..<(offset + length)], bytes[offset..<(offset + length)])
    }

    @Test func `let curl have every page`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let trust = "\(relay.folder)/ca.pem"
            let health = try await curl("-i", "--cacert", trust, relay.url("/health"))
            #expect(health.hasPrefix("HTTP/1.1 200") && health.hasSuffix(SClient.answer))
            #expect(try await curl("--cacert", trust, relay.url("/")).contains("<html"))
            let status = ["-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result} %{http_version}"]
            #expect(
                try await curl("--cacert", trust, status[0], status[1], status[2], status[3], relay.url("/nothing"))
                    == "404 0 1.1")
            // Two requests on one connection.
            let both = try await curl(
                "--cacert", trust, "-w", " %{num_connects}\n", relay.url("/health"), relay.url("/health"))
            #expect(both == "\(SClient.answer) 1\n\(SClient.answer) 0\n")
            // Without the root nobody is fooled.
            let distrust = try await run("curl", ["-sS", "--noproxy", "*", relay.url("/health")])
            #expect(distrust.end == .status(60))
            try await relay.healthy()
        }
    }
}
