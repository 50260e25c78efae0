import Glibc
import Shared
import Testing

@testable import worker

/// Rooms full of clients that say numbered messages of all sizes, cut anywhere, while their workers change.
private final class Conversation {
    struct Member {
        var room: Int
        var client: Client
        var said: [[UInt8]] = []
    }

    var random: SplitMix64
    let generations: Generations
    private(set) var members: [Member] = []
    private let isSecure: Bool

    init(seed: UInt64, workers: Int, isSecure: Bool) throws {
        random = SplitMix64(seed: seed)
        // Busy ones hold data back, and must not when they leave.
        let isBusy = Bool.random(using: &random)
        self.isSecure = isSecure
        var options = WorkerFixture.Options()
        options.isBusy = isBusy
        // A room is sent to in one turn or in several, and moves in several.
        if Bool.random(using: &random) {
            options.flushPieceMembers = 1
            options.workNanoseconds = 1_000_000
        }
        if isSecure { options.tlsContext = try makeContext() }
        generations = try Generations(workers, options)
    }

    func fill(rooms: Int, members count: Int) throws {
        for room in 0..<rooms {
            for number in 0..<count {
                let client = Client(isSecure: isSecure)
                let mover = try #require(generations.old.randomElement(using: &random))
                try mover.accept(client, isSecure: isSecure)
                for _ in 0..<50 where isSecure && !client.isConnected { step(client) }
                client.join("room-\(room)", as: "\(number)", isHost: number == 0)
                for _ in 0..<50 where client.status == nil { step(client) }
                try #require(client.status == 101)
                members.append(Member(room: room, client: client))
            }
        }
    }

    private func step(_ client: Client) {
        client.exchange()
        generations.turn()
        client.exchange()
    }

    /// Somebody says something, some of what was said is sent, and everybody takes what has come.
    func tick() {
        for _ in 0..<3 {
            let index = Int.random(in: 0..<members.count, using: &random)
            let number = UInt32(members[index].said.count)
            let length = [0, 1, 100, 130, 3000, 70_000].randomElement(using: &random) ?? 0
            let payload =
                [0x7B, UInt8(index)] + (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
                + [UInt8](repeating: UInt8(truncatingIfNeeded: number &* 7), count: length)
            members[index].said.append(payload)
            let client = members[index].client
            if length > 1 && Bool.random(using: &random) {
                let middle = Int.random(in: 0..<payload.count, using: &random)
                client.say(Frame(isFinal: false, opcode: Frame.binary, payload: Array(payload[..<middle])))
                client.say(Frame(opcode: Frame.ping, payload: [1]))
                client.say(Frame(opcode: Frame.continuation, payload: Array(payload[middle...])))
            } else {
                client.say(Frame(opcode: Frame.binary, payload: payload))
            }
            if isSecure && Int.random(in: 0..<20, using: &random) == 0 {
                client.updateKey(requested: Bool.random(using: &random))
            }
        }
        for member in members where Int.random(in: 0..<3, using: &random) > 0 {
            member.client.exchange(Int.random(in: 0...20_000, using: &random))
        }
        generations.turn()
    }

    func finish() {
        var turns = 0
        while turns < 200 || generations.every.contains(where: { $0.worker.heldBatches > 0 || $0.hasOutputLeft }) {
            for member in members { member.client.exchange() }
            generations.turn()
            turns += 1
        }
    }

    /// That everybody has heard what the others of the room have said, in order, and nothing else but pongs.
    func check(_ context: String) throws {
        for (index, member) in members.enumerated() {
            let frames = try #require(member.client.frames, "\(context), member \(index): not whole frames")
            var heard: [Int: [[UInt8]]] = [:]
            for frame in frames where frame.opcode != Frame.pong && frame.opcode != Frame.ping {
                guard frame.opcode == Frame.binary, frame.payload.count >= 6, frame.payload[0] == 0x7B else {
                    Issue.record("\(context), member \(index): \(frame.opcode)")
                    return
                }
                heard[Int(frame.payload[1]), default: []].append(frame.payload)
            }
            for (other, speaker) in members.enumerated() where other != index {
                let expected = speaker.room == member.room ? speaker.said : []
                #expect((heard[other] ?? []) == expected, "\(context): \(index) of \(other)")
            }
            #expect(heard[index] == nil, "\(context)")
        }
    }
}

@Suite struct `Rooms on their way to another generation` {
    private func joined(
        _ generations: Generations, _ room: String, _ count: Int = 2, at mover: Int = 0
    ) throws -> [Client] {
        try (0..<count).map { number in
            let client = Client()
            try generations.old[mover].accept(client)
            client.join(room, as: "peer-\(number)", isHost: number == 0)
            for _ in 0..<10 where client.status == nil { step(generations, [client]) }
            try #require(client.status == 101)
            return client
        }
    }

