import Shared
import Testing

@testable import worker

@Suite struct `A worker's load` {
    private static let window = Limits.loadWindowNanoseconds

    /// A window in which turns took so much of the time.
    private static func pass(_ meter: inout LoadMeter, from start: UInt64, turns: UInt64) -> UInt64 {
        let end = start + window
        meter.addTurn(from: end - turns, to: end)
        return end
    }

    @Test func `is that of a busy worker from half of the time on, and not a nanosecond before`() {
        var meter = LoadMeter(now: 1000)
        #expect(!meter.isBusy)
        let half = Self.window * Limits.busyPercentMin / 100
        let middle = Self.pass(&meter, from: 1000, turns: half - 1)
        #expect(!meter.isBusy)
        _ = Self.pass(&meter, from: middle, turns: half)
        #expect(meter.isBusy)
    }

    @Test func `stays that of a busy worker down to a third of the time or so`() {
        var meter = LoadMeter(now: 0)
        var time = Self.pass(&meter, from: 0, turns: Self.window)
        let calm = Self.window * Limits.calmPercentMax / 100
        time = Self.pass(&meter, from: time, turns: calm)
        #expect(meter.isBusy)
        time = Self.pass(&meter, from: time, turns: calm - 1)
        #expect(!meter.isBusy)
        // And the way back is by half of the time again.
        _ = Self.pass(&meter, from: time, turns: Self.window * Limits.busyPercentMin / 100 - 1)
        #expect(!meter.isBusy)
    }

    @Test func `is not known before a window is over, and then is that of all of its turns`() {
        var meter = LoadMeter(now: 0)
        for turn in 1...9 {
            let end = Self.window * UInt64(turn) / 10
            meter.addTurn(from: end - Self.window / 20, to: end)
            #expect(!meter.isBusy)
        }
        meter.addTurn(from: Self.window * 19 / 20, to: Self.window)
        #expect(meter.isBusy)
    }

    @Test func `is that of an idle worker after a wait, however long the turn behind it`() {
        var meter = LoadMeter(now: 0)
        let time = Self.pass(&meter, from: 0, turns: Self.window)
        let second: UInt64 = 1_000_000_000
        meter.addTurn(from: time + second, to: time + second + Self.window)
        #expect(!meter.isBusy)
    }

    @Test func `does not mind a clock that seems to go back`() {
        var meter = LoadMeter(now: 500)
        meter.addTurn(from: 400, to: 300)
        meter.addTurn(from: Self.window, to: 400)
        #expect(!meter.isBusy)
    }
}
