// A relay in one process for the target Loop: workers of two generations, and a small supervisor that does for them
// what the real one does (Sources/supervisor/Generations.swift, WorkerPlace.swift): launches, changes, deaths. Its time
// is made up, so that hours pass in an execution and pieces of work take as long as the script says.

import CLinux
import Glibc
import Logging

@testable import Shared
@testable import worker

/// What all executions share: mappings that last as long as the process. What is counted in them is 0 between
/// executions.
struct Ground: Sendable {
    let file: Int32
    let memory: SharedMemory
    let table: AddressTable
    /// A listener to which nobody comes: clients are given to workers as accept would have.
    let listener: Int32

    static let shared = Ground()

    private init() {
        do {
            let file = try SharedMemory.makeFile()
            memory = try SharedMemory.create(in: file)
            table = try AddressTable.create(in: file.number, connectionsMax: 1000)
            self.file = file.release()
        } catch {
            fatalError("no shared memory: \(error)")
        }
        memory.phase = .serving
        listener = streamPair().near
    }
}

/// Two connected stream sockets that do not block.
func streamPair() -> (near: Int32, far: Int32) {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { fatalError("no sockets: \(errno)") }
    return (ends[0], ends[1])
}

private func copy(_ descriptor: Int32) -> Int32 {
    let copied = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
    guard copied >= 0 else { fatalError("no descriptor: \(errno)") }
    return copied
}

/// A worker, with what ends with its process.
final class Process {
    var worker: Worker

    init(_ launched: consuming Launched) {
        do { worker = try Worker(launched) } catch { fatalError("no worker: \(error)") }
    }

    deinit {
        for descriptor in worker.outboxes + worker.nextOutboxes + worker.listeners { _ = close(descriptor) }
        // These last as long as a process, which this one does not.
        worker.receiveBuffer.address.deallocate()
        worker.sealBuffer.address.deallocate()
    }
}

/// A worker's place: its inbox and page outlive its processes.
final class Place {
    let index: Int
    let pageIndex: Int
    let inboxReceiver: Int32
    let inboxSender: Int32
    var process: Process?
    var control: ControlChannel?
    var hostKeys: [[UInt8]: (publicKey: [UInt8], expiry: UInt64)] = [:]
    var isRouted = false
    var hasMoved = false
    var deathsLeaving = 0

    init(index: Int, pageIndex: Int) {
        self.index = index
        self.pageIndex = pageIndex
        do { (inboxReceiver, inboxSender) = try MessagePair(bufferBytes: 1 << 20).split() } catch {
            fatalError("no inbox: \(error)")
        }
    }

    deinit {
        _ = close(inboxReceiver)
        _ = close(inboxSender)
    }

    var page: WorkerPage { Ground.shared.memory.page(pageIndex) }

    func tell(_ message: ControlMessage, _ descriptors: [Int32] = []) {
        // The other end is gone where the process is.
        do { try control?.sendAlways(message, descriptors: descriptors) } catch {}
    }
}

/// A change of generations under way.
private struct Change {
    enum Stage { case preparing, routing, moving }
    var stage = Stage.preparing
    var successors: [Place]
    var leavers: [Place]
    let workersBefore: Int
    /// The worker that is replaced; nil: all.
    let recycled: Int?
}

final class Relay {
    private let ground = Ground.shared
    let configuration: Configuration
    private let isBusy: Bool
    /// What a worker may hold, bytes; nil: as configured.
    private let memoryBytes: Int?
    private let flushPieceMembers: Int
    private let tlsContext: TLSContext
    /// CLOCK_MONOTONIC of this world, nanoseconds: far ahead of the machine's, and the same in each execution.
    private(set) var time: UInt64 = 1_000_000_000_000_000_000
    /// What a piece of work takes, nanoseconds.
    var stride: UInt64 = 0
    private(set) var places: [Place] = []
    private(set) var leavers: [Place] = []
    private var change: Change?
    private(set) var isDraining = false
    private(set) var hasKilled = false

