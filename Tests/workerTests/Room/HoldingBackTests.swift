import Glibc
import Shared
import Testing

@testable import worker

/// A worker whose turns have only a room's talk in them, at times that the test sets.
private struct Talk: ~Copyable {
    var fixture: WorkerFixture
    /// Descriptors of the clients, by the connections' slots.
    private var clients: [UInt32: Int32] = [:]

    init(isBusy: Bool = true) throws {
        var options = WorkerFixture.Options()
        options.isBusy = isBusy
        fixture = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
    }

    mutating func open(_ room: String) -> UInt32 {
        #expect(fixture.worker.memory.rooms.take(max: .max))
        let slot = fixture.worker.openRoom(
            Array(room.utf8), hostKey: [UInt8](repeating: 1, count: Limits.publicKeyBytes), source: 0)
        // They would be told in a later turn, and the wait for it be shorter.
        fixture.worker.tellHostKeys()
        return slot
    }

    mutating func enter(_ room: UInt32) throws -> UInt32 {
        let (slot, client) = try fixture.open()
        clients[slot] = client
        fixture.worker.enter(slot, room)
        return slot
    }

    /// A turn in which some say something, in this order.
    mutating func turn(_ said: [(UInt32, [UInt8])] = []) {
        for (slot, payload) in said {
            _ = unsafe payload.withUnsafeBytes { bytes in
                fixture.worker.say(slot, unsafe bytes.bytes, key: 0, isText: false)
            }
        }
        fixture.worker.settle()
        fixture.worker.publish()
    }

    mutating func pass(_ nanoseconds: UInt64) { fixture.worker.now += nanoseconds }

    /// Has a room say as much as it may before anything of it is held back, and gives back how many turns that took.
    mutating func useUp(_ speaker: UInt32, _ listener: UInt32) throws -> Int {
        for number in 0..<1000 {
            turn([(speaker, [7])])
            if fixture.worker.heldBatches > 0 {
                pass(Limits.dataSendIntervalNanoseconds)
                turn()
                let heard = try hear(listener)
                #expect(heard == [[UInt8]](repeating: [7], count: number + 1))
                return number
            }
        }
        Issue.record("never held back")
        return 0
    }

    /// A room of two that is as far ahead as may be: what is said next waits.
    mutating func openAhead() throws -> (room: UInt32, one: UInt32, other: UInt32) {
        let room = open("room")
        let (one, other) = (try enter(room), try enter(room))
        _ = try useUp(one, other)
        return (room, one, other)
    }

    /// Payloads of the binary frames that have come since the last call.
    func hear(_ slot: UInt32) throws -> [[UInt8]] {
        try frames(slot).filter { $0.opcode == Frame.binary }.map(\.payload)
    }

    func frames(_ slot: UInt32) throws -> [Frame] {
        let client = try #require(clients[slot])
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(client, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return try #require(Frame.parse(bytes))
    }

    var held: Int { fixture.worker.heldBatches }
    func counter(_ counter: Counter) -> UInt64 { fixture.worker.page[counter] }
}

private let voice: [UInt8] = [0x4B, 0x56, 1]

@Suite struct `Data of a room that talks on and on` {
    private static let interval = Limits.dataSendIntervalNanoseconds

