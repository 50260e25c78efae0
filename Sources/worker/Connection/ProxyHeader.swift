// What a proxy says of a connection before its first byte: the PROXY protocol, versions 1 and 2 (haproxy.org,
// proxy-protocol.txt, 2.1 and 2.2). Bytes in, a header or what is wrong out: no I/O, no state, no trap whatever the
// bytes.
//
//     1   "PROXY" SP ("TCP4" | "TCP6") SP source SP destination SP port SP port CR LF, or "PROXY UNKNOWN" and anything CR LF
//     2   12 bytes of signature, version and command, family and protocol, a length of 16 bits; then so many bytes: addresses
//         and ports, followed by TLVs, which are skipped
//
// A verdict does not depend on how the bytes were cut into reads: they are judged from the left, and the first that is
// wrong decides.

import Shared

/// A header that has come whole.
struct ProxyHeader: Equatable {
    /// The client that the proxy names. Nil where it names none: the connection is the proxy's own (a health check:
    /// LOCAL), or the client's address is none of IP (UNKNOWN, UNSPEC, UNIX).
    var client: Address?
    /// Bytes of the header. What follows is the client's.
    var byteCount: Int
}

/// Why bytes are no header.
enum ProxyHeaderError: Error, Equatable {
    /// They do not begin like one: somebody does not speak the protocol.
    case missing
    /// A line of version 1 that does not read as it must.
    case line
    case tooLong
    /// Not version 2.
    case version
    /// Neither LOCAL nor PROXY.
    case command
    /// No family or protocol that there is.
    case family
    /// Too short for the addresses of its family.
    case tooShort
    /// The client's side has ended within it.
    case cutShort

    var description: String {
        switch self {
        case .missing: "no PROXY header"
        case .line: "malformed PROXY line"
        case .tooLong: "PROXY header too long"
        case .version: "unknown version of the PROXY protocol"
        case .command: "unknown command in PROXY header"
        case .family: "unknown address family or protocol in PROXY header"
        case .tooShort: "PROXY header too short for its addresses"
        case .cutShort: "PROXY header cut short"
        }
    }
}

/// Looks at all bytes of a connection so far.
///
/// - Returns: the header, or nil while it has not come whole.
func parseProxyHeader(_ bytes: Span<UInt8>) throws(ProxyHeaderError) -> ProxyHeader? {
    guard !bytes.isEmpty else { return nil }
    if bytes[0] == ProxyLine.start[0] { return try ProxyLine.parse(bytes) }
    return try ProxyBlock.parse(bytes)
}

/// Whether the bytes begin like others, as far as they go.
private func begins(_ bytes: Span<UInt8>, like start: [UInt8]) -> Bool {
    for index in 0..<min(bytes.count, start.count) where bytes[index] != start[index] { return false }
    return true
}

// MARK: - Version 1

private enum ProxyLine {
    static let start = Array("PROXY ".utf8)

    static func parse(_ bytes: Span<UInt8>) throws(ProxyHeaderError) -> ProxyHeader? {
        guard begins(bytes, like: start) else { throw .missing }
        guard let end = try lineEnd(bytes) else { return nil }
        guard end >= start.count else { throw .line }
        return ProxyHeader(client: try client(bytes.extracting(start.count..<end)), byteCount: end + 2)
    }

    /// Where its CR LF stands; nil while it has not come.
    private static func lineEnd(_ bytes: Span<UInt8>) throws(ProxyHeaderError) -> Int? {
        let limit = min(bytes.count, Limits.proxyLineBytesMax)
        for index in 0..<limit {
            switch bytes[index] {
            case Octet.lineFeed: throw .line
            case Octet.carriageReturn:
                guard index + 1 < Limits.proxyLineBytesMax else { throw .tooLong }
                guard index + 1 < limit else { return nil }
                guard bytes[index + 1] == Octet.lineFeed else { throw .line }
                return index
            default: break
            }
        }
        guard limit < Limits.proxyLineBytesMax else { throw .tooLong }
        return nil
    }

