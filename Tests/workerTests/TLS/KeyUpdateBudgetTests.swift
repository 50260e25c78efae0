import Shared
import Testing

@testable import worker

@Suite struct `The budget of KeyUpdates` {
    private let burst = Int(Limits.tlsKeyUpdatesBurst)

    @Test func `allows a burst, and one more a second after it`() {
        var budget = KeyUpdateBudget()
        let spent = (0...burst).map { _ in budget.spend(at: 1000) }
        #expect(spent == [Bool](repeating: true, count: burst) + [false])
        let later = [budget.spend(at: 1001), budget.spend(at: 1001), budget.spend(at: 1002)]
        #expect(later == [true, false, true])
    }

    @Test func `is full again after as many seconds, and no fuller`() {
        var budget = KeyUpdateBudget()
        for _ in 0..<burst { _ = budget.spend(at: 1000) }
        let spent = (0...burst).map { _ in budget.spend(at: .max) }
        #expect(spent == [Bool](repeating: true, count: burst) + [false])
        // A clock that goes back gives nothing.
        let back = budget.spend(at: 5)
        #expect(!back)
    }
}
