import CLinux
import Glibc
import Shared
import Testing

@testable import worker

private let millisecond: UInt64 = 1_000_000
/// As many pieces of work as a turn has time for, at a millisecond each.
private let pieces = Int(Limits.turnInputNanoseconds / millisecond)

/// A worker of whose work each piece takes a millisecond.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    private(set) var slots: [UInt32] = []
    private(set) var clients: [Int32] = []

    init(_ options: WorkerFixture.Options = .init(), nanoseconds: UInt64 = millisecond) throws {
        var options = options
        options.workNanoseconds = nanoseconds
        inner = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        // What a start brings with it is over.
        inner.worker.turn(waiting: 0)
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    /// Strangers, of whom each has sent these bytes.
    mutating func connect(_ count: Int, sending bytes: [UInt8]) throws {
        for _ in 0..<count {
            let (slot, client) = try inner.accept()
            slots.append(slot)
            clients.append(client)
            try send(bytes, from: clients.count - 1)
        }
    }

    /// Rooms of two.
    mutating func openRooms(_ count: Int) throws {
        for number in 0..<count {
            let room = inner.openRoom("room \(number)")
            for _ in 0..<2 {
                let (slot, client) = try inner.open()
                worker.enter(slot, room)
                worker.watchAsMember(slot)
                slots.append(slot)
                clients.append(client)
            }
        }
        worker.tellHostKeys()
    }

    /// The same of clients that speak TLS and have all that their handshakes bring.
    mutating func openSecureRooms(_ count: Int) throws -> [Client] {
        var clients: [Client] = []
        for number in 0..<count {
            let room = inner.openRoom("room \(number)")
            for (slot, client) in try inner.acceptSecurely(2) {
                for _ in 0..<20 where worker.connections[slot].phase != .request || !client.isConnected {
                    turn()
                    client.exchange()
                }
                try #require(client.isConnected)
                worker.connections[slot].phase = .open
                worker.startLiveness(slot)
                worker.enter(slot, room)
                worker.watchAsMember(slot)
                clients.append(client)
            }
        }
        worker.tellHostKeys()
        return clients
    }

    func send(_ bytes: [UInt8], from index: Int) throws {
        let sent = Glibc.send(clients[index], bytes, bytes.count, Int32(MSG_NOSIGNAL))
        try #require(sent == bytes.count)
    }

    /// Which clients have been sent something since the last call.
    func heard() -> [Int] {
        var buffer = [UInt8](repeating: 0, count: 4096)
        return clients.indices.filter { recv(clients[$0], &buffer, buffer.count, 0) > 0 }
    }

    mutating func turn() {
        inner.worker.turn(waiting: 0)
    }

    /// Turns until nothing is left to do.
    ///
    /// - Returns: of each turn who has been sent something.
    mutating func turns(max: Int = 2000) -> [[Int]] {
        var all: [[Int]] = []
        for _ in 0..<max {
            turn()
            all.append(heard())
            if worker.patience > 0 && all.suffix(2).allSatisfy(\.isEmpty) { break }
        }
        return all.filter { !$0.isEmpty }
    }
}

extension Worker {
    /// Has a connection's next ping be due in a second.
    fileprivate mutating func pingAt(_ slot: UInt32, _ second: UInt32) {
        connections[slot].pingDue = second
        connections[slot].heardAt = second - UInt32(configuration.pingSeconds)
        connectionTimers.set(slot, in: &connections, due: second)
    }
}

/// A frame of which each turn's work is one read, and whose answer shows that it was read.
private let ping = Frame(opcode: Frame.ping, payload: [1]).masked([1, 2, 3, 4])
private let message = Frame(opcode: Frame.binary, payload: [1, 2, 3]).masked([1, 2, 3, 4])

