import Glibc
import Shared
import Testing

@testable import worker

private let millisecond: UInt64 = 1_000_000
/// As many sends as a turn has time for, at a millisecond each.
private let sends = Int(Limits.turnOutputNanoseconds / millisecond)

/// A room in a worker that looks at the clock after each send to one of many, and finds that a millisecond has gone by.
private struct LargeRoom: ~Copyable {
    struct Member {
        let slot: UInt32
        let client: Int32
        var wire: [UInt8] = []
        /// What others have said since it came, and have not been heard to be left out.
        var owed: [[UInt8]] = []
    }

    var fixture: WorkerFixture
    let room: UInt32
    private(set) var members: [Member] = []
    /// Clients' ends of those who were closed: what has begun to leave for them still does.
    private var closed: [Int32] = []
    private var said: UInt32 = 0

    init(members count: Int) throws {
        var options = WorkerFixture.Options()
        options.configuration.clientsPerRoomMax = 1000
        options.workNanoseconds = millisecond
        var fixture = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        fixture.worker.flushPieceMembers = 1
        let room = fixture.openRoom("room")
        var members: [Member] = []
        for _ in 0..<count { members.append(try Self.enter(room, &fixture)) }
        fixture.worker.tellHostKeys()
        self.fixture = fixture
        self.room = room
        self.members = members
    }

    private static func enter(_ room: UInt32, _ fixture: inout WorkerFixture) throws -> Member {
        let (slot, client) = try fixture.enter(room)
        fixture.worker.watchAsMember(slot)
        return Member(slot: slot, client: client)
    }

    mutating func enter() throws { members.append(try Self.enter(room, &fixture)) }

    /// A member says something, which the others hear.
    mutating func say(_ index: Int, bytes count: Int = 6) {
        said += 1
        let payload = [1, 2] + (0..<4).map { UInt8(said >> (8 * $0) & 0xFF) } + [UInt8](repeating: 7, count: count - 6)
        fixture.worker.sayUnsettled(members[index].slot, payload)
        for other in members.indices where other != index { members[other].owed.append(payload) }
    }

    /// A member goes, in one of the ways that there are.
    mutating func remove(_ index: Int, isClosed: Bool) {
        let member = members.remove(at: index)
        if isClosed {
            fixture.worker.close(member.slot, .byPeer, code: nil)
            closed.append(member.client)
        } else {
            fixture.worker.doom(member.slot, .peerGone)
        }
    }

    mutating func settle() { fixture.worker.settle() }
    mutating func turn() { fixture.worker.turn(waiting: 0) }

    /// - Returns: who has been sent something since the last call.
    mutating func hear(_ some: (Int) -> Bool = { _ in true }) -> [Int] {
        var buffer = [UInt8](repeating: 0, count: 1 << 18)
        var heard: [Int] = []
        for index in members.indices where some(index) {
            let count = recv(members[index].client, &buffer, buffer.count, 0)
            guard count > 0 else { continue }
            members[index].wire += buffer[..<count]
            heard.append(index)
        }
        return heard
    }

    /// Turns until nothing is left to do and to hear.
    mutating func finish() {
        var quiet = 0
        var buffer = [UInt8](repeating: 0, count: 1 << 18)
        for _ in 0..<20_000 where quiet < 3 {
            turn()
            for client in closed { _ = recv(client, &buffer, buffer.count, 0) }
            quiet = hear().isEmpty && fixture.worker.patience > 0 ? quiet + 1 : 0
        }
    }

    /// That everybody has heard everything once and in order, and beside it nothing but notices.
    func check(_ context: String = "") throws {
        for index in members.indices {
            let frames = try #require(Frame.parse(members[index].wire), "\(context), member \(index)")
            let heard = frames.map(\.payload).filter { $0.first == 1 }
            #expect(heard == members[index].owed, "\(context), member \(index)")
        }
    }

