import CLinux
import Glibc
import Shared
import Testing

@testable import worker

/// A worker whose turns a test makes, and to which it speaks as the supervisor.
final class Mover {
    private var fixture: WorkerFixture
    let pageIndex: Int
    private(set) var reports: [ControlMessage] = []

    init(_ options: WorkerFixture.Options, _ memory: SharedMemory) throws {
        fixture = try WorkerFixture(options, memory)
        pageIndex = options.page
    }

    var worker: Worker {
        _read { yield fixture.worker }
        _modify { yield &fixture.worker }
    }

    var inboxSender: Int32 { fixture.inboxSender }
    var page: WorkerPage { worker.page }
    var gauges: [UInt64] { [page[.rooms], page[.clients], page[.connections]] }
    /// What has happened to it and is not nothing.
    var counters: [String] {
        var counters = Counter.allCases.filter { page[$0] > 0 }.map { "\($0) \(page[$0])" }
        for family in CounterFamily.allCases {
            for (index, label) in family.labels.enumerated() where page[family, index] > 0 {
                counters.append("\(family) \(label) \(page[family, index])")
            }
        }
        return counters
    }
    // Of the fixture itself: debug builds of Swift 6.3 read an optional of `worker` when that is no longer lent.
    var isLeaving: Bool { fixture.worker.leaving != nil }
    var hasMoved: Bool { fixture.worker.leaving?.isDone == true }
    var isInTransit: Bool { fixture.worker.leaving?.transit != nil }
    var arrivingRooms: Int { worker.arrivingRooms }
    var hasOutputLeft: Bool { !worker.activeBatches.isEmpty || !worker.touched.isEmpty }

    func turn() {
        fixture.worker.turn(waiting: 0)
        reports += fixture.reports()
    }

    func tell(_ message: ControlMessage, _ descriptors: [Int32] = []) throws {
        try fixture.supervisor.sendAlways(message, descriptors: descriptors)
    }

    /// Takes a client's connection in, as if it had been accepted.
    func accept(_ client: Client, isSecure: Bool = false) throws {
        _ = try fixture.accept(client, isSecure: isSecure)
    }

    /// Opens a room of so many who have joined.
    ///
    /// - Returns: the clients' ends, which stay open as long as the worker.
    func openRoom(_ name: String, members count: Int) throws -> [Int32] {
        let room = fixture.openRoom(name)
        let clients = try (0..<count).map { _ in
            let (slot, client) = try fixture.enter(room)
            fixture.worker.watchAsMember(slot)
            return client
        }
        fixture.worker.tellHostKeys()
        return clients
    }

    /// From here on each piece of work takes so long.
    func setWork(nanoseconds: UInt64) {
        fixture.worker.clock = TurnClock(now: fixture.worker.clock.now, stride: nanoseconds)
    }

    /// Lets some seconds pass one by one, for timers alone.
    func pass(seconds: UInt32) { fixture.pass(seconds: seconds) }
}

extension WorkerFixture {
    /// Takes a client's connection in, as if it had been accepted.
    mutating func accept(_ client: Client, isSecure: Bool) throws -> UInt32 {
        let (socket, far) = try StreamPair().split()
        client.socket = far
        return try adopt(socket, isSecure: isSecure)
    }

    /// Takes clients in that speak TLS, and have said all that they say before they are answered.
    mutating func acceptSecurely(_ count: Int) throws -> [(slot: UInt32, client: Client)] {
        var accepted: [(slot: UInt32, client: Client)] = []
        for _ in 0..<count {
            let client = Client(isSecure: true)
            accepted.append((try accept(client, isSecure: true), client))
            client.exchange()
        }
        return accepted
    }
}

/// Workers that serve, and those that they leave to.
final class Generations {
    let memory: SharedMemory
    /// What addresses have: all that joined.
    let table: AddressTable
    private let file: Descriptor
    private(set) var old: [Mover]
    private(set) var new: [Mover] = []
    private var options: WorkerFixture.Options
    private var pages = 0

    init(_ workers: Int, _ options: WorkerFixture.Options = .init()) throws {
        file = try SharedMemory.makeFile()
        memory = try SharedMemory.create(in: file)
        table = try AddressTable.create(in: file.number, connectionsMax: 1000)
        self.options = options
        self.options.addresses = file.number
        self.options.configuration.joinsPerSecondPerAddress = 0
        old = []
        old = try make(workers)
    }

    var every: [Mover] { old + new }
    var haveMoved: Bool { old.allSatisfy(\.hasMoved) }
    /// Whether something is on its way that the new workers have not read.
    var haveUnread: Bool { new.contains { $0.arrivingRooms > 0 || !$0.worker.isInboxEmpty } }

