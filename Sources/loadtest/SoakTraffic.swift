// What members send, and how: whole, in fragments, in halves, with pauses wherever the relay may have to keep a part.

extension SoakRun {
    /// Nanoseconds to a member's next message.
    var actInterval: UInt64 {
        let mean = Double(options.rooms * options.clients) / options.rate * slowness
        return UInt64(mean * Double.random(in: 0.5..<1.5, using: &random) * 1e9)
    }

    func act(_ member: SoakMember, _ now: UInt64) {
        guard isSending, member.state == .open else { return }
        if member.isIdle { say(member, now) }
        timers.add(.act, at: now + actInterval, member: member.id)
    }

    /// The next data message, unless too much is on its way to somebody already.
    private func say(_ member: SoakMember, _ now: UInt64, plainly: Bool = false) {
        let message = SoakMessage.data(member.sender, member.dataBegun)
        let others = member.room.present.filter { $0 !== member }
        guard others.allSatisfy({ $0.outstanding + message.count <= Self.outstandingMax }) else { return }
        member.dataBegun += 1
        for other in others where other.streamIndex(of: member.id) != nil { other.outstanding += message.count }
        member.add(plainly ? [.bytes(frame(message), endsFrame: true)] : steps(message, by: member))
        member.add([.sent(isVoice: false)])
        report.count { $0.dataSent += 1 }
        advance(member, now)
    }

    // MARK: Voice

    private static let voiceInterval: UInt64 = 20_000_000

    func speak(_ member: SoakMember, due: UInt64, _ now: UInt64) {
        guard isSending, member.state == .open else { return }
        // Who was late does not catch up: so many at once would be dropped, and rightly.
        let next = due + Self.voiceInterval
        timers.add(.voice, at: next > now ? next : now + Self.voiceInterval, member: member.id)
        guard member.isIdle else { return }
        let number = member.voiceSent
        let time = Clock.monotonic()
        let payload = SoakMessage.voice(member.sender, number).payload(time: time)
        if Self.isCut(voice: number) {
            report.count { $0.cutFrames += 1 }
            member.add(halves(frame(.binary, payload[...]), milliseconds: 5...60))
        } else if number % 64 == 37 {
            let cut = random.pick(1...payload.count - 1)
            let bytes =
                frame(.binary, payload[..<cut], final: false) + frame(.continuation, payload[cut...])
            member.add([.bytes(bytes, endsFrame: true)])
        } else {
            member.add([.bytes(frame(.binary, payload[...]), endsFrame: true)])
        }
        member.add([.sent(isVoice: true)])
        member.lastVoiceAt = time
        report.count { $0.voiceSent += 1 }
        advance(member, now)
    }

    /// A frame that is sent in halves takes longer by itself, so it is not timed.
    static func isCut(voice number: UInt32) -> Bool { number % 64 == 5 }

    // MARK: Slow readers

    func pauseSomebody(_ now: UInt64) {
        let room = rooms[random.pick(0...rooms.count - 1)]
        guard let member = room.open.randomElement(using: &random), !member.isPaused else { return }
        member.isPaused = true
        member.lagsUntil = .max
        watch(member)
        report.count { $0.pauses += 1 }
        timers.add(.read, at: now + random.nanoseconds(milliseconds: 100...3000), member: member.id)
        // So that something waits. Not by speakers: their voice would wait in their own sockets, behind it.
        for other in room.open where other !== member && other.isIdle && !other.isSpeaker {
            for _ in 0..<random.pick(1...30) { say(other, now, plainly: true) }
        }
    }

    func resume(_ member: SoakMember, _ now: UInt64) {
        member.isPaused = false
        member.lagsUntil = now + 2_000_000_000
        watch(member)
    }

    // MARK: Ways to send a message

    private func steps(_ message: SoakMessage, by member: SoakMember) -> [SoakStep] {
        // Voice waits for what is being sent, so who speaks does not pause for long.
        let pause = member.isSpeaker ? 1...30 : 5...500
        let isText = message.kind == .text || (message.kind != .octets && random.chance(percent: 50))
        let opcode = message.kind != .joinable && isText ? Opcode.text : .binary
        let payload = message.payload()
        switch random.pick(0...99) {
        case 0..<20 where payload.count > 1:
            report.count { $0.fragmented += 1 }
            return fragments(opcode, payload, pause)
        case 20..<40:
            report.count { $0.cutFrames += 1 }
            return halves(frame(opcode, payload[...]), milliseconds: pause)
        case 40..<50 where endpointIsSecure && payload.count < 16_000:
            report.count { $0.cutRecords += 1 }
            let pause = random.nanoseconds(milliseconds: pause)
            return [.cutRecord(frame(opcode, payload[...]), atPercent: random.pick(0...100), pause: pause)]
        case 50..<55 where endpointIsSecure:
            let asks = random.chance(percent: 50)
            return [.keyUpdate(asking: asks), .bytes(frame(opcode, payload[...]), endsFrame: true)]
        case 55..<65: return [.ping, .bytes(frame(opcode, payload[...]), endsFrame: true)]
        default: return [.bytes(frame(opcode, payload[...]), endsFrame: true)]
        }
    }