    private func step(_ generations: Generations, _ clients: [Client], _ count: Int = 1) {
        for _ in 0..<count {
            for client in clients { client.exchange() }
            generations.turn()
            for client in clients { client.exchange() }
        }
    }

    private func binary(_ payload: [UInt8]) -> Frame { Frame(opcode: Frame.binary, payload: payload) }

    /// Rooms, clients and connections of some workers together.
    private func gauges(_ movers: [Mover]) -> [UInt64] {
        movers.reduce([0, 0, 0]) { sum, mover in zip(sum, mover.gauges).map { $0 + $1 } }
    }

    // MARK: - While it is used

    @Test(arguments: [[2, 3, 1, 2, 2], [1, 1], [3, 2, 5, 1]])
    func `lose, repeat and reorder nothing`(workers: [Int]) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let conversation = try Conversation(seed: seed, workers: workers[0], isSecure: false)
        let generations = conversation.generations
        try conversation.fill(rooms: 6, members: 4)
        for count in workers.dropFirst() {
            for _ in 0..<10 { conversation.tick() }
            try generations.prepare(count)
            try generations.route()
            for _ in 0..<2 { conversation.tick() }
            try generations.lastCall()
            for _ in 0..<500 where !generations.haveMoved || generations.haveUnread {
                conversation.tick()
            }
            #expect(generations.haveMoved, "seed \(seed)")
            #expect(gauges(generations.old) == [0, 0, 0] && gauges(generations.new) == [6, 24, 24], "seed \(seed)")
            #expect(generations.memory.rooms.count == 6 && generations.memory.connections.count == 24)
            #expect(generations.new.allSatisfy { $0.arrivingRooms == 0 })
            generations.finish()
        }
        conversation.finish()
        try conversation.check("seed \(seed)")
        for member in conversation.members { member.client.hangUp() }
        for _ in 0..<200 where gauges(generations.old) != [0, 0, 0] { generations.turn() }
        #expect(gauges(generations.old) == [0, 0, 0])
        #expect(generations.memory.rooms.count == 0 && generations.memory.connections.count == 0)
    }

