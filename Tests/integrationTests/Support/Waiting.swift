// Waiting: for a condition, with a deadline. Nothing here or in a test sleeps for a time that was guessed.

import Foundation
import Synchronization

/// Something that had to happen did not.
struct TimedOut: Error, CustomStringConvertible {
    var description: String
}

/// What a test waits for at the longest: a machine with two busy cores is slow, never that slow.
let patienceSeconds = 20.0
/// How often a test looks before it gives up, whatever the time: unit tests that compute for long leave the others,
/// which share their few threads, without a look for seconds.
let looksMin = 100

/// Waits until `produce` gives a value.
func awaited<Value>(
    _ what: String, seconds: Double = patienceSeconds, _ produce: () async throws -> Value?
) async throws -> Value {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(seconds)
    var looks = 0
    while true {
        if let value = try await produce() { return value }
        looks += 1
        guard clock.now < deadline || looks < looksMin else {
            throw TimedOut(description: "not in \(seconds) s: \(what)")
        }
        try await Task.sleep(for: .milliseconds(4))
    }
}

/// Waits until `condition` holds.
func eventually(
    _ what: String, seconds: Double = patienceSeconds, _ condition: () async throws -> Bool
) async throws {
    try await awaited(what, seconds: seconds) { try await condition() ? () : nil }
}

/// Lets a few in at a time, in the order in which they came.
actor Gate {
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ count: Int) {
        free = count
    }

    func enter() async {
        guard free == 0 else {
            free -= 1
            return
        }
        await withCheckedContinuation { waiting.append($0) }
    }

    func leave() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }
}

/// Something that has happened or not.
final class Flag: Sendable {
    private let state = Mutex(false)

    var isSet: Bool { state.withLock { $0 } }

    func set() {
        state.withLock { $0 = true }
    }
}

/// Seeded random numbers: a failing run is repeated with TEST_SEED, the seed that it printed.
struct SplitMix64: RandomNumberGenerator {
    let seed: UInt64
    private var state: UInt64

    init() {
        let given = ProcessInfo.processInfo.environment["TEST_SEED"].flatMap { UInt64($0) }
        seed = given ?? UInt64.random(in: 0...UInt64.max)
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
    }
}
