// Bytes in, a request or a refusal out: HTTP/1.1's request head (RFC 9112). No I/O, no state, no trap whatever the
// bytes.
//
// Strict where leniency lets two programs read two different requests out of the same bytes (request smuggling): a
// proxy in front of the relay may be lenient. So: CRLF alone ends a line, no control characters, no folding, no blanks
// around a name, one Host, one way to tell where content ends.
//
// A refusal does not depend on how the bytes were cut into reads: whatever a byte alone can show (`searchHead`) is
// refused before anything that takes the whole head (`readHead`).

/// Looks at all bytes received since the last request. `searched` of them were there at the call before, which found
/// the head incomplete: they are not searched again, so that a client who sends byte by byte costs no more than others.
package func parseRequest(_ bytes: Span<UInt8>, searched: Int = 0) -> RequestParse {
    do throws(RequestError) {
        let start = leadingEmptyLineBytes(bytes)
        guard let end = try searchHead(bytes, start: start, searched: searched) else { return .incomplete }
        var head: [UInt8] = []
        head.reserveCapacity(end - start)
        for index in start..<end { head.append(bytes[index]) }
        return .head(try readHead(head, headBytes: end))
    } catch {
        return .refused(error)
    }
}

/// RFC 9112, 2.2: a server ought to ignore an empty line before a request, which old clients send behind content.
private func leadingEmptyLineBytes(_ bytes: Span<UInt8>) -> Int {
    bytes.count >= 2 && bytes[0] == Octet.carriageReturn && bytes[1] == Octet.lineFeed ? 2 : 0
}

/// Where the head ends, nil while it has not. Bytes behind it are not looked at: they are another protocol's.
private func searchHead(_ bytes: Span<UInt8>, start: Int, searched: Int) throws(RequestError) -> Int? {
    let limit = min(bytes.count, Limits.requestHeadBytesMax)
    // The last three may begin what the next ends.
    var index = max(start, min(max(searched, 3) - 3, limit))
    while index < limit {
        switch bytes[index] {
        case Octet.carriageReturn:
            // RFC 9112, 2.2: a bare CR is invalid.
            guard index + 1 >= limit || bytes[index + 1] == Octet.lineFeed else {
                throw .malformed("bare CR in request head: lines end with CR LF")
            }
        case Octet.lineFeed:
            guard index > start, bytes[index - 1] == Octet.carriageReturn else {
                throw .malformed("bare LF in request head: lines end with CR LF")
            }
            if index - 3 >= start, bytes[index - 2] == Octet.lineFeed { return index + 1 }
        case Octet.tab, 0x20...0x7E, 0x80...0xFF:
            break
        default:
            // RFC 9110, 5.5. Also what speaks TLS, or anything binary, to this port.
            throw .malformed("control character in request head")
        }
        index += 1
    }
    guard bytes.count < Limits.requestHeadBytesMax else {
        throw RequestError(status: .requestHeadTooLarge, text: "request head over 16 KiB")
    }
    return nil
}

/// Reads a head that has passed the search: its lines end with CR LF, the last is empty, and there is no CR, LF or
/// control character other than HTAB within them.
private func readHead(_ head: [UInt8], headBytes: Int) throws(RequestError) -> Request {
    var lines = HeadLines(head: head)
    let line = try RequestLine(lines.next())
    var fields = HeadFields()
    while true {
        let field = lines.next()
        if field.isEmpty { break }
        try fields.add(field)
    }
    try fields.checkHost(isHTTP10: line.isHTTP10)
    let hasBody = try fields.hasBody(isHTTP10: line.isHTTP10)
    // RFC 9112, 9.3: "close" wins; else 1.1 persists, 1.0 if it asks to.
    let keepAlive =
        !listContains(fields.handshake.connection, "close")
        && (!line.isHTTP10 || listContains(fields.handshake.connection, "keep-alive"))
    return Request(
        method: line.method, path: line.path, query: line.query, isHTTP10: line.isHTTP10, headBytes: headBytes,
        hasBody: hasBody, keepAlive: keepAlive,
        handshake: fields.handshake,
        forwardedFor: fields.forwardedFor.isEmpty ? nil : Array(fields.forwardedFor.joined(separator: [Octet.comma])),
        realIP: fields.realIP.last.map { Array($0) })
}

