import CLinux
import Glibc
import Shared
import Testing

@testable import worker

/// What a connection has understood of its bytes.
private enum Event: Equatable {
    case message([UInt8], isText: Bool)
    case control(Opcode, [UInt8])
}

/// Takes bytes as a worker takes them (WebSocket/Frames.swift).
private func feed(_ bytes: some Collection<UInt8>, _ connection: inout Connection, _ events: inout [Event]) {
    let bytes = Array(bytes)
    var offset = 0
    func unmasked(_ payload: MaskedPayload) -> [UInt8] {
        bytes[payload.range].enumerated().map { $1 ^ UInt8(payload.key >> UInt32(8 * ($0 % 4)) & 0xFF) }
    }
    while true {
        switch connection.frames.next(bytes.span.bytes, &offset, messageBytesMax: 1 << 20) {
        case .needMore: return
        case .message(let payload, let isText): events.append(.message(unmasked(payload), isText: isText))
        case .piece(let payload, let isText, let isLast):
            connection.message.append(unmasked(payload))
            guard isLast else { continue }
            events.append(.message(connection.message.array, isText: isText))
            connection.message.removeAll()
        case .control(let opcode, let payload, let isLast):
            connection.input.append(unmasked(payload))
            guard isLast else { continue }
            events.append(.control(opcode, connection.input.array))
            connection.input.release()
        case .violation, .tooBig:
            Issue.record("the bytes are good")
            return
        }
    }
}

/// What a decoded member is, without its socket.
private struct Decoded: Equatable {
    var peer: Address
    /// Nil where it is the peer.
    var client: Address?
    var isAnnounced = false
    var acceptedAt: UInt32 = 9
    var hasSaidData = false
    var pingDue: UInt32 = 20
    var heardAt: UInt32 = 0
    var roomSource: UInt64 = 0x0807_0605_0403_0201
    var room: [UInt8] = [1]
    var hostKey = [UInt8](repeating: 2, count: 32)
    var peerID: [UInt8] = [3]
    var input: [UInt8] = []
    var sealed: [UInt8] = []
    var message: [UInt8] = []
    var control: [UInt8] = []
    var voice: [UInt8] = []
    var data: [UInt8] = []
    var cut: Outbox.Cut?
    var voiceFrames = 0
    var session: [UInt8] = []
}

@Suite struct `Members on their way to another worker` {
    private static let peer = Address(high: 0x2001_0DB8_0000_0000, low: 0x42)
    private let key: [UInt8] = [0x11, 0x22, 0x33, 0x44]
    private let now: UInt32 = 1000

    private func connection(isSecure: Bool = false) throws -> Connection {
        let (near, far) = try StreamPair().split()
        _ = close(far)
        var connection = Connection(socket: Descriptor(owning: near), peer: Self.peer, isSecure: isSecure, now: 9)
        connection.phase = .open
        connection.peerID = [3]
        connection.pingDue = 20
        return connection
    }

    /// - Returns: the message, and the file beside it, which the caller closes.
    private func encode(
        _ connection: borrowing Connection, _ blocks: borrowing SharedBlocks = SharedBlocks(), room: [UInt8] = [1],
        session: [UInt8] = []
    ) throws -> (bytes: [UInt8], file: Int32?) {
        let room = Room(
            id: room, hostKey: [UInt8](repeating: 2, count: 32), share: 0, source: 0x0807_0605_0403_0201, now: 0)
        var message = ByteQueue()
        let file = try MemberState.encode(
            connection, blocks, room: room, sessionBytes: session.count, into: &message)
        let before = message.capacity
        message.append(session)
        #expect(message.capacity == before, "a session has had room from the start: growing would leave a copy of it")
        return (message.array, file)
    }

    private func decodeMember(_ bytes: [UInt8], file: Int32?) throws(MemberStateError) -> Member {
        guard let pair = try? StreamPair() else { fatalError("no sockets") }
        let (near, far) = pair.split()
        _ = close(far)
        return try MemberState.decode(bytes.span.bytes, socket: Descriptor(owning: near), file: file, now: now)
    }

