// The tokens with which a session's host lets itself and its guests in: compact JWS (RFC 7515) with Ed25519 (RFC 8037).

import CSodium

/// An Ed25519 key pair of a session's host.
struct HostKey {
    let publicKey: [UInt8]
    private let secretKey: [UInt8]

    init() {
        var publicKey = [UInt8](repeating: 0, count: Int(crypto_sign_PUBLICKEYBYTES))
        var secretKey = [UInt8](repeating: 0, count: Int(crypto_sign_SECRETKEYBYTES))
        _ = unsafe crypto_sign_keypair(&publicKey, &secretKey)
        self.publicKey = publicKey
        self.secretKey = secretKey
    }

    /// The `pubkey` parameter.
    var parameter: String { Encoding.base64URL(publicKey) }

    func signature(of text: String) -> [UInt8] {
        var signature = [UInt8](repeating: 0, count: Int(crypto_sign_BYTES))
        let bytes = Array(text.utf8)
        _ = unsafe crypto_sign_detached(&signature, nil, bytes, UInt64(bytes.count), secretKey)
        return signature
    }

    /// A token over any text as claims: the refusal checks sign wrong ones too.
    func token(claims: String, header: String = Token.header) -> String {
        let signed = header + "." + Encoding.base64URL(Array(claims.utf8))
        return signed + "." + Encoding.base64URL(signature(of: signed))
    }

    func token(_ token: Token) -> String {
        self.token(claims: token.claims)
    }
}

/// The claims of a token.
struct Token {
    /// The only first segment that relays accept: base64url of {"alg":"EdDSA","typ":"JWT"}.
    static let header = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9"

    var room: String
    var peer: String
    var role: String
    var name = "relay-load"
    var lifetimeSeconds: Int64 = 3600

    var claims: String {
        let now = Int64(Clock.unix() / 1_000_000_000)
        return "{\"room_id\":\(Encoding.json(room)),\"peer_id\":\(Encoding.json(peer)),\"role\":\(Encoding.json(role)),"
            + "\"name\":\(Encoding.json(name)),\"iat\":\(now),\"exp\":\(now + lifetimeSeconds)}"
    }
}

/// A session as its host opens it: a room and the key that lets people in.
struct Session {
    let room: String
    let key = HostKey()

    func hostRequest() -> Request {
        let token = key.token(Token(room: room, peer: "host", role: "host"))
        return .join(room: room, token: token, hostKey: key.parameter)
    }

    func guestRequest(peer: String) -> Request {
        .join(room: room, token: key.token(Token(room: room, peer: peer, role: "guest")))
    }
}
