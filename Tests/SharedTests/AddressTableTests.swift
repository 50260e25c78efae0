import Glibc
import Synchronization
import Testing

@testable import Shared

/// A table in a file of its own, read and written here by its byte map as well.
private struct Fixture: ~Copyable {
    let file: Descriptor
    let table: AddressTable

    init(connectionsMax: Int = 50) throws {
        let file = try SharedMemory.makeFile()
        _ = try SharedMemory.create(in: file)
        table = try AddressTable.create(in: file.number, connectionsMax: connectionsMax)
        self.file = file
    }

    func mapped() throws -> AddressTable {
        let table = try AddressTable.map(file.number)
        return try #require(table)
    }

    func ledger(_ page: Int) throws -> AddressLedger {
        try AddressLedger(try mapped(), page: page, file: file.number)
    }

    func reclaim(_ page: Int) throws {
        try AddressLedger.reclaim(table, page: page, file: file.number)
    }

    /// Behind the table's beginning.
    static let start = 8192 * (1 + 1024) + 16 * 1024 + 262_144 * 16

    func word(_ offset: Int) -> UInt64 {
        var word: UInt64 = 0
        let count = pread(file.number, &word, 8, off_t(Self.start + offset))
        return count == 8 ? UInt64(littleEndian: word) : .max
    }

    func setWord(_ offset: Int, _ value: UInt64) {
        var word = value.littleEndian
        let count = pwrite(file.number, &word, 8, off_t(Self.start + offset))
        precondition(count == 8)
    }

    /// Leaves one entry in eight free, so that addresses get into each other's way.
    func crowd() {
        precondition(word(0) == 512)
        for place in 0..<512 where !place.isMultiple(of: 8) { setWord(4096 + 8 * place, 1 << 42 | UInt64(place + 1)) }
    }

    static let crowdCount = 512 - 64

    var status: stat {
        var status = stat()
        fstat(file.number, &status)
        return status
    }
}

extension AddressToken {
    fileprivate var place: Int { Int(bits >> 42) }
}

/// An IPv4 address by number: it has one key.
private func address(_ number: UInt64) -> AddressKeys { Address(ipv4: UInt32(number)).keys }

/// Connections of addresses with one key.
extension AddressLedger {
    fileprivate func take(key: UInt64, max: Int) -> AddressToken {
        take(.connection, address(key), max: max)?.narrow ?? .none
    }

    fileprivate mutating func hold(_ token: AddressToken, slot: UInt32) {
        hold(.connection, AddressCharge(narrow: token), slot: slot)
    }

    fileprivate func expect(_ token: AddressToken) { expect(.connection, AddressCharge(narrow: token)) }
    fileprivate func abandon(_ token: AddressToken) { abandon(.connection, AddressCharge(narrow: token)) }
    fileprivate func handedOver(slot: UInt32) { handedOver(.connection, slot: slot) }

    fileprivate func release(_ token: AddressToken, slot: UInt32) {
        release(.connection, AddressCharge(narrow: token), slot: slot)
    }
}

extension AddressTable {
    fileprivate func take(key: UInt64, max: Int, intent: (AddressToken) -> Void) -> AddressToken {
        take(.connection, key: address(key).narrow, max: max, intent: intent) ?? .none
    }
}

