import Shared
import Testing

@testable import worker

@Suite struct `TLS records to the client` {
    @Test(arguments: Suite.allCases)
    func `open to what was sealed, at every length class`(suite: Suite) throws {
        var pair = try OraclePair(suite)
        for count in [0, 1, 2, 15, 16, 17, 100, 255, 256, 1400, 16_367, 16_368, 16_383, 16_384] {
            let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 17 &+ 3) }
            var wire = pair.loop.seal(data)
            #expect(wire.count == TLSSession.recordBytes(plaintext: count))
            #expect(try pair.server.open(&wire) == .data(data))
            #expect(wire.isEmpty)
        }
    }

    @Test(arguments: Suite.allCases)
    func `are the same with the worker's context and with the connection's own`(suite: Suite) throws {
        var pair = try OraclePair(suite)
        for round in 0..<60 {
            let hasContext = pair.loop.hasWriteContext
            switch round {
            case 0...7: #expect(!hasContext)
            case 9...20: #expect(hasContext)
            case 21: pair.loop.session.dropContexts()
            case 22...29: #expect(!hasContext)
            // Used since: kept by the first trim, dropped by the second.
            case 40: pair.loop.session.trim()
            case 41:
                #expect(hasContext)
                pair.loop.session.trim()
                #expect(!pair.loop.hasWriteContext)
            default: break
            }
            var wire = pair.loop.seal([UInt8(round)])
            #expect(try pair.server.open(&wire) == .data([UInt8(round)]))
            pair.loop.run(pair.client.seal(23, [UInt8(round)]))
        }
        #expect(pair.loop.received == (0..<60).map { UInt8($0) })
    }

    @Test func `of two connections on one worker do not mix`() throws {
        let ciphers = try RecordCiphers()
        var sessions = [try OraclePair(), try OraclePair()]
        for round in 0..<40 {
            for index in sessions.indices {
                var record = [UInt8](repeating: UInt8(round), count: TLSSession.recordBytes(plaintext: 3))
                let count = record.withUnsafeMutableBytes { bytes in
                    bytes.baseAddress.map { sessions[index].loop.session.seal($0, plaintextBytes: 3, ciphers) } ?? 0
                }
                #expect(count == record.count)
                #expect(try sessions[index].server.open(&record) == .data([UInt8](repeating: UInt8(round), count: 3)))
            }
        }
    }

    @Test func `never repeat a nonce, whatever the order of calls`() throws {
        // With one key, two records of the same plaintext are equal exactly if their nonces are.
        var random = SplitMix64(seed: 5)
        let pair = try OraclePair()
        var seen = Set<[UInt8]>()
        for _ in 0..<500 {
            let record = pair.loop.seal([1, 2, 3])
            #expect(seen.insert(record).inserted)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: pair.loop.session.dropContexts()
            case 1: try pair.loop.move()
            case 2: pair.loop.session.trim()
            default: break
            }
        }
    }

    // MARK: - The end

    @Test func `end with close_notify, once`() throws {
        var pair = try OraclePair()
        var wire = pair.loop.send([1])
        #expect(try pair.server.open(&wire) == .data([1]))
        pair.loop.session.close()
        // From here on nothing else, even before it is sealed.
        #expect(pair.loop.seal([2]).isEmpty && !pair.loop.isWritable)
        pair.loop.session.close()
        #expect(try pair.pending() == [.alert(.closeNotify)])
        pair.loop.session.close()
        #expect(try pair.pending().isEmpty)
        #expect(pair.loop.seal([2]).isEmpty)
        // The client may still send.
        pair.loop.run(pair.client.seal(23, [3]))
        #expect(pair.loop.received == [3])
        // A KeyUpdate that it asks for can't be sent any more.
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 1]))
        #expect(try pair.pending().isEmpty)
        #expect(!pair.loop.owesUpdate)
        try pair.loop.move()
    }

    @Test func `of an alert take the place of a close_notify`() throws {
        var pair = try OraclePair()
        pair.loop.session.close()
        pair.loop.run([20])
        #expect(try pair.pending() == [.alert(.unexpectedMessage)])
        #expect(try pair.pending().isEmpty)
    }

    @Test func `put a KeyUpdate that is owed before close_notify`() throws {
        var pair = try OraclePair()
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 1]))
        pair.loop.session.close()
        #expect(try pair.pending() == [.keyUpdate(requested: false), .alert(.closeNotify)])
    }

    @Test func `are all that may be owed at once and no more than said`() throws {
        var pair = try OraclePair {
            setSequence(&$0, at: 8, Limits.tlsRecordsPerKey)
            $0[4] = 8 | 16
        }
        #expect(pair.loop.owesUpdate && pair.loop.owesClose)
        let sealed = try pair.pending()
        #expect(sealed == [.keyUpdate(requested: false), .keyUpdate(requested: true), .alert(.closeNotify)])
        #expect(TLSSession.pendingBytesMax == 27 + 27 + 24)
    }

    // MARK: - Limits

    @Test func `get a new key before the limit`() throws {
        var pair = try OraclePair { setSequence(&$0, at: 16, Limits.tlsRecordsPerKey - 2) }
        for round in 0..<6 as Range<UInt8> {
            var wire = pair.loop.seal([round])
            #expect(try pair.server.open(&wire) == .data([round]))
            let owed = try pair.pending()
            // The second record reaches the limit.
            #expect(owed == (round == 1 ? [.keyUpdate(requested: false)] : []))
        }
        #expect(pair.server.sequence == 4)
    }

    @Test func `get one new key for two reasons`() throws {
        var pair = try OraclePair { setSequence(&$0, at: 16, Limits.tlsRecordsPerKey) }
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 1]))
        #expect(try pair.pending() == [.keyUpdate(requested: false)])
        pair = try OraclePair {
            setSequence(&$0, at: 16, Limits.tlsRecordsPerKey)
            setSequence(&$0, at: 8, Limits.tlsRecordsPerKey)
        }
        #expect(try pair.pending() == [.keyUpdate(requested: true)])
        #expect(try pair.pending().isEmpty)
    }

    @Test func `stop at the limit until the key is new`() throws {
        var pair = try OraclePair { setSequence(&$0, at: 16, Limits.tlsRecordsPerKeyMax - 1) }
        // A loop that does not send what is owed.
        var wire = pair.loop.seal([1])
        #expect(try pair.server.open(&wire) == .data([1]))
        #expect(!pair.loop.isWritable && pair.loop.seal([2]).isEmpty)
        #expect(try pair.pending() == [.keyUpdate(requested: false)])
        wire = pair.loop.seal([2])
        #expect(try pair.server.open(&wire) == .data([2]))
    }
}