    var isBeingFlushed: Bool { fixture.worker.rooms[room].flush != nil }
}

@Suite struct `A room of many` {
    @Test func `is sent to for 4 ms a turn, and each of 600 members hears all once and in order`() throws {
        var room = try LargeRoom(members: 600)
        for _ in 0..<3 { room.say(0) }
        var turns: [[Int]] = []
        room.settle()
        turns.append(room.hear())
        while room.isBeingFlushed && turns.count < 1000 {
            room.turn()
            turns.append(room.hear())
        }
        #expect(turns.allSatisfy { $0.count <= sends })
        #expect(turns.flatMap(\.self) == Array(1..<600))
        try room.check()
    }

    @Test func `hears what is said meanwhile behind what was said before`() throws {
        var room = try LargeRoom(members: 40)
        for number in 0..<60 {
            room.say(number % 40)
            room.turn()
            let heard = room.hear()
            #expect(heard.count <= sends)
        }
        room.finish()
        try room.check()
    }

    @Test func `leaves rooms of few their time, and is left its least`() throws {
        var room = try LargeRoom(members: 100)
        var others: [(slot: UInt32, client: Int32)] = []
        for number in 0..<20 {
            let other = room.fixture.openRoom("\(number)")
            // One member says something and the other hears it: no room of many, but a send each.
            others += [try room.fixture.enter(other), try room.fixture.enter(other)]
        }
        room.fixture.worker.flushPieceMembers = 2
        room.say(0)
        for index in stride(from: 0, to: 40, by: 2) { room.fixture.worker.sayUnsettled(others[index].slot, [1]) }
        var buffer = [UInt8](repeating: 0, count: 64)
        var (heard, turns) = (0, 0)
        while heard < 20 && turns < 20 {
            room.settle()
            heard += others.count { recv($0.client, &buffer, buffer.count, 0) > 0 }
            turns += 1
            // A piece of a millisecond each turn.
            let many = room.hear()
            #expect(many.count <= 2)
        }
        // All the others' sends take five turns; the room of many does not stand in front of them.
        #expect(turns == 5)
        room.finish()
        try room.check()
    }

