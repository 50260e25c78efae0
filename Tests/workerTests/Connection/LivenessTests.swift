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
    private let interval: UInt32 = 25
    /// The least that jitter makes of it.
    private let least: UInt32 = 19

    @Test func `is asked for when nothing has come for an interval, or a quarter less`() throws {
        var fixture = try Fixture()
        for _ in 1...10 {
            let start = fixture.worker.second
            let early = fixture.pass(to: start + least - 1)
            #expect(early == [])
            var pings: [UInt32] = []
            while pings.isEmpty && fixture.worker.second < start + interval {
                pings = fixture.pass(to: fixture.worker.second + 1)
            }
            #expect(pings.count == 1)
            fixture.send(pong)
        }
        let isOpen = fixture.isOpen
        #expect(isOpen)
    }

    @Test func `is not asked for while something comes`() throws {
        var fixture = try Fixture()
        for _ in 0..<40 {
            let pings = fixture.pass(to: fixture.worker.second + 5)
            #expect(pings == [])
            fixture.send(pong)
        }
    }

    @Test func `is over when nothing has come for 60 s, after two pings at the least`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        let pings = fixture.pass(to: start + 59)
        let isOpen = fixture.isOpen
        #expect((2...3).contains(pings.count) && isOpen)
        _ = fixture.pass(to: start + 60)
        let isOpenStill = fixture.isOpen
        #expect(!isOpenStill)
        fixture.worker.settle()
        #expect(fixture.worker.page[.close(.timeout)] == 1)
    }

    @Test(arguments: [1, 24, 25, 26, 50, 59] as [UInt32])
    func `is proved for 60 s by whatever comes`(seconds: UInt32) throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        _ = fixture.pass(to: start + seconds)
        fixture.send(pong)
        _ = fixture.pass(to: start + seconds + 59)
        let isOpen = fixture.isOpen
        #expect(isOpen)
        _ = fixture.pass(to: start + seconds + 60)
        let isOpenStill = fixture.isOpen
        #expect(!isOpenStill)
    }

    @Test func `is proved by a part of a frame as well`() throws {
        var fixture = try Fixture()
        let start = fixture.worker.second
        _ = fixture.pass(to: start + 50)
        let byte: [UInt8] = [0x82]
        _ = Glibc.send(fixture.client, byte, 1, Int32(MSG_NOSIGNAL))
        fixture.worker.read(fixture.slot)
        _ = fixture.pass(to: start + 60)
        let isOpen = fixture.isOpen
        #expect(isOpen)
    }

    @Test func `is not asked of all in the same second`() throws {
        var inner = try WorkerFixture()
        for _ in 0..<200 { _ = try inner.open() }
        var seconds: [UInt32: Int] = [:]
        for slot in inner.worker.connections.slots where inner.worker.connections.isOccupied(slot) {
            seconds[inner.worker.connections[slot].pingDue - inner.worker.second, default: 0] += 1
        }
        #expect(seconds.keys.allSatisfy { (least...interval).contains($0) })
        #expect(seconds.values.allSatisfy { $0 < 100 } && seconds.count > 3)
    }
}
