// The worker: one event loop, everything it owns, and the order of one turn, which is `turn()`.
//
// The parts of a turn stand in the folders that data flows through: Connection/ (accept, read, write, close, liveness),
// HTTP/, Join/, Handoff/, WebSocket/, Room/, Control/. Each is an extension of this struct, so that all state has one
// owner, is reached without a lock, and exclusive access is checked by the compiler and not at run time.

import Glibc
import Logging
import Shared

struct Worker: ~Copyable {
    // What it was launched with
    let index: Int
    let configuration: Configuration
    let placementKey: [UInt8]
    var placement: Placement
    let memory: SharedMemory
    let page: WorkerPage
    /// Nil where RELAY_MAX_CONNECTIONS_PER_IP has never been on.
    var addresses: AddressLedger?
    var logger: Logger

    // Descriptors
    var poller: Poller
    /// Its own, and those of workers that there were more of before a reload.
    var listeners: [Int32]
    var isAccepting: Bool
    var isReadingInbox: Bool
    /// It can't do what it is for, and ends.
    var hasFailed = false
    let inbox: Descriptor
    /// Send ends of all workers' inboxes, by worker.
    var outboxes: [Int32]
    /// Those of a generation that is about to be in force.
    var nextOutboxes: [Int32] = []
    var control: ControlChannel

    // Connections and rooms
    var connections = Slab<Connection>()
    var connectionTimers: TimerWheel<Connection>
    var rooms = Slab<Room>()
    var roomTimers: TimerWheel<Room>
    var roomsByID: [RoomID: UInt32] = [:]
    /// Host keys that outlived their rooms' worker: they let guests in until `expiry` (CLOCK_MONOTONIC nanoseconds).
    var survivingKeys: [RoomID: SurvivingKey] = [:]
    var batches = Slab<RoomBatch>()
    var spareBatches: [UInt32] = []

    // TLS
    /// Nil where the relay serves plain HTTP.
    var tlsContext: TLSContext?
    var handshakes: [UInt32: TLSHandshake] = [:]
    var handshakesPeak = 0
    var waitingHandshakes = WaitingHandshakes()
    var sessions = Slab<TLSSession>()
    let ciphers: RecordCiphers
    let tickets: TicketMemory?
    var ticketGeneration: UInt64
    let sealBuffer: LoopBuffer

    // This turn
    /// CLOCK_MONOTONIC nanoseconds and seconds at the turn's beginning.
    var now: UInt64
    var second: UInt32
    var activeBatches: [UInt32] = []
    /// Those of them that wait for a later turn, since the rooms were last flushed.
    var heldBatches = 0
    var touched: [UInt32] = []
    var doomed: [(id: SlotID, reason: CloseReason?)] = []
    /// Connections in `departed`, which another worker has already.
    var departing = 0
    var due: [UInt32] = []
    var tally = Tally()
    /// The longest turn of this second so far, nanoseconds.
    var lagPeak: UInt64 = 0
    var gather = GatherList()
    var handshakeSteps = 0
    var resumedHandshakes: [SlotID] = []
    let receiveBuffer: LoopBuffer

    // Waiting
    /// Whether it is worth while to let what is said wait for more.
    var load: LoadMeter
    /// Connections in `handingOver`, in the order in which they came.
    var handovers: [SlotID] = []
    /// While the process is out of descriptors the listener is not watched; when to try again, 0 if it is watched.
    var acceptAgainAt: UInt64 = 0
    /// When every connection must be gone; nil while the relay serves.
    var drainDeadline: UInt64?
    var drainNext: UInt32 = 0
    var drainReason = CloseReason.shutdown
    var drainBegan: UInt64 = 0
    /// Set when everything here goes to the next generation.
    var leaving: Leaving?
    var leaveSecond: UInt32 = 0
    /// What is on its way here from the generation before, and rooms of which a part has come.
    var awaiting: Awaiting
    var arrivingRooms = 0
    var acceptLogRate = LogRate(perSecond: 1, burst: 5)
    var addressLogRate = LogRate(perSecond: 1, burst: 5)
    var handoffLogRate = LogRate(perSecond: 1, burst: 5)
    var memoryLogRate = LogRate(perSecond: 1, burst: 5)
    var tlsLogRate = LogRate(perSecond: 1, burst: 5)
    var isSupervisorGone = false
    var isControlBlocked = false
    var hostKeyReports = HostKeyReports()
    /// Memory of queues that hold bytes for clients, over all connections (Connection/Memory.swift).
    var heldBytes = 0
    var spareQueues = QueuePool()

