// Bytes from a client: read into the loop's buffer and passed on by phase. A request is gathered until its head is whole;
// frames are taken apart where they lie (WebSocket/Frames.swift).

import Shared

extension Worker {
    /// Reads what a connection's socket has, within the turn's budget; what is left makes the next turn's event.
    mutating func read(_ slot: UInt32) {
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

    private mutating func take(_ slot: UInt32, _ bytes: RawSpan) {
        switch connections[slot].phase {
        case .request:
            connections[slot].input.append(bytes)
            answerRequests(slot)
        case .open:
            receiveFrames(slot, bytes)
        case .handingOver:
            preconditionFailure("nothing is read while a connection waits to be handed over")
        case .closing, .lingering, .doomed, .departed:
            break
        }
    }

    /// The client has shut its side.
    private mutating func ended(_ slot: UInt32) {
        switch connections[slot].phase {
        case .open:
            doom(slot, .peerGone)
        case .request:
            // Answers that are still on their way are let out; a request cut short is not one.
            if connections[slot].outbox.isEmpty {
                doom(slot, .ended)
            } else {
                finish(slot)
            }
        case .closing:
            // Its last bytes may still be taken: a half-closed client can read. It fires no more events for reading.
            setInterest(slot, [.write])
        case .lingering, .handingOver, .doomed, .departed:
            doom(slot, .ended)
        }
    }

    /// Watches a connection for something else.
    mutating func setInterest(_ slot: UInt32, _ interest: Interest) {
        guard connections[slot].interest != interest else { return }
        connections[slot].interest = interest
        poller.change(connections[slot].socket.number, to: interest, .connection(connections.id(slot)))
    }
}