    private static func isNoNotice(_ message: [UInt8]) -> Bool { !message.starts(with: Array(#"{"id":"""#.utf8)) }

    @Test func `leaves in its turn while the worker has time to spare`() throws {
        var talk = try Talk(isBusy: false)
        let room = talk.open("room")
        let (one, other) = (try talk.enter(room), try talk.enter(room))
        for number in 0..<200 {
            talk.turn([(one, [UInt8(number)])])
            let heard = try talk.hear(other)
            #expect(heard == [[UInt8(number)]])
        }
        #expect(talk.counter(.batchesHeld) == 0)
    }

    @Test func `leaves in its turn as long as the room is not too far ahead of the pace`() throws {
        var talk = try Talk()
        let room = talk.open("room")
        let (one, other) = (try talk.enter(room), try talk.enter(room))
        for number in 0..<200 {
            talk.turn([(one, [UInt8(number)])])
            talk.pass(Self.interval)
            let heard = try talk.hear(other)
            #expect(heard == [[UInt8(number)]])
        }
        #expect(talk.counter(.batchesHeld) == 0)
        let atOnce = try talk.useUp(one, other)
        // The last of the 200 sends is one of them, and an interval has passed since.
        #expect(atOnce == Int(Limits.dataSendsAhead) + 1)
    }

    @Test func `waits in a busy worker for an interval at the most, and leaves as one, in its order`() throws {
        var talk = try Talk()
        let room = talk.open("room")
        let slots = [try talk.enter(room), try talk.enter(room), try talk.enter(room)]
        _ = try talk.useUp(slots[0], slots[1])
        _ = try talk.hear(slots[2])
        talk.turn([(slots[0], [1]), (slots[1], [2])])
        talk.pass(Self.interval / 2)
        talk.turn([(slots[0], [3])])
        for slot in slots {
            let nothing = try talk.frames(slot)
            #expect(nothing.isEmpty)
        }
        #expect(talk.held == 1)
        talk.pass(Self.interval / 2 - 1)
        talk.turn()
        #expect(talk.held == 1)
        talk.pass(1)
        talk.turn()
        let heard = try slots.map { try talk.hear($0) }
        #expect(heard == [[[2]], [[1], [3]], [[1], [2], [3]]])
        #expect(talk.held == 0)
    }

    @Test func `is waited for a millisecond at a time`() throws {
        var talk = try Talk()
        let (_, one, _) = try talk.openAhead()
        #expect(talk.fixture.worker.patience == 1000)
        talk.turn([(one, [1])])
        #expect(talk.fixture.worker.patience == Limits.holdingTurnMilliseconds)
        talk.pass(Self.interval)
        talk.turn()
        #expect(talk.fixture.worker.patience == 1000)
    }

    @Test func `leaves when the worker is busy no more`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        talk.turn([(one, [1])])
        #expect(talk.held == 1)
        talk.fixture.worker.load = LoadMeter(now: talk.fixture.worker.now)
        talk.turn()
        let heard = try talk.hear(other)
        #expect(heard == [[1]])
    }

    @Test func `leaves with voice, which never waits and goes first`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        talk.turn([(one, [1])])
        talk.turn([(one, voice)])
        let heard = try talk.hear(other)
        #expect(heard == [voice, [1]])
        // However much voice there is, data waits for no more than an interval.
        for _ in 0..<100 { talk.turn([(one, voice)]) }
        talk.turn([(one, [2])])
        talk.pass(Self.interval)
        talk.turn()
        let last = try talk.hear(other).last
        #expect(last == [2])
    }

    @Test func `leaves at once when together it is worth a send`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        // Frames of 1023 bytes, a header of four each, and then one with a header of two: a byte too few, and as many as it takes.
        let piece = [UInt8](repeating: 1, count: Limits.dataSendMessageBytes - 1 - 4)
        let pieces = [[UInt8]](repeating: piece, count: Limits.dataSendBytes / Limits.dataSendMessageBytes)
        let left = Limits.dataSendBytes - pieces.count * (piece.count + 4) - 2
        for isEnough in [false, true] {
            let last = [UInt8](repeating: 2, count: isEnough ? left : left - 1)
            for payload in pieces { talk.turn([(one, payload)]) }
            let nothing = try talk.hear(other)
            #expect(nothing.isEmpty)
            talk.turn([(one, last)])
            #expect(talk.held == (isEnough ? 0 : 1))
            talk.pass(isEnough ? 0 : Self.interval)
            talk.turn()
            let heard = try talk.hear(other)
            #expect(heard == pieces + [last])
        }
    }

