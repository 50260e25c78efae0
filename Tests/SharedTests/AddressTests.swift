import Shared
import Testing

@Suite struct `Addresses` {
    @Test(arguments: [
        ("0.0.0.0", "0.0.0.0"), ("192.0.2.1", "192.0.2.1"), ("255.255.255.255", "255.255.255.255"),
        ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0000:0000:0000:0000:0000:0001", "2001:db8::1"), ("2001:DB8::aBcD", "2001:db8::abcd"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"), ("1:2:3::5:6:7:8", "1:2:3:0:5:6:7:8"),
        ("1:0:0:4:0:0:0:8", "1:0:0:4::8"), ("1:0:0:4:5:0:0:8", "1::4:5:0:0:8"), ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("::ffff:c000:201", "192.0.2.1"), ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"), ("::1.2.3.4", "::102:304"),
        ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
        ("::fffe:1.2.3.4", "::fffe:102:304"), ("1::1.2.3.4", "1::102:304"),
    ])
    func `are read in RFC 4291's notation and written in RFC 5952's`(text: String, canonical: String) throws {
        let address = try #require(Address(text))
        #expect(address.description == canonical)
        #expect(Address(canonical) == address)
        #expect(Address(utf8: Array(text.utf8).span) == address)
        #expect(Address(utf8: Array(text.utf8).span.bytes) == address)
    }

    @Test(arguments: [
        "", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.256", "1.2.3.04", "01.2.3.4",
        "1.2.3.4 ",
        " 1.2.3.4", "1.2.3.-4", "1.2.3.+4", "0x1.2.3.4", "1.2.3.4/8", "1.2.3.1000", "1.2.3.99999999999999999999",
        "a.b.c.d",
        ":", ":::", "1:", ":1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8",
        "1:2:3:4::5:6:7:8", "1::2::3", "::1::", "::12345", "::g", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "::1.2.3.4:5",
        "1.2.3.4::", "::1.2.3.256", "fe80::1%eth0", "[::1]", "::1]", "::1/64", "::١", "localhost", "1.2.3.4\0",
        "0000:0000:0000:0000:0000:0000:0000:00001", "1:2:3:4:5:6:7:", ":2:3:4:5:6:7:8", "::1.2.3.4.5", "1:::2",
    ])
    func `are nothing else`(text: String) {
        #expect(Address(text) == nil)
    }

    @Test func `are refused when cut short or grown by a byte, or are another address`() {
        for text in ["192.0.2.1", "2001:db8::ffff:192.0.2.1", "1:2:3:4:5:6:7:8"] {
            for end in text.indices {
                let part = String(text[..<end])
                #expect(Address(part) != Address(text))
            }
            for octet in UInt8.min...UInt8.max {
                let grown = Array(text.utf8) + [octet]
                #expect(Address(utf8: grown.span) != Address(text))
            }
        }
    }

    @Test(arguments: [
        ("192.0.2.1", "192.0.2.1"), ("192.0.2.1:80", "192.0.2.1"), (" \t192.0.2.1:65535 ", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("[::ffff:192.0.2.1]:0", "192.0.2.1"), ("\t::\t", "::"),
    ])
    func `are read from an entry of X-Forwarded-For with or without a port`(entry: String, address: String) {
        #expect(Address.forwarded(utf8: Array(entry.utf8).span)?.description == address)
        #expect(Address.forwarded(utf8: Array(entry.utf8).span.bytes)?.description == address)
    }

    @Test(arguments: [
        "", " ", ":", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:080", "192.0.2.1:http",
        "192.0.2.1 80",
        "[192.0.2.1]", "[192.0.2.1]:80", "[::1", "::1]", "[]", "[::1]80", "[::1]:", "[::1]:-1", "[[::1]]",
        "\"192.0.2.1\"",
        "192.0.2.1, 192.0.2.2", "[::1]:80:80", "1.2.3.4\n",
    ])
    func `are not guessed from other entries of X-Forwarded-For`(entry: String) {
        #expect(Address.forwarded(utf8: Array(entry.utf8).span) == nil)
    }

    @Test func `know their family`() {
        #expect(Address("1.2.3.4")?.isIPv4 == true)
        #expect(Address(ipv4: 0x0102_0304) == Address("1.2.3.4"))
        #expect(Address("::1.2.3.4")?.isIPv4 == false)
        #expect(Address("1::ffff:1.2.3.4")?.isIPv4 == false)
    }
}

