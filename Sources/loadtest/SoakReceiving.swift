// What members receive, and whether it is what they must.

extension SoakRun {
    /// Reads once; `buffer` is scratch space.
    func receive(_ member: SoakMember, _ buffer: inout [UInt8]) {
        if member.state == .handshaking { return handshake(member, Clock.monotonic()) }
        guard let transport = member.transport else { return }
        switch transport.read(into: &buffer) {
        case .wouldBlock: return
        case .ended(let reason): return ended(member, reason, Clock.monotonic())
        case .bytes(let count):
            let now = Clock.monotonic()
            if member.state == .requesting {
                member.input += buffer[..<count]
                takeAnswer(member, now)
            } else if member.input.isEmpty {
                let used = takeFrames(member, buffer.span.extracting(0..<count), now)
                if used < count { member.input = Array(buffer[used..<count]) }
            } else {
                member.input += buffer[..<count]
                takeInput(member, now)
            }
        }
        if !member.pongsOwed.isEmpty { advance(member, Clock.monotonic()) }
    }

    private func takeInput(_ member: SoakMember, _ now: UInt64) {
        var input = member.input
        member.input = []
        let used = takeFrames(member, input.span, now)
        guard member.state != .ended else { return }
        input.removeFirst(used)
        member.input = input
    }

    private func takeAnswer(_ member: SoakMember, _ now: UInt64) {
        let input = member.input
        guard let end = Self.endOfHead(input) else {
            if input.count > 16_384 { refused(member, "an answer without end", now) }
            return
        }
        guard let answer = Answer.parseHead(input[..<end]) else {
            return refused(member, "not HTTP/1.1: \(Describe.bytes(input))", now)
        }
        member.input = Array(input[end...])
        answered(member, answer, rest: member.input, now)
        if member.state != .ended { takeInput(member, now) }
    }

    private static func endOfHead(_ bytes: [UInt8]) -> Int? {
        var index = 0
        while index + 4 <= bytes.count {
            if bytes[index] == 13, bytes[index + 1] == 10, bytes[index + 2] == 13, bytes[index + 3] == 10 {
                return index + 4
            }
            index += 1
        }
        return nil
    }

    /// Takes whole frames; gives back how many bytes they were.
    private func takeFrames(_ member: SoakMember, _ bytes: borrowing Span<UInt8>, _ now: UInt64) -> Int {
        var start = 0
        while member.state != .ended, let (header, headerCount) = FrameHeader.parse(bytes, at: start) {
            let payload = start + headerCount
            guard bytes.count - payload >= header.payloadCount else { break }
            take(header, bytes.extracting(payload..<payload + header.payloadCount), member, now)
            start = payload + header.payloadCount
        }
        return start
    }

    private func take(
        _ header: FrameHeader, _ payload: borrowing Span<UInt8>, _ member: SoakMember, _ now: UInt64
    ) {
        if header.masked || header.reserved != 0 || !header.final || member.gotClose {
            report.fault(.wrongAnswers, "\(member.name): a frame that must not be: \(header)")
        }
        switch Opcode(rawValue: header.opcode) {
        case .binary:
            if payload.count >= 2, payload[0] == 0x4B, payload[1] == 0x56 {
                takeVoice(member, payload, now)
            } else {
                takeData(member, payload)
            }
        case .ping: member.pongsOwed.append(Self.array(payload))
        case .pong:
            if Self.array(payload) != member.ping?.payload {
                report.fault(.wrongAnswers, "\(member.name): a pong with \(Describe.bytes(Self.array(payload)))")
            }
            member.ping = nil
        case .close:
            member.gotClose = true
            if payload.count >= 2 { member.closeCode = UInt16(payload[0]) << 8 | UInt16(payload[1]) }
            if !member.hasSentClose { ended(member, "", now) }
        case .text, .continuation, nil:
            report.fault(.wrongAnswers, "\(member.name): a frame with opcode \(header.opcode)")
        }
    }

    private static func array(_ bytes: borrowing Span<UInt8>) -> [UInt8] {
        bytes.indices.map { bytes[$0] }
    }

    // MARK: Voice

