// Output of connections that speak TLS. What leaves in one call is sealed into as few records as hold it, in the loop's own
// buffer; only ciphertext that the socket refuses is kept (`Connection.sealed`), and then nothing more is sealed until it has
// left: so at most one buffer's worth can't be overtaken by voice.
//
// A byte of plaintext counts as sent when it is sealed. Ciphertext is never sealed again.

import Glibc
import Shared

extension Worker {
    /// Seals and sends what is in the gather list, as much as the socket takes and a buffer beyond.
    ///
    /// - Returns: `.bytes` with the count of bytes of plaintext that are on their way; what is sealed and not sent is in `sealed`.
    mutating func sealAndSend(_ slot: UInt32) -> GatherList.Sent {
        let session = connections[slot].session
        let total = gather.bytes
        var taken = 0
        gather.rewind()
        var used = unsafe takeShort(slot, sealBuffer.address)
        while taken < total && connections[slot].sealed.isEmpty {
            // `tlsSealBytesMax` has room for what waited, what is owed, four records, and close_notify.
            used += sealPending(session, behind: used)
            while taken < total {
                let count = min(total - taken, Record.plaintextBytesMax)
                let end = used + TLSSession.recordBytes(plaintext: count) + TLSSession.pendingBytesMax
                guard end <= sealBuffer.capacity else { break }
                let record = unsafe sealBuffer.address + used
                unsafe gather.copy(count, to: record + Record.headerBytes)
                let bytes = unsafe sessions[session].seal(record, plaintextBytes: count, ciphers)
                // The client gave up, or the key can't be renewed: nothing may be sent any more.
                guard bytes > 0 else { return .failed(EPIPE) }
                used += bytes
                taken += count
            }
            // RFC 8446, 6.1: the last record before the write side is closed, and with the others in one packet.
            if taken == total && connections[slot].phase == .closing {
                sessions[session].close()
                used += sealPending(session, behind: used)
            }
            if let failure = sendSealed(slot, used) { return failure }
            used = 0
        }
        return .bytes(taken)
    }

    /// Moves ciphertext that waits to `target`, so that it is sent together with what is sealed next, if it is short: a
    /// handshake's tickets in front of an answer. Gives back how many bytes they are.
    private mutating func takeShort(_ slot: UInt32, _ target: UnsafeMutableRawPointer) -> Int {
        let count = connections[slot].sealed.count
        guard count > 0, count <= Limits.tlsJoinedBytesMax else { return 0 }
        unsafe connections[slot].sealed.withBytes { bytes in
            // The seal buffer begins with as much room.
            if let start = bytes.baseAddress { unsafe memcpy(target, start, count) }
        }
        connections[slot].sealed.release()
        return count
    }

    /// Seals what TLS owes behind the first `used` bytes of the seal buffer. Gives back how many bytes they are.
    private mutating func sealPending(_ session: UInt32, behind used: Int) -> Int {
        unsafe sessions[session].sealPending(
            UnsafeMutableRawBufferPointer(rebasing: sealBuffer.whole[used...]), ciphers)
    }

    /// Sends the first `count` bytes of the seal buffer and keeps what the socket does not take. Nil if all is well.
    private mutating func sendSealed(_ slot: UInt32, _ count: Int) -> GatherList.Sent? {
        switch unsafe GatherList.send(sealBuffer.address, count, to: connections[slot].socket.number) {
        case .bytes(let sent):
            tally.bytesSent += UInt64(sent)
            return keepSealed(slot, sent..<count)
        case .wouldBlock:
            return keepSealed(slot, 0..<count)
        case .failed(let code):
            return .failed(code)
        }
    }

    /// Keeps a part of the seal buffer. Nil if all is well: if memory is short the connection may have given way.
    private mutating func keepSealed(_ slot: UInt32, _ range: Range<Int>) -> GatherList.Sent? {
        guard !range.isEmpty else { return nil }
        guard reserve(connections[slot].sealed.growth(for: range.count), for: slot) else { return .failed(ENOMEM) }
        unsafe connections[slot].sealed.append(UnsafeRawBufferPointer(rebasing: sealBuffer.whole[range]))
        return nil
    }

    /// Sends ciphertext that waits. False if some still does or the socket is broken.
    private mutating func sendWaiting(_ slot: UInt32) -> Bool {
        guard !connections[slot].sealed.isEmpty else { return true }
        let bytes = unsafe connections[slot].sealed.unsafeBytes
        guard let start = bytes.baseAddress else { return true }
        switch unsafe GatherList.send(start, bytes.count, to: connections[slot].socket.number) {
        case .bytes(let sent):
            tally.bytesSent += UInt64(sent)
            connections[slot].sealed.removeFirst(sent)
            connections[slot].sealed.releaseIfIdle(above: 0)
            account(slot)
        case .wouldBlock:
            break
        case .failed(let code):
            doom(slot, socketError: code)
        }
        return connections[slot].isServed && connections[slot].sealed.isEmpty
    }

    /// Sends everything that waits on a connection: ciphertext, its outbox, what TLS owes, and behind the last byte
    /// close_notify.
    mutating func flushSecure(_ slot: UInt32) {
        let joins =
            connections[slot].session != Connection.noSession && !connections[slot].outbox.isEmpty
            && connections[slot].sealed.count <= Limits.tlsJoinedBytesMax
        guard joins || sendWaiting(slot) else { return }
        // During the handshake, and after one that failed, libssl's records are all there is.
        let session = connections[slot].session
        guard session != Connection.noSession else { return }
        if !connections[slot].outbox.isEmpty {
            gather.removeAll()
            connections[slot].outbox.gather(into: &gather, held.blocks)
            let sent = sealAndSend(slot)
            guard case .bytes(let taken) = sent else {
                if case .failed(let code) = sent { doom(slot, socketError: code) }
                return
            }
            connections[slot].outbox.consume(taken, &held.blocks)
            connections[slot].outbox.giveBack(to: &spareQueues)
            account(slot)
        }
        guard connections[slot].outbox.isEmpty, connections[slot].sealed.isEmpty else { return }
        // RFC 8446, 6.1: before the write side is closed.
        if connections[slot].phase == .closing { sessions[session].close() }
        guard sessions[session].hasPending else { return }
        sessions[session].sealPending(into: &connections[slot].sealed, ciphers)
        _ = sendWaiting(slot)
        account(slot)
    }
}
