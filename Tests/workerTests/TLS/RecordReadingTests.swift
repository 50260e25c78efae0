import Shared
import Testing

@testable import worker

@Suite struct `TLS records from the client` {
    /// One wrong thing that a client can send, and what it must be called.
    struct Wrong: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var violation: TLSViolation
        var bytes: @Sendable (inout OracleRecords) -> [UInt8]

        init(_ name: String, _ violation: TLSViolation, _ bytes: @escaping @Sendable (inout OracleRecords) -> [UInt8]) {
            testDescription = name
            self.violation = violation
            self.bytes = bytes
        }

        static func sealed(
            _ name: String, _ violation: TLSViolation, _ type: UInt8, _ content: [UInt8], padding: Int = 0
        ) -> Wrong {
            Wrong(name, violation) { $0.seal(type, content, padding: padding) }
        }
    }

    static let update: [UInt8] = [24, 0, 0, 1, 0]

    static let wrong: [Wrong] = {
        var all: [Wrong] = []
        // RFC 8446, 5.2: what is not authentic.
        for place in [0, 7, 15] {
            all.append(
                Wrong("tag byte \(place) changed", .notAuthentic) { client in
                    var record = client.seal(23, [1, 2, 3])
                    record[record.count - 16 + place] ^= 0x80
                    return record
                })
        }
        for place in [1, 2, 5, 8] {
            all.append(
                Wrong("byte \(place) changed", .notAuthentic) { client in
                    var record = client.seal(23, [1, 2, 3])
                    record[place] ^= 1
                    return record
                })
        }
        for length in [0, 1, 15] {
            all.append(
                Wrong("\(length) bytes, less than a tag", .recordTooShort) { _ in
                    [23, 3, 3, 0, UInt8(length)]
                })
        }
        all.append(
            Wrong("a record twice", .notAuthentic) { client in
                let record = client.seal(23, [9])
                return record + record
            })
        all.append(
            Wrong("records in another order", .notAuthentic) { client in
                let first = client.seal(23, [9])
                return client.seal(23, [8]) + first
            })
        all.append(
            Wrong("a record left out", .notAuthentic) { client in
                client.sequence += 1
                return client.seal(23, [9])
            })
        all.append(
            Wrong("the old key after a KeyUpdate", .notAuthentic) { client in
                client.seal(22, update) + client.seal(23, [9])
            })
        all.append(
            Wrong("the next key without a KeyUpdate", .notAuthentic) { client in
                client.update()
                return client.seal(23, [9])
            })
        all.append(
            Wrong("plaintext in the dress of ciphertext", .notAuthentic) { _ in
                [23, 3, 3, 0, 20] + [UInt8](repeating: 0x61, count: 20)
            })
        // RFC 8446, 5.2 and 5.4: length.
        all.append(Wrong("2^14 + 257 announced", .recordTooLong) { _ in [23, 3, 3, 0x41, 0x01] })
        all.append(Wrong("65,535 announced", .recordTooLong) { _ in [23, 3, 3, 0xFF, 0xFF] })
        all.append(.sealed("2^14 + 1 bytes of data", .contentTooLong, 23, [UInt8](repeating: 1, count: 16_385)))
        all.append(.sealed("2^14 + 1 bytes with padding", .contentTooLong, 23, [1], padding: 16_384))
        all.append(.sealed("as long as a header may announce", .contentTooLong, 23, [1], padding: 16_622))
        // RFC 8446, 5: types, outside and inside.
        for type: UInt8 in [0, 20, 21, 22, 24, 255] {
            all.append(Wrong("a plaintext record of type \(type)", .unprotectedRecord) { _ in [type] })
        }
        for type: UInt8 in [1, 20, 24, 25, 255] {
            all.append(.sealed("content of type \(type)", .unexpectedContentType, type, [1]))
        }
        for zeros in [0, 1, 100, 16_385] {
            all.append(
                Wrong("\(zeros) zeros and no type", .noContentType) { client in
                    client.sealInner([UInt8](repeating: 0, count: zeros))
                })
        }
        // RFC 8446, 5.1: empty, fragmented, interleaved.
        for padding in [0, 10] {
            all.append(
                .sealed("an empty handshake record, padding \(padding)", .emptyRecord, 22, [], padding: padding))
            all.append(.sealed("an empty alert, padding \(padding)", .emptyRecord, 21, [], padding: padding))
        }
        all.append(.sealed("half an alert", .alertLength, 21, [1]))
        all.append(.sealed("one alert and a half", .alertLength, 21, [1, 0, 1]))
        all.append(.sealed("two alerts", .alertLength, 21, [1, 0, 1, 0]))
        for count in 1...4 {
            all.append(
                Wrong("data inside a KeyUpdate, behind \(count)", .interleavedHandshake) { client in
                    client.seal(22, Array(update.prefix(count))) + client.seal(23, [1])
                })
        }
        for (type, content): (UInt8, [UInt8]) in [(23, []), (21, [1, 0]), (21, [2, 80]), (20, [1]), (22, [])] {
            all.append(
                Wrong(
                    "type \(type) with \(content) inside a KeyUpdate", type == 22 ? .emptyRecord : .interleavedHandshake
                ) {
                    client in
                    client.seal(22, [24]) + client.seal(type, content)
                })
        }
        // RFC 8446, 4.6: messages that a client may not send any more.
        for type: UInt8 in [0, 1, 2, 4, 5, 8, 11, 13, 15, 20, 23, 25, 254, 255] {
            all.append(.sealed("handshake message \(type)", .unexpectedHandshakeMessage, 22, [type, 0, 0, 1, 0]))
        }
        // RFC 8446, 4.6.3 and 5.1: KeyUpdate.
        all.append(.sealed("KeyUpdate 2", .keyUpdateRequest, 22, [24, 0, 0, 1, 2]))
        all.append(.sealed("KeyUpdate 255", .keyUpdateRequest, 22, [24, 0, 0, 1, 255]))
        for length: [UInt8] in [[0, 0, 0], [0, 0, 2], [0, 1, 1], [1, 0, 1], [255, 255, 255]] {
            all.append(.sealed("KeyUpdate of length \(length)", .keyUpdateLength, 22, [24] + length + [0]))
        }
        all.append(.sealed("two KeyUpdates in one record", .bytesAfterKeyUpdate, 22, update + update))
        all.append(.sealed("a byte behind a KeyUpdate", .bytesAfterKeyUpdate, 22, update + [0]))
        return all
    }()

    @Test(arguments: wrong)
    func `lead to the right alert, and to nothing else`(wrong: Wrong) throws {
        for cut in [Int.max, 1] {
            var pair = try OraclePair()
            var bytes = pair.client.seal(23, Array("before".utf8))
            bytes += wrong.bytes(&pair.client)
            // What follows is not looked at, even if it is good.
            let after = pair.client.seal(23, Array("after".utf8))
            for chunk in chunks(bytes, cut) { pair.loop.run(chunk) }
            #expect(pair.loop.events.first == .violation(wrong.violation))
            pair.loop.run(after)
            // A record that is repeated or out of place comes behind one that was good.
            #expect(pair.loop.received.starts(with: Array("before".utf8)))
            #expect(!pair.loop.received.suffix(5).elementsEqual("after".utf8))
            #expect(pair.loop.seal([1]).isEmpty)
            #expect(try pair.pending() == [.alert(wrong.violation.alert)])
            #expect(try pair.pending().isEmpty)
            #expect(pair.loop.seal([1]).isEmpty)
            pair.loop.session.close()
            #expect(try pair.pending().isEmpty)
        }
    }

    /// RFC 8446, 5, 5.1, 5.2, 5.4, 4.6.3: which alert it asks for.
    @Test func `that break a rule get the alert of RFC 8446`() {
        let alerts: [Alert: [TLSViolation]] = [
            .badRecordMAC: [.recordTooShort, .notAuthentic],
            .recordOverflow: [.recordTooLong, .contentTooLong],
            .decodeError: [.alertLength, .keyUpdateLength],
            .illegalParameter: [.keyUpdateRequest],
            .unexpectedMessage: [
                .unprotectedRecord, .keyNotUpdated, .noContentType, .unexpectedContentType, .interleavedHandshake,
                .emptyRecord, .idleRecords, .unexpectedHandshakeMessage, .bytesAfterKeyUpdate,
                .tooManyKeyUpdates,
            ],
        ]
        #expect(alerts.values.joined().count == TLSViolation.allCases.count)
        for (alert, violations) in alerts {
            for violation in violations { #expect(violation.alert == alert, "\(violation)") }
        }
        // Each is tried here, but for those that take many records: they have tests of their own.
        let tried = Set(Self.wrong.map(\.violation)).union([.keyNotUpdated, .idleRecords, .tooManyKeyUpdates])
        #expect(tried.count == TLSViolation.allCases.count)
    }

    /// The bytes in parts of `count`.
    func chunks(_ bytes: [UInt8], _ count: Int) -> [[UInt8]] {
        count >= bytes.count
            ? [bytes]
            : stride(from: 0, to: bytes.count, by: count).map { Array(bytes[$0..<min($0 + count, bytes.count)]) }
    }

    @Test func `may not be announced longer than allowed, and not refused for less`() throws {
        let pair = try OraclePair()
        pair.loop.run([23, 3, 3, 0x41, 0x00])
        #expect(pair.loop.events.isEmpty)
        #expect(pair.loop.partialBytes == 5)
    }

    @Test(arguments: Suite.allCases)
    func `carry data of every length class, with and without padding`(suite: Suite) throws {
        var pair = try OraclePair(suite)
        for count in [0, 1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 1000, 4095, 16_367, 16_368, 16_383, 16_384] {
            for padding in [0, 1, 15, 16, 255, 16_384 - count] where count + padding <= 16_384 {
                let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ padding) }
                pair.loop.received = []
                pair.loop.run(pair.client.seal(23, data, padding: padding))
                #expect(pair.loop.received == data)
            }
        }
        #expect(pair.loop.events.isEmpty && !pair.loop.hasPending)
    }

    @Test func `carry data that ends in zeros, which are no padding`() throws {
        var pair = try OraclePair()
        pair.loop.run(pair.client.seal(23, [0, 0, 0], padding: 3))
        #expect(pair.loop.received == [0, 0, 0])
    }

    @Test(arguments: [[3, 1], [3, 4], [0, 0], [255, 255]] as [[UInt8]])
    func `may name any version`(version: [UInt8]) throws {
        var pair = try OraclePair()
        pair.loop.run(pair.client.sealInner([7, 23], version: version))
        #expect(pair.loop.received == [7])
    }

    @Test func `come in any pieces`() throws {
        var pair = try OraclePair(.chacha20Poly1305)
        var wire =
            pair.client.seal(23, Array("one".utf8)) + pair.client.seal(22, [24, 0]) + pair.client.seal(22, [0, 1, 1])
        pair.client.update()
        wire += pair.client.seal(23, [], padding: 3) + pair.client.seal(23, Array("two".utf8), padding: 9)
        wire += pair.client.seal(21, [1, 0])
        let start = pair.loop.encode()
        for split in 0..<wire.count {
            let loop = try SessionLoop(decodeSession(start))
            loop.run(Array(wire[..<split]))
            loop.run(Array(wire[split...]))
            #expect(loop.received == Array("onetwo".utf8))
            #expect(loop.events == [.closed])
        }
        let loop = try SessionLoop(decodeSession(start))
        for byte in wire {
            loop.run([byte])
            if loop.events.isEmpty { try loop.move() }
        }
        #expect(loop.received == Array("onetwo".utf8))
        #expect(loop.events == [.closed])
        try pair.loop.put(decodeSession(start))
    }

    // MARK: - Alerts

    @Test func `may end with close_notify, after which ours still go`() throws {
        for level: UInt8 in [1, 2, 77] {
            var pair = try OraclePair()
            pair.loop.run(pair.client.seal(23, [5]) + pair.client.seal(21, [level, 0]) + pair.client.seal(23, [6]))
            pair.loop.run([1, 2, 3])
            #expect(pair.loop.received == [5])
            #expect(pair.loop.events == [.closed, .closed])
            #expect(!pair.loop.hasPending)
            var wire = pair.loop.send([7, 8])
            #expect(try pair.server.open(&wire) == .data([7, 8]))
            pair.loop.session.close()
            #expect(try pair.pending() == [.alert(.closeNotify)])
            #expect(pair.loop.seal([9]).isEmpty)
        }
    }

    @Test(arguments: (1...255).filter { $0 != 90 })
    func `end with any other alert, and nothing is sent any more`(alert: Int) throws {
        for level: UInt8 in [1, 2] {
            var pair = try OraclePair()
            pair.loop.run(pair.client.seal(21, [level, UInt8(alert)]) + pair.client.seal(23, [6]))
            #expect(pair.loop.events == [.peerAlert(UInt8(alert))])
            #expect(pair.loop.received.isEmpty)
            pair.loop.session.close()
            #expect(!pair.loop.hasPending && pair.loop.pending().isEmpty && pair.loop.seal([1]).isEmpty)
        }
    }

    @Test func `end with an alert whatever was owed`() throws {
        var pair = try OraclePair()
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 1]))
        pair.client.update()
        pair.loop.session.close()
        pair.loop.run(pair.client.seal(21, [2, 80]))
        #expect(!pair.loop.owesUpdate && !pair.loop.owesClose && !pair.loop.hasPending)
        try pair.loop.move()
        #expect(try pair.pending().isEmpty && pair.loop.seal([1]).isEmpty)
    }

    @Test func `go on after user_canceled`() throws {
        var pair = try OraclePair()
        pair.loop.run(pair.client.seal(21, [1, 90]) + pair.client.seal(23, [6]) + pair.client.seal(21, [1, 0]))
        #expect(pair.loop.received == [6])
        #expect(pair.loop.events == [.closed])
    }

    @Test func `get no alert once we have said close_notify`() throws {
        var pair = try OraclePair()
        pair.loop.session.close()
        #expect(try pair.pending() == [.alert(.closeNotify)])
        pair.loop.run([22])
        #expect(pair.loop.events == [.violation(.unprotectedRecord)])
        #expect(!pair.loop.hasPending)
    }

    // MARK: - KeyUpdate

    @Test(arguments: Suite.allCases)
    func `change keys as often as any client needs`(suite: Suite) throws {
        var pair = try OraclePair(suite)
        for round in 0..<100 {
            // The first ones in a moment, the others as time allows.
            if round >= Limits.tlsKeyUpdatesBurst { pair.loop.session.second += 1 }
            let isRequest = round.isMultiple(of: 3)
            pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, isRequest ? 1 : 0]))
            pair.client.update()
            pair.loop.run(pair.client.seal(23, [UInt8(round)]))
            #expect(pair.loop.hasPending == isRequest)
            #expect(try pair.pending() == (isRequest ? [.keyUpdate(requested: false)] : []))
            var wire = pair.loop.send([UInt8(round)])
            #expect(try pair.server.open(&wire) == .data([UInt8(round)]))
        }
        #expect(pair.loop.received == (0..<100).map { UInt8($0) })
    }

    @Test func `change keys so often in a moment and no more`() throws {
        var pair = try OraclePair()
        for _ in 0..<Limits.tlsKeyUpdatesBurst {
            pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 0]))
            pair.client.update()
            pair.loop.run(pair.client.seal(23, [1]))
        }
        #expect(pair.loop.events.isEmpty)
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 0]))
        #expect(pair.loop.events == [.violation(.tooManyKeyUpdates)])
        #expect(try pair.pending() == [.alert(.unexpectedMessage)])
    }

    @Test func `get one answer to many requests`() throws {
        var pair = try OraclePair()
        for _ in 0..<20 {
            pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 1]))
            pair.client.update()
        }
        #expect(try pair.pending() == [.keyUpdate(requested: false)])
        #expect(try pair.pending().isEmpty)
    }

    @Test func `may bring a KeyUpdate in up to five records`() throws {
        for cuts in 0..<16 {
            var pair = try OraclePair()
            var part: [UInt8] = []
            for (index, byte) in Self.update.enumerated() {
                part.append(byte)
                if index == 4 || cuts & 1 << index != 0 {
                    pair.loop.run(pair.client.seal(22, part, padding: index))
                    part = []
                    if index < 4 { try pair.loop.move() }
                }
            }
            pair.client.update()
            pair.loop.run(pair.client.seal(23, [1]))
            #expect(pair.loop.received == [1])
        }
    }

    // MARK: - Limits

    @Test(arguments: [(23, []), (22, update), (21, [1, 90])] as [(UInt8, [UInt8])])
    func `may come without data for a while only`(type: UInt8, content: [UInt8]) throws {
        func sendIdle(_ pair: inout OraclePair, _ count: Int) {
            for _ in 0..<count {
                pair.loop.run(pair.client.seal(type, content))
                if type == 22 { pair.client.update() }
            }
        }
        var pair = try OraclePair()
        for _ in 0..<3 {
            sendIdle(&pair, Int(Limits.tlsIdleRecordsMax))
            pair.loop.run(pair.client.seal(23, [1]))
            try pair.loop.move()
        }
        #expect(pair.loop.received == [1, 1, 1] && pair.loop.events.isEmpty)
        sendIdle(&pair, Int(Limits.tlsIdleRecordsMax))
        #expect(pair.loop.events.isEmpty)
        sendIdle(&pair, 1)
        #expect(pair.loop.events == [.violation(.idleRecords)])
        try pair.loop.move()
        #expect(try pair.pending() == [.alert(.unexpectedMessage)])
    }

    @Test func `lead to a request for a new key before the limit`() throws {
        var pair = try OraclePair { setSequence(&$0, at: 8, Limits.tlsRecordsPerKey - 1) }
        #expect(!pair.loop.hasPending)
        pair.loop.run(pair.client.seal(23, [1]))
        #expect(pair.loop.hasPending)
        #expect(try pair.pending() == [.keyUpdate(requested: true)])
        // It is asked once, also after a move.
        pair.loop.run(pair.client.seal(23, [2]))
        try pair.loop.move()
        #expect(!pair.loop.hasPending)
        pair.loop.run(pair.client.seal(22, [24, 0, 0, 1, 0]))
        pair.client.update()
        pair.loop.run(pair.client.seal(23, [3]))
        #expect(pair.loop.received == [1, 2, 3] && pair.loop.events.isEmpty && !pair.loop.hasPending)
    }

    @Test func `do not count the answer to our own request as a record without data`() throws {
        var pair = try OraclePair {
            setSequence(&$0, at: 8, Limits.tlsRecordsPerKey)
            $0[6] = Limits.tlsIdleRecordsMax
        }
        #expect(try pair.pending() == [.keyUpdate(requested: true)])
        pair.loop.run(pair.client.seal(22, Self.update))
        pair.client.update()
        #expect(pair.loop.events.isEmpty)
        pair.loop.run(pair.client.seal(22, Self.update))
        #expect(pair.loop.events == [.violation(.idleRecords)])
    }

    @Test func `end when the client never changes its key`() throws {
        var pair = try OraclePair { setSequence(&$0, at: 8, Limits.tlsRecordsPerKeyMax - 1) }
        #expect(try pair.pending() == [.keyUpdate(requested: true)])
        pair.loop.run(pair.client.seal(23, [1]))
        #expect(pair.loop.received == [1] && pair.loop.events.isEmpty)
        pair.loop.run(pair.client.seal(23, [2]))
        #expect(pair.loop.received == [1])
        #expect(pair.loop.events == [.violation(.keyNotUpdated)])
    }

    @Test(arguments: [UInt64(1) << 32 - 1, 255, 256, 65_535, 1 << 22])
    func `are counted in every byte of the nonce`(sequence: UInt64) throws {
        // Beyond the limits a state is refused, so only the numbers below them.
        let start = min(sequence, Limits.tlsRecordsPerKey - 8)
        var pair = try OraclePair(.aes256GCM) {
            setSequence(&$0, at: 8, start)
            setSequence(&$0, at: 16, start)
        }
        for round in 0..<4 {
            pair.loop.run(pair.client.seal(23, [UInt8(round)]))
            var wire = pair.loop.send([UInt8(round)])
            #expect(try pair.server.open(&wire) == .data([UInt8(round)]))
        }
        #expect(pair.loop.received == [0, 1, 2, 3])
    }

    @Test func `survive seeded noise`() throws {
        var random = SplitMix64(seed: 11)
        for _ in 0..<3000 {
            var pair = try OraclePair(Suite.allCases.randomElement(using: &random) ?? .aes128GCM)
            var wire: [UInt8] = []
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let content = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                wire += pair.client.seal([20, 21, 22, 23, 23, 24].randomElement(using: &random) ?? 23, content)
            }
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                wire[Int.random(in: 0..<wire.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            while !wire.isEmpty {
                let chunk = Array(wire.prefix(Int.random(in: 1...60, using: &random)))
                wire.removeFirst(chunk.count)
                pair.loop.run(chunk)
                if Int.random(in: 0..<8, using: &random) == 0 { pair.loop.session.close() }
                // Whatever state it has come to, it can be written down and read again.
                try pair.loop.move()
                if Bool.random(using: &random) { _ = pair.loop.pending() }
            }
            _ = pair.loop.pending()
            try pair.loop.move()
        }
    }
}