    init(
        _ configuration: Configuration, workers: Int, isBusy: Bool, memoryBytes: Int?, flushPieceMembers: Int,
        tlsContext: TLSContext
    ) {
        self.configuration = configuration
        self.isBusy = isBusy
        self.memoryBytes = memoryBytes
        self.flushPieceMembers = flushPieceMembers
        self.tlsContext = tlsContext
        places = makePlaces(Array(0..<workers))
        for place in places { launch(place) }
    }

    /// Every place that has a process, or may get one.
    var everyPlace: [Place] {
        places + (change?.stage == .preparing ? change?.successors ?? [] : []) + leavers
    }
    var isChanging: Bool { change != nil }

    // MARK: - Time and turns

    func pass(_ nanoseconds: UInt64) { time += nanoseconds }

    /// One turn of a place's worker, and what the supervisor does then.
    func turn(_ place: Place, advancing: Bool = true) {
        guard let process = place.process else { return }
        process.worker.clock = TurnClock(now: time, stride: stride)
        process.worker.turn(waiting: 0)
        time = max(time, process.worker.clock.now)
        claim(!process.worker.hasFailed, "a worker gives up")
        receive(place)
        if isFinished(process) {
            process.worker.sayGoodbye()
            ended(place, isGood: true)
        }
        if advancing { advanceChange() }
    }

    /// As Worker.isFinished.
    private func isFinished(_ process: Process) -> Bool {
        let isEmpty = process.worker.connections.count == 0
        if let leaving = process.worker.leaving, leaving.isDone { return isEmpty || time >= leaving.deadline }
        guard let deadline = process.worker.drainDeadline else { return false }
        return time >= deadline || isEmpty && process.worker.isInboxEmpty && process.worker.awaiting.isOver
    }

    private func receive(_ place: Place) {
        guard place.control != nil else { return }
        while true {
            switch place.control?.receive() {
            case .message(.hostKeys(let keys), _):
                for key in keys {
                    let isOver = key.expiry != 0 && key.expiry <= time
                    place.hostKeys[key.room] = isOver ? nil : (key.publicKey, key.expiry)
                }
            case .message(.routed, _): place.isRouted = true
            case .message(.moved, _): place.hasMoved = true
            case .message(let other, _): fatalError("a worker says \(other.name)")
            case .nothing: return
            case .closed: return
            case nil: return
            case .malformed(let error): fatalError("a worker says nothing that can be read: \(error)")
            case .failed(let error): fatalError("\(error)")
            }
        }
    }

    // MARK: - Launching

    private func makePlaces(_ indices: [Int]) -> [Place] {
        let taken = Set(everyPlace.map(\.pageIndex))
        let pages = (0..<16).filter { !taken.contains($0) }
        return zip(indices, pages).map { Place(index: $0, pageIndex: $1) }
    }

    private func isNew(_ place: Place) -> Bool { change?.successors.contains { $0 === place } ?? false }

    private func serving(after change: Change) -> [Place] {
        guard let recycled = change.recycled else { return change.successors }
        var all = places
        all[recycled] = change.successors[0]
        return all
    }

    /// Starts processes where there are none.
    func launchMissing() {
        guard !isDraining else { return }
        for place in everyPlace where place.process == nil { launch(place) }
    }

