import Foundation
import Testing

@Suite struct `Limits` {
    @Test func `a full room still takes 4 hosts, and no more`() async throws {
        try await Relay.run(["RELAY_MAX_CLIENTS_PER_ROOM": "3"]) { relay in
            let session = Session()
            var members = [try await relay.join(session.host())]
            for index in 0..<2 { members.append(try await relay.join(session.guest("g\(index)"))) }
            #expect(try await relay.answer(session.guest()).answer == "503 room full")
            for index in 0..<4 {
                members.append(try await relay.join(session.host("h\(index)")))
                #expect(try await relay.answer(session.guest()).answer == "503 room full")
            }
            #expect(try await relay.answer(session.host()).answer == "503 room full")
            // Everybody is a full member.
            try #require(members.last).send("to all")
            for member in members.dropLast() { #expect(try await member.data(1) == ["to all"]) }
            // Who leaves makes room for one, by the same count.
            members.removeLast().abort()
            _ = try await members[0].data(2)
            _ = try await relay.join(session.host())
        }
    }

    @Test func `rooms are counted over all workers, and those that end are free again`() async throws {
        try await Relay.run(workers: 4, ["RELAY_MAX_ROOMS": "6"]) { relay in
            var rooms: [(Session, WebSocketClient)] = []
            for _ in 0..<6 {
                let session = Session()
                rooms.append((session, try await relay.join(session.host())))
            }
            for _ in 0..<8 { #expect(try await relay.answer(Session().host()).answer == "503 max rooms reached") }
            // A room that is open takes its members.
            for (session, _) in rooms { _ = try await relay.join(session.guest()) }
            rooms.removeFirst().1.abort()
            let next = Session()
            let host = try await awaited("a place for a room") { try? await relay.join(next.host()) }
            #expect(try await relay.answer(Session().host()).answer == "503 max rooms reached")
            #expect(host.isOpen)
        }
    }

    @Test func `joins are limited per address, exactly, over all workers`() async throws {
        try await Relay.run(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "5"]) { relay in
            let clock = ContinuousClock()
            let start = clock.now
            var admitted = 0
            var refused = 0
            // Every request to /ws counts, whatever becomes of it.
            for _ in 0..<60 {
                let answer = try await relay.answer(Join())
                switch answer.answer {
                case "400 missing room or token": admitted += 1
                case "429 rate limit exceeded":
                    refused += 1
                    #expect(answer["retry-after"].flatMap { Int($0) } ?? 0 >= 1)
                default: Issue.record("\(answer)")
                }
            }
            let seconds = Double((clock.now - start).components.seconds + 1)
            #expect(admitted >= 10)
            #expect(Double(admitted) <= 10 + 5 * seconds)
            #expect(refused > 0 || seconds > 9)
            // The pages have a bucket of their own, and time heals.
            #expect(try await relay.health().status == 200)
            let session = Session()
            _ = try await awaited("a join to be admitted again") { try? await relay.join(session.host()) }
        }
    }

    @Test func `the rate limit can be off`() async throws {
        try await Relay.run(["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            for _ in 0..<300 {
                let answer = try await relay.answer(Join())
                #expect(answer.status == 400)
            }
        }
    }

    /// With which of the others an address shares its limit of 1 a second and burst of 2.
    private func sharing(
        _ relay: Relay, _ field: String, _ first: String, _ others: [String]
    ) async throws -> [String] {
        var sharing: [String] = []
        for other in others {
            // Twice, because a second may pass between the two requests: an address of its own has a burst of 2.
            for _ in 0..<2 where sharing.last != other {
                try await eventually("\(first) to be limited") {
                    try await relay.answer(Join().with(field, first)).status == 429
                }
                if try await relay.answer(Join().with(field, other)).status == 429 { sharing.append(other) }
            }
        }
        return sharing
    }

    @Test func `a trusted proxy says whom a join is from`() async throws {
        try await Relay.run(["RELAY_RATE_LIMIT_PER_IP": "1"]) { relay in
            let others = [
                "192.0.2.2", "192.0.2.1, 192.0.2.3", "192.0.2.4, 192.0.2.1", "192.0.2.5, 192.0.2.1, 127.0.0.9",
            ]
            let sharing = try await sharing(relay, "X-Forwarded-For", "192.0.2.1", others)
            // The right-most that is no proxy itself.
            #expect(sharing == Array(others.suffix(2)))
            let real = try await self.sharing(relay, "X-Real-IP", "203.0.113.1", ["203.0.113.1", "203.0.113.2"])
            #expect(real == ["203.0.113.1"])
            // IPv6 by its /64.
            let wide = ["2001:db8::2", "2001:db8:0:0:ffff::1", "2001:db8:0:1::1"]
            #expect(
                try await self.sharing(relay, "X-Forwarded-For", "2001:db8::1", wide) == Array(wide.prefix(2)))
        }
    }

    @Test func `nobody else is believed`() async throws {
        for proxies in ["", "10.0.0.0/8"] {
            try await Relay.run(["RELAY_RATE_LIMIT_PER_IP": "1", "RELAY_TRUSTED_PROXIES": proxies]) { relay in
                // The burst is the socket's address's, whoever it says it is: of many names hardly any gets through.
                let start = ContinuousClock().now
                var admitted = 0
                for index in 0..<30 {
                    let join = Join().with("X-Forwarded-For", "192.0.2.\(index)").with("X-Real-IP", "192.0.3.\(index)")
                    if try await relay.answer(join).status != 429 { admitted += 1 }
                }
                let seconds = Int((ContinuousClock().now - start).components.seconds + 1)
                #expect(admitted <= 2 + seconds)
            }
        }
    }

    @Test func `connections are counted over all workers`() async throws {
        try await Relay.run(workers: 3, ["RELAY_MAX_CONNECTIONS": "8"]) { relay in
            var sessions: [(WebSocketClient, WebSocketClient)] = []
            for _ in 0..<4 {
                let session = Session()
                sessions.append((try await relay.join(session.host()), try await relay.join(session.guest())))
            }
            for _ in 0..<6 {
                let client = try await RawClient(relay.port)
                let answer = try await client.response()
                #expect(answer.status == 503)
                #expect(answer["retry-after"] == "1")
            }
            sessions[0].1.abort()
            try await eventually("a place for a connection") { (try? await relay.health().status) == 200 }
            for (host, _) in sessions { #expect(host.isOpen) }
        }
    }
}
