// The server's half of the WebSocket handshake (RFC 6455, 4.2.1 and 4.2.2), as a verdict on a request's head.
//
// Which status for what: 405 for a method other than GET; 426 where the client does not ask for WebSocket (RFC 9110,
// 15.5.22) or for another version of it (RFC 6455, 4.2.2); 400 where it asks and gets it wrong.

import COpenSSL
import Shared

/// Whether a request is a good WebSocket handshake.
enum WebSocketUpgrade: Equatable {
    /// With what to answer in Sec-WebSocket-Accept: 28 characters.
    case valid(accept: [UInt8])
    case refused(RequestError)

    init(_ request: Request) {
        let fields = request.handshake
        do throws(RequestError) {
            guard request.method == .get else {
                throw RequestError(status: .methodNotAllowed, text: "method not allowed")
            }
            // RFC 9110, 7.8: Upgrade in an HTTP/1.0 request is ignored.
            guard !request.isHTTP10 else { throw .malformed("a WebSocket handshake needs HTTP/1.1") }
            // What is no content to us would be a frame.
            guard !request.hasBody else { throw .malformed("a WebSocket handshake has no content") }
            guard fields.asksForWebSocket else {
                throw .upgradeRequired("Upgrade: websocket is missing")
            }
            guard fields.asksForUpgrade else {
                throw .upgradeRequired("Connection: Upgrade is missing")
            }
            try Self.checkVersion(fields)
            self = .valid(accept: try Self.accept(fields))
        } catch {
            self = .refused(error)
        }
    }

    /// RFC 6455, 11.3.5: 13, and once.
    private static func checkVersion(_ fields: HandshakeFields) throws(RequestError) {
        guard fields.versionCount <= 1 else { throw .malformed("repeated Sec-WebSocket-Version") }
        guard fields.isVersion13 else { throw .upgradeRequired("Sec-WebSocket-Version is not 13") }
    }

    /// RFC 6455, 4.2.1 (5): 16 bytes in base64, and once (11.3.1).
    private static func accept(_ fields: HandshakeFields) throws(RequestError) -> [UInt8] {
        guard fields.keyCount > 0 else { throw .malformed("missing Sec-WebSocket-Key") }
        guard fields.keyCount == 1 else { throw .malformed("repeated Sec-WebSocket-Key") }
        guard decodeBase64(fields.key[...], variant: .original)?.count == 16 else {
            throw .malformed("Sec-WebSocket-Key is not 16 bytes in base64")
        }
        return acceptValue(for: fields.key)
    }

    /// RFC 6455, 4.2.2 (5.4). SHA-1 is no security here: it shows that the server speaks WebSocket.
    private static func acceptValue(for key: [UInt8]) -> [UInt8] {
        var text = key
        text.append(contentsOf: "258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8)
        var digest = [UInt8](repeating: 0, count: Int(SHA_DIGEST_LENGTH))
        // Reads text.count bytes of `text`, writes SHA_DIGEST_LENGTH into `digest`; keeps neither.
        _ = unsafe SHA1(text, text.count, &digest)
        return encodeBase64(digest)
    }
}

extension Request {
    /// Whether the request, taken as a WebSocket handshake, is a good one.
    var upgrade: WebSocketUpgrade { WebSocketUpgrade(self) }

    /// Whether the page that the request comes from is one of these (RFC 6455, 10.2). With none given any is, and so is
    /// a client that names no page: it is no browser.
    func isOriginAllowed(_ allowed: [Origin]) -> Bool {
        guard !allowed.isEmpty else { return true }
        switch origin {
        case .absent: return true
        case .repeated: return false
        case .value(let text): return Origin(utf8: text.span).map { allowed.contains($0) } ?? false
        }
    }
}

extension RequestError {
    fileprivate static func upgradeRequired(_ text: StaticString) -> RequestError {
        RequestError(status: .upgradeRequired, text: text)
    }
}
