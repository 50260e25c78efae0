// Seeded random numbers (SplitMix64): a soak with the same --seed makes the same choices from the same messages.

struct SoakRandom: RandomNumberGenerator {
    private var state: UInt64
    private static let step: UInt64 = 0x9E37_79B9_7F4A_7C15

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= Self.step
        return Self.mix(state)
    }

    private static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The number at `index` of the sequence that `seed` begins, without those before it.
    static func word(_ seed: UInt64, _ index: Int) -> UInt64 {
        mix(seed &+ step &* (UInt64(truncatingIfNeeded: index) &+ 1))
    }

    mutating func pick(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }

    mutating func chance(percent: Double) -> Bool { Double.random(in: 0..<100, using: &self) < percent }

    mutating func nanoseconds(milliseconds range: ClosedRange<Int>) -> UInt64 { UInt64(pick(range)) * 1_000_000 }
}
