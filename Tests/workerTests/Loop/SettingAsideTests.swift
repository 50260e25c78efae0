import CLinux
import Glibc
import Shared
import Testing

@testable import worker

private let millisecond: UInt64 = 1_000_000
private let ping = Frame(opcode: Frame.ping, payload: [1]).masked([1, 2, 3, 4])
private let request = Array("GET /x HTTP/1.1\r\nHost: a\r\n\r\n".utf8)

/// Clients of a worker of whose work each piece takes a millisecond, so that a turn has time for four.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    private(set) var slots: [UInt32] = []
    private(set) var clients: [Int32] = []

    init() throws {
        var options = WorkerFixture.Options()
        options.workNanoseconds = millisecond
        options.configuration.joinsPerSecondPerAddress = 0
        inner = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        inner.worker.turn(waiting: 0)
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    /// Rooms of one.
    mutating func openRooms(_ count: Int) throws {
        for number in 0..<count {
            let room = inner.openRoom("room \(number)")
            let member = try inner.enter(room)
            worker.watchAsMember(member.slot)
            slots.append(member.slot)
            clients.append(member.client)
        }
        worker.tellHostKeys()
    }

    mutating func connect(_ count: Int) throws {
        for _ in 0..<count {
            let (slot, client) = try inner.accept()
            slots.append(slot)
            clients.append(client)
        }
    }

    func send(_ bytes: some Sequence<UInt8>, from index: Int) throws {
        let bytes = Array(bytes)
        let sent = Glibc.send(clients[index], bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        try #require(sent == bytes.count)
    }

    /// Whether a client has been sent something since the last call.
    func hasHeard(_ index: Int) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 4096)
        return recv(clients[index], &buffer, buffer.count, Int32(MSG_DONTWAIT)) > 0
    }

    mutating func turn() {
        inner.worker.turn(waiting: 0)
    }

    /// Turns until nothing is left to do.
    ///
    /// - Returns: in how many turns.
    mutating func turnAll() -> Int {
        for count in 1...2000 {
            turn()
            if worker.patience > 0 { return count }
        }
        return .max
    }

    func isAside(_ index: Int) -> Bool { inner.worker.connections[slots[index]].isAside }
    func gathered(_ index: Int) -> Int { inner.worker.connections[slots[index]].message.count }
}

/// The first bytes of a message that is longer.
private func beginning(_ count: Int, of total: Int) -> [UInt8] {
    Array(Frame(opcode: Frame.binary, payload: [UInt8](repeating: 7, count: total)).masked([1, 2, 3, 4]).prefix(count))
}

@Suite struct `Connections that have more to say than their share` {
    private static let many = 40

    @Test func `let members go first who have just begun`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(Self.many + 1)
        for index in 0..<Self.many { try fixture.send(beginning(60_000, of: 100_000), from: index) }
        while !(0..<Self.many).allSatisfy({ fixture.gathered($0) > 0 }) { fixture.turn() }
        try fixture.send(ping, from: Self.many)
        fixture.turn()
        let hasHeard = fixture.hasHeard(Self.many)
        #expect(hasHeard)
        // And go on until all is read.
        let turns = fixture.turnAll()
        let lengths = Set((0..<Self.many).map { fixture.gathered($0) })
        #expect(turns < 2000 && lengths.count == 1)
        let queued = fixture.worker.aside.members.count
        let areWatched = (0..<Self.many).allSatisfy { !fixture.isAside($0) }
        #expect(queued == 0 && areWatched)
        let rest = beginning(.max, of: 100_000).dropFirst(60_000)
        for index in 0..<Self.many { try fixture.send(rest + ping, from: index) }
        _ = fixture.turnAll()
        let haveHeard = (0..<Self.many).allSatisfy { fixture.hasHeard($0) }
        #expect(haveHeard)
    }

    @Test func `let members go first whose next byte sets off less than a large message`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(Self.many + 1)
        let message = beginning(.max, of: 3 * Limits.begunMessageAsideBytes)
        for index in 0..<Self.many { try fixture.send(message.dropLast(), from: index) }
        _ = fixture.turnAll()
        for index in 0..<Self.many { try fixture.send(message.suffix(1), from: index) }
        try fixture.send(ping, from: Self.many)
        fixture.turn()
        let hasHeard = fixture.hasHeard(Self.many)
        #expect(hasHeard)
        let turns = fixture.turnAll()
        let areWhole = (0..<Self.many).allSatisfy { fixture.gathered($0) == 0 }
        #expect(turns < 2000 && areWhole)
    }

    @Test func `go on however many others begin`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(Self.many)
        try fixture.send(beginning(60_000, of: 100_000), from: 0)
        for _ in 0..<200 where fixture.gathered(0) < 59_000 {
            for index in 1..<Self.many { try fixture.send(ping, from: index) }
            fixture.turn()
            for index in 1..<Self.many { _ = fixture.hasHeard(index) }
        }
        let gathered = fixture.gathered(0)
        #expect(gathered > 59_000)
    }

    @Test func `let strangers go first who have just come`() throws {
        var fixture = try Fixture()
        try fixture.connect(Self.many)
        let requests = Array((0..<400).map { _ in request }.joined())
        for index in 0..<Self.many { try fixture.send(requests, from: index) }
        for _ in 0..<(2 * Self.many) { fixture.turn() }
        try fixture.connect(1)
        try fixture.send(request, from: Self.many)
        fixture.turn()
        fixture.turn()
        let hasHeard = fixture.hasHeard(Self.many)
        #expect(hasHeard)
    }

    @Test func `are watched again for what they wait for when they are not to be read`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(1)
        let slot = fixture.slots[0]
        fixture.worker.setAside(slot)
        fixture.worker.setInterest(slot, [])
        try fixture.send(ping, from: 0)
        fixture.turn()
        let (isAside, hasHeard) = (fixture.isAside(0), fixture.hasHeard(0))
        #expect(!isAside && !hasHeard)
        fixture.worker.setInterest(slot, .read)
        fixture.turn()
        let hasHeardNow = fixture.hasHeard(0)
        #expect(hasHeardNow)
    }

    @Test func `are read with the members once they have joined`() throws {
        var fixture = try Fixture()
        let room = fixture.inner.openRoom("room")
        let (slot, client) = try fixture.inner.enter(room)
        fixture.worker.setAside(slot)
        fixture.worker.watchAsMember(slot)
        _ = Glibc.send(client, ping, ping.count, Int32(MSG_NOSIGNAL))
        let turns = fixture.turnAll()
        var buffer = [UInt8](repeating: 0, count: 16)
        let count = recv(client, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        #expect(turns < 10 && count > 0)
        let isAside = fixture.worker.connections[slot].isAside
        #expect(!isAside)
    }
}
