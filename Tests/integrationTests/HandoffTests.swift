import Foundation
import Testing

@Suite struct `Handing over` {
    @Test func `loses no frame that came with the request`() async throws {
        try await Relay.run(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            // 16 ways from the accepting worker to the owner: with so many joins each is surely used.
            for room in 0..<24 {
                let session = Session()
                let host = try await relay.join(session.host())
                for index in 0..<4 {
                    let guest = try await RawClient(relay.port)
                    let early = (0..<5).flatMap { RawFrame.client(text: "\(room) \(index) \($0)") }
                    try await guest.send(Array(session.guest("g").head.utf8) + early + RawFrame.client(0x89, [7]))
                    #expect(try await guest.response().status == 101)
                    #expect(try await guest.frame().payload == [7])
                    let data = try await host.data(6 * index + 5)
                    #expect(Array(data.suffix(5)) == (0..<5).map { "\(room) \(index) \($0)" })
                    try await guest.send(RawFrame.client(0x88, []))
                    _ = try await host.data(6 * index + 6)
                }
            }
        }
    }

    @Test func `keeps a large first message and what follows whole`() async throws {
        try await Relay.run(workers: 4) { relay in
            for _ in 0..<12 {
                let session = Session()
                let host = try await relay.join(session.host())
                let guest = try await RawClient(relay.port)
                let large = String(repeating: "large ", count: 20_000)
                try await guest.send(
                    Array(session.guest("g").head.utf8) + RawFrame.client(text: large) + RawFrame.client(text: "next"))
                #expect(try await guest.response().status == 101)
                #expect(try await host.data(2) == [large, "next"])
            }
        }
    }

    @Test func `works for a head that comes in pieces`() async throws {
        try await Relay.run(workers: 4) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            var guests: [RawClient] = []
            for index in 0..<8 {
                let guest = try await RawClient(relay.port)
                guests.append(guest)
                let bytes = Array(session.guest("g").head.utf8) + RawFrame.client(text: "early \(index)")
                let cut = bytes.count - 1 - index * 3
                for byte in bytes[..<60] { try await guest.send([byte]) }
                try await guest.send(Array(bytes[60..<cut]))
                try await guest.send(Array(bytes[cut...]))
                #expect(try await guest.response().status == 101)
                #expect(try await host.data(index + 1).last == "early \(index)")
            }
        }
    }

    @Test func `of many connections at once loses none`() async throws {
        try await Relay.run(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let sessions = (0..<20).map { _ in Session() }
            let rooms = try await withThrowingTaskGroup(of: (Int, [WebSocketClient]).self) { group in
                for (index, session) in sessions.enumerated() {
                    group.addTask {
                        var members = [try await relay.join(session.host())]
                        for guest in 0..<5 { members.append(try await relay.join(session.guest("\(guest)"))) }
                        return (index, members)
                    }
                }
                var rooms: [Int: [WebSocketClient]] = [:]
                for try await (index, members) in group { rooms[index] = members }
                return rooms
            }
            for (index, members) in rooms { members[0].send("room \(index)") }
            for (index, members) in rooms {
                for guest in members.dropFirst() { #expect(try await guest.data(1) == ["room \(index)"]) }
            }
        }
    }

    @Test func `leaks no descriptor`() async throws {
        // So few that 400 joins would use them up if each left one behind in either worker.
        try await Relay.run(workers: 3, ["RELAY_RATE_LIMIT_PER_IP": "0"], descriptorsMax: 200) { relay in
            let workers = relay.workerPIDs
            let before = workers.map { Processes.descriptors(of: $0) }
            for _ in 0..<40 {
                let session = Session()
                let host = try await relay.join(session.host())
                var guests: [RawClient] = []
                for index in 0..<5 { guests.append(try await relay.rawJoin(session.guest("\(index)"))) }
                for _ in 0..<4 {
                    #expect(try await relay.answer(session.guest("x").with("Upgrade", nil)).status == 426)
                }
                guests[0].reset()
                guests[1].finish()
                try await guests[2].send([0xFF, 0xFF, 0xFF])
                try await guests[3].send(RawFrame.client(0x88, []))
                _ = try await host.data(4)
            }
            // Compared as text, so that a failure says what there is.
            var now = ""
            do {
                try await eventually("every descriptor to be given back") {
                    now = "\(workers.map { Processes.descriptors(of: $0) })"
                    return now == "\(before)"
                }
            } catch {
                Issue.record("\(now), not \(before)")
            }
            #expect(relay.workerPIDs == workers)
        }
    }
}
