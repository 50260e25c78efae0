import Shared
import Testing

@testable import supervisor

@Suite struct `The audit of a quota` {
    private func corrections(_ looks: [(count: UInt64, held: UInt64)], margin: UInt64 = 10) -> [Int64] {
        var audit = QuotaAudit()
        return looks.map { audit.look(count: $0.count, held: $0.held, margin: margin) }
    }

    private let many = Limits.quotaLooksMax

    @Test func `finds right what is within the margin, or is for a moment only`() {
        #expect(corrections(Array(repeating: (100, 90), count: 3 * many)).allSatisfy { $0 == 0 })
        #expect(corrections(Array(repeating: (90, 100), count: 3 * many)).allSatisfy { $0 == 0 })
        var looks = Array(repeating: (count: UInt64(500), held: UInt64(100)), count: many - 1)
        looks += [(105, 100)] + looks
        #expect(corrections(looks).allSatisfy { $0 == 0 })
    }

    @Test func `takes away, or adds, the least that it was wrong by`() {
        var looks = (0..<many).map { (count: UInt64(500 + $0), held: UInt64(100)) }
        #expect(corrections(looks) == Array(repeating: 0, count: many - 1) + [400])
        looks = (0..<many).map { (count: UInt64(0), held: UInt64(300 - $0)) }
        #expect(corrections(looks) == Array(repeating: 0, count: many - 1) + [-Int64(301 - many)])
    }

    @Test func `begins anew where too much becomes too little`() {
        let high = Array(repeating: (count: UInt64(500), held: UInt64(100)), count: many - 1)
        let low = Array(repeating: (count: UInt64(0), held: UInt64(100)), count: many)
        #expect(corrections(high + low) == Array(repeating: 0, count: 2 * many - 2) + [-100])
    }

    @Test func `does not trap, whatever the words hold`() {
        for count in [0, 1, .max, 1 << 63] as [UInt64] {
            for held in [0, 1, .max, 1 << 63] as [UInt64] {
                _ = corrections(Array(repeating: (count, held), count: 2 * many), margin: 0)
            }
        }
    }
}
