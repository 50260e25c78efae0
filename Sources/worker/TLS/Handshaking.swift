// TLS handshakes of this worker's connections: bytes go to libssl (TLSHandshake), what it says leaves as it is, and when it is done
// the connection goes on with a session of its own.
//
// Few steps a turn are made, because each holds up everybody. A connection that gets none waits in a queue. Those that wait behind
// few others stay watched, because their turn comes soon; their events say nothing new until then. The rest are not watched
// meanwhile, or a storm of them would fill every turn's events and make calls wait all the same. Handshakes that have begun go
// first: what has been spent on them would be lost at their deadline. All of it must be over, with the request's head, within
// Limits.requestSeconds of the accept.

import CLinux
import Logging
import Shared

extension Worker {
    /// Reads a connection whose handshake is under way.
    mutating func readHandshake(_ slot: UInt32) {
        let isPossible = canBeginHandshake || handshakes[slot] != nil
        guard !connections[slot].awaitsStep, isPossible, handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax else {
            putOff(slot, isPossible: isPossible)
            return
        }
        switch receiveBuffer.receive(from: connections[slot].socket.number) {
        case .bytes(let count):
            tally.bytesReceived += UInt64(count)
            unsafe advanceHandshake(slot, receiveBuffer.prefix(count))
        case .end:
            doom(slot, .peerGone)
        case .wouldBlock:
            break
        case .failed:
            doom(slot, .socketError)
        }
    }

    /// Lets a connection wait for its step, once, whatever number of events it has.
    ///
    /// - Parameter isPossible: whether it could go on with the next steps that there are.
    private mutating func putOff(_ slot: UInt32, isPossible: Bool) {
        // One that can't go on would raise its event again at once, while nothing else is to be done.
        var staysWatched = isPossible
        if !connections[slot].awaitsStep {
            staysWatched = isPossible && waitingHandshakes.count < Limits.tlsHandshakesWatchedMax
            page.add(1, to: .tlsHandshakePutOff)
            connections[slot].awaitsStep = true
            let id = connections.id(slot)
            if handshakes[slot] != nil { waitingHandshakes.begun.append(id) } else { waitingHandshakes.new.append(id) }
        }
        if !staysWatched { setInterest(slot, connections[slot].interest.subtracting(.read)) }
    }

    @inline(__always)
    private var canBeginHandshake: Bool { handshakes.count < Limits.tlsHandshakesMax }

    /// Whether a handshake that waits can go on at once.
    @inline(__always)
    var canResumeHandshake: Bool {
        !waitingHandshakes.begun.isEmpty || (!waitingHandshakes.new.isEmpty && canBeginHandshake)
    }

    /// Reads those that have waited longest, as many as this turn has steps for.
    mutating func resumeHandshakes() {
        handshakeSteps = 0
        resumedHandshakes.removeAll(keepingCapacity: true)
        for _ in 0..<Limits.tlsHandshakesResumedPerTurnMax {
            guard handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax && canResumeHandshake && !clock.isOver else {
                return
            }
            let next = waitingHandshakes.begun.popFirst() ?? waitingHandshakes.new.popFirst()
            guard let next, connections.contains(next), connections[next.slot].phase == .handshake else { continue }
            connections[next.slot].awaitsStep = false
            setInterest(next.slot, connections[next.slot].interest.union(.read))
            readHandshake(next.slot)
            resumedHandshakes.append(next)
            lookAtClock()
        }
    }

    /// Forgets a handshake that is over. Behind a storm of them the heap is given back: glibc keeps what libssl has freed.
    mutating func endHandshake(_ slot: UInt32) {
        guard handshakes.removeValue(forKey: slot) != nil else { return }
        handshakesPeak = max(handshakesPeak, handshakes.count + 1)
        guard handshakes.isEmpty else { return }
        if handshakesPeak >= Limits.tlsHandshakesTrimmed { clinux_trim_heap() }
        handshakesPeak = 0
    }

    private mutating func advanceHandshake(_ slot: UInt32, _ bytes: UnsafeRawBufferPointer) {
        let handshake: TLSHandshake
        if let begun = handshakes[slot] {
            handshake = begun
        } else {
            // A read has brought one byte at least.
            guard FirstBytes(unsafe bytes[0]) != .http else {
                answerPlainHTTP(slot)
                return
            }
            guard reserve(Limits.tlsHandshakeHeldBytes, for: slot) else { return }
            guard let begun = beginHandshake(slot) else { return }
            handshake = begun
        }
        handshakeSteps += 1
        switch unsafe handshake.advance(bytes, output: &connections[slot].sealed, ciphers) {
        case .needInput:
            touch(slot)
        case .established(let session, let parameters):
            page.add(1, to: parameters.isResumed ? .tlsHandshakeResumed : .tlsHandshakeFull)
            endHandshake(slot)
            connections[slot].session = sessions.insert(session).slot
            connections[slot].phase = .request
            account(slot)
            touch(slot)
            // Most clients send their request with the end of the handshake: it is here, and raises no event.
            takeRecords(slot, received: 0)
        case .failed(let failure):
            page.count(.tlsHandshakeFailure(failure.reason))
            logger.debug("TLS handshake failed", metadata: ["reason": "\(failure.reason)", "detail": "\(failure)"])
            if failure.reason == .internalError || failure.reason == .libraryChanged { complain("\(failure)") }
            endHandshake(slot)
            // What libssl has left to say is an alert.
            finish(slot)
        }
    }

    /// Takes the ring of ticket keys again if the supervisor has changed it.
    mutating func renewTicketKeys() {
        guard let tickets, let tlsContext, tickets.generation != ticketGeneration else { return }
        var failure: TLSSetupError?
        let read = unsafe tickets.read { ring in
            do throws(TLSSetupError) { try unsafe tlsContext.replaceTicketKeys(ring) } catch { failure = error }
        }
        if let failure { complain("\(failure)") }
        if let read { ticketGeneration = read }
    }

    private mutating func beginHandshake(_ slot: UInt32) -> TLSHandshake? {
        guard let tlsContext else { preconditionFailure("a secure connection needs a certificate") }
        do throws(TLSSetupError) {
            let handshake = try TLSHandshake(tlsContext)
            handshakes[slot] = handshake
            account(slot)
            return handshake
        } catch {
            page.count(.tlsHandshakeFailure(.internalError))
            complain("\(error)")
            doom(slot, .ended)
            return nil
        }
    }

    /// For what is this side's fault: an operator must know.
    private mutating func complain(_ reason: String) {
        if let suppressed = tlsLogRate.admit(nowNanoseconds: now) {
            logger.error("TLS handshake failed", metadata: ["reason": "\(reason)", "suppressed": "\(suppressed)"])
        }
    }

    /// Somebody speaks plain HTTP to this port: worth an answer that can be read.
    private mutating func answerPlainHTTP(_ slot: UInt32) {
        page.count(.tlsHandshakeFailure(.plainHTTP))
        connections[slot].isSecure = false
        refuse(slot, .malformed("this port speaks TLS: use https:// or wss://"), request: nil)
    }
}

/// Connections that wait for a step of their handshake, in the order in which they came.
struct WaitingHandshakes {
    var begun = SlotQueue()
    var new = SlotQueue()

    var count: Int { begun.count + new.count }
}
