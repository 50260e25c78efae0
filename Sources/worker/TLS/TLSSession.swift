// A TLS 1.3 connection after its handshake, as a plain value: two traffic secrets, two sequence numbers, a few flags, and the
// records not yet decrypted. No I/O, no clock, no callbacks: bytes in, steps and records out. It can be written down, sent to
// another process and gone on with there (TLSSessionState.swift), because exactly one session at a time has the write
// sequence: the type can't be copied, and writing it down consumes it.
//
// Reading (TLSReading.swift)              Writing (TLSWriting.swift)
//
//     open ──▶ closed  (close_notify)         open ──▶ closed  (close_notify or a fatal alert sent, a fatal alert received,
//       └────▶ dead    (a record against                        or the cipher failed)
//                       the rules, or a
//                       fatal alert received)
//
// The two are independent (RFC 8446, 6.1): after the client's close_notify we may go on writing. Nothing leaves a state but
// along these arrows; in `closed` and `dead` everything that comes is thrown away, and nothing is sealed once writing is closed.
//
// How a loop uses it:
//
//     read    count = session.restore(into: buffer); receive behind it; next(...) until `.needMore`, which keeps what is left
//             of the buffer for the next time. To stop earlier, `keep` the rest.
//     write   sealPending(...), then seal(...) for each record, in the order in which they are sent; send them all.
//     move    encode(into:) consumes the session; init(decoding:) makes it again.
//     idle    trim() with each ping: memory goes that was not needed since the last one.

import Shared

struct TLSSession: ~Copyable {
    enum ReadState: UInt8 {
        case open
        case closed
        case dead
    }

    let suite: Suite

    // Reading
    var reading: RecordProtection
    var readState = ReadState.open
    /// Records that can't be decrypted yet: ciphertext, not secret.
    private(set) var partial = ByteQueue()
    /// Whether `partial` has taken more memory, or given some back, since the owner of the sums last took note of it.
    var hasGrown = false
    /// Bytes of a KeyUpdate message that began in an earlier record: 0 to 4, and always the same ones.
    var fragmentBytes: UInt8 = 0
    /// Records without data since the last with some.
    var idleRecords: UInt8 = 0
    /// Whether the client has been asked for a new key and has not answered.
    var awaitsUpdate = false
    var keyUpdates = KeyUpdateBudget()
    /// The time of what is read, CLOCK_MONOTONIC seconds: set by the caller, for a session has no clock.
    var second: UInt32 = 0

    // Writing
    var writing: RecordProtection
    var isWriteOpen = true
    /// The client wants a new key of ours: it must be sent before any more data (RFC 8446, 4.6.3).
    var owesUpdate = false
    var owesClose = false
    var owedAlert: Alert?

    /// A connection whose handshake is done: the client's secret, ours, and how many records we have sealed with it.
    init(
        _ suite: Suite, clientSecret: UnsafeRawBufferPointer, serverSecret: UnsafeRawBufferPointer,
        readSequence: UInt64 = 0,
        writeSequence: UInt64
    ) {
        self.suite = suite
        reading = unsafe RecordProtection(suite, secret: clientSecret, sequence: readSequence, seals: false)
        writing = unsafe RecordProtection(suite, secret: serverSecret, sequence: writeSequence, seals: true)
    }

    // MARK: - Input that waits

    /// Puts the records kept in front of `buffer` and forgets them here. The caller receives behind them.
    ///
    /// - Returns: how many bytes they are, at most Limits.tlsInputBytesMax.
    mutating func restore(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = partial.count
        precondition(buffer.count >= count, "the buffer holds what was kept")
        if count > 0 {
            // Fits, as just checked.
            unsafe partial.withBytes { bytes in unsafe buffer.copyMemory(from: bytes) }
            partial.removeAll()
        }
        return count
    }

    /// Keeps records behind those kept already.
    mutating func keep(_ bytes: UnsafeRawBufferPointer) {
        guard readState == .open else { return }
        precondition(partial.count + bytes.count <= Limits.tlsInputBytesMax, "no more is kept than was read")
        let before = partial.capacity
        unsafe partial.append(bytes)
        if partial.capacity != before { hasGrown = true }
    }

    // MARK: - Memory

    /// Memory of the session.
    var heldBytes: Int { Limits.tlsSessionHeldBytes + partial.capacity }

    /// Forgets the records kept: for a connection that is not read any more.
    mutating func forgetInput() {
        partial.release()
    }

    /// Called now and then, with each ping: gives back what has been of little use since the last call.
    mutating func trim() {
        reading.trim()
        writing.trim()
        releaseIdleInput()
    }

    /// Down to the smallest form at once.
    mutating func dropContexts() {
        reading.dropContext()
        writing.dropContext()
        releaseIdleInput()
    }

    private mutating func releaseIdleInput() {
        guard partial.isEmpty, partial.capacity > 0 else { return }
        partial.release()
        hasGrown = true
    }
}
