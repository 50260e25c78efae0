import Glibc
import Shared
import Testing

@testable import worker

/// A worker with clients that have all said hello before its first turn.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    private(set) var clients: [Client] = []
    private(set) var slots: [UInt32] = []

    init(_ configuration: Configuration = Configuration()) throws {
        let file = try SharedMemory.makeFile()
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        options.configuration = configuration
        inner = try WorkerFixture(options, try SharedMemory.create(in: file))
    }

    static func withClients(_ count: Int) throws -> Fixture {
        var fixture = try Fixture()
        for _ in 0..<count { try fixture.connect() }
        return fixture
    }

    mutating func connect(peer: String = "192.0.2.1") throws {
        let client = Client(isSecure: true)
        let (socket, far) = try StreamPair().split()
        client.socket = far
        slots.append(try inner.adopt(socket, isSecure: true, peer: peer))
        clients.append(client)
        client.exchange()
    }

    /// A client that has gone while it waited for a second step.
    mutating func connectAndEnd() throws {
        let (socket, far) = try StreamPair().split()
        let slot = try inner.adopt(socket, isSecure: true)
        _ = close(far)
        let keys = worker.connections[slot].peer.keys
        worker.handshakes[slot] = try TLSHandshake(try makeContext())
        worker.handshakePlaces.begin(slot, keys)
        worker.connections[slot].awaitsStep = true
        worker.waitingHandshakes.begun.insert(slot, of: keys.party)
    }

    /// Bytes of a client that says nothing else.
    mutating func say(_ bytes: [UInt8], peer: String = "192.0.2.1") throws -> (slot: UInt32, client: Int32) {
        let (slot, client) = try inner.accept(isSecure: true, peer: peer)
        if !bytes.isEmpty { give(bytes, to: client) }
        return (slot, client)
    }

    static func hello() -> [UInt8] {
        let client = TLSClient()
        client.receive([])
        return client.output()
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

    /// As many handshakes of the clients' address as it may have, or none but their own.
    mutating func crowd(_ isCrowded: Bool, peer: String = "192.0.2.1") throws {
        let keys = try #require(Address(peer)).keys
        for number in 0..<Limits.tlsHandshakesPerAddressMax {
            let slot = 10_000 + UInt32(number)
            if isCrowded { worker.handshakePlaces.begin(slot, keys) } else { worker.handshakePlaces.end(slot, keys) }
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

    @Test func `have it before those that have not begun, but for one in four`() throws {
        var fixture = try Fixture.withClients(3 * steps)
        let first = fixture.turn()
        // They come back with their last word while others have the steps of the turn.
        for client in first { fixture.clients[client].exchange() }
        _ = fixture.turn()
        let wait = fixture.worker.waitingHandshakes.begun.count
        #expect(wait == steps && fixture.waiting == 2 * steps)
        let third = fixture.turn()
        #expect(third == Array(0..<2 * steps + 1))
        let established = (0..<3 * steps).filter { fixture.isEstablished($0) }
        #expect(established == Array(0..<steps - 1))
        let fourth = fixture.turn()
        #expect(fourth == Array(0..<3 * steps))
        let then = (0..<3 * steps).filter { fixture.isEstablished($0) }
        #expect(then == Array(0..<steps))
    }

    @Test func `are watched while few are in front of them`() throws {
        let watchedMax = Limits.tlsHandshakesWatchedMax
        let count = steps + watchedMax + 3
        var fixture = try Fixture.withClients(count)
        for _ in 0..<100 where fixture.waiting > 0 || fixture.worker.handshakes.count < count { _ = fixture.turn() }
        // All come back with their last word at the same time.
        for client in fixture.clients { client.exchange() }
        _ = fixture.turn()
        let (waiting, watched) = (fixture.waiting, fixture.watched.count)
        #expect(waiting == watchedMax + 3 && watched == watchedMax)
        for turn in 2...100 where fixture.waiting > 0 {
            _ = fixture.turn()
            let established = (0..<count).count { fixture.isEstablished($0) }
            #expect(established == min(turn * steps, count))
        }
        // They are watched again when they have had it.
        let slots = fixture.slots
        #expect(slots.allSatisfy { fixture.worker.connections[$0].interest.contains(.read) })
        #expect(slots.allSatisfy { !fixture.worker.connections[$0].awaitsStep })
    }

    @Test func `let a worker sleep where none can begin`() throws {
        var fixture = try Fixture.withClients(1)
        try fixture.crowd(true)
        let answered = fixture.turn()
        #expect(answered == [] && fixture.waiting == 1 && fixture.watched == [0])
        #expect(fixture.worker.patience > 0)
        // What comes behind a ClientHello does not wake it again and again.
        give([23, 3, 3], to: fixture.clients[0].socket)
        _ = fixture.turn()
        #expect(fixture.waiting == 1 && fixture.watched == [] && fixture.worker.patience > 0)
        try fixture.crowd(false)
        #expect(fixture.worker.patience == 0)
        let then = fixture.turn()
        #expect(then == [0] && fixture.waiting == 0)
    }

    @Test func `are looked at in bounded numbers, although those that have ended take no step`() throws {
        let lookedAtMax = Limits.tlsHandshakesResumedPerTurnMax
        var fixture = try Fixture()
        for _ in 0..<lookedAtMax + lookedAtMax / 2 { try fixture.connectAndEnd() }
        fixture.worker.resumeHandshakes()
        #expect(fixture.waiting == lookedAtMax / 2)
        fixture.worker.resumeHandshakes()
        fixture.worker.settle()
        #expect(
            fixture.waiting == 0 && fixture.worker.connections.count == 0 && fixture.worker.handshakePlaces.count == 0)
    }

    @Test func `give their place in line up when they end`() throws {
        var fixture = try Fixture.withClients(3 * steps)
        _ = fixture.turn()
        fixture.clients[3 * steps - 1].hangUp()
        fixture.clients[3 * steps - 2].hangUp()
        for _ in 0..<2 { _ = fixture.turn() }
        #expect(fixture.waiting == 0 && fixture.worker.connections.count == 3 * steps - 2)
    }

    @Test func `take turns with those of other addresses`() throws {
        var fixture = try Fixture()
        for _ in 0..<10 * steps { try fixture.connect() }
        _ = fixture.turn()
        try fixture.connect(peer: "198.51.100.1")
        try fixture.connect(peer: "198.51.100.1")
        _ = fixture.turn()
        // Within two turns of its own, whatever the other has in line.
        let then = fixture.turn()
        #expect(then.contains(10 * steps) && fixture.waiting > 0)
        let last = fixture.turn()
        #expect(last.contains(10 * steps + 1))
    }
}

extension Worker {
    /// Gives a connection time without end.
    fileprivate mutating func postpone(_ slot: UInt32) {
        connectionTimers.set(slot, in: &connections, due: .max)
    }
}

@Suite struct `A ClientHello on its way` {
    @Test func `takes no place for a handshake before it is whole`() throws {
        var fixture = try Fixture()
        let hello = Fixture.hello()
        let (slot, client) = try fixture.say([hello[0]])
        for byte in hello.dropFirst() {
            fixture.worker.turn(waiting: 0)
            #expect(fixture.worker.handshakes.isEmpty && fixture.worker.handshakePlaces.count == 0)
            give([byte], to: client)
        }
        fixture.worker.turn(waiting: 0)
        #expect(fixture.worker.handshakes[slot] != nil && fixture.worker.handshakePlaces.count == 1)
        #expect(fixture.worker.connections[slot].input.capacity == 0)
    }

    @Test func `has three seconds, and what has come by then counts`() throws {
        #expect(Limits.tlsHelloSeconds == 3)
        var fixture = try Fixture()
        let (slow, _) = try fixture.say([22, 3])
        let (silent, _) = try fixture.say([])
        let (late, client) = try fixture.say([])
        fixture.worker.turn(waiting: 0)
        fixture.inner.pass(seconds: 2)
        #expect(fixture.worker.connections.count == 3)
        let hello = Fixture.hello()
        give(hello, to: client)
        // And one more, so that not all end in one.
        fixture.inner.pass(seconds: 2)
        #expect(!fixture.worker.connections.isOccupied(slow) && !fixture.worker.connections.isOccupied(silent))
        #expect(fixture.worker.page[.close(.requestTimeout)] == 2)
        #expect(fixture.worker.handshakes[late] != nil)
        // The rest has its ten seconds from the accept.
        fixture.inner.pass(seconds: 5)
        #expect(fixture.worker.connections.isOccupied(late) == true)
        fixture.inner.pass(seconds: 1)
        #expect(fixture.worker.connections.count == 0 && fixture.worker.handshakePlaces.count == 0)
    }

    @Test func `that is too long is refused before libssl sees it`() throws {
        var fixture = try Fixture()
        let (_, client) = try fixture.say([22, 3, 1, 0x40, 0, 1, 0, 0x40, 0])
        fixture.worker.turn(waiting: 0)
        #expect(fixture.worker.page[.tlsHandshakeFailure(.tooLong)] == 1 && fixture.worker.handshakes.isEmpty)
        var byte: UInt8 = 0
        #expect(read(client, &byte, 1) == 0)
    }

    @Test func `over its address's rate is closed without a handshake, and others' are not`() throws {
        var configuration = Configuration()
        configuration.joinsPerSecondPerAddress = 1
        configuration.trustedProxies = ["10.0.0.0/8"].compactMap(AddressRange.init)
        var fixture = try Fixture(configuration)
        let hello = Fixture.hello()
        for _ in 0..<30 { _ = try fixture.say(hello) }
        for _ in 0..<5 { _ = try fixture.say(hello, peer: "2001:db8::1") }
        // A proxy's are those of many.
        for _ in 0..<30 { _ = try fixture.say(hello, peer: "10.0.0.1") }
        for _ in 0..<100 { fixture.worker.turn(waiting: 0) }
        // Ten a second, and twice that at once.
        let limited = fixture.worker.page[.tlsHandshakeFailure(.rateLimited)]
        #expect((8...10).contains(limited))
        #expect(fixture.worker.handshakes.count == 65 - Int(limited))
        #expect(fixture.worker.connections.count == 65 - Int(limited))
    }

    @Test func `waits in bounded numbers: the newest of the party that has most goes`() throws {
        var configuration = Configuration()
        configuration.joinsPerSecondPerAddress = 0
        var fixture = try Fixture(configuration)
        let hello = Fixture.hello()
        let max = Limits.tlsHandshakesWaitingMax
        try fixture.crowd(true)
        var slots: [UInt32] = []
        for number in 0..<max {
            let (slot, _) = try fixture.say([])
            fixture.worker.connections[slot].input.append(hello)
            fixture.worker.takeHello(slot)
            slots.append(slot)
            #expect(fixture.waiting == number + 1)
        }
        // One more of the same party goes itself.
        let (own, _) = try fixture.say([])
        fixture.worker.connections[own].input.append(hello)
        fixture.worker.takeHello(own)
        fixture.worker.settle()
        #expect(fixture.waiting == max && !fixture.worker.connections.isOccupied(own))
        // Another's has the place of the newest.
        let (other, _) = try fixture.say([], peer: "203.0.113.1")
        fixture.worker.connections[other].input.append(hello)
        fixture.worker.takeHello(other)
        fixture.worker.settle()
        #expect(fixture.worker.page[.tlsHandshakeFailure(.gaveWay)] == 2)
        #expect(fixture.waiting == max && !fixture.worker.connections.isOccupied(slots[max - 1]))
        #expect(fixture.worker.connections.isOccupied(other) && fixture.worker.connections.isOccupied(slots[0]))
        // And begins at once.
        fixture.worker.turn(waiting: 0)
        #expect(fixture.worker.handshakes[other] != nil)
    }

    @Test func `begins in the place of the party that has most, where all are taken`() throws {
        var configuration = Configuration()
        configuration.joinsPerSecondPerAddress = 0
        var fixture = try Fixture(configuration)
        let hello = Fixture.hello()
        var attackers: [UInt32] = []
        for index in 0..<Limits.tlsHandshakesMax {
            let (slot, _) = try fixture.say([], peer: "192.0.2.\(index / Limits.tlsHandshakesPerAddressMax)")
            fixture.worker.connections[slot].input.append(hello)
            fixture.worker.takeHello(slot)
            attackers.append(slot)
            // So many handshakes take a slow machine longer than one may.
            fixture.worker.postpone(slot)
            if index % 4 == 3 { fixture.worker.resumeHandshakes() }
        }
        for _ in 0..<20 { fixture.worker.resumeHandshakes() }
        #expect(fixture.worker.handshakePlaces.count == Limits.tlsHandshakesMax && fixture.waiting == 0)
        try fixture.connect(peer: "198.51.100.1")
        for _ in 0..<3 { _ = fixture.turn() }
        #expect(fixture.clients[0].isConnected)
        #expect(fixture.worker.page[.tlsHandshakeFailure(.gaveWay)] == 1)
        #expect(fixture.worker.handshakePlaces.count == Limits.tlsHandshakesMax)
    }
}
