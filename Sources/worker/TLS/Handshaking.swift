// TLS handshakes of this worker's connections: bytes go to libssl (TLSHandshake), what it says leaves as it is, and when it is done
// the connection goes on with a session of its own.
//
//     accepted ──▶ gathers its ClientHello ──▶ (waits) ──▶ begun ──▶ (waits) ──▶ a step ──▶ ... ──▶ established
//
// A connection first gathers its ClientHello here, in Limits.tlsHelloSeconds: nothing is spent on one that says less. A
// whole one takes from its address's bucket for requests, and waits for its turn: for a step and a place
// (HandshakePlaces).
//
// Few steps a turn are made, because each holds up everybody. A connection that gets none waits, and parties take
// turns, so that whoever is at another address waits for a few at the most, however many there are of one. A connection
// that has begun leaves its bytes in the socket meanwhile. Those that wait behind few others stay watched, because
// their turn comes soon; their events say nothing new until then. The rest are not watched, or a storm of them would
// fill every turn's events and make calls wait all the same. Handshakes that have begun go first, but for a step in
// four: what has been spent on them would be lost at their deadline. All of it must be over, with the request's head,
// within Limits.requestSeconds of the accept.

import CLinux
import Logging
import Shared

extension Worker {
    /// Reads a connection whose handshake is under way.
    mutating func readHandshake(_ slot: UInt32) {
        guard let handshake = handshakes[slot] else {
            gatherHello(slot)
            return
        }
        guard !connections[slot].awaitsStep, handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax else {
            putOff(slot)
            return
        }
        switch receiveBuffer.receive(from: connections[slot].socket.number) {
        case .bytes(let count):
            tally.bytesReceived += UInt64(count)
            unsafe advance(slot, handshake, receiveBuffer.prefix(count))
        case .end:
            doom(slot, .peerGone)
        case .wouldBlock:
            break
        case .failed(let code):
            doom(slot, socketError: code)
        }
    }

    /// Lets a connection whose handshake has begun wait for its next step, once, whatever number of events it has.
    private mutating func putOff(_ slot: UInt32) {
        // Watched or not, its events say nothing new: a second one ends it.
        var staysWatched = true
        if !connections[slot].awaitsStep {
            staysWatched = waitingHandshakes.begun.count < Limits.tlsHandshakesWatchedMax
            page.add(1, to: .tlsHandshakePutOff)
            connections[slot].awaitsStep = true
            waitingHandshakes.begun.insert(slot, of: connections[slot].client.keys.party)
        }
        if !staysWatched { setInterest(slot, connections[slot].interest.subtracting(.read)) }
    }

    // MARK: - Before a place is taken

    /// Reads what there is of a ClientHello.
    private mutating func gatherHello(_ slot: UInt32) {
        guard !connections[slot].awaitsStep else {
            // It is whole, and what comes behind it stays in the socket.
            setInterest(slot, connections[slot].interest.subtracting(.read))
            return
        }
        let max = Limits.tlsHelloBytesMax - connections[slot].input.count
        switch receiveBuffer.receive(from: connections[slot].socket.number, bytesMax: max) {
        case .bytes(let count):
            tally.bytesReceived += UInt64(count)
            guard reserve(connections[slot].input.growth(for: count), for: slot) else { return }
            unsafe connections[slot].input.append(receiveBuffer.prefix(count))
            account(slot)
            takeHello(slot)
        case .end:
            doom(slot, .peerGone)
        case .wouldBlock:
            break
        case .failed(let code):
            doom(slot, socketError: code)
        }
    }

    /// Looks at what has been gathered; what came with a handoff raises no event.
    mutating func takeHello(_ slot: UInt32) {
        switch unsafe ClientHello(connections[slot].input.unsafeBytes.bytes) {
        case .incomplete:
            break
        case .http:
            answerPlainHTTP(slot)
        case .tooLong:
            page.count(.tlsHandshakeFailure(.tooLong))
            logger.debug("TLS handshake failed", metadata: ["reason": "a ClientHello that is too long"])
            finish(slot)
        case .whole:
            guard admitsHandshake(slot) else {
                page.count(.tlsHandshakeFailure(.rateLimited))
                doom(slot, .ended)
                return
            }
            let due = connections[slot].acceptedAt + UInt32(Limits.requestSeconds)
            connectionTimers.set(slot, in: &connections, due: due)
            let hasStep = handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax && waitingHandshakes.new.isEmpty
            if hasStep && handshakePlaces.verdict(connections[slot].client.keys) != .waits {
                begin(slot)
            } else {
                waitToBegin(slot)
            }
        }
    }

    /// Lets a connection wait with its ClientHello. Where too many do, the newest of the party that has most goes.
    private mutating func waitToBegin(_ slot: UInt32) {
        let party = connections[slot].client.keys.party
        if waitingHandshakes.new.count >= Limits.tlsHandshakesWaitingMax,
            let greediest = waitingHandshakes.new.greediest
        {
            guard greediest.count > waitingHandshakes.new.count(of: party) + 1,
                let newest = waitingHandshakes.new.newest(of: greediest.key)
            else {
                giveWayInHandshake(slot)
                return
            }
            giveWayInHandshake(newest)
        }
        page.add(1, to: .tlsHandshakePutOff)
        connections[slot].awaitsStep = true
        waitingHandshakes.new.insert(slot, of: party)
    }

