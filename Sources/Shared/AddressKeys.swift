// What limits by source count an address by.
//
//     IPv4    the address: one customer has one, or shares one
//     IPv6    the /64, which is the least that one customer gets (RFC 6177); and besides, more loosely, the /48, which
//             anybody can have and which holds 65,536 of them. An address is admitted only if both its keys admit it
//     NAT64   an address within 64:ff9b::/96 (RFC 6052, 2.1) is the IPv4 address in it: the prefix is one for the whole
//             IPv4 internet
//
// One attacker is one IPv4 address or one /48: `party`.

/// The keys of an address. None is 0, which tables take for no entry.
package struct AddressKeys: Hashable, Sendable {
    /// The IPv4 address, or the /64.
    package let narrow: UInt64
    /// The /48; nil for IPv4.
    package let wide: UInt64?

    /// The owner of this address may own all others with the same value: the widest key that there is.
    package var party: UInt64 { wide ?? narrow }

    package init(_ address: Address) {
        if let ipv4 = address.ipv4 {
            narrow = Self.ipv4 | UInt64(ipv4)
            wide = nil
        } else {
            narrow = address.high == 0 ? Self.first64 : address.high
            wide = Self.networks48 | address.high >> 16
        }
    }

    // The kinds can't meet: all but that of a /64 read as prefixes in ff00::/8, multicast, which is never a source (RFC
    // 4291, 2.7). Neither can the key of ::/64, where ::1 lives, which in its own form would be 0.
    private static let ipv4: UInt64 = 0xFFFF_FFFF_0000_0000
    private static let first64: UInt64 = 0xFFFF_FFFE_0000_0000
    private static let networks48: UInt64 = 0xFFFD_0000_0000_0000
}

extension Address {
    package var keys: AddressKeys { AddressKeys(self) }

    /// The IPv4 address that this is, or that a NAT64 gateway speaks for.
    fileprivate var ipv4: UInt32? {
        let isNAT64 = high == 0x0064_FF9B_0000_0000 && low >> 32 == 0
        return isIPv4 || isNAT64 ? UInt32(truncatingIfNeeded: low) : nil
    }
}
