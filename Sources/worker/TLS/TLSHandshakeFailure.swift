// Why a handshake failed, sorted by who has to do something about it; and what to make of a connection's first bytes.

import Shared

/// Why a handshake failed.
struct TLSHandshakeFailure: Error, Equatable, CustomStringConvertible {
    typealias Reason = TLSHandshakeFailureReason

    /// What to count it as.
    var reason: Reason
    /// The alert sent or received.
    var alert: UInt8?
    /// For the log: no byte of the client's is in it.
    var description: String

    init(_ reason: Reason, _ detail: String) {
        self.reason = reason
        description = detail
    }

    /// libssl has refused the client.
    init(alertSent alert: UInt8, _ detail: String) {
        self.alert = alert
        reason =
            switch Alert(rawValue: alert) {
            case .protocolVersion, .inappropriateFallback: .protocolVersion
            case .handshakeFailure, .insufficientSecurity, .missingExtension: .nothingInCommon
            case .noApplicationProtocol: .applicationProtocol
            case .internalError: .internalError
            default: .malformed
            }
        description = "\(Self.name(alert)): \(detail)"
    }

    /// The client has refused us.
    init(peerAlert alert: UInt8) {
        self.alert = alert
        reason = .refusedByClient
        description = "the client sent \(Self.name(alert))"
    }

    static func changed(_ what: StaticString) -> TLSHandshakeFailure {
        TLSHandshakeFailure(.libraryChanged, "libssl is not one that this relay knows: \(what)")
    }

    private static func name(_ alert: UInt8) -> String {
        Alert(rawValue: alert).map { "\($0.name)" } ?? "alert \(alert)"
    }
}

/// What a connection to the TLS port begins with.
enum FirstBytes: Equatable {
    /// A TLS record (RFC 8446, 5.1: a handshake's content type).
    case tls
    /// A request without TLS: worth an answer that its sender can read.
    case http
    /// Neither; libssl says no to it in its own way.
    case other

    /// One byte is enough: a method's first is a letter (RFC 9110, 9.1: all methods in use are).
    init(_ byte: UInt8) {
        self =
            switch byte {
            case ContentType.handshake.rawValue: .tls
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"): .http
            default: .other
            }
    }
}
