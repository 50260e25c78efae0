import Shared
import Testing

@testable import worker

@Suite struct `Client addresses` {
    let trusted = ["10.0.0.0/8", "2001:db8::/32"].compactMap { AddressRange($0) }

    func client(_ forwarded: String?, realIP: String? = nil, peer: String = "10.0.0.1") throws -> String {
        clientAddress(
            peer: try #require(Address(peer)), forwardedFor: forwarded.map { Array($0.utf8) },
            realIP: realIP.map { Array($0.utf8) }, trusted: trusted
        ).description
    }

    @Test func `are the peer's where it is no trusted proxy`() throws {
        #expect(try client("198.51.100.1", realIP: "198.51.100.2", peer: "192.0.2.9") == "192.0.2.9")
        #expect(try client("198.51.100.1", peer: "::1") == "::1")
        #expect(try client(nil) == "10.0.0.1")
    }

    @Test(arguments: [
        ("198.51.100.1", "198.51.100.1"), ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("1.1.1.1,198.51.100.1:80 ,\t10.2.3.4", "198.51.100.1"),
        ("198.51.100.1,[2001:db8::7]:443,10.0.0.2", "198.51.100.1"),
        ("[2001:dead::1]", "2001:dead::1"), ("2001:dead::1", "2001:dead::1"),
        // All trusted: the left-most.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"), ("10.0.0.3", "10.0.0.3"),
        // No address: the one read before it.
        ("198.51.100.1, unknown", "10.0.0.1"), ("198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("198.51.100.1 198.51.100.2", "10.0.0.1"), ("10.0.0.256", "10.0.0.1"),
        // Empty members.
        (",198.51.100.1, ,,", "198.51.100.1"), (",, 10.0.0.3 ,", "10.0.0.3"),
    ])
    func `are the right-most that is no trusted proxy`(forwarded: String, address: String) throws {
        #expect(try client(forwarded, realIP: "203.0.113.5") == address)
    }

    @Test func `are X-Real-IP's without X-Forwarded-For`() throws {
        #expect(try client(nil, realIP: "203.0.113.5") == "203.0.113.5")
        #expect(try client(nil, realIP: " [2001:dead::1]:9 ") == "2001:dead::1")
        #expect(try client(" , ", realIP: "203.0.113.5") == "203.0.113.5")
        #expect(try client("", realIP: "203.0.113.5") == "203.0.113.5")
        #expect(try client(nil, realIP: "nobody") == "10.0.0.1")
    }

    @Test func `are looked for in 32 entries and no more`() throws {
        let proxies = { Array(repeating: "10.0.0.2", count: $0).joined(separator: ",") }
        #expect(try client("198.51.100.1,\(proxies(31))") == "198.51.100.1")
        #expect(try client("198.51.100.1,\(proxies(32))") == "10.0.0.2")
    }
}
