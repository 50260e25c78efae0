import Glibc
import Shared
import Testing

@testable import worker

/// A worker whose rooms open and close by themselves, and whose clock is the test's.
private struct Fixture: ~Copyable {
    var inner: WorkerFixture
    /// What the supervisor knows by now, as it would keep it.
    private(set) var known: [[UInt8]: [UInt8]] = [:]

    init(_ options: WorkerFixture.Options = .init()) throws {
        let file = try SharedMemory.makeFile()
        inner = try WorkerFixture(options, try SharedMemory.create(in: file))
    }

    var worker: Worker {
        _read { yield inner.worker }
        _modify { yield &inner.worker }
    }

    static func key(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: Limits.publicKeyBytes) }

    mutating func open(_ room: [UInt8], key: UInt8 = 1) {
        #expect(worker.memory.rooms.take(max: .max))
        _ = worker.openRoom(room, hostKey: Self.key(key), source: 0)
    }

    mutating func close(_ room: [UInt8]) throws {
        let slot = try #require(worker.roomsByID[RoomID(bytes: room)])
        worker.disband(slot, .idleRoom)
    }

    /// Lets as much time pass as a report waits, or some nanoseconds less.
    mutating func wait(less nanoseconds: UInt64 = 0) {
        worker.now += Limits.hostKeyReportNanoseconds - nanoseconds
        worker.tellDueHostKeys()
    }

    /// What has been said since the last call.
    mutating func reports() -> [ControlMessage] {
        let reports = inner.reports()
        for report in reports {
            switch report {
            case .hostKeys(let keys): for key in keys { known[key.room] = key.expiry == 1 ? nil : key.publicKey }
            default: break
            }
        }
        return reports
    }

    /// Says what means nothing here until the channel takes no more.
    mutating func fillChannel() {
        while !worker.isControlBlocked { worker.tell(.routed) }
    }
}

private func held(_ rooms: [[UInt8]], key: UInt8 = 1, expiry: UInt64 = 0) -> ControlMessage {
    .hostKeys(rooms.map { .init(room: $0, publicKey: Fixture.key(key), expiry: expiry) })
}

private func over(_ rooms: [[UInt8]]) -> ControlMessage { .hostKeys(rooms.map { .over(room: $0) }) }

@Suite struct `Reports of host keys` {
    // MARK: - What is told

    @Test func `say nothing of a room that opens and closes before they leave`() throws {
        var fixture = try Fixture()
        fixture.open([1])
        try fixture.close([1])
        fixture.wait()
        let reports = fixture.reports()
        #expect(reports == [])
        #expect(fixture.worker.page[.roomsOpened] == 1 && fixture.worker.page[.roomsClosed] == 1)
    }

    @Test func `leave in one message when the oldest has waited long enough, and not before`() throws {
        var fixture = try Fixture()
        fixture.open([1])
        fixture.worker.now += Limits.hostKeyReportNanoseconds / 2
        fixture.open([2])
        fixture.worker.now -= Limits.hostKeyReportNanoseconds / 2
        fixture.wait(less: 1)
        let early = fixture.reports()
        #expect(early == [])
        fixture.worker.now += 1
        fixture.worker.tellDueHostKeys()
        let reports = fixture.reports()
        #expect(reports == [held([[1], [2]])] || reports == [held([[2], [1]])])
        fixture.wait()
        let again = fixture.reports()
        #expect(again == [])
    }

    @Test func `leave at once when they fill a message`() throws {
        var fixture = try Fixture()
        let rooms = (0..<Limits.hostKeysPerMessageMax).map { [UInt8($0)] }
        for room in rooms.dropLast() { fixture.open(room) }
        let early = fixture.reports()
        #expect(early == [])
        fixture.open(rooms[rooms.count - 1])
        let reports = fixture.reports()
        #expect(reports.count == 1 && Set(fixture.known.keys) == Set(rooms))
    }

    @Test func `take back what was told`() throws {
        var fixture = try Fixture()
        fixture.open([1])
        fixture.open([2])
        fixture.wait()
        _ = fixture.reports()
        try fixture.close([1])
        try fixture.close([2])
        fixture.wait()
        let reports = fixture.reports()
        #expect(reports == [over([[1], [2]])] || reports == [over([[2], [1]])])
    }

    @Test func `say at once that a room was opened again, so that no crash leaves the key of its host before`() throws {
        var fixture = try Fixture()
        fixture.open([1], key: 1)
        fixture.wait()
        try fixture.close([1])
        fixture.open([1], key: 2)
        let reports = fixture.reports()
        #expect(reports == [held([[1]]), held([[1]], key: 2)])
    }

    @Test func `take back what was told of a room before it closed and opened and closed again`() throws {
        var fixture = try Fixture()
        fixture.open([1], key: 1)
        fixture.wait()
        try fixture.close([1])
        fixture.open([1], key: 2)
        try fixture.close([1])
        fixture.wait()
        let reports = fixture.reports()
        #expect(reports == [held([[1]]), held([[1]], key: 2), over([[1]])])
    }

    @Test func `leave a key that outlived its worker its time, whoever comes and goes`() throws {
        var options = WorkerFixture.Options()
        let expiry = Clock.monotonicNanoseconds() + 50_000_000_000
        options.survivingKeys = [RoomID(bytes: [1]): SurvivingKey(publicKey: Fixture.key(1), expiry: expiry)]
        var fixture = try Fixture(options)
        for _ in 0..<3 {
            fixture.open([1])
            fixture.wait()
            let open = fixture.reports()
            #expect(open == [held([[1]])])
            try fixture.close([1])
            fixture.wait()
            let closed = fixture.reports()
            #expect(closed == [held([[1]], expiry: expiry)])
        }
        // Its time ends with a room open: the key is the room's from then on.
        fixture.open([1])
        fixture.wait()
        _ = fixture.reports()
        fixture.worker.now = expiry
        fixture.worker.expireKeys()
        fixture.wait()
        let over1 = fixture.reports()
        #expect(over1 == [] && fixture.worker.page[.hostKeysExpired] == 0)
        try fixture.close([1])
        fixture.wait()
        let last = fixture.reports()
        #expect(last == [over([[1]])])
    }