    private func takeVoice(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ now: UInt64) {
        guard let id = SoakMessage.number(payload, at: 2, digits: 8),
            let number = SoakMessage.number(payload, at: 10, digits: 8).map({ UInt32(truncatingIfNeeded: $0) }),
            let time = SoakMessage.number(payload, at: 18, digits: 16)
        else { return corrupted(member, payload, "voice") }
        guard let index = member.streamIndex(of: UInt32(truncatingIfNeeded: id)) else {
            return misdelivered(member, UInt32(truncatingIfNeeded: id), "voice frame \(number)")
        }
        let sender = member.streams[index].sender
        let message = SoakMessage.voice(sender.sender, number)
        guard number <= sender.voiceSent, message.count == payload.count, message.matches(payload, at: 0),
            time <= now
        else {
            // It has come, if not well.
            if member.streams[index].voice.isNext(number) { _ = member.streams[index].voice.take(number) }
            return corrupted(member, payload, "voice frame \(number) of \(sender.name)")
        }
        let outcome = member.streams[index].voice.take(number)
        if case .skipped(let numbers) = outcome, time <= member.lagsUntil {
            // Of voice the newest is kept for whoever reads too slowly.
            report.count { $0.voiceDropped += numbers.count }
        } else {
            judge(outcome, member, sender, "voice frame", number)
        }
        report.count {
            $0.delivered += 1
            $0.bytesDelivered += payload.count
        }
        guard time > member.lagsUntil, !Self.isCut(voice: number) else { return }
        let delay = now - time
        report.count {
            $0.delay.record(delay)
            guard delay > $0.worstDelay.nanoseconds else { return }
            $0.worstDelay = (delay, "room \(member.room.index), \(sender.id) to \(member.id)")
        }
    }

    // MARK: Data

    /// One data message, or several joined with line feeds.
    private func takeData(_ member: SoakMember, _ payload: borrowing Span<UInt8>) {
        var start = 0
        repeat {
            guard let end = takeItem(member, payload, start) else { return }
            guard end == payload.count || payload[end] == 0x0A else {
                return corrupted(member, payload, "a message longer than it was")
            }
            start = end + 1
        } while start <= payload.count && start > 0 && start != payload.count + 1
    }

    /// What begins at `start`; gives back where it ends, or nil if it is nothing that was sent.
    private func takeItem(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ start: Int) -> Int? {
        guard start < payload.count else {
            corrupted(member, payload, "an empty message")
            return nil
        }
        switch payload[start] {
        case UInt8(ascii: "S"): return takeNumbered(member, payload, start)
        case UInt8(ascii: "{"): return takeEnvelope(member, payload, start)
        default: return takeTiny(member, payload, start)
        }
    }

    private func takeNumbered(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ start: Int) -> Int? {
        guard let id = SoakMessage.number(payload, at: start + 1, digits: 8).map({ UInt32(truncatingIfNeeded: $0) }),
            let number = SoakMessage.number(payload, at: start + 9, digits: 8).map({ UInt32(truncatingIfNeeded: $0) })
        else {
            corrupted(member, payload, "a message")
            return nil
        }
        guard let index = member.streamIndex(of: id) else {
            misdelivered(member, id, "message \(number)")
            return nil
        }
        let sender = member.streams[index].sender
        let message = SoakMessage.data(sender.sender, number)
        guard number < sender.dataBegun, message.matches(payload, at: start) else {
            corrupted(member, payload, "message \(number) of \(sender.name), of \(message.count) bytes")
            // It has come, if not well.
            if member.streams[index].data.isNext(number) { _ = member.streams[index].data.take(number) }
            return nil
        }
        accept(member, index, message)
        return start + message.count
    }

    private static func end(_ payload: borrowing Span<UInt8>, _ start: Int) -> Int {
        var end = start
        while end < payload.count, payload[end] != 0x0A { end += 1 }
        return end
    }

    /// Without a number of its own: it must be the next one.
    private func takeTiny(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ start: Int) -> Int? {
        let end = Self.end(payload, start)
        let tiny = payload.extracting(start..<end)
        for index in member.streams.indices where member.streams[index].sender.sender.letter == payload[start] {
            guard let next = member.streams[index].data.next else {
                member.streams[index].unplaced.append(Self.array(tiny))
                return end
            }
            let sender = member.streams[index].sender
            guard let number = Self.find(tiny, sender, around: next) else { continue }
            accept(member, index, SoakMessage.data(sender.sender, number))
            return end
        }
        if payload[start] == member.sender.letter {
            report.fault(.misdelivered, "\(member.name): its own message of \(tiny.count) bytes came back")
            return end
        }
        corrupted(member, payload, "a message of \(tiny.count) bytes")
        return nil
    }

