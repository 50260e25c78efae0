// Ranges of addresses in CIDR notation (RFC 4632, 3.1), and the address that the relay listens on.

/// All addresses that share a prefix.
package struct AddressRange: Hashable, Sendable, CustomStringConvertible {
    /// The first address: all bits beyond the prefix are 0.
    package let first: Address
    /// Bits of the prefix in the 128-bit form: 96 more than written for IPv4.
    package let prefixBits: Int

    /// nil if the prefix is no prefix or bits beyond it are set.
    package init?(first: Address, prefixBits: Int) {
        guard (0...128).contains(prefixBits), first.masked(to: prefixBits) == first else { return nil }
        self.first = first
        self.prefixBits = prefixBits
    }

    /// "10.0.0.0/8", "2001:db8::/32" or a single address.
    ///
    /// Bits set beyond the prefix are refused: 10.1.2.3/8 may mean 10.0.0.0/8 or 10.1.2.3/32, and whom to trust is
    /// nothing to guess.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let first = Address(parts[0]) else { return nil }
        guard parts.count == 2 else {
            self.init(first: first, prefixBits: 128)
            return
        }
        let isDotted = !parts[0].utf8.contains(UInt8(ascii: ":"))
        let digits = Array(parts[1].utf8)
        guard let bits = AddressText.decimal(digits.span, max: isDotted ? 32 : 128) else { return nil }
        self.init(first: first, prefixBits: isDotted ? 96 + bits : bits)
    }

    private var isIPv4: Bool { prefixBits >= 96 && first.isIPv4 }

    /// Whether the address lies in the range. IPv4 addresses lie in IPv4 ranges alone: ::/0 is all of IPv6, and
    /// nothing else.
    package func contains(_ address: Address) -> Bool {
        address.isIPv4 == isIPv4 && address.masked(to: prefixBits) == first
    }

    /// As written, a single address without a prefix.
    package var description: String {
        if prefixBits == 128 { return first.description }
        return "\(first)/\(isIPv4 ? prefixBits - 96 : prefixBits)"
    }

    /// In a `ByteWriter`.
    static let encodedBytes = 17
}

extension Address {
    /// The address with every bit beyond the first `bits` cleared.
    fileprivate func masked(to bits: Int) -> Address {
        Address(
            high: high & ~(UInt64.max >> UInt64(min(bits, 64))),
            low: low & ~(UInt64.max >> UInt64(max(bits - 64, 0))))
    }
}

/// Where the relay listens.
package struct ListenAddress: Hashable, Sendable, CustomStringConvertible {
    package enum Host: Hashable, Sendable {
        /// Every address of the machine, IPv4 and IPv6.
        case any
        case address(Address)
    }

    package var host: Host
    /// 0: the kernel chooses one.
    package var port: UInt16

    package init(host: Host, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// ":8443", "192.0.2.1:8443" or "[2001:db8::1]:8443".
    package init?(_ text: String) {
        guard let colon = text.utf8.lastIndex(of: UInt8(ascii: ":")) else { return nil }
        let digits = Array(text.utf8[text.utf8.index(after: colon)...])
        guard let port = AddressText.decimal(digits.span, max: 65535) else { return nil }
        self.port = UInt16(port)
        let name = text[..<colon]
        if name.isEmpty {
            host = .any
            return
        }
        let isBracketed = name.hasPrefix("[") && name.hasSuffix("]")
        guard let address = Address(isBracketed ? name.dropFirst().dropLast() : name) else { return nil }
        // Brackets are for colons, and colons need them (RFC 3986, 3.2.2).
        guard isBracketed == name.utf8.contains(UInt8(ascii: ":")) else { return nil }
        host = .address(address)
    }

    package var description: String {
        switch host {
        case .any: ":\(port)"
        case .address(let address): address.isIPv4 ? "\(address):\(port)" : "[\(address)]:\(port)"
        }
    }
}
