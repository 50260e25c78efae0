// What ends a connection, and what begins and ends a room. Each case uses a room of its own.

extension CheckRun {
    func checkRules() {
        property("protocol errors are closed with 1002") { property, deadline throws(ConnectError) in
            for (what, bytes) in Self.protocolErrors() {
                try expectClose(1002, what, bytes, &property, deadline)
            }
        }
        property("text that is not UTF-8 is closed with 1007") { property, deadline throws(ConnectError) in
            for (what, bytes) in Self.invalidTexts() { try expectClose(1007, what, bytes, &property, deadline) }
        }
        property("messages over the limit are closed with 1009") { property, deadline throws(ConnectError) in
            try checkTooBig(&property, deadline)
        }
        property("a room outlives its host, keeps its key, ends when empty") {
            property, deadline throws(ConnectError) in
            try checkRoomLife(&property, deadline)
        }
        property("room ids: percent-encoding, +, first of repeated names") {
            property, deadline throws(ConnectError) in
            try checkQueries(&property, deadline)
        }
        property("two connections with one token are two clients") { property, deadline throws(ConnectError) in
            try checkTwins(&property, deadline)
        }
        property("nothing else arrived: no echo, no repetition") { property, deadline in
            checkSilence(&property, deadline)
        }
    }

    /// A client's masked frame with any first byte and any length fields; the mask is zero, so the payload stands as it is.
    private static func raw(_ first: UInt8, _ length: [UInt8], _ payload: [UInt8] = []) -> [UInt8] {
        [first, length[0] | 0x80] + length[1...] + [0, 0, 0, 0] + payload
    }

    private static func protocolErrors() -> [(String, [UInt8])] {
        [
            ("an unmasked frame", Frame(opcode: .binary, payload: [1], masked: false).encoded),
            ("reserved bit 1", Frame(opcode: .binary, payload: [1], reserved: 0x40).encoded),
            ("reserved bit 3", Frame(opcode: .text, payload: [0x61], reserved: 0x10).encoded),
            ("opcode 3", raw(0x83, [0])),
            ("opcode 11", raw(0x8B, [0])),
            ("a fragmented ping", raw(0x09, [0])),
            ("a ping of 126 bytes", raw(0x89, [126, 0, 126], [UInt8](repeating: 1, count: 126))),
            ("a continuation of nothing", Frame(opcode: .continuation, payload: [1]).encoded),
            (
                "a new message within fragments",
                Frame(opcode: .text, payload: [0x61], final: false).encoded
                    + Frame(opcode: .text, payload: [0x61]).encoded
            ),
            ("16-bit length below 126", raw(0x82, [126, 0, 5], [1, 2, 3, 4, 5])),
            ("64-bit length below 65536", raw(0x82, [127, 0, 0, 0, 0, 0, 0, 0, 5], [1, 2, 3, 4, 5])),
            ("64-bit length with its highest bit", raw(0x82, [127, 0x80, 0, 0, 0, 0, 0, 0, 5])),
            ("a close payload of 1 byte", Frame(opcode: .close, payload: [3]).encoded),
            ("close code 1005", Frame.close(1005).encoded),
            ("close code 999", Frame.close(999).encoded),
            ("close code 5000", Frame.close(5000).encoded),
        ]
    }

    private static func invalidTexts() -> [(String, [UInt8])] {
        [
            ("a stray byte", Frame(opcode: .text, payload: [0x61, 0xFF]).encoded),
            ("an overlong form", Frame(opcode: .text, payload: [0xC0, 0x80]).encoded),
            ("a surrogate", Frame(opcode: .text, payload: [0xED, 0xA0, 0x80]).encoded),
            ("beyond U+10FFFF", Frame(opcode: .text, payload: [0xF4, 0x90, 0x80, 0x80]).encoded),
            ("a cut character", Frame(opcode: .text, payload: [0x61, 0xE2, 0x82]).encoded),
            (
                "a character cut across fragments",
                Frame(opcode: .text, payload: [0xE2, 0x82], final: false).encoded
                    + Frame(opcode: .continuation, payload: [0x61]).encoded
            ),
        ]
    }

    /// A host alone in a new room sends `bytes` and must be closed with `code`.
    private func expectClose(
        _ code: UInt16, _ what: String, _ bytes: [UInt8], _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        let room = CheckRoom(index: rooms.count)
        guard let host = try join(room.hostRequest(), room, name: what, &property, deadline) else { return }
        // Each case has its own time, so that one that hangs does not take that of the others.
        let deadline = Deadline(seconds: min(2, options.timeout))
        host.send(bytes: bytes)
        _ = loop.run([host], until: deadline) { host.closeFrame != nil || host.ended != nil }
        // A client answers a close frame (RFC 6455, section 5.5.1); then the relay closes TCP (section 7.1.1).
        if host.ended == nil, host.closeFrame != nil { host.send(Frame.close(code)) }
        loop.awaitEnd([host], deadline: deadline)
        let got = host.closeFrame.map { frame in frame.code.map { "\($0)" } ?? "a close frame without code" }
        property.expect(what, got ?? host.ended ?? "nothing", is: "\(code)")
        property.expect(host.ended != nil, "\(what): the relay left the connection open")
        property.expect(!host.isTruncated, "\(what): \(host.ended ?? "")")
    }

