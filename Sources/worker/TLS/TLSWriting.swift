// Records to the client, sealed where they lie. The caller lays a record out, or has `sealPending` write those that the
// protocol itself owes; what comes back is ciphertext that is sent as it is, once, and in this order. Ciphertext that the
// kernel does not take waits as ciphertext: it is never sealed again.

import Shared

extension TLSSession {
    /// What `sealPending` may write: two KeyUpdates and an alert.
    static let pendingBytesMax = 2 * recordBytes(plaintext: 5) + recordBytes(plaintext: 2)

    /// Bytes of a record with `count` bytes of data.
    static func recordBytes(plaintext count: Int) -> Int { count + Record.overheadBytes }

    /// Whether data may still be sealed.
    var isWritable: Bool {
        isWriteOpen && !owesClose && owedAlert == nil && writing.sequence < Limits.tlsRecordsPerKeyMax
    }

    /// Seals data in place: `record` begins with 5 bytes for the header, then `count` bytes of data (at most
    /// Record.plaintextBytesMax), then 17 bytes of room.
    ///
    /// `sealPending` must have been called since the last `next`, because a KeyUpdate that the client has asked for goes first.
    ///
    /// - Returns: how many bytes are to be sent: `recordBytes(plaintext: count)`, or 0 if nothing may be sent any more.
    mutating func seal(_ record: UnsafeMutableRawPointer, plaintextBytes count: Int, _ ciphers: borrowing RecordCiphers)
        -> Int
    {
        precondition(count >= 0 && count <= Record.plaintextBytesMax, "a record holds 2^14 bytes (RFC 8446, 5.1)")
        guard isWritable else { return 0 }
        precondition(!owesUpdate, "a KeyUpdate goes before any more data (RFC 8446, 4.6.3)")
        return unsafe protect(record, count, .applicationData, ciphers)
    }

    /// Whether the protocol owes the client a record.
    var hasPending: Bool {
        isWriteOpen
            && (owesUpdate || owesClose || owedAlert != nil || writing.sequence >= Limits.tlsRecordsPerKey
                || wantsUpdate)
    }

    /// Whether the client has used its key long enough to be asked for another.
    private var wantsUpdate: Bool {
        readState == .open && !awaitsUpdate && reading.sequence >= Limits.tlsRecordsPerKey
    }

    /// Says close_notify behind everything sealed so far: from here on `seal` refuses (RFC 8446, 6.1).
    mutating func close() {
        if isWriteOpen && owedAlert == nil { owesClose = true }
    }

    /// Writes and seals the records that the protocol owes. `room` has `pendingBytesMax`.
    ///
    /// - Returns: how many bytes are to be sent.
    mutating func sealPending(_ room: UnsafeMutableRawBufferPointer, _ ciphers: borrowing RecordCiphers) -> Int {
        guard hasPending, let start = room.baseAddress else { return 0 }
        precondition(room.count >= Self.pendingBytesMax, "room for all that may be owed")
        // Each record below is one of those that pendingBytesMax counts.
        var count = 0
        if let alert = owedAlert {
            count += unsafe sealAlert(start, alert, ciphers)
            return count
        }
        let renews = writing.sequence >= Limits.tlsRecordsPerKey
        // An answer never asks in turn (RFC 8446, 4.6.3): a question goes in a message of its own.
        if owesUpdate || (renews && !wantsUpdate) {
            owesUpdate = false
            count += unsafe sealUpdate(start, requested: false, ciphers)
        }
        if wantsUpdate {
            awaitsUpdate = true
            count += unsafe sealUpdate(start + count, requested: true, ciphers)
        }
        if owesClose {
            count += unsafe sealAlert(start + count, .closeNotify, ciphers)
        }
        return count
    }

    /// The same, behind what is in a queue.
    mutating func sealPending(into output: inout ByteQueue, _ ciphers: borrowing RecordCiphers) {
        guard hasPending else { return }
        unsafe withUnsafeTemporaryAllocation(byteCount: Self.pendingBytesMax, alignment: 8) { room in
            let count = unsafe sealPending(room, ciphers)
            unsafe output.append(UnsafeRawBufferPointer(rebasing: room[..<count]))
        }
    }

    /// KeyUpdate (RFC 8446, 4.6.3), the last record under the old key.
    private mutating func sealUpdate(
        _ record: UnsafeMutableRawPointer, requested: Bool, _ ciphers: borrowing RecordCiphers
    ) -> Int {
        let message: [5 of UInt8] = [24, 0, 0, 1, requested ? 1 : 0]
        for index in message.indices {
            unsafe record.storeBytes(of: message[index], toByteOffset: Record.headerBytes + index, as: UInt8.self)
        }
        let count = unsafe protect(record, message.count, .handshake, ciphers)
        writing.renew(ciphers)
        return count
    }

    /// The last record of all. Its level is fatal but for close_notify (RFC 8446, 6).
    private mutating func sealAlert(
        _ record: UnsafeMutableRawPointer, _ alert: Alert, _ ciphers: borrowing RecordCiphers
    ) -> Int {
        unsafe record.storeBytes(of: alert == .closeNotify ? 1 : 2, toByteOffset: Record.headerBytes, as: UInt8.self)
        unsafe record.storeBytes(of: alert.rawValue, toByteOffset: Record.headerBytes + 1, as: UInt8.self)
        let count = unsafe protect(record, 2, .alert, ciphers)
        endWriting()
        return count
    }

    /// Nothing is sealed from here on, and so nothing is owed.
    mutating func endWriting() {
        isWriteOpen = false
        (owesClose, owesUpdate, owedAlert) = (false, false, nil)
    }

    /// Puts header and type around `count` bytes of content and seals them (RFC 8446, 5.2).
    private mutating func protect(
        _ record: UnsafeMutableRawPointer, _ count: Int, _ type: ContentType, _ ciphers: borrowing RecordCiphers
    ) -> Int {
        guard isWriteOpen else { return 0 }
        let length = count + 1 + Record.tagBytes
        // The caller's record has room for header, content, type and tag.
        unsafe record.storeBytes(of: ContentType.applicationData.rawValue, as: UInt8.self)
        unsafe record.storeBytes(of: 0x0303, toByteOffset: 1, as: UInt16.self)
        unsafe record.storeBytes(of: UInt16(truncatingIfNeeded: length).bigEndian, toByteOffset: 3, as: UInt16.self)
        unsafe record.storeBytes(of: type.rawValue, toByteOffset: Record.headerBytes + count, as: UInt8.self)
        guard unsafe writing.seal(record, count + 1, ciphers) else {
            // The cipher failed, which only want of memory explains: a gap in the sequence can't be mended.
            endWriting()
            return 0
        }
        return Record.headerBytes + length
    }
}