    private func decode(_ bytes: [UInt8], file: Int32? = nil) throws(MemberStateError) -> Decoded {
        let member = try decodeMember(bytes, file: file)
        let phase = member.connection.phase
        #expect(phase == .open)
        let (isSecure, isBlocked) = (member.connection.isSecure, member.connection.outbox.isBlocked)
        #expect(isSecure == !member.session.isEmpty && !isBlocked)
        return Decoded(
            peer: member.connection.peer,
            client: member.connection.client == member.connection.peer ? nil : member.connection.client,
            isAnnounced: member.connection.isAnnounced, acceptedAt: member.connection.acceptedAt,
            hasSaidData: member.connection.hasSaidData, pingDue: member.connection.pingDue,
            heardAt: member.connection.heardAt, roomSource: member.roomSource, room: member.room,
            hostKey: member.hostKey,
            peerID: member.connection.peerID, input: member.connection.input.array,
            sealed: member.connection.sealed.array, message: member.connection.message.array,
            control: member.connection.outbox.control.array,
            voice: member.connection.outbox.voice.array(SharedBlocks()),
            data: member.connection.outbox.data.array(SharedBlocks()), cut: member.connection.outbox.cut,
            voiceFrames: member.connection.outbox.voiceFrames, session: Array(bytes[member.session]))
    }

    private func error(_ bytes: [UInt8], file: Int32? = nil) -> MemberStateError? {
        do throws(MemberStateError) {
            _ = try decode(bytes, file: file)
            return nil
        } catch {
            return error
        }
    }

    private func field(_ name: StaticString) -> MemberStateError { .malformed(.invalid(field: name)) }

    /// A message by its byte map.
    private struct Parts {
        var magic = "RLYM"
        var version: UInt16 = 4
        var padding = 0
        var token = [UInt8](repeating: 0, count: 32)
        /// Nil where it is the peer.
        var client: [UInt8]?
        var accepted: UInt32 = 9
        var flags: UInt8 = 0
        var pingDue: UInt32 = 20
        var unanswered: UInt32 = 0
        var room: [UInt8] = [1]
        var hostKey = [UInt8](repeating: 2, count: 32)
        var peerID: [UInt8] = [3]
        var frames = [UInt8](repeating: 0, count: 38)
        var lane: UInt8 = 0
        var cut = 0
        /// Input, sealed, message, control, voice, data.
        var queues = [[UInt8]](repeating: [], count: 6)
        var counts: [Int: Int] = [:]
        var session: [UInt8] = []
        var sessionCount: Int?
        var isInFile = false

        static func word(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

        var bytes: [UInt8] {
            var bytes = Array(magic.utf8) + [UInt8(version & 0xFF), UInt8(version >> 8)]
            bytes += [UInt8(padding), 0] + token
            let peer: [UInt8] = [0, 0, 0, 0, 0xB8, 0x0D, 0x01, 0x20, 0x42, 0, 0, 0, 0, 0, 0, 0]
            bytes += peer + (client ?? peer)
            bytes += Self.word(Int(accepted)) + [flags] + Self.word(Int(pingDue)) + Self.word(Int(unanswered))
            bytes += [1, 2, 3, 4, 5, 6, 7, 8]
            for part in [room, hostKey, peerID] { bytes += Self.word(part.count) + part }
            bytes += frames + [lane] + Self.word(cut)
            for index in 0..<6 { bytes += Self.word(counts[index] ?? queues[index].count) }
            bytes += Self.word(sessionCount ?? session.count)
            return bytes + (isInFile ? [] : Array(queues.joined())) + session
        }

        /// The frame state inside a message of which `taken` bytes have come and `left` are to come.
        mutating func beInside(opcode: UInt8, taken: Int, left: Int, messageOpcode: UInt8) {
            frames[15] = opcode
            frames[16] = 4 | (taken > 0 ? 2 : 0)
            frames.replaceSubrange(21..<25, with: Self.word(left))
            frames[29] = messageOpcode
            if messageOpcode != 0 { frames.replaceSubrange(30..<34, with: Self.word(taken + left)) }
        }
    }

    private func error(_ change: (inout Parts) -> Void) -> MemberStateError? {
        var parts = Parts()
        change(&parts)
        return error(parts.bytes)
    }

    private static func makeFile(_ bytes: [UInt8]) throws -> Descriptor {
        let file = Descriptor(owning: clinux_memfd("test"))
        try #require(write(file.number, bytes, bytes.count) == bytes.count)
        return file
    }