    private func make(_ workers: Int) throws -> [Mover] {
        var options = options
        options.workers = workers
        let made = try (0..<workers).map { index in
            options.index = index
            options.page = pages
            pages = (pages + 1) % Limits.workerPages
            return try Mover(options, memory)
        }
        for mover in made { try route(mover, to: made, leaves: false) }
        return made
    }

    private func route(_ mover: Mover, to movers: [Mover], leaves: Bool) throws {
        try mover.tell(.inboxes(first: 0), movers.map(\.inboxSender))
        try mover.tell(.route(workers: movers.count, leaves: leaves))
    }

    /// New workers start.
    func prepare(_ workers: Int) throws {
        options.awaited = .init(workers: old.count, pending: Array(old.indices))
        options.survivingKeys = [:]
        new = try make(workers)
    }

    func route() throws {
        for mover in old { try route(mover, to: new, leaves: true) }
    }

    func lastCall() throws {
        for mover in old { try mover.tell(.lastCall) }
    }

    /// Counts a room of an address, in no worker.
    func charge(_ text: String) throws -> AddressCharge {
        let ledger = try AddressLedger(table, page: Limits.workerPages - 1, file: file.number)
        let taken = ledger.take(.room, try #require(Address(text)).keys, max: 9)
        return try #require(taken)
    }

    /// The new workers are the old ones.
    func finish() {
        old = new
        new = []
    }

    /// The old workers are gone, and whoever was with them.
    func kill() throws {
        for mover in old { try AddressLedger.reclaim(table, page: mover.pageIndex, file: file.number) }
        old = []
    }

    func turn(_ count: Int = 1) {
        for _ in 0..<count { for mover in every { mover.turn() } }
    }

    /// Everything at once: true when all have moved.
    func move(to workers: Int) throws -> Bool {
        try prepare(workers)
        try route()
        turn(2)
        try lastCall()
        for _ in 0..<1000 where !haveMoved { turn() }
        return haveMoved
    }
}

/// Sends what a client says.
func give(_ bytes: [UInt8], to socket: Int32) {
    let sent = send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    #expect(sent == bytes.count)
}

/// A client's end of a connection.
final class Client {
    var socket: Int32 = -1
    private let tls: TLSClient?
    private(set) var received: [UInt8] = []
    private(set) var isEnded = false
    /// What has not been given to the socket.
    private var toSend: [UInt8] = []

    init(isSecure: Bool = false) {
        tls = isSecure ? TLSClient() : nil
        tls?.receive([])
    }

    deinit {
        if socket >= 0 { _ = close(socket) }
    }

    func say(_ bytes: [UInt8]) {
        if let tls { tls.write(bytes) } else { toSend += bytes }
    }

    func say(_ frame: Frame) { say(frame.masked([1, 2, 3, 4])) }

    func updateKey(requested: Bool) { tls?.updateKey(requested: requested) }

    var isConnected: Bool { tls?.isConnected ?? true }

    /// Gives the socket some of what is to be sent, and takes what has come.
    func exchange(_ most: Int = .max) {
        if let tls { toSend += tls.output() }
        let count = min(most, toSend.count)
        let sent = send(socket, toSend, count, Int32(MSG_NOSIGNAL))
        if sent > 0 { toSend.removeFirst(sent) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(socket, &buffer, buffer.count)
            if count == 0 { isEnded = true }
            guard count > 0 else { break }
            if let tls {
                tls.receive(Array(buffer[..<count]))
                if tls.isConnected { received += tls.read() }
            } else {
                received += buffer[..<count]
            }
        }
    }

    func hangUp() {
        _ = close(socket)
        socket = -1
    }

    func join(_ room: String, as peer: String, isHost: Bool) {
        let signer = TokenSigner()
        let role = isHost ? "host" : "guest"
        let token = signer.token(#"{"room_id":"\#(room)","peer_id":"\#(peer)","role":"\#(role)"}"#)
        let key = isHost ? "&pubkey=\(TokenSigner.base64(signer.publicKey))" : ""
        let head = """
            GET /ws?room=\(room)&token=\(token)\(key) HTTP/1.1\r
            Host: relay.example\r
            Connection: Upgrade\r
            Upgrade: websocket\r
            Sec-WebSocket-Version: 13\r
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
            \r

            """
        say(Array(head.utf8))
    }

    private var headEnd: Int? {
        let end: [UInt8] = [13, 10, 13, 10]
        return received.indices.first { received[$0...].starts(with: end) }.map { $0 + 4 }
    }

    /// Of the answer to the join; nil while there is none.
    var status: Int? {
        guard headEnd != nil else { return nil }
        return Int(String(decoding: received.dropFirst(9).prefix(3), as: UTF8.self))
    }

    /// What has come behind the answer; nil if that is not whole frames.
    var frames: [Frame]? { headEnd.flatMap { Frame.parse(Array(received[$0...])) } }
}
