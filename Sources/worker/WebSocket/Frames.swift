// Frames of an open connection: messages go to its room, control frames are answered, violations close it.

import Shared

extension Worker {
    /// Takes what came on an open connection. A batch that is full ends the input, is flushed, and the input goes on:
    /// so nobody else is served in the middle of it, and a batch grows by one message over its bound at the most. (In a
    /// room of many, by what one read has brought: FlushingInPieces.swift.)
    mutating func takeFrames(_ slot: UInt32, _ bytes: RawSpan) {
        let before = tally.messagesReceived
        var offset = 0
        repeat {
            let room = connections[slot].room
            if isBatchFull(room) { makePlace(in: room) }
            receiveFrames(slot, bytes, &offset)
        } while offset < bytes.byteCount && connections[slot].phase == .open
        guard messageLimits.hasPace else { return }
        pace(slot, messages: Int(tally.messagesReceived - before), bytes: bytes.byteCount)
    }

    /// Takes frames apart until all bytes are taken, the connection closes, or its room's batch is full.
    private mutating func receiveFrames(_ slot: UInt32, _ bytes: RawSpan, _ offset: inout Int) {
        while connections[slot].phase == .open {
            switch connections[slot].frames.next(bytes, &offset, messageBytesMax: messageLimits.messageBytesMax) {
            case .needMore:
                connections[slot].begunInput.updateMessage(connections[slot].frames, at: second)
                watchBegunInput(slot)
                return
            case .message(let payload, let isText):
                guard say(slot, bytes.extracting(payload.range), key: payload.key, isText: isText) else { return }
            case .piece(let payload, let isText, let isLast):
                spareQueues.lend(to: &connections[slot].message)
                // Half a message holds little more than has come of it.
                let (count, doublesMax) = (payload.range.count, Limits.messageDoublesBytesMax)
                let growth = connections[slot].message.growth(for: count, doublesMax: doublesMax)
                guard reserve(growth, for: slot) else { return }
                connections[slot].message.reserve(count, doublesMax: doublesMax)
                connections[slot].message.append(unmasking: bytes.extracting(payload.range), key: payload.key)
                guard isLast else {
                    account(slot)
                    continue
                }
                guard completeMessage(slot, isText: isText) else { return }
            case .control(let opcode, let payload, let isLast):
                connections[slot].input.append(unmasking: bytes.extracting(payload.range), key: payload.key)
                if isLast { receiveControlFrame(slot, opcode) }
            case .violation(let violation):
                close(slot, .protocolError, violation: violation)
            case .tooBig:
                close(slot, .messageTooBig)
            }
        }
    }

    /// The last part of a message has come.
    ///
    /// - Returns: whether the room's batch has room for more.
    private mutating func completeMessage(_ slot: UInt32, isText: Bool) -> Bool {
        // Taken out first: the connection may give way while it is said, and with it all that it holds.
        var message = ByteQueue()
        swap(&message, &connections[slot].message)
        let hasRoom = say(slot, unsafe message.unsafeBytes.bytes, key: 0, isText: isText)
        message.removeAll()
        spareQueues.takeBack(&message)
        account(slot)
        return hasRoom
    }

    /// A control frame is whole; its payload stands unmasked in `input`.
    private mutating func receiveControlFrame(_ slot: UInt32, _ opcode: Opcode) {
        let payload = unsafe connections[slot].input.unsafeBytes
        switch opcode {
        case .ping:
            if connections[slot].outbox.control.count <= Limits.controlBytesWaitingMax {
                connections[slot].outbox.appendControlFrame(.pong, unsafe payload.bytes)
                touch(slot)
            } else {
                page.count(.drop(.pong))
            }
        case .close:
            receiveClose(slot, unsafe payload.bytes)
        default:
            break
        }
        connections[slot].input.release()
    }

    /// Echoes a close frame's code (RFC 6455, 5.5.1), or refuses a payload that is none.
    private mutating func receiveClose(_ slot: UInt32, _ payload: RawSpan) {
        guard payload.byteCount > 0 else {
            close(slot, .byPeer, code: nil)
            return
        }
        guard payload.byteCount >= 2 else {
            close(slot, .protocolError, violation: .closePayloadOfOneByte)
            return
        }
        let code = UInt16(payload.byte(0)) << 8 | UInt16(payload.byte(1))
        guard CloseCode.isValidOnWire(code) else {
            close(slot, .protocolError, violation: .closeCodeInvalid)
            return
        }
        guard payload.extracting(2..<payload.byteCount).isUTF8 else {
            close(slot, .protocolError, violation: .closeReasonNotUTF8)
            return
        }
        close(slot, .byPeer, code: code)
    }
}

extension RawSpan {
    /// Whether the bytes are well-formed UTF-8.
    var isUTF8: Bool {
        unsafe withUnsafeBytes { bytes in
            let units = unsafe bytes.bindMemory(to: UInt8.self)
            do throws(UTF8.ValidationError) {
                _ = try UTF8Span(validating: unsafe units.span)
                return true
            } catch {
                return false
            }
        }
    }
}
