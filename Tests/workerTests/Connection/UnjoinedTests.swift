import Glibc
import Shared
import Testing

@testable import worker

/// A worker, and connections as they arrive at it from addresses of the test's.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    private var ends: [Int32] = []

    init(connectionsMax: Int, workers: Int = 1) throws {
        let file = try SharedMemory.makeFile()
        var options = WorkerFixture.Options()
        options.configuration.connectionsMax = connectionsMax
        inner = try WorkerFixture(options, try SharedMemory.create(in: file))
    }

    deinit {
        for end in ends { _ = close(end) }
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    /// What an accept does.
    ///
    /// - Returns: nil if the connection is refused.
    mutating func arrive(_ text: String) throws -> UInt32? {
        let peer = try #require(Address(text))
        guard worker.takePlace(for: peer) != .none else { return nil }
        let (near, far) = try StreamPair().split()
        ends.append(far)
        let adopted = worker.adopt(
            Connection(socket: Descriptor(owning: near), peer: peer, isSecure: false, now: worker.second))
        return adopted
    }

    /// Puts a connection into a room, for the count alone.
    mutating func join(_ slot: UInt32) {
        worker.connections[slot].phase = .open
        worker.unjoined.remove(slot)
        worker.page[.clients] += 1
    }

    /// What an address has, oldest first.
    func slots(_ text: String) -> [UInt32] {
        worker.connections.slots.filter {
            worker.connections.isOccupied($0) && worker.connections[$0].isServed
                && worker.connections[$0].peer == Address(text)
        }
    }

    var quota: UInt64 { worker.memory.connections.count }
}

@Suite struct `Connections that have not joined` {
    @Test func `have nine tenths of what there is`() {
        #expect([1, 9, 10, 11, 100].map { Limits.unjoinedMax(connectionsMax: $0) } == [1, 9, 9, 10, 90])
    }

