// A connection leaves for the worker that owns its room. If that worker's inbox takes nothing (full, or too many
// descriptors in flight), the connection stays here, unread, and is tried again every few milliseconds; when its time
// is up it is answered 503. A worker that is down takes connections all the same: its inbox outlives it.

import CLinux
import Glibc
import Logging
import Shared

extension Worker {
    /// What one attempt did.
    enum Attempt {
        case sent
        case busy
        case impossible(SystemError)
    }

    /// Hands a connection over, now or as soon as its owner takes it.
    mutating func handOver(_ slot: UInt32, to owner: Int) {
        connections[slot].handoffAt = Clock.monotonicNanoseconds()
        guard connections[slot].hops < Limits.handoffHopsMax else {
            // Workers that do not agree on who owns a room: never in one generation.
            giveUp(slot, "handed over too often")
            return
        }
        guard connections[slot].outbox.isEmpty, connections[slot].sealed.count <= Limits.handoffOutputBytesMax else {
            // Answers to requests that were pipelined in front of this one: they leave first.
            flush(slot)
            guard connections[slot].isServed else { return }
            wait(slot, for: owner)
            return
        }
        guard !handovers.contains(where: { connections.contains($0) && connections[$0.slot].owner == owner }) else {
            // Others wait for the same worker: nobody overtakes.
            wait(slot, for: owner)
            return
        }
        switch attempt(slot, owner) {
        case .sent: break
        case .busy: wait(slot, for: owner)
        case .impossible(let error): giveUp(slot, "\(error)")
        }
    }

    private mutating func wait(_ slot: UInt32, for owner: Int) {
        guard handovers.count < Limits.handoversWaitingMax else {
            refuseHandover(slot)
            return
        }
        connections[slot].phase = .handingOver
        connections[slot].owner = owner
        setInterest(slot, connections[slot].interest.subtracting(.read))
        connectionTimers.set(slot, in: &connections, due: second + UInt32(Limits.handoffSeconds))
        handovers.append(connections.id(slot))
    }

    /// Tries those that wait again, in order, as far as there is time; an owner that is busy is asked once a turn.
    mutating func retryHandovers() {
        guard !handovers.isEmpty else { return }
        clock.allot(Limits.turnInboxNanosecondsMin)
        var busy = Set<Int>()
        var still: [SlotID] = []
        for id in handovers {
            guard connections.contains(id), connections[id.slot].phase == .handingOver else { continue }
            let owner = connections[id.slot].owner
            if clock.isOver || busy.contains(owner) || !connections[id.slot].outbox.isEmpty
                || connections[id.slot].sealed.count > Limits.handoffOutputBytesMax
            {
                still.append(id)
                continue
            }
            page.add(1, to: .handoffRetried)
            defer { lookAtClock() }
            switch attempt(id.slot, owner) {
            case .sent: break
            case .busy:
                busy.insert(owner)
                still.append(id)
            case .impossible(let error): giveUp(id.slot, "\(error)")
            }
        }
        handovers = still
    }

    /// One attempt. On success the connection is gone from here.
    ///
    /// - Parameter counts: whether this is a hop, to its room's owner.
    mutating func attempt(_ slot: UInt32, _ owner: Int, counts: Bool = true) -> Attempt {
        var message = ByteQueue()
        defer { message.wipe() }
        let session = connections[slot].session
        let sessionBytes = session == Connection.noSession ? 0 : sessions[session].encodedBytes
        ConnectionState.encode(connections[slot], sessionBytes: sessionBytes, counts: counts, into: &message)
        takeSession(slot, into: &message)
        let result = dispatch(slot, owner, message, sessionBytes: sessionBytes)
        if case .sent = result { page.add(1, to: .handoffSent) }
        return result
    }

    /// Sends a connection that has been written down, with its socket and perhaps a file. On success it is gone from here; else it
    /// goes on here as before.
    mutating func dispatch(
        _ slot: UInt32, _ owner: Int, _ message: borrowing ByteQueue, sessionBytes: Int, file: Int32? = nil
    ) -> Attempt {
        // Watched until the message is sent and not after: between the two nothing is read, because the loop does not turn.
        let socket = connections[slot].socket.number
        var descriptors = InlineArray<2, Int32>(repeating: file ?? -1)
        descriptors[0] = socket
        // Not counted here from before it can be counted there: if this process dies in between, the supervisor must not
        // give back twice what the connection holds of the quota.
        departing += 1
        countConnections()
        let bytes = unsafe message.unsafeBytes
        let span = descriptors.span
        let result = unsafe span.withUnsafeBufferPointer { descriptors in
            unsafe clinux_send_message(
                outboxes[owner], bytes.baseAddress, bytes.count, descriptors.baseAddress, file == nil ? 1 : 2)
        }
        if result != 0 {
            let code = errno
            departing -= 1
            countConnections()
            if sessionBytes > 0 { restoreSession(slot, message, sessionBytes) }
            switch code {
            case EAGAIN, ETOOMANYREFS, ENOBUFS, ENOMEM: return .busy
            default: return .impossible(SystemError("sendmsg", code))
            }
        }
        departAddress(slot)
        unwatch(slot)
        depart(slot)
        return .sent
    }

    /// Writes a connection's session down, if it has one, and takes it: from here on only the message has the keys. The message
    /// has room for it.
    mutating func takeSession(_ slot: UInt32, into message: inout ByteQueue) {
        let session = connections[slot].session
        guard session != Connection.noSession else { return }
        let suite = sessions[session].suite
        sessions.remove(session).encode(into: &message)
        ciphers.forget(suite)
        connections[slot].session = Connection.noSession
    }

    /// The message could not be sent: the connection goes on here with the session in it.
    private mutating func restoreSession(_ slot: UInt32, _ message: borrowing ByteQueue, _ count: Int) {
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: message.unsafeBytes.suffix(count))
        do throws(TLSStateError) {
            connections[slot].session = sessions.insert(try unsafe TLSSession(decoding: bytes)).slot
        } catch {
            preconditionFailure("a session that was just written down can be read: \(error)")
        }
    }

    private mutating func giveUp(_ slot: UInt32, _ reason: String) {
        if let suppressed = handoffLogRate.admit(nowNanoseconds: now) {
            logger.error(
                "a connection can't be handed over", metadata: ["reason": "\(reason)", "suppressed": "\(suppressed)"])
        }
        refuseHandover(slot)
    }

    /// Its owner did not take the connection in time.
    mutating func refuseHandover(_ slot: UInt32) {
        refuse(slot, JoinRefusal(.handoffFailed), request: nil)
    }
}
