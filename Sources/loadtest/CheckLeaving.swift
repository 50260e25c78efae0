// Leaving: the close handshake, the notice that the others get, and what the notice calls the one who left.

extension CheckRun {
    /// One way to be in a room for a while.
    private struct Visit {
        /// The token's `peer_id`.
        var peer = "visitor"
        /// Sent in this order before leaving.
        var messages: [String]
        /// What the notice must say in `from`.
        var from: String
        /// The close frame's code; nil is a close frame without one.
        var code: UInt16? = 1000
        /// Ends the TCP connection without a close frame.
        var vanishes = false
    }

    private static func visits() -> [Visit] {
        let odd = "o\"d\\d \u{1}\n\té\u{1F600}</script>\u{2028}"
        let oddJSON = Encoding.json(odd)
        let fits = String(repeating: "f", count: 256)
        return [
            Visit(messages: [#"{"id":"1","from":"chosen","type":"a"}"#], from: "chosen"),
            Visit(messages: [], from: "visitor", code: 1001),
            Visit(messages: [#"{"from":"first"}"#, #"{"from":"second"}"#], from: "first", code: 3000),
            Visit(messages: ["no JSON", #"{"from":"second"}"#], from: "visitor", code: 4999),
            Visit(peer: odd, messages: [], from: odd, code: nil),
            Visit(messages: ["{\"from\":\(oddJSON)}"], from: odd),
            Visit(messages: [#"{"from":""}"#], from: "visitor"),
            Visit(messages: [#"{"from":7}"#], from: "visitor"),
            Visit(messages: [#"{"a":{"from":"inner"},"b":["from","x"]}"#], from: "visitor"),
            Visit(messages: ["{\"from\":\"\(fits)\"}"], from: fits),
            Visit(messages: ["{\"from\":\"\(fits)f\"}"], from: "visitor"),
            Visit(messages: [#"["from","array"]"#], from: "visitor"),
            Visit(messages: ["KV voice is not looked at", #"{"from":"behind voice"}"#], from: "behind voice"),
            Visit(messages: [#" { "x" : [1,2,{"y":null}] , "from" : "sp\u0061ced" } "#], from: "spaced"),
            Visit(messages: [#"{"from":"vanished"}"#], from: "vanished", vanishes: true),
            Visit(messages: [#"{"from":"broken""#], from: "visitor"),
        ]
    }

    func checkLeaving() {
        var close = Property("the close frame is echoed, then the connection ends")
        let seconds = options.timeout + Double(rooms.count) / 25
        property("leave notices: exact, escaped, behind the last message", seconds: seconds) {
            property, deadline throws(ConnectError) in
            let visits = Self.visits()
            for (index, room) in rooms.enumerated() {
                try visit(room, visits[index % visits.count], number: index / visits.count, &property, &close, deadline)
            }
            // Few rooms see every way all the same.
            for index in rooms.count..<max(rooms.count, visits.count) {
                try visit(rooms[index % rooms.count], visits[index], number: index, &property, &close, deadline)
            }
            settle(&property, deadline)
            if deadline.hasPassed { property.fail("gave up: the relay is too slow, or all time went into the above") }
        }
        report.add(close)
    }

    private func visit(
        _ room: CheckRoom, _ visit: Visit, number: Int, _ property: inout Property, _ close: inout Property,
        _ deadline: Deadline
    ) throws(ConnectError) {
        guard !deadline.hasPassed else { return }
        let stay = room.members
        let name = "visitor \(number)"
        let guest = try join(room.guestRequest(peer: visit.peer), room, name: name, &property, deadline)
        room.members = stay
        guard let guest else { return }
        // One visit that hangs must not take the time of the others.
        let deadline = Deadline(seconds: min(2, options.timeout), within: deadline)
        for message in visit.messages { room.say(Array(message.utf8), by: guest) }
        room.expect(.leave(peer: visit.from), from: guest)
        if visit.vanishes {
            _ = loop.run([guest], until: deadline) { !guest.wantsToWrite }
            guest.vanish()
        } else {
            guest.send(visit.code.map { Frame.close($0, "bye") } ?? Frame(opcode: .close))
            loop.awaitEnd([guest], deadline: deadline)
            close.expect(
                "\(guest.name): close frame", guest.closeFrame.map { "\($0)" } ?? "none",
                is: "\(CloseFrame(code: visit.code))")
            close.expect(guest.ended != nil, "\(guest.name): the relay left the connection open")
            close.expect(!guest.isTruncated, "\(guest.name): \(guest.ended ?? "")")
        }
        settle(&property, deadline, stay)
    }
}
