// TLS handshakes of this worker's connections: bytes go to libssl (TLSHandshake), what it says leaves as it is, and when it is done
// the connection goes on with a session of its own.
//
// Few steps a turn are made, because each holds up everybody: a connection that gets none is not read, and epoll names it again in
// the next turn. All of it must be over, with the request's head, within Limits.requestSeconds of the accept.

import Logging
import Shared

extension Worker {
    /// Reads a connection whose handshake is under way.
    mutating func readHandshake(_ slot: UInt32) {
        guard handshakeSteps < Limits.tlsHandshakeStepsPerTurnMax else {
            page.add(1, to: .tlsHandshakePutOff)
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
            guard let begun = beginHandshake(slot) else { return }
            handshake = begun
        }
        handshakeSteps += 1
        switch unsafe handshake.advance(bytes, output: &connections[slot].sealed, ciphers) {
        case .needInput:
            touch(slot)
        case .established(let session, let parameters):
            page.add(1, to: parameters.isResumed ? .tlsHandshakeResumed : .tlsHandshakeFull)
            handshakes[slot] = nil
            connections[slot].session = sessions.insert(session).slot
            connections[slot].phase = .request
            touch(slot)
            // Most clients send their request with the end of the handshake: it is here, and raises no event.
            takeRecords(slot, received: 0)
        case .failed(let failure):
            page.add(1, to: failure.reason.counter)
            logger.debug("TLS handshake failed", metadata: ["reason": "\(failure)"])
            if failure.reason == .internalError || failure.reason == .libraryChanged { complain("\(failure)") }
            handshakes[slot] = nil
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
            return handshake
        } catch {
            page.add(1, to: .tlsFailedInternal)
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
        page.add(1, to: .tlsPlainHTTP)
        connections[slot].isSecure = false
        refuse(slot, .malformed("this port speaks TLS: use https:// or wss://"), request: nil)
    }
}

extension TLSHandshakeFailure.Reason {
    fileprivate var counter: Counter {
        switch self {
        case .protocolVersion: .tlsFailedProtocolVersion
        case .nothingInCommon: .tlsFailedNothingInCommon
        case .applicationProtocol: .tlsFailedApplicationProtocol
        case .malformed: .tlsFailedMalformed
        case .refusedByClient: .tlsFailedRefusedByClient
        case .tooLong: .tlsFailedTooLong
        case .internalError: .tlsFailedInternal
        case .libraryChanged: .tlsFailedLibraryChanged
        }
    }
}
