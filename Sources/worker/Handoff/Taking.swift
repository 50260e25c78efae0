// Connections that other workers hand over: taken from this worker's inbox, a bounded number a turn.

import CLinux
import Glibc
import Logging
import Shared

extension Worker {
    /// Takes messages from the inbox, as many as there is time for.
    ///
    /// - Returns: whether more may be there.
    mutating func receiveHandoffs() -> Bool {
        for _ in 0..<Limits.handoffsPerTurnMax {
            guard !clock.isOver else { return true }
            defer { lookAtClock() }
            let charge = expectAddress()
            var descriptors = InlineArray<2, Int32>(repeating: -1)
            var count = 0
            let capacity = receiveBuffer.capacity
            var span = descriptors.mutableSpan
            let received = unsafe span.withUnsafeMutableBufferPointer { pointer in
                unsafe clinux_receive_message(
                    inbox.number, receiveBuffer.whole.baseAddress, capacity, pointer.baseAddress, pointer.count, &count)
            }
            if received < 0 {
                let code = errno
                if code == EAGAIN { return false }
                unsafe explicit_bzero(receiveBuffer.address, capacity)
                malformedHandoff("\(SystemError("recvmsg", code))")
                // The message is gone, and the socket that came with it is closed.
                guard code == EMSGSIZE else { return false }
                forgetHandoff(charge)
                continue
            }
            guard count > 0 else {
                if received == 0 { return false }
                unsafe receiveWithoutSocket(receiveBuffer.prefix(received), charge)
                continue
            }
            let socket = Descriptor(owning: descriptors[0])
            let file = count > 1 ? descriptors[1] : nil
            unsafe receive(receiveBuffer.prefix(received), socket, file, charge)
            if let file { _ = Glibc.close(file) }
            // Keys, and a token in the clear.
            unsafe explicit_bzero(receiveBuffer.address, received)
        }
        return true
    }

    /// A client may have said its last, close_notify, behind its request: no event tells that here.
    mutating func endIfClosed(_ slot: UInt32) {
        let session = connections[slot].session
        guard connections[slot].isServed, !connections[slot].isUnanswered, session != Connection.noSession else {
            return
        }
        if sessions[session].readState != .open { ended(slot) }
    }

    /// A message of the move itself, or what should have been a connection.
    private mutating func receiveWithoutSocket(_ bytes: UnsafeRawBufferPointer, _ charge: AddressCharge) {
        do throws(ByteCodingError) {
            receive(try MoveMessage(unsafe Array(bytes)))
        } catch {
            malformedHandoff("no socket, and no message of a move: \(error)")
            forgetHandoff(charge)
        }
    }

    private mutating func receive(
        _ bytes: UnsafeRawBufferPointer, _ socket: consuming Descriptor, _ file: Int32?, _ charge: AddressCharge
    ) {
        if unsafe isMember(bytes) {
            unsafe receiveMember(bytes, socket, file, charge)
            return
        }
        guard file == nil else {
            malformedHandoff("two descriptors")
            forgetHandoff(charge)
            return
        }
        do throws(ConnectionStateError) {
            guard reserveForHandoff(bytes.count, socket, charge) else { return }
            // The buffer is not touched until the message's parts have been copied out of it.
            var decoded = try ConnectionState.decode(unsafe bytes.bytes, socket: socket, now: second)
            if !decoded.session.isEmpty {
                decoded.connection.session = try unsafe takeSession(bytes, decoded.session)
            }
            if decoded.connection.isSecure && decoded.session.isEmpty && tlsContext == nil { throw .withoutTLS }
            page.add(1, to: .handoffReceived)
            // One that comes as it is, from a worker that leaves, was not wished for here.
            if decoded.connection.handoffAt != 0 {
                let moment = Clock.monotonicNanoseconds()
                page.record(moment - min(moment, decoded.connection.handoffAt), in: .handoffDuration)
            }
            guard let slot = adopt(decoded.connection) else { return }
            // What has been read already raises no event.
            if !connections[slot].sealed.isEmpty { touch(slot) }
            if connections[slot].phase == .handshake && !connections[slot].input.isEmpty { takeHello(slot) }
            guard connections[slot].phase == .request else { return }
            serveRequests(slot)
            endIfClosed(slot)
        } catch {
            malformedHandoff("\(error)")
            forgetHandoff(charge)
        }
    }

    private func isMember(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= 4 else { return false }
        return unsafe UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == MemberState.magic
    }

    /// A member of a room that moves.
    private mutating func receiveMember(
        _ bytes: UnsafeRawBufferPointer, _ socket: consuming Descriptor, _ file: Int32?, _ charge: AddressCharge
    ) {
        do throws(MemberStateError) {
            guard reserveForHandoff(try MemberState.heldBytes(bytes.count, file: file), socket, charge) else { return }
            let member = try MemberState.decode(unsafe bytes.bytes, socket: socket, file: file, now: second)
            var session = Connection.noSession
            if !member.session.isEmpty {
                do throws(ConnectionStateError) { session = try unsafe takeSession(bytes, member.session) } catch {
                    throw .session
                }
            }
            receiveMember(member, session: session)
        } catch {
            malformedHandoff("a member: \(error)")
            forgetHandoff(charge)
        }
    }

    /// Makes sure that what a connection brings may be kept. If not, it is gone with its socket.
    private mutating func reserveForHandoff(
        _ bytes: Int, _ socket: borrowing Descriptor, _ charge: AddressCharge
    ) -> Bool {
        guard !reserve(bytes) else { return true }
        count(.memory)
        resetOnClose(socket)
        forgetHandoff(charge)
        return false
    }

    /// Makes a session of its part of the message.
    private mutating func takeSession(
        _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>
    ) throws(ConnectionStateError) -> UInt32 {
        do throws(TLSStateError) {
            let session = try unsafe TLSSession(decoding: UnsafeRawBufferPointer(rebasing: bytes[range]))
            return sessions.insert(session).slot
        } catch {
            throw .session(error)
        }
    }

    private mutating func malformedHandoff(_ reason: String) {
        page.add(1, to: .handoffMalformed)
        if let suppressed = handoffLogRate.admit(nowNanoseconds: now) {
            logger.error(
                "a handoff could not be read", metadata: ["reason": "\(reason)", "suppressed": "\(suppressed)"])
        }
    }
}
