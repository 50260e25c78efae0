import Glibc
import Shared
import Testing

@testable import worker

/// A worker with clients that have all said hello before its first turn.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    private(set) var clients: [Client] = []
    private(set) var slots: [UInt32] = []

    init() throws {
        let file = try SharedMemory.makeFile()
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        inner = try WorkerFixture(options, try SharedMemory.create(in: file))
    }

    static func withClients(_ count: Int) throws -> Fixture {
        var fixture = try Fixture()
        for _ in 0..<count { try fixture.connect() }
        return fixture
    }

    private mutating func connect() throws {
        let client = Client(isSecure: true)
        let (socket, far) = try StreamPair().split()
        client.socket = far
        slots.append(try inner.adopt(socket, isSecure: true))
        clients.append(client)
        client.exchange()
    }

    /// A client that has gone without a word while it waited for its step.
    mutating func connectAndEnd() throws {
        let (socket, far) = try StreamPair().split()
        let slot = try inner.adopt(socket, isSecure: true)
        _ = close(far)
        worker.connections[slot].awaitsStep = true
        worker.waitingHandshakes.new.append(worker.connections.id(slot))
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    /// A turn, and which clients have had their answer by then. They say nothing to it.
    mutating func turn() -> [Int] {
        inner.worker.turn(waiting: 0)
        for client in clients where client.socket >= 0 && !client.isConnected { client.exchange() }
        return clients.indices.filter { clients[$0].isConnected }
    }

    var waiting: Int { worker.waitingHandshakes.count }
    /// Of those that wait, which are watched.
    var watched: [Int] {
        slots.indices.filter {
            worker.connections[slots[$0]].awaitsStep && worker.connections[slots[$0]].interest.contains(.read)
        }
    }

    func isEstablished(_ index: Int) -> Bool { worker.connections[slots[index]].phase == .request }

    /// As many handshakes as may be, or none but the clients'.
    mutating func crowd(_ isCrowded: Bool) throws {
        let other = try TLSHandshake(try makeContext())
        for number in 0..<Limits.tlsHandshakesMax {
            worker.handshakes[1_000_000 + UInt32(number)] = isCrowded ? other : nil
        }
    }
}

@Suite struct `Handshakes that wait for a step` {
    private let steps = Limits.tlsHandshakeStepsPerTurnMax

    @Test func `have it in the order in which they came, and wait once, whatever events they raise`() throws {
        var fixture = try Fixture.withClients(3 * steps)
        let first = fixture.turn()
        #expect(first == Array(0..<steps))
        let (waiting, watched) = (fixture.waiting, fixture.watched)
        #expect(waiting == 2 * steps && watched == Array(steps..<3 * steps))
        #expect(fixture.worker.patience == 0)
        let second = fixture.turn()
        #expect(second == Array(0..<2 * steps) && fixture.waiting == steps)
        let third = fixture.turn()
        #expect(third == Array(0..<3 * steps) && fixture.waiting == 0)
        #expect(fixture.worker.page[.tlsHandshakePutOff] == UInt64(2 * steps))
        #expect(fixture.worker.patience > 0)
    }

    @Test func `have it before those that have not begun`() throws {
        var fixture = try Fixture.withClients(3 * steps)
        let first = fixture.turn()
        // They come back with their last word while others have the steps of the turn.
        for client in first { fixture.clients[client].exchange() }
        _ = fixture.turn()
        let wait = fixture.worker.waitingHandshakes.begun.count
        #expect(wait == steps && fixture.waiting == 2 * steps)
        let third = fixture.turn()
        #expect(third == Array(0..<2 * steps))
        let established = (0..<3 * steps).filter { fixture.isEstablished($0) }
        #expect(established == Array(0..<steps))
        let fourth = fixture.turn()
        #expect(fourth == Array(0..<3 * steps))
    }

    @Test func `are watched while few are in front of them`() throws {
        let watchedMax = Limits.tlsHandshakesWatchedMax
        var fixture = try Fixture.withClients(steps + watchedMax + 3)
        _ = fixture.turn()
        let (waiting, watched) = (fixture.waiting, fixture.watched)
        #expect(waiting == watchedMax + 3 && watched == Array(steps..<steps + watchedMax))
        var answered: [Int] = []
        for turn in 2...100 where fixture.waiting > 0 {
            answered = fixture.turn()
            #expect(answered == Array(0..<min(turn * steps, steps + watchedMax + 3)))
        }
        #expect(answered.count == steps + watchedMax + 3)
        // They are watched again when they have had it.
        let slots = fixture.slots
        #expect(slots.allSatisfy { fixture.worker.connections[$0].interest.contains(.read) })
        #expect(slots.allSatisfy { !fixture.worker.connections[$0].awaitsStep })
    }

    @Test func `are not watched where none can begin, so that a worker sleeps`() throws {
        var fixture = try Fixture.withClients(1)
        try fixture.crowd(true)
        let answered = fixture.turn()
        #expect(answered == [] && fixture.waiting == 1 && fixture.watched == [])
        #expect(fixture.worker.patience > 0)
        try fixture.crowd(false)
        #expect(fixture.worker.patience == 0)
        let then = fixture.turn()
        #expect(then == [0] && fixture.waiting == 0)
    }

    @Test func `are watched no more when none can begin any more`() throws {
        var fixture = try Fixture.withClients(steps + 2)
        _ = fixture.turn()
        let watched = fixture.watched
        #expect(watched == [steps, steps + 1])
        try fixture.crowd(true)
        let answered = fixture.turn()
        #expect(answered == Array(0..<steps) && fixture.waiting == 2 && fixture.watched == [])
        #expect(fixture.worker.patience > 0 && fixture.worker.page[.tlsHandshakePutOff] == 2)
        try fixture.crowd(false)
        let then = fixture.turn()
        #expect(then.count == steps + 2)
    }

    @Test func `are looked at in bounded numbers, although those that have ended take no step`() throws {
        let lookedAtMax = Limits.tlsHandshakesResumedPerTurnMax
        var fixture = try Fixture()
        for _ in 0..<2 * lookedAtMax + 1 { try fixture.connectAndEnd() }
        var left: [Int] = []
        for _ in 0..<3 {
            _ = fixture.turn()
            left.append(fixture.waiting)
        }
        #expect(left == [lookedAtMax + 1, 1, 0] && fixture.worker.connections.count == 0)
    }

    @Test func `are found to have ended when it is theirs, and not before`() throws {
        var fixture = try Fixture.withClients(2 * steps + 2)
        _ = fixture.turn()
        fixture.clients[2 * steps + 1].hangUp()
        _ = fixture.turn()
        let waits = fixture.worker.connections[fixture.slots[2 * steps + 1]].awaitsStep
        #expect(waits && fixture.waiting == 2)
        for _ in 0..<3 { _ = fixture.turn() }
        #expect(fixture.waiting == 0 && fixture.worker.connections.count == 2 * steps + 1)
    }
}
