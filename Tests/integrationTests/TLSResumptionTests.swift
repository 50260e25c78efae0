import Foundation
import Glibc
import Testing

@Suite struct `TLS tickets` {
    /// Takes a ticket by a connection of its own.
    private func ticket(_ relay: Relay, _ name: String = "ticket") async throws -> String {
        let path = "\(relay.folder)/\(name).pem"
        let result = try await SClient.run(relay, ["-sess_out", path])
        #expect(result.output.contains("New, TLSv1.3"))
        #expect(FileManager.default.fileExists(atPath: path), "\(result.errors)")
        return path
    }

    /// Whether each of so many connections with this ticket was resumed.
    private func resumes(_ relay: Relay, _ ticket: String, connections: Int) async throws {
        try await withThrowingTaskGroup { group in
            for _ in 0..<connections {
                group.addTask {
                    let result = try await SClient.run(relay, ["-sess_in", ticket])
                    #expect(result.output.contains("Reused, TLSv1.3"), "\(result.output) \(result.errors)")
                    #expect(result.output.contains(SClient.answer))
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func `of one worker resume at all others`() async throws {
        try await Relay.runTLS(workers: 4) { relay in
            // The kernel chooses the worker: that all of these reach the one that made the ticket is beyond chance.
            try await resumes(relay, try await ticket(relay), connections: 24)
        }
    }

    @Test func `come one with each connection, whether it is resumed or not`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let path = try await ticket(relay)
            func arrived(_ arguments: [String]) async throws -> Int {
                let result = try await SClient.run(relay, arguments)
                return result.output.components(separatedBy: "Post-Handshake New Session Ticket arrived").count - 1
            }
            #expect(try await arrived([]) == 1)
            let second = "\(relay.folder)/second.pem"
            #expect(try await arrived(["-sess_in", path, "-sess_out", second]) == 1)
            try await resumes(relay, second, connections: 4)
        }
    }

    @Test func `outlive the worker that made them`() async throws {
        try await Relay.runTLS(workers: 2, losesWorkers: true) { relay in
            let path = try await ticket(relay)
            // One behind the other, so that somebody serves; then none is left that was there.
            for victim in relay.workerPIDs {
                kill(victim, SIGKILL)
                try await eventually("a successor") {
                    relay.workerPIDs.count == 2 && !relay.workerPIDs.contains(victim)
                }
                try await relay.healthy()
            }
            try await resumes(relay, path, connections: 8)
            // And the successors' are good at each other's.
            try await resumes(relay, try await ticket(relay, "another"), connections: 8)
        }
    }

    @Test func `of another relay,, are passed over`() async throws {
        try await Relay.runTLS(workers: 1) { other in
            try await Relay.runTLS(workers: 2) { relay in
                let result = try await SClient.run(relay, ["-sess_in", try await ticket(other)])
                #expect(result.output.contains("New, TLSv1.3"))
                #expect(result.output.contains(SClient.answer))
            }
        }
    }
}
