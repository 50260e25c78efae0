import Glibc
import Shared
import Testing

@testable import supervisor

/// SplitMix64: so that a failure can be had again.
private struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &+ 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

@Suite struct `A worker's conduct` {
    private let now: UInt64 = 1_000_000_000_000

    @Test func `ends at so many faults, once`() {
        var conduct = WorkerConduct()
        let ends = (0...Limits.controlFaultsMax).map { conduct.add($0.isMultiple(of: 2) ? .malformed : .misplaced) }
        #expect(ends.firstIndex(of: true) == Limits.controlFaultsMax - 1 && ends.count { $0 } == 1)
    }

    @Test func `is listened to as long as it does not say too much, and again when time has passed`() throws {
        var conduct = WorkerConduct()
        for _ in 0..<Limits.controlMessagesBurst {
            #expect(conduct.pausedUntil(now: now) == nil)
            conduct.tookMessage(now: now)
        }
        #expect(conduct.pausedUntil(now: now) == nil)
        conduct.tookMessage(now: now)
        let due = try #require(conduct.pausedUntil(now: now))
        #expect(due == now + 1_000_000_000 / Limits.controlMessagesPerSecond)
        #expect(conduct.pausedUntil(now: due) == nil)
    }

    private func place(_ index: Int) throws -> WorkerPlace {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        return try WorkerPlace(index: index, listeners: [], pageIndex: index, page: memory.page(index))
    }

    private func change(_ stage: Change.Stage, _ leavers: [WorkerPlace], _ successors: [WorkerPlace] = []) -> Change {
        var change = Change(
            kind: .reload, configuration: Configuration(), credentials: nil, successors: successors, leavers: leavers,
            workersBefore: 1)
        change.stage = stage
        return change
    }

    @Test func `counts each word once, and at its time alone`() throws {
        let places = try [place(0), place(1)]
        defer { for place in places { place.close() } }
        var current: Change?
        func heed(_ message: ControlMessage) -> Heeded {
            places[0].heed(message, in: &current, keysMax: 1, now: now)
        }
        #expect(heed(.routed) == .fault(.misplaced))
        places[0].willRoute()
        places[0].willRoute()
        #expect(heed(.routed) == .nothing && !places[0].isRouted)
        #expect(heed(.routed) == .nothing && places[0].isRouted)
        #expect(heed(.routed) == .fault(.misplaced))
        #expect(heed(.failed(reason: "no\nmemory")) == .nothing && places[0].failure == #"no\nmemory"#)
        #expect(heed(.failed(reason: "x")) == .fault(.misplaced))
        #expect(heed(.ready(.all)) == .ready)
        #expect(heed(.ready(.all)) == .fault(.misplaced))
        let moved = ControlMessage.moved(ControlMessage.Moved())
        #expect(heed(moved) == .fault(.misplaced))
        for stage in [Change.Stage.preparing, .routing] {
            current = change(stage, [places[0]])
            #expect(heed(moved) == .fault(.misplaced))
        }
        current = change(.moving, [places[1]], [places[0]])
        #expect(heed(moved) == .fault(.misplaced))
        current = change(.moving, [places[0]])
        #expect(heed(moved) == .nothing && places[0].hasMoved)
        #expect(heed(moved) == .fault(.misplaced))
    }

    @Test func `that could not begin is told in so many bytes`() throws {
        let place = try place(0)
        defer { place.close() }
        var none: Change?
        let reason = String(repeating: "\u{1B}[2J", count: 4000)
        _ = place.heed(.failed(reason: reason), in: &none, keysMax: 1, now: now)
        let failure = try #require(place.failure)
        #expect(failure.utf8.count <= Limits.failureBytesMax && !failure.unicodeScalars.contains("\u{1B}"))
    }

    /// Any message there is, with numbers at their ends as often as between.
    private func message(_ random: inout Seeded) -> ControlMessage {
        func number() -> UInt64 {
            [0, 1, .max, .max - 1, 1 << 63, UInt64.random(in: 0...UInt64.max, using: &random)].randomElement(
                using: &random) ?? 0
        }
        switch Int.random(in: 0..<12, using: &random) {
        case 0: return .ready([.seccomp])
        case 1: return .failed(reason: String(repeating: "x", count: Int.random(in: 0...9000, using: &random)))
        case 2: return .routed
        case 3, 4:
            var moved = ControlMessage.Moved()
            (moved.rooms, moved.clients, moved.bytes, moved.longestPause) = (number(), number(), number(), number())
            return .moved(moved)
        case 5...8:
            let keys = (0..<Int.random(in: 0...48, using: &random)).map { _ in
                ControlMessage.HostKey(
                    room: [UInt8.random(in: 0...255, using: &random)],
                    publicKey: [UInt8](repeating: 0, count: Limits.publicKeyBytes), expiry: number())
            }
            return .hostKeys(keys)
        case 9: return .credentials(from: .min, until: .max)
        case 10: return .sourceGone(index: 3)
        default: return .drain(deadline: number())
        }
    }

    @Test func `whatever it is, neither traps nor misleads nor grows the supervisor`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = Seeded(state: seed)
        for round in 0..<300 {
            let places = try (0..<3).map { try place($0) }
            defer { for place in places { place.close() } }
            var change: Change?
            var routes = [0, 0, 0]
            for _ in 0..<200 {
                let index = Int.random(in: 0..<3, using: &random)
                let place = places[index]
                switch Int.random(in: 0..<40, using: &random) {
                case 0: change = nil
                case 1: change = self.change(.preparing, [places[0]], [places[1]])
                case 2: change?.stage = .routing
                case 3: change?.stage = .moving
                case 4:
                    place.mustRoute()
                    place.willRoute()
                    routes[index] += 1
                case 5: place.ended(now: now)
                default:
                    let said = message(&random)
                    let (wasRouted, hadMoved) = (place.isRouted, place.hasMoved)
                    let heeded = place.heed(said, in: &change, keysMax: 100, now: now)
                    if case .routed = said, heeded == .nothing { routes[index] -= 1 }
                    #expect(place.isRouted == wasRouted || said == .routed, "seed \(seed), round \(round)")
                    #expect(routes[index] >= 0, "seed \(seed), round \(round)")
                    if place.hasMoved && !hadMoved {
                        #expect(change?.stage == .moving && index == 0, "seed \(seed), round \(round)")
                    }
                    #expect(place.hostKeys.count <= 100)
                    #expect((place.failure ?? "").utf8.count <= Limits.failureBytesMax)
                }
            }
        }
    }
}