    private func launch(_ place: Place) {
        let standsBy = isNew(place) && change?.stage == .preparing
        let isLeaver = leavers.contains { $0 === place }
        var peers = places
        if let change, standsBy { peers = serving(after: change) }
        var awaited = ControlMessage.Awaited(workers: 1, pending: [])
        if let change, isNew(place) {
            awaited = .init(
                workers: change.workersBefore, pending: change.leavers.filter { !$0.hasMoved }.map(\.index))
        }
        ground.memory.assign(place.pageIndex, isLeaver ? .leaving : .current)
        var keys: [RoomID: SurvivingKey] = [:]
        for (room, key) in place.hostKeys {
            keys[RoomID(bytes: room)] = SurvivingKey(publicKey: key.publicKey, expiry: key.expiry)
        }
        do {
            let (control, supervisor) = try MessagePair(bufferBytes: 1 << 18).split()
            let launched = Launched(
                index: place.index, page: place.pageIndex, standsBy: standsBy || isLeaver, awaited: awaited,
                configuration: configuration, placementKey: [UInt8](0..<16), memory: ground.memory,
                addresses: try AddressLedger(ground.table, page: place.pageIndex, file: ground.file),
                logger: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }, listeners: [copy(ground.listener)],
                inbox: Descriptor(owning: copy(place.inboxReceiver)), outboxes: peers.map { copy($0.inboxSender) },
                control: ControlChannel(Descriptor(owning: control)), survivingKeys: keys,
                ciphers: try RecordCiphers(), tlsContext: tlsContext, tickets: nil, ticketGeneration: 0)
            place.control = ControlChannel(Descriptor(owning: supervisor))
            place.process = Process(launched)
        } catch {
            fatalError("no worker: \(error)")
        }
        place.page.zeroGauges()
        place.page.state = .serving
        place.process?.worker.begin(at: time, isBusy: isBusy, memoryBytes: memoryBytes)
        place.process?.worker.flushPieceMembers = flushPieceMembers
        if isLeaver {
            sendRoute(to: place, leaves: true)
            if change?.stage == .moving { place.tell(.lastCall) }
        }
    }

    private func sendRoute(to place: Place, leaves: Bool) {
        place.tell(.inboxes(first: 0), places.map(\.inboxSender))
        place.tell(.route(workers: places.count, leaves: leaves))
    }

    // MARK: - Changes

    /// Begins a change, if none is under way.
    ///
    /// - Parameter recycled: the worker that is replaced; nil: all, by so many.
    func beginChange(workers: Int, recycled: Int?) {
        guard change == nil, !isDraining, leavers.count < 4 else { return }
        let recycled = recycled.map { $0 % places.count }
        change = Change(
            successors: [], leavers: recycled.map { [places[$0]] } ?? places, workersBefore: places.count,
            recycled: recycled)
        let successors = makePlaces(recycled.map { [$0] } ?? Array(0..<workers))
        change?.successors = successors
        for place in successors { launch(place) }
    }

    func advanceChange() {
        guard let now = change, !isDraining else { return }
        switch now.stage {
        case .preparing: commit(now)
        case .routing:
            guard everyPlace.allSatisfy({ $0.isRouted || isNew($0) }) else { return }
            change?.stage = .moving
            for place in now.leavers { place.tell(.lastCall) }
        case .moving:
            guard now.leavers.allSatisfy(\.hasMoved) else { return }
            change = nil
            for place in places {
                for leaver in now.leavers { place.tell(.sourceGone(index: leaver.index)) }
            }
        }
    }

    private func commit(_ now: Change) {
        let staying = places.filter { place in !now.leavers.contains { $0 === place } }
        let stragglers = leavers
        places = serving(after: now)
        leavers += now.leavers
        change?.stage = .routing
        for place in now.successors { place.tell(.serve) }
        for place in now.leavers { ground.memory.assign(place.pageIndex, .leaving) }
        for place in staying + stragglers + now.leavers {
            let leaves = !staying.contains { $0 === place }
            place.isRouted = !leaves && place.process == nil || place.hasMoved && place.control == nil
            if leaves && place.process == nil && !place.hasMoved {
                launch(place)
                continue
            }
            sendRoute(to: place, leaves: leaves)
        }
    }

    // MARK: - Ends

    /// A worker dies between two turns.
    func kill(_ place: Place) {
        guard place.process != nil else { return }
        receive(place)
        hasKilled = true
        ended(place, isGood: false)
    }

    private func ended(_ place: Place, isGood: Bool) {
        ground.memory.rooms.give(place.page[.rooms])
        ground.memory.connections.give(place.page[.connections])
        ground.memory.memoryPool.give(Int(place.page[.memoryGranted]))
        place.process = nil
        place.control = nil
        do { try AddressLedger.reclaim(ground.table, page: place.pageIndex, file: ground.file) } catch {
            fatalError("\(error)")
        }
        place.page.state = .down
        place.page.zeroGauges()
        for room in place.hostKeys.keys where place.hostKeys[room]?.expiry == 0 {
            place.hostKeys[room]?.expiry = time + Limits.hostKeySurvivalNanoseconds
        }
        place.hostKeys = place.hostKeys.filter { $0.value.expiry > time }
        guard !isDraining else { return }
        if let now = change, now.stage == .preparing, isNew(place) {
            // Given up: the workers that serve have noticed nothing.
            change = nil
            for other in now.successors where other !== place && other.process != nil { ended(other, isGood: false) }
            return
        }
        guard let leaver = leavers.firstIndex(where: { $0 === place }) else {
            place.isRouted = true
            return
        }
        if place.hasMoved {
            leavers.remove(at: leaver)
            ground.memory.assign(place.pageIndex, .none)
            return
        }
        claim(!isGood, "a worker that leaves ends before it has moved")
        for worker in places where worker.process != nil {
            let keys = place.hostKeys.map { room, key in
                ControlMessage.HostKey(room: room, publicKey: key.publicKey, expiry: key.expiry)
            }
            if !keys.isEmpty { worker.tell(.hostKeys(keys)) }
            worker.tell(.sourceGone(index: place.index))
        }
        place.hostKeys = [:]
        place.isRouted = false
        place.deathsLeaving += 1
        guard place.deathsLeaving >= Limits.leaverDeathsMax else { return }
        place.hasMoved = true
        leavers.remove(at: leaver)
        ground.memory.assign(place.pageIndex, .none)
        discardInbox(of: place)
    }

    private func discardInbox(of place: Place) {
        var bytes = [UInt8](repeating: 0, count: Limits.receiveBufferBytes)
        var descriptors: [Int32] = [-1, -1]
        while true {
            var count = 0
            let received = clinux_receive_message(
                place.inboxReceiver, &bytes, bytes.count, &descriptors, descriptors.count, &count)
            if received <= 0 { return }
            for descriptor in descriptors.prefix(count) { _ = close(descriptor) }
            if count > 0 { ground.memory.connections.give() }
            ground.table.give(AddressCharge(inMessage: bytes.span.extracting(0..<received).bytes))
        }
    }

    /// The relay stops.
    func drain(seconds: UInt64) {
        guard !isDraining else { return }
        if let now = change, now.stage == .preparing {
            for place in now.successors where place.process != nil { ended(place, isGood: false) }
        }
        change = nil
        isDraining = true
        for place in everyPlace { place.tell(.drain(deadline: time + seconds * 1_000_000_000)) }
    }

    /// The relay has drained, and ends.
    func end() {
        for place in everyPlace { discardInbox(of: place) }
        // Rooms on their way are counted and are nowhere.
        ground.memory.rooms.give(ground.memory.rooms.count)
    }
}

extension Worker {
    /// As `run` begins, in a world with another time.
    fileprivate mutating func begin(at time: UInt64, isBusy: Bool, memoryBytes: Int?) {
        now = time
        second = UInt32(time / 1_000_000_000)
        clock = TurnClock(now: time)
        connectionTimers = TimerWheel(now: second)
        roomTimers = TimerWheel(now: second)
        load = LoadMeter(now: time)
        if isBusy { load.addTurn(from: time, to: time + 3_600_000_000_000) }
        page.heartbeat = time
        if let memoryBytes {
            // A floor of so many bytes, and no pool.
            var small = configuration
            small.messageBytesMax = (memoryBytes - (6 << 20)) / 2
            small.memoryBytesMax = 0
            held = HeldMemory(MemoryBudget(small, memory.memoryPool))
        }
        held.budget.takeFloor()
        page[.memoryGranted] = UInt64(held.budget.granted)
    }

    /// Takes a client's connection as accept(2) would have brought it.
    mutating func accept(_ socket: Int32, peer: Address, isSecure: Bool, at time: UInt64) {
        now = max(now, time)
        second = UInt32(now / 1_000_000_000)
        _ = take(Descriptor(owning: socket), from: peer, isSecure: isSecure)
    }
}