    @Test func `loses and repeats nothing, whoever comes and goes meanwhile`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for round in 0..<20 as Range<UInt64> {
            var random = SplitMix64(seed: seed &+ round)
            var room = try LargeRoom(members: Int.random(in: 2...30, using: &random))
            for _ in 0..<100 {
                let count = room.members.count
                switch Int.random(in: 0..<10, using: &random) {
                case 0: try room.enter()
                case 1 where count > 2:
                    let isClosed = Bool.random(using: &random)
                    room.remove(Int.random(in: 0..<count, using: &random), isClosed: isClosed)
                case 2, 3, 4, 5:
                    let bytes = [6, 100, 5000, 70_000].randomElement(using: &random) ?? 6
                    room.say(Int.random(in: 0..<count, using: &random), bytes: bytes)
                default: room.turn()
                }
                // Some read late, so that much waits for them.
                let late = Int.random(in: 0..<30, using: &random)
                if Bool.random(using: &random) { _ = room.hear { $0 % 7 != late % 7 } }
            }
            room.finish()
            try room.check("seed \(seed), round \(round)")
            let blocks = room.fixture.worker.held.blocks.count
            #expect(blocks == 0, "seed \(seed), round \(round)")
        }
    }

    @Test func `is not read while a batch is being sent and the next one is full, and loses nothing`() throws {
        var room = try LargeRoom(members: 30)
        // Each sends little enough to be read whole, or those who are read would have to pay first.
        let frames = (0..<50 as Range<UInt8>).map {
            Frame(opcode: Frame.binary, payload: [$0] + [UInt8](repeating: 9, count: 999))
        }
        let bytes = frames.flatMap { $0.masked([1, 2, 3, 4]) }
        let senders = 20
        for index in 0..<senders { give(bytes, to: room.members[index].client) }
        let whole = senders * frames.count * frames[0].unmasked.count
        var (most, wasFull) = (0, false)
        for _ in 0..<20_000 where room.members.dropFirst(senders).contains(where: { $0.wire.count < whole }) {
            room.turn()
            _ = room.hear()
            let waiting = room.fixture.worker.rooms[room.room].batch.map { room.fixture.worker.batches[$0].byteCount }
            most = max(most, waiting ?? 0)
            wasFull = wasFull || room.fixture.worker.rooms[room.room].isFull
        }
        // Beyond its bound a batch has what one read brought.
        #expect(wasFull && most < Limits.batchBytesMax + Limits.receiveBytesMax + 2000)
        for (index, member) in room.members.enumerated() {
            let heard = try #require(Frame.parse(member.wire)).map { $0.payload[0] }
            let others = index < senders ? senders - 1 : senders
            for number in 0..<50 as Range<UInt8> { #expect(heard.count { $0 == number } == others) }
        }
    }

    @Test func `takes turns over turns with others of its kind`() throws {
        var room = try LargeRoom(members: 100)
        var others: [(speaker: UInt32, client: Int32)] = []
        for number in 0..<(2 * sends) {
            let other = room.fixture.openRoom("\(number)")
            let (speaker, _) = try room.fixture.enter(other)
            for _ in 0..<3 { others.append((speaker, try room.fixture.enter(other).client)) }
        }
        room.say(0)
        for index in stride(from: 0, to: others.count, by: 3) {
            room.fixture.worker.sayUnsettled(others[index].speaker, [1])
        }
        room.settle()
        // Six turns of four pieces each are two pieces and more for each of nine rooms: one for who has said it, who is
        // sent nothing, and one for somebody else.
        for _ in 0..<5 { room.turn() }
        var buffer = [UInt8](repeating: 0, count: 64)
        let heard = stride(from: 0, to: others.count, by: 3).map { first in
            (first..<(first + 3)).contains { recv(others[$0].client, &buffer, buffer.count, 0) > 0 }
        }
        #expect(!heard.contains(false), "\(heard)")
        room.finish()
        try room.check()
    }

    @Test func `lets what was said wait for its members, unsent, before it moves`() throws {
        var room = try LargeRoom(members: 30)
        room.say(3)
        room.turn()
        let isBeingFlushed = room.isBeingFlushed
        #expect(isBeingFlushed)
        let early = room.hear()
        room.say(4)
        room.fixture.worker.postpone(room.room)
        let isEmpty = room.isBeingFlushed == false && room.fixture.worker.rooms[room.room].batch == nil
        #expect(isEmpty)
        #expect(early.count <= sends && room.hear().isEmpty)
        room.finish()
        try room.check()
    }

    @Test func `is read no more while it is full, and nobody in it counts as silent or slow meanwhile`() throws {
        var room = try LargeRoom(members: 5)
        let (slot, client) = (room.members[0].slot, room.members[0].client)
        let whole = Frame(isFinal: true, opcode: Frame.binary, payload: [UInt8](repeating: 1, count: 1000))
        room.fixture.receive(slot, Array(whole.masked([1, 2, 3, 4])[..<500]))
        for isFull in [true, false] {
            room.fixture.worker.rooms[room.room].isFull = isFull
            room.fixture.worker.connections[slot].isAside = !isFull
            room.fixture.pass(seconds: UInt32(Limits.silenceSeconds + 10))
            let isOpen = room.fixture.worker.connections[slot].phase == .open
            #expect(isOpen, "full: \(isFull)")
        }
        room.fixture.worker.connections[slot].isAside = false
        room.fixture.pass(seconds: UInt32(Limits.silenceSeconds + 10))
        let isOpen = room.fixture.worker.connections.isOccupied(slot)
        #expect(!isOpen || StreamPair.receive(from: client).suffix(4) == [0x88, 2, 0x03, 0xF0])
    }

    @Test func `closes with all that was said sent, however much of it is left`() throws {
        var room = try LargeRoom(members: 30)
        room.say(3)
        room.turn()
        room.say(4)
        let isBeingFlushed = room.isBeingFlushed
        #expect(isBeingFlushed)
        room.fixture.worker.disband(room.room, .idleRoom)
        room.finish()
        try room.check()
        let left = (room.fixture.worker.rooms.count, room.fixture.worker.activeBatches.count)
        #expect(left == (0, 0))
    }
}

