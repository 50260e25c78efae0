import COpenSSL
import Shared
import Testing

@testable import worker

@Suite struct `A TLS session on its way` {
    /// A connection under random traffic both ways, against libssl's client, written down and made again at random moments.
    struct Traffic {
        /// Has no period that a record's length could match.
        static let pattern = (0..<40_251).map { UInt8($0 % 251) }

        var random: SplitMix64
        let client: TLSClient
        let server: SessionLoop
        /// The client's bytes that have not reached the server.
        var toServer: [UInt8] = []
        var sentByClient: [UInt8] = []
        var sentByServer: [UInt8] = []
        var receivedByClient: [UInt8] = []
        var updates = 0

        init(_ suite: Suite, seed: UInt64) throws {
            random = SplitMix64(seed: seed)
            let connected = try connect(.init(suites: "\(suite.name)"))
            client = connected.client
            server = connected.server
        }

        mutating func data(_ bytesMax: Int) -> [UInt8] {
            let count = Int.random(in: 1...bytesMax, using: &random)
            let first = Int.random(in: 0..<251, using: &random)
            return Array(Self.pattern[first..<first + count])
        }

        mutating func toClient(_ wire: [UInt8]) {
            client.receive(wire)
            receivedByClient += client.read()
        }

        mutating func step() throws {
            switch Int.random(in: 0..<12, using: &random) {
            case 0...2:
                let bytes = data([10, 300, 3000, 40_000].randomElement(using: &random) ?? 1)
                sentByClient += bytes
                client.write(bytes)
            case 3...5:
                let bytes = data([10, 300, 3000, 40_000].randomElement(using: &random) ?? 1)
                sentByServer += bytes
                toClient(server.send(bytes, recordBytes: Int.random(in: 1...16_384, using: &random) | 63))
            case 6:
                client.updateKey(requested: Bool.random(using: &random))
                updates += 1
            case 7: server.session.dropContexts()
            case 8: server.session.trim()
            default:
                // Some of what is under way, cut anywhere.
                toServer += client.output()
                let count = Int.random(in: 0...toServer.count, using: &random)
                for chunk in [count / 3, count - count / 3] {
                    server.run(Array(toServer.prefix(chunk)))
                    toServer.removeFirst(chunk)
                    if Bool.random(using: &random) { try server.move() }
                }
                toClient(server.pending())
            }
            if Int.random(in: 0..<3, using: &random) == 0 { try server.move() }
        }

        mutating func finish() {
            server.run(toServer + client.output())
            toClient(server.pending())
        }
    }

    @Test(arguments: Suite.allCases, 1...4 as ClosedRange<UInt64>)
    func `loses, repeats and reorders nothing`(suite: Suite, seed: UInt64) throws {
        var traffic = try Traffic(suite, seed: seed)
        for _ in 0..<400 { try traffic.step() }
        traffic.finish()
        #expect(traffic.server.events.isEmpty && !traffic.client.hasFailed)
        #expect(traffic.server.received == traffic.sentByClient)
        #expect(traffic.receivedByClient == traffic.sentByServer)
        #expect(traffic.server.moves > 100 && traffic.updates > 10)
        #expect(traffic.client.keyUpdatesReceived > 0)
        traffic.server.session.close()
        traffic.toClient(traffic.server.pending())
        #expect(traffic.client.isClosedByServer)
        traffic.client.sendCloseNotify()
        traffic.server.run(traffic.client.output())
        #expect(traffic.server.events == [.closed])
    }

    @Test(arguments: Suite.allCases)
    func `gets an answer from libssl when it asks for a new key`(suite: Suite) throws {
        let (client, server, _) = try connect(.init(suites: "\(suite.name)"))
        client.receive(server.send([1]))
        #expect(client.read() == [1])
        // As if 2^23 records had come: the client knows nothing of our count, so the question is put and the count set back.
        var state = server.encode()
        let sequence = Array(state[8..<16])
        setSequence(&state, at: 8, Limits.tlsRecordsPerKey)
        try server.put(decodeSession(state))
        client.receive(server.pending())
        #expect(client.read().isEmpty && client.keyUpdatesReceived == 1)
        state = server.encode()
        #expect(state[4] == 32)
        state.replaceSubrange(8..<16, with: sequence)
        try server.put(decodeSession(state))
        client.write([2])
        server.run(client.output())
        #expect(server.received == [2] && !server.awaitsUpdate && server.events.isEmpty)
        client.receive(server.send([3]))
        #expect(client.read() == [3])
    }

    @Test func `takes what waits in every flag and count with it`() throws {
        for flags: UInt8 in 0..<64 {
            let pair = try OraclePair()
            var state = pair.loop.encode()
            let isBoth = flags & 3 == 3
            let owesClosed = flags & 4 != 0 && flags & 24 != 0
            state[4] = flags
            state[6] = 5
            state[7] = 3
            if isBoth || owesClosed {
                #expect(throws: TLSStateError.flags(flags)) { _ = try decodeSession(state) }
                continue
            }
            let loop = try SessionLoop(decodeSession(state))
            #expect(loop.encode() == state)
            pair.loop.put(try decodeSession(state))
        }
    }