    // MARK: - The same on the other side

    @Test func `are written by the byte map`() throws {
        let plain = try connection()
        #expect(try encode(plain).bytes == Parts().bytes)
        var full = try connection(isSecure: true)
        full.hasSaidData = true
        full.heardAt = 0x0403_0201
        full.client = Address(ipv4: 0xC000_0207)
        full.isAnnounced = true
        full.peerID = Array("peer".utf8)
        var events: [Event] = []
        let fragment = Frame(isFinal: false, opcode: Frame.binary, payload: [7, 8, 9]).masked(key)
        feed(fragment.dropLast(), &full, &events)
        full.sealed.append([23, 3, 3])
        var blocks = SharedBlocks()
        full.outbox.appendControl([0x89, 0])
        full.outbox.appendVoice(([0x82, 2, 0x4B, 0x56] as [UInt8]).span.bytes, sent: 0, &blocks)
        full.outbox.appendData(([0x82, 2, 5, 6] as [UInt8]).span.bytes, sent: 3, &blocks)
        let encoded = try encode(full, room: Array("room".utf8), session: [1, 2, 3])
        var parts = Parts()
        parts.client = [0, 0, 0, 0, 0, 0, 0, 0, 7, 2, 0, 192, 0xFF, 0xFF, 0, 0]
        (parts.flags, parts.unanswered, parts.room) = (11, 0x0403_0201, Array("room".utf8))
        parts.peerID = Array("peer".utf8)
        // Two bytes are taken: the key has turned by two.
        parts.frames[15...20] = [2, 6, 0x33, 0x44, 0x11, 0x22]
        (parts.frames[21], parts.frames[29], parts.frames[30]) = (1, 2, 3)
        (parts.lane, parts.cut) = (2, 1)
        parts.queues = [[], [23, 3, 3], [7, 8], [0x89, 0], [0x82, 2, 0x4B, 0x56], [6]]
        parts.session = [1, 2, 3]
        #expect(encoded.bytes == parts.bytes)
        #expect(encoded.file == nil)
    }

    @Test func `with nothing under way are as they were`() throws {
        let plain = try connection()
        #expect(try decode(try encode(plain).bytes) == Decoded(peer: Self.peer))
    }

    @Test func `bring who they are, however long their names`() throws {
        for (room, peerID) in [(1, 0), (256, 256), (255, 1)] {
            var connection = try connection()
            connection.peerID = [UInt8](repeating: 0xFF, count: peerID)
            connection.hasSaidData = true
            (connection.pingDue, connection.heardAt) = (1020, 990)
            let id = [UInt8](repeating: 0xFE, count: room)
            let decoded = try decode(try encode(connection, room: id).bytes)
            #expect(
                decoded
                    == Decoded(
                        peer: Self.peer, hasSaidData: true, pingDue: 1020, heardAt: 990, room: id,
                        peerID: [UInt8](repeating: 0xFF, count: peerID)))
        }
    }

    @Test func `go on at every byte of what is said as if they had not moved`() throws {
        let frames = [
            Frame(opcode: Frame.text, payload: Array("whole".utf8)),
            Frame(isFinal: false, opcode: Frame.binary, payload: [1, 2, 3, 4, 5]),
            Frame(opcode: Frame.ping, payload: [9, 8, 7]),
            Frame(isFinal: false, opcode: Frame.continuation, payload: []),
            Frame(isFinal: false, opcode: Frame.continuation, payload: (0..<130).map { UInt8($0) }),
            Frame(opcode: Frame.pong, payload: []),
            Frame(opcode: Frame.continuation, payload: [6, 7]),
            Frame(opcode: Frame.binary, payload: [UInt8](repeating: 5, count: 200)),
            Frame(isFinal: false, opcode: Frame.text, payload: []),
            Frame(opcode: Frame.ping, payload: [UInt8](repeating: 4, count: 125)),
            Frame(opcode: Frame.continuation, payload: []),
            Frame(opcode: Frame.close, payload: [3, 0xE8]),
        ]
        let bytes = frames.flatMap { $0.masked(key) }
        try checkCuts(bytes, Array(0...bytes.count), messages: 8)
        // A length of 64 bits: every byte of its header is a place to cut.
        let long = Frame(opcode: Frame.binary, payload: [UInt8](repeating: 6, count: 65_536)).masked(key)
        try checkCuts(long, Array(0...15) + [long.count - 1, long.count], messages: 1)
    }

