import Shared
import Testing

@testable import worker

/// What bytes come to.
private enum Verdict: Equatable {
    case incomplete
    case header(ProxyHeader)
    case refused(ProxyHeaderError)
}

private func verdict(_ bytes: some Collection<UInt8>) -> Verdict {
    let bytes = Array(bytes)
    do throws(ProxyHeaderError) {
        return try parseProxyHeader(bytes.span).map { .header($0) } ?? .incomplete
    } catch {
        return .refused(error)
    }
}

/// The verdict on bytes that come in any number of reads: each beginning is incomplete until one decides, and what
/// follows that one changes nothing.
private func judge(_ bytes: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) -> Verdict {
    let whole = verdict(bytes)
    var decided: Verdict?
    for end in 0...bytes.count {
        let part = verdict(bytes[..<end])
        if let decided {
            #expect(part == decided, "\(end) bytes of \(bytes)", sourceLocation: sourceLocation)
        } else if part != .incomplete {
            decided = part
            if case .header(let header) = part { #expect(header.byteCount == end, sourceLocation: sourceLocation) }
        }
    }
    #expect(decided ?? .incomplete == whole, sourceLocation: sourceLocation)
    return whole
}

private func judge(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) -> Verdict {
    judge(Array(text.utf8), sourceLocation: sourceLocation)
}

/// A block of version 2.
private func block(
    command: UInt8 = 0x21, family: UInt8 = 0x11, _ payload: [UInt8], length: Int? = nil
) -> [UInt8] {
    let count = length ?? payload.count
    return [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, command, family]
        + [UInt8(count >> 8), UInt8(count & 0xFF)] + payload
}

private let ipv4: [UInt8] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xBB]
private let ipv6: [UInt8] =
    [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42] + [UInt8](repeating: 7, count: 16) + [1, 2, 3, 4]

@Suite struct `PROXY lines (version 1)` {
    @Test(arguments: [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", "192.0.2.1"),
        ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0"),
        ("PROXY TCP6 2001:db8::42 ::1 1 2\r\n", "2001:db8::42"),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1"),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        ),
    ])
    func `name a client`(line: String, client: String) throws {
        let header = ProxyHeader(client: Address(client), byteCount: line.utf8.count)
        #expect(header.client != nil)
        for rest in ["", "G", "GET / HTTP/1.1\r\n\r\n", "\r\n", line] { #expect(judge(line + rest) == .header(header)) }
    }

    @Test(arguments: [
        "PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN 192.0.2.1 x\0 y\r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "PROXY UNKNOWN TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
    ])
    func `name none where it is unknown`(line: String) {
        #expect(judge(line + "GET /") == .header(ProxyHeader(client: nil, byteCount: line.utf8.count)))
    }

    @Test(arguments: [
        "PROXY \r\n", "PROXY TCP4\r\n", "PROXY TCP4 192.0.2.1\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 -2\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2  2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP4 192.0.2.1 ::2 1 2\r\n", "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 ::1 192.0.2.1 1 2\r\n", "PROXY TCP6 [::1] ::2 1 2\r\n", "PROXY TCP6 ::1%lo ::2 1 2\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n", "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", "PROXY UNKNOWNX\r\n", "PROXY unknown\r\n",
        "PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n",
        // Line ends.
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", "PROXY UNKNOWN\n", "PROXY UNKNOWN\r\r\n", "PROXY UNKNOWN\rx\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
    ])
    func `are refused where they do not read as they must`(line: String) {
        #expect(judge(line + "GET /") == .refused(.line))
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "PROXY\tTCP4", "PROXY\r\n", "PROXYTCP4", "proxy TCP4", "PRIV", "P ", "\u{16}\u{3}\u{1}",
        "\r\nG",
        "\r\n\r\n\0\r\nQUIX", " PROXY TCP4", "\0",
    ])
    func `are missing where something else comes`(text: String) {
        #expect(judge(text) == .refused(.missing))
    }

    @Test func `are 107 bytes long at most, their end included`() {
        for count in [106, 107] {
            let line = "PROXY UNKNOWN " + String(repeating: "y", count: count - 16) + "\r\n"
            #expect(line.utf8.count == count)
            #expect(judge(line) == .header(ProxyHeader(client: nil, byteCount: count)))
        }
        for count in [108, 109, 200] {
            let line = "PROXY UNKNOWN " + String(repeating: "y", count: count - 16) + "\r\n"
            #expect(judge(line) == .refused(.tooLong))
        }
        let endless = Array("PROXY UNKNOWN ".utf8) + [UInt8](repeating: 0x79, count: 1000)
        #expect(judge(endless) == .refused(.tooLong))
        #expect(verdict(endless[..<106]) == .incomplete)
        #expect(verdict(endless[..<107]) == .refused(.tooLong))
    }

