import Shared
import Testing

@testable import worker

@Suite struct `Messages of a move` {
    private static let key = [UInt8](0..<32)
    private static let charge = AddressCharge(narrow: AddressToken(bits: 9), wide: AddressToken(bits: .max))

    static let every: [MoveMessage] = [
        .complete(room: [7, 8], charge: charge, activeAt: 0x0403_0201, quietSince: 5),
        .complete(room: [UInt8](repeating: 255, count: 256), charge: .none, activeAt: 0, quietSince: 5),
        .hostKey(room: [7], publicKey: key, expiry: 0x0807_0605_0403_0201),
        .hostKey(room: [UInt8](repeating: 0, count: 256), publicKey: key, expiry: .max),
        .done(source: 0), .done(source: 255),
    ]

    private func error(_ bytes: [UInt8]) -> ByteCodingError? {
        do throws(ByteCodingError) {
            _ = try MoveMessage(bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: every) func `are the same on the other side`(message: MoveMessage) throws {
        #expect(try MoveMessage(message.bytes) == message)
    }

    @Test func `are written by the byte map`() {
        let head = Array("RLYR".utf8) + [2, 0]
        let counted: [UInt8] = [9, 0, 0, 0, 0, 0, 0, 0] + Array(repeating: 255, count: 8)
        let nowhere = [UInt8](repeating: 0, count: 16)
        #expect(
            Self.every[0].bytes
                == head + [1, 0] + counted + [2, 0, 0, 0, 7, 8, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0])
        #expect(
            Self.every[2].bytes
                == head + [2, 0] + nowhere + [1, 0, 0, 0, 7, 32, 0, 0, 0] + Self.key + [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(MoveMessage.done(source: 0x0102).bytes == head + [3, 0] + nowhere + [2, 1, 0, 0])
        for message in Self.every {
            let charge = AddressCharge(inMessage: message.bytes.span.bytes)
            if case .complete(_, let expected, _, _) = message {
                #expect(charge == expected)
            } else {
                #expect(charge == .none)
            }
        }
    }

    @Test(arguments: every) func `are refused at every truncation and with anything behind them`(message: MoveMessage) {
        let bytes = message.bytes
        for end in 0..<bytes.count { #expect(error(Array(bytes[..<end])) == .truncated, "\(end) of \(bytes.count)") }
        #expect(error(bytes + [0]) == .trailing(count: 1))
        #expect(error(bytes + bytes) == .trailing(count: bytes.count))
    }

    @Test func `are refused in any other form`() {
        let good = MoveMessage.done(source: 1).bytes
        for (index, value, field) in [
            (0, 0, "format"), (3, UInt8(ascii: "M"), "format"), (4, 0, "version"), (4, 1, "version"), (5, 1, "version"),
            (6, 0, "kind"), (6, 4, "kind"), (6, 255, "kind"), (7, 1, "kind"), (8, 1, "charge"), (23, 1, "charge"),
        ] as [(Int, UInt8, StaticString)] {
            var bytes = good
            bytes[index] = value
            #expect(error(bytes) == .invalid(field: field))
        }
    }

    @Test func `keep to their limits`() {
        for count in [0, 257] {
            let room = [UInt8](repeating: 1, count: count)
            #expect(
                error(MoveMessage.complete(room: room, charge: .none, activeAt: 1, quietSince: 5).bytes)
                    == .invalid(field: "room"))
            #expect(
                error(MoveMessage.hostKey(room: room, publicKey: Self.key, expiry: 1).bytes) == .invalid(field: "room"))
        }
        for count in [0, 31, 33] {
            let key = [UInt8](repeating: 1, count: count)
            #expect(
                error(MoveMessage.hostKey(room: [1], publicKey: key, expiry: 1).bytes) == .invalid(field: "host key"))
        }
        for source in [256, 0xFFFF_FFFF] {
            #expect(error(MoveMessage.done(source: source).bytes) == .invalid(field: "source"))
        }
    }

    @Test func `never trap, whatever the bytes`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<10_000 {
            let bytes = mutate(Self.every[round % Self.every.count].bytes, &random)
            do throws(ByteCodingError) {
                #expect(try MoveMessage(bytes).bytes == bytes, "seed \(seed), round \(round): every byte has a meaning")
            } catch {
                continue
            }
        }
    }
}
