import Testing

@testable import Shared

@Suite struct `Origins` {
    @Test(arguments: [
        ("https://chat.example", "https://chat.example"), ("HTTPS://Chat.Example", "https://chat.example"),
        ("https://chat.example:443", "https://chat.example"), ("http://chat.example:80", "http://chat.example"),
        ("https://chat.example:80", "https://chat.example:80"),
        ("http://[2001:DB8::0]:8080", "http://[2001:db8::]:8080"),
        ("tauri://localhost", "tauri://localhost"), ("moz-extension://a-b", "moz-extension://a-b"),
        ("a+b.c-1://x:443", "a+b.c-1://x:443"),
    ])
    func `are read into one spelling`(text: String, spelling: String) {
        #expect(Origin(text)?.description == spelling)
        #expect(Origin(text) == Origin(spelling))
    }

    @Test func `differ in scheme, host or port`() {
        let origins = ["https://a", "http://a", "https://b", "https://a:444", "https://a.b", "wss://a", "https://a."]
        #expect(Set(origins.map { Origin($0) }).count == origins.count)
    }

    @Test(arguments: [
        "", "null", "*", "chat.example", "https:", "https:/", "https://", "https:///", "https://a/", "https://a/b",
        "https://a?b", "https://a b", " https://a", "https://a ", "https://a, https://b", "https://u@a", "://a",
        "1s://a",
        "ht tp://a", "https//a", "https://*.a", "https://a:", "https://a:x", "https://::1", "file://",
    ])
    func `are nothing else`(text: String) {
        #expect(Origin(text) == nil)
    }

    @Test func `have a bounded length`() {
        let name = String(repeating: "a", count: 253)
        #expect(Origin("https://\(name):65535") != nil)
        let scheme = String(repeating: "s", count: Limits.originBytesMax - 4)
        #expect(Origin("\(scheme)://a") != nil)
        #expect(Origin("\(scheme)s://a") == nil)
    }
}
