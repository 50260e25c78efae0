// Who is where: joins, leaves, rooms that end; and what is overdue.

import Glibc

extension SoakRun {
    // MARK: In

    func join(_ room: SoakRoom, _ place: Int, _ now: UInt64) {
        guard isSending, room.places[place] == nil else { return }
        let letter = UInt8(ascii: "a") + UInt8(place)
        // Guests need a host who was there; and two who were not told of the last one's leaving would mix up its letter.
        let mustWait =
            room.isEnding || joining >= Self.joiningMax || (place != 0 && room.open.isEmpty)
            || room.present.contains { $0.streams.contains { $0.sender.sender.letter == letter } }
        guard !mustWait else { return timers.add(.join(room: room.index, place: place), at: now + 20_000_000) }
        let sender = SoakSender(seed: seed, id: nextID, letter: letter, lengthMax: options.maxMessage)
        nextID += 1
        let source = endpoint.isLoopback ? SocketAddress.loopback(Int(sender.id % 200)) : nil
        let transport: Transport
        do throws(ConnectError) {
            let resumes = random.chance(percent: 50)
            transport = try Transport.begin(to: endpoint, from: source, resume: resumes, deadline: Deadline(seconds: 2))
        } catch {
            return refused(room, place, "\(error)", now)
        }
        let isSpeaker = place < options.speakers - room.index % 2 || (place == 0 && options.speakers > 0)
        let member = SoakMember(
            sender: sender, room: room, place: place, isSpeaker: isSpeaker, transport: transport, now: now)
        limitWindow(transport.descriptor)
        member.floors = room.open.map { sender in
            let streams = room.open.compactMap { receiver in
                receiver.streamIndex(of: sender.id).map { receiver.streams[$0] }
            }
            let data = streams.compactMap { $0.data.next }.max() ?? 0
            return (sender.id, data, streams.compactMap { $0.voice.next }.max() ?? 0)
        }
        room.places[place] = member
        members[member.id] = member
        joining += 1
        watch(member, isNew: true)
        handshake(member, now)
    }

