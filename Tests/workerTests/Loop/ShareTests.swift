import Shared
import Testing

@testable import worker

@Suite struct `Bytes of a read` {
    /// Ten are ready besides it.
    private let share = RoundShare(ready: 11)

    /// Reads as often as this, each of all that may be read, at so many nanoseconds a byte; what the last one took.
    private func read(_ count: Int, nanosecondsPerByte: UInt64) -> Int {
        var debt = Debt()
        var bytes = 0
        for _ in 0..<count {
            bytes = debt.readBytesMax(share)
            debt.hasRead(bytes)
            debt.charge(UInt64(bytes) * nanosecondsPerByte, share)
        }
        return bytes
    }

    @Test func `are as many as the share of a round is for, where they cost little`() {
        #expect(read(1, nanosecondsPerByte: 100) == share.bytes)
        #expect(read(50, nanosecondsPerByte: 1) == share.bytes)
    }

    @Test func `settle at what the connection's time pays for, where they cost much`() {
        for cost in [10, 16, 30] as [UInt64] {
            let paid = Int(UInt64(share.nanoseconds) * Limits.readSharesPercent / 100 / cost)
            let bytes = read(50, nanosecondsPerByte: cost)
            #expect(bytes > paid * 9 / 10 && bytes < paid * 11 / 10, "\(cost) ns a byte: \(bytes), paid \(paid)")
        }
    }

    @Test func `are never fewer than a voice frame fits in many times`() {
        #expect(read(50, nanosecondsPerByte: 10_000) == Limits.shareBytesMin)
    }

    @Test func `are not fewer for who has sent little, whatever that cost`() {
        var debt = Debt()
        for _ in 0..<50 {
            debt.hasRead(126)
            debt.charge(60_000, share)
        }
        #expect(debt.readBytesMax(share) == share.bytes)
    }
}
