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
    let segments = token.split(separator: Octet.dot, omittingEmptySubsequences: false)
    // Before the header: an empty token has no segment to speak of, and is malformed.
    guard segments.count == 3 else { throw .malformed }
    // {"alg":"EdDSA","typ":"JWT"}
    guard segments[0].elementsEqual("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9".utf8) else { throw .unsupportedAlgorithm }
    guard let signature = decodeBase64(segments[2], variant: .urlWithoutPadding) else { throw .signatureEncoding }
    let signed = Array(token[..<segments[1].endIndex])
    guard isSigned(signed, signature, publicKey) else { throw .signature }
    guard let json = decodeBase64(segments[1], variant: .urlWithoutPadding) else { throw .claimsEncoding }
    return try Claims(json: json.span, nowUnixSeconds: nowUnixSeconds)
}

/// RFC 8032, 5.1.7, strict: keys and signatures of small order, or not in their canonical form, are refused.
private func isSigned(_ message: [UInt8], _ signature: [UInt8], _ publicKey: [UInt8]) -> Bool {
    guard signature.count == Int(crypto_sign_BYTES), publicKey.count == Limits.publicKeyBytes else { return false }
    // Reads the 64 and 32 bytes just checked for, and message.count of the message.
    return unsafe crypto_sign_verify_detached(signature, message, UInt64(message.count), publicKey) == 0
}
