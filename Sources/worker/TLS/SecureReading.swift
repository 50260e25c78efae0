// Input of connections that speak TLS: records are decrypted where they lie in the loop's buffer, and what was in them goes the
// way of plain bytes. A record that is not whole is kept by its session and put in front of the next read.

import Glibc
import Logging
import Shared

extension Worker {
    /// Reads a connection once.
    mutating func readRecords(_ slot: UInt32) {
        let session = connections[slot].session
        let kept = unsafe sessions[session].restore(into: receiveBuffer.whole)
        let bytesMax = readBytesMax(slot)
        let received = receiveBuffer.receive(
            from: connections[slot].socket.number, behind: kept, bytesMax: bytesMax)
        if case .bytes(let count) = received {
            hasReadItsShare = count == bytesMax
            connections[slot].debt.hasRead(count)
            tally.bytesReceived += UInt64(count)
            connections[slot].heardAt = second
            takeRecords(slot, received: kept + count)
            return
        }
        unsafe sessions[session].keep(receiveBuffer.prefix(kept))
        switch received {
        case .end: ended(slot)
        case .failed(let code): doom(slot, socketError: code)
        case .bytes, .wouldBlock: break
        }
    }

    /// Takes apart the first `received` bytes of the loop's buffer; with 0, what the session has kept.
    mutating func takeRecords(_ slot: UInt32, received: Int) {
        let session = connections[slot].session
        sessions[session].second = second
        let count = received > 0 ? received : unsafe sessions[session].restore(into: receiveBuffer.whole)
        let buffer = unsafe UnsafeMutableRawBufferPointer(rebasing: receiveBuffer.whole[..<count])
        var offset = 0
        var hasEnded = false
        records: while true {
            switch unsafe sessions[session].next(buffer, &offset, ciphers) {
            case .needMore:
                break records
            case .data(let range):
                hasEnded = true
                let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[range])
                if connections[slot].phase == .request {
                    // Requests are answered when all records are taken: one that leads to another worker takes the
                    // rest along, and there must be no rest that is in neither place.
                    guard reserve(connections[slot].input.growth(for: bytes.count), for: slot) else { return }
                    unsafe connections[slot].input.append(bytes)
                } else {
                    take(slot, unsafe bytes.bytes)
                }
            case .closed:
                answerBegun(slot)
                // Requests that wait for their answer end with it.
                if connections[slot].isServed && !connections[slot].isUnanswered { ended(slot) }
                return
            case .violation(let violation):
                page.count(.tlsViolation(violation))
                logger.debug(
                    "TLS violation", metadata: ["violation": "\(violation)", "alert": "\(violation.alert.name)"])
                closeSecure(slot, .tlsViolation)
                return
            case .peerAlert(let description):
                logger.debug("TLS alert", metadata: ["alert": "\(description)"])
                doom(slot, .tlsAlert)
                return
            }
            // What follows the end is of no use to anybody.
            guard connections[slot].phase == .open || connections[slot].phase == .request else { return }
        }
        accountRecords(slot)
        connections[slot].begunInput.updateRecord(
            isHalf: !sessions[session].partial.isEmpty, hasEnded: hasEnded, at: second)
        if connections[slot].phase == .open { watchBegunInput(slot) }
        // A KeyUpdate may ask for an answer.
        if sessions[session].hasPending { touch(slot) }
        answerBegun(slot)
    }

    /// Answers what has come in `request`.
    private mutating func answerBegun(_ slot: UInt32) {
        if connections[slot].phase == .request && !connections[slot].input.isEmpty { serveRequests(slot) }
    }

    /// Ends a connection for what it did to TLS: no close frame, for the stream is no longer to be trusted, but the alert.
    private mutating func closeSecure(_ slot: UInt32, _ reason: CloseReason) {
        guard connections[slot].isServed else { return }
        leave(slot)
        count(reason)
        page.count(.drop(.voice), UInt64(connections[slot].outbox.dropAll(&held.blocks)))
        finish(slot)
    }
}
