// Whether a ClientHello is whole (RFC 8446, 4.1.2, 5.1): looked at before libssl is, so that whoever wants a place for
// a handshake has sent all that it takes to answer. Nothing in it is understood here but lengths.

import Shared

/// What a connection to the TLS port has begun with.
enum ClientHello: Equatable {
    /// More is to come.
    case incomplete
    /// All of it is here; what libssl will refuse is as well, for it knows the right alert.
    case whole
    /// Longer than any.
    case tooLong
    /// A request without TLS: worth an answer that its sender can read.
    case http

    /// - Parameter bytes: all that has come, of which there may be more than a ClientHello.
    init(_ bytes: RawSpan) {
        guard bytes.byteCount > 0 else {
            self = .incomplete
            return
        }
        switch FirstBytes(bytes.byte(0)) {
        case .http: self = .http
        case .other: self = .whole
        case .tls: self = Self.read(bytes)
        }
    }

    private static func read(_ bytes: RawSpan) -> ClientHello {
        // The message may be cut into records (RFC 8446, 5.1), and some clients do so.
        var (offset, content, head, headBytes) = (0, 0, 0, 0)
        for _ in 0..<recordsMax where bytes.byteCount - offset >= Record.headerBytes {
            let length = Int(bytes.byte(offset + 3)) << 8 | Int(bytes.byte(offset + 4))
            // What can't be a handshake's record is for libssl to refuse.
            guard bytes.byte(offset) == ContentType.handshake.rawValue, (1...Record.plaintextBytesMax).contains(length)
            else { return .whole }
            let start = offset + Record.headerBytes
            let present = min(length, bytes.byteCount - start)
            for place in start..<(start + min(present, messageHeaderBytes - headBytes)) {
                head = head << 8 | Int(bytes.byte(place))
                headBytes += 1
                guard headBytes > 1 || head == messageType else { return .whole }
            }
            content += present
            if headBytes == messageHeaderBytes {
                let message = messageHeaderBytes + head & 0xFF_FFFF
                guard message <= Record.plaintextBytesMax else { return .tooLong }
                // libssl takes whole records.
                if content >= message && present == length { return .whole }
            }
            guard present == length else { return .incomplete }
            offset = start + length
        }
        return bytes.byteCount - offset >= Record.headerBytes || bytes.byteCount >= Limits.tlsHelloBytesMax
            ? .tooLong : .incomplete
    }

    /// client_hello, and with it its length (RFC 8446, 4).
    private static let messageType = 1
    private static let messageHeaderBytes = 4
    /// More pieces than anybody cuts a ClientHello into: each is looked at again with each read.
    private static let recordsMax = 64
}
