import Testing

@testable import worker

/// What the worker's loop does with a session, on byte arrays. Each chunk received goes through a buffer of its own.
final class SessionLoop {
    private let place = UnsafeMutablePointer<TLSSession>.allocate(capacity: 1)
    private var isHeld = true
    let ciphers: RecordCiphers
    /// Data that came.
    var received: [UInt8] = []
    /// The steps other than `.data` and `.needMore`.
    var events: [TLSSession.Step] = []
    private(set) var moves = 0

    init(_ session: consuming TLSSession) throws {
        place.initialize(to: session)
        ciphers = try RecordCiphers()
        run([])
    }

    deinit {
        if isHeld { place.deinitialize(count: 1) }
        place.deallocate()
    }

    var session: TLSSession {
        _read { yield place.pointee }
        _modify { yield &place.pointee }
    }

    // For #expect, which takes nothing noncopyable apart.
    var hasPending: Bool { session.hasPending }
    var isWritable: Bool { session.isWritable }
    var owesUpdate: Bool { session.owesUpdate }
    var owesClose: Bool { session.owesClose }
    var awaitsUpdate: Bool { session.awaitsUpdate }
    var partialBytes: Int { session.partial.count }
    var hasWriteContext: Bool { session.writing.hasContext }

    /// One read from the socket.
    func run(_ bytes: [UInt8]) {
        let size = session.partial.count + bytes.count
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(size, 1), alignment: 1)
        defer { buffer.deallocate() }
        let kept = session.restore(into: buffer)
        bytes.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: buffer[kept...]).copyMemory(from: $0) }
        let readable = UnsafeMutableRawBufferPointer(rebasing: buffer[..<size])
        var offset = 0
        while true {
            let step = session.next(readable, &offset, ciphers)
            #expect(offset <= size)
            switch step {
            case .needMore:
                #expect(offset == size)
                return
            case .data(let range):
                #expect(!range.isEmpty && range.upperBound <= offset)
                received += readable[range]
            case .closed, .violation, .peerAlert:
                events.append(step)
                return
            }
        }
    }

    /// What the protocol owes, sealed.
    func pending() -> [UInt8] {
        var queue = ByteQueue()
        session.sealPending(into: &queue, ciphers)
        #expect(queue.count <= TLSSession.pendingBytesMax)
        return queue.array
    }

    /// Data in records of at most `recordBytes`, behind what is owed.
    func send(_ data: [UInt8], recordBytes: Int = Record.plaintextBytesMax) -> [UInt8] {
        var wire = pending()
        var offset = 0
        repeat {
            let count = min(recordBytes, data.count - offset)
            wire += seal(Array(data[offset..<offset + count]))
            offset += count
            wire += pending()
        } while offset < data.count
        return wire
    }

    /// One record.
    func seal(_ data: [UInt8]) -> [UInt8] {
        // Room whose content shows whether all of it is written and nothing behind it.
        var record = [UInt8](repeating: 0xA5, count: TLSSession.recordBytes(plaintext: data.count) + 8)
        record.replaceSubrange(5..<5 + data.count, with: data)
        let count = record.withUnsafeMutableBytes { bytes in
            bytes.baseAddress.map { session.seal($0, plaintextBytes: data.count, ciphers) } ?? -1
        }
        #expect(count == 0 || count == record.count - 8)
        #expect(record.suffix(8).allSatisfy { $0 == 0xA5 })
        return Array(record.prefix(count))
    }

    /// Leaves and comes again, as between processes.
    func move() throws {
        let bytes = encode()
        try put(decodeSession(bytes))
        moves += 1
        run([])
    }

    /// Puts another session where one was taken away.
    func put(_ session: consuming TLSSession) {
        place.initialize(to: session)
        isHeld = true
    }

    /// Takes the session away.
    func take() -> TLSSession {
        isHeld = false
        return place.move()
    }

    /// Takes the session away and writes it down.
    func encode() -> [UInt8] {
        var message = ByteQueue()
        let session = take()
        let size = session.encodedBytes
        session.encode(into: &message)
        #expect(message.count == size)
        defer { message.wipe() }
        return message.array
    }
}

/// A session with these secrets.
func makeSession(
    _ suite: Suite, clientSecret: [UInt8], serverSecret: [UInt8], writeSequence: UInt64 = 0
) throws -> TLSSession {
    // Array.withUnsafeBytes returns nothing noncopyable.
    var session: TLSSession?
    clientSecret.withUnsafeBytes { client in
        serverSecret.withUnsafeBytes { server in
            session = TLSSession(suite, clientSecret: client, serverSecret: server, writeSequence: writeSequence)
        }
    }
    guard let session else { throw TestFailure() }
    return session
}

/// A session of these bytes.
func decodeSession(_ bytes: [UInt8]) throws(TLSStateError) -> TLSSession {
    var session: TLSSession?
    var failure: TLSStateError?
    bytes.withUnsafeBytes { bytes in
        do throws(TLSStateError) {
            session = try TLSSession(decoding: bytes)
        } catch {
            failure = error
        }
    }
    if let failure { throw failure }
    guard let session else { fatalError("neither a session nor an error") }
    return session
}
