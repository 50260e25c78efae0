import Foundation
import Glibc
import Testing

/// What goes wrong with one worker is its own affair.
@Suite struct `A worker in trouble` {
    private static let variables = ["RELAY_RATE_LIMIT_PER_IP": "0"]

    /// Waits until a worker has gone and another has come in its place.
    private func successor(of worker: pid_t, _ relay: Relay, seconds: Double = patienceSeconds) async throws {
        try await eventually("a successor of \(worker)", seconds: seconds) {
            let workers = relay.workerPIDs
            return workers.count == relay.workers && !workers.contains(worker)
        }
    }

    @Test func `is killed, each in its turn, and nobody on another one notices`() async throws {
        try await Relay.run(workers: 3, Self.variables, losesWorkers: true) { relay in
            let conversations = try await Conversations(relay, rooms: 24)
            for worker in relay.workerPIDs.dropLast() {
                let before = conversations.rounds
                try await eventually("a few rounds") { zip(conversations.rounds, before).contains { $0 > $1 + 3 } }
                kill(worker, SIGKILL)
                try await successor(of: worker, relay)
            }
            let after = conversations.rounds
            try await eventually("those that are left to go on") {
                let rounds = conversations.rounds
                return conversations.rooms.indices.allSatisfy {
                    rounds[$0] > after[$0] + 3 || !conversations.rooms[$0].isOpen
                }
            }
            let cut = try await conversations.end()
            #expect(!cut.isEmpty && cut.count < 24)
            try await relay.healthy()
        }
    }

    @Test func `is killed where it hangs, and nobody on another one has to wait for that`() async throws {
        try await Relay.run(workers: 3, Self.variables, losesWorkers: true) { relay in
            let conversations = try await Conversations(relay, rooms: 24)
            let victim = relay.workerPIDs[1]
            kill(victim, SIGSTOP)
            try await eventually("a halt") { Processes.state(of: victim) == "T" }
            let before = conversations.rounds
            // Until the supervisor has looked often enough, the others talk.
            var during = before
            try await eventually("its end", seconds: 2 * patienceSeconds) {
                guard relay.workerPIDs.contains(victim) else { return true }
                during = conversations.rounds
                return false
            }
            try await successor(of: victim, relay)
            let cut = try await conversations.end()
            #expect(!cut.isEmpty && cut.count < 24)
            for index in conversations.rooms.indices {
                // The hanging worker's rooms finish no round but the one that was just being counted.
                #expect(cut.contains(index) ? during[index] <= before[index] + 1 : during[index] > before[index] + 1)
            }
            try await relay.process.says("worker hangs: killing it")
            try await relay.healthy()
        }
    }

    @Test func `is restarted ever more slowly while it keeps crashing, and forgiven when it lives`() async throws {
        try await Relay.run(workers: 3, Self.variables, losesWorkers: true) { relay in
            let conversations = try await Conversations(relay, rooms: 12)
            let others = Set(relay.workerPIDs.dropFirst())
            try await eventually("an unavailable relay", seconds: 2 * patienceSeconds) {
                for worker in relay.workerPIDs where !others.contains(worker) { kill(worker, SIGKILL) }
                return try await relay.health().answer == #"503 {"status":"unavailable"}"#
            }
            #expect(others.isSubset(of: relay.workerPIDs))
            let cut = try await conversations.end()
            #expect(cut.count < 12)
            let pauses = relay.process.errors.split(separator: "\n").filter { $0.contains("worker died") }.compactMap {
                $0.split(separator: " ").first { $0.hasPrefix("restart_in=") }.map { String($0.dropFirst(11)) }
            }
            #expect(Array(pauses.prefix(5)) == ["0ms", "100ms", "200ms", "400ms", "800ms"])
            // All of them serve again, and yet it is not well until that one has lived for a minute.
            try await relay.healthy(seconds: 60 + 3 * patienceSeconds)
            #expect(others.isSubset(of: relay.workerPIDs) && relay.workerPIDs.count == 3)
        }
    }

