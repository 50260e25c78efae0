// The responses that workers alone give: to refused joins, the pages, the end of a handshake. How a response is laid out stands
// in Shared/HTTP/Response.swift.

import Shared

extension Response {
    /// The answer to a request that is refused, behind which the connection closes, with the fields that its status
    /// asks for. `request`, where there is one, tells whether it was a HEAD, whose answer has no content.
    static func refusal(
        _ error: RequestError, retryAfter seconds: UInt64? = nil, request: Request? = nil,
        unixSeconds: UInt64 = Self.unixSeconds()
    ) -> [UInt8] {
        var extra: [Field] = []
        switch error.status {
        case .methodNotAllowed:
            // RFC 9110, 15.5.6. Other paths than `/ws` answer through `error`.
            extra.append(("Allow", "GET"))
        case .upgradeRequired:
            // RFC 9110, 15.5.22; RFC 6455, 4.2.2.
            extra.append(("Upgrade", "websocket"))
            extra.append(("Sec-WebSocket-Version", "13"))
        case .unauthorized:
            // RFC 9110, 15.5.2, wants a challenge; RFC 6750, 3, has one for a token.
            extra.append(("WWW-Authenticate", "Bearer"))
        default:
            break
        }
        if let seconds { extra.append(("Retry-After", "\(seconds)")) }
        var closing = request
        closing?.keepAlive = false
        return self.error(error.status, error.text, extra: extra, request: closing, unixSeconds: unixSeconds)
    }

    /// `/health`: 503 takes a relay that can't serve out of a balancer's list, a degraded one stays in.
    static func health(_ health: Health, request: Request, unixSeconds: UInt64 = Self.unixSeconds()) -> [UInt8] {
        let (status, body): (Status, String) =
            switch health {
            case .ok: (.ok, #"{"status":"ok"}"#)
            case .degraded: (.ok, #"{"status":"degraded"}"#)
            case .unavailable: (.serviceUnavailable, #"{"status":"unavailable"}"#)
            }
        let fields: [Field] = [("Content-Type", "application/json"), Self.noStore, Self.noSniff]
        return build(status, fields, Array(body.utf8), request, unixSeconds: unixSeconds)
    }

    /// `/`.
    static func statusPage(request: Request, unixSeconds: UInt64 = Self.unixSeconds()) -> [UInt8] {
        let fields: [Field] = [
            ("Content-Type", "text/html; charset=utf-8"), Self.noStore, Self.noSniff,
            ("Content-Security-Policy", StatusPage.contentSecurityPolicy), ("Referrer-Policy", "no-referrer"),
        ]
        return build(.ok, fields, Array(StatusPage.html.utf8), request, unixSeconds: unixSeconds)
    }

    /// The end of a good handshake (RFC 6455, 4.2.2). No extension, no subprotocol: all but the accept value is the same for
    /// everybody.
    static func switchingProtocols(accept: [UInt8]) -> [UInt8] {
        var bytes = Array("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".utf8)
        bytes.append(contentsOf: "Sec-WebSocket-Accept: ".utf8)
        bytes.append(contentsOf: accept)
        bytes.append(contentsOf: "\r\n\r\n".utf8)
        return bytes
    }
}
