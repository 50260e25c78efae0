import Testing

@testable import loadtest

@Suite struct `A message of a soak` {
    private let sender = SoakSender(seed: 1, id: 6, letter: 0x62, lengthMax: 70_000)

    /// The first so many data messages, and as much voice.
    private func messages(_ count: UInt32) -> [SoakMessage] {
        (0..<count).flatMap { [SoakMessage.data(sender, $0), SoakMessage.voice(sender, $0)] }
    }

    private func matches(_ message: SoakMessage, _ bytes: [UInt8], at start: Int = 0) -> Bool {
        message.matches(bytes.span, at: start)
    }

    private func number(_ text: String, at start: Int = 0) -> UInt64? {
        SoakMessage.number(Array(text.utf8).span, at: start, digits: 8)
    }

    @Test func `is as long as it says, and matches itself only`() {
        let messages = messages(100)
        for (index, message) in messages.enumerated() where message.count < 5000 {
            let payload = message.payload(time: 77)
            #expect(payload.count == message.count)
            #expect(matches(message, payload))
            #expect(matches(message, [1, 2] + payload + [3], at: 2))
            #expect(!matches(message, payload.dropLast()))
            // Two tiny ones may be alike; two others never.
            for other in messages.dropFirst(index + 1) where min(other.count, message.count) > 17 {
                #expect(!matches(other, payload))
            }
        }
    }

    @Test func `does not match with any byte changed, but for voice's time`() {
        for message in messages(40) where message.count < 1000 {
            let payload = message.payload(time: 77)
            for index in payload.indices {
                var wrong = payload
                wrong[index] ^= 1
                let isTime = message.kind == .voice && (18..<34).contains(index)
                #expect(matches(message, wrong) == isTime, "byte \(index) of \(message)")
            }
        }
    }

    @Test func `is UTF-8 where it is text, and has no line feed where it may be joined`() {
        for message in messages(400) where message.kind != .octets && message.kind != .voice {
            let payload = message.payload()
            #expect(!payload.contains(0x0A))
            if message.kind != .joinable { #expect(String(validating: payload, as: UTF8.self) != nil) }
            #expect(!payload.starts(with: [0x4B, 0x56]))
        }
    }

    @Test func `is of every kind and of lengths up to the limit`() {
        let messages = messages(3000)
        for kind in [SoakMessage.Kind.tiny, .text, .joinable, .octets, .voice] {
            #expect(messages.contains { $0.kind == kind })
        }
        #expect(messages.contains { $0.count == 1 })
        #expect(messages.contains { $0.count > 69_900 })
        #expect(messages.allSatisfy { $0.count <= 70_000 })
    }

    @Test func `begins with a name of its own for every other sender`() {
        let named = SoakSender(seed: 1, id: 7, letter: 0x62, lengthMax: 70_000)
        #expect(SoakMessage.data(named, 0).payload() == Array(#"{"from":"self-00000007"}"#.utf8))
        #expect(named.name(dataSent: 0) == "peer-00000007")
        #expect(named.name(dataSent: 1) == "self-00000007")
        #expect(sender.name(dataSent: 1) == "peer-00000006")
    }

    @Test func `numbers are read as they are written, and nothing else is a number`() {
        #expect(number("x00c0ffee", at: 1) == 0xC0FFEE)
        #expect(number("00c0ffee", at: 1) == nil)
        for wrong in ["00C0ffee", "0000000g", "000000/0", "0000000:", "0000000`"] {
            #expect(number(wrong) == nil)
        }
    }
}