    private func checkCuts(_ bytes: [UInt8], _ cuts: [Int], messages: Int) throws {
        var unmoved = try connection()
        var expected: [Event] = []
        feed(bytes, &unmoved, &expected)
        #expect(expected.count == messages)
        for cut in cuts {
            var before = try connection()
            var events: [Event] = []
            feed(bytes[..<cut], &before, &events)
            let (message, file) = try encode(before)
            defer { if let file { _ = close(file) } }
            var moved = try decodeMember(message, file: file)
            feed(bytes[cut...], &moved.connection, &events)
            #expect(events == expected, "cut at \(cut)")
            let hasLeft = !moved.connection.message.isEmpty || !moved.connection.input.isEmpty
            let isIdle = moved.connection.frames.isBetweenMessages && !hasLeft
            #expect(isIdle, "cut at \(cut)")
        }
    }

    @Test func `bring what waits for them, from any byte on`() throws {
        let voice = (0..<64).flatMap { Frame(opcode: Frame.binary, payload: [0x4B, 0x56, UInt8($0)]).unmasked }
        let data = (0..<3).flatMap { Frame(opcode: Frame.binary, payload: [UInt8($0)]).unmasked }
        let control = Frame(opcode: Frame.ping, payload: []).unmasked
        for (voiceSent, dataSent) in (0...5).map({ ($0, 0) }) + (0...6).map({ (0, $0) }) {
            for controlSent in 0...2 {
                var blocks = SharedBlocks()
                var connection = try connection()
                connection.outbox.appendVoice(voice.span.bytes, sent: voiceSent, &blocks)
                connection.outbox.appendData(data.span.bytes, sent: dataSent, &blocks)
                let cut = connection.outbox.cut
                if cut == nil { connection.outbox.appendControl(Array(control.dropFirst(controlSent))) }
                let frames = connection.outbox.voiceFrames
                let expected = Decoded(
                    peer: Self.peer, control: cut == nil ? Array(control.dropFirst(controlSent)) : [],
                    voice: Array(voice.dropFirst(voiceSent)), data: Array(data.dropFirst(dataSent)), cut: cut,
                    voiceFrames: frames)
                #expect(try decode(try encode(connection).bytes) == expected)
            }
        }
    }

