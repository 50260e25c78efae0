// What clients do wrong in TLS, before and after the handshake. The alert that goes with a violation stands in the
// worker's TLSViolation.swift.

/// Why a TLS handshake failed, sorted by whose task it is to do something about it.
package enum TLSHandshakeFailureReason: UInt8, CounterLabel {
    /// The client speaks plain HTTP to a port that speaks TLS.
    case plainHTTP
    /// The client speaks no TLS 1.3.
    case protocolVersion
    /// No suite, group or signature in common.
    case nothingInCommon
    /// The client offers ALPN protocols and none of ours (RFC 7301, 3.2).
    case applicationProtocol
    /// The client's bytes are against the rules of RFC 8446.
    case malformed
    /// The client gave up with an alert: most often it does not trust the certificate.
    case refusedByClient
    /// More bytes than any handshake needs.
    case tooLong
    /// This side failed.
    case internalError
    /// libssl does not behave as TLSHandshake relies on.
    case libraryChanged
    /// The address makes more than its rate (RateBucket.requests): closed before the handshake.
    case rateLimited
    /// Others needed its place, or its place in line.
    case gaveWay

    package var label: StaticString {
        switch self {
        case .plainHTTP: "plain_http"
        case .protocolVersion: "protocol_version"
        case .nothingInCommon: "nothing_in_common"
        case .applicationProtocol: "application_protocol"
        case .malformed: "malformed"
        case .refusedByClient: "refused_by_client"
        case .tooLong: "too_long"
        case .internalError: "internal"
        case .libraryChanged: "library_changed"
        case .rateLimited: "rate_limited"
        case .gaveWay: "gave_way"
        }
    }
}

/// A rule of TLS's record layer that a client broke after its handshake. Sections are those of RFC 8446.
package enum TLSViolation: UInt8, CounterLabel {
    /// A record that is not protected: plaintext, or change_cipher_spec after Finished (5).
    case unprotectedRecord
    /// A header announces more than 2^14 + 256 bytes (5.2).
    case recordTooLong
    /// A header announces less than a tag (5.2).
    case recordTooShort
    /// More records under one key than the relay allows, although it asked for a new one (4.6.3, 5.5).
    case keyNotUpdated
    /// The record does not authenticate (5.2).
    case notAuthentic
    /// Content, type and padding take more than 2^14 + 1 bytes (5.4).
    case contentTooLong
    /// Zeros only, so that there is no content type (5.4).
    case noContentType
    /// A content type that is not expected, or that does not exist (5).
    case unexpectedContentType
    /// A record of another type between the fragments of a handshake message (5.1).
    case interleavedHandshake
    /// A handshake or alert record without content (5.1).
    case emptyRecord
    /// An alert record that does not hold one whole alert (5.1).
    case alertLength
    /// Too many records in a row that carry no data.
    case idleRecords
    /// A handshake message that a client may not send after its Finished (4.6).
    case unexpectedHandshakeMessage
    /// A KeyUpdate whose length is not 1 (4.6.3).
    case keyUpdateLength
    /// A KeyUpdate whose request is neither 0 nor 1 (4.6.3).
    case keyUpdateRequest
    /// Bytes after a KeyUpdate in the same record (5.1).
    case bytesAfterKeyUpdate
    /// More KeyUpdates than any client needs (4.6.3).
    case tooManyKeyUpdates

    package var label: StaticString {
        switch self {
        case .unprotectedRecord: "unprotected_record"
        case .recordTooLong: "record_too_long"
        case .recordTooShort: "record_too_short"
        case .keyNotUpdated: "key_not_updated"
        case .notAuthentic: "not_authentic"
        case .contentTooLong: "content_too_long"
        case .noContentType: "no_content_type"
        case .unexpectedContentType: "unexpected_content_type"
        case .interleavedHandshake: "interleaved_handshake"
        case .emptyRecord: "empty_record"
        case .alertLength: "alert_length"
        case .idleRecords: "idle_records"
        case .unexpectedHandshakeMessage: "unexpected_handshake_message"
        case .keyUpdateLength: "key_update_length"
        case .keyUpdateRequest: "key_update_request"
        case .bytesAfterKeyUpdate: "bytes_after_key_update"
        case .tooManyKeyUpdates: "too_many_key_updates"
        }
    }
}
