// Complete HTTP/1.1 responses as bytes (RFC 9112, 4). Pure but for the clock, which a caller may pass.
//
// Every response has a Content-Length or, 101, no content; every response says in Connection whether another request
// may follow. Nothing that a client sent is ever in one.

/// Builds responses.
package enum Response {
    /// A header field: a name and a value, both constants of ours.
    package typealias Field = (String, String)

    package static let noSniff: Field = ("X-Content-Type-Options", "nosniff")
    package static let noStore: Field = ("Cache-Control", "no-store")

    /// An answer of plain text: what is wrong, for people. Without a request at hand the connection closes behind it.
    package static func error(
        _ status: Status, _ text: StaticString, extra: [Field] = [], request: Request? = nil,
        unixSeconds: UInt64 = Self.unixSeconds()
    ) -> [UInt8] {
        let fields: [Field] = [("Content-Type", "text/plain; charset=utf-8"), Self.noSniff] + extra
        return build(status, fields, Array(text.description.utf8), request, unixSeconds: unixSeconds)
    }

    /// The clock of Date.
    package static func unixSeconds() -> UInt64 {
        Clock.unixNanoseconds() / 1_000_000_000
    }

    /// A response with content. `request`, where there is one, tells whether the connection stays and whether it was a HEAD.
    package static func build(
        _ status: Status, _ fields: [Field], _ body: [UInt8], _ request: Request?,
        unixSeconds: UInt64 = Self.unixSeconds()
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

    /// The first line of a response.
    package static func statusLine(_ status: Status) -> [UInt8] {
        Array("HTTP/1.1 \(status.rawValue) \(status.reason)\r\n".utf8)
    }

    package static func append(_ field: Field, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: field.0.utf8)
        bytes.append(contentsOf: ": ".utf8)
        bytes.append(contentsOf: field.1.utf8)
        bytes.append(contentsOf: "\r\n".utf8)
    }
}

/// "Sun, 06 Nov 1994 08:49:37 GMT" (IMF-fixdate, RFC 9110, 5.6.7).
package func httpDate(unixSeconds: UInt64) -> String {
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