    @Test func `bring sealed bytes and a session`() throws {
        var connection = try connection(isSecure: true)
        var blocks = SharedBlocks()
        connection.sealed.append([UInt8](repeating: 4, count: 5000))
        connection.outbox.appendData(([0x82, 1, 1] as [UInt8]).span.bytes, sent: 0, &blocks)
        let session = [UInt8](repeating: 6, count: 92)
        let decoded = try decode(try encode(connection, session: session).bytes)
        #expect(
            decoded
                == Decoded(
                    peer: Self.peer, sealed: [UInt8](repeating: 4, count: 5000), data: [0x82, 1, 1], session: session))
    }

    @Test(arguments: [65_535, 65_536, 65_537, 70_000])
    func `have their queues in the message up to 64 KiB, and beyond that in a file`(queued: Int) throws {
        #expect(Limits.moveInlineBytesMax == 65_536)
        var connection = try connection(isSecure: true)
        let voice = Frame(opcode: Frame.binary, payload: [0x4B, 0x56, 1]).unmasked
        var blocks = SharedBlocks()
        connection.sealed.append([7, 8])
        connection.outbox.appendVoice(voice.span.bytes, sent: 0, &blocks)
        let length = queued - 2 - voice.count - 4
        let data = Frame(
            opcode: Frame.binary, payload: [UInt8](repeating: 5, count: length - (length > 65_535 ? 6 : 0))
        )
        .unmasked
        connection.outbox.appendData(data.span.bytes, sent: 0, &blocks)
        #expect(MemberState.queuedBytes(connection) == queued)
        let (bytes, file) = try encode(connection, session: [1, 2])
        defer { if let file { _ = close(file) } }
        #expect((file != nil) == (queued > 65_536))
        #expect(bytes.count < 65_536 + 512)
        #expect(bytes.suffix(2) == [1, 2])
        let decoded = try decode(bytes, file: file)
        #expect(
            decoded
                == Decoded(
                    peer: Self.peer, sealed: [7, 8], voice: voice, data: data, voiceFrames: 1, session: [1, 2]))
        guard let file else { return }
        // Its position is moved by nobody.
        #expect(try decode(bytes, file: file) == decoded)
        #expect(error(bytes) == .file(SystemError("recvmsg", EBADF)))
    }

    @Test func `have not come from the future, whatever they say`() throws {
        var parts = Parts()
        (parts.accepted, parts.pingDue, parts.unanswered) = (.max, .max, .max)
        let decoded = try decode(parts.bytes)
        #expect(decoded.acceptedAt == now && decoded.heardAt == now)
        #expect(decoded.pingDue == now + UInt32(Limits.pingSecondsRange.upperBound))
    }

    // MARK: - Refused

    @Test func `are refused at every truncation and with anything behind them`() throws {
        var parts = Parts()
        parts.flags = 2
        parts.queues = [[], [23, 3], [], [0x89, 0], [0x82, 0], [0x82, 0]]
        parts.session = [8, 8]
        let bytes = parts.bytes
        for end in 0..<bytes.count {
            #expect(error(Array(bytes[..<end])) == .malformed(.truncated), "\(end) of \(bytes.count)")
        }
        #expect(error(bytes) == nil)
        #expect(error(bytes + [0]) == .malformed(.trailing(count: 1)))
        #expect(error(bytes + bytes) == .malformed(.trailing(count: bytes.count)))
    }

    @Test func `are refused in any other form`() {
        for magic in ["RLYC", "RLYR", "MYLR"] { #expect(error { $0.magic = magic } == field("format")) }
        for version in [0, 1, 2, 3, 5, 0x0100] as [UInt16] {
            #expect(error { $0.version = version } == field("version"))
        }
        #expect(error { $0.padding = 1 } == field("format"))
        #expect(error { $0.token = [UInt8](1...32) } == nil)
        for flags in [16, 32, 128, 255] as [UInt8] { #expect(error { $0.flags = flags } == field("flags")) }
    }

    @Test func `have names within their limits`() {
        #expect(error { $0.room = [] } == field("room"))
        #expect(error { $0.room = [UInt8](repeating: 1, count: 257) } == field("room"))
        for count in [0, 31, 33] {
            #expect(error { $0.hostKey = [UInt8](repeating: 1, count: count) } == field("host key"))
        }
        #expect(error { $0.peerID = [UInt8](repeating: 1, count: 257) } == field("peer id"))
        #expect(error { $0.peerID = [] } == nil)
    }

    @Test func `have a session exactly when they speak TLS, and sealed bytes only then`() {
        #expect(error { $0.session = [1] } == field("session"))
        #expect(error { $0.flags = 2 } == field("session"))
        #expect(error { $0.queues[1] = [1] } == field("sealed"))
        #expect(
            error {
                $0.flags = 2
                $0.session = [1]
                $0.queues[1] = [1]
            } == nil)
        #expect(
            error {
                $0.flags = 2
                $0.session = [1]
                $0.sessionCount = 2
            } == .malformed(.truncated))
    }

    @Test func `have whole frames behind the rest of one that has begun`() {
        let frame: [UInt8] = [0x82, 3, 1, 2, 3]
        for queue in [4, 5] {
            let lane = UInt8(queue - 3)
            #expect(error { $0.queues[queue] = frame } == nil)
            for end in 1..<5 {
                #expect(error { $0.queues[queue] = Array(frame[..<end]) } == .output)
                #expect(
                    error {
                        $0.queues[queue] = Array(frame[end...]) + frame
                        ($0.lane, $0.cut) = (lane, 5 - end)
                    } == nil)
                #expect(
                    error {
                        $0.queues[queue] = Array(frame[end...]) + frame
                        ($0.lane, $0.cut) = (lane, 6 - end)
                    } == .output)
            }
            #expect(
                error {
                    $0.queues[queue] = [1, 2]
                    ($0.lane, $0.cut) = (lane, 3)
                } == .output, "a cut longer than its lane")
            #expect(
                error {
                    $0.queues[queue] = [1, 2]
                    ($0.lane, $0.cut) = (3 - lane, 2)
                } == .output, "a cut of the other lane")
            // A mask, and a length that no Int holds.
            #expect(error { $0.queues[queue] = [0x82, 0x80] } == .output)
            #expect(error { $0.queues[queue] = [0x82, 127] + [UInt8](repeating: 255, count: 8) } == .output)
        }
        #expect(error { $0.lane = 3 } == field("cut"))
        #expect(error { $0.lane = 1 } == field("cut"))
        #expect(error { $0.cut = 1 } == field("cut"))
    }

    @Test func `have 64 voice frames waiting at most, and the rest of one`() {
        func voice(_ count: Int) -> [UInt8] { Array([[UInt8]](repeating: [0x82, 0], count: count).joined()) }
        #expect(error { $0.queues[4] = voice(64) } == nil)
        #expect(error { $0.queues[4] = voice(65) } == .output)
        #expect(
            error {
                $0.queues[4] = [7] + voice(64)
                ($0.lane, $0.cut) = (1, 1)
            } == nil)
    }

    @Test func `have as much of a message as their frames say`() {
        for (taken, kept, isGood) in [(0, 0, true), (5, 5, true), (5, 4, false), (5, 6, false), (0, 1, false)] {
            let result = error { parts in
                parts.beInside(opcode: 2, taken: taken, left: 3, messageOpcode: 2)
                parts.queues[2] = [UInt8](repeating: 1, count: kept)
            }
            #expect(result == (isGood ? nil : field("message")))
        }
        #expect(error { $0.queues[2] = [1] } == field("message"), "between messages")
    }

    @Test func `have as much of a control frame as their frames say`() {
        for (left, kept, isGood) in [(1, 124, true), (1, 125, false), (125, 0, true), (125, 1, false), (100, 25, true)]
        {
            let result = error { parts in
                parts.beInside(opcode: 9, taken: kept, left: left, messageOpcode: 0)
                parts.queues[0] = [UInt8](repeating: 1, count: kept)
            }
            #expect(result == (isGood ? nil : field("input")))
        }
        #expect(error { $0.queues[0] = [1] } == field("input"), "between frames")
    }

    @Test func `have queues of a bounded length`() {
        let max = 2 << 30
        for queue in 0..<6 {
            #expect(error { $0.counts[queue] = max + 1 } != .malformed(.truncated))
            #expect(error { $0.counts[queue] = 0xFFFF_FFFF } != .malformed(.truncated))
        }
        for queue in 3..<6 {
            #expect(error { $0.counts[queue] = max } == .malformed(.truncated))
            #expect(error { $0.counts[queue] = max + 1 } == field("queue"))
        }
    }

    @Test func `are refused without their file, with one too many, and with one that does not hold them`() throws {
        let frame: [UInt8] = [0x82, 3, 1, 2, 3]
        var parts = Parts()
        parts.queues[5] = frame
        let inline = parts.bytes
        (parts.flags, parts.isInFile) = (4, true)
        let bytes = parts.bytes
        let missing = MemberStateError.file(SystemError("recvmsg", EBADF))
        #expect(error(bytes) == missing)
        let exact = try Self.makeFile(frame)
        #expect(error(inline, file: exact.number) == missing)
        #expect(try decode(bytes, file: exact.number).data == frame)
        for other in [[], Array(frame.dropLast()), frame + [0]] as [[UInt8]] {
            let file = try Self.makeFile(other)
            #expect(error(bytes, file: file.number) == .file(SystemError("fstat", EIO)))
        }
        // Not a file at all.
        let pair = try StreamPair()
        #expect(error(bytes, file: pair.near.number) == .file(SystemError("fstat", EIO)))
        // Memory is not taken for what a short file can't hold.
        parts.counts[5] = 2 << 30
        #expect(error(parts.bytes, file: exact.number) == .file(SystemError("fstat", EIO)))
    }

    @Test func `own their socket, and close it when they are refused`() throws {
        var noFrames = Parts()
        noFrames.queues[5] = [1]
        for (bytes, isRefused) in [(Parts().bytes, false), ([], true), (noFrames.bytes, true)] as [([UInt8], Bool)] {
            let (near, far) = try StreamPair().split()
            defer { _ = close(far) }
            var byte: UInt8 = 0
            do throws(MemberStateError) {
                let member = try MemberState.decode(
                    bytes.span.bytes, socket: Descriptor(owning: near), file: nil, now: now)
                #expect(!isRefused)
                #expect(member.connection.socket.number == near)
                #expect(read(far, &byte, 1) == -1 && errno == EAGAIN)
            } catch {
                #expect(isRefused)
            }
            #expect(read(far, &byte, 1) == 0, "the near end is closed with the connection, or instead of it")
        }
    }

    @Test func `that a worker refuses leave neither a descriptor nor a place in the quota taken`() throws {
        var fixture = try WorkerFixture()
        let count = fixture.worker.memory.connections.count
        let good = Parts().bytes
        // A file that nobody asked for, a truncated member, and nothing but its name.
        for (index, bytes) in [good, Array(good.dropLast()), Array("RLYM".utf8)].enumerated() {
            let (socket, client) = try StreamPair().split()
            let (file, other) = try StreamPair().split()
            defer {
                _ = close(client)
                _ = close(other)
            }
            #expect(fixture.worker.memory.connections.take(max: 10))
            #expect(sendMessage(fixture.inboxSender, bytes, [socket, file]))
            _ = close(socket)
            _ = close(file)
            _ = fixture.worker.receiveHandoffs()
            var byte: UInt8 = 0
            #expect(read(client, &byte, 1) == 0 && read(other, &byte, 1) == 0)
            let (malformed, taken) = (fixture.worker.page[.handoffMalformed], fixture.worker.memory.connections.count)
            #expect(malformed == UInt64(index + 1))
            #expect(taken == count)
        }
    }

    @Test func `never make a worker trap, whatever the bytes`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var parts = Parts()
        parts.beInside(opcode: 2, taken: 3, left: 30, messageOpcode: 2)
        parts.queues = [[], [], [1, 2, 3], [0x89, 0], [0x82, 2, 0x4B, 0x56], [9, 0x82, 1, 1]]
        (parts.lane, parts.cut) = (2, 1)
        let bytes = parts.bytes
        #expect(error(bytes) == nil)
        var decoded = 0
        for round in 0..<4000 {
            var fixture: WorkerFixture?
            let mutated = mutate(bytes, &random)
            do throws(MemberStateError) {
                let member = try decode(mutated)
                decoded += 1
                let queues = member.input + member.sealed + member.message + member.control + member.voice
                #expect(mutated.suffix(queues.count + member.data.count) == (queues + member.data)[...], "seed \(seed)")
                // Once in a while it is a worker that goes on with it.
                if round % 100 == 0 { fixture = try? WorkerFixture() }
            } catch {
                continue
            }
            guard var fixture = consume fixture else { continue }
            let (socket, client) = try StreamPair().split()
            #expect(sendMessage(fixture.inboxSender, mutated, [socket]))
            _ = close(socket)
            _ = fixture.worker.receiveHandoffs()
            for slot in fixture.worker.rooms.slots where fixture.worker.rooms.isOccupied(slot) {
                let room = fixture.worker.rooms[slot].id
                fixture.worker.receive(.complete(room: room, charge: .none, activeAt: .max, quietSince: 5))
            }
            fixture.worker.settle()
            let said = Frame(opcode: Frame.continuation, payload: [1]).masked(key)
            _ = send(client, said, said.count, Int32(MSG_NOSIGNAL))
            fixture.worker.turn(waiting: 0)
            _ = close(client)
            fixture.worker.turn(waiting: 0)
        }
        #expect(decoded > 200, "seed \(seed)")
    }
}

/// Sends a message with descriptors, as workers do.
func sendMessage(_ socket: Int32, _ bytes: [UInt8], _ descriptors: [Int32] = []) -> Bool {
    clinux_send_message(socket, bytes, bytes.count, descriptors, descriptors.count) == 0
}

/// Changes some bytes.
func mutate(_ bytes: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...4, using: &random) {
        guard !bytes.isEmpty else { break }
        let index = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<5, using: &random) {
        case 0: bytes.remove(at: index)
        case 1: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
        case 2: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &random)
        default: bytes[index] = UInt8.random(in: 0...255, using: &random)
        }
    }
    return bytes
}