/// The lines of a head, without their ends.
private struct HeadLines {
    let head: [UInt8]
    private var index = 0

    init(head: [UInt8]) {
        self.head = head
    }

    /// The next line; empty at the end of the head.
    mutating func next() -> ArraySlice<UInt8> {
        let line = head[index...].prefix { $0 != Octet.carriageReturn }
        index = min(line.endIndex + 2, head.count)
        return line
    }
}

/// method SP request-target SP HTTP-version (RFC 9112, 3).
private struct RequestLine {
    var method: Method
    var path = "/"
    var query: [UInt8] = []
    var isHTTP10: Bool

    /// RFC 9112, 3: 501 for a method longer than any that is known. The longest registered one has 17 bytes.
    private static let methodBytesMax = 32

    init(_ line: ArraySlice<UInt8>) throws(RequestError) {
        let parts = line.split(separator: Octet.space, omittingEmptySubsequences: false)
        guard parts.count == 3, isToken(parts[0]), !parts[1].isEmpty else {
            throw .malformed("malformed request line: it is METHOD TARGET HTTP/1.1")
        }
        guard parts[0].count <= Self.methodBytesMax else {
            throw RequestError(status: .notImplemented, text: "unknown method")
        }
        switch String(decoding: parts[0], as: UTF8.self) {
        case "GET": method = .get
        case "HEAD": method = .head
        case let name: method = .other(name)
        }
        isHTTP10 = try Self.isHTTP10(parts[2])
        try readTarget(parts[1])
    }

    /// RFC 9112, 2.3: case-sensitive, one digit each.
    private static func isHTTP10(_ version: ArraySlice<UInt8>) throws(RequestError) -> Bool {
        switch String(decoding: version, as: UTF8.self) {
        case "HTTP/1.1": return false
        case "HTTP/1.0": return true
        default: break
        }
        let octets = Array(version)
        guard octets.count == 8, octets.starts(with: "HTTP/".utf8), isDigit(octets[5]), octets[6] == Octet.dot,
            isDigit(octets[7])
        else { throw .malformed("malformed HTTP version") }
        throw RequestError(status: .versionNotSupported, text: "HTTP version not supported: speak HTTP/1.1")
    }

    /// RFC 9112, 3.2. Octets from 0x80 should have come percent-encoded, but the first relay let them pass.
    private mutating func readTarget(_ target: ArraySlice<UInt8>) throws(RequestError) {
        guard target.allSatisfy({ $0 > Octet.space && $0 != Octet.hash }) else {
            throw .malformed("invalid character in request target")
        }
        if target.first == Octet.slash {
            try readPathAndQuery(target)
            return
        }
        // Asterisk-form (RFC 9112, 3.2.4).
        if target.elementsEqual("*".utf8), method == .other("OPTIONS") {
            path = "*"
            return
        }
        try readPathAndQuery(Self.withoutAuthority(target))
    }

    /// Absolute-form (RFC 9112, 3.2.2): what follows the authority. CONNECT's authority-form is refused here.
    private static func withoutAuthority(_ target: ArraySlice<UInt8>) throws(RequestError) -> ArraySlice<UInt8> {
        let schemes = ["http://", "https://"]
        guard let scheme = schemes.first(where: { lowercase(target.prefix($0.utf8.count)) == $0 }) else {
            throw .malformed("request target is no path")
        }
        let rest = target.dropFirst(scheme.utf8.count)
        let authority = rest.prefix { $0 != Octet.slash && $0 != Octet.questionMark }
        // RFC 9110, 4.2.1: no empty host; 4.2.4: user information, with its "@", is an error.
        guard isHost(authority), let first = authority.first, first != Octet.colon else {
            throw .malformed("invalid authority in request target")
        }
        return rest[authority.endIndex...]
    }

