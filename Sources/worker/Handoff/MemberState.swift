// A member of a room on its way to the next generation of workers: one SOCK_SEQPACKET message with the socket beside it
// (SCM_RIGHTS), and a second descriptor, of a memfd, where more waits for the client or from it than fits a message.
//
//     bytes
//     4      magic "RLYM"
//     2      version of this format
//     2      0
//     16     where its address is counted (AddressCharge); 0: nowhere
//     16     where the room is counted; 0: nowhere
//     16     the socket's peer, as two u64
//     16     the client's address that limits and logs go by, as two u64
//     4      accepted: CLOCK_MONOTONIC seconds, the same clock in every process
//     1      flags: 1 has said data, 2 speaks TLS, 4 the queues are in the file, 8 the address comes of a PROXY header
//     4, 4   ping due, heard at: CLOCK_MONOTONIC seconds
//     8      whose memory the room takes (Address.memoryKey)
//     ...    room, host key, peer id: a u32 count and the bytes each
//     38     the frame state (WebSocket/FrameReader.swift)
//     1, 4   the frame that has begun to leave: lane (0 none, 1 voice, 2 data), bytes left
//     6 * 4  counts of the six queues: input, sealed, message, control, voice, data
//     4      count of session bytes; 0 without TLS
//     ...    the queues one behind the other, here or in the file
//     ...    the TLS session (TLS/TLSSessionState.swift), always here: it is secret, and both sides wipe the message
//
// Integers are little-endian. Who owns what when is as in ConnectionState.swift: the message is sent whole or not at all.

import CLinux
import Glibc
import Shared

/// Why a message is not a member.
enum MemberStateError: Error, Equatable {
    case malformed(ByteCodingError)
    /// What waits for the client is not whole frames.
    case output
    case session
    /// The file that holds the queues can't be read, or is missing.
    case file(SystemError)
}

/// A member's connection, and the room that it is in.
struct Member: ~Copyable {
    var connection: Connection
    var room: [UInt8]
    var hostKey: [UInt8]
    var roomSource: UInt64
    /// Where the room is counted.
    var roomCharge: AddressCharge
    /// Where in the message its session lies: empty for one without TLS.
    var session: Range<Int>
}

enum MemberState {
    static let version: UInt16 = 4
    static let magic: UInt32 = 0x4D59_4C52  // "RLYM", little-endian

    /// Bytes of a connection's queues.
    static func queuedBytes(_ connection: borrowing Connection) -> Int {
        connection.input.count + connection.sealed.count + connection.message.count + connection.outbox.count
    }

    /// Writes a member down, but for its session, which its caller appends: `sessionBytes` of it. Room is made for all of it
    /// first, so that growing leaves no copy of a secret.
    ///
    /// - Returns: the file that holds the queues, if the message does not.
    static func encode(
        _ connection: borrowing Connection, _ blocks: borrowing SharedBlocks, room: borrowing Room, sessionBytes: Int,
        into message: inout ByteQueue
    ) throws(SystemError) -> Int32? {
        let queued = queuedBytes(connection)
        let isInFile = queued > Limits.moveInlineBytesMax
        let head = head(connection, room, isInFile: isInFile, sessionBytes: sessionBytes)
        message.reserve(head.count + (isInFile ? 0 : queued) + sessionBytes)
        message.append(head)
        guard isInFile else {
            unsafe eachQueue(connection, blocks) { unsafe message.append($0) }
            return nil
        }
        let file = Descriptor(owning: try makeFile())
        var failure: SystemError?
        unsafe eachQueue(connection, blocks) { bytes in
            var written = 0
            while failure == nil && written < bytes.count {
                guard let start = bytes.baseAddress else { return }
                let result = unsafe write(file.number, start + written, bytes.count - written)
                if result < 0 && errno == EINTR { continue }
                if result <= 0 { failure = SystemError("write") } else { written += result }
            }
        }
        if let failure { throw failure }
        return file.release()
    }

    private static func makeFile() throws(SystemError) -> Int32 {
        let number = unsafe clinux_memfd("relay-member")
        guard number >= 0 else { throw SystemError("memfd_create") }
        return number
    }

    private static func eachQueue(
        _ connection: borrowing Connection, _ blocks: borrowing SharedBlocks, _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        unsafe body(connection.input.unsafeBytes)
        unsafe body(connection.sealed.unsafeBytes)
        unsafe body(connection.message.unsafeBytes)
        unsafe body(connection.outbox.control.unsafeBytes)
        // Shared blocks are written down for each member that waits for them.
        unsafe connection.outbox.voice.eachPiece(blocks) {
            unsafe body($0)
            return true
        }
        unsafe connection.outbox.data.eachPiece(blocks) {
            unsafe body($0)
            return true
        }
    }