    /// What a member does not read is to wait in the relay, so the kernel's buffer must not grow. It still holds several
    /// of loopback's packets, of 64 KiB: with less TCP itself would stand still for seconds.
    private func limitWindow(_ descriptor: Int32) {
        var bytes: Int32 = 131_072
        // A convenience only: without it the backlog stands elsewhere.
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Goes on with the way in.
    func handshake(_ member: SoakMember, _ now: UInt64) {
        guard let transport = member.transport else { return }
        if let secure = transport.secure {
            switch secure.handshake() {
            case .bytes: break
            case .wouldBlock:
                member.awaitsRoom = secure.wantsToWrite
                return watch(member)
            case .ended(let reason): return refused(member, "no TLS: \(reason)", now)
            }
        }
        member.enter(.requesting, now)
        let session = member.room.session
        let token = Token(
            room: session.room, peer: member.sender.peer, role: member.place == 0 ? "host" : "guest")
        let request = Request.join(
            room: session.room, token: session.key.token(token),
            hostKey: member.place == 0 ? session.key.parameter : nil)
        member.put(request.encoded(authority: endpoint.authority))
        advance(member, now)
    }

    /// The answer's head has come, and `rest` behind it.
    func answered(_ member: SoakMember, _ answer: Answer, rest: [UInt8], _ now: UInt64) {
        guard answer.status == 101 else {
            let text = "\(answer.status) \(String(decoding: rest.prefix(80), as: UTF8.self))"
            return refused(member, text, now)
        }
        joining -= 1
        member.enter(.open, now)
        report.count { $0.joins += 1 }
        for other in member.room.present where other !== member { introduce(member, other, now) }
        for gone in member.room.departed where gone.since >= member.began { introduce(member, gone, now) }
        member.floors = []
        if member.isSpeaker {
            timers.add(.voice, at: now + random.nanoseconds(milliseconds: 1...20), member: member.id)
        }
        timers.add(.act, at: now + actInterval, member: member.id)
        if member.room.isEnding { startLeaving(member, now) }
    }

    /// From now on all that `other` sends must come, and something of what it has sent before may.
    private func introduce(_ member: SoakMember, _ other: SoakMember, _ now: UInt64) {
        let floor = member.floors.first { $0.id == other.id }
        var stream = SoakStream(
            sender: other, data: SoakSequence(floor: floor?.data ?? 0, due: other.dataSent),
            voice: SoakSequence(floor: floor?.voice ?? 0, due: other.voiceSent))
        if other.hasSentClose || other.isBroken {
            stream.goodbye = now
            stream.isNoticeOptional = true
        }
        member.streams.append(stream)
        for number in other.dataSent..<other.dataBegun {
            member.outstanding += SoakMessage.data(other.sender, number).count
        }
        guard other.state != .ended else { return }
        other.streams.append(SoakStream(sender: member, data: SoakSequence(), voice: SoakSequence()))
    }

    /// Not let in. A limit on joins is no fault.
    func refused(_ member: SoakMember, _ reason: String, _ now: UInt64) {
        joining -= 1
        remove(member, now)
        refused(member.room, member.place, reason, now)
    }

    private func refused(_ room: SoakRoom, _ place: Int, _ reason: String, _ now: UInt64) {
        if !reason.hasPrefix("429") { report.fault(.refused, "room \(room.index) place \(place): \(reason)") }
        timers.add(.join(room: room.index, place: place), at: now + random.nanoseconds(milliseconds: 200...1000))
    }

    // MARK: Out

    func churn(_ now: UInt64) {
        let room = rooms[random.pick(0...rooms.count - 1)]
        // Whoever leaves could no longer be told.
        guard !room.isEnding, !room.open.contains(where: { $0.isOwedNotice }) else { return }
        if random.chance(percent: 5), room.open.count == room.places.count {
            room.isEnding = true
            for member in room.open { startLeaving(member, now) }
            return
        }
        // Who stays keeps the room, and hears of it.
        guard room.open.count > 2, let member = room.open.randomElement(using: &random) else { return }
        startLeaving(member, now)
    }

    func startLeaving(_ member: SoakMember, _ now: UInt64) {
        if member.isPaused { resume(member, now) }
        member.enter(.leaving, now)
        member.add([.close])
        advance(member, now)
    }

    /// The close frame is on its way: the others must be told.
    func saidGoodbye(_ member: SoakMember, _ now: UInt64) {
        member.hasSentClose = true
        for other in member.room.present {
            if let index = other.streamIndex(of: member.id) { other.streams[index].goodbye = now }
        }
    }

    /// The connection has ended.
    func ended(_ member: SoakMember, _ reason: String, _ now: UInt64) {
        switch member.state {
        case .handshaking, .requesting: return refused(member, reason, now)
        case .ended: return
        case .leaving where member.gotClose:
            checkAnswers(member)
            if member.closeCode != 1000 {
                report.fault(.wrongAnswers, "\(member.name): close code 1000 was answered with \(code(member))")
            }
            if member.transport?.secure?.isTruncated == true {
                report.fault(.wrongAnswers, "\(member.name): \(reason)")
            }
            report.count { $0.leaves += 1 }
        case .open, .leaving:
            let close = member.gotClose ? "closed with code \(code(member))" : reason
            let what = member.state == .leaving ? "leaving" : "in its place"
            let waits = "\(member.outstanding) bytes of data on the way to it"
            report.fault(
                .disconnect, "\(member.name), \(what) for \(seconds(now - member.since)) s, \(waits): \(close)")
            member.isBroken = true
            for other in member.room.present {
                guard let index = other.streamIndex(of: member.id) else { continue }
                if other.streams[index].goodbye == nil { other.streams[index].goodbye = now }
                other.streams[index].isNoticeOptional = true
            }
        }
        leftPlace(member, now)
    }

    private func code(_ member: SoakMember) -> String { member.closeCode.map { "\($0)" } ?? "none" }
    private func seconds(_ nanoseconds: UInt64) -> String { fixed(Double(nanoseconds) / 1e9, 1) }

    private func leftPlace(_ member: SoakMember, _ now: UInt64) {
        let room = member.room
        remove(member, now)
        room.departed.removeAll { $0.since + 30_000_000_000 < now }
        room.departed.append(member)
        guard room.isEnding else {
            let later = now + random.nanoseconds(milliseconds: 100...2000)
            return timers.add(.join(room: room.index, place: member.place), at: later)
        }
        guard room.isEmpty else { return }
        report.count { $0.roomsEnded += 1 }
        room.renew()
        for place in room.places.indices { timers.add(.join(room: room.index, place: place), at: now + 50_000_000) }
    }

    private func remove(_ member: SoakMember, _ now: UInt64) {
        member.end(now)
        members[member.id] = nil
        member.room.places[member.place] = nil
    }

    /// At the end of all: nothing is looked at any more.
    func sayGoodbye(_ member: SoakMember) {
        guard member.isIdle, member.state == .open else { return }
        member.put(Frame.close(1000).encoded)
        _ = member.flush()
    }

    // MARK: Overdue

    private static let answerNanoseconds: UInt64 = 15_000_000_000
    /// Between what others are told of a cut connection and its own end.
    private static let cutNanoseconds: UInt64 = 3_000_000_000
    private static let noticeNanoseconds: UInt64 = 20_000_000_000

    func lookForOverdue(_ now: UInt64) {
        // Ending one takes it out of the dictionary, so this goes through a copy.
        for member in Array(members.values) {
            let waited = now - min(now, member.since)
            switch member.state {
            case .handshaking, .requesting:
                if waited > Self.answerNanoseconds { refused(member, "no answer in 15 s", now) }
            case .leaving where waited > Self.answerNanoseconds:
                report.fault(.wrongAnswers, "\(member.name): no answer to a close frame in 15 s")
                leftPlace(member, now)
            case .open, .leaving:
                if let ping = member.ping, !member.isPaused, now - min(now, ping.at) > Self.answerNanoseconds {
                    report.fault(.wrongAnswers, "\(member.name): no pong in 15 s")
                    member.ping = nil
                }
                if let said = member.saidGoneAt, said + Self.cutNanoseconds < now {
                    report.fault(.notices, "\(member.name): others were told that it left")
                    member.saidGoneAt = nil
                }
                lookForNotices(member, now)
            case .ended: break
            }
        }
    }

    private func lookForNotices(_ member: SoakMember, _ now: UInt64) {
        for index in member.streams.indices.reversed() {
            let stream = member.streams[index]
            guard let goodbye = stream.goodbye, goodbye + Self.noticeNanoseconds < now else { continue }
            if !stream.isNoticeOptional, member.state == .open {
                report.fault(.notices, "\(member.name): never told that \(stream.sender.name) has left")
                finish(member, index)
            } else {
                forget(member, index)
            }
        }
    }

    /// The KeyUpdate that the relay owes comes before anything later.
    func checkAnswers(_ member: SoakMember) {
        guard member.keyUpdatesAsked > 0, member.transport?.secure?.keyUpdates == 0 else { return }
        report.fault(.wrongAnswers, "\(member.name): no KeyUpdate though it asked for one")
    }
}