@Suite struct `A turn of the loop` {
    @Test func `settles after 4 ms of members' frames, and serves 600 who are ready in turn`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(300)
        for index in fixture.clients.indices { try fixture.send(ping, from: index) }
        let turns = fixture.turns()
        // The wait of the first turn may have brought fewer than all.
        #expect(turns.allSatisfy { $0.count <= pieces })
        #expect(turns.count >= 600 / pieces && turns.count < 600 / pieces + 4)
        #expect(turns.flatMap(\.self).sorted() == Array(0..<600))
    }

    @Test func `settles after 4 ms of requests, and serves 600 that are ready in turn`() throws {
        var fixture = try Fixture()
        try fixture.connect(600, sending: Array("GET /x HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
        let turns = fixture.turns()
        #expect(turns.allSatisfy { $0.count <= pieces })
        #expect(turns.flatMap(\.self).sorted() == Array(0..<600))
    }

    @Test func `answers few of the requests that one connection has pipelined, and the others in later turns`() throws {
        var fixture = try Fixture(nanoseconds: 0)
        let count = 3 * Limits.requestsPerServiceMax + 1
        let request = Array("GET /health HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        try fixture.connect(1, sending: Array((0..<count).map { _ in request }.joined()))
        let slot = fixture.slots[0]
        var answered: [UInt64] = []
        for _ in 0..<4 {
            fixture.turn()
            answered.append(fixture.worker.page[.requests])
        }
        let most = UInt64(Limits.requestsPerServiceMax)
        #expect(answered == [most, 2 * most, 3 * most, 3 * most + 1])
        let (isUnanswered, patience) = (fixture.worker.connections[slot].isUnanswered, fixture.worker.patience)
        #expect(!isUnanswered && patience > 0)
        let left = fixture.worker.connections[slot].input.count
        #expect(left == 0)
    }

    @Test func `settles after 4 ms of handshakes, and takes a step of each in turn`() throws {
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        options.workNanoseconds = millisecond
        var inner = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        let clients = try inner.acceptSecurely(40).map(\.client)
        var connected = 0
        for _ in 0..<200 where connected < clients.count {
            inner.worker.turn(waiting: 0)
            for client in clients where !client.isConnected { client.exchange() }
            let count = clients.count { $0.isConnected }
            #expect(count - connected <= pieces)
            connected = count
        }
        #expect(connected == clients.count)
    }

    @Test func `settles after 4 ms of records, and serves 600 members who have sent one in turn`() throws {
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        // No time goes by in the handshakes: members would have to pay for them first.
        var fixture = try Fixture(options, nanoseconds: 0)
        let clients = try fixture.openSecureRooms(300)
        fixture.worker.clock = TurnClock(now: fixture.worker.clock.now, stride: millisecond)
        for client in clients {
            client.say(Frame(opcode: Frame.ping, payload: [1]))
            client.exchange()
        }
        // Tickets came with the handshakes.
        var pongs = clients.map(\.received.count)
        var turns: [[Int]] = []
        for _ in 0..<(600 / pieces + 4) {
            fixture.turn()
            for client in clients { client.exchange() }
            turns.append(clients.indices.filter { clients[$0].received.count > pongs[$0] })
            pongs = clients.map(\.received.count)
        }
        turns.removeAll(where: \.isEmpty)
        #expect(turns.allSatisfy { $0.count <= pieces })
        #expect(turns.flatMap(\.self).sorted() == Array(0..<600))
        #expect(clients.allSatisfy { Frame.parse($0.received) == [Frame(opcode: Frame.pong, payload: [1])] })
    }

    @Test func `settles after 4 ms of timers, and runs the others in later turns`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(300)
        // All pings are due in this second.
        let second = fixture.worker.second
        for slot in fixture.slots { fixture.worker.pingAt(slot, second) }
        while fixture.worker.second == second { fixture.turn() }
        var turns = [fixture.heard()]
        turns += fixture.turns()
        #expect(turns.allSatisfy { $0.count <= pieces })
        #expect(turns.flatMap(\.self).sorted() == Array(0..<600))
    }

    @Test func `settles after 4 ms of handoffs, and takes the others in later turns`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 4 << 20
        var fixture = try Fixture(options)
        var sent = 0
        for _ in 0..<200 {
            let (socket, client) = try StreamPair().split()
            defer { _ = close(client) }
            var connection = Connection(
                socket: Descriptor(owning: socket), peer: try #require(Address("192.0.2.1")), isSecure: false,
                now: fixture.worker.second)
            connection.handoffAt = fixture.worker.now
            var bytes = ByteQueue()
            ConnectionState.encode(connection, sessionBytes: 0, into: &bytes)
            var number = connection.socket.number
            let result = bytes.withBytes { raw in
                clinux_send_message(fixture.inner.inboxSender, raw.baseAddress, raw.count, &number, 1)
            }
            guard result == 0 else { break }
            _ = fixture.worker.memory.connections.take(max: .max)
            sent += 1
        }
        try #require(sent > 5 * pieces)
        var taken: [Int] = []
        for _ in 0..<sent {
            let before = fixture.worker.page[.handoffReceived]
            fixture.turn()
            let count = Int(fixture.worker.page[.handoffReceived] - before)
            if count == 0 && fixture.worker.patience > 0 { break }
            taken.append(count)
        }
        #expect(taken.allSatisfy { $0 <= pieces })
        #expect(taken.reduce(0, +) == sent)
    }

    @Test func `settles after 2 ms of members who leave, and sends the others of their room in later turns`() throws {
        var options = WorkerFixture.Options()
        options.configuration.clientsPerRoomMax = 600
        let generations = try Generations(1, options)
        let old = generations.old[0]
        let clients = try old.openRoom("room", members: 600)
        try generations.prepare(1)
        try generations.route()
        let most = Limits.turnMigrationNanoseconds / millisecond
        old.setWork(nanoseconds: millisecond)
        var moved: [UInt64] = []
        while old.page[.roomsMovedOut] == 0 && moved.count < 1000 {
            let before = old.page[.membersMovedOut]
            generations.turn()
            moved.append(old.page[.membersMovedOut] - before)
        }
        #expect(moved.allSatisfy { $0 <= most })
        #expect(moved.reduce(0, +) == 600)
        // Nobody was left on the way, and nobody came twice.
        generations.turn(2)
        let new = generations.new[0]
        #expect(old.gauges == [0, 0, 0] && new.gauges == [1, 600, 600] && new.arrivingRooms == 0)
        for client in clients { give(ping, to: client) }
        generations.turn(4)
        var buffer = [UInt8](repeating: 0, count: 64)
        #expect(clients.allSatisfy { recv($0, &buffer, buffer.count, 0) == 3 })
    }

    @Test func `settles after 4 ms of members who arrive, and takes the others in later turns`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 4 << 20
        let generations = try Generations(1, options)
        let old = generations.old[0]
        let clients = try old.openRoom("room", members: 100)
        try generations.prepare(1)
        let new = generations.new[0]
        try generations.route()
        for _ in 0..<10 { old.turn() }
        let sent = old.page[.membersMovedOut]
        try #require(sent > 5 * UInt64(pieces))
        new.setWork(nanoseconds: millisecond)
        var taken: [UInt64] = []
        while new.page[.membersMovedIn] < sent && taken.count < 200 {
            let before = new.page[.membersMovedIn]
            new.turn()
            taken.append(new.page[.membersMovedIn] - before)
        }
        #expect(taken.allSatisfy { $0 <= UInt64(pieces) })
        #expect(taken.reduce(0, +) == sent)
        for _ in 0..<200 where new.page[.roomsMovedIn] == 0 { generations.turn() }
        #expect(old.gauges == [0, 0, 0] && new.gauges == [1, UInt64(clients.count), UInt64(clients.count)])
    }

    @Test func `flushes rooms for 4 ms, and the others in later turns, in their order`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(300)
        for room in 0..<300 {
            let slot = fixture.slots[2 * room]
            _ = [1, 2, 3].withUnsafeBytes { fixture.inner.worker.say(slot, $0.bytes, key: 0, isText: false) }
        }
        let flushes = Int(Limits.turnOutputNanoseconds / millisecond)
        var turns: [[Int]] = []
        fixture.worker.settle()
        turns.append(fixture.heard())
        turns += fixture.turns()
        #expect(turns.allSatisfy { $0.count <= flushes })
        #expect(turns.flatMap(\.self) == (0..<300).map { 2 * $0 + 1 })
    }

    @Test func `leaves strangers, handoffs and timers their time while members take all there is`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(100)
        try fixture.connect(20, sending: Array("GET /x HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
        let strangers = Set(200..<220)
        var answered = Set<Int>()
        var turns = 0
        while answered.count < strangers.count && turns < 60 {
            for index in 0..<200 { try fixture.send(ping, from: index) }
            fixture.turn()
            answered.formUnion(fixture.heard().filter { strangers.contains($0) })
            turns += 1
        }
        #expect(answered == strangers)
    }

    @Test func `beats the heart within a turn`() throws {
        var fixture = try Fixture()
        try fixture.openRooms(2)
        for index in fixture.clients.indices { try fixture.send(ping, from: index) }
        fixture.turn()
        let (began, beat) = (fixture.worker.now, fixture.worker.page.heartbeat)
        #expect(beat >= began + 3 * millisecond)
    }

    @Test func `sends a room that is full at once, and goes on with the input`() throws {
        var fixture = try Fixture(nanoseconds: 0)
        try fixture.openRooms(1)
        // One read of messages that fill the batch more than once: most of it is there already.
        let most = [UInt8](repeating: 7, count: Limits.batchBytesMax - 1000)
        let speaker = fixture.slots[0]
        _ = most.withUnsafeBytes { fixture.inner.worker.say(speaker, $0.bytes, key: 0, isText: false) }
        let frames = (0..<40).map { Frame(opcode: Frame.binary, payload: [UInt8](repeating: $0, count: 1000)) }
        try fixture.send(Array(frames.map { $0.masked([1, 2, 3, 4]) }.joined()), from: 0)
        fixture.turn()
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        for _ in 0..<10 {
            let count = recv(fixture.clients[1], &buffer, buffer.count, 0)
            if count > 0 { received += buffer[..<count] }
            fixture.turn()
        }
        let parsed = try #require(Frame.parse(received))
        #expect(parsed.map(\.payload) == [most] + frames.map(\.payload))
    }
}

