import Testing

@testable import loadtest

@Suite struct `Numbered messages` {
    /// What a sequence says of these numbers, one after another.
    private func outcomes(_ sequence: SoakSequence, _ numbers: [UInt32]) -> [SoakSequence.Outcome] {
        var sequence = sequence
        return numbers.map { sequence.take($0) }
    }

    @Test func `come in order`() {
        #expect(outcomes(SoakSequence(), [0, 1, 2]) == [.inOrder, .inOrder, .inOrder])
    }

    @Test func `are missed when they are skipped`() {
        #expect(outcomes(SoakSequence(), [0, 3]) == [.inOrder, .skipped(1...2)])
        #expect(outcomes(SoakSequence(), [1]) == [.skipped(0...0)])
    }

    @Test func `are late once they were skipped, and repeated after that`() {
        #expect(outcomes(SoakSequence(), [1, 0, 0, 1]) == [.skipped(0...0), .late, .repeated, .repeated])
    }

    @Test func `may begin anywhere among those sent before the join was known`() {
        for first in UInt32(5)...8 {
            #expect(outcomes(SoakSequence(floor: 5, due: 8), [first, first + 1]) == [.inOrder, .inOrder])
        }
        #expect(outcomes(SoakSequence(floor: 5, due: 8), [9]) == [.skipped(8...8)])
    }

    @Test func `are stale when others had them before the join was asked for`() {
        #expect(outcomes(SoakSequence(floor: 5, due: 8), [4]) == [.stale])
        #expect(outcomes(SoakSequence(floor: 5, due: 5), [4, 5]) == [.stale, .inOrder])
    }

    @Test func `are next if they follow, or may be the first`() {
        var sequence = SoakSequence(floor: 5, due: 8)
        #expect((UInt32(0)...10).filter { sequence.isNext($0) } == [5, 6, 7, 8])
        _ = sequence.take(6)
        #expect((UInt32(0)...10).filter { sequence.isNext($0) } == [7])
    }

    @Test func `are outstanding from the first that must come`() {
        var sequence = SoakSequence(floor: 5, due: 8)
        #expect(sequence.outstanding(sent: 7) == 0)
        #expect(sequence.outstanding(sent: 8) == 0)
        #expect(sequence.outstanding(sent: 10) == 2)
        _ = sequence.take(6)
        #expect(sequence.outstanding(sent: 10) == 3)
    }
}
