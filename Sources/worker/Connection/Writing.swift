// Bytes to a client: one send a connection and turn. What the kernel does not take waits in the outbox until the socket is
// writable again. A room's frames go by way of Room/FanOut.swift, which ends here too.

import Shared

extension Worker {
    /// The socket takes bytes again.
    mutating func resumeWriting(_ slot: UInt32) {
        guard connections[slot].outbox.isBlocked else { return }
        connections[slot].outbox.isBlocked = false
        touch(slot)
    }

    /// Flushes the connections that have been touched, as many as there is time for, and one at the least.
    mutating func flushTouched() {
        var next = 0
        while next < touched.count, next == 0 || !clock.isOver {
            let slot = touched[next]
            next += 1
            guard connections.isOccupied(slot) else { continue }
            connections[slot].isTouched = false
            flush(slot)
            lookAtClock()
        }
        if next == touched.count {
            if next > 0 { touched.removeAll(keepingCapacity: true) }
        } else {
            touched.removeFirst(next)
        }
    }

    /// Sends what waits on a connection, and does what comes after the last byte.
    mutating func flush(_ slot: UInt32) {
        guard connections[slot].isServed, !connections[slot].outbox.isBlocked, !connections[slot].isFrozen else {
            return
        }
        if connections[slot].isSecure {
            flushSecure(slot)
            guard connections[slot].isServed else { return }
        } else if !connections[slot].outbox.isEmpty {
            gather.removeAll()
            connections[slot].outbox.gather(into: &gather, held.blocks)
            switch gather.send(to: connections[slot].socket.number) {
            case .bytes(let sent):
                tally.bytesSent += UInt64(sent)
                connections[slot].outbox.consume(sent, &held.blocks)
                connections[slot].outbox.giveBack(to: &spareQueues)
                account(slot)
            case .wouldBlock:
                break
            case .failed(let code):
                doom(slot, socketError: code)
                return
            }
        }
        let waits = !connections[slot].outbox.isEmpty || !connections[slot].sealed.isEmpty
        connections[slot].outbox.isBlocked = waits
        watchForWriting(slot, waits)
        if !waits { flushed(slot) }
    }

    /// Watches for writability exactly while something waits.
    mutating func watchForWriting(_ slot: UInt32, _ waits: Bool) {
        var interest = connections[slot].interest
        if waits { interest.insert(.write) } else { interest.remove(.write) }
        setInterest(slot, interest)
    }

    /// Everything has left.
    private mutating func flushed(_ slot: UInt32) {
        switch connections[slot].phase {
        case .closing:
            linger(slot)
        case .request:
            // Reading stopped while answers to pipelined requests waited.
            if !connections[slot].interest.contains(.read) {
                setInterest(slot, .read)
                answerLater(slot)
            }
        default:
            break
        }
    }
}
