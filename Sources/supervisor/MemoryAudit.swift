// Compares the common counter of RELAY_MAX_MEMORY with what the workers hold. Every worker writes the counter. A worker
// that misbehaves, or dies after taking a piece and before writing its page, leaves it wrong. If it is too high, the
// others get less than there is; if it is too low, they take more. Each worker's page says what the worker holds; dead
// workers hold nothing.
//
// For a moment a piece is in the counter and in no page. So the counter and the pages are read twice and
// compared only if nothing changed in between. A difference is corrected only if it is seen in look after look
// (QuotaAudit), because a worker that gets no CPU time may be between the two writes.
//
// A page is believed up to what one worker can hold, and all pages together up to what there is plus their floors. A
// worker that lies can keep others from taking more while it lives, as it can by the counter itself.

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