@Suite struct `Address ranges` {
    @Test(arguments: [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"), ("10.0.0.0/8", "10.0.0.0", "9.255.255.255"),
        ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"), ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("128.0.0.0/1", "128.0.0.0", "127.255.255.255"), ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"), ("2001:db8::/64", "2001:db8::ffff", "2001:db8:0:1::"),
        ("2001:db8::/65", "2001:db8::7fff:0:0:1", "2001:db8::8000:0:0:0"), ("::1", "::1", "::2"),
        ("::1/128", "::1", "::"),
        ("2001:db8::/63", "2001:db8:0:1::", "2001:db8:0:2::"), ("2001:db8::8/125", "2001:db8::f", "2001:db8::10"),
        ("::/0", "ffff::", "10.0.0.1"), ("::/0", "::", "0.0.0.0"), ("::ffff:0:0/96", "10.0.0.1", "::1"),
        ("::/80", "::1", "127.0.0.1"), ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
    ])
    func `hold what shares their prefix and nothing else`(range: String, inside: String, outside: String) throws {
        let range = try #require(AddressRange(range))
        #expect(range.contains(try #require(Address(inside))))
        #expect(!range.contains(try #require(Address(outside))))
        #expect(AddressRange(range.description) == range)
    }

    @Test(arguments: [
        "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8",
        "10.0.0.0/ 8",
        " 10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/255.0.0.0", "10.0/8", "::/129", "2001:db8::1/64", "::1/127", "[::1]/128",
        "1.2.3.4/0", "localhost", "10.0.0.0/99999999999999999999", "::ffff:10.0.0.1/104",
    ])
    func `are refused when malformed or with bits beyond the prefix`(text: String) {
        #expect(AddressRange(text) == nil)
    }

    @Test func `accept every prefix length and one bit beyond it in none`() throws {
        for bits in 0...128 {
            let ones = Address(
                high: bits >= 64 ? .max : ~(.max >> UInt64(bits)), low: bits <= 64 ? 0 : ~(.max >> UInt64(bits - 64)))
            #expect(AddressRange(first: ones, prefixBits: bits) != nil)
            if bits > 0 { #expect(AddressRange(first: ones, prefixBits: bits - 1) == nil) }
        }
        #expect(AddressRange(first: Address(high: 0, low: 0), prefixBits: 129) == nil)
        #expect(AddressRange(first: Address(high: 0, low: 0), prefixBits: -1) == nil)
    }

    @Test(arguments: [
        ("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.1/32", "10.0.0.1"), ("::1/128", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0"), ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ])
    func `are written as CIDR`(text: String, canonical: String) {
        #expect(AddressRange(text)?.description == canonical)
    }
}

@Suite struct `Listen addresses` {
    @Test(arguments: [":8443", ":0", ":65535", "192.0.2.1:80", "0.0.0.0:1", "[::]:8443", "[2001:db8::1]:443"])
    func `read back as they are written`(text: String) {
        #expect(ListenAddress(text)?.description == text)
    }

    @Test func `without a host mean every address`() {
        #expect(ListenAddress(":8443") == ListenAddress(host: .any, port: 8443))
        #expect(ListenAddress("[::]:8443")?.host != .any)
    }

    @Test(arguments: [
        "", ":", "8443", "192.0.2.1", "192.0.2.1:", ":65536", ":-1", ":+1", ": 1", ":080", ":http", "localhost:80",
        "*:80",
        "::1:80", "[::1]", "[::1", "[::1]80", "[192.0.2.1]:80", "[]:80", "[:80", "]:80", "1.2.3.4:80 ",
        "[fe80::1%eth0]:80",
        "tcp://1.2.3.4:80", "1.2.3:80",
    ])
    func `are refused when malformed`(text: String) {
        #expect(ListenAddress(text) == nil)
    }
}
