// What is so over TLS only: keys that change between messages, the end of a connection, handshakes.

extension CheckRun {
    /// In the rooms that are open.
    func checkRecords() {
        property("TLS: KeyUpdates both ways between messages") { property, deadline in
            for round in 0..<6 { checkKeyUpdates(round: round, &property, deadline) }
        }
        property("TLS: close_notify is answered, and the others are told") { property, deadline throws(ConnectError) in
            for room in rooms.prefix(16) { try checkCloseNotify(room, &property, deadline) }
        }
    }

    /// All members at once: a message, a KeyUpdate that mostly asks for one back, a longer message, a ping. What the ping
    /// gives back comes behind the relay's own KeyUpdate (RFC 8446, 4.6.3), so then it is there or missing.
    private func checkKeyUpdates(round: Int, _ property: inout Property, _ deadline: Deadline) {
        var before: [(member: CheckMember, keyUpdates: Int)] = []
        let ping = Array("round \(round)".utf8)
        for room in rooms {
            for (index, member) in room.members.enumerated() {
                room.say(Self.envelope("keys", index, 2 * round), by: member)
                let asks = (round + index) % 3 != 2
                before.append((member, member.keyUpdates + (asks ? 1 : 0)))
                member.updateKeys(asking: asks)
                // Every eighth room's is longer than a record.
                let pad = room.index % 8 == 0 ? 20_000 : 100 * round
                room.say(Self.envelope("keys", index, 2 * round + 1, pad: pad), by: member)
                member.send(Frame(opcode: .ping, payload: ping))
            }
        }
        let members = members
        _ = loop.run(members, until: deadline) {
            members.allSatisfy { ($0.pongs.count >= 1 && !$0.wantsToWrite) || $0.ended != nil }
        }
        settle(&property, deadline)
        for (member, expected) in before {
            property.expect("\(member.name): pongs", member.takePongs(), is: [ping])
            property.expect("\(member.name), round \(round): KeyUpdates so far", member.keyUpdates, is: expected)
        }
    }

    /// A member ends TLS without a close frame: to the relay he has left, and the relay's own close_notify is the answer.
    private func checkCloseNotify(
        _ room: CheckRoom, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        let stay = room.members
        let guest = try join(room.guestRequest(peer: "closer"), room, name: "closer", &property, deadline)
        room.members = stay
        guard let guest else { return }
        room.say(Self.envelope("closer", 1, 1), by: guest)
        room.expect(.leave(peer: "m1"), from: guest)
        guest.transport.secure?.closeNotify()
        let deadline = Deadline(seconds: min(2, options.timeout), within: deadline)
        loop.awaitEnd([guest], deadline: deadline)
        property.expect(guest.ended != nil, "\(guest.name): no answer to close_notify")
        property.expect(!guest.isTruncated, "\(guest.name): \(guest.ended ?? "")")
        settle(&property, deadline, stay)
    }

    /// On connections of their own.
    func checkHandshakes() {
        property("TLS 1.3, http/1.1 by ALPN") { property, deadline throws(ConnectError) in
            let transport = try Transport.connect(to: endpoint, deadline: deadline)
            property.expect("version", transport.secure?.version ?? "none", is: "TLSv1.3")
            property.expect("protocol", transport.secure?.applicationProtocol ?? "none", is: "http/1.1")
        }
        property("TLS: a ticket resumes, whichever worker takes it") { property, deadline throws(ConnectError) in
            for attempt in 0..<max(12, 4 * (options.workers ?? 1)) {
                try resume(attempt, &property, deadline)
            }
        }
        property("plain HTTP at the TLS port is refused in plain words") { property, deadline throws(ConnectError) in
            let transport = try Transport.connectTCP(to: endpoint, deadline: deadline)
            let bytes = Request.plain("/health").encoded(authority: endpoint.authority)
            let exchange = Request.plain("/health").exchange(transport, bytes, deadline: deadline)
            guard case .answered(let answer) = exchange else {
                return property.fail("expected 400, got \(exchange.summary)")
            }
            property.expect("status", answer.status, is: 400)
            property.expect(!answer.text.isEmpty, "expected a reason in the body")
        }
    }

    /// The last ticket of any connection is good for the next one, and that one brings a new one.
    private func resume(_ attempt: Int, _ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        guard endpoint.tls?.hasTicket == true else { return property.fail("no ticket has come") }
        let transport = try Transport.connect(to: endpoint, resume: true, deadline: deadline)
        property.expect(transport.secure?.isResumed == true, "handshake \(attempt): the ticket was not taken")
        let bytes = Request.plain("/health").encoded(authority: endpoint.authority)
        let exchange = Request.plain("/health").exchange(transport, bytes, deadline: deadline)
        guard case .answered(let answer) = exchange else { return property.fail("GET /health: \(exchange.summary)") }
        property.expect("GET /health", answer.status, is: 200)
    }
}
