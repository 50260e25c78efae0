import CLinux
import Glibc
import Synchronization
import Testing

@testable import Shared

/// Shared memory in a file of its own, read and written here by its byte map as well.
private struct Fixture: ~Copyable {
    let file: Descriptor
    let memory: SharedMemory
    /// A mapping of the test's own.
    private let bytes: UnsafeMutableRawPointer

    init(workers: Int = 2) throws {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        for worker in 0..<workers { memory.assign(worker, .current) }
        let bytes = mmap(nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)
        let mapped = try #require(bytes == MAP_FAILED ? nil : bytes)
        self.bytes = mapped
        self.memory = memory
        self.file = file
    }

    deinit {
        munmap(bytes, Self.byteCount)
    }

    static let byteCount = 8192 * (1 + 1024) + 16 * 1024 + 262_144 * 16

    /// The word at an offset.
    func word(_ offset: Int) -> UInt64 {
        UInt64(littleEndian: bytes.load(fromByteOffset: offset, as: UInt64.self))
    }

    func setWord(_ offset: Int, _ value: UInt64) {
        bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self)
    }

    var size: Int {
        var status = stat()
        return fstat(file.number, &status) == 0 ? Int(status.st_size) : -1
    }
}

private let second: UInt64 = 1_000_000_000

@Suite struct `Shared memory` {
    @Test(arguments: [1, 2, 256]) func `is laid out by its byte map`(workers: Int) throws {
        let fixture = try Fixture(workers: workers)
        let memory = fixture.memory
        let size = fixture.size
        #expect(size == Fixture.byteCount)
        let (magic, count) = (fixture.word(4096), fixture.word(4096 + 8))
        #expect(magic == 0x524C_5953_484D_0006)
        #expect(count == 1024)
        let used = fixture.word(4096 + 56)
        #expect(used == UInt64(workers))
        #expect(memory.pages.count == workers)
        let role = fixture.word(8192 * 1025 + 16 * (workers - 1))
        #expect(role == 1)
        memory.phase = .draining
        for _ in 0..<3 { _ = memory.rooms.take(max: 10) }
        for _ in 0..<4 { _ = memory.connections.take(max: 10) }
        let (phase, rooms, connections) = (fixture.word(4096 + 16), fixture.word(24), fixture.word(32))
        #expect(phase == 2)
        #expect(rooms == 3)
        #expect(connections == 4)
        fixture.setWord(40, 77)
        #expect(memory.limiterEvictions == 77)

        let last = workers - 1
        let start = 8192 * workers
        let page = memory.page(last)
        page.state = .serving
        page.heartbeat = 0x0102_0304_0506_0708
        page.pid = 4711
        page[.connections] = 5
        page[.rooms] = 6
        page.add(7, to: .accepted)
        page.add(8, to: .joinAwaitedRoom)
        page.count(.close(.byPeer))
        page.count(.close(.tlsAlert), 2)
        page.count(.drop(.controlMessage), 3)
        page.record(20_001, count: 9, in: .handoffDuration)
        let words = [0, 8, 16, 64, 80, 512, 512 + 8 * (Counter.allCases.count - 1)].map { fixture.word(start + $0) }
        #expect(words == [2, 0x0102_0304_0506_0708, 4711, 5, 6, 7, 8])
        let families = [4096, 4096 + 8 * Int(CloseReason.tlsAlert.rawValue), 4096 + 5 * 512 + 8 * 2].map {
            fixture.word(start + $0)
        }
        #expect(families == [1, 2, 3])
        let histogram = (0..<20).map { fixture.word(start + 2048 + 2 * 256 + 8 * $0) }
        #expect(histogram == [0, 0, 9] + [UInt64](repeating: 0, count: 16) + [9 * 20_001])
        #expect(WorkerPage.fits)
        #expect(page[.close(.tlsAlert)] == 2 && page[.drops, 2] == 3 && page[.drops, 63] == 0)
        #expect(memory.page(0).state == (last == 0 ? .serving : .down))
    }