    @Test func `take a key that outlived its worker back when its time is over`() throws {
        var options = WorkerFixture.Options()
        let expiry = Clock.monotonicNanoseconds() + 50_000_000_000
        options.survivingKeys = [RoomID(bytes: [1]): SurvivingKey(publicKey: Fixture.key(1), expiry: expiry)]
        var fixture = try Fixture(options)
        fixture.open([1])
        try fixture.close([1])
        fixture.worker.now = expiry
        fixture.worker.expireKeys()
        fixture.wait()
        let reports = fixture.reports()
        #expect(reports == [over([[1]])])
        #expect(fixture.worker.survivingKeys.isEmpty && fixture.worker.page[.hostKeysExpired] == 1)
    }

    @Test func `keep the time of a key that comes when its room has opened again`() throws {
        var fixture = try Fixture()
        let expiry = Clock.monotonicNanoseconds() + 50_000_000_000
        fixture.open([1], key: 1)
        fixture.open([2], key: 1)
        fixture.wait()
        _ = fixture.reports()
        fixture.worker.takeKey([1], Fixture.key(1), expiry)
        // One of another host's is none.
        fixture.worker.takeKey([2], Fixture.key(2), expiry)
        try fixture.close([1])
        try fixture.close([2])
        fixture.wait()
        _ = fixture.reports()
        #expect(fixture.known == [[1]: Fixture.key(1)])
    }

    @Test func `tell at once of a key that another worker has had`() throws {
        var fixture = try Fixture()
        fixture.worker.takeKey([1], Fixture.key(1), 7)
        let reports = fixture.reports()
        #expect(reports == [held([[1]], expiry: 7)])
    }

    // MARK: - Before what

    @Test func `leave before anything else that is told`() throws {
        var fixture = try Fixture()
        fixture.open([1])
        fixture.worker.report(.routed)
        let reports = fixture.reports()
        #expect(reports == [held([[1]]), .routed])
    }

    @Test func `leave before a worker ends`() throws {
        var fixture = try Fixture()
        fixture.open([1])
        fixture.open([2])
        fixture.wait()
        try fixture.close([1])
        fixture.open([3])
        _ = fixture.reports()
        fixture.worker.sayGoodbye()
        _ = fixture.reports()
        #expect(fixture.known.isEmpty)
    }

    // MARK: - A full channel

    @Test func `wait for a channel that is full, one a room, and none is lost`() throws {
        var fixture = try Fixture()
        let rooms = (0..<200).map { [UInt8($0)] }
        for room in rooms.prefix(100) { fixture.open(room) }
        fixture.wait()
        _ = fixture.reports()
        fixture.fillChannel()
        // Half of those that are known close, others open, and many come and go.
        for room in rooms.prefix(50) { try fixture.close(room) }
        for room in rooms.suffix(100) { fixture.open(room, key: 2) }
        for number in 0..<3000 {
            fixture.open([1, UInt8(number % 256)])
            fixture.wait()
            try fixture.close([1, UInt8(number % 256)])
        }
        #expect(fixture.worker.hostKeyReports.count <= 150)
        for _ in 0..<100 {
            let reports = fixture.reports()
            fixture.worker.turn(waiting: 0)
            if reports.isEmpty { fixture.wait() }
        }
        let expected = rooms.dropFirst(50).enumerated().map { ($1, Fixture.key($0 < 50 ? 1 : 2)) }
        #expect(fixture.known == Dictionary(uniqueKeysWithValues: expected))
        #expect(fixture.worker.hostKeyReports.isEmpty && fixture.worker.page[.drop(.controlMessage)] == 0)
    }

    // MARK: - How long a worker sleeps

    @Test func `wake a worker when they are due, and let an idle one sleep as before`() throws {
        var fixture = try Fixture()
        let idle = fixture.worker.patience
        let wait = Int32(Limits.hostKeyReportNanoseconds / 1_000_000)
        #expect(idle > wait)
        fixture.open([1])
        #expect(fixture.worker.patience == wait)
        fixture.worker.now += Limits.hostKeyReportNanoseconds - 1
        // Rounded up, or it would wake too early.
        #expect(fixture.worker.patience == 1)
        fixture.worker.now += 1
        #expect(fixture.worker.patience == 0)
        fixture.worker.tellDueHostKeys()
        #expect(fixture.worker.patience == idle)
        fixture.open([2])
        try fixture.close([2])
        #expect(fixture.worker.patience == idle)
    }

    @Test func `wake nobody while the channel takes none, or nobody hears them`() throws {
        var fixture = try Fixture()
        let idle = fixture.worker.patience
        fixture.fillChannel()
        fixture.open([1])
        fixture.wait()
        #expect(!fixture.worker.hostKeyReports.isEmpty && fixture.worker.patience == idle)
        var orphan = try Fixture()
        orphan.open([1])
        _ = shutdown(orphan.inner.supervisor.number, Int32(SHUT_RDWR))
        orphan.worker.receiveControl()
        #expect(orphan.worker.isSupervisorGone && orphan.worker.hostKeyReports.isEmpty)
        orphan.open([2])
        #expect(orphan.worker.hostKeyReports.isEmpty)
    }
}