@Suite struct `A join into a room of many` {
    /// Clients in one room, of whom the first is its host.
    private func join(_ count: Int, _ generations: Generations) throws -> [Client] {
        try (0..<count).map { number in
            let client = Client()
            try generations.old[0].accept(client)
            client.join("room", as: "peer-\(number)", isHost: number == 0)
            for _ in 0..<100 where client.status == nil { step(generations, [client]) }
            try #require(client.status == 101)
            return client
        }
    }

    private func step(_ generations: Generations, _ clients: [Client]) {
        for client in clients { client.exchange() }
        generations.turn()
        for client in clients { client.exchange() }
    }

    private func make() throws -> Generations {
        var options = WorkerFixture.Options()
        options.configuration.clientsPerRoomMax = 100
        options.flushPieceMembers = 1
        options.workNanoseconds = millisecond
        return try Generations(1, options)
    }

    private func binary(_ payload: [UInt8]) -> Frame { Frame(opcode: Frame.binary, payload: payload) }

    @Test func `waits for what was said before, of which it hears nothing, and gets in while members go on talking`()
        throws
    {
        let generations = try make()
        let members = try join(40, generations)
        let newcomers = [Client(), Client()]
        var said: [UInt8] = []
        for number in 0..<80 as Range<UInt8> {
            let speaker = members[Int(number) % 40]
            speaker.say(binary([1, number]))
            said.append(number)
            if number == 3 {
                for (index, newcomer) in newcomers.enumerated() {
                    try generations.old[0].accept(newcomer)
                    newcomer.join("room", as: "late-\(index)", isHost: false)
                }
            }
            step(generations, members + newcomers)
        }
        for _ in 0..<200 { step(generations, members + newcomers) }
        #expect(newcomers.allSatisfy { $0.status == 101 })
        // All hear the same in the same order, but for what they say themselves.
        let heard = try #require(members[0].frames).map { $0.payload[1] }
        #expect(heard.sorted() == said.filter { $0 % 40 != 0 })
        for newcomer in newcomers {
            let late = try #require(newcomer.frames).map { $0.payload[1] }.filter { $0 % 40 != 0 }
            #expect(!late.isEmpty && late.count < heard.count)
            #expect(late == Array(heard.suffix(late.count)))
        }
        for (index, member) in members.enumerated() {
            let both = { (number: UInt8) in number % 40 != 0 && Int(number) % 40 != index }
            #expect(try #require(member.frames).map { $0.payload[1] }.filter(both) == heard.filter(both))
        }
    }

    @Test func `moves with all that was said sent, and its members are not read meanwhile`() throws {
        let generations = try make()
        let members = try join(40, generations)
        try generations.prepare(1)
        for number in 0..<3 as Range<UInt8> {
            members[0].say(binary([1, number]))
            step(generations, members)
        }
        try generations.route()
        try generations.lastCall()
        for number in 3..<60 as Range<UInt8> {
            members[0].say(binary([1, number]))
            step(generations, members)
        }
        for _ in 0..<500 where !generations.haveMoved { step(generations, members) }
        #expect(generations.haveMoved)
        for _ in 0..<300 { step(generations, members) }
        #expect(generations.new[0].gauges == [1, 40, 40])
        for member in members.dropFirst() {
            #expect(try #require(member.frames).map(\.payload) == (0..<60).map { [1, UInt8($0)] })
        }
    }
}
