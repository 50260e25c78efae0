// What a client sends after the handshake. The input is a script: what stands in a record is sealed with the right key, so that
// what lies behind the tag is reached, and bytes may be broken before they are read, in pieces. Between them the session moves.
//
//     suite, then steps: operation, argument, and for some a count with as many bytes
//
//     0 record    a TLSInnerPlaintext of these bytes and the argument as type (mostly: 21, 22, 23), sealed
//     1 raw       these bytes as they are
//     2 flip      changes a byte of what waits to be read
//     3 read      the session reads what waits
//     4 move      written down and made again
//     5 padded    as 0, with zeros behind the type
//     6 answer    what is owed is sealed
//     7 close     close_notify is owed; 8 trims

import COpenSSL

@testable import Shared
@testable import worker

/// Hands out an input's bytes; zeros when they are used up.
private struct Script {
    let bytes: [UInt8]
    var offset = 0

    var isOver: Bool { offset >= bytes.count }

    mutating func next() -> UInt8 {
        guard offset < bytes.count else { return 0 }
        defer { offset += 1 }
        return bytes[offset]
    }

    mutating func take() -> [UInt8] {
        // Longer than a record may be, sometimes: that is a rule to be checked too.
        let wanted = Int(next()) << 8 | Int(next())
        let taken = Array(bytes[min(offset, bytes.count)..<min(offset + wanted % 17_000, bytes.count)])
        offset += taken.count
        return taken
    }
}

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    func record(_ type: UInt8, _ content: [UInt8]) -> [UInt8] {
        [0, type, UInt8(content.count >> 8), UInt8(content.count & 255)] + content
    }
    let read: [UInt8] = [3, 0]
    let data = record(23, Array("hello".utf8))
    let update = record(22, [24, 0, 0, 1, 1])
    plantSeeds([
        [0] + data + read, [1] + data + [5, 23, 0, 2, 65, 66] + read, [2] + update + read + [6, 0] + read,
        [0] + data + [4, 0] + data + read + [4, 0, 6, 0], [0] + record(21, [1, 0]) + read + [7, 0, 6, 0],
        [1] + record(22, [24, 0]) + read + [4, 0] + record(22, [0, 1, 0]) + read + data + read,
        [2] + data + [2, 7] + read + [6, 0], [0, 1, 0, 0, 5, 23, 3, 3, 0, 20] + read + [4, 0, 8, 0],
    ])
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var script = Script(bytes: Array(UnsafeBufferPointer(start: bytes, count: count)))
    let suite = Suite.allCases[Int(script.next()) % 3]
    let secret = [UInt8](repeating: 7, count: suite.hashBytes)
    guard let ciphers = try? RecordCiphers() else { fatalError("libcrypto lacks a cipher") }
    secret.withUnsafeBytes { secret in
        var session = TLSSession(suite, clientSecret: secret, serverSecret: secret, writeSequence: 0)
        var client = RecordProtection(suite, secret: secret, sequence: 0, seals: true)
        var waiting: [UInt8] = []
        for _ in 0..<64 where !script.isOver {
            let operation = script.next()
            let argument = script.next()
            switch operation % 9 {
            case 0, 5:
                let content = script.take()
                let type = argument < 16 ? [22, 23, 21, 20][Int(argument) % 4] : argument
                let inner = content + [type] + [UInt8](repeating: 0, count: operation % 9 == 5 ? Int(argument) : 0)
                guard inner.count + 16 <= 17_500, waiting.count < 40_000 else { continue }
                var record = [23, 3, 3, UInt8((inner.count + 16) >> 8), UInt8((inner.count + 16) & 255)] + inner
                record += [UInt8](repeating: 0, count: 16)
                let isSealed = record.withUnsafeMutableBytes { buffer in
                    buffer.baseAddress.map { client.seal($0, inner.count, ciphers) }
                }
                precondition(isSealed == true, "the client's record is sealed")
                waiting += record
                // The client renews its key with its message; one that is not well-formed is refused before it matters.
                if type == 22, content.suffix(5).starts(with: [24, 0, 0, 1]) { client.renew(ciphers) }
            case 1:
                guard waiting.count < 40_000 else { continue }
                waiting += script.take()
            case 2:
                guard !waiting.isEmpty else { continue }
                waiting[Int(argument) * waiting.count / 256] ^= 1 << (argument % 8)
            case 3:
                read(&session, &waiting, piece: argument == 0 ? waiting.count : Int(argument), ciphers)
            case 4:
                session = move(session)
            case 6:
                var output = ByteQueue()
                session.sealPending(into: &output, ciphers)
                precondition(!session.hasPending, "what was owed is sealed")
            case 7:
                session.close()
            default:
                session.trim()
            }
        }
    }
    return 0
}

private func move(_ session: consuming TLSSession) -> TLSSession {
    var message = ByteQueue()
    session.encode(into: &message)
    do {
        return try TLSSession(decoding: message.unsafeBytes)
    } catch {
        fatalError("a session that was written down can't be read: \(error)")
    }
}

/// As Worker.takeRecords does, a piece at a time.
private func read(
    _ session: inout TLSSession, _ waiting: inout [UInt8], piece: Int, _ ciphers: borrowing RecordCiphers
) {
    let wasOver = session.readState != .open
    while !waiting.isEmpty {
        let count = min(max(piece, 1), waiting.count, Limits.receiveBytesMax)
        let kept = session.partial.count
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: kept + count, alignment: 1)
        defer { buffer.deallocate() }
        let restored = session.restore(into: buffer)
        precondition(restored == kept, "all that was kept comes back")
        UnsafeMutableRawBufferPointer(rebasing: buffer[kept...]).copyBytes(from: waiting[..<count])
        waiting.removeFirst(count)
        var offset = 0
        steps: while true {
            let before = offset
            switch session.next(buffer, &offset, ciphers) {
            case .needMore:
                precondition(offset == buffer.count, "what is left is kept")
                precondition(session.partial.count <= Limits.tlsInputBytesMax, "more is kept than allowed")
                break steps
            case .data(let range):
                precondition(!wasOver, "data behind the end")
                precondition(!range.isEmpty && range.lowerBound >= before && range.upperBound <= offset, "elsewhere")
                precondition(range.count <= Record.plaintextBytesMax, "more than a record holds")
            case .closed, .violation, .peerAlert:
                precondition(session.readState != .open, "the end is the end")
                break steps
            }
        }
        if session.readState != .open { waiting.removeAll() }
    }
}
