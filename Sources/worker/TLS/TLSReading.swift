// Records from the client, opened where they lie. Every rule stands beside the line that obeys it; each has a test.
//
// A record is looked at from its first byte on: what is wrong with a header is said before the record is whole. A record that
// is not authentic leads to bad_record_mac and to nothing else that could be told apart (RFC 8446, 5.2), and after it no other
// is decrypted.

import Shared

extension TLSSession {
    /// What the bytes say next.
    enum Step: Equatable {
        /// All whole records are taken; the rest is kept for the next time.
        case needMore
        /// Data, where it lies in the buffer. Never empty.
        case data(Range<Int>)
        /// The client has said its last (close_notify). What follows is thrown away.
        case closed
        /// The client broke a rule. Nothing more is read; `sealPending` has the alert, after which the connection is
        /// closed.
        case violation(TLSViolation)
        /// The client gave up with this alert. Nothing more is read or written.
        case peerAlert(UInt8)
    }

    /// The next step in `buffer` from `offset`, which is moved behind what was taken. Records are decrypted in the buffer.
    ///
    /// May leave something to be sent (`hasPending`).
    mutating func next(
        _ buffer: UnsafeMutableRawBufferPointer, _ offset: inout Int, _ ciphers: borrowing RecordCiphers
    ) -> Step {
        while true {
            guard readState == .open else {
                // RFC 8446, 6.1: data after a closure alert is ignored.
                offset = buffer.count
                return .closed
            }
            let available = buffer.count - offset
            guard available > 0 else { return .needMore }
            // Not a protected record: plaintext, or change_cipher_spec after Finished (RFC 8446, 5). Versions are ignored (5.1).
            guard unsafe buffer[offset] == ContentType.applicationData.rawValue else { return fail(.unprotectedRecord) }
            guard available >= Record.headerBytes else { return unsafe keepRest(buffer, &offset) }
            let length = Int(unsafe buffer[offset + 3]) << 8 | Int(unsafe buffer[offset + 4])
            // RFC 8446, 5.2.
            guard length <= Record.ciphertextBytesMax else { return fail(.recordTooLong) }
            // What is shorter than a tag can't be authentic.
            guard length >= Record.tagBytes else { return fail(.recordTooShort) }
            guard available >= Record.headerBytes + length else { return unsafe keepRest(buffer, &offset) }
            // A client that was asked for a new key must send it before any more data (RFC 8446, 4.6.3).
            guard reading.sequence < Limits.tlsRecordsPerKeyMax else { return fail(.keyNotUpdated) }
            let start = offset + Record.headerBytes
            // The record's bytes lie in the buffer: `available` was checked.
            guard let record = unsafe buffer.baseAddress.map({ unsafe $0 + offset }),
                unsafe reading.open(record, length - Record.tagBytes, ciphers)
            else { return fail(.notAuthentic) }
            offset = start + length
            let inner = start..<(offset - Record.tagBytes)
            if let step = unsafe take(buffer, inner, ciphers) { return step }
        }
    }

    private mutating func keepRest(_ buffer: UnsafeMutableRawBufferPointer, _ offset: inout Int) -> Step {
        unsafe keep(UnsafeRawBufferPointer(rebasing: buffer[offset...]))
        offset = buffer.count
        return .needMore
    }

