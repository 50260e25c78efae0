import Testing

@testable import Shared

@Suite struct `Host names and addresses in URLs` {
    @Test(arguments: [
        ("relay.example", "relay.example"), ("RELAY.Example:8443", "relay.example:8443"), ("localhost", "localhost"),
        ("a_b-c.d", "a_b-c.d"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1:0"), ("[::1]", "[::1]"),
        ("[0:0::1]:65535", "[::1]:65535"), ("1.2.3", "1.2.3"), ("256.0.0.1", "256.0.0.1"), ("a.", "a."),
    ])
    func `are read into one spelling`(text: String, spelling: String) throws {
        #expect(HostAndPort(utf8: Array(text.utf8).span)?.description == spelling)
    }

    @Test(arguments: [
        "", ":", ":80", "a:", "a:b", "a:080", "a:65536", "a:-1", "a:80:80", "::1", "::1:80", "[::1", "::1]", "[]",
        "[]:80",
        "[127.0.0.1]", "[a]", "[::1]x", "[::1]80", "[::1%25lo]", "[::1]]", "a b", "a/b", "a@b", "a,b", "ü", "a%2eb",
        "*",
    ])
    func `are nothing else`(text: String) throws {
        #expect(HostAndPort(utf8: Array(text.utf8).span) == nil)
    }

    @Test func `tell addresses from names`() throws {
        let address = try #require(Address("192.0.2.1"))
        #expect(HostAndPort(utf8: Array("192.0.2.1:80".utf8).span)?.host == .address(address))
        #expect(HostAndPort(utf8: Array("[::ffff:192.0.2.1]".utf8).span)?.host == .address(address))
        let name = try #require(HostName("192.0.2.1.example"))
        #expect(HostAndPort(utf8: Array("192.0.2.1.EXAMPLE".utf8).span)?.host == .name(name))
    }

    @Test func `have 253 bytes at most`() {
        #expect(HostName(String(repeating: "a", count: 253)) != nil)
        #expect(HostName(String(repeating: "a", count: 254)) == nil)
        #expect(HostName("") == nil)
    }
}
