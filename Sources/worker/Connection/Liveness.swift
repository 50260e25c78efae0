// Time: the deadline of a request, pings and their answers (RFC 6455, 5.5.2), the end of a close.
//
// A connection from which nothing has come for `pingSeconds` is sent a ping, and one from which nothing has come for
// `Limits.silenceSeconds` is closed: so a peer that is gone is gone here that soon. TCP_USER_TIMEOUT
// (supervisor/Listening.swift) does the same for one that acknowledges nothing, or whose window stays shut.

import Shared

extension Worker {
    /// A connection's timer has gone off.
    mutating func connectionDue(_ slot: UInt32) {
        if connections[slot].isFrozen {
            connectionTimers.set(slot, in: &connections, due: second + 1)
            return
        }
        switch connections[slot].phase {
        case .proxyHeader: doom(slot, .requestTimeout)
        case .handshake: handshakeDue(slot)
        case .request: end(slot, .requestTimeout)
        case .handingOver: refuseHandover(slot)
        case .open: checkLiveness(slot)
        case .closing: doom(slot, .flushTimeout)
        case .lingering: doom(slot, .ended)
        case .condemned, .doomed, .departed: break
        }
    }

    /// Begins to watch a connection that has been let in.
    mutating func startLiveness(_ slot: UInt32) {
        connections[slot].heardAt = second
        connections[slot].pingDue = second + pingSeconds(slot)
        connectionTimers.set(slot, in: &connections, due: connections[slot].pingDue)
    }

    /// Goes on watching a connection that was watched by another process: the clock is the same.
    mutating func resumeLiveness(_ slot: UInt32) {
        let end = connections[slot].heardAt + UInt32(Limits.silenceSeconds)
        connectionTimers.set(slot, in: &connections, due: min(connections[slot].pingDue, end))
        connections[slot].begunInput.updateMessage(connections[slot].frames, at: second)
        let session = connections[slot].session
        if session != Connection.noSession {
            let isHalf = !sessions[session].partial.isEmpty
            connections[slot].begunInput.updateRecord(isHalf: isHalf, hasEnded: false, at: second)
        }
        watchBegunInput(slot)
    }

    /// The time from one ping to the next. Jitter shortens it by a quarter at the most, or all who came back in the
    /// second after a restart would be pinged in one turn for ever.
    private func pingSeconds(_ slot: UInt32) -> UInt32 {
        let interval = UInt32(configuration.pingSeconds)
        // Knuth's multiplicative hash spreads neighbouring slots and seconds.
        return interval - (((slot &+ second) &* 2_654_435_761) >> 16) % (interval / 4 + 1)
    }

    private mutating func checkLiveness(_ slot: UInt32) {
        // A client that the relay does not read is not silent: it is paused, is set aside, or its room must be sent
        // messages first.
        let isUnread = connections[slot].isPaused || connections[slot].isAside || !isRead(slot)
        if isUnread { connections[slot].heardAt = second }
        // What the relay does not read may have come.
        if isUnread || !connections[slot].interest.contains(.read) { connections[slot].begunInput.restart(at: second) }
        if let deadline = begunInputDeadline(slot), second >= deadline {
            close(slot, .messageTimeout)
            return
        }
        let end = connections[slot].heardAt + UInt32(Limits.silenceSeconds)
        guard second < end else {
            // Nobody is there who would read a close frame.
            doom(slot, .timeout)
            return
        }
        if second >= connections[slot].pingDue { ping(slot) }
        connectionTimers.set(slot, in: &connections, due: min(connections[slot].pingDue, end))
        watchBegunInput(slot)
    }

    /// Asks for a sign of life, if there has been none since the last time that this was due.
    private mutating func ping(_ slot: UInt32) {
        // What has been of little use since then is given back.
        if connections[slot].session != Connection.noSession { sessions[connections[slot].session].trim() }
        let interval = pingSeconds(slot)
        guard second >= connections[slot].heardAt + interval else {
            connections[slot].pingDue = connections[slot].heardAt + interval
            return
        }
        connections[slot].pingDue = second + interval
        guard connections[slot].outbox.control.count <= Limits.controlBytesWaitingMax else { return }
        connections[slot].outbox.appendControlFrame(.ping, RawSpan())
        touch(slot)
    }
}