    /// A path, which the absolute-form may lack, and a query, which any may lack.
    private mutating func readPathAndQuery(_ text: ArraySlice<UInt8>) throws(RequestError) {
        let raw = text.prefix { $0 != Octet.questionMark }
        guard let decoded = decodePercent(raw, plusIsSpace: false) else {
            throw .malformed("malformed percent-encoding in path")
        }
        path = raw.isEmpty ? "/" : String(decoding: decoded, as: UTF8.self)
        query = Array(text[raw.endIndex...].dropFirst())
    }
}

/// The header fields that the relay looks at. Others are checked and forgotten.
private struct HeadFields {
    var host: [ArraySlice<UInt8>] = []
    var handshake = HandshakeFields()
    var contentLength: [ArraySlice<UInt8>] = []
    var transferEncoding: [ArraySlice<UInt8>] = []
    var forwardedFor: [ArraySlice<UInt8>] = []
    var realIP: [ArraySlice<UInt8>] = []

    /// field-name ":" OWS field-value OWS (RFC 9112, 5).
    mutating func add(_ line: ArraySlice<UInt8>) throws(RequestError) {
        guard let first = line.first, first != Octet.space, first != Octet.tab else {
            // RFC 9112, 5.2: a server that does not unfold refuses.
            throw .malformed("obsolete line folding in request head")
        }
        guard let colon = line.firstIndex(of: Octet.colon) else { throw .malformed("header field without a colon") }
        let name = line[..<colon]
        // RFC 9112, 5.1: no whitespace before the colon; it is no token character.
        guard isToken(name) else { throw .malformed("invalid header field name") }
        let value = trimBlanks(line[(colon + 1)...])
        switch lowercase(name) {
        case "host": host.append(value)
        case "connection": handshake.connection.append(value)
        case "upgrade": handshake.upgrade.append(value)
        case "sec-websocket-key": handshake.keys.append(value)
        case "sec-websocket-version": handshake.versions.append(value)
        case "content-length": contentLength.append(value)
        case "transfer-encoding": transferEncoding.append(value)
        case "x-forwarded-for": forwardedFor.append(value)
        case "x-real-ip": realIP.append(value)
        default: break
        }
    }

    /// RFC 9112, 3.2: 400 for a missing, repeated or invalid Host. HTTP/1.0 does not know it.
    func checkHost(isHTTP10: Bool) throws(RequestError) {
        guard host.count == 1 || (isHTTP10 && host.isEmpty) else {
            throw .malformed(host.isEmpty ? "missing Host" : "repeated Host")
        }
        guard host.allSatisfy({ isHost($0) }) else { throw .malformed("invalid Host") }
    }

    /// RFC 9112, 6.
    func hasBody(isHTTP10: Bool) throws(RequestError) -> Bool {
        let length = try contentLengthValue()
        guard !transferEncoding.isEmpty else { return length != nil && length != 0 }
        // RFC 9112, 6.1: 1.0 does not know it; with Content-Length it smells of smuggling; "chunked" is the last.
        guard !isHTTP10 else { throw .malformed("Transfer-Encoding in an HTTP/1.0 request") }
        guard length == nil else { throw .malformed("Content-Length with Transfer-Encoding") }
        guard let last = transferEncoding.last, let coding = listMembers([last]).last, lowercase(coding) == "chunked"
        else { throw .malformed("Transfer-Encoding does not end with chunked") }
        return true
    }

    /// RFC 9110, 8.6: repeated, in lines or in a list, only if the same.
    private func contentLengthValue() throws(RequestError) -> UInt64? {
        var length: UInt64?
        for line in contentLength {
            for member in line.split(separator: Octet.comma, omittingEmptySubsequences: false) {
                let digits = trimBlanks(member)
                // Digits alone: UInt64's own reading takes a sign.
                guard digits.allSatisfy({ isDigit($0) }), let value = UInt64(String(decoding: digits, as: UTF8.self))
                else { throw .malformed("malformed Content-Length") }
                guard length == nil || length == value else { throw .malformed("contradicting Content-Length") }
                length = value
            }
        }
        return length
    }
}