    /// What this turn's messages add to the counters: published once a turn.
    struct Tally {
        var voiceReceived: UInt64 = 0
        var dataReceived: UInt64 = 0
        var bytesReceived: UInt64 = 0
        var voiceDelivered: UInt64 = 0
        var dataDelivered: UInt64 = 0
        var bytesSent: UInt64 = 0
        var voiceBytesReceived: UInt64 = 0
        var dataBytesReceived: UInt64 = 0
        var voiceBytesDelivered: UInt64 = 0
        var dataBytesDelivered: UInt64 = 0
        /// Messages delivered of batches that had been held back, and when the oldest of those was opened.
        var heldDelivered: UInt64 = 0
        var heldSince = UInt64.max

        var delivered: UInt64 { voiceDelivered + dataDelivered }
    }

    init(_ launched: consuming Launched) throws(SystemError) {
        // All that can fail comes first: a value half made can't be unmade.
        let poller = try Poller(eventsMax: Limits.eventsPerTurnMax)
        try poller.add(launched.control.number, .read, .control)
        // One that stands by reads no inbox either: what waits there is for a worker that knows whether it serves or leaves.
        if !launched.standsBy {
            try poller.add(launched.inbox.number, .read, .inbox)
            for (place, listener) in launched.listeners.enumerated() {
                try poller.add(listener, .read, .listener(place))
            }
        }
        self.poller = poller
        isAccepting = !launched.standsBy
        isReadingInbox = !launched.standsBy
        index = launched.index
        configuration = launched.configuration
        placementKey = launched.placementKey
        placement = Placement(key: launched.placementKey, workers: launched.outboxes.count)
        awaiting = Awaiting(launched.awaited, placementKey: launched.placementKey)
        memory = launched.memory
        page = launched.memory.page(launched.page)
        addresses = launched.addresses
        logger = launched.logger
        outboxes = launched.outboxes
        now = Clock.monotonicNanoseconds()
        second = UInt32(now / 1_000_000_000)
        load = LoadMeter(now: now)
        connectionTimers = TimerWheel(now: second)
        roomTimers = TimerWheel(now: second)
        receiveBuffer = LoopBuffer(bytes: Limits.receiveBufferBytes)
        sealBuffer = LoopBuffer(bytes: Limits.tlsSealBytesMax)
        ciphers = launched.ciphers
        tlsContext = launched.tlsContext
        tickets = launched.tickets
        ticketGeneration = launched.ticketGeneration
        survivingKeys = launched.survivingKeys
        listeners = launched.listeners
        inbox = launched.inbox
        control = launched.control
    }

    /// Turns the loop until the worker has drained or its supervisor is gone and so are its clients.
    mutating func run() {
        page.zeroGauges()
        page.state = .serving
        page.heartbeat = now
        report(.ready)
        logger.debug("serving")
        while !isFinished { turn(waiting: patience) }
        sayGoodbye()
        logger.debug("finished", metadata: ["connections": "\(connections.count)"])
    }

    /// One turn, whose wait for events takes at most some milliseconds.
    mutating func turn(waiting milliseconds: Int32) {
        let ready = poller.wait(milliseconds: milliseconds)
        now = Clock.monotonicNanoseconds()
        let before = second
        second = UInt32(truncatingIfNeeded: now / 1_000_000_000)
        if second != before {
            expireKeys()
            renewTicketKeys()
            publishSecond()
        }
        resumeHandshakes()
        for index in 0..<ready {
            let event = poller.event(index)
            switch event.source {
            case .control: receiveControl()
            case .inbox: receiveHandoffs()
            case .listener(let place):
                // It may have been given up earlier in this turn.
                if isAccepting { acceptConnections(place) }
            case .connection(let id):
                // An event may be for a connection that an earlier one of this turn has ended.
                guard connections.contains(id), !connections[id.slot].isFrozen else { continue }
                if event.isBroken && !connections[id.slot].interest.contains(.read) {
                    // Nothing would read or write it, and the event would come back at once.
                    doom(id.slot, .socketError)
                    continue
                }
                if event.isWritable { resumeWriting(id.slot) }
                if event.isReadable { read(id.slot) }
            }
        }
        forgetGone()
        retryHandovers()
        retryAccept()
        runTimers()
        if drainDeadline != nil { drainSome() }
        settle()
        leaveSome()
        tellDueHostKeys()
        publish()
    }

