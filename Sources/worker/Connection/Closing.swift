// How a connection ends. Gracefully: it leaves its room, its last bytes are sent (a close frame, an HTTP answer), the write
// side is shut, and the client's end is awaited, because closing a socket with unread input makes the kernel send a reset that
// can overtake those bytes. Or at once: doomed, and removed when the turn ends, so that no pointer of the turn dangles.

import Glibc
import Logging
import Shared

extension CloseReason {
    /// The close code that goes with it; nil for an empty close frame.
    var code: CloseCode? {
        switch self {
        case .protocolError: .protocolError
        case .invalidText: .invalidText
        case .messageTooBig: .messageTooBig
        case .messageTimeout: .policyViolation
        case .slow, .memory: .tryAgainLater
        case .shutdown: .goingAway
        case .restart: .serviceRestart
        default: nil
        }
    }

    /// Whether what waits for the client is of use before the close frame: not if it is what made the relay close, or if the
    /// client has said that it is done.
    fileprivate var dropsBacklog: Bool {
        switch self {
        case .shutdown, .restart, .idleRoom: false
        default: true
        }
    }
}

extension CloseReason? {
    /// An ordinary end, without a reason: an answered request, a finished linger, a handoff. It is not counted.
    static var ended: CloseReason? { nil }
}

extension Worker {
    /// Closes an open connection: it leaves its room, and a close frame goes out with the reason's code.
    ///
    /// - Parameter violation: what a protocol error is, for the log.
    mutating func close(_ slot: UInt32, _ reason: CloseReason, violation: FrameHeader.Violation? = nil) {
        close(slot, reason, code: reason.code?.rawValue, violation: violation)
    }

    /// The same with a code of the peer's.
    mutating func close(
        _ slot: UInt32, _ reason: CloseReason, code: UInt16?, violation: FrameHeader.Violation? = nil
    ) {
        precondition(connections[slot].phase == .open, "only an open connection is closed with a close frame")
        leave(slot)
        count(reason)
        if reason.dropsBacklog {
            let dropped = connections[slot].outbox.dropBacklog(&held.blocks)
            page.count(.drop(.voice), UInt64(dropped))
        }
        connections[slot].outbox.appendClose(code: code)
        finish(slot)
        logger.trace("connection closed", metadata: Self.metadata(reason, violation))
    }

    private static func metadata(_ reason: CloseReason, _ violation: FrameHeader.Violation?) -> Logger.Metadata {
        guard let violation else { return ["reason": "\(reason)"] }
        return ["reason": "\(reason)", "violation": "\(violation)"]
    }

    /// Lets the last bytes out: the connection reads no more of its client's meaning.
    mutating func finish(_ slot: UInt32) {
        precondition(connections[slot].isServed, "only what is served has last bytes")
        connections[slot].phase = .closing
        connections[slot].isFrozen = false
        connections[slot].input.release()
        connections[slot].message.release()
        account(slot)
        connectionTimers.set(slot, in: &connections, due: second + UInt32(Limits.closeFlushSeconds))
        if !connections[slot].interest.contains(.read) {
            setInterest(slot, connections[slot].interest.union(.read))
        }
        touch(slot)
    }

    /// The last byte has left: shuts the write side and waits for the client's.
    mutating func linger(_ slot: UInt32) {
        guard shutdown(connections[slot].socket.number, Int32(SHUT_WR)) == 0,
            connections[slot].interest.contains(.read)
        else {
            // The client's side has ended before: nothing is left to wait for.
            doom(slot, .ended)
            return
        }
        connections[slot].phase = .lingering
        connectionTimers.set(slot, in: &connections, due: second + UInt32(Limits.lingerSeconds))
    }

    /// Ends a connection that is in no room: over TLS with close_notify (RFC 8446, 6.1), else at once.
    mutating func end(_ slot: UInt32, _ reason: CloseReason?) {
        guard connections[slot].session != Connection.noSession else {
            doom(slot, reason)
            return
        }
        count(reason)
        finish(slot)
    }

    /// Marks a connection to be removed when the turn ends.
    mutating func doom(_ slot: UInt32, _ reason: CloseReason?) {
        guard connections[slot].isServed else { return }
        let id = connections.id(slot)
        forgetWaiting(slot)
        let wasEnding = connections[slot].phase == .closing || connections[slot].phase == .lingering
        connections[slot].phase = .doomed
        // A connection that was closed for a reason keeps that one, unless its last bytes could not be sent.
        if reason == .flushTimeout {
            doomed.append((id, reason))
        } else {
            doomed.append((id, wasEnding ? .ended : reason))
        }
    }

    /// The same for one whose socket has failed with `code` (errno). TCP_USER_TIMEOUT ends a client that is silent as a
    /// ping without an answer does.
    mutating func doom(_ slot: UInt32, socketError code: Int32) {
        doom(slot, code == ETIMEDOUT ? .timeout : .socketError)
    }

    /// Removes the doomed, as many as there is time for, and one at the least.
    mutating func removeDoomed() {
        var next = 0
        while next < doomed.count, next == 0 || !clock.isOver {
            defer { lookAtClock() }
            let (id, reason) = doomed[next]
            let slot = id.slot
            next += 1
            guard connections.contains(id) else { continue }
            if connections[slot].phase == .condemned {
                connections[slot].phase = .open
                close(slot, reason ?? .memory)
                continue
            }
            if connections[slot].phase == .departed {
                departing -= 1
                drop(slot)
                continue
            }
            leave(slot)
            count(reason)
            unwatch(slot)
            drop(slot)
            memory.connections.give()
        }
        if next == doomed.count {
            if next > 0 { doomed.removeAll(keepingCapacity: true) }
        } else {
            doomed.removeFirst(next)
        }
    }

    /// Another worker has the connection: what is left here goes when the turn ends. Its socket is no longer watched.
    mutating func depart(_ slot: UInt32) {
        precondition(connections[slot].isServed, "only what is served can leave")
        forgetWaiting(slot)
        connections[slot].phase = .departed
        doomed.append((connections.id(slot), .ended))
        // Freed at once, and not with all that leave in this turn.
        _ = connections[slot].outbox.dropAll(&held.blocks)
        connections[slot].message.release()
        account(slot)
    }

    /// Takes a connection that is about to go out of the lists of those that may be made to go.
    private mutating func forgetWaiting(_ slot: UInt32) {
        unjoined.remove(slot)
        if connections[slot].phase == .handshake { waitingHandshakes.remove(slot) }
    }

    /// Removes a connection whose socket is no longer watched; this process's descriptor closes with it.
    mutating func drop(_ slot: UInt32) {
        connectionTimers.clear(slot, in: &connections)
        unjoined.remove(slot)
        _ = connections[slot].outbox.dropAll(&held.blocks)
        if held.blocks.hasFreed { accountFreedBlocks() }
        leaveShare(slot)
        releaseAddress(slot)
        if connections[slot].isSecure { endHandshake(slot) }
        let session = connections[slot].session
        if session != Connection.noSession {
            // Its keys are wiped.
            let suite = sessions[session].suite
            _ = sessions.remove(session)
            ciphers.forget(suite)
        }
        _ = connections.remove(slot)
        countConnections()
    }

    mutating func count(_ reason: CloseReason?) {
        if let reason { page.count(.close(reason)) }
    }
}
