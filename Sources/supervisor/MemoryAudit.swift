// Whether what is taken of RELAY_MAX_MEMORY is what the workers have. Any worker writes the common counter, so one that is
// not itself, or dies when it has taken a piece and not said so, leaves it wrong: too high, and the others have less than
// there is; too low, and they take more. Each worker's page says what it has, and dead workers have nothing.
//
// A piece is in the counter and in no page for less than a microsecond. So the counter and the pages are read twice, and
// looked at only if nothing has moved meanwhile; and only what is wrong in look after look is put right (QuotaAudit),
// because a worker that gets no CPU time may stand between the two.
//
// No page is believed to say more than a worker can have, nor all together more than there is beside their floors: a
// worker that lies can keep others from taking more for as long as it lives, as it could by the counter itself.

import Shared

/// Looks at the common counter of memory, a second apart.
struct MemoryAudit: Equatable {
    private var audit = QuotaAudit()

    /// Another second has passed.
    ///
    /// - Parameter pages: those of all workers that live.
    /// - Returns: what is to be taken from the counter; 0 if it is right, or may be.
    mutating func look(_ pool: MemoryPool, _ pages: [WorkerPage], _ configuration: Configuration) -> Int64 {
        let (taken, held) = (pool.taken, Self.held(pages, configuration))
        guard Self.held(pages, configuration) == held, pool.taken == taken else { return 0 }
        return look(taken: taken, held: held)
    }

    mutating func look(taken: Int, held: Int) -> Int64 {
        audit.look(count: UInt64(max(0, taken)), held: UInt64(max(0, held)), margin: 0)
    }

    /// What the workers say that they have, as far as that can be.
    static func held(_ pages: [WorkerPage], _ configuration: Configuration) -> Int {
        let floor = Limits.memoryFloorBytes(configuration)
        let most = configuration.memoryBytesMax + floor
        let sum = pages.reduce(0) { $0 + min(Int(clamping: $1[.memoryGranted]), most) }
        return min(sum, configuration.memoryBytesMax + floor * pages.count)
    }
}
