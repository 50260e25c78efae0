import CSodium
import Foundation
import Testing

@testable import worker

/// The vectors that every implementation of the protocol shares.
struct TokenVectors: Decodable {
    struct Vector: Decodable, CustomTestStringConvertible {
        struct Claims: Decodable {
            var roomID: String
            var peerID: String
            var role: String

            enum CodingKeys: String, CodingKey {
                case roomID = "room_id"
                case peerID = "peer_id"
                case role
            }
        }
        var name: String
        var token: String
        var expect: String
        var claims: Claims?

        var testDescription: String { name }
    }
    var hostPublicKey: String
    var hostSeed: String
    var otherPublicKey: String
    var tokens: [Vector]

    enum CodingKeys: String, CodingKey {
        case hostPublicKey = "host_public_key"
        case hostSeed = "host_seed"
        case otherPublicKey = "other_public_key"
        case tokens
    }

    static let all: TokenVectors = {
        do {
            guard let url = Bundle.module.url(forResource: "tokens", withExtension: "json", subdirectory: "Vectors")
            else {
                fatalError("Vectors/tokens.json is no resource of this target")
            }
            return try JSONDecoder().decode(TokenVectors.self, from: Data(contentsOf: url))
        } catch {
            fatalError("Vectors/tokens.json: \(error)")
        }
    }()
}

/// Signs tokens with the vectors' host key.
struct TokenSigner {
    static let header = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9"
    var publicKey = [UInt8](repeating: 0, count: 32)
    private var secretKey = [UInt8](repeating: 0, count: 64)

    init(seed: [UInt8]) {
        precondition(seed.count == 32)
        crypto_sign_seed_keypair(&publicKey, &secretKey, seed)
    }

    init() {
        self.init(seed: [UInt8](repeating: 7, count: 32))
    }

    static func base64(_ bytes: [UInt8]) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    func sign(_ signed: String) -> String {
        var signature = [UInt8](repeating: 0, count: 64)
        let message = Array(signed.utf8)
        crypto_sign_detached(&signature, nil, message, UInt64(message.count), secretKey)
        return "\(signed).\(Self.base64(signature))"
    }

    func token(_ claims: String) -> String {
        sign("\(Self.header).\(Self.base64(Array(claims.utf8)))")
    }
}

@Suite struct `Tokens` {
    let signer = TokenSigner()
    let now: Int64 = 1_750_000_000

    func verdict(_ token: String, key: [UInt8]? = nil, now: Int64? = nil) -> String {
        do throws(TokenError) {
            _ = try verifyToken(Array(token.utf8), publicKey: key ?? signer.publicKey, nowUnixSeconds: now ?? self.now)
            return "valid"
        } catch {
            #expect(error.answer.description == "invalid token: \(error.reason)")
            return error.reason.description
        }
    }

    func verdict(claims: String, now: Int64? = nil) -> String { verdict(signer.token(claims), now: now) }

