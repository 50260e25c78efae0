// Complete HTTP/1.1 responses as bytes (RFC 9112, 4). Pure but for the clock, which a caller may pass.
//
// Every response has a Content-Length or, 101, no content; every response says in Connection whether another request
// may follow. Nothing that a client sent is ever in one.

import Shared

/// Builds responses.
enum Response {
    /// A header field: a name and a value, both constants of ours.
    typealias Field = (String, String)

    /// An answer of plain text: what is wrong, for people. Without a request at hand the connection closes behind it.
    static func error(
        _ status: Status, _ text: StaticString, extra: [Field] = [], request: Request? = nil,
        unixSeconds: UInt64 = Self.unixSeconds()
    ) -> [UInt8] {
        let fields: [Field] = [("Content-Type", "text/plain; charset=utf-8"), Self.noSniff] + extra
        return build(status, fields, Array(text.description.utf8), request, unixSeconds)
    }

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
        return build(status, fields, Array(body.utf8), request, unixSeconds)
    }

    /// `/`.
    static func statusPage(request: Request, unixSeconds: UInt64 = Self.unixSeconds()) -> [UInt8] {
        let fields: [Field] = [
            ("Content-Type", "text/html; charset=utf-8"), Self.noStore, Self.noSniff,
            ("Content-Security-Policy", StatusPage.contentSecurityPolicy), ("Referrer-Policy", "no-referrer"),
        ]
        return build(.ok, fields, Array(StatusPage.html.utf8), request, unixSeconds)
    }

    /// The end of a good handshake (RFC 6455, 4.2.2). No extension, no subprotocol.
    static func switchingProtocols(accept: [UInt8]) -> [UInt8] {
        var bytes = statusLine(.switchingProtocols)
        append(("Upgrade", "websocket"), to: &bytes)
        append(("Connection", "Upgrade"), to: &bytes)
        append(("Sec-WebSocket-Accept", String(decoding: accept, as: UTF8.self)), to: &bytes)
        bytes.append(contentsOf: "\r\n".utf8)
        return bytes
    }

    /// The clock of Date.
    static func unixSeconds() -> UInt64 {
        Clock.unixNanoseconds() / 1_000_000_000
    }

    private static let noSniff: Field = ("X-Content-Type-Options", "nosniff")
    private static let noStore: Field = ("Cache-Control", "no-store")

    private static func build(
        _ status: Status, _ fields: [Field], _ body: [UInt8], _ request: Request?, _ unixSeconds: UInt64
    ) -> [UInt8] {
        var bytes = statusLine(status)
        // RFC 9110, 6.6.1: a server with a clock sends Date.
        append(("Date", httpDate(unixSeconds: unixSeconds)), to: &bytes)
        for field in fields { append(field, to: &bytes) }
        append(("Content-Length", "\(body.count)"), to: &bytes)
        append(("Connection", connectionOptions(status, request)), to: &bytes)
        bytes.append(contentsOf: "\r\n".utf8)
        // RFC 9110, 9.3.2: HEAD is answered as GET, without the content.
        if request?.method != .head { bytes.append(contentsOf: body) }
        return bytes
    }

    private static func connectionOptions(_ status: Status, _ request: Request?) -> String {
        let persistence = request?.keepsConnection == true ? "keep-alive" : "close"
        // RFC 9110, 7.8: who sends Upgrade names it here.
        return status == .upgradeRequired ? "Upgrade, \(persistence)" : persistence
    }

    private static func statusLine(_ status: Status) -> [UInt8] {
        Array("HTTP/1.1 \(status.rawValue) \(status.reason)\r\n".utf8)
    }

    private static func append(_ field: Field, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: "\(field.0): \(field.1)\r\n".utf8)
    }
}

/// "Sun, 06 Nov 1994 08:49:37 GMT" (IMF-fixdate, RFC 9110, 5.6.7).
func httpDate(unixSeconds: UInt64) -> String {
    let days = Int(unixSeconds / 86_400)
    let second = Int(unixSeconds % 86_400)
    let (year, month, day) = LogText.date(daysSince1970: days)
    // 1 January 1970 was a Thursday.
    let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    func padded(_ number: Int, _ width: Int = 2) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let time = "\(padded(second / 3600)):\(padded(second / 60 % 60)):\(padded(second % 60))"
    return "\(weekdays[days % 7]), \(padded(day)) \(months[month - 1]) \(padded(year, 4)) \(time) GMT"
}
