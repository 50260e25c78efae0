import Testing

@testable import Shared

@Suite struct `Scanning` {
    /// Octets beside those that are looked for, in value or by a bit.
    static let octets: [UInt8] = [
        0, 1, 0x09, 0x0D, 0x1F, 0x20, 0x21, 0x3A, 0x3B, 0x7E, 0x7F, 0x80, 0x8D, 0x9F, 0xBA, 0xFF,
    ]

    @Test func `finds the first of an octet within any range`() {
        var random = SplitMix64(seed: 1)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                Self.octets.randomElement(using: &random) ?? 0
            }
            let end = Int.random(in: 0...bytes.count, using: &random)
            let range = Int.random(in: 0...end, using: &random)..<end
            let octet = Self.octets.randomElement(using: &random) ?? 0
            let found = range.first { bytes[$0] == octet }
            #expect(bytes.span.firstIndex(of: octet, in: range) == found ?? end)
            #expect(bytes.span.contains(octet, in: range) == (found != nil))
            let control = range.first { bytes[$0] < 0x20 || bytes[$0] == 0x7F }
            #expect(bytes.span.firstControl(in: range) == control ?? end)
        }
    }

    @Test func `knows every control character at every place, and no other octet`() {
        for octet in UInt8.min...UInt8.max {
            let isControl = octet < 0x20 || octet == 0x7F
            for place in 0..<20 {
                var bytes = [UInt8](repeating: 0x80, count: 20)
                bytes[place] = octet
                #expect(bytes.span.firstControl(in: 0..<20) == (isControl ? place : 20))
            }
        }
    }

    @Test func `compares with texts to the last octet, letters in either case where asked`() {
        func equal(_ octets: String, _ text: StaticString) -> Bool { Array(octets.utf8).span.equals(text) }
        func equalIgnoringCase(_ octets: String, _ text: StaticString) -> Bool {
            Array(octets.utf8).span.equalsIgnoringCase(text)
        }
        #expect(equal("GET", "GET"))
        for octets in ["get", "GE", "GETT", "", "GE\0"] { #expect(!equal(octets, "GET")) }
        for octets in ["sec-websocket-key", "Sec-WebSocket-Key"] {
            #expect(equalIgnoringCase(octets, "sec-websocket-key"))
        }
        // Octets that differ by the bit that letters' cases differ by.
        for (octets, text): (String, StaticString) in [("\ra", "-a"), ("@", "`"), ("[", "{"), ("_", "\u{7F}")] {
            #expect(!equalIgnoringCase(octets, text))
        }
    }
}
