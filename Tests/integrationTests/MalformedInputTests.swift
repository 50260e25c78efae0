import Testing

@Suite struct `Malformed input` {
    @Test(arguments: [
        ("TLS", [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3, 3] as [UInt8], 400),
        ("zeroes", [UInt8](repeating: 0, count: 64), 400),
        ("SSH", Array("SSH-2.0-OpenSSH_9.2\r\n\r\n".utf8), 400),
        ("HTTP/2", Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8), 505),
        ("a long line", [UInt8](repeating: 0x41, count: 20_000), 431),
        ("a space", Array(" GET / HTTP/1.1\r\n\r\n".utf8), 400),
        ("a bare CR", Array("GET / HTTP/1.1\rHost: x\r\n\r\n".utf8), 400),
    ])
    func `of another protocol is told so`(name: String, bytes: [UInt8], status: Int) async throws {
        try await Relay.run(workers: 1) { relay in
            let client = try await RawClient(relay.port)
            try await client.send(bytes)
            #expect(try await client.response().status == status)
            #expect(try await client.rest() == [])
        }
    }

    @Test func `in place of requests is refused and harms nobody`() async throws {
        var random = SplitMix64()
        let seed = random.seed
        try await Relay.run(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            var witnesses = try await Witnesses(relay)
            let session = Session()
            let allowed: Set = [200, 400, 404, 405, 426, 431, 501, 505]
            let bases = [
                "GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd", session.guest().head,
            ]
            for round in 0..<240 {
                var bytes: [UInt8]
                if round % 4 == 0 {
                    bytes = random.bytes(Int.random(in: 1...3000, using: &random))
                } else {
                    bytes = Array(bases[Int.random(in: 0..<bases.count, using: &random)].utf8)
                    for _ in 0..<Int.random(in: 1...6, using: &random) { mutate(&bytes, &random) }
                }
                let client = try await RawClient(relay.port)
                let cut = Int.random(in: 0...bytes.count, using: &random)
                try await client.send(Array(bytes[..<cut]))
                try await client.send(Array(bytes[cut...]))
                client.finish()
                let answer = try await client.rest()
                guard !answer.isEmpty else { continue }
                let text = String(decoding: answer.prefix(12), as: UTF8.self)
                let status = text.hasPrefix("HTTP/1.1 ") ? Int(text.suffix(3)) : nil
                #expect(status.map { allowed.contains($0) } == true, "seed \(seed), round \(round): \(text)")
                if round % 20 == 0 { try await witnesses.talk() }
            }
            try await witnesses.talk()
            witnesses.check(relay, seed: seed)
        }
    }

    @Test func `in place of frames closes its sender and harms nobody`() async throws {
        var random = SplitMix64()
        let seed = random.seed
        try await Relay.run(
            workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0", "RELAY_MAX_MESSAGE_SIZE": "4096"]
        ) { relay in
            var witnesses = try await Witnesses(relay)
            let session = Session()
            let host = try await relay.join(session.host())
            for round in 0..<240 {
                let guest = try await relay.rawJoin(session.guest("guest"))
                let bytes = frames(round, &random)
                let cut = Int.random(in: 0...bytes.count, using: &random)
                try await guest.send(Array(bytes[..<cut]))
                try await guest.send(Array(bytes[cut...]))
                guest.finish()
                // Nobody else talks in this room: pongs and at most one close frame come back, and nothing is cut.
                try await eventually("the end, seed \(seed), round \(round)") { guest.isAtEnd() }
                var isClosed = false
                while !guest.unread().isEmpty {
                    let frame = try await guest.frame()
                    #expect(!isClosed, "seed \(seed), round \(round)")
                    #expect([0x88, 0x8A].contains(frame.first) && !frame.isMasked, "seed \(seed), round \(round)")
                    isClosed = frame.opcode == 8
                }
                if round % 20 == 0 { try await witnesses.talk() }
            }
            try await witnesses.talk()
            witnesses.check(relay, seed: seed)
            #expect(host.isOpen && host.oddities == [], "seed \(seed)")
            #expect(host.messages.allSatisfy { $0.isBinary }, "seed \(seed)")
        }
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
        guard !bytes.isEmpty else { return }
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<5, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.remove(at: place)
        case 2: bytes.insert(contentsOf: random.bytes(3), at: place)
        case 3: bytes.removeSubrange(place...)
        default: bytes.insert(contentsOf: bytes[..<place], at: place)
        }
    }

    /// Random bytes, or good frames with a few bytes changed.
    private func frames(_ round: Int, _ random: inout SplitMix64) -> [UInt8] {
        guard round % 3 != 0 else { return random.bytes(Int.random(in: 1...2000, using: &random)) }
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 1...8, using: &random) {
            let first: UInt8 = [0x81, 0x82, 0x89, 0x8A, 0x01, 0x00, 0x80, 0x88].randomElement(using: &random) ?? 0x82
            let limit = first & 8 != 0 ? 125 : 600
            var payload = random.bytes(Int.random(in: 0...limit, using: &random))
            if first & 0x0F == 1 { payload = payload.map { $0 & 0x7F } }
            bytes += RawFrame.client(first, payload, key: random.bytes(4))
        }
        for _ in 0..<Int.random(in: 0...3, using: &random) { mutate(&bytes, &random) }
        return bytes
    }
}