    private func checkTooBig(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        let over = UInt64(options.maxMessage + 1)
        let length = (0..<8).map { UInt8(truncatingIfNeeded: over >> UInt64(56 - 8 * $0)) }
        // The header alone says that it is too big; the relay need not wait for the rest.
        try expectClose(
            1009, "one frame of \(over) bytes (header only sent)", Self.raw(0x82, [127] + length), &property, deadline)
        let half = [UInt8](repeating: 1, count: options.maxMessage / 2 + 1)
        let fragments =
            Frame(opcode: .binary, payload: half, final: false).encoded
            + Frame(opcode: .continuation, payload: half).encoded
        try expectClose(1009, "two fragments over the limit together", fragments, &property, deadline)
    }

    private func checkRoomLife(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        let room = CheckRoom(index: rooms.count)
        guard let host = try join(room.hostRequest(), room, name: "host", &property, deadline),
            let first = try join(room.guestRequest(peer: "first"), room, name: "guest", &property, deadline)
        else { return }
        try leave(host, room, peer: "host", &property, deadline)
        guard
            let second = try join(
                room.guestRequest(peer: "second"), room, name: "guest without host", &property, deadline)
        else { return }
        let thief = CheckRoom(index: room.index, id: room.id)
        try refuse(
            thief.hostRequest(), "another key while the host is away", 403, "room held by another host", &property,
            deadline)
        room.say(Self.envelope("away", 1, 1), by: second)
        settle(&property, deadline, [first, second])
        guard let back = try join(room.hostRequest(), room, name: "returning host", &property, deadline) else { return }
        room.say(Self.envelope("back", 0, 1), by: back)
        settle(&property, deadline, room.members)
        for member in [back, first, second] { member.send(Frame.close(1000)) }
        loop.awaitEnd([back, first, second], deadline: deadline)
        try refuse(
            room.guestRequest(peer: "late"), "guest of an ended room", 404, "room not found", &property, deadline)
        _ = try join(thief.hostRequest(), thief, name: "new host of an ended room's id", &property, deadline)
    }

    /// The member says goodbye and the others are told.
    private func leave(
        _ member: CheckMember, _ room: CheckRoom, peer: String, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        room.expect(.leave(peer: peer), from: member)
        member.send(Frame.close(1000))
        loop.awaitEnd([member], deadline: deadline)
        room.members.removeAll { $0 === member }
        settle(&property, deadline, room.members)
    }

    private func checkQueries(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        let id = "check é/%+& " + Encoding.hex(Encoding.randomBytes(8))
        let room = CheckRoom(index: rooms.count, id: id)
        guard let host = try join(room.hostRequest(), room, name: "host", &property, deadline) else { return }
        let token = room.key.token(Token(room: id, peer: "guest", role: "guest"))
        var lower = Encoding.percent(id)
        lower = lower.replacing("%C3%A9", with: "%c3%a9").replacing("%20", with: "+")
        let targets = [
            ("+ and lower-case hex", "/ws?room=\(lower)&token=\(token)"),
            ("other order, unknown parameter", "/ws?x=1&token=\(token)&room=\(Encoding.percent(id))"),
            ("repeated names", "/ws?room=\(lower)&token=\(token)&room=other&token=other"),
        ]
        for (what, target) in targets {
            guard let guest = try join(Request(target: target), room, name: what, &property, deadline) else { continue }
            room.say(Self.envelope("query", 0, room.members.count), by: guest)
            // Before the next one joins: who is there first, he or this message, is the relay's choice.
            settle(&property, deadline, room.members)
        }
        room.say(Self.envelope("query", 1, 0), by: host)
        settle(&property, deadline, room.members)
    }

    private func checkTwins(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        let room = CheckRoom(index: rooms.count)
        let request = room.guestRequest(peer: "twin")
        guard let host = try join(room.hostRequest(), room, name: "host", &property, deadline),
            let one = try join(request, room, name: "twin 1", &property, deadline),
            let two = try join(request, room, name: "twin 2", &property, deadline)
        else { return }
        room.say(Self.envelope("twin", 1, 1), by: one)
        room.say(Self.envelope("twin", 2, 1), by: two)
        room.say(Self.envelope("twin", 0, 1), by: host)
        settle(&property, deadline, room.members)
        try leave(one, room, peer: "m1", &property, deadline)
        room.say(Self.envelope("twin", 2, 2), by: two)
        settle(&property, deadline, room.members)
    }

    /// All rooms are listened to for a moment in which nothing is due.
    private func checkSilence(_ property: inout Property, _ deadline: Deadline) {
        _ = loop.run(members, until: Deadline(seconds: 0.3)) { false }
        for member in members {
            let problems = member.takeProblems()
            property.expect(problems.isEmpty, problems.first ?? "")
            property.expect(member.ended == nil, "\(member.name): connection ended: \(member.ended ?? "")")
        }
    }
}