    @Test func `is the same through every mapping`() throws {
        let fixture = try Fixture()
        let other = try SharedMemory.map(fixture.file)
        #expect(other.phase == .starting)
        fixture.memory.phase = .serving
        #expect(other.phase == .serving)
        other.page(1).add(3, to: .requests)
        fixture.memory.page(1).add(4, to: .requests)
        #expect(other.page(1)[.requests] == 7)
        #expect(fixture.memory.page(0)[.requests] == 0)
    }

    @Test func `is not mapped unless it is what it should be`() throws {
        let fixture = try Fixture()
        for pages: UInt64 in [0, 1023, 1025] {
            fixture.setWord(4096 + 8, pages)
            #expect(throws: SystemError("mmap", EINVAL)) { _ = try SharedMemory.map(fixture.file) }
        }
        fixture.setWord(4096 + 8, 1024)
        _ = try SharedMemory.map(fixture.file)
        fixture.setWord(4096, 0x524C_5953_484D_0001)
        #expect(throws: SystemError("mmap", EINVAL)) { _ = try SharedMemory.map(fixture.file) }
        let empty = try SharedMemory.makeFile()
        #expect(throws: SystemError("mmap", EINVAL)) { _ = try SharedMemory.map(empty) }
        #expect(throws: SystemError.self) {
            _ = try SharedMemory.create(in: Descriptor(owning: readOnly()))
        }
    }

    @Test func `believes a page no more than can be`() throws {
        let fixture = try Fixture(workers: 1)
        for gauge in Gauge.allCases {
            fixture.setWord(8192 + 64 + 8 * gauge.rawValue, .max)
            #expect(fixture.memory.page(0)[gauge] == gauge.most)
            #expect(gauge.most <= UInt64.max / UInt64(Limits.workerPages))
        }
    }

    /// Whether this process may write there, now or after it has asked the kernel for it.
    private func mayWrite(_ address: UnsafeMutableRawPointer) -> Bool {
        mprotect(address, 4096, PROT_READ | PROT_WRITE) == 0
    }

    @Test func `lets a worker write its own page and what all workers count in, and nothing else`() throws {
        let fixture = try Fixture(workers: 3)
        let reader = clinux_reopen_for_reading(fixture.file.number)
        try #require(reader >= 0)
        let memory = try SharedMemory.map(Descriptor(owning: reader), writable: fixture.file, page: 1)
        // What it may.
        let own = memory.page(1)
        own.state = .serving
        own.heartbeat = 5
        #expect(fixture.memory.page(1).state == .serving && fixture.memory.page(1).heartbeat == 5)
        #expect(memory.rooms.take(max: 1) && fixture.memory.rooms.count == 1)
        #expect(memory.admit(key: 1, rate: 1, burst: 2, now: second) == nil)
        // What it may not: each page of the mapping by itself.
        let base = UnsafeMutableRawPointer(own.violationWord) - 40 - 2 * 8192
        var writable: [Int] = []
        for page in 0..<(Fixture.byteCount / 4096) where mayWrite(base + 4096 * page) { writable.append(page) }
        let limiter = (8192 * 1025 + 16 * 1024) / 4096
        #expect(writable == [0, 4, 5] + Array(limiter..<(limiter + 1024)))
        // It sees the others all the same.
        fixture.memory.phase = .serving
        fixture.memory.page(0).heartbeat = 7
        fixture.memory.page(2).deathsInRow = 9
        #expect(memory.phase == .serving && memory.page(0).heartbeat == 7 && memory.page(2).deathsInRow == 9)
    }

    @Test func `keeps its size, and can't be mapped for writing by who may read it`() throws {
        let fixture = try Fixture()
        #expect(ftruncate(fixture.file.number, 4096) != 0 && errno == EPERM)
        let reader = Descriptor(owning: clinux_reopen_for_reading(fixture.file.number))
        #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reader.number, 0) == MAP_FAILED)
        #expect(errno == EACCES)
        _ = try AddressTable.create(in: fixture.file.number, connectionsMax: 1)
        let size = fixture.size
        #expect(ftruncate(fixture.file.number, off_t(size + 4096)) != 0 && errno == EPERM)
    }

    private func readOnly() throws -> Int32 {
        let number = open("/dev/null", O_RDONLY | O_CLOEXEC)
        try #require(number >= 0)
        return number
    }

    @Test func `shows words that are no state and no phase as the first of them`() throws {
        let fixture = try Fixture(workers: 1)
        fixture.setWord(4096 + 16, 99)
        fixture.setWord(8192, 99)
        #expect(fixture.memory.phase == .starting)
        #expect(fixture.memory.page(0).state == .down)
    }

    @Test func `keeps counters over a restart and zeroes gauges`() throws {
        let fixture = try Fixture(workers: 1)
        let page = fixture.memory.page(0)
        for gauge in Gauge.allCases { page[gauge] = 9 }
        for counter in Counter.allCases { page.add(UInt64(counter.rawValue) + 1, to: counter) }
        for reason in CloseReason.allCases { page.count(.close(reason), UInt64(reason.rawValue) + 1) }
        page.zeroGauges()
        for gauge in Gauge.allCases { #expect(page[gauge] == 0) }
        for counter in Counter.allCases { #expect(page[counter] == UInt64(counter.rawValue) + 1) }
        for reason in CloseReason.allCases { #expect(page[.close(reason)] == UInt64(reason.rawValue) + 1) }
    }
}

@Suite struct `Quotas` {
    @Test func `give out as many as they have`() throws {
        let quota = try Fixture().memory.rooms
        let taken = (0..<5).map { _ in quota.take(max: 3) }
        #expect(taken == [true, true, true, false, false])
        #expect(quota.count == 3)
        quota.give()
        #expect(quota.count == 2)
        #expect(quota.take(max: 3))
        // A lower maximum after a reload: nothing until enough has come back.
        #expect(!quota.take(max: 2))
        quota.give(2)
        #expect(quota.take(max: 2))
        #expect(!quota.take(max: 0))
    }

    @Test func `never fall below 0, because then they could give out nothing ever again`() throws {
        let quota = try Fixture().memory.connections
        #expect(quota.take(max: 10))
        quota.give(3)
        #expect(quota.count == 0)
        quota.give()
        #expect(quota.count == 0)
        #expect(quota.take(max: 1))
        #expect(!quota.take(max: 1))
    }

    @Test func `give out exactly as many when many threads take, each by a mapping of its own`() throws {
        let fixture = try Fixture()
        let mappings = try (0..<4).map { _ in try SharedMemory.map(fixture.file) }
        let taken = Atomic(0)
        inParallel(4) { thread in
            for _ in 0..<10_000 where mappings[thread].rooms.take(max: 23_456) {
                taken.add(1, ordering: .relaxed)
            }
        }
        #expect(taken.load(ordering: .relaxed) == 23_456)
        #expect(fixture.memory.rooms.count == 23_456)
    }

    @Test func `lose and gain nothing when many threads take and give`() throws {
        let fixture = try Fixture()
        let mappings = try (0..<4).map { _ in try SharedMemory.map(fixture.file) }
        let above = Atomic(0)
        inParallel(4) { thread in
            let quota = mappings[thread].connections
            for _ in 0..<20_000 where quota.take(max: 3) {
                if quota.count > 3 { above.add(1, ordering: .relaxed) }
                quota.give()
            }
        }
        #expect(above.load(ordering: .relaxed) == 0)
        #expect(fixture.memory.connections.count == 0)
    }
}

@Suite struct `The health of the relay` {
    /// What the wire protocol says of `/health`, worker by worker.
    @Test func `is told of every combination of phase, states and heartbeats`() throws {
        let fixture = try Fixture(workers: 2)
        let memory = fixture.memory
        let now = 100 * second
        let states: [WorkerState] = [.down, .starting, .serving, .draining]
        // The heart beat now, as long ago as may be, a moment longer ago, never, and by a clock a little ahead.
        let beats = [(now, true), (now - 5 * second, true), (now - 5 * second - 1, false), (0, false), (now + 9, true)]
        for phase in [RelayPhase.starting, .serving, .draining] {
            memory.phase = phase
            for (first, second) in states.flatMap({ first in states.map { (first, $0) } }) {
                for (firstBeat, secondBeat) in beats.flatMap({ first in beats.map { (first, $0) } }) {
                    memory.page(0).state = first
                    memory.page(1).state = second
                    memory.page(0).heartbeat = firstBeat.0
                    memory.page(1).heartbeat = secondBeat.0
                    let serving = [first == .serving && firstBeat.1, second == .serving && secondBeat.1].count { $0 }
                    let expected: Health =
                        phase != .serving || serving == 0 ? .unavailable : serving == 1 ? .degraded : .ok
                    let health = memory.health(now: now, silenceMax: 5_000_000_000)
                    #expect(health == expected, "\(phase), \(first) \(firstBeat), \(second) \(secondBeat)")
                }
            }
        }
    }
}

extension `The health of the relay` {
    @Test func `is unavailable while a worker keeps crashing, whatever the others do`() throws {
        let fixture = try Fixture(workers: 3)
        let memory = fixture.memory
        memory.phase = .serving
        for worker in 0..<3 {
            memory.page(worker).state = .serving
            memory.page(worker).heartbeat = second
        }
        let limit = Limits.deathsInRowUnhealthy
        for (deaths, expected) in [(0, Health.ok), (limit - 1, .ok), (limit, .unavailable), (limit + 1, .unavailable)] {
            memory.page(1).deathsInRow = deaths
            #expect(memory.page(1).deathsInRow == deaths)
            #expect(memory.health(now: second, silenceMax: second) == expected)
        }
    }
}

extension `The health of the relay` {
    @Test func `is that of the current workers: those that leave and free pages don't count`() throws {
        let fixture = try Fixture(workers: 1)
        let memory = fixture.memory
        memory.phase = .serving
        memory.page(0).state = .serving
        memory.page(0).heartbeat = second
        #expect(memory.health(now: second, silenceMax: second) == .ok)
        // A successor takes over, and its predecessor is gone.
        memory.assign(5, .current)
        #expect(memory.health(now: second, silenceMax: second) == .degraded)
        memory.page(5).state = .serving
        memory.page(5).heartbeat = second
        memory.assign(0, .leaving)
        memory.page(0).state = .down
        #expect(memory.health(now: second, silenceMax: second) == .ok)
        memory.assign(0, .none)
        #expect(memory.health(now: second, silenceMax: second) == .ok)
        memory.assign(5, .leaving)
        #expect(memory.health(now: second, silenceMax: second) == .unavailable)
    }
}

@Suite struct `The join limiter` {
    private let start: UInt64 = 1_000_000 * second

    @Test func `admits a burst, then one for each interval that passes`() throws {
        let memory = try Fixture().memory
        // 10 a second, 20 at once: an interval of 100 ms.
        for _ in 0..<20 { #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start) == nil) }
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start) == 100_000_000)
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 1) == 99_999_999)
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 99_999_999) == 1)
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 100_000_000) == nil)
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 100_000_000) == 100_000_000)
        // Half a second: five more, and not six.
        for _ in 0..<5 { #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 600_000_000) == nil) }
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 600_000_000) == 100_000_000)
        // However long: no more than the burst.
        for _ in 0..<20 { #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 3600 * second) == nil) }
        #expect(memory.admit(key: 7, rate: 10, burst: 20, now: start + 3600 * second) != nil)
    }

    @Test(arguments: [(1, 2), (3, 6), (100, 200), (100_000, 200_000)])
    func `does as a bucket of tokens does`(rate: Int, burst: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        let memory = try Fixture().memory
        let interval = second / UInt64(rate)
        // A bucket that gains a token an interval, in nanoseconds' worth.
        var worth = UInt64(burst) * interval
        var now = start
        for round in 0..<5000 {
            let pause =
                UInt64.random(in: 0...3, using: &random) == 0
                ? UInt64.random(in: 0...(2 * interval), using: &random) : 0
            now += pause
            worth = min(worth + pause, UInt64(burst) * interval)
            let wait = memory.admit(key: 9, rate: rate, burst: burst, now: now)
            if worth >= interval {
                worth -= interval
                #expect(wait == nil, "seed \(seed), round \(round)")
            } else {
                #expect(wait == interval - worth, "seed \(seed), round \(round)")
            }
        }
    }

    @Test func `limits each address by itself`() throws {
        let memory = try Fixture().memory
        for _ in 0..<2 { #expect(memory.admit(key: 1, rate: 1, burst: 2, now: start) == nil) }
        #expect(memory.admit(key: 1, rate: 1, burst: 2, now: start) != nil)
        for key in 2...5000 as ClosedRange<UInt64> {
            let waits = (0..<3).map { _ in memory.admit(key: key, rate: 1, burst: 2, now: start) }
            #expect(waits == [nil, nil, second])
        }
        #expect(memory.admit(key: 1, rate: 1, burst: 2, now: start) != nil)
        #expect(memory.limiterEvictions == 0)
    }

    @Test func `knows an address in every worker, and not when a clock is a little behind`() throws {
        let fixture = try Fixture()
        let other = try SharedMemory.map(fixture.file)
        #expect(fixture.memory.admit(key: 3, rate: 1, burst: 2, now: start) == nil)
        #expect(other.admit(key: 3, rate: 1, burst: 2, now: start) == nil)
        #expect(fixture.memory.admit(key: 3, rate: 1, burst: 2, now: start) == second)
        #expect(other.admit(key: 3, rate: 1, burst: 2, now: start - 5) == second + 5)
    }

    @Test func `pushes the entry nearest to its end out of a full neighbourhood, and counts it`() throws {
        let fixture = try Fixture(workers: 1)
        let table = 8192 * 1025 + 16 * 1024
        // Every place is another address's, with an hour to go, but for one of each sixteen with a second to go.
        let hour = start + 3600 * second
        for place in 0..<262_144 {
            fixture.setWord(table + 16 * place, 1_000_000 + UInt64(place))
            fixture.setWord(table + 16 * place + 8, place.isMultiple(of: 16) ? start + second : hour)
        }
        // One join of another address: it takes a place, and what that place owes, which is less than its own limit.
        let wait = fixture.memory.admit(key: 5, rate: 1, burst: 4, now: start)
        #expect(wait == nil)
        #expect(fixture.memory.limiterEvictions == 1)
        let places = (0..<262_144).filter { fixture.word(table + 16 * $0) == 5 }
        #expect(places.count == 1)
        let place = try #require(places.first)
        #expect(place.isMultiple(of: 16))
        let arrival = fixture.word(table + 16 * place + 8)
        #expect(arrival == start + 2 * second)
        // Its own entry from now on.
        #expect(fixture.memory.admit(key: 5, rate: 1, burst: 4, now: start) == nil)
        #expect(fixture.memory.limiterEvictions == 1)
    }

    @Test func `takes an entry whose time has passed without a debt and without counting it`() throws {
        let fixture = try Fixture(workers: 1)
        let table = 8192 * 1025 + 16 * 1024
        for place in 0..<262_144 {
            fixture.setWord(table + 16 * place, 1_000_000 + UInt64(place))
            fixture.setWord(table + 16 * place + 8, start)
        }
        for _ in 0..<2 { #expect(fixture.memory.admit(key: 5, rate: 1, burst: 2, now: start) == nil) }
        #expect(fixture.memory.admit(key: 5, rate: 1, burst: 2, now: start) == second)
        #expect(fixture.memory.limiterEvictions == 0)
    }

    @Test func `is neither stopped nor shut by an arrival time that none of its workers wrote`() throws {
        let fixture = try Fixture()
        #expect(fixture.memory.admit(key: 5, rate: 1, burst: 2, now: start) == nil)
        let table = 8192 * 1025 + 16 * 1024
        let places = (0..<262_144).filter { fixture.word(table + 16 * $0) == 5 }
        let place = try #require(places.first)
        for arrival in [.max, .max - 1, start + 61 * second] as [UInt64] {
            fixture.setWord(table + 16 * place + 8, arrival)
            #expect(fixture.memory.admit(key: 5, rate: 1, burst: 2, now: start) == nil)
        }
    }

    @Test func `admits no more than its whole table in one instant, however many addresses come`() throws {
        let memory = try Fixture().memory
        var admitted = 0
        for key in 1...1_200_000 as ClosedRange<UInt64>
        where memory.admit(key: key, rate: 1, burst: 2, now: start) == nil {
            admitted += 1
        }
        #expect(admitted <= 2 * 262_144)
        #expect(admitted > 262_144)
        #expect(memory.limiterEvictions > 0)
        // When the flood is over, all is as before.
        #expect(memory.admit(key: 999_999_999, rate: 1, burst: 2, now: start + 3 * second) == nil)
        #expect(memory.admit(key: 999_999_999, rate: 1, burst: 2, now: start + 3 * second) == nil)
        #expect(memory.admit(key: 999_999_999, rate: 1, burst: 2, now: start + 3 * second) == second)
    }

    @Test func `has a bucket of its own for joins, and one ten times as large for other requests`() throws {
        let memory = try Fixture().memory
        let keys = try #require(Address("192.0.2.1")).keys
        for (bucket, burst) in [(RateBucket.joins, 6), (.requests, 60)] {
            for _ in 0..<burst { #expect(memory.admit(keys, to: bucket, rate: 3, now: start) == nil) }
            let wait = try #require(memory.admit(keys, to: bucket, rate: 3, now: start))
            #expect(abs(Int(wait) - 2_000_000_000 / burst) <= burst)
        }
        let neighbour = try #require(Address("192.0.2.2")).keys
        #expect(memory.admit(neighbour, to: .joins, rate: 3, now: start) == nil)
    }

    @Test func `lets all networks of a /48 together have sixteen times as much as one of them`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        let memory = try Fixture().memory
        var admitted = 0
        var byNetwork: [UInt64: Int] = [:]
        for _ in 0..<5000 {
            let network = UInt64.random(in: 0..<200, using: &random)
            let keys = Address(high: 0x2001_0db8_0001_0000 | network, low: 1).keys
            guard memory.admit(keys, to: .joins, rate: 5, now: start) == nil else { continue }
            admitted += 1
            byNetwork[network, default: 0] += 1
        }
        #expect(admitted == 160, "seed \(seed)")
        #expect(byNetwork.values.allSatisfy { $0 <= 10 }, "seed \(seed)")
        // One network that is refused takes nothing from the others.
        let other = try Fixture().memory
        let greedy = Address(high: 0x2001_0db8_0001_0000, low: 1).keys
        var own = 0
        for _ in 0..<5000 where other.admit(greedy, to: .joins, rate: 5, now: start) == nil { own += 1 }
        #expect(own == 10)
        let quiet = Address(high: 0x2001_0db8_0001_0001, low: 1).keys
        #expect(other.admit(quiet, to: .joins, rate: 5, now: start) == nil)
        // And networks that are refused because of their /48 have nothing taken of their own.
        let refused = Address(high: 0x2001_0db8_0001_FFFF, low: 1).keys
        for _ in 0..<50 { #expect(memory.admit(refused, to: .joins, rate: 5, now: start) != nil) }
        let later = start + 20 * second
        for _ in 0..<10 { #expect(memory.admit(refused, to: .joins, rate: 5, now: later) == nil) }
        #expect(memory.limiterEvictions == 0)
    }

    @Test func `admits exactly a burst among many threads that join at the same time`() throws {
        let fixture = try Fixture()
        let mappings = try (0..<4).map { _ in try SharedMemory.map(fixture.file) }
        let admitted = Atomic(0)
        let start = start
        inParallel(4) { thread in
            for _ in 0..<5000 where mappings[thread].admit(key: 42, rate: 100, burst: 777, now: start) == nil {
                admitted.add(1, ordering: .relaxed)
            }
        }
        #expect(admitted.load(ordering: .relaxed) == 777)
    }
}