    /// The number of a tiny message: the next one's if that fits, else of one that was skipped or came before.
    private static func find(_ tiny: borrowing Span<UInt8>, _ sender: SoakMember, around next: UInt32) -> UInt32? {
        func fits(_ number: UInt32) -> Bool {
            let message = SoakMessage.data(sender.sender, number)
            return message.kind == .tiny && message.count == tiny.count && message.matches(tiny, at: 0)
        }
        for number in next..<min(max(next, sender.dataBegun), next + 100) where fits(number) { return number }
        for number in ((next > 100 ? next - 100 : 0)..<next).reversed() where fits(number) { return number }
        return nil
    }

    /// JSON: what a sender calls itself, or the relay's word that somebody has left.
    private func takeEnvelope(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ start: Int) -> Int? {
        let end = Self.end(payload, start)
        let envelope = payload.extracting(start..<end)
        let bytes = Self.array(envelope)
        if LeaveNotice.isOne(bytes) {
            takeNotice(member, bytes)
            return end
        }
        for index in member.streams.indices where member.streams[index].sender.sender.saysHello {
            let hello = SoakMessage.data(member.streams[index].sender.sender, 0)
            guard hello.count == bytes.count, hello.matches(envelope, at: 0) else { continue }
            accept(member, index, hello)
            return end
        }
        corrupted(member, payload, "an envelope")
        return nil
    }

    private func accept(_ member: SoakMember, _ index: Int, _ message: SoakMessage) {
        place(member, index, before: message.number)
        report.count {
            $0.delivered += 1
            $0.bytesDelivered += message.count
        }
        let sender = member.streams[index].sender
        let due = member.streams[index].data.due
        let outcome = member.streams[index].data.take(message.number)
        switch outcome {
        case .skipped(let numbers):
            for number in numbers where number >= due { arrived(member, SoakMessage.data(sender.sender, number).count) }
            fallthrough
        case .inOrder: if message.number >= due { arrived(member, message.count) }
        case .late, .repeated, .stale: break
        }
        judge(outcome, member, sender, "message", message.number)
    }

    private func arrived(_ member: SoakMember, _ count: Int) { member.outstanding = max(0, member.outstanding - count) }

    /// Tiny messages that came before anything with a number are those just before it.
    private func place(_ member: SoakMember, _ index: Int, before number: UInt32) {
        let unplaced = member.streams[index].unplaced
        guard !unplaced.isEmpty else { return }
        member.streams[index].unplaced = []
        let sender = member.streams[index].sender
        let first = number >= UInt32(unplaced.count) ? number - UInt32(unplaced.count) : 0
        for (offset, bytes) in unplaced.enumerated() {
            let message = SoakMessage.data(sender.sender, first + UInt32(offset))
            guard message.count == bytes.count, message.matches(bytes.span, at: 0) else {
                report.fault(.corrupted, "\(member.name): \(Describe.bytes(bytes)) from \(sender.name)")
                continue
            }
            accept(member, index, message)
        }
    }

    // MARK: Leaving

    private func takeNotice(_ member: SoakMember, _ bytes: [UInt8]) {
        let found = member.streams.firstIndex { stream in
            let sender = stream.sender
            if LeaveNotice.problem(bytes, peer: sender.sender.name(dataSent: sender.dataSent)) == nil { return true }
            // Whether it had said its name by then is not known.
            return sender.isBroken && LeaveNotice.problem(bytes, peer: sender.sender.peer) == nil
        }
        guard let index = found else {
            return report.fault(.notices, "\(member.name): \(Describe.bytes(bytes, limit: 200)) of nobody who is there")
        }
        report.count { $0.delivered += 1 }
        guard member.streams[index].goodbye != nil else {
            // If its connection was cut, that will be seen in a moment.
            let sender = member.streams[index].sender
            if sender.saidGoneAt == nil { sender.saidGoneAt = Clock.monotonic() }
            return forget(member, index)
        }
        finish(member, index)
    }

