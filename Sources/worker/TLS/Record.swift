// Numbers of the TLS 1.3 record layer (RFC 8446, 5) as both directions need them.
//
//     TLSCiphertext     23 │ 3 3 │ length │ sealed TLSInnerPlaintext │ tag
//                        1     2        2                 1...16,385    16
//     TLSInnerPlaintext content │ its type │ zeros

/// What a record's content is (RFC 8446, 5.1).
enum ContentType: UInt8 {
    case alert = 21
    case handshake = 22
    case applicationData = 23
}

enum Record {
    static let headerBytes = 5
    /// The tag of all three suites (RFC 5116, 5.1; RFC 8439, 2.8).
    static let tagBytes = 16
    /// Content of one record (RFC 8446, 5.1).
    static let plaintextBytesMax = 1 << 14
    /// Content, type and padding together (RFC 8446, 5.4).
    static let innerBytesMax = plaintextBytesMax + 1
    /// What a header may announce (RFC 8446, 5.2).
    static let ciphertextBytesMax = plaintextBytesMax + 256
    /// What a record of ours adds to its content: header, type, tag. We pad nothing.
    static let overheadBytes = headerBytes + 1 + tagBytes
}

/// Alert descriptions (RFC 8446, 6).
enum Alert: UInt8 {
    case closeNotify = 0
    case unexpectedMessage = 10
    case badRecordMAC = 20
    case recordOverflow = 22
    case handshakeFailure = 40
    case badCertificate = 42
    case unsupportedCertificate = 43
    case certificateRevoked = 44
    case certificateExpired = 45
    case certificateUnknown = 46
    case illegalParameter = 47
    case unknownCA = 48
    case accessDenied = 49
    case decodeError = 50
    case decryptError = 51
    case protocolVersion = 70
    case insufficientSecurity = 71
    case internalError = 80
    case inappropriateFallback = 86
    case userCanceled = 90
    case missingExtension = 109
    case unsupportedExtension = 110
    case unrecognizedName = 112
    case badCertificateStatusResponse = 113
    case unknownPSKIdentity = 115
    case certificateRequired = 116
    case noApplicationProtocol = 120

    /// As RFC 8446 writes it.
    var name: StaticString {
        switch self {
        case .closeNotify: "close_notify"
        case .unexpectedMessage: "unexpected_message"
        case .badRecordMAC: "bad_record_mac"
        case .recordOverflow: "record_overflow"
        case .handshakeFailure: "handshake_failure"
        case .badCertificate: "bad_certificate"
        case .unsupportedCertificate: "unsupported_certificate"
        case .certificateRevoked: "certificate_revoked"
        case .certificateExpired: "certificate_expired"
        case .certificateUnknown: "certificate_unknown"
        case .illegalParameter: "illegal_parameter"
        case .unknownCA: "unknown_ca"
        case .accessDenied: "access_denied"
        case .decodeError: "decode_error"
        case .decryptError: "decrypt_error"
        case .protocolVersion: "protocol_version"
        case .insufficientSecurity: "insufficient_security"
        case .internalError: "internal_error"
        case .inappropriateFallback: "inappropriate_fallback"
        case .userCanceled: "user_canceled"
        case .missingExtension: "missing_extension"
        case .unsupportedExtension: "unsupported_extension"
        case .unrecognizedName: "unrecognized_name"
        case .badCertificateStatusResponse: "bad_certificate_status_response"
        case .unknownPSKIdentity: "unknown_psk_identity"
        case .certificateRequired: "certificate_required"
        case .noApplicationProtocol: "no_application_protocol"
        }
    }
}
