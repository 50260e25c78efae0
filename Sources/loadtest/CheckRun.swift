// The whole check, step by step. Every step is one property, has one deadline, and works on all rooms at once.

final class CheckRun {
    let endpoint: Endpoint
    let options: CheckCommand
    var report: CheckReport
    var loop = CheckLoop()
    var rooms: [CheckRoom] = []
    /// Joins that were answered with 101: how many connections the relay has placed.
    var joins = 0

    init(endpoint: Endpoint, options: CheckCommand) {
        self.endpoint = endpoint
        self.options = options
        report = CheckReport(detailsMax: options.verbose ? 20 : 3)
    }

    /// Whether all properties hold. Throws if the relay can't be reached at the start.
    func run() throws(ConnectError) -> Bool {
        let start = Clock.monotonic()
        // Nothing is worth printing if nobody listens.
        _ = try Transport.connect(to: endpoint, deadline: Deadline(seconds: options.timeout))
        print("Checking \(endpoint.authority): \(options.rooms) rooms x (1 host + \(options.guests) guests)")
        let allJoined = checkHTTPAndJoins()
        if allJoined {
            checkMessages()
            if isSecure { checkRecords() }
            checkLeaving()
            checkRules()
        }
        checkRefusals()
        if isSecure { checkHandshakes() }
        summarize(seconds: Double(Clock.monotonic() - start) / 1e9)
        return report.isClean
    }

    /// Makes one property with a deadline, catching a relay that has stopped to take connections.
    func property(
        _ name: String, seconds: Double? = nil, _ body: (inout Property, Deadline) throws(ConnectError) -> Void
    ) {
        var property = Property(name)
        do throws(ConnectError) {
            try body(&property, Deadline(seconds: seconds ?? options.timeout))
        } catch {
            property.fail(error.description)
        }
        report.add(property)
    }

    private func checkHTTPAndJoins() -> Bool {
        property("GET /health, GET /, 404, 405") { property, deadline throws(ConnectError) in
            try checkPages(&property, deadline)
        }
        // The relay may take 100 joins a second of one address only.
        let seconds = options.timeout + Double(options.rooms * (options.guests + 1)) / 50
        property("hosts open rooms", seconds: seconds) { property, deadline throws(ConnectError) in
            try openRooms(&property, deadline)
        }
        property("guests join (request head in two \(isSecure ? "packets, records" : "packets"))", seconds: seconds) {
            property, deadline throws(ConnectError) in
            try joinGuests(&property, deadline)
        }
        property("a frame in the request's own \(isSecure ? "record, packet" : "packet") arrives", seconds: seconds) {
            property, deadline throws(ConnectError) in
            try joinWithEarlyFrame(&property, deadline)
        }
        return rooms.allSatisfy { $0.members.count == options.guests + 1 }
    }

    /// Joins a connection to a room. Nil: refused, which is counted as a failure.
    func join(
        _ request: Request, _ room: CheckRoom, name: String, early: [UInt8] = [], cut: Cut = .none,
        _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) -> CheckMember? {
        let exchange = try request.perform(at: endpoint, early: early, cut: cut, deadline: deadline)
        let label = "room \(room.index) \(name)"
        guard case .switched(let transport, let rest, let answer) = exchange else {
            property.fail("\(label): expected 101, got \(exchange.summary)")
            return nil
        }
        property.expect(
            "\(label): Sec-WebSocket-Accept", answer["sec-websocket-accept"] ?? "none", is: request.expectedAccept)
        let extras = ["sec-websocket-extensions", "sec-websocket-protocol"].filter { answer[$0] != nil }
        if !extras.isEmpty { property.fail("\(label): the 101 has \(extras[0]), which was not asked for") }
        joins += 1
        let member = CheckMember(name: label, transport: transport, rest: rest)
        room.members.append(member)
        return member
    }

    private func openRooms(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        for index in 0..<options.rooms {
            let room = CheckRoom(index: index)
            rooms.append(room)
            _ = try join(room.hostRequest(), room, name: "host", &property, deadline)
        }
    }

    var isSecure: Bool { endpoint.tls != nil }

