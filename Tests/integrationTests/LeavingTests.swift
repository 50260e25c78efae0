import Foundation
import Testing

@Suite struct `Leaving` {
    /// The text of a leave notice for a peer id as it stands in JSON, with its time.
    private func notice(_ id: String, _ milliseconds: Int) -> String {
        #"{"id":"","type":"session:leave","from":"\#(id)","ts":\#(milliseconds),"nonce":0,"payload":null,"sig":null}"#
    }

    /// Checks a notice byte for byte but for its time, which must lie between two.
    private func check(_ text: String, _ id: String, after: Date) throws {
        let part = try #require(text.firstMatch(of: /"ts":(\d+),/))
        let milliseconds = try #require(Int(part.1))
        #expect(text == notice(id, milliseconds))
        let earliest = Int(after.timeIntervalSince1970 * 1000)
        #expect((earliest - 1000...Int(Date().timeIntervalSince1970 * 1000) + 1000).contains(milliseconds))
    }

    @Test func `is told to each of the others once, in exactly these bytes`() async throws {
        try await Relay.run { relay in
            let start = Date()
            let session = Session()
            let host = try await relay.join(session.host())
            let one = try await relay.join(session.guest("one"))
            let two = try await relay.join(session.guest("two"))
            two.send("last words")
            two.close(code: 1000)
            for member in [host, one] {
                let data = try await member.data(2)
                #expect(data[0] == "last words")
                try check(data[1], "two", after: start)
                #expect(member.messages.allSatisfy { $0.isBinary })
            }
            // Nothing else comes, and nothing went to the one who left.
            one.send("after")
            #expect(try await host.data(3).last == "after")
            #expect(one.data.count == 2)
            #expect(two.messages.isEmpty)
        }
    }

    @Test(arguments: [
        ("\"},{\"type\":\"forged", #"\"},{\"type\":\"forged"#), ("a\nb\r\tc", #"a\nb\r\tc"#),
        ("\u{0}\u{1F}", #"\u0000\u001f"#),
        (#"back\slash"#, #"back\\slash"#), ("ü😀/", "ü😀/"), ("\u{7F}\u{2028}", "\u{7F}\u{2028}"),
    ])
    func `escapes the peer's id`(id: String, escaped: String) async throws {
        try await Relay.run(workers: 1) { relay in
            let start = Date()
            let session = Session()
            let host = try await relay.join(session.host())
            try await relay.join(session.guest(id)).abort()
            let data = try await host.data(1)
            #expect(data.count == 1)
            try check(data[0], escaped, after: start)
            // And any JSON reader gets the id back.
            let object = try #require(JSONSerialization.jsonObject(with: Data(data[0].utf8)) as? [String: Any])
            #expect(object["from"] as? String == id)
        }
    }

    @Test(arguments: [
        // The first data message's `from` counts.
        ([#"{"from":"new"}"#], "new"), ([#"{"type":"x","from":"n\u0065w","payload":{"from":"y"}}"#], "new"),
        (["KV voice first", #"{"from":"new"}"#], "new"),
        // Only the first data message is looked at.
        ([#"{"from":"new"}"#, #"{"from":"newer"}"#], "new"), (["hello", #"{"from":"new"}"#], "token-id"),
        // Whatever is no text of 1 to 256 bytes changes nothing.
        ([#"{"from":""}"#], "token-id"), ([#"{"from":1}"#], "token-id"), ([#"["from"]"#], "token-id"),
        ([#"{"from":"new""#], "token-id"), ([#"{"x":{"from":"new"}}"#], "token-id"), ([""], "token-id"),
        ([#"{"from":"\#(String(repeating: "a", count: 256))"}"#], String(repeating: "a", count: 256)),
        ([#"{"from":"\#(String(repeating: "a", count: 257))"}"#], "token-id"),
    ])
    func `names the id that the first data message gave`(messages: [String], id: String) async throws {
        try await Relay.run(workers: 1) { relay in
            let start = Date()
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest("token-id"))
            for message in messages { guest.send(message) }
            guest.close(code: nil)
            let last = try await awaited("a leave notice") {
                host.data.last { $0.contains("session:leave") }
            }
            try check(last, id, after: start)
        }
    }

    @Test func `comes behind everything that was said before`() async throws {
        try await Relay.run(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            // Voice and data in one packet with the close frame, and then only the socket's end.
            for round in 0..<20 {
                let guest = try await relay.rawJoin(session.guest("guest\(round)"))
                var bytes: [UInt8] = []
                for index in 0..<20 { bytes += RawFrame.client(text: "\(index)") + RawFrame.client(text: "KV\(index)") }
                if round % 2 == 0 { bytes += RawFrame.client(0x88, [3, 232]) }
                try await guest.send(bytes)
                if round % 2 == 1 { guest.finish() }
                let count = (round + 1) * 21
                let data = try await host.data(count)
                #expect(data.count == count)
                #expect(Array(data.suffix(21).dropLast()) == (0..<20).map(String.init))
                #expect(data.last?.contains(#""from":"guest\#(round)""#) == true)
                #expect(host.voice.count == (round + 1) * 20)
                #expect(host.messages.last.map { !$0.isVoice } == true)
            }
        }
    }

    @Test func `is noticed however a connection ends`() async throws {
        try await Relay.run(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            for (index, end) in ["close", "end", "reset", "violation"].enumerated() {
                let guest = try await relay.rawJoin(session.guest(end))
                switch end {
                case "close": try await guest.send(RawFrame.client(0x88, []))
                case "end": guest.finish()
                case "reset": guest.reset()
                default: try await guest.send([0xFF, 0xFF])
                }
                #expect(try await host.data(index + 1).last?.contains(#""from":"\#(end)""#) == true)
            }
            #expect(host.data.count == 4)
        }
    }

    @Test func `takes one of two connections with the same id`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let one = try await relay.join(session.guest("same"))
            let two = try await relay.join(session.guest("same"))
            one.send("to both")
            #expect(try await two.data(1) == ["to both"])
            one.abort()
            #expect(try await two.data(2).count == 2)
            two.send("still here")
            #expect(try await host.data(3).last == "still here")
        }
    }
}
