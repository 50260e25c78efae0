// Bytes from a client: read into the loop's buffer and passed on by phase. A request is gathered until its head is whole;
// frames are taken apart where they lie (WebSocket/Frames.swift).

import Shared

extension Worker {
    /// Reads what a connection's socket has, within the turn's budget; what is left makes the next turn's event.
    mutating func read(_ slot: UInt32) {
        if connections[slot].isSecure { return readSecure(slot) }
        for _ in 0..<Limits.readsPerTurnMax {
            guard connections[slot].interest.contains(.read), connections[slot].isServed else { return }
            switch receiveBuffer.receive(from: connections[slot].socket.number) {
            case .bytes(let count):
                tally.bytesReceived += UInt64(count)
                connections[slot].unansweredSince = 0
                take(slot, unsafe receiveBuffer.prefix(count).bytes)
                if count < Limits.receiveBytesMax { return }
            case .end:
                ended(slot)
                return
            case .wouldBlock:
                return
            case .failed:
                doom(slot, .socketError)
                return
            }
        }
    }

    private mutating func readSecure(_ slot: UInt32) {
        // This turn's events are from before the steps of those handshakes that have waited for one: they were read then.
        guard resumedHandshakes.isEmpty || !resumedHandshakes.contains(connections.id(slot)) else { return }
        for _ in 0..<Limits.readsPerTurnMax {
            guard connections[slot].interest.contains(.read) else { return }
            switch connections[slot].phase {
            case .handshake:
                readHandshake(slot)
                return
            case .request, .open:
                guard readRecords(slot) else { return }
            case .closing, .lingering:
                guard discard(slot) else { return }
            case .handingOver, .doomed, .departed:
                return
            }
        }
    }

    /// Reads and throws away: the client's last bytes mean nothing any more. False when there is nothing more for now.
    private mutating func discard(_ slot: UInt32) -> Bool {
        switch receiveBuffer.receive(from: connections[slot].socket.number) {
        case .bytes(let count): return count == Limits.receiveBytesMax
        case .end: ended(slot)
        case .wouldBlock: break
        case .failed: doom(slot, .socketError)
        }
        return false
    }

    /// Takes what came on a connection, decrypted.
    mutating func take(_ slot: UInt32, _ bytes: RawSpan) {
        switch connections[slot].phase {
        case .request:
            connections[slot].input.append(bytes)
            answerRequests(slot)
        case .open:
            receiveFrames(slot, bytes)
        case .handingOver, .handshake:
            preconditionFailure("what comes in these phases is not taken here")
        case .closing, .lingering, .doomed, .departed:
            break
        }
    }

    /// The client has shut its side.
    mutating func ended(_ slot: UInt32) {
        switch connections[slot].phase {
        case .open:
            endOpen(slot)
        case .request:
            // Answers that are still on their way are let out; a request cut short is not one.
            if connections[slot].outbox.isEmpty && !connections[slot].isSecure {
                doom(slot, .ended)
            } else {
                finish(slot)
            }
        case .closing:
            // Its last bytes may still be taken: a half-closed client can read. It fires no more events for reading.
            setInterest(slot, [.write])
        case .lingering, .handshake, .handingOver, .doomed, .departed:
            doom(slot, .ended)
        }
    }

    /// The client has gone without a close frame. Over TLS it is still owed a close_notify (RFC 8446, 6.1).
    private mutating func endOpen(_ slot: UInt32) {
        guard connections[slot].isSecure else {
            doom(slot, .peerGone)
            return
        }
        leave(slot)
        count(.peerGone)
        page.add(UInt64(connections[slot].outbox.dropAll()), to: .voiceDropped)
        finish(slot)
    }

    /// Watches a connection for something else.
    mutating func setInterest(_ slot: UInt32, _ interest: Interest) {
        guard connections[slot].interest != interest else { return }
        connections[slot].interest = interest
        poller.change(connections[slot].socket.number, to: interest, .connection(connections.id(slot)))
    }
}
