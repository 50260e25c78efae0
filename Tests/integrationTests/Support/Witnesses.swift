// Bystanders: what others do to the relay must not reach them.

import Glibc
import Testing

/// Rooms whose members must notice nothing of what others send.
struct Witnesses {
    var rooms: [(WebSocketClient, WebSocketClient)] = []
    let workers: [pid_t]
    var said = 0

    init(_ relay: Relay) async throws {
        workers = relay.workerPIDs
        for _ in 0..<6 {
            let session = Session()
            rooms.append((try await relay.join(session.host()), try await relay.join(session.guest())))
        }
    }

    /// They go on talking.
    mutating func talk() async throws {
        for (one, other) in rooms {
            one.send("one \(said)")
            other.send("other \(said)")
        }
        said += 1
        for (one, other) in rooms {
            _ = try await one.data(said)
            _ = try await other.data(said)
        }
    }

    func check(_ relay: Relay, seed: UInt64 = 0) {
        for (one, other) in rooms {
            #expect(one.data == (0..<said).map { "other \($0)" }, "seed \(seed)")
            #expect(other.data == (0..<said).map { "one \($0)" }, "seed \(seed)")
            #expect(one.oddities + other.oddities == [], "seed \(seed)")
        }
        #expect(relay.workerPIDs == workers, "seed \(seed): \(relay.process.errors)")
    }
}