    /// What follows "PROXY ", up to the line's end.
    private static func client(_ text: Span<UInt8>) throws(ProxyHeaderError) -> Address? {
        var parts: [Range<Int>] = []
        var from = 0
        while true {
            let space = text.firstIndex(of: Octet.space, in: from..<text.count)
            parts.append(from..<space)
            // Whatever an UNKNOWN is followed by means nothing.
            if parts.count == 1, text.extracting(parts[0]).equals("UNKNOWN") { return nil }
            guard space < text.count, parts.count < 5 else { break }
            from = space + 1
        }
        guard parts.count == 5, parts[4].upperBound == text.count else { throw .line }
        let isIPv4 = text.extracting(parts[0]).equals("TCP4")
        guard isIPv4 || text.extracting(parts[0]).equals("TCP6"),
            let source = address(text.extracting(parts[1]), isIPv4: isIPv4),
            address(text.extracting(parts[2]), isIPv4: isIPv4) != nil,
            isPort(text.extracting(parts[3])), isPort(text.extracting(parts[4]))
        else { throw .line }
        return source
    }

    private static func address(_ text: Span<UInt8>, isIPv4: Bool) -> Address? {
        // IPv6 alone has colons.
        guard text.contains(Octet.colon) != isIPv4 else { return nil }
        return Address(utf8: text)
    }

    /// Decimal digits without a leading zero, up to 65535.
    private static func isPort(_ text: Span<UInt8>) -> Bool {
        guard (1...5).contains(text.count), text.count == 1 || text[0] != Octet.zero else { return false }
        var value = 0
        for index in text.indices {
            guard isDigit(text[index]) else { return false }
            value = value * 10 + Int(text[index] - Octet.zero)
        }
        return value <= 65_535
    }
}

// MARK: - Version 2

private enum ProxyBlock {
    static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
    static let headBytes = 16

    static func parse(_ bytes: Span<UInt8>) throws(ProxyHeaderError) -> ProxyHeader? {
        guard begins(bytes, like: signature) else { throw .missing }
        guard bytes.count > 12 else { return nil }
        guard bytes[12] >> 4 == 2 else { throw .version }
        let command = bytes[12] & 0xF
        guard command <= 1 else { throw .command }
        guard bytes.count > 13 else { return nil }
        let family = try Family(bytes[13], isLocal: command == 0)
        guard bytes.count >= headBytes else { return nil }
        let length = Int(bytes[14]) << 8 | Int(bytes[15])
        guard length <= Limits.proxyBlockBytesMax else { throw .tooLong }
        guard length >= family.addressBytes else { throw .tooShort }
        guard bytes.count >= headBytes + length else { return nil }
        return ProxyHeader(client: family.source(bytes), byteCount: headBytes + length)
    }

    /// Of the addresses in a block.
    private enum Family {
        case none
        case ipv4
        case ipv6
        case unix

        init(_ octet: UInt8, isLocal: Bool) throws(ProxyHeaderError) {
            // With LOCAL a receiver ignores all that follows.
            guard !isLocal else {
                self = .none
                return
            }
            let (family, transport) = (octet >> 4, octet & 0xF)
            guard family <= 3, transport <= 2 else { throw .family }
            // Where either is unspecified, the addresses may be ignored.
            guard transport != 0 else {
                self = .none
                return
            }
            self = [.none, .ipv4, .ipv6, .unix][Int(family)]
        }

        /// Of source and destination, with the ports of both.
        var addressBytes: Int {
            switch self {
            case .none: 0
            case .ipv4: 12
            case .ipv6: 36
            case .unix: 216
            }
        }

        /// The source's address in a block that is long enough.
        func source(_ bytes: Span<UInt8>) -> Address? {
            func word(_ offset: Int) -> UInt64 {
                (0..<4).reduce(0) { $0 << 8 | UInt64(bytes[ProxyBlock.headBytes + offset + $1]) }
            }
            switch self {
            case .none, .unix: return nil
            case .ipv4: return Address(ipv4: UInt32(truncatingIfNeeded: word(0)))
            case .ipv6: return Address(high: word(0) << 32 | word(4), low: word(8) << 32 | word(12))
            }
        }
    }
}