@Suite struct `A member whose handshake waited for a step` {
    @Test func `is read, though no stranger comes any more`() throws {
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        options.configuration.joinsPerSecondPerAddress = 0
        var inner = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        // More than a turn has steps for, and all say all that they say at once.
        let clients = try inner.acceptSecurely(3 * Limits.tlsHandshakeStepsPerTurnMax).map(\.client)
        for _ in 0..<40 where !clients.allSatisfy({ $0.status == 101 }) {
            inner.worker.turn(waiting: 0)
            for (number, client) in clients.enumerated() {
                let wasConnected = client.isConnected
                client.exchange()
                if client.isConnected && !wasConnected {
                    client.join("room\(number)", as: "host", isHost: true)
                    client.exchange()
                }
            }
        }
        #expect(clients.allSatisfy { $0.status == 101 })
        for client in clients {
            client.say(Frame(opcode: Frame.ping, payload: [7]))
            client.exchange()
        }
        for _ in 0..<4 { inner.worker.turn(waiting: 0) }
        for client in clients { client.exchange() }
        #expect(clients.allSatisfy { $0.frames?.contains(Frame(opcode: Frame.pong, payload: [7])) == true })
    }
}

@Suite struct `Members that send much` {
    @Test func `are passed over until others have had as much, and those who send little never are`() {
        var debt = Debt()
        let share = RoundShare(ready: 100)
        let first = debt.mayBeServed(share)
        debt.charge(10 * UInt64(share.nanoseconds), share)
        let rounds = (0..<20).map { _ in debt.mayBeServed(share) }
        #expect(first && rounds == [Bool](repeating: false, count: 9) + [Bool](repeating: true, count: 11))
        debt.charge(UInt64(share.nanoseconds), share)
        let again = debt.mayBeServed(share)
        #expect(again)
    }