    /// A connection that is not through with its handshake goes for the sake of others.
    private mutating func giveWayInHandshake(_ slot: UInt32) {
        page.count(.tlsHandshakeFailure(.gaveWay))
        doom(slot, .ended)
        endHandshake(slot)
    }

    /// The time for a ClientHello is over, or that for the handshake. What has come in time and was not read yet
    /// counts.
    mutating func handshakeDue(_ slot: UInt32) {
        if handshakes[slot] == nil && !connections[slot].awaitsStep {
            gatherHello(slot)
            // It is whole, or the connection has ended: either has set what comes next.
            guard connections[slot].phase == .handshake, handshakes[slot] == nil, !connections[slot].awaitsStep else {
                return
            }
        }
        doom(slot, .requestTimeout)
    }

    // MARK: - Turns

    /// The next that has not begun and can.
    @inline(__always)
    private var nextToBegin: UInt32? {
        waitingHandshakes.new.next(looks: Limits.tlsPartiesAskedMax) {
            handshakePlaces.verdict(connections[$0].client.keys) != .waits
        }
    }

    /// The next that has its turn.
    private var nextWaiting: UInt32? {
        if waitingHandshakes.isTurnOfNew, let next = nextToBegin { return next }
        return waitingHandshakes.begun.next(looks: 1) { _ in true } ?? nextToBegin
    }

    /// Whether a handshake that waits can go on at once.
    @inline(__always)
    var canResumeHandshake: Bool {
        !waitingHandshakes.begun.isEmpty || (!waitingHandshakes.new.isEmpty && nextToBegin != nil)
    }

    /// Takes steps of those that wait, as many as this turn has.
    mutating func resumeHandshakes() {
        handshakeSteps = 0
        for _ in 0..<Limits.tlsHandshakesResumedPerTurnMax {
            guard handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax, !clock.isOver, let next = nextWaiting else {
                return
            }
            waitingHandshakes.take(next)
            connections[next].awaitsStep = false
            setInterest(next, connections[next].interest.union(.read))
            if handshakes[next] == nil {
                begin(next)
            } else {
                readHandshake(next)
            }
            lookAtClock()
        }
    }

    /// Forgets a handshake that is over. Behind a storm of them the heap is given back: glibc keeps what libssl has freed.
    mutating func endHandshake(_ slot: UInt32) {
        waitingHandshakes.remove(slot)
        guard handshakes.removeValue(forKey: slot) != nil else { return }
        handshakePlaces.end(slot, connections[slot].client.keys)
        handshakesPeak = max(handshakesPeak, handshakes.count + 1)
        guard handshakes.isEmpty else { return }
        if handshakesPeak >= Limits.tlsHandshakesTrimmed { clinux_trim_heap() }
        handshakesPeak = 0
    }

    /// Gives a connection its place, and libssl its ClientHello.
    private mutating func begin(_ slot: UInt32) {
        let keys = connections[slot].client.keys
        if case .replaces(let other) = handshakePlaces.verdict(keys) { giveWayInHandshake(other) }
        guard reserve(Limits.tlsHandshakeHeldBytes, for: slot) else { return }
        guard let handshake = beginHandshake(slot) else { return }
        handshakePlaces.begin(slot, keys)
        var hello = ByteQueue()
        swap(&hello, &connections[slot].input)
        account(slot)
        let bytes = unsafe hello.unsafeBytes
        unsafe advance(slot, handshake, bytes)
        // The bytes are read in place: they must outlive the call.
        hello.release()
    }

    private mutating func advance(_ slot: UInt32, _ handshake: TLSHandshake, _ bytes: UnsafeRawBufferPointer) {
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
        guard admitsUnreadable(slot) else { return }
        refuse(slot, .malformed("this port speaks TLS: use https:// or wss://"), request: nil)
    }
}

/// Connections that wait for a step of their handshake: parties take turns, those of one in the order in which they
/// came.
struct WaitingHandshakes {
    /// Their bytes are in the socket.
    var begun = SourceShares()
    /// Their ClientHello is here.
    var new = SourceShares()
    private var taken = 0

    var count: Int { begun.count + new.count }

    /// Whether the next step is for one that has not begun, if one of them can.
    var isTurnOfNew: Bool { taken % Limits.tlsStepsPerNewHandshake == Limits.tlsStepsPerNewHandshake - 1 }

    /// Takes out the one that has its turn.
    mutating func take(_ slot: UInt32) {
        taken &+= 1
        begun.take(slot)
        new.take(slot)
    }

    mutating func remove(_ slot: UInt32) {
        begun.remove(slot)
        new.remove(slot)
    }
}
