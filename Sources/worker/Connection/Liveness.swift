// Time: the deadline of a request, pings and their answers (RFC 6455, 5.5.2), the end of a close.

import Shared

extension Worker {
    /// A connection's timer has gone off.
    mutating func connectionDue(_ slot: UInt32) {
        if connections[slot].isFrozen {
            connectionTimers.set(slot, in: &connections, due: second + 1)
            return
        }
        switch connections[slot].phase {
        case .handshake: doom(slot, .requestTimeout)
        case .request: end(slot, .requestTimeout)
        case .handingOver: refuseHandover(slot)
        case .open: checkLiveness(slot)
        case .closing: doom(slot, .flushTimeout)
        case .lingering: doom(slot, .ended)
        case .doomed, .departed: break
        }
    }

    /// Begins to watch a connection that has been let in.
    mutating func startLiveness(_ slot: UInt32) {
        connections[slot].pingDue = second + UInt32(Limits.pingSeconds)
        connections[slot].unansweredSince = 0
        connectionTimers.set(slot, in: &connections, due: connections[slot].pingDue)
    }

    /// Goes on watching a connection that was watched by another process: the clock is the same.
    mutating func resumeLiveness(_ slot: UInt32) {
        var due = connections[slot].pingDue
        let unanswered = connections[slot].unansweredSince
        if unanswered != 0 { due = min(due, unanswered + UInt32(Limits.pongSeconds)) }
        connectionTimers.set(slot, in: &connections, due: due)
    }

    private mutating func checkLiveness(_ slot: UInt32) {
        // Whom the relay does not read may have said anything.
        if connections[slot].isPaused { connections[slot].unansweredSince = 0 }
        let unanswered = connections[slot].unansweredSince
        if unanswered != 0 && second >= unanswered + UInt32(Limits.pongSeconds) {
            // Nothing came in time: nobody is there who would read a close frame.
            doom(slot, .timeout)
            return
        }
        if second >= connections[slot].pingDue {
            // What has been of little use since the last ping is given back.
            if connections[slot].session != Connection.noSession { sessions[connections[slot].session].trim() }
            if connections[slot].outbox.control.count <= Limits.controlBytesWaitingMax {
                connections[slot].outbox.appendControlFrame(.ping, RawSpan())
                touch(slot)
            }
            if connections[slot].unansweredSince == 0 { connections[slot].unansweredSince = second }
            connections[slot].pingDue = second + UInt32(Limits.pingSeconds)
        }
        var due = connections[slot].pingDue
        if connections[slot].unansweredSince != 0 {
            due = min(due, connections[slot].unansweredSince + UInt32(Limits.pongSeconds))
        }
        connectionTimers.set(slot, in: &connections, due: due)
    }
}
