import COpenSSL
import CTLSKeys
import Testing

@testable import worker

/// TLS13-KDF (EVP_KDF-TLS13_KDF(7)) of one provider.
private struct KeyDerivation: ~Copyable {
    /// What is nil is not said.
    struct Input {
        var mode: Int32?
        var modeName: StaticString?
        var digest: StaticString? = "SHA256"
        var key: [UInt8]?
        var salt: [UInt8]?
        var prefix: [UInt8]? = Array("tls13 ".utf8)
        var label: [UInt8]?
        var data: [UInt8]?

        static func expand(_ secret: [UInt8], _ label: String, _ data: [UInt8]? = nil) -> Self {
            Self(mode: EVP_KDF_HKDF_MODE_EXPAND_ONLY, key: secret, label: Array(label.utf8), data: data)
        }

        static func extract(_ secret: [UInt8]?, after: [UInt8]? = nil) -> Self {
            Self(mode: EVP_KDF_HKDF_MODE_EXTRACT_ONLY, key: secret, salt: after, label: Array("derived".utf8))
        }
    }

    let context: OpaquePointer

    /// - Parameter provider: `ctlskeys`, the relay's, or `default`, libcrypto's.
    init(_ provider: String) throws {
        #expect(TrafficSecrets.areTold)
        let fetched = try #require(EVP_KDF_fetch(nil, "TLS13-KDF", "provider=\(provider)"))
        defer { EVP_KDF_free(fetched) }
        context = try #require(EVP_KDF_CTX_new(fetched))
    }

    deinit { EVP_KDF_CTX_free(context) }

    /// - Returns: nil if it refuses.
    func derive(_ input: Input, _ count: Int) throws -> [UInt8]? {
        // Parameters keep the pointers to their names, and those to their texts: literals stay.
        func text(_ text: StaticString) -> UnsafePointer<CChar> {
            UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
        }
        let builder = try #require(OSSL_PARAM_BLD_new())
        defer { OSSL_PARAM_BLD_free(builder) }
        var octets: [(name: StaticString, bytes: [UInt8])] = []
        if let mode = input.mode { OSSL_PARAM_BLD_push_int(builder, text("mode"), mode) }
        if let mode = input.modeName { OSSL_PARAM_BLD_push_utf8_string(builder, text("mode"), text(mode), 0) }
        if let digest = input.digest { OSSL_PARAM_BLD_push_utf8_string(builder, text("digest"), text(digest), 0) }
        if let key = input.key { octets.append(("key", key)) }
        if let salt = input.salt { octets.append(("salt", salt)) }
        if let prefix = input.prefix { octets.append(("prefix", prefix)) }
        if let label = input.label { octets.append(("label", label)) }
        if let data = input.data { octets.append(("data", data)) }
        // The builder keeps the addresses until it has made the parameters.
        let copies = octets.map { octet in
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, octet.bytes.count), alignment: 1)
            copy.copyBytes(from: octet.bytes)
            return copy
        }
        defer { for copy in copies { copy.deallocate() } }
        for (octet, copy) in zip(octets, copies) {
            OSSL_PARAM_BLD_push_octet_string(builder, text(octet.name), copy.baseAddress, octet.bytes.count)
        }
        let parameters = try #require(OSSL_PARAM_BLD_to_param(builder))
        defer { OSSL_PARAM_free(parameters) }
        var output = [UInt8](repeating: 0xEE, count: count)
        guard EVP_KDF_derive(context, &output, count, parameters) == 1 else { return nil }
        return output
    }
}

private func derive(_ input: KeyDerivation.Input, _ count: Int = 32, by provider: String = "ctlskeys") throws
    -> [UInt8]?
{
    try KeyDerivation(provider).derive(input, count)
}

/// A secret as bytes.
private func take(_ side: TrafficSecrets.Side) -> [UInt8]? {
    guard let secret = TrafficSecrets.take(side) else { return nil }
    return Array(UnsafeRawBufferPointer(secret.unsafeBytes))
}