    @Test(arguments: TokenVectors.all.tokens)
    func `get the verdict that the shared vectors want`(vector: TokenVectors.Vector) throws {
        let key = try #require(decodePublicKey(Array(TokenVectors.all.hostPublicKey.utf8)))
        #expect(verdict(vector.token, key: key) == vector.expect)
        guard let claims = vector.claims else { return }
        #expect(
            try verifyToken(Array(vector.token.utf8), publicKey: key, nowUnixSeconds: now)
                == Claims(
                    roomID: Array(claims.roomID.utf8), peerID: Array(claims.peerID.utf8),
                    isHost: claims.role == "host"))
        let other = try #require(decodePublicKey(Array(TokenVectors.all.otherPublicKey.utf8)))
        #expect(verdict(vector.token, key: other) == "invalid signature")
    }

    @Test func `are of the vectors' host key in these tests too`() throws {
        let seed = try #require(decodePublicKey(Array(TokenVectors.all.hostSeed.utf8)))
        #expect(TokenSigner.base64(TokenSigner(seed: seed).publicKey) == TokenVectors.all.hostPublicKey)
    }

    @Test func `are refused for their form before their signature`() {
        for token in ["", ".", "a", "...", String(repeating: "a", count: 4097)] {
            #expect(verdict(token) == "malformed JWT")
        }
        #expect(verdict("..") == "unsupported JWT algorithm")
        #expect(verdict("\(TokenSigner.header)..") == "invalid signature")
        #expect(verdict("\(TokenSigner.header).!.!") == "invalid signature encoding")
        #expect(verdict("\(TokenSigner.header).!.") == "invalid signature")
        #expect(verdict(signer.sign("\(TokenSigner.header).!")) == "invalid claims encoding")
        #expect(verdict(signer.sign("\(TokenSigner.header).e30=")) == "invalid claims encoding")
        #expect(verdict(signer.sign("\(TokenSigner.header).e31")) == "invalid claims encoding")
        #expect(verdict(signer.sign("\(TokenSigner.header).e3\n0")) == "invalid claims encoding")
        #expect(verdict(signer.sign("\(TokenSigner.header).")) == "invalid claims JSON")
        #expect(verdict(signer.sign("\(TokenSigner.header).e30")) == "missing room_id")
        #expect(verdict(signer.sign("\(TokenSigner.header)A.e30")) == "unsupported JWT algorithm")
    }

    @Test func `are refused over 4 KiB`() {
        func token(_ nameBytes: Int) -> String {
            let name = String(repeating: "n", count: nameBytes)
            return signer.token(#"{"room_id":"r","peer_id":"p","role":"guest","name":"\#(name)"}"#)
        }
        var seen: [Int: String] = [:]
        for count in 2900...3000 { seen[token(count).utf8.count] = verdict(token(count)) }
        #expect(seen[4096] == "valid")
        for (count, verdict) in seen { #expect(verdict == (count <= 4096 ? "valid" : "malformed JWT")) }
        #expect(seen.keys.contains { $0 > 4096 })
    }

    @Test func `are refused with any bit of the signature flipped, cut short or grown`() throws {
        let token = signer.token(#"{"room_id":"r","peer_id":"p","role":"guest"}"#)
        #expect(verdict(token) == "valid")
        let parts = token.split(separator: ".")
        let signature = try #require(decodeBase64(Array(parts[2].utf8)[...], variant: .urlWithoutPadding))
        for bit in 0..<512 {
            var flipped = signature
            flipped[bit / 8] ^= 1 << (bit % 8)
            #expect(verdict("\(parts[0]).\(parts[1]).\(TokenSigner.base64(flipped))") == "invalid signature")
        }
        for end in token.indices { #expect(verdict(String(token[..<end])) != "valid") }
        for tail in ["A", "=", ".", "\n", " "] { #expect(verdict(token + tail) != "valid") }
        // Stray bits: 64 bytes leave 4 bits of the last character.
        #expect(verdict(String(token.dropLast()) + "_") == "invalid signature encoding")
    }

    @Test func `are refused under keys of small order and of other lengths`() {
        let token = signer.token(#"{"room_id":"r","peer_id":"p","role":"guest"}"#)
        var identity = [UInt8](repeating: 0, count: 32)
        for key in [[], Array(signer.publicKey.dropLast()), signer.publicKey + [0], identity] {
            #expect(verdict(token, key: key) == "invalid signature")
        }
        // The neutral element signs everything with R the same and S 0, where it is let.
        identity[0] = 1
        let forged = "\(TokenSigner.header).e30.\(TokenSigner.base64(identity + [UInt8](repeating: 0, count: 32)))"
        #expect(verdict(forged, key: identity) == "invalid signature")
    }

    @Test func `expire once exp is past`() {
        func verdict(_ exp: String) -> String {
            self.verdict(claims: #"{"room_id":"r","peer_id":"p","role":"host","exp":\#(exp)}"#)
        }
        for exp in ["0", "-0", "null", "\(now)", "\(now + 1)", "\(Int64.max)"] { #expect(verdict(exp) == "valid") }
        for exp in ["\(now - 1)", "1", "-1", "\(Int64.min)"] { #expect(verdict(exp) == "token expired") }
        for exp in [
            "1.5", "4102444800.0", "1e10", "\"4102444800\"", "true", "[]", "{}", "9223372036854775808", "1e999",
            "123456789012345678901234567890", "-9223372036854775809", "01", "+1", "", "-",
        ] { #expect(verdict(exp) == "invalid claims JSON", "exp \(exp)") }
    }

    @Test(arguments: [
        (#"{"room_id":"a","room_id":"r","peer_id":"p","role":"guest"}"#, "valid"),
        (#"{"room_id":"r","room_id":null,"peer_id":"p","role":"guest"}"#, "valid"),
        (#"{"room_id":null,"peer_id":"p","role":"guest"}"#, "missing room_id"),
        (#"{"Room_ID":"r","peer_id":"p","role":"guest"}"#, "missing room_id"),
        (#"{"room_id":"r","PEER_ID":"p","role":"guest"}"#, "missing peer_id"),
        (#"{"\u0072oom_id":"r","peer_id":"p","role":"g\u0075est"}"#, "valid"),
        (#"{"room_id":"r","peer_id":"p","role":"Guest"}"#, "invalid role"),
        (#"{"room_id":"r","peer_id":"p","role":""}"#, "invalid role"),
        (#"{"room_id":"r","peer_id":"p","role":1}"#, "invalid claims JSON"),
        (#"{"room_id":"r","peer_id":"p","role":"guest","name":1}"#, "invalid claims JSON"),
        (#"{"room_id":"r","peer_id":"p","role":"guest","iat":"1"}"#, "invalid claims JSON"),
        (#"{"room_id":"r","peer_id":["p"],"role":"guest"}"#, "invalid claims JSON"),
        (#"{"peer_id":7}"#, "invalid claims JSON"),
        (#"{"x":{"room_id":"r"},"peer_id":"p","role":"guest"}"#, "missing room_id"),
        (#"{"room_id":"r","peer_id":"p","role":"guest"} x"#, "invalid claims JSON"),
        (#"{"room_id":"r","peer_id":"p","role":"guest",}"#, "invalid claims JSON"),
        (#" {"room_id":"r","peer_id":"p","role":"guest"} "#, "valid"),
        ("null", "invalid claims JSON"), ("", "invalid claims JSON"), (#""room_id""#, "invalid claims JSON"),
        ("\u{FEFF}{}", "invalid claims JSON"),
    ])
    func `get a verdict on their claims`(claims: String, expected: String) {
        #expect(verdict(claims: claims) == expected)
    }

    @Test func `name a peer in 1 to 256 bytes`() {
        for (count, expected) in [(0, "missing peer_id"), (1, "valid"), (256, "valid"), (257, "invalid peer_id")] {
            let id = String(repeating: "p", count: count)
            #expect(verdict(claims: #"{"room_id":"r","peer_id":"\#(id)","role":"guest"}"#) == expected)
        }
    }

    @Test func `never trap`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Tokens: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let good = Array(signer.token(#"{"room_id":"r","peer_id":"p","role":"guest"}"#).utf8)
        for _ in 0..<2_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            guard bytes != good else { continue }
            #expect(throws: TokenError.self, "seed \(seed)") {
                try verifyToken(bytes, publicKey: signer.publicKey, nowUnixSeconds: now)
            }
        }
    }
}

@Suite struct `Base64` {
    /// libsodium 1.0.18 takes every octet from 0x80 for the last character of the alphabet.
    @Test(arguments: [(Base64Variant.original, "+/"), (.urlWithoutPadding, "-_")])
    func `has 64 characters in each variant, at every place`(variant: Base64Variant, last: String) {
        let alphabet = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789\(last)".utf8)
        for place in 0..<4 {
            var accepted: Set<UInt8> = []
            for octet in UInt8.min...UInt8.max {
                var text = Array("AAAA".utf8)
                text[place] = octet
                if decodeBase64(text[...], variant: variant) != nil { accepted.insert(octet) }
            }
            // The padding of a shorter text.
            if variant == .original, place == 3 { accepted.remove(UInt8(ascii: "=")) }
            #expect(accepted == alphabet)
        }
    }

    @Test func `is what Foundation encodes, of every length`() {
        var random = SplitMix64(seed: 1)
        for count in 0..<70 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            let padded = Array(Data(bytes).base64EncodedString().utf8)
            #expect(encodeBase64(bytes) == padded)
            #expect(decodeBase64(padded[...], variant: .original) == bytes)
            #expect(decodeBase64(Array(TokenSigner.base64(bytes).utf8)[...], variant: .urlWithoutPadding) == bytes)
        }
    }
}

@Suite struct `Public keys` {
    @Test func `are 32 bytes in base64url without padding, in one way only`() {
        let key = TokenVectors.all.hostPublicKey
        #expect(decodePublicKey(Array(key.utf8))?.count == 32)
        let cut = String(key.dropLast())
        for text in ["", key + "=", key + "A", cut, key + "\n", " " + key, cut + "t"] {
            #expect(decodePublicKey(Array(text.utf8)) == nil)
        }
        let dashes = String(repeating: "-_", count: 21) + "8"
        #expect(decodePublicKey(Array(dashes.utf8)) != nil)
        #expect(decodePublicKey(Array(dashes.replacing("-", with: "+").utf8)) == nil)
        // 31 and 33 bytes.
        #expect(decodePublicKey(Array(String(repeating: "A", count: 42).utf8)) == nil)
        #expect(decodePublicKey(Array(String(repeating: "A", count: 44).utf8)) == nil)
        // 32 bytes leave 2 bits of the last character: of 64 last characters 16 hold none of them.
        let last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        let decoded = last.filter { decodePublicKey(Array((String(key.dropLast()) + String($0)).utf8)) != nil }
        #expect(decoded.count == 16)
    }
}