    /// All of a stream must have come.
    func finish(_ member: SoakMember, _ index: Int) {
        let sender = member.streams[index].sender
        if member.streams[index].data.next == nil { place(member, index, before: sender.dataSent) }
        let stream = member.streams[index]
        if !sender.isBroken {
            let data = stream.data.outstanding(sent: sender.dataSent)
            if data > 0 {
                report.fault(.lost, count: Int(data), "\(member.name): the last \(data) message(s) of \(sender.name)")
            }
            let voice = stream.voice.outstanding(sent: sender.voiceSent)
            if voice > 0, sender.lastVoiceAt <= member.lagsUntil {
                report.count { $0.voiceDropped += Int(voice) }
            } else if voice > 0 {
                report.fault(
                    .lost, count: Int(voice), "\(member.name): the last \(voice) voice frame(s) of \(sender.name)")
            }
        }
        forget(member, index)
    }

    func forget(_ member: SoakMember, _ index: Int) {
        let stream = member.streams.remove(at: index)
        let next = max(stream.data.next ?? 0, stream.data.due)
        for number in next..<max(next, stream.sender.dataBegun) {
            arrived(member, SoakMessage.data(stream.sender.sender, number).count)
        }
    }

    // MARK: The end

    /// Whether all that was sent has come, and everybody who was coming or going is in or out.
    var isSettled: Bool {
        members.values.allSatisfy { member in
            member.state == .open && member.isIdle && member.ping == nil
                && member.streams.allSatisfy { stream in
                    let sender = stream.sender
                    let unplaced = UInt32(stream.data.next == nil ? stream.unplaced.count : 0)
                    return (stream.goodbye == nil || stream.isNoticeOptional)
                        && stream.data.outstanding(sent: sender.dataSent) <= unplaced
                        && (stream.voice.outstanding(sent: sender.voiceSent) == 0
                            || sender.lastVoiceAt <= member.lagsUntil && !member.isPaused)
                }
        }
    }

    /// What has not come by now is lost.
    func takeStock() {
        for member in members.values.sorted(by: { $0.id < $1.id }) {
            switch member.state {
            case .ended: break
            case .handshaking, .requesting: report.fault(.refused, "\(member.name): no answer in time")
            case .leaving: report.fault(.wrongAnswers, "\(member.name): no answer to a close frame")
            case .open:
                checkAnswers(member)
                if member.saidGoneAt != nil { report.fault(.notices, "\(member.name): others were told that it left") }
                if member.ping != nil { report.fault(.wrongAnswers, "\(member.name): no pong") }
                for index in member.streams.indices.reversed() {
                    let stream = member.streams[index]
                    if stream.goodbye != nil, !stream.isNoticeOptional {
                        report.fault(.notices, "\(member.name): not told that \(stream.sender.name) has left")
                    }
                    finish(member, index)
                }
            }
        }
    }

    // MARK: Faults

    private func judge(
        _ outcome: SoakSequence.Outcome, _ member: SoakMember, _ sender: SoakMember, _ what: String, _ number: UInt32
    ) {
        switch outcome {
        case .inOrder: return
        case .skipped(let numbers):
            report.fault(
                .lost, count: numbers.count,
                "\(member.name): \(what)s \(numbers.lowerBound) to \(numbers.upperBound) of \(sender.name), or late")
        case .late:
            // It was counted as lost.
            report.count { $0.faults[.lost, default: 0] -= 1 }
            report.fault(.reordered, "\(member.name): \(what) \(number) of \(sender.name) came behind later ones")
        case .repeated: report.fault(.repeated, "\(member.name): \(what) \(number) of \(sender.name)")
        case .stale:
            report.fault(
                .misdelivered, "\(member.name): \(what) \(number) of \(sender.name), of a time before it joined")
        }
    }

    private func misdelivered(_ member: SoakMember, _ id: UInt32, _ what: String) {
        let sender = id == member.id ? "its own, which came back" : "connection \(id), who is not there"
        report.fault(.misdelivered, "\(member.name): \(what) of \(sender)")
    }

    private func corrupted(_ member: SoakMember, _ payload: borrowing Span<UInt8>, _ what: String) {
        let bytes = Self.array(payload.extracting(0..<min(payload.count, 60)))
        report.fault(.corrupted, "\(member.name): \(what): \(payload.count) bytes, \(Describe.bytes(bytes))")
    }
}
