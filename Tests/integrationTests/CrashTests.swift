import Glibc
import Testing

@Suite struct `A worker's death` {
    @Test func `costs its own rooms alone, and guests come back before their host`() async throws {
        let rooms = 24
        // No more than are needed: what the dead worker held must be given back.
        let variables = [
            "RELAY_RATE_LIMIT_PER_IP": "0", "RELAY_MAX_ROOMS": "\(rooms)", "RELAY_MAX_CONNECTIONS": "\(3 * rooms)",
        ]
        try await Relay.run(workers: 3, variables, losesWorkers: true) { relay in
            var living: [(session: Session, host: WebSocketClient, guest: WebSocketClient)] = []
            for _ in 0..<rooms {
                let session = Session()
                living.append((session, try await relay.join(session.host()), try await relay.join(session.guest())))
            }
            let workers = relay.workerPIDs
            try #require(workers.count == 3)
            try await relay.keysTold()
            kill(workers[1], SIGKILL)
            try await eventually("a successor") {
                relay.workerPIDs.count == 3 && !relay.workerPIDs.contains(workers[1])
            }
            #expect(relay.workerPIDs.filter { workers.contains($0) } == [workers[0], workers[2]])

            // A room is hit with all who are in it, or not at all: and then nobody in it has noticed anything.
            var dead: [(session: Session, host: WebSocketClient, guest: WebSocketClient)] = []
            for room in living {
                room.host.send("anybody?")
                try await eventually("the fate of a room") { room.guest.data.count == 1 || !room.guest.isOpen }
                if room.guest.data.isEmpty {
                    #expect(try await room.guest.ended() == .cut)
                    #expect(try await room.host.ended() == .cut)
                    dead.append(room)
                } else {
                    #expect(room.host.isOpen && room.host.messages.isEmpty)
                    #expect(room.guest.isOpen)
                }
            }
            #expect(!dead.isEmpty && dead.count < rooms)

            living.removeAll { room in dead.contains { $0.session.room == room.session.room } }
            for room in dead {
                let thief = Session(room.session.room)
                #expect(try await relay.answer(thief.host()).answer == "403 room held by another host")
                #expect(try await relay.answer(thief.guest()).answer == "401 invalid token: invalid signature")
                let guest = try await relay.join(room.session.guest("early"))
                #expect(try await relay.answer(thief.host()).answer == "403 room held by another host")
                let host = try await relay.join(room.session.host())
                host.send("back")
                #expect(try await guest.data(1) == ["back"])
                living.append((room.session, host, guest))
            }
            try await relay.healthy()
            #expect(try await relay.answer(Session().host()).answer == "503 max rooms reached")
        }
    }

    @Test func `keeps nobody from being served who came while it was down`() async throws {
        try await Relay.run(
            workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"], losesWorkers: true
        ) { relay in
            let sessions = (0..<12).map { _ in Session() }
            var hosts: [WebSocketClient] = []
            for session in sessions { hosts.append(try await relay.join(session.host())) }
            try await relay.keysTold()
            let victim = try #require(relay.workerPIDs.first)
            kill(victim, SIGSTOP)
            try await eventually("the worker to stand still") { Processes.state(of: victim) == "T" }
            // About half of these wait in its listener, and of the others half in its inbox.
            var pages: [RawClient] = []
            var guests: [RawClient] = []
            for session in sessions {
                let page = try await RawClient(relay.port)
                try await page.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                pages.append(page)
                let guest = try await RawClient(relay.port)
                try await guest.send(Array(session.guest().head.utf8) + RawFrame.client(0x89, [1]))
                guests.append(guest)
            }
            kill(victim, SIGKILL)
            for page in pages { #expect(try await page.response().status == 200) }
            for guest in guests {
                #expect(try await guest.response().status == 101)
                #expect(try await guest.frame().payload == [1])
            }
            try await relay.healthy()
        }
    }

    @Test func `leaves its rooms to their hosts for a minute, whoever comes and goes meanwhile`() async throws {
        try await Relay.run(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"], losesWorkers: true) { relay in
            let sessions = (0..<6).map { _ in Session() }
            var hosts: [WebSocketClient] = []
            for session in sessions { hosts.append(try await relay.join(session.host())) }
            try await relay.keysTold()
            for victim in relay.workerPIDs { kill(victim, SIGKILL) }
            try await relay.healthy()
            for session in sessions {
                // A guest is the first one back, and gives up.
                let guest = try await awaited("the room's key") { try? await relay.join(session.guest()) }
                guest.abort()
                let stranger = Session(session.room)
                try await eventually("an empty room") {
                    let answer = try await relay.answer(stranger.guest()).answer
                    return answer.hasPrefix("401")
                }
                #expect(try await relay.answer(stranger.host()).answer == "403 room held by another host")
                _ = try await relay.join(session.guest())
                _ = try await relay.join(session.host())
            }
        }
    }

    @Test func `is brought about where it hangs`() async throws {
        try await Relay.run(workers: 2, losesWorkers: true) { relay in
            let victim = try #require(relay.workerPIDs.first)
            kill(victim, SIGSTOP)
            try await eventually("a successor", seconds: 40) {
                !relay.workerPIDs.contains(victim) && relay.workerPIDs.count == 2
            }
            try await relay.healthy()
            let session = Session()
            _ = try await relay.join(session.host())
        }
    }

    @Test func `makes health degraded, with 200, until it is replaced`() async throws {
        try await Relay.run(workers: 2, losesWorkers: true) { relay in
            let workers = relay.workerPIDs
            var clients: [RawClient] = []
            for _ in 0..<16 { clients.append(try await RawClient(relay.port)) }
            let request = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            for client in clients {
                try await client.send(request)
                #expect(try await client.response().body == #"{"status":"ok"}"#)
            }
            // Killed again and again it is replaced ever more slowly: who talks to the other one sees it missing.
            let answer = try await awaited("a degraded relay") { () -> HTTPResponse? in
                for worker in relay.workerPIDs where worker != workers[1] { kill(worker, SIGKILL) }
                clients.removeAll { $0.isAtEnd() }
                guard let client = clients.first else {
                    throw TimedOut(description: "no connection to the other worker")
                }
                try await client.send(request)
                guard let answer = try? await client.response() else { return nil }
                return answer.body == #"{"status":"ok"}"# ? nil : answer
            }
            #expect(answer.answer == #"200 {"status":"degraded"}"#)
            try await relay.healthy()
            #expect(relay.workerPIDs.contains(workers[1]))
        }
    }
}
