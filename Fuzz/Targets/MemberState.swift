// A member of a room that moves, the session in it, and what else comes in an inbox then.

import Glibc

@testable import Shared
@testable import worker

private func socket() -> Descriptor { Descriptor(owning: open("/dev/null", O_RDONLY | O_CLOEXEC)) }

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    let room = Room(id: [114], hostKey: [UInt8](repeating: 2, count: 32), share: 0, source: 0, now: 0)
    func message(_ session: [UInt8], _ fill: (inout Connection) -> Void) -> [UInt8] {
        var connection = Connection(
            socket: socket(), peer: Address(high: 1, low: 2), isSecure: !session.isEmpty, now: 9)
        connection.phase = .open
        connection.peerID = [3]
        fill(&connection)
        var message = ByteQueue()
        _ = try? MemberState.encode(connection, SharedBlocks(), room: room, sessionBytes: session.count, into: &message)
        message.append(session)
        return message.array
    }
    let session = sessionBytes(suite: 0x1301, waiting: [23, 3, 3])
    plantSeeds([
        message([]) { _ in }, message(session) { $0.sealed.append([23, 3, 3, 0, 1, 7]) },
        message([]) {
            // A frame that is cut, behind a voice frame and a data frame that wait.
            let frames: [UInt8] = [0x82, 3, 0x4B, 0x56, 1]
            var blocks = SharedBlocks()
            $0.outbox.appendVoice(frames.span.bytes, sent: 1, &blocks)
            $0.outbox.appendData(frames.span.bytes, sent: 0, &blocks)
            $0.outbox.appendControl([0x8A, 0])
            var offset = 0
            let half: [UInt8] = [0x01, 0x84, 1, 2, 3, 4, 9, 9]
            if case .piece(_, _, _) = $0.frames.next(half.span.bytes, &offset, messageBytesMax: 100) {
                $0.message.append([8, 8])
            }
        },
        MoveMessage.complete(room: [1], charge: .none, activeAt: 2, quietSince: 3).bytes,
        MoveMessage.done(source: 1).bytes,
        MoveMessage.hostKey(room: [1], publicKey: [UInt8](repeating: 2, count: 32), expiry: 3).bytes,
    ])
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    withCopy(bytes, count) { input in
        let whole = UnsafeRawBufferPointer(input)
        if let moved = try? MoveMessage(Array(whole)) {
            precondition(moved.bytes == Array(whole), "a message of a move is written as it was read")
        }
        guard let member = try? MemberState.decode(whole.bytes, socket: socket(), file: nil, now: 1000) else { return }
        let session = member.session
        precondition(session.isEmpty || session.upperBound <= whole.count, "a session beyond the message")
        if !session.isEmpty { _ = try? TLSSession(decoding: UnsafeRawBufferPointer(rebasing: whole[session])) }
        // It goes on: whatever comes next, and whatever leaves.
        var connection = (consume member).connection
        let next = [UInt8](repeating: 0x82, count: 300)
        var offset = 0
        for _ in 0..<300 {
            if case .needMore = connection.frames.next(next.span.bytes, &offset, messageBytesMax: 1 << 20) { break }
        }
        var blocks = SharedBlocks()
        while !connection.outbox.isEmpty { connection.outbox.consume(min(3, connection.outbox.count), &blocks) }
    }
    return 0
}
