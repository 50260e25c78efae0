import Testing

@testable import Shared

@Suite struct `The keys of an address` {
    @Test(
        arguments: [
            ("0.0.0.0", 0xFFFF_FFFF_0000_0000), ("192.0.2.1", 0xFFFF_FFFF_C000_0201),
            ("::ffff:192.0.2.1", 0xFFFF_FFFF_C000_0201), ("255.255.255.255", 0xFFFF_FFFF_FFFF_FFFF),
        ] as [(String, UInt64)])
    func `are one, its own, for IPv4`(text: String, key: UInt64) throws {
        let keys = try #require(Address(text)).keys
        #expect(keys.narrow == key && keys.wide == nil && keys.party == key)
    }

    @Test(
        arguments: [
            ("2001:db8:0:1::1", 0x2001_0db8_0000_0001, 0xFFFD_2001_0db8_0000),
            ("2001:db8:0:1:ffff::", 0x2001_0db8_0000_0001, 0xFFFD_2001_0db8_0000),
            ("2001:db8:0:ffff::", 0x2001_0db8_0000_FFFF, 0xFFFD_2001_0db8_0000),
            ("2001:db8:1:1::1", 0x2001_0db8_0001_0001, 0xFFFD_2001_0db8_0001),
            ("::1", 0xFFFF_FFFE_0000_0000, 0xFFFD_0000_0000_0000), ("::", 0xFFFF_FFFE_0000_0000, 0xFFFD_0000_0000_0000),
            ("::fffe:1.2.3.4", 0xFFFF_FFFE_0000_0000, 0xFFFD_0000_0000_0000),
        ] as [(String, UInt64, UInt64)])
    func `are its /64 and its /48 for IPv6`(text: String, narrow: UInt64, wide: UInt64) throws {
        let keys = try #require(Address(text)).keys
        #expect(keys.narrow == narrow && keys.wide == wide && keys.party == wide)
    }

    @Test func `are those of the IPv4 address that NAT64 speaks for`() throws {
        let keys = try #require(Address("192.0.2.1")).keys
        #expect(Address("64:ff9b::192.0.2.1")?.keys == keys)
        #expect(Address("64:ff9b::c000:201")?.keys == keys)
        // The prefix has 96 bits (RFC 6052, 2.1): what is beside it is IPv6.
        for text in ["64:ff9b:1::192.0.2.1", "64:ff9b::1:192.0.2.1", "64:ff9c::192.0.2.1", "64:ff9b:0:1::192.0.2.1"] {
            #expect(Address(text)?.keys.wide != nil)
        }
    }

    @Test func `are never 0, nor those of another kind`() {
        let addresses = ["::", "::1", "0.0.0.0", "2001:db8::", "1::", "64:ff9b::0.0.0.0"]
        let keys = addresses.compactMap { Address($0)?.keys }
        #expect(keys.allSatisfy { $0.narrow != 0 && $0.wide != 0 })
        #expect(Set(keys.map(\.narrow)).isDisjoint(with: keys.compactMap(\.wide)))
    }
}