    /// Milliseconds that the next wait may take: a heartbeat a second, and less while something must be tried again.
    var patience: Int32 {
        if canResumeHandshake { return 0 }
        if let leaving, !leaving.isDone { return Limits.leavingTurnMilliseconds }
        if heldBatches > 0 { return Limits.holdingTurnMilliseconds }
        let isIdle = handovers.isEmpty && acceptAgainAt == 0 && drainDeadline == nil
        return min(isIdle ? 1000 : Limits.busyTurnMilliseconds, hostKeyPatience)
    }

    /// Flushes what the turn has brought forth and removes who is to go, until neither brings forth more: a leave is said to
    /// those who stay, and saying it may find another connection broken. It ends, because each round removes a connection.
    mutating func settle() {
        repeat {
            flushRooms()
            flushTouched()
            removeDoomed()
            relieveMemory()
        } while activeBatches.count > heldBatches || !touched.isEmpty || !doomed.isEmpty
    }

    private mutating func runTimers() {
        connectionTimers.turn(to: second, in: &connections, due: &due)
        for slot in due where connections.isOccupied(slot) { connectionDue(slot) }
        due.removeAll(keepingCapacity: true)
        roomTimers.turn(to: second, in: &rooms, due: &due)
        for slot in due where rooms.isOccupied(slot) { roomDue(slot) }
        due.removeAll(keepingCapacity: true)
    }

    /// Makes this turn's numbers seen.
    mutating func publish() {
        let end = Clock.monotonicNanoseconds()
        let lag = end - min(end, now)
        lagPeak = max(lagPeak, lag)
        page.record(lag, in: .loopLag)
        load.addTurn(from: now, to: end)
        if tally.delivered > tally.heldDelivered {
            page.record(lag, count: tally.delivered - tally.heldDelivered, in: .deliveryLatency)
        }
        if tally.heldDelivered > 0 {
            page.record(end - min(end, tally.heldSince), count: tally.heldDelivered, in: .deliveryLatency)
        }
        if tally.bytesSent > 0 || tally.bytesReceived > 0 || tally.delivered > 0 {
            page.add(tally.voiceReceived, to: .voiceReceived)
            page.add(tally.dataReceived, to: .dataReceived)
            page.add(tally.bytesReceived, to: .bytesReceived)
            page.add(tally.voiceDelivered, to: .voiceDelivered)
            page.add(tally.dataDelivered, to: .dataDelivered)
            page.add(tally.bytesSent, to: .bytesSent)
            page.add(tally.voiceBytesReceived, to: .voiceBytesReceived)
            page.add(tally.dataBytesReceived, to: .dataBytesReceived)
            page.add(tally.voiceBytesDelivered, to: .voiceBytesDelivered)
            page.add(tally.dataBytesDelivered, to: .dataBytesDelivered)
            tally = Tally()
        }
        page.heartbeat = now
    }

    /// What need not be seen more often than once a second.
    private mutating func publishSecond() {
        page[.loopLag] = lagPeak
        lagPeak = 0
        page[.heldBytes] = UInt64(max(0, heldBytes))
    }

    private var isFinished: Bool {
        if hasFailed { return true }
        if let leaving, leaving.isDone { return connections.count == 0 || now >= leaving.deadline }
        guard let drainDeadline else { return false }
        guard now < drainDeadline else { return true }
        // A leaver may not have heard yet that nothing moves any more: whom it sends here is owed a close frame as well.
        guard awaiting.isOver || now - drainBegan >= Limits.drainAwaitsNanoseconds else { return false }
        return connections.count == 0 && isInboxEmpty
    }

    /// Puts a connection on this turn's list of those to flush.
    mutating func touch(_ slot: UInt32) {
        guard !connections[slot].isTouched else { return }
        connections[slot].isTouched = true
        touched.append(slot)
    }
}
