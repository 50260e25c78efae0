// Network addresses as values of 16 bytes: IPv6, and IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). Reading is strict:
// what is not exactly one address in the notation of RFC 4291, 2.2, or four decimal numbers without leading zeros,
// is nil. No zones, no names, no octal, so that nothing is read differently here than by whoever wrote it.

/// An IPv4 or IPv6 address.
package struct Address: Hashable, Sendable, CustomStringConvertible {
    /// The first 8 bytes, read big-endian.
    package var high: UInt64
    /// The last 8 bytes, read big-endian.
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An IPv4 address, given as its 32 bits read big-endian.
    package init(ipv4: UInt32) {
        high = 0
        low = Self.ipv4Prefix << 32 | UInt64(ipv4)
    }

    /// "192.0.2.1" or "2001:db8::1"; nil for anything else.
    package init?(_ text: some StringProtocol) {
        self.init(utf8: Array(text.utf8).span)
    }

    package init?(utf8 bytes: RawSpan) {
        // Every bit pattern is a UInt8, and none is misaligned.
        self.init(utf8: unsafe bytes._unsafeView(as: UInt8.self))
    }

    package init?(utf8 bytes: Span<UInt8>) {
        guard let address = AddressText.ipv4(bytes).map({ Address(ipv4: $0) }) ?? AddressText.ipv6(bytes) else {
            return nil
        }
        self = address
    }

    /// One entry of `X-Forwarded-For`: an address, blanks around it or not, a port behind it (as some proxies write
    /// it) or not. IPv6 may stand in brackets, and must before a port.
    package static func forwarded(utf8 bytes: RawSpan) -> Address? {
        // As above.
        forwarded(utf8: unsafe bytes._unsafeView(as: UInt8.self))
    }

    package static func forwarded(utf8 bytes: Span<UInt8>) -> Address? {
        var entry = 0..<bytes.count
        while let first = entry.first, AddressText.isBlank(bytes[first]) { entry.removeFirst() }
        while let last = entry.last, AddressText.isBlank(bytes[last]) { entry.removeLast() }
        guard let first = entry.first else { return nil }
        if bytes[first] == UInt8(ascii: "[") {
            guard let bracket = entry.first(where: { bytes[$0] == UInt8(ascii: "]") }) else { return nil }
            let rest = bytes.extracting((bracket + 1)..<entry.upperBound)
            guard rest.isEmpty || AddressText.isPort(rest) else { return nil }
            return AddressText.ipv6(bytes.extracting((first + 1)..<bracket))
        }
        // One colon: IPv4 and a port. IPv6 has two at least, and its port needs the brackets.
        let colons = entry.filter { bytes[$0] == UInt8(ascii: ":") }
        guard colons.count == 1, let colon = colons.first else { return Address(utf8: bytes.extracting(entry)) }
        guard AddressText.isPort(bytes.extracting(colon..<entry.upperBound)) else { return nil }
        return AddressText.ipv4(bytes.extracting(first..<colon)).map { Address(ipv4: $0) }
    }

    private static let ipv4Prefix: UInt64 = 0xFFFF

    package var isIPv4: Bool {
        high == 0 && low >> 32 == Self.ipv4Prefix
    }

    /// 127.0.0.0/8 or ::1: this machine itself.
    package var isLoopback: Bool {
        isIPv4 ? low >> 24 & 0xFF == 127 : high == 0 && low == 1
    }

    /// Whose memory a connection takes: the IPv4 address or the IPv6 /48, because one customer may have as many /64 as
    /// a worker has rooms.
    package var memoryKey: UInt64 { keys.party }

    /// IPv4 with dots, IPv6 by RFC 5952.
    package var description: String {
        isIPv4 ? ipv4Description : ipv6Description
    }

    private var ipv4Description: String {
        "\(low >> 24 & 0xFF).\(low >> 16 & 0xFF).\(low >> 8 & 0xFF).\(low & 0xFF)"
    }

    private var ipv6Description: String {
        let groups = (0..<8).map { index in
            UInt16(truncatingIfNeeded: (index < 4 ? high : low) >> (48 - 16 * (index & 3)))
        }
        // RFC 5952, 4.2: the longest run of zeros, the first of equals, never a single one.
        var run = 0..<0
        var start = 0
        for index in 0...8 where index == 8 || groups[index] != 0 {
            if index - start > max(run.count, 1) { run = start..<index }
            start = index + 1
        }
        func text(_ range: Range<Int>) -> String {
            range.map { String(groups[$0], radix: 16) }.joined(separator: ":")
        }
        return run.isEmpty ? text(0..<8) : "\(text(0..<run.lowerBound))::\(text(run.upperBound..<8))"
    }
}