    @Test func `takes an alert that is owed with it`() throws {
        var pair = try OraclePair()
        pair.loop.run([22, 3, 3])
        #expect(pair.loop.events == [.violation(.unprotectedRecord)])
        try pair.loop.move()
        #expect(try pair.pending() == [.alert(.unexpectedMessage)])
    }

    @Test func `is as small as it is said to be`() throws {
        let pair = try OraclePair()
        let state = pair.loop.encode()
        #expect(state.count == 92)
        try pair.loop.put(decodeSession(state))
        let large = try OraclePair(.aes256GCM)
        large.loop.run([23, 3, 3])
        let largeState = large.loop.encode()
        #expect(largeState.count == 127)
        #expect(largeState.suffix(7) == [3, 0, 0, 0, 23, 3, 3])
        try large.loop.put(decodeSession(largeState))
    }

    // MARK: - Bytes that are no session

    func error(_ change: (inout [UInt8]) -> Void) throws -> TLSStateError? {
        let pair = try OraclePair()
        var state = pair.loop.encode()
        try pair.loop.put(decodeSession(state))
        change(&state)
        do throws(TLSStateError) {
            _ = try decodeSession(state)
            return nil
        } catch {
            return error
        }
    }

    @Test func `is refused for what is wrong with it`() throws {
        #expect(try error { _ in } == nil)
        #expect(try error { $0[0] = 2 } == .version(2))
        #expect(try error { $0[1] = 1 } == .version(257))
        #expect(try error { $0[2] = 4 } == .suite(0x1304))
        #expect(try error { $0[3] = 0 } == .suite(1))
        #expect(try error { $0[4] = 64 } == .flags(64))
        #expect(try error { $0[4] = 128 } == .flags(128))
        #expect(try error { $0[5] = 20 } == .alert(20))
        #expect(try error { ($0[4], $0[5]) = (2, 20) } == nil)
        #expect(try error { ($0[4], $0[5]) = (2 | 4, 20) } == .alert(20))
        #expect(try error { ($0[4], $0[5]) = (2, 21) } == .alert(21))
        #expect(try error { $0[6] = Limits.tlsIdleRecordsMax } == nil)
        #expect(try error { $0[6] = Limits.tlsIdleRecordsMax + 1 } == .idleRecords(Limits.tlsIdleRecordsMax + 1))
        #expect(try error { $0[7] = 4 } == nil)
        #expect(try error { $0[7] = 5 } == .fragment(5))
        for offset in [8, 16] {
            #expect(try error { setSequence(&$0, at: offset, Limits.tlsRecordsPerKeyMax) } == nil)
            #expect(try error { setSequence(&$0, at: offset, .max) } == .sequence(.max))
            #expect(try error { setSequence(&$0, at: offset, 1 << 25) } == .sequence(1 << 25))
        }
        #expect(try error { $0[88] = 1 } == .truncated)
        #expect(try error { $0.append(0) } == .trailing(1))
        let max = Limits.tlsInputBytesMax
        func setCount(_ state: inout [UInt8], _ count: Int) {
            for index in 0..<4 { state[88 + index] = UInt8(truncatingIfNeeded: count >> (8 * index)) }
            state += [UInt8](repeating: 23, count: count)
        }
        #expect(try error { setCount(&$0, max) } == nil)
        #expect(try error { setCount(&$0, max + 1) } == .inputTooLong(max + 1))
        #expect(try error { for index in 88..<92 { $0[index] = 255 } } == .inputTooLong(0xFFFF_FFFF))
    }

    @Test(arguments: Suite.allCases)
    func `is refused at every truncation`(suite: Suite) throws {
        let pair = try OraclePair(suite)
        pair.loop.run([23, 3, 3, 1])
        let state = pair.loop.encode()
        try pair.loop.put(decodeSession(state))
        for count in 0..<state.count {
            #expect(throws: TLSStateError.truncated) { _ = try decodeSession(Array(state[..<count])) }
        }
    }

    @Test func `never traps, whatever the bytes`() throws {
        var random = SplitMix64(seed: 17)
        let pair = try OraclePair()
        pair.loop.run(Array(pair.client.copy().prefix(20)))
        let state = pair.loop.encode()
        try pair.loop.put(decodeSession(state))
        var decoded = 0
        for _ in 0..<20_000 {
            var bytes = state
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                switch Int.random(in: 0..<5, using: &random) {
                case 0: bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
                case 1: bytes.append(UInt8.random(in: 0...255, using: &random))
                default:
                    guard !bytes.isEmpty else { continue }
                    let place = Int.random(
                        in: 0..<min(bytes.count, Bool.random(using: &random) ? 28 : 200), using: &random)
                    bytes[place] = UInt8.random(in: 0...255, using: &random)
                }
            }
            do throws(TLSStateError) {
                let session = try decodeSession(bytes)
                decoded += 1
                let loop = try? SessionLoop(session)
                loop?.run([UInt8](repeating: 23, count: 40))
                loop?.session.close()
                _ = loop?.pending()
            } catch {}
        }
        #expect(decoded > 1000)
    }
}

extension OracleRecords {
    /// A record of one byte.
    fileprivate func copy() -> [UInt8] {
        var other = self
        return other.seal(23, [1])
    }
}
