import Shared
import Testing

@testable import worker

@Suite struct `A request's client address` {
    let trusted = ["10.0.0.0/8", "2001:db8::/32"].compactMap { AddressRange($0) }

    /// Whose a request with these header lines is: the address, and the conflict if there is one.
    func client(_ lines: String..., peer: String = "10.0.0.1", by source: ClientAddressSource = .auto) throws -> String
    {
        let text = (["GET / HTTP/1.1", "Host: relay.example"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
        let client = try head(text).client(peer: try #require(Address(peer)), source, trusted: trusted)
        return client.address.description + (client.conflict.map { " \($0)" } ?? "")
    }

    @Test(arguments: ClientAddressSource.allCases)
    func `is the peer's where it is no trusted proxy`(source: ClientAddressSource) throws {
        let lines = ["X-Forwarded-For: 198.51.100.1", "X-Real-IP: 198.51.100.1", "CF-Connecting-IP: 198.51.100.1"]
        for peer in ["192.0.2.9", "::1"] {
            #expect(try client(lines[0], lines[1], lines[2], peer: peer, by: source) == peer)
        }
        #expect(try client(by: source) == "10.0.0.1")
    }

    @Test(arguments: [ClientAddressSource.peer, .proxyProtocol])
    func `is the peer's whatever the head says, where no header counts`(source: ClientAddressSource) throws {
        #expect(try client("X-Forwarded-For: 198.51.100.1", "X-Real-IP: 198.51.100.1", by: source) == "10.0.0.1")
        #expect(try client("X-Real-IP: nobody", "X-Real-IP: nobody", by: source) == "10.0.0.1")
    }

    @Test(arguments: [ClientAddressSource.auto, .xForwardedFor])
    func `is X-Forwarded-For's right-most that is no trusted proxy`(source: ClientAddressSource) throws {
        for (forwarded, expected) in [
            ("198.51.100.1", "198.51.100.1"), ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
            ("1.1.1.1,198.51.100.1:80 ,\t10.2.3.4", "198.51.100.1"),
            ("198.51.100.1,[2001:db8::7]:443,10.0.0.2", "198.51.100.1"),
            ("[2001:dead::1]", "2001:dead::1"), ("2001:dead::1", "2001:dead::1"),
            // All trusted: the left-most.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"), ("10.0.0.3", "10.0.0.3"),
            // No address: the one read before it.
            ("198.51.100.1, unknown", "10.0.0.1 malformed"),
            ("198.51.100.1, unknown, 10.0.0.2", "10.0.0.2 malformed"),
            ("198.51.100.1 198.51.100.2", "10.0.0.1 malformed"), ("10.0.0.256", "10.0.0.1 malformed"),
            // What stands to the left of the client is anybody's.
            ("unknown, 198.51.100.1", "198.51.100.1"),
            // Empty members.
            (",198.51.100.1, ,,", "198.51.100.1"), (",, 10.0.0.3 ,", "10.0.0.3"), (" , ", "10.0.0.1"), ("", "10.0.0.1"),
        ] {
            #expect(try client("X-Forwarded-For: \(forwarded)", by: source) == expected, "\(forwarded)")
        }
    }

    @Test func `is looked for in all lines of X-Forwarded-For, in their order`() throws {
        #expect(
            try client("X-Forwarded-For: 1.1.1.1", "Via: x", "x-forwarded-for: 198.51.100.1, 10.0.0.2")
                == "198.51.100.1")
        #expect(try client("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 10.0.0.2") == "198.51.100.1")
        #expect(try client("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For:") == "198.51.100.1")
    }

    @Test func `is looked for in 32 entries and no more`() throws {
        let proxies = { Array(repeating: "10.0.0.2", count: $0).joined(separator: ",") }
        #expect(try client("X-Forwarded-For: 198.51.100.1,\(proxies(31))") == "198.51.100.1")
        #expect(try client("X-Forwarded-For: 198.51.100.1,\(proxies(32))") == "10.0.0.2")
    }

    @Test(arguments: [
        ("X-Real-IP", ClientAddressSource.auto), ("X-Real-IP", .xRealIP), ("CF-Connecting-IP", .cfConnectingIP),
    ])
    func `is a single header's, if it stands there once and is an address`(
        name: String, source: ClientAddressSource
    ) throws {
        #expect(try client("\(name): 203.0.113.5", by: source) == "203.0.113.5")
        #expect(try client("\(name.lowercased()): [2001:dead::1]:9 ", by: source) == "2001:dead::1")
        #expect(try client("\(name): 10.0.0.9", by: source) == "10.0.0.9")
        for wrong in ["nobody", "", "203.0.113.5, 203.0.113.6", "203.0.113.256"] {
            #expect(try client("\(name): \(wrong)", by: source) == "10.0.0.1 malformed")
        }
        #expect(try client("\(name): 203.0.113.5", "\(name): 203.0.113.6", by: source) == "10.0.0.1 repeated")
        #expect(try client("\(name): 203.0.113.5", "\(name): 203.0.113.5", by: source) == "10.0.0.1 repeated")
        // Nothing that is in front of it counts.
        #expect(try client("\(name): 203.0.113.5", "X-Forwarded-For: ,", by: source) == "203.0.113.5")
    }

    @Test func `is by one header alone where the setting names it`() throws {
        let lines = ["X-Forwarded-For: 198.51.100.1", "X-Real-IP: 198.51.100.2", "CF-Connecting-IP: 198.51.100.3"]
        for (source, expected) in [
            (ClientAddressSource.xForwardedFor, "198.51.100.1"), (.xRealIP, "198.51.100.2"),
            (.cfConnectingIP, "198.51.100.3"),
        ] {
            #expect(try client(lines[0], lines[1], lines[2], by: source) == expected)
        }
        #expect(try client(lines[1], lines[2], by: .xForwardedFor) == "10.0.0.1")
        #expect(try client(lines[0], lines[2], by: .xRealIP) == "10.0.0.1")
        #expect(try client(lines[0], lines[1], by: .cfConnectingIP) == "10.0.0.1")
        #expect(try client(lines[2]) == "10.0.0.1", "CF-Connecting-IP counts where it is asked for")
    }

    @Test func `is the proxy's own by default where two headers disagree, whichever of them the client has made up`()
        throws
    {
        #expect(try client("X-Forwarded-For: 1.1.1.1, 203.0.113.5", "X-Real-IP: 203.0.113.5") == "203.0.113.5")
        #expect(try client("X-Real-IP: ::ffff:203.0.113.5", "X-Forwarded-For: 203.0.113.5, 10.0.0.4") == "203.0.113.5")
        // A proxy that sets X-Real-IP and passes X-Forwarded-For on.
        for made in ["1.1.1.1", "203.0.113.5, 1.1.1.1", "10.0.0.7"] {
            #expect(try client("X-Forwarded-For: \(made)", "X-Real-IP: 203.0.113.5") == "10.0.0.1 disagreement")
        }
        #expect(try client("X-Forwarded-For: unknown", "X-Real-IP: 203.0.113.5") == "10.0.0.1 malformed")
        #expect(try client("X-Forwarded-For: unknown, 10.0.0.2", "X-Real-IP: 10.0.0.2") == "10.0.0.1 malformed")
        // A proxy that adds to X-Forwarded-For and passes X-Real-IP on.
        #expect(try client("X-Forwarded-For: 203.0.113.5", "X-Real-IP: 1.1.1.1") == "10.0.0.1 disagreement")
        #expect(try client("X-Forwarded-For: 203.0.113.5", "X-Real-IP: nobody") == "10.0.0.1 malformed")
        let twice = ["X-Real-IP: 203.0.113.5", "X-Real-IP: 203.0.113.5"]
        #expect(try client("X-Forwarded-For: 203.0.113.5", twice[0], twice[1]) == "10.0.0.1 repeated")
    }

    @Test func `is of interest to the log where a header is there that is believed by default`() throws {
        for line in ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For:", "X-Real-IP: x"] {
            #expect(try head(get("/", line)).hasForwardingHeader)
        }
        #expect(try !head(get("/", "CF-Connecting-IP: 1.1.1.1", "Forwarded: for=1.1.1.1")).hasForwardingHeader)
    }
}