    @Test func `lose, repeat and reorder nothing over TLS, on hundreds of moves`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let conversation = try Conversation(seed: seed, workers: 2, isSecure: true)
        let generations = conversation.generations
        try conversation.fill(rooms: 2, members: 4)
        for generation in 0..<30 {
            for _ in 0..<2 { conversation.tick() }
            try generations.prepare(1 + generation % 2)
            try generations.route()
            conversation.tick()
            try generations.lastCall()
            for _ in 0..<500 where !generations.haveMoved || generations.haveUnread {
                conversation.tick()
            }
            #expect(
                gauges(generations.new) == [2, 8, 8],
                "seed \(seed), generation \(generation): \(generations.every.map(\.counters))")
            generations.finish()
        }
        conversation.finish()
        try conversation.check("seed \(seed)")
    }

    // MARK: - Joins

    @Test func `let a join wait until they are there`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "room")
        try generations.prepare(1)
        let guest = Client()
        try generations.new[0].accept(guest)
        guest.join("room", as: "late", isHost: false)
        step(generations, [guest], 3)
        #expect(guest.status == nil && generations.new[0].page[.joinAwaitedRoom] == 1)
        try generations.route()
        step(generations, members + [guest], 3)
        #expect(guest.status == 101)
        members[0].say(binary([1]))
        step(generations, members + [guest], 2)
        #expect(guest.frames == [binary([1])] && members[1].frames == [binary([1])])
        #expect(gauges(generations.new) == [1, 3, 3])
    }

    @Test func `that never were are waited for until every worker that could have them is done`() throws {
        let generations = try Generations(2)
        try generations.prepare(1)
        let clients = (0..<2).map { _ in Client() }
        for (client, isHost) in zip(clients, [false, true]) {
            try generations.new[0].accept(client)
            client.join(isHost ? "other" : "room", as: "a", isHost: isHost)
        }
        step(generations, clients, 3)
        #expect(clients.allSatisfy { $0.status == nil })
        try generations.route()
        step(generations, clients, 3)
        #expect(clients.allSatisfy { $0.status == nil })
        try generations.lastCall()
        step(generations, clients, 3)
        #expect(clients.map(\.status) == [404, 101])
    }

    @Test func `that don't come in time are answered 503`() throws {
        let generations = try Generations(1)
        try generations.prepare(1)
        let client = Client()
        try generations.new[0].accept(client)
        client.join("room", as: "a", isHost: true)
        step(generations, [client], 2)
        generations.new[0].pass(seconds: UInt32(Limits.roomArrivalSeconds) - 1)
        client.exchange()
        #expect(client.status == nil)
        generations.new[0].pass(seconds: 2)
        client.exchange()
        #expect(client.status == 503)
    }

    @Test func `are joined at a worker that leaves by way of its successor`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "room")
        try generations.prepare(1)
        let early = Client()
        let partial = Client()
        for client in [early, partial] { try generations.old[0].accept(client) }
        early.join("room", as: "early", isHost: false)
        partial.say(Array("GET /health HT".utf8))
        partial.exchange()
        try generations.route()
        step(generations, members + [early, partial], 4)
        #expect(early.status == 101)
        // A request that has not come whole is the successor's as well.
        #expect(gauges(generations.old) == [0, 0, 0] && gauges(generations.new) == [1, 3, 4])
        partial.say(Array("TP/1.1\r\nHost: a\r\n\r\n".utf8))
        step(generations, [partial], 2)
        #expect(partial.status == 503 || partial.status == 200)
        #expect(generations.memory.connections.count == 4)
    }

    // MARK: - In pieces

    @Test func `go on where an inbox was full, and nobody hears a leave`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 2048
        let generations = try Generations(1, options)
        let members = try joined(generations, "room", 12)
        try generations.prepare(1)
        try generations.route()
        // The successor takes nothing meanwhile.
        for _ in 0..<5 { generations.old[0].turn() }
        #expect(generations.old[0].isInTransit)
        let moved = generations.old[0].page[.membersMovedOut]
        #expect(moved > 0 && moved < 12)
        #expect(generations.old[0].gauges == [1, 12 - moved, 12 - moved])
        // Who is frozen is not read.
        for member in members { member.say(binary([1])) }
        for member in members { member.exchange() }
        for _ in 0..<3 { generations.old[0].turn() }
        generations.old[0].pass(seconds: 200)
        #expect(members.allSatisfy { $0.frames == [] })
        try generations.lastCall()
        step(generations, members, 40)
        #expect(generations.old[0].hasMoved)
        #expect(members.allSatisfy { $0.frames == [Frame](repeating: binary([1]), count: 11) })
        #expect(generations.new[0].gauges == [1, 12, 12] && generations.memory.rooms.count == 1)
    }

    @Test func `that a dead worker had sent in part go on with those who have come`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 2048
        let generations = try Generations(1, options)
        let members = try joined(generations, "room", 12)
        try generations.prepare(1)
        try generations.route()
        for _ in 0..<5 { generations.old[0].turn() }
        let moved = Int(generations.old[0].page[.membersMovedOut])
        let guest = Client()
        try generations.new[0].accept(guest)
        guest.join("room", as: "late", isHost: false)
        try generations.kill()
        // The word of its death is read in front of what it had sent.
        try generations.new[0].tell(.sourceGone(index: 0))
        step(generations, members + [guest], 5)
        #expect(guest.status == 101)
        #expect(generations.new[0].arrivingRooms == 0)
        #expect(generations.new[0].page[.clients] == UInt64(moved + 1))
        guest.say(binary([5]))
        step(generations, members + [guest], 3)
        #expect(members[..<moved].allSatisfy { $0.frames == [binary([5])] })
    }

    @Test func `that a worker which starts again finds in part in its inbox go on`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 2048
        let generations = try Generations(1, options)
        let members = try joined(generations, "room", 12)
        try generations.prepare(1)
        // As if its predecessor had heard that all had come.
        generations.new[0].worker.sourceOver(0)
        try generations.route()
        for _ in 0..<5 { generations.old[0].turn() }
        let moved = Int(generations.old[0].page[.membersMovedOut])
        try generations.kill()
        generations.turn(3)
        #expect(generations.new[0].arrivingRooms == 0)
        members[0].say(binary([5]))
        step(generations, members, 3)
        #expect(members[1..<moved].allSatisfy { $0.frames == [binary([5])] })
    }

    @Test(arguments: [CloseReason.shutdown, .restart].indices)
    func `are let go by both sides at a drain`(index: Int) throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 2048
        let generations = try Generations(1, options)
        let members = try joined(generations, "room", 12)
        try generations.prepare(1)
        try generations.route()
        for _ in 0..<5 { generations.old[0].turn() }
        let waiting = Client()
        try generations.new[0].accept(waiting)
        waiting.join("room", as: "late", isHost: false)
        waiting.exchange()
        generations.new[0].worker.turn(waiting: 0)
        let deadline = Clock.monotonicNanoseconds() + 10_000_000_000
        for mover in generations.every { try mover.tell(.drain(deadline: deadline, isRestart: index == 1)) }
        step(generations, members + [waiting], 10)
        let code: [UInt8] = index == 1 ? [0x03, 0xF4] : [0x03, 0xE9]
        #expect(members.allSatisfy { $0.frames?.last == Frame(opcode: Frame.close, payload: code) })
        #expect(members.allSatisfy { $0.frames?.count == 1 }, "nobody hears a leave")
        #expect(waiting.status == 503)
        for client in members + [waiting] { client.hangUp() }
        generations.turn(5)
        #expect(gauges(generations.every) == [0, 0, 0] && generations.memory.connections.count == 0)
        #expect(generations.memory.rooms.count == 0)
    }

    @Test func `do not move on before all of them has come`() throws {
        var options = WorkerFixture.Options()
        options.inboxBytes = 2048
        let generations = try Generations(1, options)
        let members = try joined(generations, "room", 12)
        try generations.prepare(1)
        try generations.route()
        for _ in 0..<5 { generations.old[0].turn() }
        let first = generations.old[0]
        generations.finish()
        generations.turn(3)
        #expect(generations.old[0].arrivingRooms == 1)
        // The next change begins while a part is still to come.
        try generations.prepare(1)
        try generations.route()
        try generations.lastCall()
        generations.turn(5)
        #expect(generations.new[0].gauges == [0, 0, 0] && !generations.old[0].hasMoved)
        for _ in 0..<60 {
            first.turn()
            generations.turn()
        }
        #expect(generations.old[0].hasMoved && generations.new[0].gauges == [1, 12, 12])
        members[0].say(binary([5]))
        step(generations, members, 3)
        #expect(members[1...].allSatisfy { $0.frames == [binary([5])] })
    }

    @Test func `that open late, in a slot that was used before, move as well`() throws {
        let generations = try Generations(1)
        let one = try joined(generations, "one")
        try generations.prepare(1)
        try generations.route()
        generations.turn(3)
        // Another room comes by way of the inbox.
        let room = Room(id: [9], hostKey: [UInt8](repeating: 1, count: 32), share: 0, source: 0, now: 0)
        let (socket, far) = try StreamPair().split()
        defer { _ = close(far) }
        let peer = try #require(Address("192.0.2.1"))
        var message = ByteQueue()
        var connection = Connection(socket: Descriptor(owning: socket), peer: peer, isSecure: false, now: 0)
        connection.phase = .open
        _ = try MemberState.encode(connection, SharedBlocks(), room: room, sessionBytes: 0, into: &message)
        #expect(generations.memory.rooms.take(max: 10) && generations.memory.connections.take(max: 10))
        #expect(sendMessage(generations.old[0].inboxSender, message.array, [socket]))
        #expect(
            sendMessage(
                generations.old[0].inboxSender,
                MoveMessage.complete(room: [9], charge: .none, activeAt: .max, quietSince: 5).bytes))
        generations.turn(5)
        try generations.lastCall()
        step(generations, one, 5)
        #expect(generations.old[0].hasMoved && generations.new[0].gauges == [2, 3, 3])
    }

    // MARK: - What else goes

    @Test func `bring the keys of hosts whose worker died, with their time`() throws {
        var options = WorkerFixture.Options()
        let expiry = Clock.monotonicNanoseconds() + 50_000_000_000
        let key = [UInt8](repeating: 7, count: 32)
        options.survivingKeys = [RoomID(bytes: [1]): SurvivingKey(publicKey: key, expiry: expiry)]
        let generations = try Generations(1, options)
        try generations.prepare(1)
        try generations.route()
        generations.turn(2)
        // One that comes to the leaver late.
        let late = MoveMessage.hostKey(room: [2], publicKey: key, expiry: expiry + 1)
        #expect(sendMessage(generations.old[0].inboxSender, late.bytes))
        try generations.lastCall()
        generations.turn(5)
        #expect(generations.old[0].hasMoved)
        let keys = generations.new[0].worker.survivingKeys
        #expect(keys[RoomID(bytes: [1])]?.expiry == expiry && keys[RoomID(bytes: [2])]?.expiry == expiry + 1)
        #expect(keys.values.allSatisfy { $0.publicKey == key } && keys.count == 2)
        #expect(generations.old[0].worker.survivingKeys.isEmpty)
        #expect(
            generations.new[0].reports.contains(.hostKeys([.init(room: [1], publicKey: key, expiry: expiry)])))
        var over: [ControlMessage.HostKey] = []
        for report in generations.old[0].reports {
            if case .hostKeys(let keys) = report { over += keys }
        }
        #expect(over.contains(.over(room: [1])) && over.contains(.over(room: [2])))
    }

    @Test func `are told of in the order of a move`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "room", 3)
        #expect(try generations.move(to: 2))
        let reports = generations.old[0].reports
        let names = reports.map(\.name.description)
        #expect(names == ["routed", "hostKeys", "routed", "hostKeys", "moved"])
        #expect(reports.dropLast().last == .hostKeys([.over(room: Array("room".utf8))]))
        guard case .moved(let moved) = reports.last else { return }
        #expect(moved.rooms == 1)
        #expect(moved.clients == 3)
        #expect(moved.bytes == 0)
        #expect(members.allSatisfy { !$0.isEnded })
    }

    @Test func `have their host keys told by their new workers as soon as they come there`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "room")
        try generations.prepare(1)
        try generations.route()
        for _ in 0..<1000 where generations.new[0].worker.rooms.count == 0 { generations.turn() }
        let told = generations.new[0].reports.filter { $0.name.description == "hostKeys" }
        #expect(told == [.hostKeys([.init(room: Array("room".utf8), publicKey: TokenSigner().publicKey, expiry: 0)])])
        #expect(members.allSatisfy { !$0.isEnded })
    }

    @Test func `take no member with another host key, and hear nothing of it`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "room")
        let room = Room(id: Array("room".utf8), hostKey: [UInt8](repeating: 1, count: 32), share: 0, source: 0, now: 0)
        let (socket, far) = try StreamPair().split()
        defer { _ = close(far) }
        let peer = try #require(Address("192.0.2.1"))
        var message = ByteQueue()
        var connection = Connection(socket: Descriptor(owning: socket), peer: peer, isSecure: false, now: 0)
        connection.phase = .open
        _ = try MemberState.encode(connection, SharedBlocks(), room: room, sessionBytes: 0, into: &message)
        #expect(generations.memory.connections.take(max: 10))
        #expect(sendMessage(generations.old[0].inboxSender, message.array, [socket]))
        step(generations, members, 3)
        #expect(members.allSatisfy { $0.frames == [] })
        var bytes = [UInt8](repeating: 0, count: 10)
        #expect(read(far, &bytes, 10) == 4 && Array(bytes[..<4]) == [0x88, 2, 0x03, 0xF4])
        #expect(generations.old[0].gauges == [1, 2, 3])
    }

    @Test func `give their place in the quota back when nobody of them arrives`() throws {
        let generations = try Generations(1)
        try generations.prepare(1)
        #expect(generations.memory.rooms.take(max: 10))
        let complete = MoveMessage.complete(room: [9], charge: .none, activeAt: 0, quietSince: 5)
        #expect(sendMessage(generations.new[0].inboxSender, complete.bytes))
        generations.turn(2)
        #expect(generations.memory.rooms.count == 0)
    }

    @Test func `stay counted at their addresses where they move, rooms and members, and are forgotten with the last`()
        throws
    {
        var options = WorkerFixture.Options()
        options.configuration.roomsPerAddressMax = 3
        options.configuration.trustedProxies = []
        let generations = try Generations(2, options)
        var members = try joined(generations, "one") + joined(generations, "two", 3, at: 1)
        // Rooms by the one key of an IPv4 address, and their members.
        #expect(generations.table.count == 2 + 5)
        for workers in [3, 1, 2] {
            #expect(try generations.move(to: workers))
            step(generations, members, 3)
            #expect(generations.table.count == 2 + 5)
            generations.finish()
        }
        members += try joined(generations, "three", 1)
        let fourth = Client()
        try generations.old[0].accept(fourth)
        fourth.join("four", as: "a", isHost: true)
        step(generations, [fourth], 5)
        #expect(fourth.status == 429)
        fourth.hangUp()
        generations.turn(3)
        #expect(generations.table.count == 3 + 6)
        // A guest's join, and a host's to a room that is there, are not rooms.
        for isHost in [false, true] {
            let another = Client()
            try generations.old[0].accept(another)
            another.join("one", as: "b", isHost: isHost)
            step(generations, [another], 5)
            #expect(another.status == 101)
            members.append(another)
        }
        for member in members { member.hangUp() }
        generations.turn(20)
        #expect(generations.table.count == 0)
    }

    @Test func `are given back when they are lost on the way, room and all`() throws {
        let generations = try Generations(1)
        let members = try joined(generations, "one", 3)
        #expect(generations.table.count == 1 + 3)
        try generations.prepare(1)
        try generations.route()
        generations.old[0].turn()
        // Some have left, and nobody has taken them when their worker dies: what is in the inbox is counted.
        let gone = generations.old[0].page[.membersMovedOut]
        try generations.kill()
        generations.turn(3)
        #expect(generations.table.count == Int(gone) + (gone > 0 ? 1 : 0))
        for member in members { member.hangUp() }
        generations.turn(20)
        #expect(generations.table.count == 0)
    }

    @Test func `give their count back when nobody of them arrives`() throws {
        let generations = try Generations(1)
        try generations.prepare(1)
        #expect(generations.memory.rooms.take(max: 10))
        let charge = try generations.charge("2001:db8::1")
        #expect(generations.table.count == 2)
        let complete = MoveMessage.complete(room: [9], charge: charge, activeAt: 0, quietSince: 5)
        #expect(sendMessage(generations.new[0].inboxSender, complete.bytes))
        generations.turn(2)
        #expect(generations.table.count == 0)
    }

    @Test func `that a guest has opened with a key which outlived its worker count when their host comes`() throws {
        var options = WorkerFixture.Options()
        options.configuration.trustedProxies = []
        let key = TokenSigner().publicKey
        let expiry = Clock.monotonicNanoseconds() + 50_000_000_000
        options.survivingKeys = [RoomID(bytes: Array("room".utf8)): SurvivingKey(publicKey: key, expiry: expiry)]
        let generations = try Generations(1, options)
        let (guest, host) = (Client(), Client())
        for (client, isHost, rooms) in [(guest, false, 0), (host, true, 1)] {
            try generations.old[0].accept(client)
            client.join("room", as: "a", isHost: isHost)
            step(generations, [client], 5)
            #expect(client.status == 101)
            #expect(generations.table.count == (isHost ? 2 : 1) + rooms)
        }
        // Whoever comes and goes: the key holds.
        guest.hangUp()
        host.hangUp()
        generations.turn(5)
        #expect(generations.table.count == 0 && generations.old[0].gauges == [0, 0, 0])
        let another = Client()
        try generations.old[0].accept(another)
        another.join("room", as: "b", isHost: false)
        step(generations, [another], 5)
        #expect(another.status == 101)
    }

    @Test func `go over TLS before a byte was said`() throws {
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        let generations = try Generations(1, options)
        let client = Client(isSecure: true)
        try generations.old[0].accept(client, isSecure: true)
        #expect(try generations.move(to: 1))
        #expect(gauges(generations.old) == [0, 0, 0] && gauges(generations.new) == [0, 0, 1])
        step(generations, [client], 10)
        #expect(client.isConnected)
        client.join("room", as: "a", isHost: true)
        step(generations, [client], 5)
        #expect(client.status == 101)
    }

    @Test func `need inboxes of all workers, and a refused route keeps none`() throws {
        let generations = try Generations(1)
        try generations.prepare(2)
        let mover = generations.old[0]
        try mover.tell(.inboxes(first: 0), [generations.new[0].inboxSender])
        try mover.tell(.route(workers: 2, leaves: true))
        mover.turn()
        #expect(mover.worker.nextOutboxes.isEmpty)
        #expect(!mover.isLeaving)
        #expect(try generations.move(to: 2))
    }
}