    @Test(arguments: ["exit 1", "kill -SEGV $$"])
    func `that can't even start is tried again until it can`(failure: String) async throws {
        try await Programs.run { programs in
            let remedy = "\(programs.folder)/remedy"
            try programs.setWorker(behind: "[ -f '\(remedy)' ] || \(failure)")
            let process = try ChildProcess(
                programs.relay, environment: ["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "2"])
            defer {
                for worker in Processes.children(of: process.pid) { kill(worker, SIGKILL) }
                process.signal(SIGKILL)
            }
            try await eventually("some attempts") {
                process.errors.split(separator: "\n").count {
                    $0.contains("worker died") || $0.contains("can't start worker")
                } >= 6
            }
            #expect(process.end == nil)
            try write("", to: remedy)
            let relay = Relay(process: process, port: try await Relay.port(process, seconds: 60), workers: 2)
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            guest.send("here")
            #expect(try await host.data(1) == ["here"])
            process.signal(SIGTERM)
            #expect(try await process.ended() == .status(0))
        }
    }

    @Test(arguments: ["#!/bin/sh\nexit 1\n", "no program\n", "#!/nowhere\n"])
    func `that never starts is complained of, and keeps nobody from stopping the relay`(text: String) async throws {
        try await Programs.run { programs in
            try programs.setWorker(text)
            let process = try ChildProcess(programs.relay, environment: ["RELAY_ADDR": "127.0.0.1:0"])
            defer { process.signal(SIGKILL) }
            try await eventually("some attempts") {
                process.errors.split(separator: "\n").count {
                    $0.contains("worker died") || $0.contains("can't start worker")
                } >= 4
            }
            process.signal(SIGTERM)
            #expect(try await process.ended() == .status(0))
        }
    }

    @Test func `that is out of descriptors accepts again when there are some`() async throws {
        try await Programs.run { programs in
            try programs.setWorker(behind: "ulimit -n 48")
            try await Relay.run(workers: 1, Self.variables, program: programs.relay) { relay in
                let conversations = try await Conversations(relay, rooms: 3)
                var clients: [RawClient] = []
                for _ in 0..<60 {
                    let client = try await RawClient(relay.port)
                    try await client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    clients.append(client)
                }
                try await eventually("the worker to be full") {
                    relay.process.errors.contains("can't accept connections")
                }
                // Who is in goes on.
                let before = conversations.rounds
                try await eventually("talk") { zip(conversations.rounds, before).allSatisfy { $0 > $1 + 3 } }
                // Who goes makes room for one who waits: in the end all are answered, and none refused.
                while !clients.isEmpty {
                    let answered = try await awaited("answers") { () -> [Int]? in
                        let indices = clients.indices.filter { !clients[$0].unread().isEmpty }
                        return indices.isEmpty ? nil : indices
                    }
                    for index in answered.reversed() {
                        let client = clients.remove(at: index)
                        #expect(try await client.response().answer == #"200 {"status":"ok"}"#)
                        client.close()
                    }
                }
                #expect(try await conversations.end() == [])
                try await relay.healthy()
            }
        }
    }

    @Test func `that is out of memory dies alone`() async throws {
        try await Programs.run { programs in
            let limit = "\(programs.folder)/limit"
            try programs.setWorker(behind: "if [ -f '\(limit)' ]; then ulimit -v \"$(cat '\(limit)')\"; fi")
            let variables = ["RELAY_MAX_BACKLOG": "\(1 << 30)", "RELAY_MAX_MEMORY": "4G"].merging(Self.variables) { $1 }
            try await Relay.run(workers: 2, variables, losesWorkers: true, program: programs.relay) { relay in
                // What workers take as it is, and 128 MiB.
                let sizes = relay.workerPIDs.compactMap { Processes.kibibytes("VmSize", of: $0) }
                try write("\(try #require(sizes.max()) + 131_072)", to: limit)
                for worker in relay.workerPIDs {
                    kill(worker, SIGKILL)
                    try await successor(of: worker, relay)
                }
                try await relay.healthy()
                let workers = relay.workerPIDs
                let conversations = try await Conversations(relay, rooms: 16)
                let session = Session()
                let slow = try await relay.rawJoin(session.host(), receiveBuffer: 8192)
                let sender = try await relay.rawJoin(session.guest())
                let message = RawFrame.client(0x82, [UInt8](repeating: 0x78, count: 1 << 20))
                try await eventually("an end of memory", seconds: 3 * patienceSeconds) {
                    try await sender.send(message)
                    return sender.isAtEnd()
                }
                try await eventually("a successor") {
                    relay.workerPIDs.count == 2 && Set(relay.workerPIDs) != Set(workers)
                }
                #expect(Set(relay.workerPIDs).intersection(workers).count == 1)
                try await relay.healthy()
                let cut = try await conversations.end()
                #expect(cut.count < 16)
                _ = try await slow.rest()
                let again = try await relay.join(session.host())
                let guest = try await relay.join(session.guest())
                again.send("back")
                #expect(try await guest.data(1) == ["back"])
            }
        }
    }
}