    @Test func `leaves with a large message, which never waits`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        // With a header of four bytes.
        let large = [UInt8](repeating: 1, count: Limits.dataSendMessageBytes - 4)
        talk.turn([(one, [2])])
        talk.turn([(one, Array(large.dropLast()))])
        #expect(talk.held == 1)
        talk.turn([(one, large)])
        let heard = try talk.hear(other)
        #expect(heard == [[2], Array(large.dropLast()), large])
        // It is forgotten with what left.
        talk.turn([(one, [3])])
        #expect(talk.held == 1)
    }

    @Test func `does not keep another room's waiting`() throws {
        var talk = try Talk()
        let (loud, quiet) = (talk.open("loud"), talk.open("quiet"))
        let (one, other) = (try talk.enter(loud), try talk.enter(loud))
        let (third, fourth) = (try talk.enter(quiet), try talk.enter(quiet))
        _ = try talk.useUp(one, other)
        talk.turn([(one, [1]), (third, [2])])
        let heard = [try talk.hear(other), try talk.hear(fourth)]
        #expect(heard == [[], [[2]]])
        #expect(talk.held == 1)
    }

    @Test func `is not for who comes while it waits, not even in the place of who said it`() throws {
        var talk = try Talk()
        let (room, one, other) = try talk.openAhead()
        talk.turn([(one, [1])])
        talk.fixture.worker.doom(one, .peerGone)
        talk.turn()
        // What it said, and behind it that it has left, wait on.
        #expect(talk.held == 1)
        let third = try talk.enter(room)
        #expect(third == one)
        talk.turn([(third, [3])])
        talk.pass(Self.interval)
        talk.turn()
        let heard = try talk.hear(other)
        #expect(heard.count == 3 && heard.first == [1] && heard.last == [3])
        let nothing = try talk.hear(third)
        #expect(nothing.isEmpty)
    }