    private static func head(
        _ connection: borrowing Connection, _ room: borrowing Room, isInFile: Bool, sessionBytes: Int
    ) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(magic)
        writer.write(version)
        writer.write(UInt16(0))
        writer.write(connection.addressCharge)
        writer.write(room.addressCharge)
        writer.write(connection.peer.high)
        writer.write(connection.peer.low)
        writer.write(connection.client.high)
        writer.write(connection.client.low)
        writer.write(connection.acceptedAt)
        writer.write(
            UInt8(
                (connection.hasSaidData ? 1 : 0) | (connection.isSecure ? 2 : 0) | (isInFile ? 4 : 0)
                    | (connection.isAnnounced ? 8 : 0)))
        writer.write(connection.pingDue)
        writer.write(connection.heardAt)
        writer.write(room.source)
        writer.write(room.id)
        writer.write(room.hostKey)
        writer.write(connection.peerID)
        connection.frames.encode(into: &writer)
        let cut = connection.outbox.cut
        writer.write(UInt8(cut.map { $0.isVoice ? 1 : 2 } ?? 0))
        writer.write(UInt32(cut?.bytes ?? 0))
        for count in [
            connection.input.count, connection.sealed.count, connection.message.count,
            connection.outbox.control.count, connection.outbox.voice.count, connection.outbox.data.count, sessionBytes,
        ] {
            writer.write(UInt32(count))
        }
        return writer.bytes
    }

    /// What stands in front of the queues.
    private struct Head {
        var addressCharge: AddressCharge
        var roomCharge: AddressCharge
        var peer: Address
        var client: Address
        var acceptedAt: UInt32
        var flags: UInt8
        var pingDue: UInt32
        var heardAt: UInt32
        var roomSource: UInt64
        var room: [UInt8]
        var hostKey: [UInt8]
        var peerID: [UInt8]
        var frames: FrameReader
        var cut: Outbox.Cut?
        /// Bytes of each queue, in the order of the message.
        var counts: [Int] = []
        var sessionBytes: Int
        var bytes: Int

        /// Longest: the fixed fields, and room, key and peer id with their counts.
        static let bytesMax = 256 + Limits.roomIDBytesMax + Limits.publicKeyBytes + Limits.peerIDBytesMax

        init(_ message: RawSpan) throws(ByteCodingError) {
            let available = min(Self.bytesMax, message.byteCount)
            var reader = ByteReader((0..<available).map { message.byte($0) })
            guard try reader.read(UInt32.self) == magic else { throw .invalid(field: "format") }
            guard try reader.read(UInt16.self) == version else { throw .invalid(field: "version") }
            guard try reader.read(UInt16.self) == 0 else { throw .invalid(field: "format") }
            addressCharge = try reader.readCharge()
            roomCharge = try reader.readCharge()
            peer = Address(high: try reader.read(), low: try reader.read())
            client = Address(high: try reader.read(), low: try reader.read())
            acceptedAt = try reader.read()
            flags = try reader.read()
            guard flags < 16 else { throw .invalid(field: "flags") }
            pingDue = try reader.read()
            heardAt = try reader.read()
            roomSource = try reader.read()
            room = try reader.readBytes(max: Limits.roomIDBytesMax, field: "room")
            guard !room.isEmpty else { throw .invalid(field: "room") }
            hostKey = try reader.readBytes(max: Limits.publicKeyBytes, field: "host key")
            guard hostKey.count == Limits.publicKeyBytes else { throw .invalid(field: "host key") }
            peerID = try reader.readBytes(max: Limits.peerIDBytesMax, field: "peer id")
            frames = try FrameReader(from: &reader)
            let lane = try reader.read(UInt8.self)
            let cutBytes = Int(try reader.read(UInt32.self))
            guard lane < 3, (lane == 0) == (cutBytes == 0) else { throw .invalid(field: "cut") }
            cut = lane == 0 ? nil : Outbox.Cut(isVoice: lane == 1, bytes: cutBytes)
            for _ in 0..<6 {
                let count = Int(try reader.read(UInt32.self))
                // Twice the largest backlog: what one turn adds may stand over it.
                guard count <= 2 * Limits.backlogBytesRange.upperBound else { throw .invalid(field: "queue") }
                counts.append(count)
            }
            sessionBytes = Int(try reader.read(UInt32.self))
            guard (sessionBytes > 0) == (flags & 2 != 0) else { throw .invalid(field: "session") }
            guard sessionBytes > 0 || counts[1] == 0 else { throw .invalid(field: "sealed") }
            guard counts[0] <= frames.controlBytesTakenMax else { throw .invalid(field: "input") }
            guard counts[2] == frames.messageBytesTaken else { throw .invalid(field: "message") }
            bytes = available - reader.count
        }

        var isInFile: Bool { flags & 4 != 0 }
    }

    /// Makes a member of a message and the socket that came with it. Its session is made by the caller.
    ///
    /// - Parameter file: the descriptor that came behind the socket, if one did; it stays the caller's.
    /// - Parameter now: this turn's second. Nothing in the message has happened behind it.
    static func decode(
        _ bytes: RawSpan, socket: consuming Descriptor, file: Int32?, now: UInt32
    ) throws(MemberStateError) -> Member {
        let head: Head
        do throws(ByteCodingError) { head = try Head(bytes) } catch { throw .malformed(error) }
        let queued = head.counts.reduce(0, +)
        let total = head.bytes + (head.isInFile ? 0 : queued) + head.sessionBytes
        guard bytes.byteCount >= total else { throw .malformed(.truncated) }
        guard bytes.byteCount == total else { throw .malformed(.trailing(count: bytes.byteCount - total)) }
        guard head.isInFile == (file != nil) else { throw .file(SystemError("recvmsg", EBADF)) }
        if let file { try check(file, bytes: queued) }
        var connection = Connection(
            socket: socket, peer: head.peer, isSecure: head.sessionBytes > 0, now: min(now, head.acceptedAt))
        connection.phase = .open
        connection.client = head.client
        connection.isAnnounced = head.flags & 8 != 0
        connection.addressCharge = head.addressCharge
        connection.hasSaidData = head.flags & 1 != 0
        connection.pingDue = min(now + UInt32(Limits.pingSecondsRange.upperBound), head.pingDue)
        connection.heardAt = min(now, head.heardAt)
        connection.peerID = head.peerID
        connection.frames = head.frames
        var control = ByteQueue()
        var voice = ByteQueue()
        var data = ByteQueue()
        var offset = file == nil ? head.bytes : 0
        try fill(&connection.input, head.counts[0], bytes, file, &offset)
        try fill(&connection.sealed, head.counts[1], bytes, file, &offset)
        try fill(&connection.message, head.counts[2], bytes, file, &offset)
        try fill(&control, head.counts[3], bytes, file, &offset)
        try fill(&voice, head.counts[4], bytes, file, &offset)
        try fill(&data, head.counts[5], bytes, file, &offset)
        guard let outbox = Outbox(control: control, voice: voice, data: data, cut: head.cut) else { throw .output }
        connection.outbox = outbox
        return Member(
            connection: connection, room: head.room, hostKey: head.hostKey, roomSource: head.roomSource,
            roomCharge: head.roomCharge,
            session: (bytes.byteCount - head.sessionBytes)..<bytes.byteCount)
    }

    /// Memory that a member takes whose message has so many bytes, and whose queues are in a file if there is one.
    static func heldBytes(_ count: Int, file: Int32?) throws(MemberStateError) -> Int {
        guard let file else { return count }
        let there = clinux_file_bytes(file)
        guard there >= 0 else { throw .file(SystemError("fstat")) }
        // What is beyond every member's is refused when the member is decoded.
        return count + min(Int(there), 12 * Limits.backlogBytesRange.upperBound)
    }

    /// Before memory is taken for what should be in it.
    private static func check(_ file: Int32, bytes: Int) throws(MemberStateError) {
        let there = clinux_file_bytes(file)
        guard there >= 0 else { throw .file(SystemError("fstat")) }
        guard there == bytes else { throw .file(SystemError("fstat", EIO)) }
    }

    private static func fill(
        _ queue: inout ByteQueue, _ count: Int, _ bytes: RawSpan, _ file: Int32?, _ offset: inout Int
    ) throws(MemberStateError) {
        if let file {
            do throws(SystemError) {
                try queue.append(file: file, offset: offset, count: count)
            } catch {
                throw .file(error)
            }
        } else {
            queue.append(bytes.extracting(offset..<(offset + count)))
        }
        offset += count
    }
}

extension ByteWriter {
    /// Where something is counted: two tokens.
    mutating func write(_ charge: AddressCharge) {
        write(charge.narrow.bits)
        write(charge.wide.bits)
    }
}

extension ByteReader {
    mutating func readCharge() throws(ByteCodingError) -> AddressCharge {
        AddressCharge(narrow: AddressToken(bits: try read()), wide: AddressToken(bits: try read()))
    }
}