/// The notations of addresses, read from bytes.
enum AddressText {
    static func isBlank(_ octet: UInt8) -> Bool {
        octet == UInt8(ascii: " ") || octet == UInt8(ascii: "\t")
    }

    /// ":" and a number up to 65535.
    static func isPort(_ bytes: Span<UInt8>) -> Bool {
        guard bytes.count >= 2, bytes[0] == UInt8(ascii: ":") else { return false }
        return decimal(bytes.extracting(1..<bytes.count), max: 65535) != nil
    }

    /// Decimal digits without a leading zero.
    static func decimal(_ bytes: Span<UInt8>, max: Int) -> Int? {
        guard (1...9).contains(bytes.count) else { return nil }
        guard bytes.count == 1 || bytes[0] != UInt8(ascii: "0") else { return nil }
        var value = 0
        for index in 0..<bytes.count {
            let octet = bytes[index]
            guard octet >= UInt8(ascii: "0"), octet <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int(octet - UInt8(ascii: "0"))
        }
        return value <= max ? value : nil
    }

    /// "192.0.2.1". A leading zero is refused: some readers take it for octal.
    static func ipv4(_ bytes: Span<UInt8>) -> UInt32? {
        guard bytes.count <= 15 else { return nil }
        var value: UInt32 = 0
        var start = 0
        for part in 0..<4 {
            var end = start
            while end < bytes.count, bytes[end] != UInt8(ascii: ".") { end += 1 }
            guard (end == bytes.count) == (part == 3) else { return nil }
            guard let number = decimal(bytes.extracting(start..<end), max: 255) else { return nil }
            value = value << 8 | UInt32(number)
            start = end + 1
        }
        return value
    }

    /// "2001:db8::1", "::ffff:192.0.2.1" (RFC 4291, 2.2).
    static func ipv6(_ bytes: Span<UInt8>) -> Address? {
        guard (2...45).contains(bytes.count) else { return nil }
        for index in 0...(bytes.count - 2) where isGap(bytes, index) {
            // What stands before the "::" and behind it; a second one leaves an empty group in either and fails.
            guard let front = groups(bytes.extracting(0..<index), takesIPv4: false),
                let back = groups(bytes.extracting((index + 2)..<bytes.count), takesIPv4: true),
                front.count + back.count <= 7
            else { return nil }
            return address(front + Array(repeating: 0, count: 8 - front.count - back.count) + back)
        }
        guard let all = groups(bytes, takesIPv4: true), all.count == 8 else { return nil }
        return address(all)
    }

    private static func isGap(_ bytes: Span<UInt8>, _ index: Int) -> Bool {
        bytes[index] == UInt8(ascii: ":") && bytes[index + 1] == UInt8(ascii: ":")
    }

    private static func address(_ groups: [UInt16]) -> Address {
        Address(
            high: groups[..<4].reduce(0) { $0 << 16 | UInt64($1) },
            low: groups[4...].reduce(0) { $0 << 16 | UInt64($1) })
    }

    /// Groups with single colons between them, at most 8; none for no bytes.
    private static func groups(_ bytes: Span<UInt8>, takesIPv4: Bool) -> [UInt16]? {
        guard !bytes.isEmpty else { return [] }
        var groups: [UInt16] = []
        var start = 0
        while groups.count < 8 {
            var end = start
            while end < bytes.count, bytes[end] != UInt8(ascii: ":") { end += 1 }
            let part = bytes.extracting(start..<end)
            if let group = hexadecimal(part) {
                groups.append(group)
            } else {
                guard takesIPv4, end == bytes.count, groups.count <= 6, let tail = ipv4(part) else { return nil }
                groups.append(UInt16(tail >> 16))
                groups.append(UInt16(tail & 0xFFFF))
            }
            if end == bytes.count { return groups }
            start = end + 1
        }
        return nil
    }

    /// One to four hexadecimal digits.
    private static func hexadecimal(_ bytes: Span<UInt8>) -> UInt16? {
        guard (1...4).contains(bytes.count) else { return nil }
        var value: UInt16 = 0
        for index in 0..<bytes.count {
            let octet = bytes[index]
            let digit: UInt8
            switch octet {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = octet - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = octet - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = octet - UInt8(ascii: "A") + 10
            default: return nil
            }
            value = value << 4 | UInt16(digit)
        }
        return value
    }
}
