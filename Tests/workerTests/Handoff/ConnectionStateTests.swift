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
}

@Suite struct `Connections on their way to another worker` {
    private func decode(_ bytes: [UInt8], now: UInt32 = .max) throws -> Decoded {
        // The far end closes with the pair: decoding looks at no socket.
        let (near, far) = try StreamPair().split()
        _ = close(far)
        let connection = try ConnectionState.decode(bytes.span.bytes, socket: Descriptor(owning: near), now: now)
        #expect(connection.socket.number == near)
        #expect(connection.phase == .request)
        #expect(connection.room == Room.none)
        return Decoded(
            peer: connection.peer, acceptedAt: connection.acceptedAt, hops: connection.hops,
            input: connection.input.array)
    }

    private func error(_ bytes: [UInt8]) -> ConnectionStateError? {
        do {
            _ = try decode(bytes)
            return nil
        } catch {
            return error as? ConnectionStateError
        }
    }

    private func encode(_ peer: Address, acceptedAt: UInt32 = 1, hops: UInt8 = 0, input: [UInt8] = []) throws -> [UInt8]
    {
        let (near, far) = try StreamPair().split()
        _ = close(far)
        var connection = Connection(socket: Descriptor(owning: near), peer: peer, now: acceptedAt)
        connection.hops = hops
        connection.input.append(input)
        var message = ByteQueue()
        ConnectionState.encode(connection, into: &message)
        return message.array
    }

    /// A message by its byte map.
    private func message(
        magic: String = "RLYC", version: UInt16 = 1, phase: UInt8 = 0, hops: UInt8 = 1, count: Int? = nil,
        input: [UInt8] = Array("GET /".utf8)
    ) -> [UInt8] {
        let peer: [UInt8] = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42]
        let count = UInt32(count ?? input.count)
        let head = Array(magic.utf8) + [UInt8(version & 0xFF), UInt8(version >> 8), phase, hops]
        let accepted: [UInt8] = [0x78, 0x56, 0x34, 0x12]
        return head + peer + accepted + (0..<4).map { UInt8(count >> (8 * $0) & 0xFF) } + input
    }

    @Test func `are written by the byte map`() throws {
        let peer = try #require(Address("2001:db8::42"))
        let input = Array("GET /".utf8)
        #expect(try encode(peer, acceptedAt: 0x1234_5678, input: input) == message())
        #expect(try encode(peer, acceptedAt: 0x1234_5678, hops: 2, input: input) == message(hops: 3))
        #expect(ConnectionState.headBytes == message(input: []).count)
    }

    @Test(arguments: ["192.0.2.1", "2001:db8::1", "::", "255.255.255.255", "ffff::ffff"])
    func `are the same on the other side, one hop farther`(peer: String) throws {
        let peer = try #require(Address(peer))
        for input in [[], [0], Array("GET / HTTP/1.1\r\n\r\n".utf8), [UInt8](repeating: 0xFF, count: 81_920)] {
            for hops in [0, 1, 2] as [UInt8] {
                let decoded = try decode(try encode(peer, acceptedAt: 99, hops: hops, input: input), now: 100)
                #expect(decoded == Decoded(peer: peer, acceptedAt: 99, hops: hops + 1, input: input))
            }
        }
    }

    @Test func `were not accepted in the future, whatever they say`() throws {
        #expect(try decode(message(), now: 0x1234_5679).acceptedAt == 0x1234_5678)
        #expect(try decode(message(), now: 0x1234_5678).acceptedAt == 0x1234_5678)
        #expect(try decode(message(), now: 0x1234_5677).acceptedAt == 0x1234_5677)
        #expect(try decode(message(), now: 0).acceptedAt == 0)
    }

    @Test func `are refused at every truncation`() throws {
        let bytes = message()
        for end in 0..<bytes.count {
            #expect(error(Array(bytes[..<end])) == .truncated, "\(end) of \(bytes.count) bytes")
        }
        #expect(error(bytes) == nil)
    }

    @Test func `are refused with something behind them`() {
        #expect(error(message() + [0]) == .trailing(1))
        #expect(error(message(count: 0)) == .trailing(5))
        #expect(error(message(count: 4)) == .trailing(1))
        #expect(error(message(count: 6)) == .truncated)
    }

    @Test func `are refused in any other form`() {
        #expect(error(message(magic: "RLYD")) == .unknownFormat)
        #expect(error(message(magic: "CYLR")) == .unknownFormat)
        #expect(error([UInt8](repeating: 0, count: 32)) == .unknownFormat)
        for version in [0, 2, 0x0100, 0xFFFF] as [UInt16] {
            #expect(error(message(version: version)) == .version(version))
        }
        for phase in [1, 2, 255] as [UInt8] { #expect(error(message(phase: phase)) == .phase(phase)) }
    }

    @Test func `bring as much input as a head and a read are, and not a byte more`() throws {
        let max = 16_384 + 65_536
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
        for (bytes, isRefused) in [(message(), false), (message(version: 2), true), ([], true)] {
            let (near, far) = try StreamPair().split()
            defer { _ = close(far) }
            var byte: UInt8 = 0
            do {
                let connection = try ConnectionState.decode(
                    bytes.span.bytes, socket: Descriptor(owning: near), now: .max)
                #expect(!isRefused)
                #expect(connection.socket.number == near)
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
                #expect(decoded.input == Array(bytes[32...]), "seed \(seed), round \(round)")
                #expect(decoded.hops == bytes[7], "seed \(seed), round \(round)")
            } catch {
                #expect(error is ConnectionStateError, "seed \(seed), round \(round)")
            }
        }
    }
}
