import Glibc
import Shared
import Testing

@testable import worker

/// What a decoded connection is, without its socket.
private struct Decoded: Equatable {
    var peer: Address
    var acceptedAt: UInt32
    var hops: UInt8
    var input: [UInt8]
    var output: [UInt8] = []
    /// The session's bytes, as they are.
    var session: [UInt8] = []
    var charge = AddressCharge.none
    /// Nil where it is the peer.
    var client: Address?
    var isAnnounced = false
}

@Suite struct `Connections on their way to another worker` {
    private func decode(_ bytes: [UInt8], now: UInt32 = .max) throws -> Decoded {
        // The far end closes with the pair: decoding looks at no socket.
        let (near, far) = try StreamPair().split()
        _ = close(far)
        let decoded = try ConnectionState.decode(bytes.span.bytes, socket: Descriptor(owning: near), now: now)
        #expect(decoded.connection.socket.number == near)
        let phase = decoded.connection.phase
        #expect(phase == (bytes[6] == 1 ? .proxyHeader : .request))
        #expect(decoded.connection.room == Room.none)
        #expect(decoded.connection.session == Connection.noSession)
        #expect(decoded.connection.isSecure == (bytes[80] & 2 != 0))
        return Decoded(
            peer: decoded.connection.peer, acceptedAt: decoded.connection.acceptedAt, hops: decoded.connection.hops,
            input: decoded.connection.input.array, output: decoded.connection.sealed.array,
            session: Array(bytes[decoded.session]), charge: decoded.connection.addressCharge,
            client: decoded.connection.client == decoded.connection.peer ? nil : decoded.connection.client,
            isAnnounced: decoded.connection.isAnnounced)
    }

    private func error(_ bytes: [UInt8]) -> ConnectionStateError? {
        do {
            _ = try decode(bytes)
            return nil
        } catch {
            return error as? ConnectionStateError
        }
    }

    private func encode(
        _ peer: Address, acceptedAt: UInt32 = 1, hops: UInt8 = 0, input: [UInt8] = [], output: [UInt8] = [],
        session: [UInt8] = [], charge: AddressCharge = .none, client: Address? = nil, isAnnounced: Bool = false
    ) throws -> [UInt8] {
        let (near, far) = try StreamPair().split()
        _ = close(far)
        var connection = Connection(
            socket: Descriptor(owning: near), peer: peer, isSecure: !session.isEmpty, now: acceptedAt)
        connection.phase = .request
        connection.hops = hops
        connection.handoffAt = 0x0807_0605_0403_0201
        connection.addressCharge = charge
        connection.client = client ?? peer
        connection.isAnnounced = isAnnounced
        connection.input.append(input)
        connection.sealed.append(output)
        var message = ByteQueue()
        ConnectionState.encode(connection, sessionBytes: session.count, into: &message)
        let before = message.capacity
        message.append(session)
        #expect(message.capacity == before, "a session has had room from the start: growing would leave a copy of it")
        return message.array
    }

