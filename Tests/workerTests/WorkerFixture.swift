import Glibc
import Logging
import Shared
import Testing

@testable import worker

/// A worker that is never run, with connections whose clients are the test.
struct WorkerFixture: ~Copyable {
    /// What of a worker's launch a test may care for.
    struct Options {
        var index = 0
        /// Of its generation: all their inboxes are its own until it is told others.
        var workers = 1
        var page = 0
        var awaited = ControlMessage.Awaited(workers: 1, pending: [])
        var standsBy = false
        var survivingKeys: [RoomID: SurvivingKey] = [:]
        var configuration = Configuration()
        var tlsContext: TLSContext?
        /// The file with a table of addresses, if connections and rooms are counted in one.
        var addresses: Int32?
        /// What the inbox's buffers are asked to be.
        var inboxBytes: Int32 = 65_536
        /// What each piece of work takes: the time between two looks at the clock.
        var workNanoseconds: UInt64 = 0
        /// Members of a room that are sent to between two looks at the clock.
        var flushPieceMembers = Limits.flushPieceMembers
        /// For an hour, whatever it does.
        var isBusy = false
    }

    static let placementKey = [UInt8](0..<16)

    var worker: Worker
    /// The other end of its control channel.
    var supervisor: ControlChannel
    /// The send end of its inbox.
    let inboxSender: Int32
    /// Clients' ends, and what else the worker is told of.
    private var ends: [Int32]

    init() throws {
        let file = try SharedMemory.makeFile()
        try self.init(Options(), try SharedMemory.create(in: file))
    }

    init(_ options: Options, _ memory: SharedMemory) throws {
        memory.assign(options.page, .current)
        let (control, supervisor) = try MessagePair(bufferBytes: 1 << 20).split()
        let (inbox, inboxSender) = try MessagePair(bufferBytes: options.inboxBytes).split()
        let (listener, nobody) = try StreamPair().split()
        let copies = (0..<options.workers).map { _ in fcntl(inboxSender, F_DUPFD_CLOEXEC, 3) }
        var ledger: AddressLedger?
        if let file = options.addresses, let table = try AddressTable.map(file) {
            ledger = try AddressLedger(table, page: options.page, file: file)
        }
        worker = try Worker(
            Launched(
                index: options.index, page: options.page, standsBy: options.standsBy,
                awaited: options.awaited, configuration: options.configuration, placementKey: Self.placementKey,
                memory: memory, addresses: ledger, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
                listeners: [listener],
                inbox: Descriptor(owning: inbox), outboxes: copies,
                control: ControlChannel(Descriptor(owning: control)), survivingKeys: options.survivingKeys,
                ciphers: try RecordCiphers(), tlsContext: options.tlsContext, tickets: nil, ticketGeneration: 0))
        self.supervisor = ControlChannel(Descriptor(owning: supervisor))
        self.inboxSender = inboxSender
        ends = [inboxSender, nobody]
        worker.held.budget.takeFloor()
        // Its turns take no time, so that each does all there is, however slow the machine.
        worker.clock = TurnClock(now: worker.now, stride: options.workNanoseconds)
        worker.flushPieceMembers = options.flushPieceMembers
        if options.isBusy { worker.makeBusy() }
    }

    deinit {
        for descriptor in ends + worker.outboxes + worker.nextOutboxes + worker.listeners { _ = close(descriptor) }
    }

    /// A connection that has just been accepted, and its client's end, which stays open as long as the fixture.
    mutating func accept(
        isSecure: Bool = false, peer: String = "192.0.2.1"
    ) throws -> (slot: UInt32, client: Int32) {
        let (socket, client) = try StreamPair().split()
        ends.append(client)
        return (try adopt(socket, isSecure: isSecure, peer: peer), client)
    }

    /// The same with a socket of the test's.
    mutating func adopt(_ socket: Int32, isSecure: Bool = false, peer text: String = "192.0.2.1") throws -> UInt32 {
        let peer = try #require(Address(text))
        #expect(worker.memory.connections.take(max: 100_000))
        let adopted = worker.adopt(
            Connection(socket: Descriptor(owning: socket), peer: peer, isSecure: isSecure, now: worker.second))
        return try #require(adopted)
    }

    /// An open connection that is in no room, and its client's end, which stays open as long as the fixture.
    mutating func open(peer: String = "192.0.2.1") throws -> (slot: UInt32, client: Int32) {
        let (slot, client) = try accept(peer: peer)
        worker.connections[slot].phase = .open
        worker.startLiveness(slot)
        return (slot, client)
    }

    /// A room, opened by somebody at an address with this key.
    mutating func openRoom(_ room: String, source: UInt64 = 1) -> UInt32 {
        #expect(worker.memory.rooms.take(max: .max))
        return worker.openRoom(
            Array(room.utf8), hostKey: [UInt8](repeating: 1, count: Limits.publicKeyBytes), source: source)
    }

    /// A member of a room, and its client's end.
    mutating func enter(_ room: UInt32) throws -> (slot: UInt32, client: Int32) {
        let member = try open()
        worker.enter(member.slot, room)
        return member
    }

    /// A turn in which a member says something.
    mutating func say(_ slot: UInt32, _ payload: [UInt8]) {
        worker.sayUnsettled(slot, payload)
        worker.settle()
    }

    /// A turn in which bytes come on an open connection.
    mutating func receive(_ slot: UInt32, _ bytes: [UInt8]) {
        worker.takeFrames(slot, bytes.span.bytes)
        worker.settle()
    }

    /// Lets some seconds pass one by one, for timers alone.
    mutating func pass(seconds: UInt32) {
        for _ in 0..<seconds {
            worker.second += 1
            while let slot = worker.connectionTimers.next(upTo: worker.second, in: &worker.connections) {
                worker.connectionDue(slot)
            }
            worker.settle()
        }
    }

    /// Whatever the worker has told its supervisor since the last call.
    mutating func reports() -> [ControlMessage] {
        var reports: [ControlMessage] = []
        while case .message(let message, _) = supervisor.receive() { reports.append(message) }
        return reports
    }
}

extension Worker {
    /// Takes a message of a member's. The turn goes on.
    mutating func sayUnsettled(_ slot: UInt32, _ payload: [UInt8]) {
        _ = unsafe payload.withUnsafeBytes { bytes in say(slot, unsafe bytes.bytes, key: 0, isText: false) }
    }

    /// Lets the worker be busy for an hour, whatever it does.
    fileprivate mutating func makeBusy() {
        load.addTurn(from: now, to: now + 3_600_000_000_000)
    }
}
