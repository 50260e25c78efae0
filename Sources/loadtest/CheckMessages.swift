// What members of a room say to one another: every kind of message, from hosts and from guests.

extension CheckRun {
    func checkMessages() {
        let steps: [(String, (CheckRoom, Int, CheckMember) -> Void)] = [
            ("text messages arrive as binary", sayText),
            ("binary messages arrive", sayBinary),
            ("voice arrives, in order", sayVoice),
            ("voice and data mixed: each kind in order", sayMixed),
            ("empty messages, line feeds, lengths at frame limits", sayOdd),
            ("fragmented messages with a ping between arrive whole", sayFragments),
        ]
        for (name, step) in steps {
            property(name) { property, deadline in
                for room in rooms {
                    for (index, member) in room.members.enumerated() { step(room, index, member) }
                }
                settle(&property, deadline)
                if name.hasPrefix("fragmented") { collectPongs(&property, deadline) }
            }
        }
        property("large messages from hosts") { property, _ in sayLarge(&property, speaker: 0) }
        property("large messages from guests") { property, _ in sayLarge(&property, speaker: options.guests) }
        property("pings are answered with the same payload") { property, deadline in checkPings(&property, deadline) }
    }

    /// A single-line JSON envelope, different from every other one in its room.
    static func envelope(_ kind: String, _ member: Int, _ number: Int, pad: Int = 0) -> [UInt8] {
        let padding = String(repeating: "x", count: pad)
        let text =
            "{\"id\":\"\(kind)-\(member)-\(number)\",\"type\":\"check\",\"from\":\"m\(member)\",\"nonce\":\(number),"
            + "\"payload\":\"é\(padding)\"}"
        return Array(text.utf8)
    }

    static func voice(_ kind: String, _ member: Int, _ number: Int) -> [UInt8] {
        // Line feeds within voice are sound like any other byte.
        [0x4B, 0x56] + Array("\(kind)-\(member)-\(number)\n".utf8)
            + [UInt8](repeating: UInt8(ascii: "v"), count: 60 + number)
    }

    private func sayText(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        for number in 0..<10 { room.say(Self.envelope("text", index, number), by: member, as: .text) }
    }

    private func sayBinary(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        for number in 0..<10 {
            var payload = Self.envelope("binary", index, number) + [0, 0xFF, 0xC0, 0x80]
            payload += (0...255).filter { $0 != 0x0A }
            room.say(payload, by: member)
        }
    }

    /// At most 64 voice frames may wait for a member; a burst stays below that whatever the relay's pace.
    private var voiceBurst: Int { max(1, min(10, 60 / options.guests)) }

    private func sayVoice(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        for number in 0..<voiceBurst {
            room.say(
                Self.voice("voice", index, number), by: member,
                as: [Frame(opcode: .binary, payload: Self.voice("voice", index, number))])
        }
    }

    /// One write with all frames, so that they come to the relay together.
    private func sayMixed(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        var bytes: [UInt8] = []
        for number in 0..<voiceBurst {
            for payload in [
                Self.envelope("mixed", index, number, pad: number * 50), Self.voice("mixed", index, number),
            ] {
                room.expect(.exactly(payload), from: member)
                bytes += Frame(opcode: .binary, payload: payload).encoded
            }
        }
        member.send(bytes: bytes)
    }

    private func sayOdd(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        // Messages that would look the same from everybody come from one member.
        let alone = index == room.index % room.members.count
        if alone { room.say([], by: member) }
        room.say(Self.envelope("before", index, 0), by: member)
        if alone { room.say(Array("\n".utf8), by: member, as: .text) }
        room.say(Array("two\nlines of \(index)".utf8), by: member, as: .text)
        room.say(Array("ends with a line feed \(index)\n".utf8), by: member)
        if alone { room.say([], by: member, as: .text) }
        room.say(Self.envelope("after", index, 0), by: member)
        // A voice message by its first bytes, though sent as text.
        room.say(Array("KV as text \(index)".utf8), by: member, as: .text)
        if alone { for short in ["KV", "K", "V"] { room.say(Array(short.utf8), by: member) } }
        for length in [124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537] where length < 1000 || index < 2 {
            var payload = Array("\(index) \(length) ".utf8)
            payload += [UInt8](repeating: UInt8(ascii: "l"), count: length - payload.count)
            room.say(payload, by: member)
        }
    }

    private func sayFragments(_ room: CheckRoom, _ index: Int, _ member: CheckMember) {
        for number in 0..<2 {
            // é is two bytes: one of the cuts goes through it, which is right (RFC 6455, section 5.6).
            let payload = Self.envelope("fragments", index, number, pad: 300 * number)
            let cut = (payload.firstIndex(of: 0xC3) ?? 0) + 1
            let frames = [
                Frame(opcode: number == 0 ? .text : .binary, payload: Array(payload[..<cut]), final: false),
                Frame(opcode: .ping, payload: Self.fragmentPing),
                Frame(opcode: .continuation, payload: [], final: false),
                Frame(opcode: .continuation, payload: Array(payload[cut..<cut + 2]), final: false),
                Frame(opcode: .continuation, payload: Array(payload[(cut + 2)...])),
            ]
            room.say(payload, by: member, as: frames)
        }
        let voice = Self.voice("fragments", index, 0)
        let frames = [
            Frame(opcode: .binary, payload: [voice[0]], final: false),
            Frame(opcode: .continuation, payload: Array(voice[1...])),
        ]
        room.say(voice, by: member, as: frames)
    }

    private static let fragmentPing = Array("between fragments".utf8)

    /// One pong for each of the two pings that each member sent.
    private func collectPongs(_ property: inout Property, _ deadline: Deadline) {
        let members = members
        _ = loop.run(members, until: deadline) { members.allSatisfy { $0.pongs.count >= 2 || $0.ended != nil } }
        for member in members {
            let got = member.takePongs()
            property.expect(
                got == [Self.fragmentPing, Self.fragmentPing],
                "\(member.name): expected 2 pongs with \(Describe.bytes(Self.fragmentPing)), got \(got.map { Describe.bytes($0) })"
            )
        }
    }

    /// Eight rooms at a time, each eight with a deadline of its own: enough to be large, not enough to be unkind.
    private func sayLarge(_ property: inout Property, speaker: Int) {
        for start in stride(from: 0, to: rooms.count, by: 8) {
            let group = rooms[start..<min(start + 8, rooms.count)]
            for room in group where room.members.indices.contains(speaker) {
                let envelope = Self.envelope("large", speaker, 0)
                let pad = options.maxMessage - envelope.count - room.index % 2
                room.say(Self.envelope("large", speaker, 0, pad: pad), by: room.members[speaker], as: .text)
            }
            settle(&property, Deadline(seconds: options.timeout), group.flatMap { $0.members })
        }
    }

    private func checkPings(_ property: inout Property, _ deadline: Deadline) {
        let members = members
        let payloads = [[], Array("ping".utf8), [UInt8](repeating: 0x0A, count: 125)]
        for member in members {
            // An unsolicited pong asks for nothing (RFC 6455, section 5.5.3).
            member.send(Frame(opcode: .pong, payload: Array("unasked".utf8)))
            for payload in payloads { member.send(Frame(opcode: .ping, payload: payload)) }
        }
        _ = loop.run(members, until: deadline) { members.allSatisfy { $0.pongs.count >= 3 || $0.ended != nil } }
        for member in members {
            let got = member.takePongs()
            property.expect(
                got == payloads,
                "\(member.name): expected pongs of \(payloads.map(\.count)) bytes, got \(got.map { Describe.bytes($0) })"
            )
        }
        settle(&property, deadline)
    }
}
