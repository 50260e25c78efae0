// What a worker may hold of RELAY_MAX_MEMORY. Each worker has a floor that nobody takes from it; beyond it workers take
// from one pool for the relay, in pieces, and give back what they need no more. A worker that has more than an equal
// part of the pool leaves an eighth of it to the others: so rooms of a quiet worker have room while another worker is
// under attack.

import Shared

struct MemoryBudget {
    private let pool: MemoryPool
    private let max: Int
    private let workers: Int
    private let floor: Int
    /// What the worker may hold now.
    private(set) var granted: Int

    /// - Parameter configuration: how much the relay has, and how many workers.
    init(_ configuration: Configuration, _ pool: MemoryPool) {
        self.pool = pool
        max = configuration.memoryBytesMax
        workers = configuration.workers
        floor = Limits.memoryFloorBytes(configuration)
        granted = floor
    }

    /// Takes the floor: it is the worker's whatever others have, for a reload's new workers live beside the old ones.
    func takeFloor() {
        pool.takeAnyhow(floor)
    }

    /// Takes as many pieces as it needs to hold `bytes`. The worker's page is written afterwards. A worker that dies in
    /// between leaves the counter too high, which the supervisor corrects, and never too low.
    ///
    /// - Returns: whether it may.
    mutating func grow(toHold bytes: Int) -> Bool {
        guard bytes > granted else { return true }
        let piece = Limits.memoryPieceBytes
        let extra = (bytes - granted + piece - 1) / piece * piece
        let isGreedy = granted + extra > max / workers
        guard pool.take(extra, max: isGreedy ? max - max / Limits.memoryReservePart : max) else { return false }
        granted += extra
        return true
    }

    /// Gives back what it does not need to hold `bytes`, but for a piece or two: the next ones need not be asked for.
    ///
    /// - Parameter tell: called with what is left, before the pool has the rest: the worker's page says it first.
    mutating func shrink(toHold bytes: Int, tell: (Int) -> Void) {
        let piece = Limits.memoryPieceBytes
        let kept = Swift.max(floor, (bytes + 2 * piece - 1) / piece * piece)
        guard kept < granted else { return }
        let spare = granted - kept
        granted = kept
        tell(kept)
        pool.give(spare)
    }
}
