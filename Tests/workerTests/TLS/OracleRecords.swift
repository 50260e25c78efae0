import COpenSSL
import Testing

@testable import worker

/// The other side's record protection, written from RFC 8446 alone: keys with libcrypto's own TLS13-KDF, one context a record,
/// nothing in place. Can do what no client of a library does.
struct OracleRecords {
    let suite: Suite
    var secret: [UInt8]
    var sequence: UInt64

    init(_ suite: Suite, secret: [UInt8], sequence: UInt64 = 0) {
        self.suite = suite
        self.secret = secret
        self.sequence = sequence
    }

    var key: [UInt8] { Self.expand(suite, secret, "key", suite == .aes128GCM ? 16 : 32) }
    var iv: [UInt8] { Self.expand(suite, secret, "iv", 12) }

    /// RFC 8446, 7.2.
    mutating func update() {
        secret = Self.expand(suite, secret, "traffic upd", secret.count)
        sequence = 0
    }

    static func expand(_ suite: Suite, _ secret: [UInt8], _ label: String, _ count: Int) -> [UInt8] {
        // Parameters keep the pointer to their name.
        func name(_ text: StaticString) -> UnsafePointer<CChar> {
            UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
        }
        let algorithm = EVP_KDF_fetch(nil, "TLS13-KDF", "provider=default")
        let context = EVP_KDF_CTX_new(algorithm)
        defer {
            EVP_KDF_CTX_free(context)
            EVP_KDF_free(algorithm)
        }
        var mode = Array("EXPAND_ONLY".utf8CString)
        var (secret, prefix, label) = (secret, Array("tls13 ".utf8), Array(label.utf8))
        var digest = Array((suite == .aes256GCM ? "SHA384" : "SHA256").utf8CString)
        var output = [UInt8](repeating: 0, count: count)
        let result = mode.withUnsafeMutableBufferPointer { mode in
            digest.withUnsafeMutableBufferPointer { digest in
                secret.withUnsafeMutableBytes { secret in
                    prefix.withUnsafeMutableBytes { prefix in
                        label.withUnsafeMutableBytes { label in
                            EVP_KDF_derive(
                                context, &output, output.count,
                                [
                                    OSSL_PARAM_construct_utf8_string(name("mode"), mode.baseAddress, 0),
                                    OSSL_PARAM_construct_utf8_string(name("digest"), digest.baseAddress, 0),
                                    OSSL_PARAM_construct_octet_string(name("key"), secret.baseAddress, secret.count),
                                    OSSL_PARAM_construct_octet_string(name("prefix"), prefix.baseAddress, prefix.count),
                                    OSSL_PARAM_construct_octet_string(name("label"), label.baseAddress, label.count),
                                    OSSL_PARAM_construct_end(),
                                ])
                        }
                    }
                }
            }
        }
        #expect(result == 1)
        return output
    }

    private func nonce() -> [UInt8] {
        var nonce = iv
        for index in 0..<8 { nonce[4 + index] ^= UInt8(truncatingIfNeeded: sequence >> (56 - 8 * UInt64(index))) }
        return nonce
    }

    private var cipher: OpaquePointer? {
        switch suite {
        case .aes128GCM: EVP_aes_128_gcm()
        case .aes256GCM: EVP_aes_256_gcm()
        case .chacha20Poly1305: EVP_chacha20_poly1305()
        }
    }

    /// A record with content, type and padding.
    mutating func seal(_ type: UInt8, _ content: [UInt8], padding: Int = 0) -> [UInt8] {
        sealInner(content + [type] + [UInt8](repeating: 0, count: padding))
    }

