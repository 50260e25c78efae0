import Foundation
import Glibc
import Synchronization
import Testing

private final class Tally: Sendable {
    private let state = Mutex(0)

    var count: Int { state.withLock { $0 } }

    func add() {
        state.withLock { $0 += 1 }
    }
}

/// What only shows with many: workers, crashes, clients that come while somebody dies.
@Suite struct `A relay that lives long` {
    @Test func `has 64 workers on whatever CPUs there are, with rooms on all of them, and stops in time`() async throws
    {
        try await Relay.run(workers: 64, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let workers = relay.workerPIDs
            #expect(workers.count == 64)
            // With so many rooms the odds are a thousand to one that each worker has one.
            var members: [RawClient] = []
            for index in 0..<700 {
                let session = Session()
                members.append(try await relay.rawJoin(session.host()))
                guard index.isMultiple(of: 7) else { continue }
                let guest = try await relay.rawJoin(session.guest())
                try await guest.send(RawFrame.client(text: "\(index)"))
                #expect(try await members[members.count - 1].frame().payload == Array("\(index)".utf8))
                members.append(guest)
            }
            try await relay.healthy()
            relay.process.signal(SIGTERM)
            for member in members { #expect(try await member.frame().closeCode == 1001) }
            for member in members { member.close() }
            #expect(try await relay.process.ended() == .status(0))
            #expect(!relay.process.errors.contains("killing"))
            for worker in workers { #expect(Processes.isGone(worker)) }
        }
    }

    /// `TEST_CRASHES`: how many workers die.
    private static let crashes = ProcessInfo.processInfo.environment["TEST_CRASHES"].flatMap { Int($0) } ?? 90

    @Test func `keeps nothing of workers that crashed: no descriptor, no process, no memory`() async throws {
        // Each worker crashes four times, before its pauses grow long.
        let workers = max(3, Self.crashes / 4)
        let variables = ["RELAY_LOG_LEVEL": "debug"]
        func said(_ text: String, _ relay: Relay) -> Int { relay.process.errors.split(separator: text).count - 1 }
        try await Relay.run(workers: workers, variables, losesWorkers: true) { relay in
            let supervisor = relay.process.pid
            var seen = Set(relay.workerPIDs)
            var crashed = 0
            var descriptors: Int?
            var memory = 0
            for round in 0..<4 {
                let victims = relay.workerPIDs
                #expect(victims.count == workers)
                // Half of them in one moment, the others one after the other.
                for (index, victim) in victims.enumerated() {
                    kill(victim, SIGKILL)
                    if index.isMultiple(of: 2) { try await eventually("an end") { Processes.isGone(victim) } }
                }
                crashed += victims.count
                try await eventually("successors", seconds: 4 * patienceSeconds) {
                    let children = relay.workerPIDs
                    seen.formUnion(children)
                    return children.count == workers && Set(children).isDisjoint(with: victims)
                }
                // Each of them serves before it dies in its turn.
                try await eventually("all to serve", seconds: 4 * patienceSeconds) {
                    said("worker ready", relay) == crashed + workers
                }
                if round == 0 {
                    descriptors = Processes.descriptors(of: supervisor)
                    memory = try #require(Processes.kibibytes("VmRSS", of: supervisor))
                }
            }
            #expect(said("worker died", relay) == crashed)
            let after = Processes.descriptors(of: supervisor)
            #expect(after == descriptors)
            let grown = try #require(Processes.kibibytes("VmRSS", of: supervisor)) - memory
            #expect(grown < 2048, "KiB after \(crashed) crashes")
            for child in relay.workerPIDs { #expect(Processes.state(of: child) != "Z") }
            #expect(seen.count == crashed + workers)
            relay.process.signal(SIGTERM)
            #expect(try await relay.process.ended() == .status(0))
            for worker in seen { #expect(Processes.isGone(worker)) }
        }
    }

    @Test func `answers whoever comes while workers die at any moment, or ends the connection`() async throws {
        var random = SplitMix64()
        let seed = random.seed
        try await Relay.run(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"], losesWorkers: true) { relay in
            let isOver = Flag()
            let served = Tally()
            let cut = Tally()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for client in 0..<8 {
                    group.addTask {
                        var number = 0
                        while !isOver.isSet {
                            number += 1
                            // A room of one's own, in whatever worker: most connections are handed over.
                            let session = Session()
                            let connection = try await RawClient(relay.port)
                            let early = RawFrame.client(0x89, [UInt8(client), UInt8(number % 256)])
                            try await connection.send(Array(session.host().head.utf8) + early)
                            do {
                                let answer = try await connection.response()
                                #expect(answer.status == 101, "seed \(seed): \(answer)")
                                let pong = try await connection.frame()
                                #expect(pong.payload == [UInt8(client), UInt8(number % 256)], "seed \(seed)")
                                served.add()
                            } catch is SpawnError {
                                // It ended: its worker had it when it died. Never does it wait in vain.
                                cut.add()
                            }
                        }
                    }
                }
                for _ in 0..<10 {
                    let enough = served.count + Int.random(in: 5..<60, using: &random)
                    try await eventually("some joins") { served.count >= enough }
                    if let victim = relay.workerPIDs.randomElement(using: &random) { kill(victim, SIGKILL) }
                }
                let enough = served.count + 50
                try await eventually("some joins") { served.count >= enough }
                isOver.set()
                try await group.waitForAll()
            }
            // A death costs at most who was being served just then.
            #expect(cut.count <= 10 * 8, "seed \(seed)")
            #expect(!relay.process.errors.contains("hangs"), "seed \(seed)")
        }
    }
}
