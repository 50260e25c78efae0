import Testing

@Suite struct `A slow reader` {
    /// A room of a sender, one who reads and one who does not.
    private func room(_ relay: Relay) async throws -> (sender: WebSocketClient, quick: WebSocketClient, slow: RawClient)
    {
        let session = Session()
        let sender = try await relay.join(session.host())
        let quick = try await relay.join(session.guest("quick"))
        let slow = try await relay.rawJoin(session.guest("slow"), receiveBuffer: 8192)
        return (sender, quick, slow)
    }

    /// Far more than the kernel holds for a socket that is not read.
    private static let blocking = (0..<32).map { "\($0) " + String(repeating: "x", count: 16_384) }

    @Test func `loses voice, the oldest first, and never data`() async throws {
        try await Relay.run(workers: 1) { relay in
            let (sender, quick, slow) = try await room(relay)
            for text in Self.blocking { sender.send(text) }
            _ = try await quick.data(Self.blocking.count)
            // From here on everything waits. Paced by who reads, so that he misses none.
            let frames = 2000
            for index in 0..<frames {
                sender.send(binary: [0x4B, 0x56] + Array("\(index)".utf8) + [UInt8](repeating: 0, count: 60))
                if index % 50 == 49 { try await eventually("voice") { quick.voice.count == index + 1 } }
            }
            sender.send("the end")
            #expect(try await quick.data(Self.blocking.count + 1).last == "the end")

            var data: [String] = []
            var voice: [Int] = []
            var dataBeforeVoice = 0
            while data.last != "the end" {
                let frame = try await slow.frame()
                #expect(frame.first == 0x82)
                if frame.payload.starts(with: [0x4B, 0x56]) {
                    voice.append(
                        try #require(Int(String(decoding: frame.payload[2...].prefix { $0 != 0 }, as: UTF8.self))))
                    if voice.last == frames - 1 { dataBeforeVoice = data.count }
                } else {
                    data += frame.payload.split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
                }
            }
            #expect(data == Self.blocking + ["the end"])
            // The 64 newest are there, in order; before them at most what had left already.
            #expect(Array(voice.suffix(64)) == Array((frames - 64)..<frames))
            #expect(voice == voice.sorted())
            #expect(voice.count < 64 + frames / 2)
            // Fresh sound goes ahead of data that waits.
            #expect(dataBeforeVoice < Self.blocking.count)
        }
    }

    @Test func `is closed with 1013, or within a frame, when too much waits, and nobody is held up`() async throws {
        try await Relay.run(
            workers: 1, ["RELAY_MAX_BACKLOG": "200000", "RELAY_MAX_MESSAGE_SIZE": "100000"]
        ) { relay in
            let (sender, quick, slow) = try await room(relay)
            var sent: [String] = []
            // Until the relay says that one has left: 25 MB would be far too much.
            while !quick.data.contains(where: { $0.contains("session:leave") }) {
                try #require(sent.count < 1000)
                sent.append("\(sent.count) " + String(repeating: "y", count: 25_000))
                sender.send(sent[sent.count - 1])
                _ = try await quick.data(sent.count)
            }
            sender.send("after")
            try await eventually("what is said afterwards") { quick.data.last == "after" }
            let heard = quick.data.filter { !$0.contains("session:leave") }
            #expect(heard == sent + ["after"])
            #expect(quick.data.count == heard.count + 1)
            #expect(sender.data.count == 1)

            // What the slow one did get is the beginning, without a gap; and then why it ended, if a frame was not cut.
            var data: [String] = []
            while let frame = try? await slow.frame() {
                if frame.opcode == 8 {
                    #expect(frame.closeCode == 1013)
                    break
                }
                data += frame.payload.split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
            }
            #expect(data == Array(sent.prefix(data.count)))
            #expect(data.count < sent.count)
            let rest = try await slow.rest()
            #expect(rest.count < 25_100)
        }
    }

    @Test func `gets all data in order once it reads again`() async throws {
        try await Relay.run(workers: 1, ["RELAY_MAX_BACKLOG": "16000000"]) { relay in
            let session = Session()
            let sender = try await relay.join(session.host())
            let slow = try await relay.join(session.guest("slow"), receiveBuffer: 8192)
            try await slow.reads(false)
            let sent = (0..<6000).map { "\($0) " + String(repeating: "z", count: $0 % 300) }
            for text in sent { sender.send(text) }
            sender.ping([1])
            try await eventually("all to be taken by the relay") { sender.pongs == [[1]] }
            try await slow.reads(true)
            #expect(try await slow.data(sent.count) == sent)
            #expect(slow.oddities == [])
            // Joined messages stay within 64 KiB.
            #expect(slow.messages.allSatisfy { $0.bytes.count <= 65_536 })
        }
    }

    @Test func `is still heard, and its pings are answered inside no frame`() async throws {
        try await Relay.run(workers: 1) { relay in
            let (sender, quick, slow) = try await room(relay)
            for text in Self.blocking { sender.send(text) }
            _ = try await quick.data(Self.blocking.count)
            try await slow.send(RawFrame.client(text: "I hear nothing") + RawFrame.client(0x89, [5]))
            #expect(try await sender.data(1) == ["I hear nothing"])
            // Its pong goes ahead of what waits, and inside no frame.
            var frames: [RawFrame] = []
            while frames.count < Self.blocking.count + 1 { frames.append(try await slow.frame()) }
            #expect(frames.filter { $0.opcode == 10 }.map(\.payload) == [[5]])
            let data = frames.filter { $0.opcode == 2 }.map { String(decoding: $0.payload, as: UTF8.self) }
            #expect(data == Self.blocking)
        }
    }

    /// wire-protocol.md, Liveness: TCP_USER_TIMEOUT.
    @Test func `is closed for timeout when its window stays shut for 60 s, though it is heard`() async throws {
        try await Relay.runAdmin(workers: 1) { relay, admin in
            let (sender, quick, slow) = try await room(relay)
            for text in Self.blocking { sender.send(text) }
            _ = try await quick.data(Self.blocking.count)
            // None of the three is silent.
            let clock = ContinuousClock()
            var heard = clock.now
            try await eventually("its end", seconds: 60 + 3 * patienceSeconds) {
                if clock.now - heard > .seconds(5) {
                    heard = clock.now
                    for client in [sender, quick] { client.ping([]) }
                    try await slow.send(RawFrame.client(0x8A, []))
                }
                return sender.data.contains { $0.contains("session:leave") }
            }
            #expect(sender.data.contains { $0.contains(#""from":"slow""#) })
            let metrics = try await admin.metrics()
            #expect(metrics[#"relay_closes_total{reason="timeout"}"#] == 1)
            #expect(metrics[#"relay_closes_total{reason="socket_error"}"#] == 0)
            #expect(quick.isOpen)
        }
    }
}
