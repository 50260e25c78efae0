// Sessions as hosts open them: a room, a key pair, and tokens. Compact JWS (RFC 7515) with Ed25519 by libsodium.

import CSodium
import Foundation

/// base64url without padding.
func base64URL(_ bytes: [UInt8]) -> String {
    Data(bytes).base64EncodedString().replacingOccurrences(of: "+", with: "-").replacingOccurrences(of: "/", with: "_")
        .replacingOccurrences(of: "=", with: "")
}

/// For a query: everything but letters and digits as %XX.
func percentEncoded(_ text: String) -> String {
    percentEncoded(Array(text.utf8))
}

func percentEncoded(_ bytes: [UInt8]) -> String {
    bytes.map { byte in
        let scalar = Unicode.Scalar(byte)
        let isPlain = byte < 0x80 && (scalar.properties.isAlphabetic || (0x30...0x39).contains(byte))
        return isPlain || "-._".unicodeScalars.contains(scalar) ? String(scalar) : String(format: "%%%02X", byte)
    }.joined()
}

/// A host's Ed25519 key pair.
struct HostKey: Sendable {
    static let header = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9"

    let publicKey: [UInt8]
    private let secretKey: [UInt8]

    init() {
        var publicKey = [UInt8](repeating: 0, count: 32)
        var secretKey = [UInt8](repeating: 0, count: 64)
        precondition(sodium_init() >= 0 && crypto_sign_keypair(&publicKey, &secretKey) == 0)
        self.publicKey = publicKey
        self.secretKey = secretKey
    }

    /// The `pubkey` parameter.
    var parameter: String { base64URL(publicKey) }

    /// A signed token of two segments, whatever they are.
    func sign(_ header: String, _ claims: String) -> String {
        let text = Array("\(header).\(claims)".utf8)
        var signature = [UInt8](repeating: 0, count: 64)
        crypto_sign_detached(&signature, nil, text, UInt64(text.count), secretKey)
        return "\(header).\(claims).\(base64URL(signature))"
    }

    /// A token over any text as claims.
    func token(claims: String) -> String {
        sign(Self.header, base64URL(Array(claims.utf8)))
    }

    /// A token as hosts make it.
    func token(room: String, peer: String, role: String = "guest", expiry: Int? = nil) -> String {
        let now = Int(Date().timeIntervalSince1970)
        return token(
            claims: """
                {"room_id":\(json(room)),"peer_id":\(json(peer)),"role":\(json(role)),"name":"N","iat":\(now),\
                "exp":\(expiry ?? now + 3600)}
                """)
    }
}

/// A JSON string, quotes included.
func json(_ text: String) -> String {
    let data = try? JSONEncoder().encode([text])
    return data.map { String(String(decoding: $0, as: UTF8.self).dropFirst().dropLast()) } ?? ""
}

/// What a join's request line and fields say, right or wrong.
struct Join: Sendable {
    var method = "GET"
    var path = "/ws"
    /// Sent in this order; nil leaves the parameter out.
    var room: String?
    var token: String?
    var publicKey: String?
    /// Beside Host.
    var fields: [(String, String)] = [
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]

    var target: String {
        let parameters = [("room", room), ("token", token), ("pubkey", publicKey)].compactMap { name, value in
            value.map { "\(name)=\(percentEncoded($0))" }
        }
        return parameters.isEmpty ? path : "\(path)?\(parameters.joined(separator: "&"))"
    }

    /// The whole request head.
    var head: String {
        let lines = fields.map { "\($0.0): \($0.1)\r\n" }.joined()
        return "\(method) \(target) HTTP/1.1\r\nHost: relay.test\r\n\(lines)\r\n"
    }

    /// With a field set anew; nil removes it.
    func with(_ name: String, _ value: String?) -> Join {
        var join = self
        join.fields.removeAll { $0.0 == name }
        if let value { join.fields.append((name, value)) }
        return join
    }
}

/// A session: a room and the key that lets people in.
struct Session: Sendable {
    let room: String
    let key = HostKey()

    init(_ room: String = "room-\(UInt64.random(in: 0...UInt64.max))") {
        self.room = room
    }

    func host(_ peer: String = "host") -> Join {
        Join(room: room, token: key.token(room: room, peer: peer, role: "host"), publicKey: key.parameter)
    }

    func guest(_ peer: String = "guest") -> Join {
        Join(room: room, token: key.token(room: room, peer: peer))
    }
}
