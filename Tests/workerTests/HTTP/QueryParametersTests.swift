import Shared
import Testing

@testable import worker

@Suite struct `Query parameters` {
    func first(_ query: String, _ name: StaticString = "room") -> String? {
        QueryParameters(Array(query.utf8)).first(name).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(arguments: [
        ("room=a", "a"), ("x=y&room=a", "a"), ("room=a&room=b", "a"), ("room=", ""), ("room", ""), ("room&room=b", ""),
        ("room=a%20b+c", "a b c"), ("room=%2B", "+"), ("ro%6Fm=a", "a"), ("room=a=b", "a=b"), ("&&room=a&", "a"),
        ("room=a;b", "a;b"), ("room=%zz&room=b", "b"), ("room=%4&room=b", "b"), ("%=1&room=%C3%BC", "ü"),
        ("room=ü", "ü"), ("room=%26%3D", "&="),
    ])
    func `are decoded, the first of a name counting`(query: String, value: String) {
        #expect(first(query) == value)
    }

    @Test(arguments: ["", "&", "=", "=room", "Room=a", "rooms=a", "x=room=a", "a;room=b", "room=%", "room%=a"])
    func `are absent otherwise`(query: String) {
        #expect(first(query) == nil)
    }

    @Test func `never trap`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Query parameters: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let alphabet = Array("%%&&==+;room4F".utf8) + [0, 0xFF]
        for _ in 0..<5_000 {
            let count = Int.random(in: 0..<40, using: &random)
            let query = (0..<count).map { _ in alphabet.randomElement(using: &random) ?? 0 }
            _ = QueryParameters(query).first("room")
        }
    }
}

@Suite struct `Room ids` {
    @Test func `are 1 to 256 bytes`() {
        for (count, isValid) in [(0, false), (1, true), (255, true), (256, true), (257, false)] {
            #expect(isValidRoomID([UInt8](repeating: UInt8(ascii: "r"), count: count)) == isValid)
        }
        // Bytes, not characters.
        #expect(isValidRoomID(Array(String(repeating: "ü", count: 128).utf8)))
        #expect(!isValidRoomID(Array(String(repeating: "ü", count: 128).utf8) + [0x21]))
    }

    @Test func `hold no control character, and all others`() {
        for value in UInt32(0)...0x2FFF {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let isControl = value < 0x20 || (0x7F...0x9F).contains(value)
            #expect(isValidRoomID(Array("a\(Character(scalar))b".utf8)) == !isControl, "U+\(value)")
        }
        #expect(isValidRoomID(Array("😀 à / \" ;".utf8)))
    }

    @Test(
        arguments: [[0x80], [0xC3], [0xC0, 0xAF], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0x61, 0xFF]]
            as [[UInt8]])
    func `are UTF-8`(bytes: [UInt8]) {
        #expect(!isValidRoomID(bytes))
    }
}
