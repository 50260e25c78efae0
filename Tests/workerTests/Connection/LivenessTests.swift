import Glibc
import Logging
import Shared
import Testing

@testable import worker

/// One open connection of a worker.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    let slot: UInt32
    let client: Int32

    init() throws {
        var inner = try WorkerFixture()
        (slot, client) = try inner.open()
        self.inner = inner
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    var isOpen: Bool { worker.connections[slot].phase == .open }

    /// Lets the seconds up to `second` pass one by one, and says in which a ping came.
    mutating func pass(to second: UInt32) -> [UInt32] {
        var pings: [UInt32] = []
        while worker.second < second {
            worker.second += 1
            while let slot = inner.worker.connectionTimers.next(upTo: worker.second, in: &inner.worker.connections) {
                worker.connectionDue(slot)
            }
            worker.flushTouched()
            var bytes = [UInt8](repeating: 0, count: 100)
            let count = recv(client, &bytes, bytes.count, 0)
            if count > 0 {
                if Array(bytes[..<count]) != [0x89, 0] { Issue.record("no ping: \(bytes[..<count])") }
                pings.append(worker.second)
            }
        }
        return pings
    }

    /// Has the client send a frame, and the worker read it.
    mutating func send(_ frame: Frame) {
        let bytes = frame.masked([1, 2, 3, 4])
        _ = Glibc.send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        worker.read(slot)
    }
}

@Suite struct `Liveness` {
    private let pong = Frame(opcode: Frame.pong, payload: [])

    @Test func `is asked for every 54 s`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        for round in 1...5 as ClosedRange<UInt32> {
            let pings = fixture.pass(to: start + 54 * round)
            #expect(pings == [start + 54 * round])
            fixture.send(pong)
        }
        let isOpen = fixture.isOpen
        #expect(isOpen)
    }

    @Test func `is over when nothing has come for 60 s beyond a ping`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        let pings = fixture.pass(to: start + 54 + 59)
        let isOpen = fixture.isOpen
        #expect(pings == [start + 54, start + 108])
        #expect(isOpen)
        let more = fixture.pass(to: start + 54 + 60)
        let isOpenStill = fixture.isOpen
        #expect(more == [])
        #expect(!isOpenStill)
    }

    @Test(arguments: [0, 1, 53, 54, 59] as [UInt32])
    func `is proved by whatever comes after the ping, however soon, until the next`(seconds: UInt32) throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        _ = fixture.pass(to: start + 54 + seconds)
        fixture.send(pong)
        // The next ping is due 54 s after the first, and unanswered from then on, or was sent before the answer.
        let unanswered = start + 108 + (seconds >= 54 ? 54 : 0)
        _ = fixture.pass(to: unanswered + 59)
        let isOpen = fixture.isOpen
        #expect(isOpen)
        _ = fixture.pass(to: unanswered + 60)
        let isOpenStill = fixture.isOpen
        #expect(!isOpenStill)
    }

    @Test func `is not proved by what came before the ping in the same second`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        _ = fixture.pass(to: start + 53)
        // The second of the ping begins, and something comes before the timer goes off.
        fixture.worker.second += 1
        fixture.send(pong)
        fixture.worker.second -= 1
        _ = fixture.pass(to: start + 54 + 60)
        let isOpen = fixture.isOpen
        #expect(!isOpen)
    }

    @Test func `is proved by a part of a frame as well`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        _ = fixture.pass(to: start + 100)
        let byte: [UInt8] = [0x82]
        _ = Glibc.send(fixture.client, byte, 1, Int32(MSG_NOSIGNAL))
        fixture.worker.read(fixture.slot)
        _ = fixture.pass(to: start + 54 + 60)
        let isOpen = fixture.isOpen
        #expect(isOpen)
    }
}