@Suite struct `Traffic secrets` {
    /// RFC 8448, section 3.
    @Test func `are derived as RFC 8448 derives them`() throws {
        let early = hex("33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
        let handshake = hex("1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
        let master = hex("18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
        let shared = hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
        let hello = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8")
        let finished = hex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
        #expect(try derive(.extract(nil)) == early)
        #expect(try derive(.extract(shared, after: early)) == handshake)
        #expect(try derive(.extract(nil, after: handshake)) == master)
        #expect(try derive(.expand(handshake, "c hs traffic", hello)) == RFC8448.clientHandshakeSecret)
        #expect(try derive(.expand(handshake, "s hs traffic", hello)) == RFC8448.serverHandshakeSecret)
        #expect(try derive(.expand(master, "c ap traffic", finished)) == RFC8448.clientSecret)
        #expect(try derive(.expand(master, "s ap traffic", finished)) == RFC8448.serverSecret)
        #expect(take(.client) == RFC8448.clientSecret && take(.server) == RFC8448.serverSecret)
    }

    @Test(arguments: ["SHA256", "SHA384", "SHA2-256", "sha384"])
    func `are derived as libcrypto's own TLS13-KDF derives them`(digest: String) throws {
        let seed = UInt64.random(in: .min ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        let hashBytes = digest.contains("384") ? 48 : 32
        let digest: StaticString =
            switch digest {
            case "SHA256": "SHA256"
            case "SHA384": "SHA384"
            case "SHA2-256": "SHA2-256"
            default: "sha384"
            }
        func bytes(_ counts: ClosedRange<Int>) -> [UInt8] {
            (0..<Int.random(in: counts, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        for _ in 0..<200 {
            var input = KeyDerivation.Input(digest: digest, prefix: bytes(0...10), label: bytes(0...20))
            let count: Int
            if Bool.random(using: &random) {
                input.mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY
                input.key = bytes(1...64)
                input.data = Bool.random(using: &random) ? bytes(1...64) : nil
                count = Int.random(in: 1...hashBytes, using: &random)
            } else {
                input.modeName = "EXTRACT_ONLY"
                input.key = Bool.random(using: &random) ? bytes(1...80) : nil
                input.salt = Bool.random(using: &random) ? bytes(1...48) : nil
                count = hashBytes
            }
            let expected = try #require(try derive(input, count, by: "default"))
            #expect(try derive(input, count) == expected)
        }
    }

    @Test func `are taken once, by side, and nothing else is kept`() throws {
        _ = (take(.client), take(.server))
        let secret = [UInt8](repeating: 7, count: 32)
        for label in [
            "c hs traffic", "s hs traffic", "exp master", "res master", "key", "iv", "c ap traffi", "c ap traffic ",
        ] {
            #expect(try derive(.expand(secret, label)) != nil)
        }
        #expect(try derive(.extract(secret)) != nil)
        #expect(take(.client) == nil && take(.server) == nil)
        let server = try derive(.expand(secret, "s ap traffic"))
        let client = try derive(.expand(secret, "c ap traffic"))
        #expect(take(.client) == client && take(.client) == nil)
        let later = try derive(.expand(secret, "s ap traffic", [1]))
        #expect(server != later && take(.server) == later && take(.server) == nil)
    }

    @Test func `are not derived of what TLS 1_3 does not know`() throws {
        _ = (take(.client), take(.server))
        let fine = KeyDerivation.Input.expand([UInt8](repeating: 7, count: 32), "s ap traffic")
        func refuses(_ count: Int = 32, _ change: (inout KeyDerivation.Input) -> Void) throws -> Bool {
            var input = fine
            change(&input)
            return try derive(input, count) == nil
        }
        #expect(try refuses { $0.digest = nil } && refuses { $0.digest = "SHA512" } && refuses { $0.digest = "no" })
        #expect(try refuses { $0.mode = nil } && refuses { $0.mode = EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND })
        #expect(try refuses { ($0.mode, $0.modeName) = (nil, "EXTRACT_AND_EXPAND") })
        #expect(try refuses { $0.key = nil } && refuses { $0.key = [] })
        #expect(try refuses { $0.key = [UInt8](repeating: 1, count: 65) }, "longer than a block")
        #expect(try refuses(33) { _ in }, "more than a hash")
        for change: (inout KeyDerivation.Input, [UInt8]) -> Void in [
            { $0.key = $1 }, { $0.salt = $1 }, { $0.prefix = $1 }, { $0.label = $1 }, { $0.data = $1 },
        ] {
            #expect(try refuses { change(&$0, [UInt8](repeating: 1, count: 81)) }, "longer than any of TLS 1.3")
        }
        let extraction = KeyDerivation.Input.extract([1])
        #expect(try derive(extraction, 31) == nil && derive(extraction, 33) == nil)
        #expect(take(.server) == nil)
        #expect(try derive(fine) != nil && take(.server) != nil)
    }

    @Test func `can be derived again with the same context`() throws {
        let derivation = try KeyDerivation("ctlskeys")
        let secret = [UInt8](repeating: 7, count: 32)
        let first = try derivation.derive(.expand(secret, "key"), 16)
        #expect(try derivation.derive(.expand(secret, "key"), 16) == first)
        EVP_KDF_CTX_reset(derivation.context)
        #expect(try derivation.derive(KeyDerivation.Input(), 16) == nil, "nothing is left of what was set")
        #expect(try derivation.derive(.expand(secret, "key"), 16) == first)
    }
}