    @Test func `goes with its room when the last one leaves`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        talk.turn([(one, [1])])
        talk.fixture.worker.doom(one, .peerGone)
        talk.fixture.worker.doom(other, .peerGone)
        talk.turn()
        talk.turn()
        #expect(talk.held == 0)
        let rooms = talk.fixture.worker.rooms.count
        #expect(rooms == 0)
        // Its batch is another's now.
        let next = talk.open("next")
        let (third, fourth) = (try talk.enter(next), try talk.enter(next))
        talk.turn([(third, [9])])
        let heard = try talk.hear(fourth)
        #expect(heard == [[9]])
    }

    @Test func `leaves before the close frame of a relay that stops`() throws {
        var talk = try Talk()
        let (_, one, other) = try talk.openAhead()
        talk.turn([(one, [1])])
        let deadline = talk.fixture.worker.now + 1_000_000_000
        talk.fixture.worker.startDraining(deadline, .shutdown)
        talk.fixture.worker.drainSome()
        talk.turn()
        let frames = try talk.frames(other)
        #expect(
            frames == [Frame(opcode: Frame.binary, payload: [1]), Frame(opcode: Frame.close, payload: [0x03, 0xE9])])
    }

    @Test func `is not held back by a worker that stops or that gives its rooms away`() throws {
        for stops in [false, true] {
            var talk = try Talk()
            let (_, one, other) = try talk.openAhead()
            talk.turn([(one, [1])])
            if stops {
                talk.fixture.worker.startDraining(talk.fixture.worker.now + 1_000_000_000, .shutdown)
            } else {
                talk.fixture.worker.leaving = Leaving()
            }
            talk.turn([(one, [2])])
            let heard = try talk.hear(other)
            #expect(heard == [[1], [2]])
            #expect(talk.held == 0)
        }
    }

    @Test func `counts as delivered as late as it was, and as held back once`() throws {
        var talk = try Talk()
        let room = talk.open("room")
        let (one, other) = (try talk.enter(room), try talk.enter(room))
        let quiet = talk.open("quiet")
        let (third, _) = (try talk.enter(quiet), try talk.enter(quiet))
        let present = talk.fixture.worker.now
        // The clock begins with the machine.
        let ago = min(100_000_000_000, present / 2)
        talk.fixture.worker.now -= ago
        _ = try talk.useUp(one, other)
        let (batches, delivered) = (talk.counter(.batchesHeld), talk.counter(.dataDelivered))
        let before = talk.fixture.worker.page[.deliveryLatency]
        talk.turn([(one, [1])])
        talk.turn([(one, [2])])
        #expect(talk.held == 1)
        talk.fixture.worker.now = present
        talk.turn([(one, voice), (third, [3])])
        #expect(talk.counter(.batchesHeld) == batches + 1)
        #expect(talk.counter(.dataDelivered) == delivered + 3)
        let after = talk.fixture.worker.page[.deliveryLatency]
        #expect(after.buckets.reduce(0, +) == before.buckets.reduce(0, +) + 4)
        // Voice in the same send counts like what it took along, and another room's message does not.
        #expect((after.sum - before.sum) / (ago / 100 * 99) == 3)
    }

    @Test func `reaches everybody once and in order, whoever comes, goes and says what, whenever`() throws {
        for _ in 0..<20 {
            let seed = UInt64.random(in: 0...UInt64.max)
            var random = SplitMix64(seed: seed)
            var talk = try Talk()
            let room = talk.open("room")
            /// Those in the room: what they should hear and have heard.
            var expected: [UInt32: [[UInt8]]] = [:]
            var heard: [UInt32: [[UInt8]]] = [:]
            for _ in 0..<3 { expected[try talk.enter(room)] = [] }
            var number: UInt32 = 0
            for round in 0..<400 {
                var said: [(UInt32, [UInt8])] = []
                for _ in 0..<Int.random(in: 0...3, using: &random) {
                    let members = expected.keys.sorted()
                    guard let speaker = members.randomElement(using: &random) else { break }
                    number += 1
                    let payload =
                        (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
                        + [UInt8](repeating: 5, count: [0, 100, 3000, 20_000].randomElement(using: &random) ?? 0)
                    said.append((speaker, payload))
                    for member in members where member != speaker { expected[member]?.append(payload) }
                }
                talk.turn(said)
                switch Int.random(in: 0..<20, using: &random) {
                case 0 where expected.count < 6:
                    expected[try talk.enter(room)] = []
                case 1 where expected.count > 2:
                    let gone = try #require(expected.keys.sorted().randomElement(using: &random))
                    // What is held back for it is not for it any more.
                    let all = (heard[gone] ?? []) + (try talk.hear(gone))
                    let isPrefix = expected[gone]?.starts(with: all.filter(Self.isNoNotice)) == true
                    #expect(isPrefix, "seed \(seed), round \(round)")
                    expected[gone] = nil
                    heard[gone] = nil
                    talk.fixture.worker.doom(gone, .peerGone)
                    talk.turn()
                default:
                    break
                }
                if let batch = talk.fixture.worker.rooms[room].batch {
                    let waited = talk.fixture.worker.now - talk.fixture.worker.batches[batch].openedAt
                    #expect(waited < Self.interval, "seed \(seed), round \(round)")
                }
                talk.pass(UInt64.random(in: 0...(Self.interval / 3), using: &random))
                for member in expected.keys { heard[member, default: []] += try talk.hear(member) }
            }
            talk.pass(Self.interval)
            talk.turn()
            for (member, messages) in expected {
                let all = (heard[member] ?? []) + (try talk.hear(member))
                #expect(all.filter(Self.isNoNotice) == messages, "seed \(seed), member \(member)")
            }
            #expect(talk.counter(.batchesHeld) > 10, "seed \(seed)")
        }
    }
}
