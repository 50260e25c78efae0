// Exactly once and in order: what a receiver has of one sender's numbered messages of one class.

struct SoakSequence {
    enum Outcome: Equatable {
        case inOrder
        /// The numbers before it that have not come.
        case skipped(ClosedRange<UInt32>)
        /// Its number had been skipped.
        case late
        case repeated
        /// It was delivered to others before this receiver asked to join.
        case stale
    }

    /// Numbers below it are of a time when the receiver was not there.
    let floor: UInt32
    /// The first number that must come: it was sent when the receiver was known to be there. Those from `floor` to it may.
    let due: UInt32
    /// The next number, once there was one.
    private(set) var next: UInt32?
    private var missing: Set<UInt32> = []
    /// More than this many at once are not told apart any more, only counted.
    private static let missingMax = 10_000

    init(floor: UInt32 = 0, due: UInt32 = 0) {
        self.floor = floor
        self.due = due
        if floor == due { next = due }
    }

    mutating func take(_ number: UInt32) -> Outcome {
        let expected = next ?? max(floor, min(due, number))
        if number == expected {
            next = number + 1
            return .inOrder
        }
        guard number > expected else {
            if number < floor { return .stale }
            return missing.remove(number) != nil ? .late : .repeated
        }
        let skipped = expected...number - 1
        for number in skipped.prefix(Self.missingMax) { missing.insert(number) }
        next = number + 1
        return .skipped(skipped)
    }

    /// Whether this number may come now.
    func isNext(_ number: UInt32) -> Bool { next.map { $0 == number } ?? (floor...due).contains(number) }

    /// Numbers at the end that have not come, when the sender has sent so many.
    func outstanding(sent: UInt32) -> UInt32 {
        let expected = next ?? due
        return sent > expected ? sent - expected : 0
    }
}