    @Test func `give way to another address's, the oldest of the party that has most`() throws {
        var fixture = try Fixture(connectionsMax: 20)
        for _ in 0..<15 { #expect(try fixture.arrive("192.0.2.1") != nil) }
        for _ in 0..<3 { #expect(try fixture.arrive("192.0.2.2") != nil) }
        let oldest = fixture.slots("192.0.2.1")
        #expect(fixture.quota == 18)
        for round in 0..<5 {
            #expect(try fixture.arrive("198.51.100.\(round)") != nil)
            let left = fixture.slots("192.0.2.1")
            #expect(left == Array(oldest.dropFirst(round + 1)))
            // At no moment is a place counted twice, or given back twice.
            #expect(fixture.worker.page[.connections] == 18 && fixture.quota == 18)
            fixture.worker.settle()
            #expect(fixture.worker.page[.connections] == 18 && fixture.quota == 18)
            #expect(fixture.worker.connections.count == 18 && fixture.worker.unjoined.count == 18)
        }
        #expect(fixture.worker.page[.close(.gaveWay)] == 5)
        #expect(fixture.slots("192.0.2.2").count == 3)
    }

    @Test func `of a whole /48 are one party's`() throws {
        var fixture = try Fixture(connectionsMax: 20)
        for network in 0..<10 { #expect(try fixture.arrive("2001:db8:0:\(network)::1") != nil) }
        for _ in 0..<8 { #expect(try fixture.arrive("192.0.2.2") != nil) }
        #expect(try fixture.arrive("192.0.2.3") != nil)
        #expect(fixture.slots("2001:db8:0:0::1").isEmpty && fixture.slots("192.0.2.2").count == 8)
    }

    @Test func `leave the last tenth to members, and members have as much as they need`() throws {
        var fixture = try Fixture(connectionsMax: 20)
        var slots: [UInt32] = []
        for _ in 0..<18 { slots.append(try #require(try fixture.arrive("192.0.2.1"))) }
        // Those who join make room.
        for count in 1...2 {
            fixture.join(slots.removeLast())
            #expect(try fixture.arrive("192.0.2.2") != nil)
            #expect(fixture.quota == 18 + UInt64(count))
        }
        #expect(fixture.worker.page[.close(.gaveWay)] == 0)
        fixture.join(slots.removeLast())
        // The relay is full: who has not joined gives way.
        #expect(try fixture.arrive("192.0.2.3") != nil)
        fixture.worker.settle()
        #expect(fixture.quota == 20 && fixture.worker.page[.close(.gaveWay)] == 1)
        // Nobody is left who could.
        for slot in fixture.worker.connections.slots where fixture.worker.unjoined.contains(slot) { fixture.join(slot) }
        #expect(try fixture.arrive("192.0.2.4") == nil)
    }

    @Test func `of one's own address give way when they have had some seconds, and the newcomer is refused before`()
        throws
    {
        var fixture = try Fixture(connectionsMax: 10)
        for _ in 0..<9 { #expect(try fixture.arrive("192.0.2.1") != nil) }
        let oldest = fixture.slots("192.0.2.1")[0]
        #expect(try fixture.arrive("192.0.2.1") == nil)
        fixture.worker.second += 1
        #expect(try fixture.arrive("192.0.2.1") == nil)
        fixture.worker.second += 1
        #expect(try fixture.arrive("192.0.2.1") != nil)
        #expect(!fixture.slots("192.0.2.1").contains(oldest) && fixture.slots("192.0.2.1").count == 9)
    }

    @Test func `count over all workers, and members of all workers do not count`() throws {
        var fixture = try Fixture(connectionsMax: 100)
        let memory = fixture.worker.memory
        memory.assign(1, .current)
        #expect((0..<95).allSatisfy { _ in memory.connections.take(max: 100) })
        memory.page(1)[.connections] = 95
        memory.page(1)[.clients] = 10
        #expect(try fixture.arrive("192.0.2.1") != nil)
        #expect(fixture.quota == 96)
        memory.page(1)[.clients] = 5
        // Its own share is over, and another worker's connections are not its to close: but one of its own gives way.
        #expect(try fixture.arrive("192.0.2.2") != nil)
        #expect(fixture.quota == 96 && fixture.worker.page[.close(.gaveWay)] == 1)
        // What a page says is not taken on trust.
        memory.page(1)[.clients] = .max
        #expect(try fixture.arrive("192.0.2.3") != nil)
    }

    @Test func `are forgotten when they end, however they end`() throws {
        var fixture = try Fixture(connectionsMax: 100)
        let slots = try (0..<5).map { _ in try #require(try fixture.arrive("192.0.2.1")) }
        fixture.worker.doom(slots[0], .peerGone)
        fixture.worker.finish(slots[1])
        #expect(fixture.worker.unjoined.count == 4)
        fixture.worker.settle()
        fixture.inner.pass(seconds: 30)
        #expect(fixture.worker.unjoined.count == 0 && fixture.worker.connections.count == 0 && fixture.quota == 0)
    }
}

@Suite struct `A connection that does not join` {
    private func ask(_ fixture: inout WorkerFixture, _ client: Int32, _ path: String = "/health") -> String {
        give(Array("GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n".utf8), to: client)
        fixture.worker.turn(waiting: 0)
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = read(client, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    }

    @Test func `has a hundred requests, and the last answer says that it is`() throws {
        var fixture = try WorkerFixture()
        let (slot, client) = try fixture.accept()
        for _ in 1..<100 { #expect(ask(&fixture, client).contains("Connection: keep-alive")) }
        let last = ask(&fixture, client)
        #expect(last.hasPrefix("HTTP/1.1 ") && last.contains("Connection: close"))
        let phase = fixture.worker.connections[slot].phase
        #expect(phase == .lingering)
    }

    @Test func `has a minute, however often it asks`() throws {
        var fixture = try WorkerFixture()
        let (slot, _) = try fixture.accept()
        // Without a turn, which would set the clock.
        let request = Array("GET /x HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
        for _ in 0..<7 {
            fixture.worker.take(slot, request.span.bytes)
            fixture.worker.settle()
            let phase = fixture.worker.connections[slot].phase
            #expect(phase == .request)
            fixture.pass(seconds: 8)
        }
        // 56 seconds are over: not ten more.
        fixture.worker.take(slot, request.span.bytes)
        fixture.worker.settle()
        fixture.pass(seconds: 3)
        #expect(fixture.worker.connections.isOccupied(slot) == true)
        fixture.pass(seconds: 1)
        #expect(fixture.worker.connections.isOccupied(slot) == false)
        #expect(fixture.worker.page[.close(.requestTimeout)] == 1)
    }

    @Test func `has a bucket for its requests, of its address and apart from joins`() throws {
        let file = try SharedMemory.makeFile()
        var options = WorkerFixture.Options()
        options.configuration.joinsPerSecondPerAddress = 1
        var fixture = try WorkerFixture(options, try SharedMemory.create(in: file))
        // Asks on connections of their own until one is refused, however slow the machine is.
        func asked(_ path: String, _ fixture: inout WorkerFixture) throws -> (admitted: Int, refusal: String) {
            for admitted in 0..<1000 {
                let (_, client) = try fixture.accept()
                let answer = ask(&fixture, client, path)
                if answer.contains("429") { return (admitted, answer) }
            }
            return (1000, "")
        }
        let (admitted, refusal) = try asked("/health", &fixture)
        // Ten a second, twice that at once.
        #expect(admitted >= 20)
        #expect(refusal.contains("429 Too Many Requests") && refusal.contains("Retry-After: 1"))
        #expect(refusal.contains("Connection: close") && refusal.hasSuffix("rate limit exceeded"))
        #expect(fixture.worker.page[.requestRateLimited] == 1)
        let (_, joiner) = try fixture.accept()
        #expect(ask(&fixture, joiner, "/ws").contains("400 Bad Request"))
        let (_, other) = try fixture.accept(peer: "192.0.2.9")
        #expect(!ask(&fixture, other).contains("429"))
        // What can't be read counts as well.
        let unreadable = try asked("\u{1}", &fixture)
        #expect(unreadable.refusal.contains("429") && unreadable.admitted < 1000)
    }
}