@Suite struct `The table of addresses` {
    @Test func `is laid out by its byte map, behind the rest of the shared memory`() throws {
        let fixture = try Fixture(connectionsMax: 500)
        let entries = 4096
        #expect(fixture.word(0) == UInt64(entries))
        let size = Int(fixture.status.st_size)
        #expect(size == Fixture.start + 4096 + 8 * entries + 1024 * (32 << 20))
        var ledger = try fixture.ledger(3)
        let token = ledger.take(key: 7, max: 2)
        let again = ledger.take(key: 7, max: 2)
        #expect(token == again && token != .none)
        let entry = fixture.word(4096 + 8 * token.place)
        #expect(entry == 2 << 42 | token.bits & (1 << 42 - 1))
        let ledgerStart = 4096 + 8 * entries + 3 * (32 << 20)
        ledger.hold(token, slot: 5)
        ledger.expect(again)
        let words = (0..<20).map { fixture.word(ledgerStart + 8 * $0) }
        #expect(words == [again.bits, 0, 0, 0, 6, 0] + Array(repeating: 0, count: 12) + [token.bits, 0])
        ledger.abandon(again)
        ledger.release(token, slot: 5)
        let after = [fixture.word(4096 + 8 * token.place), fixture.word(ledgerStart), fixture.word(ledgerStart + 144)]
        #expect(after == [0, 0, 0])
        // Rooms, and both keys of an address.
        let keys = try #require(Address("2001:db8::1")).keys
        let (taken, second) = (ledger.take(.room, keys, max: 2), ledger.take(.room, keys, max: 2))
        let charge = try #require(taken)
        #expect(second == charge && charge.narrow != .none && charge.wide != .none && charge.narrow != charge.wide)
        ledger.hold(.room, charge, slot: 1)
        ledger.expect(.room, charge)
        let head = (0..<6).map { fixture.word(ledgerStart + 8 * $0) }
        #expect(head == [0, 0, charge.narrow.bits, charge.wide.bits, 6, 2])
        let records = (0..<4).map { fixture.word(ledgerStart + (16 << 20) + 8 * $0) }
        #expect(records == [0, 0, charge.narrow.bits, charge.wide.bits])
        ledger.abandon(.room, charge)
        ledger.release(.room, charge, slot: 1)
        #expect(fixture.table.count == 0)
    }

    @Test func `has eight entries for each connection there may be, and a million at most`() throws {
        let sizes = [(1, 512), (64, 512), (65, 1024), (131_072, 1 << 20), (1_000_000, 1 << 20)]
        for (connections, entries) in sizes {
            let fixture = try Fixture(connectionsMax: connections)
            let count = fixture.word(0)
            #expect(count == UInt64(entries))
            // Whatever its size, it takes no memory yet: the limiter's pages and these are holes.
            let blocks = fixture.status.st_blocks
            #expect(blocks <= 64)
        }
    }

    @Test func `survives an entry whose count is none, which a worker in its right mind never writes`() throws {
        let fixture = try Fixture()
        let ledger = try fixture.ledger(0)
        let token = ledger.take(key: 7, max: 2)
        let fingerprint = token.bits & (1 << 42 - 1)
        fixture.setWord(4096 + 8 * token.place, fingerprint)
        try fixture.reclaim(0)
        let word = fixture.word(4096 + 8 * token.place)
        #expect(word == fingerprint)
    }

    @Test func `is mapped only where one was made`() throws {
        let plain = try SharedMemory.makeFile()
        _ = try SharedMemory.create(in: plain)
        let none = try AddressTable.map(plain.number)
        #expect(none == nil)
        let fixture = try Fixture()
        for wrong in [0, 1, 32, 500, 1 << 23, .max] as [UInt64] {
            fixture.setWord(0, wrong)
            #expect(throws: SystemError.self) { _ = try AddressTable.map(fixture.file.number) }
        }
        fixture.setWord(0, 512)
        _ = try AddressTable.map(fixture.file.number)
        // Entries for more than the file has room for, which nobody can make shorter any more.
        fixture.setWord(0, 1 << 22)
        #expect(throws: SystemError.self) { _ = try AddressTable.map(fixture.file.number) }
        let file = Descriptor(owning: open("/dev/null", O_RDONLY | O_CLOEXEC))
        #expect(throws: SystemError.self) { _ = try AddressTable.create(in: file.number, connectionsMax: 1) }
    }

    @Test func `counts each address by itself, up to the maximum, in every worker`() throws {
        let fixture = try Fixture()
        let one = try fixture.ledger(0)
        let other = try fixture.ledger(1)
        var tokens: [AddressToken] = []
        for key in 1...30 as ClosedRange<UInt64> {
            for index in 0..<3 {
                let token = index == 1 ? other.take(key: key, max: 3) : one.take(key: key, max: 3)
                #expect(token != .none)
                tokens.append(token)
            }
            let refused = [one.take(key: key, max: 3), other.take(key: key, max: 3)]
            #expect(refused == [.none, .none])
            #expect(one.take(key: key, max: 2) == .none)
        }
        #expect(fixture.table.count == 90)
        one.abandon(tokens[0])
        #expect(other.take(key: 1, max: 3) != .none)
        #expect(other.take(key: 1, max: 3) == .none)
        for token in tokens { other.abandon(token) }
        #expect(fixture.table.count == 0)
    }

