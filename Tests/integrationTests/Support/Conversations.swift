// Rooms that talk without end while something goes wrong: what one says is numbered, and must reach the other whole, once and in
// order. Who is not hit by what goes wrong must notice nothing of it.

import Glibc
import Synchronization
import Testing

final class Conversations: Sendable {
    struct Room: Sendable {
        let session: Session
        let host: WebSocketClient
        let guest: WebSocketClient

        var isOpen: Bool { host.isOpen && guest.isOpen }
    }

    let rooms: [Room]
    private let isOver = Flag()
    /// How many rounds of one message each way each room has finished.
    private let finished: Mutex<[Int]>
    private let tasks: Mutex<[Task<Void, Never>]>

    /// Opens rooms, and they begin to talk.
    init(_ relay: Relay, rooms count: Int) async throws {
        var rooms: [Room] = []
        for _ in 0..<count {
            let session = Session()
            rooms.append(
                Room(
                    session: session, host: try await relay.join(session.host()),
                    guest: try await relay.join(session.guest())))
        }
        self.rooms = rooms
        finished = Mutex([Int](repeating: 0, count: count))
        tasks = Mutex([])
        for index in rooms.indices {
            let task = Task { await self.talk(index) }
            tasks.withLock { $0.append(task) }
        }
    }

    deinit {
        isOver.set()
    }

    /// Rounds that each room has finished.
    var rounds: [Int] { finished.withLock { $0 } }

    /// Which rooms have lost a member.
    var cut: [Int] { rooms.indices.filter { !rooms[$0].isOpen } }

    private func talk(_ index: Int) async {
        let room = rooms[index]
        var said = 0
        while !isOver.isSet && room.isOpen {
            room.host.send("host \(said)")
            room.guest.send("guest \(said)")
            said += 1
            // A round that has begun is finished, or the room is cut.
            let isHeard = try? await awaited("what was said", seconds: 3 * patienceSeconds) { () -> Bool? in
                if room.host.messages.count >= said && room.guest.messages.count >= said { return true }
                return room.isOpen ? nil : false
            }
            guard isHeard == true else { break }
            finished.withLock { $0[index] = said }
            try? await Task.sleep(for: .milliseconds(10))
        }
        finished.withLock { $0[index] = said }
    }

    /// Lets the rooms finish, checks what each has heard, and says which ones were cut.
    func end(_ note: String = "") async throws -> Set<Int> {
        isOver.set()
        for task in tasks.withLock({ $0 }) { await task.value }
        var cut: Set<Int> = []
        for (index, room) in rooms.enumerated() {
            let said = rounds[index]
            let heard = (room.host.data, room.guest.data)
            if room.isOpen {
                #expect(heard.0 == (0..<said).map { "guest \($0)" }, "\(note)")
                #expect(heard.1 == (0..<said).map { "host \($0)" }, "\(note)")
            } else {
                // With all who are in it, and up to then whole and in order.
                cut.insert(index)
                #expect(try await room.host.ended() == .cut, "\(note)")
                #expect(try await room.guest.ended() == .cut, "\(note)")
                #expect(heard.0 == (0..<heard.0.count).map { "guest \($0)" }, "\(note)")
                #expect(heard.1 == (0..<heard.1.count).map { "host \($0)" }, "\(note)")
            }
            #expect(room.host.oddities + room.guest.oddities == [], "\(note)")
        }
        return cut
    }
}
