import Foundation
import Shared
import Testing

@testable import worker

private func senderID(_ text: String) -> String? {
    readSenderID(Array(text.utf8).span).map { String(decoding: $0, as: UTF8.self) }
}

@Suite struct `Senders' ids` {
    @Test(arguments: [
        (#"{"from":"a"}"#, "a"), (#" { "id" : 1 , "from" : "a" } "#, "a"), ("\t\r\n{\"from\":\"ü\"}\n", "ü"),
        (#"{"from":"a","from":"b"}"#, "b"), (#"{"from":"a","from":null}"#, "a"), (#"{"fr\u006Fm":"a"}"#, "a"),
        (#"{"from":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}"#, "\"\\/\u{8}\u{C}\n\r\té😀"),
        (#"{"from":"\ud83d"}"#, "\u{FFFD}"), (#"{"from":"\ude00\ud83dx"}"#, "\u{FFFD}\u{FFFD}x"),
        (#"{"from":"\ud83d\ud83d\ude00"}"#, "\u{FFFD}😀"), (#"{"from":"\u0000"}"#, "\0"),
        (#"{"payload":{"from":"x","a":[[],{},[{"b":[1,-2.5e+3,true,false,null]}]]},"from":"a"}"#, "a"),
    ])
    func `are read from the field 'from'`(text: String, id: String) {
        #expect(senderID(text) == id)
    }

    @Test(arguments: [
        "", " ", "{", "{}", "[]", "null", #""from""#, #"["from"]"#, #"{"from":""}"#, #"{"from":1}"#, #"{"from":null}"#,
        #"{"from":["a"]}"#, #"{"from":{"from":"a"}}"#, #"{"from":true}"#, #"{"From":"a"}"#, #"{"x":{"from":"a"}}"#,
        #"{"from":"a""#, #"{"from":"a"}}"#, #"{"from":"a"},"#, #"{"from":"a",}"#, #"{,"from":"a"}"#, #"{"from" "a"}"#,
        #"{"from":"a"}{"from":"b"}"#, #"{"from":"a" "b":1}"#, #"{from:"a"}"#, #"{'from':'a'}"#, #"{"from":"a"} //"#,
        #"{"from":"\x"}"#, #"{"from":"\u12"}"#, #"{"from":"\u12g4"}"#, "{\"from\":\"a\nb\"}", #"{"from":"a","x":01}"#,
        #"{"from":"a","x":1.}"#, #"{"from":"a","x":.1}"#, #"{"from":"a","x":1e}"#, #"{"from":"a","x":-}"#,
        #"{"from":"a","x":[1,]}"#, #"{"from":"a","x":[,]}"#, #"{"from":"a","x":[}]}"#, #"{"from":"a","x":{1:2}}"#,
        #"{"from":"a","x":nul}"#, #"{"from":"a","x":NaN}"#, #"{"from":"a","x":tru"#, "\u{FEFF}{\"from\":\"a\"}",
        "KV{\"from\":\"a\"}", #"{"from":"a"}"# + "\0",
    ])
    func `are read from nothing else`(text: String) {
        #expect(senderID(text) == nil)
    }

    @Test func `are at most 256 bytes, however escaped`() {
        for (unit, bytes) in [("x", 1), ("ü", 2), (#"\u0078"#, 1), (#"\u00fc"#, 2), (#"\ud83d\ude00"#, 4)] {
            let fitting = 256 / bytes
            #expect(senderID(#"{"from":"\#(String(repeating: unit, count: fitting))"}"#)?.utf8.count == 256)
            #expect(senderID(#"{"from":"\#(String(repeating: unit, count: fitting + 1))"}"#) == nil)
        }
    }

    @Test func `are not read from what is not UTF-8`() {
        for garbage: [UInt8] in [[0xFF], [0xC3], [0xED, 0xA0, 0x80], [0xC0, 0x80]] {
            #expect(readSenderID((Array(#"{"from":"a"#.utf8) + garbage + Array(#""}"#.utf8)).span) == nil)
        }
        let utf16: [UInt8] = #"{"from":"a"}"#.utf8.flatMap { [$0, UInt8(0)] }
        #expect(readSenderID(utf16.span) == nil)
    }

    @Test func `are read at every truncation of a message as of none`() {
        let bytes = Array(#"{"id":"\u00e9","n":[1.5e-7,{"a":null}],"from":"peer","payload":{"x":[true]}}"#.utf8)
        for end in 0..<bytes.count { #expect(readSenderID(bytes.span.extracting(0..<end)) == nil) }
        #expect(readSenderID(bytes.span) == Array("peer".utf8))
    }

    @Test func `are found within the first 16 KiB of a long message, whatever follows`() {
        let limit = Limits.senderSearchBytesMax
        func message(_ padding: Int, _ rest: String) -> [UInt8] {
            let head = #"{"a":""# + String(repeating: "x", count: padding) + #"","from":"peer""#
            return Array((head + rest).utf8)
        }
        let overhead = message(0, "").count
        for rest in ["}", ",", ",\"b\":{", "\u{1}", "}}}"] {
            let long = rest + String(repeating: "z", count: limit)
            #expect(readSenderID(message(limit - overhead, long).span) == Array("peer".utf8), "\(rest)")
            // Its last byte, the quote, is one too far.
            #expect(readSenderID(message(limit - overhead + 1, long).span) == nil)
        }
        // A message of the limit's size is read whole: it must be JSON.
        #expect(readSenderID(message(limit - overhead - 1, "}").span) == Array("peer".utf8))
        #expect(readSenderID(message(limit - overhead - 2, "}z").span) == nil)
        // The last one counts, as far as is read; what is no UTF-8 is no id.
        let twice = Array(#"{"from":"one","from":"two","b":""#.utf8) + [UInt8](repeating: 0x78, count: limit)
        #expect(readSenderID(twice.span) == Array("two".utf8))
        let garbage = Array(#"{"from":"a"#.utf8) + [0xFF] + Array(#"","b":""#.utf8)
        #expect(readSenderID((garbage + [UInt8](repeating: 0x78, count: limit)).span) == nil)
    }

    @Test func `are found under their name however that is escaped, and under no other`() {
        let escapes = ["from", #"\u0066rom"#, #"fr\u006Fm"#, #"\u0066\u0072\u006f\u006d"#]
        for name in escapes { #expect(readSenderID(Array(#"{"\#(name)":"peer"}"#.utf8).span) == Array("peer".utf8)) }
        let others = [
            #"\u0066ro"#, #"\u0066romm"#, #"\u0166rom"#, #"fr\nm"#, #"\u0066rox"#, "From", #"fro\u006d\u0000"#,
        ]
        for name in others { #expect(readSenderID(Array(#"{"\#(name)":"peer"}"#.utf8).span) == nil, "\(name)") }
    }

    @Test func `hang on nesting neither the stack nor the process`() {
        func isObject(_ text: String) -> Bool { readJSONMembers(Array(text.utf8).span, "from")?[0] != nil }
        func nested(_ depth: Int, _ open: String, _ close: String) -> String {
            let value = String(repeating: open, count: depth) + "1" + String(repeating: close, count: depth)
            return #"{"x":\#(value),"from":"a"}"#
        }
        #expect(isObject(nested(9_999, "[", "]")))
        #expect(isObject(nested(9_999, #"{"y":"#, "}")))
        #expect(!isObject(nested(10_000, "[", "]")))
        #expect(!isObject(nested(100_000, "[", "]")))
        for text in ["[", "{\"x\":", "{\"x\":[", "{"] {
            #expect(senderID(String(repeating: text, count: 100_000)) == nil)
        }
    }

    @Test func `take time in proportion to the message`() {
        // A quadratic reader would need minutes.
        let big = #"{"a":"\#(String(repeating: "x", count: 4 << 20))","from":"p"}"#
        #expect(readJSONMembers(Array(big.utf8).span, "from")?[0] != nil)
        let many = "{" + String(repeating: #""f":1,"#, count: 200_000) + #""from":"p"}"#
        #expect(readJSONMembers(Array(many.utf8).span, "from")?[0] != nil)
    }

    /// Foundation's parser lets a comma stand before a closing bracket, which RFC 8259 does not (checked above), and
    /// refuses numbers beyond a Double, which is no question of grammar. On all else the two must agree.
    @Test func `are the same that Foundation reads, whatever the mutation`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Senders' ids: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let good = Array(#"{"id":"\u00e9\n","n":[1.5e-7,-0,{"a":null}],"from":"peer","p":{"x":[true,false]}}"#.utf8)
        let special = Array("{}[]\",:\\u0123eE+-. \n".utf8) + [0, 0x1F, 0x80, 0xC3, 0xFF]
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch UInt8.random(in: 0..<3, using: &random) {
                case 0: bytes[index] = special.randomElement(using: &random) ?? 0
                case 1: bytes.remove(at: index)
                default: bytes.insert(special.randomElement(using: &random) ?? 0, at: index)
                }
            }
            let text = String(decoding: bytes, as: UTF8.self)
            if text.contains(/,\s*[\]}]/) || text.contains(/[eE]\+?\d{3}/) { continue }
            let isObject = readJSONMembers(bytes.span, "from") != nil
            if isObject { accepted += 1 }
            let object = try? JSONSerialization.jsonObject(with: Data(bytes))
            #expect(isObject == (object is [String: Any]), "seed \(seed): \(text.debugDescription)")
        }
        #expect(accepted > 100)
    }
}

@Suite struct `Leave notices` {
    func notice(_ id: [UInt8]) -> String {
        String(decoding: leaveNotice(peerID: id, unixMilliseconds: 1_700_000_000_123), as: UTF8.self)
    }

    @Test func `are the wire protocol's, byte for byte`() {
        #expect(
            notice(Array("peer-1".utf8))
                == #"{"id":"","type":"session:leave","from":"peer-1","ts":1700000000123,"#
                + #""nonce":0,"payload":null,"sig":null}"#)
    }

    @Test func `escape what must be, and nothing else`() {
        var escaped: [UInt8] = []
        appendEscapedJSON(Array("\"\\/<>&\u{0}\u{8}\t\n\u{C}\r\u{1F}\u{7F}é😀\u{2028}".utf8), to: &escaped)
        let expected = #"\"\\/<>&\u0000\u0008\t\n\u000c\r\u001f"# + "\u{7F}é😀\u{2028}"
        #expect(String(decoding: escaped, as: UTF8.self) == expected)
    }

    @Test func `can't be forged, nor broken by what is not UTF-8`() throws {
        let forging = #"x","type":"session:end","from":"y"#
        let ids: [[UInt8]] = [Array(forging.utf8), [0x61, 0xFF, 0x0A], [0xC3], (0...255).map { UInt8($0) }]
        for id in ids {
            let text = notice(id)
            #expect(!text.utf8.contains(0x0A))
            let object = try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
            #expect(object["type"] as? String == "session:leave")
            #expect(object["from"] as? String == String(decoding: id, as: UTF8.self))
            let repaired = String(decoding: id, as: UTF8.self)
            #expect(senderID(text) == (repaired.utf8.count > 256 ? nil : repaired))
        }
    }
}
