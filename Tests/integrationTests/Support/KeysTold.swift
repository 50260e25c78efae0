import Foundation
import Testing

extension Relay {
    /// Waits until the supervisor has been told the host keys of all rooms that are open by now: a worker tells them in a turn
    /// of its loop that begins 10 ms after the room's opening, and a heartbeat is a turn's beginning.
    func keysTold() async throws {
        // What is printed of an age is rounded.
        let told = ContinuousClock.now + .milliseconds(10 + 2)
        try await eventually("host keys to be told") {
            let before = ContinuousClock.now
            let status = try await integrationTests.run(
                try program("relay"), ["status", "--json", "--pid", "\(process.pid)"])
            let ages = try AdminHealth(json: status.output).workers.compactMap(\.heartbeatAgeSeconds)
            return !ages.isEmpty && ages.allSatisfy { before - .seconds($0) >= told }
        }
    }
}