    /// All guests but the last. The first sends its head in two packets, or in two records or a cut one; the others share
    /// one invite token.
    private func joinGuests(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        for room in rooms {
            for guest in 1..<options.guests {
                let request = room.guestRequest(peer: guest == 1 ? "guest" : "invite")
                let index = 20 + room.index % 100
                let cuts = [Cut.packets(at: index), .records(at: index), .record(at: 1 + room.index % 60)]
                let cut = guest > 1 ? .none : cuts[isSecure ? room.index % 3 : 0]
                _ = try join(request, room, name: "guest \(guest)", cut: cut, &property, deadline)
            }
        }
    }

    /// The last guest. Its first frame is sometimes longer than any packet, so that only its beginning comes with the head.
    /// Over TLS every other one comes in a record of its own, in the same packet.
    private func joinWithEarlyFrame(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        for room in rooms {
            let guest = "guest \(options.guests)"
            let padding = String(repeating: "e", count: [0, 1000, 20_000][room.index % 3])
            let payload = Array("{\"from\":\"early\",\"room\":\(room.index),\"pad\":\"\(padding)\"}".utf8)
            let early = Frame(opcode: .text, payload: payload).encoded
            let others = room.members
            for member in others { member.expect(.exactly(payload), from: "room \(room.index) \(guest)") }
            let request = room.guestRequest(peer: "invite")
            let head = request.encoded(authority: endpoint.authority).count
            let cut = isSecure && room.index / 3 % 2 == 1 ? Cut.records(at: head) : .none
            _ = try join(request, room, name: guest, early: early, cut: cut, &property, deadline)
        }
        settle(&property, deadline)
    }

    var members: [CheckMember] { rooms.flatMap { $0.members } }

    /// Waits for what was promised, counts it, and takes stock of what went wrong.
    func settle(_ property: inout Property, _ deadline: Deadline, _ some: [CheckMember]? = nil) {
        let members = some ?? self.members
        loop.settle(members, deadline: deadline)
        for member in members {
            property.pass(member.takeArrived())
            for problem in member.takeProblems() { property.fail(problem) }
            for missing in member.giveUp() { property.fail(missing) }
            if let reason = member.ended { property.fail("\(member.name): connection ended: \(reason)") }
        }
        for room in rooms { room.members.removeAll { $0.ended != nil } }
    }

    private func summarize(seconds: Double) {
        let words = report.isClean ? "All ok" : "FAILED: \(report.failedProperties) of \(report.properties) properties"
        let tenths = Int(seconds * 10)
        print("\n\(words): \(report.checks) checks, \(report.failures) failures, \(tenths / 10).\(tenths % 10) s")
        guard !rooms.isEmpty else { return }
        let odds = (options.workers.map { [$0] } ?? [2, 4, 8, 16]).map { workers in
            "\(workers) workers \(Coverage(workers: workers, rooms: rooms.count, joins: joins).percent)"
        }
        print("Odds that every way from accepting to owning worker was used: \(odds.joined(separator: ", "))")
    }
}

/// How likely it is that `joins`, spread evenly over rooms, used every pair of accepting and owning worker.
///
/// A pair is missed by a room with chance 1 - (1/W)(1 - (1-1/W)^c), c being the room's joins, and by all R rooms with the
/// R-th power of that. Taking the W x W pairs as independent is close enough.
struct Coverage {
    let workers: Int
    let rooms: Int
    let joins: Int

    var probability: Double {
        let share = 1 / Double(workers)
        let usedByOwner = 1 - power(1 - share, joins / max(1, rooms))
        let missed = power(1 - share * usedByOwner, rooms)
        return power(1 - missed, workers * workers)
    }

    /// Rooms enough for `percent` to be 99 or more.
    static func rooms(workers: Int, joinsPerRoom: Int) -> Int {
        var rooms = workers
        while Coverage(workers: workers, rooms: rooms, joins: rooms * joinsPerRoom).probability < 0.99 {
            rooms += max(1, rooms / 16)
        }
        return rooms
    }

    var percent: String {
        let percent = Int(probability * 100)
        return percent >= 99 ? ">= 99 %" : percent < 1 ? "< 1 %" : "\(percent) %"
    }

    private func power(_ base: Double, _ exponent: Int) -> Double {
        (0..<exponent).reduce(1) { result, _ in result * base }
    }
}
