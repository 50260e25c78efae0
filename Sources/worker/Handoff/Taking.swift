// Connections that other workers hand over: taken from this worker's inbox, a bounded number a turn.

import CLinux
import Glibc
import Logging
import Shared

extension Worker {
    mutating func receiveHandoffs() {
        for _ in 0..<Limits.handoffsPerTurnMax {
            var descriptors = InlineArray<2, Int32>(repeating: -1)
            var count = 0
            let capacity = receiveBuffer.capacity
            var span = descriptors.mutableSpan
            let received = unsafe span.withUnsafeMutableBufferPointer { pointer in
                unsafe clinux_receive_message(
                    inbox.number, receiveBuffer.address, capacity, pointer.baseAddress, pointer.count, &count)
            }
            if received < 0 {
                let code = errno
                if code == EAGAIN { return }
                malformedHandoff("\(SystemError("recvmsg", code))")
                // The message is gone, and the socket that came with it is closed.
                guard code == EMSGSIZE else { return }
                memory.connections.give()
                continue
            }
            guard count > 0 else {
                malformedHandoff("no socket")
                if received == 0 { return }
                memory.connections.give()
                continue
            }
            let socket = Descriptor(owning: descriptors[0])
            if count > 1 {
                _ = Glibc.close(descriptors[1])
                malformedHandoff("two sockets")
                memory.connections.give()
                continue
            }
            receive(unsafe receiveBuffer.prefix(received).bytes, socket)
        }
    }

    private mutating func receive(_ bytes: RawSpan, _ socket: consuming Descriptor) {
        do throws(ConnectionStateError) {
            let connection = try ConnectionState.decode(bytes, socket: socket, now: second)
            page.add(1, to: .handoffReceived)
            guard let slot = adopt(connection) else { return }
            // What has been read already raises no event.
            answerRequests(slot)
        } catch {
            malformedHandoff("\(error)")
            memory.connections.give()
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
