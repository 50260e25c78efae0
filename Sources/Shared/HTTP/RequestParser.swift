// Bytes in, a request or a refusal out: HTTP/1.1's request head (RFC 9112). No I/O, no state, no trap whatever the
// bytes.
//
// Strict where leniency lets two programs read two different requests out of the same bytes (request smuggling): a
// proxy in front of the relay may be lenient. So: CRLF alone ends a line, no control characters, no folding, no blanks
// around a name, one Host, one way to tell where content ends.
//
// A refusal does not depend on how the bytes were cut into reads: whatever a byte alone can show (`searchHead`) is
// refused before anything that takes the whole head (`readHead`).
//
// The head is read where it lies: lines, names and values are ranges of the bytes, and copied is only what the request keeps.

/// Looks at all bytes received since the last request. `searched` of them were there at the call before, which found
/// the head incomplete: they are not searched again, so that a client who sends byte by byte costs no more than others.
package func parseRequest(_ bytes: Span<UInt8>, searched: Int = 0) -> RequestParse {
    do throws(RequestError) {
        let start = leadingEmptyLineBytes(bytes)
        guard let end = try searchHead(bytes, start: start, searched: searched) else { return .incomplete }
        return .head(try readHead(bytes, start..<end))
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
    while true {
        index = bytes.firstControl(in: index..<limit)
        guard index < limit else { break }
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
        case Octet.tab:
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
private func readHead(_ bytes: Span<UInt8>, _ head: Range<Int>) throws(RequestError) -> Request {
    var lines = HeadLines(head)
    let line = try RequestLine(bytes, lines.next(bytes))
    var fields = HeadFields()
    while true {
        let field = lines.next(bytes)
        if field.isEmpty { break }
        try fields.add(bytes, field)
    }
    try fields.checkHost(bytes, isHTTP10: line.isHTTP10)
    let hasBody = try fields.hasBody(bytes, isHTTP10: line.isHTTP10)
    // RFC 9112, 9.3: "close" wins; else 1.1 persists, 1.0 if it asks to.
    let keepAlive = !fields.asksToClose && (!line.isHTTP10 || fields.asksToKeepAlive)
    return Request(
        method: line.method, path: line.path, query: line.query, isHTTP10: line.isHTTP10, headBytes: head.upperBound,
        hasBody: hasBody, keepAlive: keepAlive, handshake: fields.handshake, host: line.authority ?? fields.host,
        origin: fields.origin.value(bytes), forwardedFor: fields.forwardedFor, realIP: fields.realIP.value(bytes),
        cfConnectingIP: fields.cfConnectingIP.value(bytes))
}

/// The lines of a head, without their ends.
private struct HeadLines {
    private var rest: Range<Int>

    init(_ head: Range<Int>) {
        rest = head
    }

    /// The next line; empty at the end of the head.
    mutating func next(_ bytes: Span<UInt8>) -> Range<Int> {
        let line = rest.lowerBound..<bytes.firstIndex(of: Octet.carriageReturn, in: rest)
        rest = min(line.upperBound + 2, rest.upperBound)..<rest.upperBound
        return line
    }
}

/// method SP request-target SP HTTP-version (RFC 9112, 3).
private struct RequestLine {
    var method: Method
    var path = "/"
    var query: [UInt8] = []
    /// Of the absolute-form.
    var authority: Range<Int>?
    var isHTTP10: Bool

    /// RFC 9112, 3: 501 for a method longer than any that is known. The longest registered one has 17 bytes.
    private static let methodBytesMax = 32

    init(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(RequestError) {
        let (name, target, version) = try Self.parts(bytes, line)
        guard name.count <= Self.methodBytesMax else {
            throw RequestError(status: .notImplemented, text: "unknown method")
        }
        method = Self.method(bytes.extracting(name))
        isHTTP10 = try Self.isHTTP10(bytes.extracting(version))
        try readTarget(bytes, target)
    }

    /// Exactly two spaces, with something before and between them.
    private static func parts(
        _ bytes: Span<UInt8>, _ line: Range<Int>
    ) throws(RequestError) -> (method: Range<Int>, target: Range<Int>, version: Range<Int>) {
        let first = bytes.firstIndex(of: Octet.space, in: line)
        let afterFirst = min(first + 1, line.upperBound)
        let second = bytes.firstIndex(of: Octet.space, in: afterFirst..<line.upperBound)
        let afterSecond = min(second + 1, line.upperBound)
        guard second < line.upperBound, !bytes.contains(Octet.space, in: afterSecond..<line.upperBound),
            isToken(bytes.extracting(line.lowerBound..<first)), afterFirst < second
        else { throw .malformed("malformed request line: it is METHOD TARGET HTTP/1.1") }
        return (line.lowerBound..<first, afterFirst..<second, afterSecond..<line.upperBound)
    }

    private static func method(_ name: Span<UInt8>) -> Method {
        if name.equals("GET") { return .get }
        if name.equals("HEAD") { return .head }
        return .other(String(decoding: [UInt8](copying: name), as: UTF8.self))
    }

    /// RFC 9112, 2.3: case-sensitive, one digit each.
    private static func isHTTP10(_ version: Span<UInt8>) throws(RequestError) -> Bool {
        if version.equals("HTTP/1.1") { return false }
        if version.equals("HTTP/1.0") { return true }
        guard version.count == 8, version.extracting(0..<5).equals("HTTP/"), isDigit(version[5]),
            version[6] == Octet.dot, isDigit(version[7])
        else { throw .malformed("malformed HTTP version") }
        throw RequestError(status: .versionNotSupported, text: "HTTP version not supported: speak HTTP/1.1")
    }

    /// RFC 9112, 3.2. Octets from 0x80 should have come percent-encoded, but the first relay let them pass.
    private mutating func readTarget(_ bytes: Span<UInt8>, _ target: Range<Int>) throws(RequestError) {
        // No space, which ends it, and of all control characters only HTAB has passed the search.
        guard !bytes.contains(Octet.tab, in: target), !bytes.contains(Octet.hash, in: target) else {
            throw .malformed("invalid character in request target")
        }
        if bytes[target.lowerBound] == Octet.slash {
            try readPathAndQuery(bytes, target)
            return
        }
        // Asterisk-form (RFC 9112, 3.2.4).
        if bytes.extracting(target).equals("*"), method == .other("OPTIONS") {
            path = "*"
            return
        }
        let authority = try Self.authority(bytes, target)
        self.authority = authority
        try readPathAndQuery(bytes, authority.upperBound..<target.upperBound)
    }

    /// Absolute-form (RFC 9112, 3.2.2): its authority, which the path follows. CONNECT's authority-form is refused
    /// here.
    private static func authority(_ bytes: Span<UInt8>, _ target: Range<Int>) throws(RequestError) -> Range<Int> {
        guard let start = schemeEnd(bytes, target) else { throw .malformed("request target is no path") }
        var end = start
        while end < target.upperBound, bytes[end] != Octet.slash, bytes[end] != Octet.questionMark { end += 1 }
        // RFC 9110, 4.2.1: no empty host; 4.2.4: user information, with its "@", is an error.
        guard isHost(bytes.extracting(start..<end)), start < end, bytes[start] != Octet.colon else {
            throw .malformed("invalid authority in request target")
        }
        return start..<end
    }

    private static func schemeEnd(_ bytes: Span<UInt8>, _ target: Range<Int>) -> Int? {
        let schemes: [StaticString] = ["http://", "https://"]
        for scheme in schemes where scheme.utf8CodeUnitCount <= target.count {
            let end = target.lowerBound + scheme.utf8CodeUnitCount
            if bytes.extracting(target.lowerBound..<end).equalsIgnoringCase(scheme) { return end }
        }
        return nil
    }

    /// A path, which the absolute-form may lack, and a query, which any may lack.
    private mutating func readPathAndQuery(_ bytes: Span<UInt8>, _ text: Range<Int>) throws(RequestError) {
        let raw = text.lowerBound..<bytes.firstIndex(of: Octet.questionMark, in: text)
        guard isPercentEncoded(bytes.extracting(raw)) else { throw .malformed("malformed percent-encoding in path") }
        path = raw.isEmpty ? "/" : String(decoding: [UInt8](copying: bytes.extracting(raw)), as: UTF8.self)
        query = [UInt8](copying: bytes.extracting(min(raw.upperBound + 1, text.upperBound)..<text.upperBound))
    }
}

/// The header fields that the relay looks at. Others are checked and forgotten.
private struct HeadFields {
    /// Lines of Host, and what the first says.
    private var hostCount = 0
    private(set) var host: Range<Int>?
    private(set) var handshake = HandshakeFields()
    /// What Connection lists, in all its lines.
    private(set) var asksToClose = false
    private(set) var asksToKeepAlive = false
    private var contentLength: [Range<Int>] = []
    private var transferEncoding: [Range<Int>] = []
    private(set) var forwardedFor: [UInt8]?
    private(set) var origin = LoneLine()
    private(set) var realIP = LoneLine()
    private(set) var cfConnectingIP = LoneLine()

    /// field-name ":" OWS field-value OWS (RFC 9112, 5).
    mutating func add(_ bytes: Span<UInt8>, _ line: Range<Int>) throws(RequestError) {
        guard bytes[line.lowerBound] != Octet.space, bytes[line.lowerBound] != Octet.tab else {
            // RFC 9112, 5.2: a server that does not unfold refuses.
            throw .malformed("obsolete line folding in request head")
        }
        let colon = bytes.firstIndex(of: Octet.colon, in: line)
        guard colon < line.upperBound else { throw .malformed("header field without a colon") }
        let name = bytes.extracting(line.lowerBound..<colon)
        // RFC 9112, 5.1: no whitespace before the colon; it is no token character.
        guard isToken(name) else { throw .malformed("invalid header field name") }
        guard let field = HeadField(name) else { return }
        add(field, bytes, trimBlanks(bytes, colon + 1..<line.upperBound))
    }

    private mutating func add(_ field: HeadField, _ bytes: Span<UInt8>, _ value: Range<Int>) {
        switch field {
        case .host:
            if hostCount == 0 { host = value }
            hostCount += 1
        case .connection: addConnection(bytes, value)
        case .upgrade: addUpgrade(bytes, value)
        case .webSocketKey:
            if handshake.keyCount == 0 { handshake.key = [UInt8](copying: bytes.extracting(value)) }
            handshake.keyCount += 1
        case .webSocketVersion:
            if handshake.versionCount == 0 { handshake.isVersion13 = bytes.extracting(value).equals("13") }
            handshake.versionCount += 1
        case .contentLength: contentLength.append(value)
        case .transferEncoding: transferEncoding.append(value)
        case .forwardedFor: addForwardedFor(bytes, value)
        case .origin: origin.add(value)
        case .realIP: realIP.add(value)
        case .cfConnectingIP: cfConnectingIP.add(value)
        }
    }

    private mutating func addConnection(_ bytes: Span<UInt8>, _ value: Range<Int>) {
        var options = ListMembers(value)
        while let place = options.next(bytes) {
            let option = bytes.extracting(place)
            if option.equalsIgnoringCase("upgrade") {
                handshake.asksForUpgrade = true
            } else if option.equalsIgnoringCase("close") {
                asksToClose = true
            } else if option.equalsIgnoringCase("keep-alive") {
                asksToKeepAlive = true
            }
        }
    }

    private mutating func addUpgrade(_ bytes: Span<UInt8>, _ value: Range<Int>) {
        var protocols = ListMembers(value)
        while let place = protocols.next(bytes) {
            if bytes.extracting(place).equalsIgnoringCase("websocket") { handshake.asksForWebSocket = true }
        }
    }

    private mutating func addForwardedFor(_ bytes: Span<UInt8>, _ value: Range<Int>) {
        let line = [UInt8](copying: bytes.extracting(value))
        if forwardedFor == nil {
            forwardedFor = line
        } else {
            forwardedFor?.append(Octet.comma)
            forwardedFor?.append(contentsOf: line)
        }
    }

    /// RFC 9112, 3.2: 400 for a missing, repeated or invalid Host. HTTP/1.0 does not know it.
    func checkHost(_ bytes: Span<UInt8>, isHTTP10: Bool) throws(RequestError) {
        guard hostCount == 1 || (isHTTP10 && hostCount == 0) else {
            throw .malformed(hostCount == 0 ? "missing Host" : "repeated Host")
        }
        guard isHost(bytes.extracting(host ?? 0..<0)) else { throw .malformed("invalid Host") }
    }

    /// RFC 9112, 6.
    func hasBody(_ bytes: Span<UInt8>, isHTTP10: Bool) throws(RequestError) -> Bool {
        let length = try contentLengthValue(bytes)
        guard let coding = transferEncoding.last else { return length != nil && length != 0 }
        // RFC 9112, 6.1: 1.0 does not know it; with Content-Length it smells of smuggling; "chunked" is the last.
        guard !isHTTP10 else { throw .malformed("Transfer-Encoding in an HTTP/1.0 request") }
        guard length == nil else { throw .malformed("Content-Length with Transfer-Encoding") }
        var codings = ListMembers(coding)
        var isChunked = false
        while let place = codings.next(bytes) { isChunked = bytes.extracting(place).equalsIgnoringCase("chunked") }
        guard isChunked else { throw .malformed("Transfer-Encoding does not end with chunked") }
        return true
    }

    /// RFC 9110, 8.6: repeated, in lines or in a list, only if the same.
    private func contentLengthValue(_ bytes: Span<UInt8>) throws(RequestError) -> UInt64? {
        var length: UInt64?
        for line in contentLength {
            var start = line.lowerBound
            while start <= line.upperBound {
                // An empty member is no length.
                let comma = bytes.firstIndex(of: Octet.comma, in: start..<line.upperBound)
                guard let value = Self.decimal(bytes, trimBlanks(bytes, start..<comma)) else {
                    throw .malformed("malformed Content-Length")
                }
                guard length == nil || length == value else { throw .malformed("contradicting Content-Length") }
                length = value
                start = comma + 1
            }
        }
        return length
    }

    /// Digits alone, one at least, up to 2^64 - 1.
    private static func decimal(_ bytes: Span<UInt8>, _ digits: Range<Int>) -> UInt64? {
        guard !digits.isEmpty else { return nil }
        var value: UInt64 = 0
        for index in digits {
            guard isDigit(bytes[index]) else { return nil }
            let (tens, isOver) = value.multipliedReportingOverflow(by: 10)
            let (sum, isBeyond) = tens.addingReportingOverflow(UInt64(bytes[index] - Octet.zero))
            guard !isOver, !isBeyond else { return nil }
            value = sum
        }
        return value
    }
}

/// The line of a field that has one value.
private struct LoneLine {
    private var count = 0
    private var first = 0..<0

    mutating func add(_ value: Range<Int>) {
        if count == 0 { first = value }
        count += 1
    }

    func value(_ bytes: Span<UInt8>) -> LoneField {
        switch count {
        case 0: .absent
        case 1: .value([UInt8](copying: bytes.extracting(first)))
        default: .repeated
        }
    }
}

/// The names of those fields.
private enum HeadField {
    case host
    case connection
    case upgrade
    case webSocketKey
    case webSocketVersion
    case contentLength
    case transferEncoding
    case origin
    case forwardedFor
    case realIP
    case cfConnectingIP

    /// Nil for any other.
    init?(_ name: Span<UInt8>) {
        if name.equalsIgnoringCase("host") {
            self = .host
        } else if name.equalsIgnoringCase("connection") {
            self = .connection
        } else if name.equalsIgnoringCase("upgrade") {
            self = .upgrade
        } else if name.equalsIgnoringCase("sec-websocket-key") {
            self = .webSocketKey
        } else if name.equalsIgnoringCase("sec-websocket-version") {
            self = .webSocketVersion
        } else if name.equalsIgnoringCase("content-length") {
            self = .contentLength
        } else if name.equalsIgnoringCase("transfer-encoding") {
            self = .transferEncoding
        } else if name.equalsIgnoringCase("origin") {
            self = .origin
        } else if name.equalsIgnoringCase("x-forwarded-for") {
            self = .forwardedFor
        } else if name.equalsIgnoringCase("x-real-ip") {
            self = .realIP
        } else if name.equalsIgnoringCase("cf-connecting-ip") {
            self = .cfConnectingIP
        } else {
            return nil
        }
    }
}
