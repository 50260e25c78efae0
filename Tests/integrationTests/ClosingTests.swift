import Testing

@Suite struct `Closing` {
    @Test func `echoes the peer's code, or none`() async throws {
        try await Relay.run(workers: 1) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            for (index, code) in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999, nil].enumerated() {
                let guest = try await relay.join(session.guest())
                guest.close(code: code)
                #expect(try await guest.ended() == .closed(code: code))
                _ = try await host.data(index + 1)
            }
            // A reason is no matter; what comes behind a close frame is not read.
            let guest = try await relay.rawJoin(session.guest())
            let frames = RawFrame.client(0x88, [3, 232] + Array("bye ü".utf8)) + RawFrame.client(text: "too late")
            try await guest.send(frames)
            #expect(try await guest.frame() == RawFrame(first: 0x88, isMasked: false, payload: [3, 232]))
            #expect(try await guest.rest() == [])
            #expect(try await host.data(10).contains("too late") == false)
        }
    }

    /// Frames that break RFC 6455, each as a client's first.
    static let violations: [(String, [UInt8])] = [
        ("unmasked", [0x81, 0x01, 0x61]), ("RSV1", RawFrame.client(0xC1, [0x61])),
        ("RSV2", RawFrame.client(0xA1, [0x61])),
        ("RSV3", RawFrame.client(0x91, [0x61])), ("opcode 3", RawFrame.client(0x83, [])),
        ("opcode 7", RawFrame.client(0x87, [])), ("opcode 11", RawFrame.client(0x8B, [])),
        ("opcode 15", RawFrame.client(0x8F, [])),
        ("16-bit length for 125", RawFrame.client(0x82, [UInt8](repeating: 0, count: 125), lengthBytes: 2)),
        ("64-bit length for 126", RawFrame.client(0x82, [UInt8](repeating: 0, count: 126), lengthBytes: 8)),
        ("64-bit length for 65535", RawFrame.client(0x82, [UInt8](repeating: 0, count: 65_535), lengthBytes: 8)),
        ("63-bit length", [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]),
        ("fragmented ping", RawFrame.client(0x09, [])), ("fragmented close", RawFrame.client(0x08, [])),
        ("ping of 126", RawFrame.client(0x89, [UInt8](repeating: 0, count: 126))),
        ("ping with 16-bit length", RawFrame.client(0x89, [1], lengthBytes: 2)),
        ("close of 126", RawFrame.client(0x88, [3, 232] + [UInt8](repeating: 0x61, count: 124))),
        ("close of 1", RawFrame.client(0x88, [3])), ("close 0", RawFrame.client(0x88, [0, 0])),
        ("close 999", RawFrame.client(0x88, [3, 231])), ("close 1004", RawFrame.client(0x88, [3, 236])),
        ("close 1005", RawFrame.client(0x88, [3, 237])), ("close 1006", RawFrame.client(0x88, [3, 238])),
        ("close 1015", RawFrame.client(0x88, [3, 247])), ("close 2999", RawFrame.client(0x88, [0x0B, 0xB7])),
        ("close 5000", RawFrame.client(0x88, [0x13, 0x88])), ("continuation of nothing", RawFrame.client(0x80, [0x61])),
        ("message inside message", RawFrame.client(0x01, [0x61]) + RawFrame.client(0x81, [0x62])),
    ]

    @Test func `answers a violation with 1002 and tells the others nothing but that`() async throws {
        try await Relay.run(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            for (index, (name, bytes)) in Self.violations.enumerated() {
                // At once, and byte by byte.
                for (round, pieces) in [[bytes], bytes.prefix(200).map { [$0] } + [Array(bytes.dropFirst(200))]]
                    .enumerated()
                {
                    let guest = try await relay.rawJoin(session.guest("\(name) \(round)"))
                    for piece in pieces { try await guest.send(piece) }
                    #expect(try await guest.closeCode() == 1002, "\(name)")
                    #expect(try await guest.rest() == [], "\(name)")
                    let data = try await host.data(2 * index + round + 1)
                    #expect(data.last?.contains(#""from":"\#(name) \#(round)""#) == true)
                }
            }
            #expect(host.data.count == 2 * Self.violations.count)
            #expect(host.voice.isEmpty)
        }
    }

    @Test func `answers text that is no UTF-8 with 1007`() async throws {
        try await Relay.run(workers: 1) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let bad: [[UInt8]] = [
                [0xFF], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0x80],
                Array("KV".utf8) + [0xFE],
            ]
            for (index, bytes) in bad.enumerated() {
                let parts =
                    RawFrame.client(0x01, Array(bytes.prefix(1))) + RawFrame.client(0x80, Array(bytes.dropFirst()))
                for (round, frames) in [RawFrame.client(0x81, bytes), parts].enumerated() {
                    let guest = try await relay.rawJoin(session.guest())
                    try await guest.send(RawFrame.client(text: "good") + frames + RawFrame.client(text: "late"))
                    #expect(try await guest.closeCode() == 1007, "\(bytes)")
                    let data = try await host.data(2 * (2 * index + round + 1))
                    #expect(data.suffix(2).first == "good")
                }
            }
            #expect(host.data.contains("late") == false)
            #expect(host.voice.isEmpty)
            // As binary the same bytes are anybody's business but the relay's.
            let guest = try await relay.join(session.guest())
            guest.send(binary: [0xFF, 0xFE])
            try await eventually("the bytes") { host.messages.last?.bytes == [0xFF, 0xFE] }
        }
    }

    @Test func `ends an idle room with empty close frames, and the room is gone`() async throws {
        try await Relay.run(workers: 2, ["RELAY_ROOM_IDLE_TIMEOUT": "1"]) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            #expect(try await host.ended() == .closed(code: nil))
            #expect(try await guest.ended() == .closed(code: nil))
            // Nobody is told that the others left.
            #expect(host.messages.isEmpty)
            #expect(guest.messages.isEmpty)
            #expect(try await relay.answer(session.guest()).answer == "404 room not found")
            // Its key is gone as well: anybody may open a room of that name.
            _ = try await relay.join(Session(session.room).host())
        }
    }
}
