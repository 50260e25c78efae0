import Testing

@testable import Shared

/// Parses a text's UTF-8.
func parse(_ text: String, searched: Int = 0) -> RequestParse {
    parseRequest(Array(text.utf8).span, searched: searched)
}

/// The head of a text that must be a request.
func head(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> Request {
    guard case .head(let request) = parse(text) else {
        Issue.record("no request: \(parse(text))", sourceLocation: sourceLocation)
        throw TestFailure()
    }
    return request
}

struct TestFailure: Error {}

/// A request with these header lines behind its Host.
func get(_ target: String = "/", _ lines: String..., version: String = "HTTP/1.1") -> String {
    (["GET \(target) \(version)", "Host: relay.example"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
}

let handshake = get(
    "/ws?room=r&token=t", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")

@Suite struct `Request heads` {
    static let good = [
        "GET / HTTP/1.0\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", handshake,
        get("/health?a=b", "X-Forwarded-For: 192.0.2.1", "x-forwarded-for:\t192.0.2.2 ", "X-Real-IP: ::1"),
    ]

    @Test(arguments: good)
    func `are incomplete at every truncation and the same from every split`(text: String) {
        let bytes = Array(text.utf8)
        let whole = parseRequest(bytes.span)
        guard case .head(let request) = whole else {
            Issue.record("\(whole)")
            return
        }
        #expect(request.headBytes == bytes.count)
        for end in 0..<bytes.count {
            #expect(parseRequest(bytes.span.extracting(0..<end)) == .incomplete)
            // What follows a head is not looked at: not even NUL.
            #expect(parseRequest((bytes + [0, 10, 13]).span, searched: end) == whole)
        }
        var searched = 0
        for end in 1...bytes.count {
            let parse = parseRequest(bytes.span.extracting(0..<end), searched: searched)
            #expect(parse == (end == bytes.count ? whole : .incomplete))
            searched = end
        }
    }

    /// The head is looked at in words of eight bytes: no part of it may hang on where in a word it begins.
    @Test func `are read the same wherever their lines stand`() throws {
        let lines = ["X-Forwarded-For: 192.0.2.1", "Connection: close ,x", "Content-Length: 7", "X-Real-IP: ::1"]
        func request(_ padding: Int) throws -> Request {
            let text = get("/a%20b?room=r", "P\(String(repeating: "a", count: padding)):")
            return try head(text.dropLast() + lines.joined(separator: "\r\n") + "\r\n\r\n")
        }
        var expected = try request(0)
        #expect(!expected.keepAlive && expected.hasBody && expected.path == "/a%20b")
        for padding in 1...16 {
            expected.headBytes += 1
            #expect(try request(padding) == expected)
        }
    }

    @Test func `are refused for a control character at any place, and taken with any other octet`() {
        for place in 0..<16 {
            for octet in UInt8.min...UInt8.max where octet != Octet.lineFeed && octet != Octet.carriageReturn {
                var bytes = Array(get("/", "A: \(String(repeating: "x", count: 16))").utf8)
                bytes[bytes.count - 20 + place] = octet
                let isControl = (octet < 0x20 && octet != Octet.tab) || octet == 0x7F
                let isRefused = parseRequest(bytes.span) == .refused(.malformed("control character in request head"))
                #expect(isRefused == isControl, "\(octet) at \(place)")
            }
        }
    }

    @Test func `are read into their parts`() throws {
        let request = try head(
            get(
                "/a%20b/%C3%BC?x=%20+&y", "X-Forwarded-For: 192.0.2.1", "x-forwarded-for:\t192.0.2.2 \t",
                "X-REAL-IP: ::1"))
        #expect(request.method == .get)
        #expect(request.path == "/a%20b/%C3%BC")
        #expect(request.query == Array("x=%20+&y".utf8))
        #expect(!request.isHTTP10 && !request.hasBody && request.keepAlive)
        #expect(request.forwardedFor == Array("192.0.2.1,192.0.2.2".utf8))
        #expect(request.realIP == .value(Array("::1".utf8)))
        let plain = try head("HEAD /health HTTP/1.0\r\n\r\n")
        #expect(plain.method == .head && plain.isHTTP10 && !plain.keepAlive)
        #expect(plain.forwardedFor == nil && plain.query.isEmpty && plain.host == nil)
        #expect([plain.realIP, plain.cfConnectingIP, plain.origin] == [.absent, .absent, .absent])
        #expect(try head("PATCH / HTTP/1.1\r\nHost:\r\n\r\n").method == .other("PATCH"))
    }

    @Test(arguments: ["X-Real-IP", "cf-connecting-ip", "ORIGIN"])
    func `say what a field with one value holds, and whether it stands there more than once`(name: String) throws {
        func field(_ lines: String...) throws -> LoneField {
            let request = try head(get("/", lines.joined(separator: "\r\n")))
            return switch name {
            case "X-Real-IP": request.realIP
            case "ORIGIN": request.origin
            default: request.cfConnectingIP
            }
        }
        #expect(try field("A: b") == .absent)
        #expect(try field("\(name):\t1.1.1.1 ") == .value(Array("1.1.1.1".utf8)))
        #expect(try field("\(name):") == .value([]))
        for second in ["2.2.2.2", "1.1.1.1", ""] {
            #expect(try field("\(name): 1.1.1.1", "A: b", "\(name): \(second)") == .repeated)
        }
    }

    @Test(arguments: [
        (get("/x"), "relay.example"), ("GET / HTTP/1.1\r\nA: b\r\nhost:  [::1]:80 \r\n\r\n", "[::1]:80"),
        ("\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n", "a"), ("GET / HTTP/1.1\r\nHost:\r\n\r\n", ""),
        // RFC 9112, 3.2.2: what Host says does not count then.
        (get("http://127.0.0.1:80/x"), "127.0.0.1:80"), (get("https://a"), "a"), (get("http://a?b"), "a"),
    ])
    func `say where they name their host`(text: String, host: String) throws {
        let range = try #require(try head(text).host)
        #expect(Array(text.utf8)[range].elementsEqual(host.utf8))
    }

    /// A proxy's rule for "/ws" sees what the relay sees.
    @Test func `keep escapes in their path, so that none of them spells a path that the relay knows`() throws {
        for path in ["/%77s", "/w%73", "/%68ealth", "/%2f", "/ws%2F", "/ws%3froom=a"] {
            #expect(try head(get(path)).path == path)
            #expect(try head(get("http://a\(path)?b")).path == path)
        }
    }

    @Test(arguments: [
        ("/", "/", ""), ("/?", "/", ""), ("/??", "/", "?"), ("//ws", "//ws", ""), ("/%77s?a", "/%77s", "a"),
        ("/ü?ö", "/ü", "ö"), ("http://a/ws?b", "/ws", "b"), ("HTTPS://a:1/", "/", ""), ("http://a", "/", ""),
        ("http://a?b/c", "/", "b/c"), ("http://[::1]:80/x", "/x", ""), ("/%00", "/%00", ""),
    ])
    func `take origin-form and absolute-form`(target: String, path: String, query: String) throws {
        let request = try head(get(target))
        #expect(request.path == path)
        #expect(request.query == Array(query.utf8))
    }

    @Test func `take the asterisk from OPTIONS alone`() throws {
        #expect(try head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path == "*")
        #expect(parse(get("*")) == .refused(.malformed("request target is no path")))
    }

    static let refused: [(String, StaticString)] = [
        ("GET / HTTP/1.1\nHost: a\n\n", "bare LF in request head: lines end with CR LF"),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bare LF in request head: lines end with CR LF"),
        (get("/", "A: b\nC: d"), "bare LF in request head: lines end with CR LF"),
        (get("/", "A: b\rC: d"), "bare CR in request head: lines end with CR LF"),
        (get("/", "A: b\r"), "bare CR in request head: lines end with CR LF"),
        (get("/", "A: \0"), "control character in request head"),
        (get("/", "A: \u{7F}"), "control character in request head"),
        ("\u{16}\u{3}\u{1}", "control character in request head"),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        ("GET /\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        ("GET  HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request line: it is METHOD TARGET HTTP/1.1"),
        (get(version: "http/1.1"), "malformed HTTP version"), (get(version: "HTTP/1"), "malformed HTTP version"),
        (get(version: "HTTP/1.10"), "malformed HTTP version"), (get(version: "HTTP/1,1"), "malformed HTTP version"),
        (get("/\t"), "invalid character in request target"), (get("/#a"), "invalid character in request target"),
        (get("ws"), "request target is no path"), (get("ftp://a/"), "request target is no path"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "request target is no path"),
        (get("http:///"), "invalid authority in request target"),
        (get("http://:1/"), "invalid authority in request target"),
        (get("http://u@a/"), "invalid authority in request target"),
        (get("/%"), "malformed percent-encoding in path"), (get("/%4"), "malformed percent-encoding in path"),
        (get("/%4g"), "malformed percent-encoding in path"),
        (get("/", " folded"), "obsolete line folding in request head"),
        (get("/", "\tfolded"), "obsolete line folding in request head"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "obsolete line folding in request head"),
        (get("/", "nothing"), "header field without a colon"), (get("/", ": b"), "invalid header field name"),
        (get("/", "A : b"), "invalid header field name"), (get("/", "A\t: b"), "invalid header field name"),
        (get("/", "Ä: b"), "invalid header field name"), (get("/", "A[]: b"), "invalid header field name"),
        ("GET / HTTP/1.1\r\n\r\n", "missing Host"), (get("/", "HOST: relay.example"), "repeated Host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "repeated Host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "invalid Host"), ("GET / HTTP/1.0\r\nHost: a/\r\n\r\n", "invalid Host"),
        (get("/", "Content-Length: "), "malformed Content-Length"),
        (get("/", "Content-Length: +1"), "malformed Content-Length"),
        (get("/", "Content-Length: -1"), "malformed Content-Length"),
        (get("/", "Content-Length: 1,"), "malformed Content-Length"),
        (get("/", "Content-Length: 0x1"), "malformed Content-Length"),
        (get("/", "Content-Length: 18446744073709551616"), "malformed Content-Length"),
        (get("/", "Content-Length: 1, 2"), "contradicting Content-Length"),
        (get("/", "Content-Length: 1", "Content-Length: 2"), "contradicting Content-Length"),
        (get("/", "Content-Length: 0", "Transfer-Encoding: chunked"), "Content-Length with Transfer-Encoding"),
        (get("/", "Transfer-Encoding: gzip"), "Transfer-Encoding does not end with chunked"),
        (get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: x"), "Transfer-Encoding does not end with chunked"),
        (get("/", "Transfer-Encoding:"), "Transfer-Encoding does not end with chunked"),
        (get("/", "Transfer-Encoding: chunked", version: "HTTP/1.0"), "Transfer-Encoding in an HTTP/1.0 request"),
    ]

    @Test(arguments: refused)
    func `are refused for what is wrong, however they are split`(text: String, reason: StaticString) {
        let expected = RequestParse.refused(.malformed(reason))
        #expect(parse(text) == expected)
        let bytes = Array(text.utf8)
        var searched = 0
        for end in 1...bytes.count {
            let parse = parseRequest(bytes.span.extracting(0..<end), searched: searched)
            guard parse == .incomplete else {
                #expect(parse == expected)
                return
            }
            searched = end
        }
        Issue.record("never refused")
    }

    @Test(arguments: ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"])
    func `of other versions get 505`(version: String) {
        guard case .refused(let error) = parse(get(version: version)) else {
            Issue.record("not refused")
            return
        }
        #expect(error.status == .versionNotSupported)
        guard case .refused(let preface) = parse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") else {
            Issue.record("not refused")
            return
        }
        #expect(preface.status == .versionNotSupported)
    }

    @Test func `with a method longer than any get 501`() throws {
        func request(_ count: Int) -> String {
            "\(String(repeating: "M", count: count)) / HTTP/1.1\r\nHost: a\r\n\r\n"
        }
        #expect(try head(request(32)).method == .other(String(repeating: "M", count: 32)))
        #expect(parse(request(33)) == .refused(RequestError(status: .notImplemented, text: "unknown method")))
    }

    @Test(arguments: [
        ("A: b", "HTTP/1.1", true), ("Connection: close", "HTTP/1.1", false),
        ("Connection: x ,CLOSE", "HTTP/1.1", false),
        ("Connection: keep-alive, close", "HTTP/1.1", false), ("Connection: closed", "HTTP/1.1", true),
        ("A: b", "HTTP/1.0", false), ("Connection: Keep-Alive", "HTTP/1.0", true),
        ("Connection: keep-alive\r\nConnection: close", "HTTP/1.0", false),
    ])
    func `tell whether the connection stays`(line: String, version: String, keepAlive: Bool) throws {
        #expect(try head(get("/", line, version: version)).keepAlive == keepAlive)
    }

    @Test(arguments: [
        ("Content-Length: 0", false), ("Content-Length: 000", false), ("Content-Length: 1", true),
        ("Content-Length: 3, 3\r\ncontent-length: 03", true), ("Content-Length: 18446744073709551615", true),
        ("Transfer-Encoding: gzip, Chunked", true), ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", true),
    ])
    func `tell whether content follows`(line: String, hasBody: Bool) throws {
        let request = try head(get("/", line))
        #expect(request.hasBody == hasBody)
        #expect(request.keepsConnection == !hasBody)
    }

    @Test func `hold 16 KiB and no byte more`() throws {
        func request(_ count: Int) -> [UInt8] {
            let rest = get("/", "A: ")
            return Array(get("/", "A: " + String(repeating: "x", count: count - rest.utf8.count)).utf8)
        }
        let max = Limits.requestHeadBytesMax
        let tooLarge = RequestParse.refused(
            RequestError(status: .requestHeadTooLarge, text: "request head over 16 KiB"))
        for count in [max - 1, max] {
            guard case .head(let request) = parseRequest(request(count).span) else {
                Issue.record("refused")
                return
            }
            #expect(request.headBytes == count)
        }
        #expect(parseRequest(request(max + 1).span) == tooLarge)
        // Without any line's end, and however it comes.
        let endless = [UInt8](repeating: UInt8(ascii: "x"), count: max + 1)
        #expect(parseRequest(endless.span.extracting(0..<(max - 1))) == .incomplete)
        #expect(parseRequest(endless.span.extracting(0..<max), searched: max - 1) == tooLarge)
        #expect(parseRequest(endless.span) == tooLarge)
        let long = request(max + 1)
        var searched = 0
        for end in 1..<max {
            #expect(parseRequest(long.span.extracting(0..<end), searched: searched) == .incomplete)
            searched = end
        }
        #expect(parseRequest(long.span.extracting(0..<max), searched: searched) == tooLarge)
    }

    @Test func `that are pipelined end where the next begins`() throws {
        let first = get("/a")
        let request = try head(first + get("/b"))
        #expect(request.path == "/a")
        #expect(request.headBytes == first.utf8.count)
    }

    @Test func `never trap, whatever the bytes and whatever was searched`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Request heads: seed \(seed)")
        var random = SplitMix64(seed: seed)
        for searched in [Int.min, -1, 1 << 20, Int.max] { _ = parse(handshake, searched: searched) }
        let special = Array("\r\n\t :,%/?#*=".utf8) + [0, 0x7F, 0x80, 0xFF]
        for round in 0..<20_000 {
            var bytes = Array(Self.good[round % Self.good.count].utf8)
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let index = Int.random(in: 0..<max(1, bytes.count), using: &random)
                guard !bytes.isEmpty else { break }
                switch UInt8.random(in: 0..<4, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: index)
                case 2: bytes.insert(special.randomElement(using: &random) ?? 0, at: index)
                default: bytes.removeSubrange(index..<min(bytes.count, index + 9))
                }
            }
            let whole = parseRequest(bytes.span)
            // Whatever the mutation: the verdict does not depend on the split.
            let cut = Int.random(in: 0...bytes.count, using: &random)
            let part = parseRequest(bytes.span.extracting(0..<cut))
            if part == .incomplete {
                #expect(parseRequest(bytes.span, searched: cut) == whole, "seed \(seed)")
            } else {
                #expect(part == whole, "seed \(seed)")
            }
        }
    }
}