    @Test func `counts an IPv6 address by its /64 and, eight times as loosely, by its /48`() throws {
        let fixture = try Fixture(connectionsMax: 500)
        let ledger = try fixture.ledger(0)
        func network(_ site: Int, _ network: Int) throws -> AddressKeys {
            try #require(Address("2001:db8:\(site):\(network)::1")).keys
        }
        var charges: [AddressCharge] = []
        for index in 0..<8 {
            for _ in 0..<3 {
                let charge = ledger.take(.connection, try network(1, index), max: 3)
                charges.append(try #require(charge))
            }
            let refused = ledger.take(.connection, try network(1, index), max: 3)
            #expect(refused == nil)
        }
        // The whole /48 has as much as it may have, and not one entry more is taken for those who try.
        #expect(fixture.table.count == 2 * 24)
        for index in 8..<100 {
            let refused = ledger.take(.connection, try network(1, index), max: 3)
            #expect(refused == nil)
        }
        #expect(fixture.table.count == 2 * 24)
        // Its rooms are another matter, and so is a neighbour, and the IPv4 internet behind NAT64.
        let others = [
            ledger.take(.room, try network(1, 9), max: 3), ledger.take(.connection, try network(2, 9), max: 3),
            ledger.take(.connection, try #require(Address("64:ff9b::192.0.2.1")).keys, max: 1),
        ]
        #expect(others.allSatisfy { $0 != nil })
        let known = ledger.take(.connection, try #require(Address("192.0.2.1")).keys, max: 1)
        #expect(known == nil)
        // Whoever goes makes room for one, in whatever network.
        ledger.abandon(.connection, charges[0])
        let late = ledger.take(.connection, try network(1, 77), max: 3)
        #expect(late != nil)
        let none = ledger.take(.connection, try network(1, 0), max: 3)
        #expect(none == nil)
        for charge in charges.dropFirst() { ledger.abandon(.connection, charge) }
        for charge in others + [late] { ledger.abandon(.connection, charge ?? .none) }
        #expect(fixture.table.count == 0)
    }

    @Test func `counts the rooms of an address apart from its connections`() throws {
        let fixture = try Fixture()
        let ledger = try fixture.ledger(0)
        for key in 1...20 as ClosedRange<UInt64> {
            let taken = (0..<3).map { _ in ledger.take(.room, address(key), max: 2) != nil }
            #expect(taken == [true, true, false])
            #expect(ledger.take(key: key, max: 1) != .none)
            #expect(ledger.take(key: key, max: 1) == .none)
        }
    }

    @Test func `admits who can't be counted, where all places near are taken`() throws {
        let fixture = try Fixture()
        for place in 0..<512 { fixture.setWord(4096 + 8 * place, 1 << 42 | UInt64(place + 1)) }
        let ledger = try fixture.ledger(0)
        for _ in 0..<3 {
            let charge = ledger.take(.connection, address(5), max: 2)
            #expect(charge == AddressCharge.none)
        }
        fixture.setWord(4096 + 8 * 511, 0)
        var taken = 0
        for key in 1...2000 as ClosedRange<UInt64> {
            let token = ledger.take(key: key, max: 1)
            guard token != .none else { continue }
            #expect(token.place == 511)
            taken += 1
            ledger.abandon(token)
        }
        // As many as look there: 64 of 512.
        #expect((125...375).contains(taken))
    }

    @Test func `gives back nothing that a token does not name`() throws {
        let fixture = try Fixture()
        let ledger = try fixture.ledger(0)
        let token = ledger.take(key: 5, max: 10)
        // A place whose count is 0 and whose fingerprint is not: no worker leaves one, and none may end the supervisor
        // by it.
        let odd = token.place ^ 1
        fixture.setWord(4096 + 8 * odd, 7)
        fixture.table.give(AddressToken(bits: UInt64(odd) << 42 | 7))
        #expect(fixture.word(4096 + 8 * odd) == 7)
        for wrong in [0, 1, token.bits ^ 1, token.bits ^ 1 << 42, UInt64.max, 512 << 42 | 7] as [UInt64] {
            fixture.table.give(AddressToken(bits: wrong))
        }
        #expect(fixture.table.count == 1)
        fixture.table.give(token)
        fixture.table.give(token)
        #expect(fixture.table.count == 0)
    }

    /// A key whose first place is the given one.
    private func key(at place: Int, _ ledger: borrowing AddressLedger) -> UInt64 {
        for key in 1_000_000... {
            let token = ledger.take(key: UInt64(key), max: 1)
            ledger.abandon(token)
            if token.place == place { return UInt64(key) }
        }
        return 0
    }

    @Test func `takes two entries of one address together`() throws {
        for max in 1...3 {
            let fixture = try Fixture()
            let ledger = try fixture.ledger(0)
            let first = ledger.take(key: 5, max: 9)
            ledger.abandon(first)
            let neighbour = key(at: first.place, ledger)
            let inTheWay = ledger.take(key: neighbour, max: 1)
            // Between search and claim the first place becomes free, and another worker claims it for the same address.
            var others: [AddressToken] = []
            let table = fixture.table
            let token = table.take(key: 5, max: max) { token in
                guard others.isEmpty else { return }
                #expect(token.place != first.place)
                table.give(inTheWay)
                for _ in 0..<max { others.append(table.take(key: 5, max: max) { _ in }) }
            }
            #expect(others.allSatisfy { $0 == first })
            #expect(token == .none)
            #expect(table.count == max)
            // The same with room for one more: both are admitted, and no third one.
            for token in others { table.give(token) }
            let again = ledger.take(key: neighbour, max: 1)
            others = []
            let late = table.take(key: 5, max: max + 1) { _ in
                guard others.isEmpty else { return }
                table.give(again)
                for _ in 0..<max { others.append(table.take(key: 5, max: max + 1) { _ in }) }
            }
            #expect(late != .none && late != first)
            #expect(table.count == max + 1)
            #expect(ledger.take(key: 5, max: max + 1) == .none)
            // Whoever goes makes room for one, wherever it was counted.
            table.give(late)
            #expect(ledger.take(key: 5, max: max + 1) == first)
            #expect(ledger.take(key: 5, max: max + 1) == .none)
        }
    }

    /// Threads in step with one another.
    private final class Barrier: Sendable {
        private let arrived = Atomic(0)
        private let count: Int

        init(_ count: Int) { self.count = count }

        func wait() {
            let turn = arrived.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue / count
            while arrived.load(ordering: .sequentiallyConsistent) / count == turn { sched_yield() }
        }
    }

    /// One connection of an address, with a pause between search and claim now and then, and others coming and going in it.
    private func take(
        _ table: AddressTable, _ key: UInt64, _ max: Int, _ random: inout SplitMix64
    ) -> AddressToken {
        let pauses = UInt8.random(in: 0..<4, using: &random)
        return table.take(key: key, max: max) { _ in
            for _ in 0..<pauses { sched_yield() }
        }
    }

    @Test func `admits exactly the maximum of those that come in one moment, again and again`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let fixture = try Fixture()
        fixture.crowd()
        let threads = 3
        let barrier = Barrier(threads)
        let admitted = Atomic(0)
        let wrong = Atomic(0)
        let tables = try (0..<threads).map { _ in try fixture.mapped() }
        inParallel(threads) { thread in
            let table = tables[thread]
            var random = SplitMix64(seed: seed &+ UInt64(thread))
            for round in 0..<5000 {
                let max = 1 + round % 3
                let key = UInt64(round % 7)
                var tokens: [AddressToken] = []
                barrier.wait()
                // Places near become taken and free again, so that not all find the same one.
                let passing = take(table, UInt64.random(in: 100..<200, using: &random), 9, &random)
                for index in 0..<max {
                    let token = take(table, key, max, &random)
                    if token != .none { tokens.append(token) }
                    if index == 0 { table.give(passing) }
                }
                admitted.add(tokens.count, ordering: .sequentiallyConsistent)
                barrier.wait()
                if thread == 0 {
                    if admitted.load(ordering: .sequentiallyConsistent) != max { wrong.add(1, ordering: .relaxed) }
                    admitted.store(0, ordering: .sequentiallyConsistent)
                }
                barrier.wait()
                for token in tokens { table.give(token) }
            }
        }
        #expect(wrong.load(ordering: .relaxed) == 0, "seed \(seed)")
        #expect(fixture.table.count == Fixture.crowdCount, "seed \(seed)")
    }

    @Test func `never has more than the maximum, and ends empty, whoever comes and goes`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let fixture = try Fixture()
        fixture.crowd()
        let tables = try (0..<4).map { _ in try fixture.mapped() }
        // Counted here as well: from behind the admission to before the end.
        let living = (0..<40).map { _ in Living() }
        let above = Atomic(0)
        inParallel(4) { thread in
            var random = SplitMix64(seed: seed &+ UInt64(thread))
            let table = tables[thread]
            var held: [(key: Int, token: AddressToken)] = []
            for _ in 0..<50_000 {
                // Few at a time, so that entries come and go and the same places are claimed for ever other addresses.
                if held.count < 12, Bool.random(using: &random) {
                    // A few addresses that everybody wants, and many that come once.
                    let key =
                        Int.random(in: 0..<3, using: &random) == 0
                        ? Int.random(in: 0..<40, using: &random) : Int.random(in: 0..<3, using: &random)
                    let max = 1 + key % 5
                    let token = take(table, UInt64(key), max, &random)
                    guard token != .none else { continue }
                    let count = living[key].count.add(1, ordering: .sequentiallyConsistent).newValue
                    if count > max { above.add(1, ordering: .relaxed) }
                    held.append((key, token))
                } else if !held.isEmpty {
                    let (key, token) = held.remove(at: Int.random(in: 0..<held.count, using: &random))
                    living[key].count.subtract(1, ordering: .sequentiallyConsistent)
                    table.give(token)
                }
            }
            for (key, token) in held {
                living[key].count.subtract(1, ordering: .sequentiallyConsistent)
                table.give(token)
            }
        }
        #expect(above.load(ordering: .relaxed) == 0, "seed \(seed)")
        #expect(fixture.table.count == Fixture.crowdCount, "seed \(seed)")
        for key in 0..<40 {
            let max = 1 + key % 5
            let tokens = (0...max).map { _ in fixture.table.take(key: UInt64(key), max: max) { _ in } }
            #expect(tokens.count { $0 != .none } == max, "seed \(seed)")
            // All of them at a time have no room in this crowd.
            for token in tokens { fixture.table.give(token) }
        }
    }

    private final class Living: Sendable {
        let count = Atomic(0)
    }
}

@Suite struct `The ledger of a worker` {
    @Test func `gives back all that a dead worker's connections were counted with, and no memory stays`() throws {
        let fixture = try Fixture(connectionsMax: 20_000)
        var dead = try fixture.ledger(0)
        var living = try fixture.ledger(1)
        for slot in 0..<10_000 as Range<UInt32> { dead.hold(dead.take(key: UInt64(slot % 77), max: 1000), slot: slot) }
        for slot in 0..<1000 as Range<UInt32> {
            living.hold(living.take(key: UInt64(slot % 77), max: 1000), slot: slot)
        }
        _ = dead.take(key: 500, max: 1)
        #expect(fixture.table.count == 11_001)
        let before = fixture.status.st_blocks
        try fixture.reclaim(0)
        #expect(fixture.table.count == 1000)
        // 10,000 records are 20 pages, of 8 blocks each.
        let blocks = before - fixture.status.st_blocks
        #expect(blocks >= 20 * 8)
        // Nothing twice.
        try fixture.reclaim(0)
        #expect(fixture.table.count == 1000)
        // A successor begins with an empty one.
        var successor = try fixture.ledger(0)
        successor.hold(successor.take(key: 1, max: 1000), slot: 3)
        try fixture.reclaim(0)
        #expect(fixture.table.count == 1000)
        try fixture.reclaim(1)
        #expect(fixture.table.count == 0)
        // A worker that never counted.
        try fixture.reclaim(1023)
    }

