import Glibc
import Logging
import Shared
import Testing

@testable import worker

/// A worker that is never run, and one open connection of it whose client is the test.
private struct Fixture: ~Copyable {
    var worker: Worker
    let slot: UInt32
    let client: Int32
    /// Keep open what the worker is told of.
    private let ends: [Int32]

    init() throws {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file, workers: 1)
        let (control, supervisor) = try MessagePair(bufferBytes: 65_536).split()
        let (inbox, outbox) = try MessagePair(bufferBytes: 65_536).split()
        let (listener, nobody) = try StreamPair().split()
        let (socket, client) = try StreamPair().split()
        var worker = try Worker(
            Launched(
                index: 0, configuration: Configuration(), placementKey: [UInt8](0..<16), memory: memory,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, listener: Descriptor(owning: listener),
                inbox: Descriptor(owning: inbox), outboxes: [outbox],
                control: ControlChannel(Descriptor(owning: control)),
                survivingKeys: [:], ciphers: try RecordCiphers(), tlsContext: nil, tickets: nil, ticketGeneration: 0))
        let peer = try #require(Address("192.0.2.1"))
        let adopted = worker.adopt(
            Connection(socket: Descriptor(owning: socket), peer: peer, isSecure: false, now: worker.second))
        let slot = try #require(adopted)
        worker.connections[slot].phase = .open
        worker.startLiveness(slot)
        self.worker = worker
        self.slot = slot
        self.client = client
        ends = [supervisor, outbox, nobody]
    }

    deinit {
        for descriptor in ends + [client] { _ = close(descriptor) }
    }

    var isOpen: Bool { worker.connections[slot].phase == .open }

    /// Lets the seconds up to `second` pass one by one, and says in which a ping came.
    mutating func pass(to second: UInt32) -> [UInt32] {
        var pings: [UInt32] = []
        while worker.second < second {
            worker.second += 1
            var due: [UInt32] = []
            worker.connectionTimers.turn(to: worker.second, in: &worker.connections, due: &due)
            for slot in due { worker.connectionDue(slot) }
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