    @Test func `are passed over in a bounded number of rounds, whatever they cost`() {
        var debt = Debt()
        let share = RoundShare(ready: 100)
        debt.charge(.max / 2, share)
        debt.charge(.max / 2, share)
        let rounds = (0..<100).prefix { _ in !debt.mayBeServed(share) }.count
        #expect(rounds == Int(Limits.roundsPassedOverMax) - 1)
    }

    @Test func `are passed over in no more rounds for what they cost while few were ready`() {
        var debt = Debt()
        debt.charge(.max / 2, RoundShare(ready: 1))
        let share = RoundShare(ready: 512)
        let rounds = (0..<1000).prefix { _ in !debt.mayBeServed(share) }.count
        #expect(rounds == Int(Limits.roundsPassedOverMax) - 1)
    }

    @Test(arguments: [1, 9, 512, 15_000])
    func `are never passed over for what a voice frame costs`(ready: Int) {
        var debt = Debt()
        let share = RoundShare(ready: ready)
        // A read and nine sends.
        debt.charge(50_000, share)
        let isServed = debt.mayBeServed(share, least: Limits.shareBegunNanosecondsMin)
        #expect(isServed)
    }

    @Test(arguments: [0, 1, 8, 9, 64, 128, 129, 512, 1_000_000])
    func `have a share that shrinks with how many are ready, down to what a read costs`(ready: Int) {
        let (share, less) = (RoundShare(ready: ready), RoundShare(ready: ready + 1))
        #expect(share.bytes >= less.bytes && share.nanoseconds >= less.nanoseconds)
        #expect((Limits.shareBytesMin...Limits.receiveBytesMax).contains(share.bytes))
        #expect(share.nanoseconds >= Limits.shareNanosecondsMin)
        if ready <= 8 { #expect(share.bytes == Limits.receiveBytesMax) }
    }
}