    @Test func `gives back a dead worker's rooms, by both keys, and not those that have moved`() throws {
        let fixture = try Fixture(connectionsMax: 20_000)
        var dead = try fixture.ledger(0)
        var living = try fixture.ledger(1)
        let keys = try #require(Address("2001:db8::1")).keys
        for slot in 0..<1000 as Range<UInt32> {
            let (room, connection) = (dead.take(.room, keys, max: 2000), dead.take(.connection, keys, max: 2000))
            dead.hold(.room, try #require(room), slot: slot)
            dead.hold(.connection, try #require(connection), slot: slot)
        }
        #expect(fixture.table.count == 4000)
        // A room moves: its first member comes, then its last message leaves.
        let taken = dead.take(.room, keys, max: 2000)
        let moved = try #require(taken)
        dead.hold(.room, moved, slot: 1000)
        living.expect(.room, moved)
        living.hold(.room, moved, slot: 0)
        dead.handedOver(.room, slot: 1000)
        _ = dead.take(.room, keys, max: 2000)
        try fixture.reclaim(0)
        #expect(fixture.table.count == 2)
        living.release(.room, moved, slot: 0)
        #expect(fixture.table.count == 0)
        try fixture.reclaim(1)
    }

    @Test func `leaves no count behind at whatever step a worker dies`() throws {
        /// What two workers do, step by step, up to the death of the first.
        typealias Steps = (inout AddressLedger, inout AddressLedger) -> Void
        let others: UInt64 = 2
        func left(_ steps: Steps) throws -> Int {
            let fixture = try Fixture()
            var one = try fixture.ledger(0)
            var other = try fixture.ledger(1)
            for slot in 0..<UInt32(others) { other.hold(other.take(key: 7, max: 9), slot: slot) }
            steps(&one, &other)
            try fixture.reclaim(0)
            return fixture.table.count
        }
        // Accepted, and in its slot.
        #expect(try left { one, _ in _ = one.take(key: 7, max: 9) } == 2)
        #expect(try left { one, _ in one.hold(one.take(key: 7, max: 9), slot: 0) } == 2)
        // Ended.
        #expect(
            try left { one, _ in
                let token = one.take(key: 7, max: 9)
                one.hold(token, slot: 0)
                one.release(token, slot: 0)
            } == 2)
        // Refused.
        #expect(try left { one, _ in _ = one.take(key: 7, max: 2) } == 2)
        // Sent away and not taken yet: it lives in the inbox.
        #expect(
            try left { one, _ in
                one.hold(one.take(key: 7, max: 9), slot: 0)
                one.handedOver(slot: 0)
            } == 3)
        // Sent away and taken.
        #expect(
            try left { one, other in
                let token = one.take(key: 7, max: 9)
                one.hold(token, slot: 0)
                other.expect(token)
                one.handedOver(slot: 0)
                other.hold(token, slot: 2)
            } == 3)
        // Taken over, and being so.
        #expect(
            try left { one, other in
                one.expect(other.take(key: 7, max: 9))
            } == 2)
        #expect(
            try left { one, other in
                let token = other.take(key: 7, max: 9)
                one.expect(token)
                one.hold(token, slot: 0)
            } == 2)

        // Between two writes: one too few, never one too many.
        #expect(
            try left { one, _ in
                let token = one.take(key: 7, max: 9)
                one.hold(token, slot: 0)
                one.expect(token)
            } == 1)
        #expect(
            try left { one, other in
                let token = one.take(key: 7, max: 9)
                one.hold(token, slot: 0)
                other.expect(token)
                other.hold(token, slot: 2)
            } == 2)
    }

    @Test func `makes good in the end what a death between two writes has taken too much`() throws {
        let fixture = try Fixture()
        var one = try fixture.ledger(0)
        var other = try fixture.ledger(1)
        let token = one.take(key: 7, max: 1)
        one.hold(token, slot: 0)
        other.expect(token)
        other.hold(token, slot: 9)
        // Sent, and dead before that was written down.
        try fixture.reclaim(0)
        #expect(fixture.table.count == 0)
        let stranger = other.take(key: 8, max: 1)
        other.hold(stranger, slot: 10)
        other.release(token, slot: 9)
        #expect(fixture.table.count == 1)
        other.release(stranger, slot: 10)
        #expect(fixture.table.count == 0)
        #expect(other.take(key: 7, max: 1) == token)
        #expect(other.take(key: 7, max: 1) == .none)
    }
}
