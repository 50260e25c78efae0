// Whether a count over the whole relay is what its workers hold together. Any worker writes it, so a worker that is not
// itself can empty it, or fill it and keep everybody out. The supervisor compares it with the gauges, which each worker
// writes of itself, and puts it right when it has been wrong for long: by the least that it was wrong, because what is
// on its way between workers is counted and in no gauge, and gauges are a turn old.

import Shared

/// What all workers count together. The names are those of `relay_count_corrections_total`.
enum CommonCount: Int, CaseIterable {
    case rooms
    case connections
    case memory

    var name: String { "\(self)" }
}

/// Looks at one count, a second apart.
struct QuotaAudit: Equatable {
    /// By how much the count was too high (or, negative, too low) at the looks so far: the least.
    private var leastExcess: Int64 = 0
    private var looks = 0

    /// Another second has passed.
    ///
    /// - Parameters:
    ///   - count: what the relay's count says.
    ///   - held: what the workers' gauges say together.
    ///   - margin: as much as may be on its way.
    /// - Returns: what is to be taken from the count; 0 if it is right, or may be.
    mutating func look(count: UInt64, held: UInt64, margin: UInt64) -> Int64 {
        let excess = Int64(clamping: count).subtractingReportingOverflow(Int64(clamping: held)).partialValue
        guard excess.magnitude > margin else {
            self = QuotaAudit()
            return 0
        }
        if looks > 0 && (excess > 0) != (leastExcess > 0) { self = QuotaAudit() }
        if looks == 0 || excess.magnitude < leastExcess.magnitude { leastExcess = excess }
        looks += 1
        guard looks >= Limits.quotaLooksMax else { return 0 }
        defer { self = QuotaAudit() }
        return leastExcess
    }
}
