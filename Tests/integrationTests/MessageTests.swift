import NIOWebSocket
import Testing

@Suite struct `Messages` {
    /// A room with its host and guests.
    private func room(_ relay: Relay, guests: Int) async throws -> [WebSocketClient] {
        let session = Session()
        var members = [try await relay.join(session.host())]
        for index in 0..<guests { members.append(try await relay.join(session.guest("guest\(index)"))) }
        return members
    }

    @Test func `reach every other member, as binary, and nobody else`() async throws {
        try await Relay.run(workers: 2) { relay in
            let members = try await room(relay, guests: 3)
            let strangers = try await room(relay, guests: 1)
            for (index, member) in members.enumerated() {
                member.send("text \(index)")
                member.send(binary: Array("binary \(index)".utf8))
                member.send(binary: [0x4B, 0x56, UInt8(index)])
            }
            for (index, member) in members.enumerated() {
                let data = try await member.data(6)
                let expected = members.indices.filter { $0 != index }.flatMap { ["text \($0)", "binary \($0)"] }
                #expect(data.sorted() == expected.sorted())
                try await eventually("voice") { member.voice.count == 3 }
                #expect(member.voice.map { Int($0[2]) }.sorted() == members.indices.filter { $0 != index })
                #expect(member.messages.allSatisfy { $0.isBinary })
                #expect(member.oddities == [])
            }
            strangers[0].send("between us")
            #expect(try await strangers[1].data(1) == ["between us"])
            #expect(strangers[0].messages.isEmpty)
        }
    }

    @Test func `of one sender keep their order, voice among voice and data among data`() async throws {
        try await Relay.run(workers: 2) { relay in
            let members = try await room(relay, guests: 3)
            for index in 0..<400 {
                for (sender, member) in members.enumerated() {
                    member.send("\(sender) \(index)")
                    if index % 10 == 0 { member.send(binary: [0x4B, 0x56, UInt8(sender), UInt8(index / 10)]) }
                }
            }
            for (receiver, member) in members.enumerated() {
                let data = try await member.data(1200)
                try await eventually("voice") { member.voice.count == 120 }
                for sender in members.indices where sender != receiver {
                    #expect(data.filter { $0.hasPrefix("\(sender) ") } == (0..<400).map { "\(sender) \($0)" })
                    #expect(member.voice.filter { $0[2] == sender }.map { $0[3] } == (0..<40).map { UInt8($0) })
                }
                #expect(data.count == 1200)
            }
        }
    }

    @Test func `in fragments arrive whole, in one frame`() async throws {
        try await Relay.run(workers: 1) { relay in
            let members = try await room(relay, guests: 1)
            let sender = members[1]
            sender.write(.text, Array("he".utf8), isFinal: false)
            sender.ping([1])
            sender.write(.continuation, [], isFinal: false)
            sender.write(.continuation, Array("llo ".utf8), isFinal: false)
            // A character cut in two.
            sender.write(.continuation, [0xC3], isFinal: false)
            sender.write(.continuation, [0xBC])
            // Voice by its first two bytes, wherever they are cut.
            sender.write(.binary, [0x4B], isFinal: false)
            sender.write(.continuation, [0x56, 7])
            #expect(try await members[0].data(1) == ["hello ü"])
            try await eventually("voice") { members[0].voice == [[0x4B, 0x56, 7]] }
            try await eventually("a pong") { sender.pongs == [[1]] }
            #expect(members[0].oddities == [])
        }
    }

    @Test func `of any length up to the limit pass unchanged`() async throws {
        let max = 100_000
        try await Relay.run(workers: 1, ["RELAY_MAX_MESSAGE_SIZE": "\(max)"]) { relay in
            let members = try await room(relay, guests: 1)
            var random = SplitMix64()
            for length in [1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128, 65_535, 65_536, 65_537, max - 1, max] {
                // Without the byte that separates, so that what is joined could be told apart.
                let bytes = [0x7B] + random.bytes(length - 1).map { $0 == 0x0A ? 0x0B : $0 }
                let count = members[0].messages.count
                members[1].send(binary: bytes)
                try await eventually("a message of \(length) bytes, seed \(random.seed)") {
                    members[0].messages.count > count
                }
                #expect(members[0].messages.last?.bytes == bytes, "\(length) bytes, seed \(random.seed)")
            }
        }
    }

    @Test func `over the limit close their sender with 1009, and nobody gets them`() async throws {
        try await Relay.run(workers: 1, ["RELAY_MAX_MESSAGE_SIZE": "2000"]) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let whole = [UInt8](repeating: 0x61, count: 2001)
            let cases: [[UInt8]] = [
                RawFrame.client(0x82, whole), RawFrame.client(0x81, whole),
                // In fragments that are too much only together, an empty one among them.
                RawFrame.client(0x02, Array(whole.prefix(1000))) + RawFrame.client(0x00, [])
                    + RawFrame.client(0x80, Array(whole.prefix(1001))),
                // By what is announced alone.
                [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4],
                [0x82, 0xFE, 0x07, 0xD1, 1, 2, 3, 4],
            ]
            for (index, bytes) in cases.enumerated() {
                let guest = try await relay.rawJoin(session.guest("guest\(index)"))
                try await guest.send(bytes)
                #expect(try await guest.closeCode() == 1009)
                #expect(try await host.data(index + 1).last?.contains("guest\(index)") == true)
            }
            #expect(host.data.count == cases.count)
        }
    }

    @Test func `that are empty, or hold the byte that separates, pass alone`() async throws {
        try await Relay.run(workers: 1) { relay in
            let members = try await room(relay, guests: 1)
            let sent: [[UInt8]] = [
                [], [0x0A], Array("a\nb".utf8), [], Array("\n\n".utf8), [0x4B], [0x56, 0x4B], [0x4B, 0x57],
            ]
            for bytes in sent { members[1].send(binary: bytes) }
            try await eventually("all of them") {
                members[0].messages.count >= 6 && members[0].messages.last?.bytes == [0x4B, 0x57]
                    || members[0].data.last == "KW"
            }
            // The last three are ordinary data, which may be joined; the others never are.
            #expect(Array(members[0].messages.map(\.bytes).prefix(5)) == Array(sent.prefix(5)))
            #expect(members[0].data.suffix(3) == ["K", "VK", "KW"])
        }
    }

    @Test func `pings are answered with their payload, in order`() async throws {
        try await Relay.run(workers: 1) { relay in
            let members = try await room(relay, guests: 1)
            let payloads: [[UInt8]] = [[], [0], Array("ping".utf8), [UInt8](repeating: 9, count: 125)]
            for payload in payloads {
                members[1].ping(payload)
                members[1].write(.pong, payload)
            }
            try await eventually("pongs") { members[1].pongs == payloads }
            members[1].send("done")
            #expect(try await members[0].data(1) == ["done"])
            #expect(members[0].messages.count == 1)
            #expect(members[0].pongs == [])
        }
    }

    @Test func `reach who joined before they were sent, and nobody who joins later`() async throws {
        try await Relay.run(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            for index in 0..<30 {
                host.send("before \(index)")
                let guest = try await relay.join(session.guest("guest\(index)"))
                // Its 101 is there: this one is for it.
                host.send("after \(index)")
                let first = try await guest.data(1)[0]
                #expect(first == "after \(index)" || first == "before \(index)")
                try await eventually("the message behind the 101") { guest.data.contains("after \(index)") }
                guest.abort()
                try await eventually("its leave") { host.data.count == index + 1 }
            }
        }
    }
}