    /// A record with any TLSInnerPlaintext, and any outer header.
    mutating func sealInner(_ inner: [UInt8], outerType: UInt8 = 23, version: [UInt8] = [3, 3]) -> [UInt8] {
        let length = inner.count + 16
        let header = [outerType] + version + [UInt8(length >> 8), UInt8(length & 0xFF)]
        let context = EVP_CIPHER_CTX_new()
        defer { EVP_CIPHER_CTX_free(context) }
        var count: Int32 = 0
        var sealed = [UInt8](repeating: 0, count: inner.count)
        var tag = [UInt8](repeating: 0, count: 16)
        #expect(EVP_EncryptInit_ex(context, cipher, nil, key, nonce()) == 1)
        #expect(EVP_EncryptUpdate(context, nil, &count, header, 5) == 1)
        if !inner.isEmpty { #expect(EVP_EncryptUpdate(context, &sealed, &count, inner, Int32(inner.count)) == 1) }
        #expect(EVP_EncryptFinal_ex(context, nil, &count) == 1)
        #expect(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, &tag) == 1)
        sequence += 1
        return header + sealed + tag
    }

    /// The first record of `wire`, which it is taken from: its type and content.
    mutating func open(_ wire: inout [UInt8], sourceLocation: SourceLocation = #_sourceLocation) throws -> Opened {
        try #require(wire.count >= 5 && wire[0] == 23 && wire[1] == 3 && wire[2] == 3, sourceLocation: sourceLocation)
        let length = Int(wire[3]) << 8 | Int(wire[4])
        try #require(wire.count >= 5 + length && length >= 17, sourceLocation: sourceLocation)
        let header = Array(wire[..<5])
        let sealed = Array(wire[5..<(5 + length - 16)])
        var tag = Array(wire[(5 + length - 16)..<(5 + length)])
        wire.removeFirst(5 + length)
        let context = EVP_CIPHER_CTX_new()
        defer { EVP_CIPHER_CTX_free(context) }
        var count: Int32 = 0
        var inner = [UInt8](repeating: 0, count: sealed.count)
        #expect(EVP_DecryptInit_ex(context, cipher, nil, key, nonce()) == 1)
        #expect(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, &tag) == 1)
        #expect(EVP_DecryptUpdate(context, nil, &count, header, 5) == 1)
        #expect(EVP_DecryptUpdate(context, &inner, &count, sealed, Int32(sealed.count)) == 1)
        try #require(
            EVP_DecryptFinal_ex(context, nil, &count) == 1, "record \(sequence)", sourceLocation: sourceLocation)
        sequence += 1
        let end = try #require(inner.lastIndex { $0 != 0 }, sourceLocation: sourceLocation)
        return Opened(type: inner[end], content: Array(inner[..<end]))
    }

    struct Opened: Equatable {
        var type: UInt8
        var content: [UInt8]

        static func data(_ content: [UInt8]) -> Opened { Opened(type: 23, content: content) }
        static func alert(_ alert: Alert) -> Opened {
            Opened(type: 21, content: [alert == .closeNotify ? 1 : 2, alert.rawValue])
        }
        static func keyUpdate(requested: Bool) -> Opened {
            Opened(type: 22, content: [24, 0, 0, 1, requested ? 1 : 0])
        }
    }
}

/// A session with secrets known to the test, and the client's records on both sides of it.
struct OraclePair {
    var client: OracleRecords
    var server: OracleRecords
    let loop: SessionLoop

    /// - Parameter change: what to change in the session's state (TLSSessionState.swift) before it begins.
    init(_ suite: Suite = .aes128GCM, change: (inout [UInt8]) -> Void = { _ in }) throws {
        let bytes = (0..<suite.hashBytes).map { UInt8($0) }
        let (clientSecret, serverSecret) = (bytes.map { $0 &* 3 &+ 1 }, bytes.map { $0 &* 5 &+ 2 })
        loop = try SessionLoop(makeSession(suite, clientSecret: clientSecret, serverSecret: serverSecret))
        var state = loop.encode()
        change(&state)
        try loop.put(decodeSession(state))
        client = OracleRecords(suite, secret: clientSecret, sequence: Self.sequence(state, 8))
        server = OracleRecords(suite, secret: serverSecret, sequence: Self.sequence(state, 16))
    }

    private static func sequence(_ state: [UInt8], _ offset: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(state[offset + $1]) << (8 * UInt64($1)) }
    }

    /// What the session owes, opened.
    mutating func pending() throws -> [OracleRecords.Opened] {
        var wire = loop.pending()
        var records: [OracleRecords.Opened] = []
        while !wire.isEmpty {
            let record = try server.open(&wire)
            records.append(record)
            if record.type == 22 { server.update() }
        }
        return records
    }
}

/// Sets a sequence number in a session's state.
func setSequence(_ state: inout [UInt8], at offset: Int, _ sequence: UInt64) {
    for index in 0..<8 { state[offset + index] = UInt8(truncatingIfNeeded: sequence >> (8 * UInt64(index))) }
}