    private func fragments(_ opcode: Opcode, _ payload: [UInt8], _ pause: ClosedRange<Int>) -> [SoakStep] {
        var cuts = (0..<random.pick(1...4)).map { _ in random.pick(0...payload.count) }
        cuts.sort()
        cuts.append(payload.count)
        var steps: [SoakStep] = []
        var start = 0
        for (index, end) in cuts.enumerated() {
            let bytes = frame(index == 0 ? opcode : .continuation, payload[start..<end], final: index == cuts.count - 1)
            let isCut = random.chance(percent: 20)
            steps += isCut ? halves(bytes, milliseconds: pause) : [.bytes(bytes, endsFrame: true)]
            start = end
            guard index < cuts.count - 1 else { break }
            if random.chance(percent: 30) { steps.append(.ping) }
            if random.chance(percent: 60) { steps.append(.rest(random.nanoseconds(milliseconds: pause))) }
        }
        return steps
    }

    /// Cut anywhere, often within the header.
    private func halves(_ bytes: [UInt8], milliseconds pause: ClosedRange<Int>) -> [SoakStep] {
        let last = random.chance(percent: 40) ? min(14, bytes.count - 1) : bytes.count - 1
        let cut = random.pick(1...last)
        return [
            .bytes(Array(bytes[..<cut]), endsFrame: false), .rest(random.nanoseconds(milliseconds: pause)),
            .bytes(Array(bytes[cut...]), endsFrame: true),
        ]
    }

    private func frame(_ message: SoakMessage) -> [UInt8] {
        frame(message.kind == .text ? .text : .binary, message.payload()[...])
    }

    /// A masked frame; its key is the seed's too.
    private func frame(_ opcode: Opcode, _ payload: ArraySlice<UInt8>, final: Bool = true) -> [UInt8] {
        let count = payload.count
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 14)
        bytes.append((final ? 0x80 : 0) | opcode.rawValue)
        let extended = FrameHeader.extendedLength(count)
        bytes.append(0x80 | (extended == 0 ? UInt8(count) : extended == 2 ? 126 : 127))
        for index in (0..<extended).reversed() { bytes.append(UInt8(truncatingIfNeeded: count >> (8 * index))) }
        let key = random.next()
        for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: key >> UInt64(8 * shift))) }
        var index: UInt64 = 0
        for byte in payload {
            bytes.append(byte ^ UInt8(truncatingIfNeeded: key >> (8 * (index & 3))))
            index += 1
        }
        return bytes
    }

    // MARK: Writing

    /// Goes on with what the member writes, as far as the kernel takes it.
    func advance(_ member: SoakMember, _ now: UInt64) {
        if member.state == .handshaking { return handshake(member, now) }
        while member.state != .ended {
            if member.flush() != nil {
                // Why it has ended is still to be read.
                member.dropOutput()
                if member.isPaused { resume(member, now) }
            }
            if member.hasOutput { break }
            if !member.isMidFrame, !member.pongsOwed.isEmpty {
                member.put(member.pongsOwed.flatMap { frame(.pong, $0[...]) })
                member.pongsOwed = []
                continue
            }
            guard member.restUntil <= now, let step = member.takeStep() else { break }
            perform(step, member, now)
        }
        guard member.awaitsRoom != member.hasOutput else { return }
        member.awaitsRoom = member.hasOutput
        watch(member)
    }

    private func perform(_ step: SoakStep, _ member: SoakMember, _ now: UInt64) {
        switch step {
        case .bytes(let bytes, let endsFrame):
            member.put(bytes)
            member.isMidFrame = !endsFrame
        case .cutRecord(let bytes, let percent, let pause):
            // Nothing else is written until the rest has followed: libssl would write a KeyUpdate of its own only if the
            // relay asked for one, which it does after 2^23 records.
            guard let record = member.transport?.secure?.seal(bytes) else { return member.put(bytes) }
            let cut = 1 + (record.count - 2) * percent / 100
            member.put(Array(record[..<cut]), raw: true)
            member.recordRest = Array(record[cut...])
            member.isMidFrame = true
            member.insert([.rest(pause), .recordRest])
        case .recordRest:
            member.put(member.recordRest, raw: true)
            member.recordRest = []
            member.isMidFrame = false
        case .rest(let nanoseconds):
            member.restUntil = now + nanoseconds
            timers.add(.write, at: member.restUntil, member: member.id)
        case .ping:
            guard member.ping == nil, !member.isPaused else { return }
            let payload = Array("ping \(member.id) \(member.pings)".utf8)
            member.pings += 1
            member.ping = (payload, now)
            member.put(frame(.ping, payload[...]))
            report.count { $0.pings += 1 }
        case .keyUpdate(let asking):
            guard member.transport?.secure?.updateKeys(asking: asking) == true else { return }
            report.count { $0.keyUpdates += 1 }
            if asking { member.keyUpdatesAsked += 1 }
        case .sent(let isVoice):
            if isVoice { member.voiceSent += 1 } else { member.dataSent += 1 }
        case .close:
            member.put(Frame.close(1000).encoded)
            saidGoodbye(member, now)
        }
    }
}