    /// Takes a TLSInnerPlaintext (RFC 8446, 5.2). Nil if there is nothing to say about it.
    private mutating func take(
        _ buffer: UnsafeMutableRawBufferPointer, _ inner: Range<Int>, _ ciphers: borrowing RecordCiphers
    ) -> Step? {
        // RFC 8446, 5.4: padding counts.
        guard inner.count <= Record.innerBytesMax else { return fail(.contentTooLong) }
        // The content ends before its type, which is the last byte that is not zero (RFC 8446, 5.4). `inner` lies in the buffer.
        var end = inner.upperBound
        while end > inner.lowerBound, unsafe buffer[end - 1] == 0 { end -= 1 }
        guard end > inner.lowerBound else { return fail(.noContentType) }
        let content = inner.lowerBound..<(end - 1)
        let type = unsafe ContentType(rawValue: buffer[end - 1])
        // RFC 8446, 5.1: no record of another type between the fragments of a handshake message.
        guard fragmentBytes == 0 || type == .handshake else { return fail(.interleavedHandshake) }
        switch type {
        case .applicationData:
            if !content.isEmpty {
                idleRecords = 0
                return .data(content)
            }
        // RFC 8446, 5.1: neither type is ever empty.
        case .handshake where content.isEmpty, .alert where content.isEmpty:
            return fail(.emptyRecord)
        case .handshake:
            let awaited = awaitsUpdate
            for index in content {
                let isLast = index == content.upperBound - 1
                if let step = unsafe takeHandshake(buffer[index], isLast: isLast, ciphers) { return step }
            }
            // The answer to our own request is not the client's idea.
            if awaited && !awaitsUpdate { return nil }
        case .alert:
            // RFC 8446, 5.1: one whole alert a record.
            guard content.count == 2 else { return fail(.alertLength) }
            // The level says nothing (RFC 8446, 6).
            if let step = unsafe takeAlert(buffer[content.lowerBound + 1]) { return step }
        case nil:
            // RFC 8446, 5: an unexpected record type.
            return fail(.unexpectedContentType)
        }
        guard idleRecords < Limits.tlsIdleRecordsMax else { return fail(.idleRecords) }
        idleRecords += 1
        return nil
    }

    /// Takes a byte of a handshake message. A client may send one kind after its Finished, KeyUpdate (RFC 8446, 4.6.3): a
    /// ClientHello would be renegotiation (4.1.2), the others are a server's, or belong to the handshake.
    private mutating func takeHandshake(
        _ byte: UInt8, isLast: Bool, _ ciphers: borrowing RecordCiphers
    ) -> Step? {
        switch fragmentBytes {
        case 0:
            // HandshakeType key_update (RFC 8446, 4).
            guard byte == 24 else { return fail(.unexpectedHandshakeMessage) }
        case 1, 2:
            // Its length is always 1.
            guard byte == 0 else { return fail(.keyUpdateLength) }
        case 3:
            guard byte == 1 else { return fail(.keyUpdateLength) }
        default:
            // update_not_requested and update_requested; RFC 8446, 4.6.3.
            guard byte <= 1 else { return fail(.keyUpdateRequest) }
            // RFC 8446, 5.1: nothing may follow in the record, for it would span the change of keys.
            guard isLast else { return fail(.bytesAfterKeyUpdate) }
            fragmentBytes = 0
            // The answer to our own request is not the client's idea.
            guard awaitsUpdate || keyUpdates.spend(at: second) else { return fail(.tooManyKeyUpdates) }
            awaitsUpdate = false
            reading.renew(ciphers)
            // One answer to any number of requests is enough (RFC 8446, 4.6.3).
            if byte == 1 && isWriteOpen { owesUpdate = true }
            return nil
        }
        fragmentBytes += 1
        return nil
    }

    private mutating func takeAlert(_ description: UInt8) -> Step? {
        switch Alert(rawValue: description) {
        case .closeNotify:
            readState = .closed
            return .closed
        case .userCanceled:
            // RFC 8446, 6.1: read on until close_notify.
            return nil
        default:
            // RFC 8446, 6 and 6.2: every other alert, known or not, is an error; nothing more may be sent.
            readState = .dead
            endWriting()
            return .peerAlert(description)
        }
    }

    private mutating func fail(_ violation: TLSViolation) -> Step {
        readState = .dead
        // RFC 8446, 6.2: the alert is the last thing that is sent.
        if isWriteOpen { owedAlert = violation.alert }
        return .violation(violation)
    }
}