    @Test func `are awaited while they have not ended`() {
        let line = "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n"
        for end in 0..<line.utf8.count { #expect(verdict(line.utf8.prefix(end)) == .incomplete) }
    }
}

@Suite struct `PROXY blocks (version 2)` {
    @Test(arguments: [[], [0x20, 0, 0], [UInt8](repeating: 0xFF, count: 300)] as [[UInt8]])
    func `name a client, and whatever follows the addresses is skipped`(extra: [UInt8]) throws {
        let cases: [(UInt8, [UInt8], String)] = [
            (0x11, ipv4, "192.0.2.1"), (0x12, ipv4, "192.0.2.1"), (0x21, ipv6, "2001:db8::42"),
            (0x22, ipv6, "2001:db8::42"),
            (0x21, [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF] + ipv4 + ipv4, "192.0.2.1"),
        ]
        for (family, addresses, client) in cases {
            let bytes = block(family: family, addresses + extra)
            let header = ProxyHeader(client: Address(client), byteCount: bytes.count)
            #expect(header.client != nil)
            #expect(judge(bytes) == .header(header))
            #expect(judge(bytes + [0x16, 3, 1, 2, 0]) == .header(header))
        }
    }

    @Test func `name none where the connection is the proxy's own, whatever the rest says`() {
        for family in UInt8.min...UInt8.max {
            for payload in [[], ipv4, [UInt8](repeating: 9, count: 40)] {
                let bytes = block(command: 0x20, family: family, payload)
                #expect(verdict(bytes) == .header(ProxyHeader(client: nil, byteCount: bytes.count)))
            }
        }
        #expect(judge(block(command: 0x20, family: 0, [])) == .header(ProxyHeader(client: nil, byteCount: 16)))
    }

    @Test(arguments: [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] as [UInt8])
    func `name none where family or protocol is unspecified`(family: UInt8) {
        for payload in [[], ipv4, ipv6] {
            let bytes = block(family: family, payload)
            #expect(judge(bytes) == .header(ProxyHeader(client: nil, byteCount: bytes.count)))
        }
    }

    @Test(arguments: [0x31, 0x32] as [UInt8])
    func `name none where the client came by a Unix socket`(family: UInt8) {
        let bytes = block(family: family, [UInt8](repeating: 0x61, count: 216))
        #expect(judge(bytes) == .header(ProxyHeader(client: nil, byteCount: 232)))
        #expect(judge(block(family: family, [UInt8](repeating: 0x61, count: 215))) == .refused(.tooShort))
    }

    @Test func `are refused for another version, command, family or protocol`() {
        for octet in UInt8.min...UInt8.max {
            let expected: ProxyHeaderError? = octet >> 4 != 2 ? .version : octet & 0xF > 1 ? .command : nil
            let bytes = block(command: octet, ipv4)
            if let expected {
                #expect(verdict(bytes) == .refused(expected))
                #expect(verdict(bytes[..<13]) == .refused(expected))
            }
            let isKnown = octet >> 4 <= 3 && octet & 0xF <= 2
            let other = verdict(block(family: octet, [UInt8](repeating: 1, count: 216)))
            if !isKnown { #expect(other == .refused(.family)) }
            if case .refused = other { #expect(!isKnown) }
        }
        #expect(judge(block(command: 0x11, ipv4)) == .refused(.version))
        #expect(judge(block(command: 0x22, ipv4)) == .refused(.command))
        #expect(judge(block(family: 0x41, ipv4)) == .refused(.family))
        #expect(judge(block(family: 0x13, ipv4)) == .refused(.family))
    }

    @Test func `are refused where their addresses do not fit, and where they are longer than any may be`() {
        #expect(judge(block(family: 0x11, Array(ipv4.dropLast()))) == .refused(.tooShort))
        #expect(judge(block(family: 0x21, Array(ipv6.dropLast()))) == .refused(.tooShort))
        #expect(judge(block(family: 0x11, [])) == .refused(.tooShort))
        let max = Limits.proxyBlockBytesMax
        let longest = block(ipv4 + [UInt8](repeating: 0, count: max - 12))
        #expect(verdict(longest) == .header(ProxyHeader(client: Address("192.0.2.1"), byteCount: 16 + max)))
        #expect(verdict(longest.dropLast()) == .incomplete)
        for length in [max + 1, 65_535] {
            for command in [0x20, 0x21] as [UInt8] {
                #expect(judge(block(command: command, ipv4, length: length)) == .refused(.tooLong))
            }
        }
    }

    @Test func `are awaited while a byte is missing`() {
        for bytes in [block(ipv4), block(family: 0x21, ipv6 + [1, 0, 1, 9]), block(command: 0x20, family: 0, [])] {
            for end in 0..<bytes.count { #expect(verdict(bytes[..<end]) == .incomplete) }
        }
    }

    @Test func `never trap, whatever the bytes and however they are cut`() {
        var random = SplitMix64(seed: UInt64.random(in: 0...UInt64.max))
        let good = [
            Array("PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET / HTTP/1.1\r\n".utf8),
            Array("PROXY TCP6 2001:db8::42 ::1 1 2\r\n".utf8), Array("PROXY UNKNOWN x\r\n".utf8), block(ipv4),
            block(family: 0x21, ipv6 + [4, 0, 1, 0]), block(command: 0x20, [1, 2, 3]),
        ]
        for round in 0..<3000 {
            var bytes = good[round % good.count]
            for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: index)
                default: bytes.insert([0x20, 0x0D, 0x0A, 0x30].randomElement(using: &random) ?? 0, at: index)
                }
            }
            _ = judge(bytes)
        }
    }
}