    /// A message by its byte map.
    private func message(
        magic: String = "RLYC", version: UInt16 = 6, phase: UInt8 = 0, hops: UInt8 = 1, count: Int? = nil,
        input: [UInt8] = Array("GET /".utf8), output: [UInt8] = [], outputCount: Int? = nil, session: [UInt8] = [],
        sessionCount: Int? = nil, token: UInt64 = 0, client: [UInt8]? = nil, flags: UInt8? = nil
    ) -> [UInt8] {
        let peer: [UInt8] = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42]
        let tail = (client ?? peer) + [flags ?? (session.isEmpty ? 0 : 2)]
        let counts = [count ?? input.count, outputCount ?? output.count, sessionCount ?? session.count]
        let head = Array(magic.utf8) + [UInt8(version & 0xFF), UInt8(version >> 8), phase, hops]
        let accepted: [UInt8] = [0x78, 0x56, 0x34, 0x12]
        let place = [token, 3 * token].flatMap { word in (0..<8).map { UInt8(word >> (8 * $0) & 0xFF) } }
        let words = counts.flatMap { count in (0..<4).map { UInt8(count >> (8 * $0) & 0xFF) } }
        return head + place + peer + accepted + words + (1...8) + tail + input + output + session
    }

    @Test func `are written by the byte map`() throws {
        let peer = try #require(Address("2001:db8::42"))
        let input = Array("GET /".utf8)
        #expect(try encode(peer, acceptedAt: 0x1234_5678, input: input) == message())
        #expect(try encode(peer, acceptedAt: 0x1234_5678, hops: 2, input: input) == message(hops: 3))
        let (output, session): ([UInt8], [UInt8]) = ([23, 3, 3], [1, 2, 3, 4, 5])
        #expect(
            try encode(peer, acceptedAt: 0x1234_5678, input: input, output: output, session: session)
                == message(output: output, session: session))
        let token: UInt64 = 0x0102_0304_0506_0708
        #expect(
            try encode(
                peer, acceptedAt: 0x1234_5678, input: input,
                charge: AddressCharge(
                    narrow: AddressToken(bits: token), wide: AddressToken(bits: 3 * token)))
                == message(token: token))
        #expect(ConnectionState.headBytes == message(input: []).count)
    }

    @Test func `say in their first bytes where their address is counted`() throws {
        let counted = AddressCharge(narrow: AddressToken(bits: .max - 1), wide: AddressToken(bits: 7))
        let bytes = try encode(try #require(Address("2001:db8::42")), input: [1, 2, 3], charge: counted)
        #expect(try decode(bytes).charge == counted)
        #expect(Array(bytes[8..<24]) == [0xFE] + [UInt8](repeating: 0xFF, count: 7) + [7, 0, 0, 0, 0, 0, 0, 0])
        #expect(AddressCharge(inMessage: bytes.span.bytes) == counted)
        for end in 0..<24 { #expect(AddressCharge(inMessage: Array(bytes[..<end]).span.bytes) == .none) }
    }

    @Test(arguments: ["192.0.2.1", "2001:db8::1", "::", "255.255.255.255", "ffff::ffff"])
    func `are the same on the other side, one hop farther`(peer: String) throws {
        let peer = try #require(Address(peer))
        for input in [[], [0], Array("GET / HTTP/1.1\r\n\r\n".utf8), [UInt8](repeating: 0xFF, count: 98_565)] {
            for hops in [0, 1, 2] as [UInt8] {
                let decoded = try decode(try encode(peer, acceptedAt: 99, hops: hops, input: input), now: 100)
                #expect(decoded == Decoded(peer: peer, acceptedAt: 99, hops: hops + 1, input: input))
                let (output, session) = ([UInt8](repeating: 1, count: 32_768), [UInt8](repeating: 2, count: 17_000))
                let secure = try encode(
                    peer, acceptedAt: 99, hops: hops, input: input, output: output, session: session)
                #expect(secure.count <= Limits.receiveBufferBytes)
                #expect(
                    try decode(secure, now: 100)
                        == Decoded(
                            peer: peer, acceptedAt: 99, hops: hops + 1, input: input, output: output, session: session))
            }
        }
    }

    @Test func `that have begun to say hello over TLS go on with it on the other side, and have not hopped`() throws {
        let (near, far) = try StreamPair().split()
        _ = close(far)
        let peer = try #require(Address("2001:db8::42"))
        var connection = Connection(socket: Descriptor(owning: near), peer: peer, isSecure: true, now: 0x1234_5678)
        connection.handoffAt = 0x0807_0605_0403_0201
        let hello = [UInt8](repeating: 22, count: Limits.tlsHelloBytesMax)
        connection.input.append(hello)
        var state = ByteQueue()
        ConnectionState.encode(connection, sessionBytes: 0, counts: false, into: &state)
        #expect(state.array == message(phase: 2, hops: 0, input: hello, flags: 2))
        let (socket, other) = try StreamPair().split()
        _ = close(other)
        let decoded = try ConnectionState.decode(
            state.array.span.bytes, socket: Descriptor(owning: socket), now: .max)
        let (phase, isSecure) = (decoded.connection.phase, decoded.connection.isSecure)
        #expect(phase == .handshake && isSecure)
        let hops = decoded.connection.hops
        #expect(hops == 0)
        #expect(decoded.connection.input.array == hello)
        #expect(error(message(phase: 2, input: [], output: [1], session: [1])) == .phase(2))
    }

    @Test func `bring the address that limits and logs go by, and who said it`() throws {
        let peer = try #require(Address("2001:db8::42"))
        let client = try #require(Address("192.0.2.7"))
        let input = Array("GET /".utf8)
        let bytes = [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF, 192, 0, 2, 7]
        for isAnnounced in [false, true] {
            let state = try encode(
                peer, acceptedAt: 0x1234_5678, input: input, client: client, isAnnounced: isAnnounced)
            #expect(state == message(client: bytes, flags: isAnnounced ? 1 : 0))
            let decoded = try decode(state)
            #expect(decoded.client == client && decoded.isAnnounced == isAnnounced && decoded.peer == peer)
        }
        #expect(try decode(message(session: [1], flags: 3)).isAnnounced)
        for flags in [4, 128, 255] as [UInt8] { #expect(error(message(flags: flags)) == .flags(flags)) }
        // TLS needs its session, and nothing else has one.
        #expect(error(message(flags: 2)) == .flags(2))
        #expect(error(message(session: [1], flags: 1)) == .flags(1))
        #expect(error(message(phase: 2, input: [], flags: 0)) == .phase(2))
    }

    @Test func `whose PROXY header has not come whole bring what has come of it`() throws {
        for (isSecure, input) in [(false, []), (true, Array("PROXY TCP4 1".utf8))] as [(Bool, [UInt8])] {
            let (near, far) = try StreamPair().split()
            _ = close(far)
            var connection = Connection(
                socket: Descriptor(owning: near), peer: try #require(Address("2001:db8::42")), isSecure: isSecure,
                now: 0x1234_5678)
            connection.phase = .proxyHeader
            connection.handoffAt = 0x0807_0605_0403_0201
            connection.input.append(input)
            var state = ByteQueue()
            ConnectionState.encode(connection, sessionBytes: 0, counts: false, into: &state)
            #expect(state.array == message(phase: 1, hops: 0, input: input, flags: isSecure ? 2 : 0))
            #expect(try decode(state.array).input == input)
        }
        let max = Limits.proxyHeaderBytesMax
        #expect(error(message(phase: 1, input: [UInt8](repeating: 1, count: max - 1))) == nil)
        #expect(error(message(phase: 1, input: [UInt8](repeating: 1, count: max))) == .phase(1))
        #expect(error(message(phase: 1, session: [1])) == .phase(1))
    }

    @Test func `tell when they were to leave`() throws {
        let (near, far) = try StreamPair().split()
        defer { _ = close(far) }
        let decoded = try ConnectionState.decode(message().span.bytes, socket: Descriptor(owning: near), now: .max)
        #expect(decoded.connection.handoffAt == 0x0807_0605_0403_0201)
    }

    @Test func `were not accepted in the future, whatever they say`() throws {
        #expect(try decode(message(), now: 0x1234_5679).acceptedAt == 0x1234_5678)
        #expect(try decode(message(), now: 0x1234_5678).acceptedAt == 0x1234_5678)
        #expect(try decode(message(), now: 0x1234_5677).acceptedAt == 0x1234_5677)
        #expect(try decode(message(), now: 0).acceptedAt == 0)
    }

    @Test func `are refused at every truncation`() throws {
        for bytes in [message(), message(output: [9], session: [8, 8, 8])] {
            for end in 0..<bytes.count {
                #expect(error(Array(bytes[..<end])) == .truncated, "\(end) of \(bytes.count) bytes")
            }
            #expect(error(bytes) == nil)
        }
    }

    @Test func `are refused if they have been handed over more often than allowed`() {
        #expect(error(message(hops: UInt8(Limits.handoffHopsMax))) == nil)
        for hops in [UInt8(Limits.handoffHopsMax) + 1, .max] { #expect(error(message(hops: hops)) == .hops(hops)) }
    }

    @Test func `are refused with something behind them`() {
        #expect(error(message() + [0]) == .trailing(1))
        #expect(error(message(count: 0)) == .trailing(5))
        #expect(error(message(count: 4)) == .trailing(1))
        #expect(error(message(count: 6)) == .truncated)
        #expect(error(message(session: [1, 2], sessionCount: 1)) == .trailing(1))
        #expect(error(message(session: [1, 2], sessionCount: 3)) == .truncated)
        #expect(error(message(session: [1, 2], sessionCount: 0xFFFF_FFFF)) == .truncated)
    }

    @Test func `bring output with a session only, and a bounded amount`() throws {
        #expect(error(message(output: [1])) == .outputWithoutSession)
        let max = 32_768
        #expect(Limits.handoffOutputBytesMax == max)
        let most = [UInt8](repeating: 1, count: max)
        #expect(try decode(message(output: most, session: [1])).output == most)
        #expect(error(message(output: most + [1], session: [1])) == .outputTooLong(max + 1))
        #expect(error(message(outputCount: 0xFFFF_FFFF, session: [1])) == .outputTooLong(0xFFFF_FFFF))
    }

    @Test func `are refused in any other form`() {
        #expect(error(message(magic: "RLYD")) == .unknownFormat)
        #expect(error(message(magic: "CYLR")) == .unknownFormat)
        #expect(error([UInt8](repeating: 0, count: 81)) == .unknownFormat)
        for version in [0, 1, 4, 5, 7, 0x0100, 0xFFFF] as [UInt16] {
            #expect(error(message(version: version)) == .version(version))
        }
        // 2 is TLS that has begun to say hello at the most.
        for phase in [2, 3, 255] as [UInt8] { #expect(error(message(phase: phase)) == .phase(phase)) }
        let hello = [UInt8](repeating: 22, count: Limits.tlsHelloBytesMax)
        #expect(error(message(phase: 2, input: hello + [22], flags: 2)) == .phase(2))
    }

    @Test func `bring as much input as a head and a read are, and not a byte more`() throws {
        let max = 16_384 + 65_536 + 16_645
        #expect(Limits.handoffInputBytesMax == max)
        let most = [UInt8](repeating: 7, count: max)
        #expect(try decode(message(input: most)).input == most)
        #expect(error(message(input: most + [7])) == .inputTooLong(max + 1))
        // Before the bytes are looked for.
        #expect(error(message(count: max + 1)) == .inputTooLong(max + 1))
        #expect(error(message(count: 0xFFFF_FFFF)) == .inputTooLong(0xFFFF_FFFF))
        #expect(error(message(count: max)) == .truncated)
    }

    @Test func `own their socket, and close it when they are refused`() throws {
        for (bytes, isRefused) in [(message(), false), (message(version: 1), true), ([], true)] {
            let (near, far) = try StreamPair().split()
            defer { _ = close(far) }
            var byte: UInt8 = 0
            do {
                let decoded = try ConnectionState.decode(
                    bytes.span.bytes, socket: Descriptor(owning: near), now: .max)
                #expect(!isRefused)
                #expect(decoded.connection.socket.number == near)
                #expect(read(far, &byte, 1) == -1 && errno == EAGAIN)
            } catch {
                #expect(isRefused)
            }
            #expect(read(far, &byte, 1) == 0, "the near end is closed with the connection, or instead of it")
        }
    }

    @Test func `never make a worker trap, whatever the bytes`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<5000 {
            var bytes = message(input: [UInt8](repeating: 1, count: Int.random(in: 0...40, using: &random)))
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                guard !bytes.isEmpty else { break }
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: index)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                }
            }
            do {
                // What is taken is what was sent: every byte of it has a meaning.
                let decoded = try decode(bytes)
                #expect(
                    decoded.input + decoded.output + decoded.session == Array(bytes[81...]),
                    "seed \(seed), round \(round)")
                #expect(decoded.hops == bytes[7], "seed \(seed), round \(round)")
            } catch {
                #expect(error is ConnectionStateError, "seed \(seed), round \(round)")
            }
        }
    }
}
