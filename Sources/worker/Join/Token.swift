// Tokens: compact JWS (RFC 7515, 3.1) signed with Ed25519 (RFC 8037), as hosts of sessions make them.
//
// There is one header, byte for byte, so there is no algorithm to choose and none to confuse. The signature is checked
// before anything of the claims is parsed.

import CSodium
import Shared

/// What is wrong with a token. The texts are part of the wire protocol.
enum TokenError: Error, Equatable {
    case malformed
    case unsupportedAlgorithm
    case signatureEncoding
    case signature
    case claimsEncoding
    case claimsJSON
    case missingRoomID
    case missingPeerID
    case invalidPeerID
    case invalidRole
    case expired

    var reason: StaticString {
        switch self {
        case .malformed: "malformed JWT"
        case .unsupportedAlgorithm: "unsupported JWT algorithm"
        case .signatureEncoding: "invalid signature encoding"
        case .signature: "invalid signature"
        case .claimsEncoding: "invalid claims encoding"
        case .claimsJSON: "invalid claims JSON"
        case .missingRoomID: "missing room_id"
        case .missingPeerID: "missing peer_id"
        case .invalidPeerID: "invalid peer_id"
        case .invalidRole: "invalid role"
        case .expired: "token expired"
        }
    }

    /// The body of the 401.
    var answer: StaticString {
        switch self {
        case .malformed: "invalid token: malformed JWT"
        case .unsupportedAlgorithm: "invalid token: unsupported JWT algorithm"
        case .signatureEncoding: "invalid token: invalid signature encoding"
        case .signature: "invalid token: invalid signature"
        case .claimsEncoding: "invalid token: invalid claims encoding"
        case .claimsJSON: "invalid token: invalid claims JSON"
        case .missingRoomID: "invalid token: missing room_id"
        case .missingPeerID: "invalid token: missing peer_id"
        case .invalidPeerID: "invalid token: invalid peer_id"
        case .invalidRole: "invalid token: invalid role"
        case .expired: "invalid token: token expired"
        }
    }
}

/// The claims of a token that is good under a public key at a time. The checks' order is the wire protocol's.
func verifyToken(_ token: [UInt8], publicKey: [UInt8], nowUnixSeconds: Int64) throws(TokenError) -> Claims {
    guard token.count <= Limits.tokenBytesMax else { throw .malformed }
    // Before the header: an empty token has no segment to speak of, and is malformed.
    guard let dots = dots(token.span) else { throw .malformed }
    // {"alg":"EdDSA","typ":"JWT"}
    guard token.span.extracting(0..<dots.first).equals("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9") else {
        throw .unsupportedAlgorithm
    }
    guard let signature = decodeBase64(token[(dots.second + 1)...], variant: .urlWithoutPadding) else {
        throw .signatureEncoding
    }
    guard isSigned(token, dots.second, signature, publicKey) else { throw .signature }
    guard let json = decodeBase64(token[(dots.first + 1)..<dots.second], variant: .urlWithoutPadding) else {
        throw .claimsEncoding
    }
    return try Claims(json: json.span, nowUnixSeconds: nowUnixSeconds)
}

/// Where the two dots of a token stand; nil unless there are two.
private func dots(_ token: Span<UInt8>) -> (first: Int, second: Int)? {
    let first = token.firstIndex(of: Octet.dot, in: token.indices)
    guard first < token.count else { return nil }
    let second = token.firstIndex(of: Octet.dot, in: first + 1..<token.count)
    guard second < token.count, !token.contains(Octet.dot, in: second + 1..<token.count) else { return nil }
    return (first, second)
}

/// Whether the first `count` bytes of a token, at most all, are signed. RFC 8032, 5.1.7, strict: keys and signatures of small
/// order, or not in their canonical form, are refused.
private func isSigned(_ token: [UInt8], _ count: Int, _ signature: [UInt8], _ publicKey: [UInt8]) -> Bool {
    guard signature.count == Int(crypto_sign_BYTES), publicKey.count == Limits.publicKeyBytes else { return false }
    precondition(count <= token.count, "what is signed is a part of the token")
    // Reads the 64 and 32 bytes and the `count` of the token just checked for.
    return unsafe crypto_sign_verify_detached(signature, token, UInt64(count), publicKey) == 0
}
