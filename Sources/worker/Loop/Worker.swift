// The worker: one event loop, everything it owns, and the order of one turn, which `turn` shows. Its time is bounded,
// whatever arrives (TurnClock.swift), and members of rooms come before strangers.
//
// The parts of a turn stand in the folders that data flows through: Connection/ (accept, read, write, close, liveness),
// HTTP/, Join/, Handoff/, WebSocket/, Room/, Control/. Each is an extension of this struct, so that all state has one
// owner, is reached without a lock, and exclusive access is checked by the compiler and not at run time.
//
// What a turn or a message asks of the worker without changing it is `@inline(__always)`: the compiler passes a
// borrowed worker to a function by copying all of its fields, two kilobytes.

import Glibc
import Logging
import Shared

struct Worker: ~Copyable {
    // What it was launched with
    let index: Int
    let configuration: Configuration
    /// What of it each message is looked at with: to read a field of a large value copies all of it.
    let messageLimits: MessageLimits
    let placementKey: [UInt8]
    var placement: Placement
    let memory: SharedMemory
    let page: WorkerPage
    /// Nil where RELAY_MAX_CONNECTIONS_PER_IP and RELAY_MAX_ROOMS_PER_IP have never been on.
    var addresses: AddressLedger?
    var logger: Logger

    // Descriptors
    /// Members of rooms, the inbox, the control channel, and `strangers`.
    var poller: Poller
    /// Connections that are in no room, and the listeners.
    var strangers: Poller
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
    /// Those that have not joined (Connection/Unjoined.swift).
    var unjoined = SourceShares()
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
    var handshakePlaces = HandshakePlaces()
    var sessions = Slab<TLSSession>()
    let ciphers: RecordCiphers
    let tickets: TicketMemory?
    var ticketGeneration: UInt64
    let sealBuffer: LoopBuffer

    // This turn
    var clock: TurnClock
    /// CLOCK_MONOTONIC nanoseconds and seconds at the turn's beginning.
    var now: UInt64
    var second: UInt32
    /// What each connection may take in this round.
    var share = RoundShare(ready: 1)
    /// Whether the latest read brought as much as it may take.
    var hasReadItsShare = false
    /// Sources of work that have raised an event and have not been served since.
    var isInboxReady = false
    var areStrangersReady = false
    var activeBatches: [UInt32] = []
    /// Those of them that wait for a later turn to gather more, since the rooms were last flushed.
    var heldBatches = 0
    /// Members that are sent a batch between two looks at the clock; rooms of more are flushed in pieces.
    var flushPieceMembers = Limits.flushPieceMembers
    /// The batch of a large room with which the next turn goes on.
    var nextInPieces: UInt32?
    /// Connections whose joins wait until a batch is begun, and how many of them are to be tried now.
    var laterJoins = SlotQueue()
    var joinsDue = 0
    /// Members that could not take all of the batch that is being sent.
    var waiters: [Waiter] = []
    var touched: [UInt32] = []
    var doomed: [(id: SlotID, reason: CloseReason?)] = []
    /// Connections in `departed`, which another worker has already.
    var departing = 0
    var tally = Tally()
    /// The longest turn of this second so far, nanoseconds.
    var lagPeak: UInt64 = 0
    var gather = GatherList()
    var handshakeSteps = 0
    let receiveBuffer: LoopBuffer

    // Waiting
    /// Connections that have more to say than their share (SettingAside.swift).
    var aside = AsideQueues()
    /// Connections of which requests have come that have not been answered yet.
    var unanswered = SlotQueue()
    /// Members that send too much and are not read for a while.
    var pauses = Alarms()
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
    var leaving: Leaving? { didSet { isLeaving = leaving != nil } }
    /// The same in one byte, for each turn and each batch.
    private(set) var isLeaving = false
    var leaveSecond: UInt32 = 0
    /// What is on its way here from the generation before, and rooms of which a part has come.
    var awaiting: Awaiting
    var arrivingRooms = 0
    var acceptLogRate = LogRate(perSecond: 1, burst: 5)
    var addressLogRate = LogRate(perSecond: 1, burst: 5)
    var clientNamingLog = ClientNamingLog()
    var handoffLogRate = LogRate(perSecond: 1, burst: 5)
    var tlsLogRate = LogRate(perSecond: 1, burst: 5)
    var isSupervisorGone = false
    var isControlBlocked = false
    var hostKeyReports = HostKeyReports()
    var held: HeldMemory
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
        var messagesReceived: UInt64 { voiceReceived + dataReceived }
    }

    init(_ launched: consuming Launched) throws(SystemError) {
        // All that can fail comes first: a value half made can't be unmade.
        let poller = try Poller(eventsMax: Limits.eventsPerWaitMax)
        let strangers = try Poller(eventsMax: Limits.strangerEventsPerWaitMax)
        try poller.add(launched.control.number, .read, .control)
        try poller.add(strangers.number, .read, .strangers)
        // One that stands by reads no inbox either: what waits there is for a worker that knows whether it serves or leaves.
        if !launched.standsBy {
            try poller.add(launched.inbox.number, .read, .inbox)
            for (place, listener) in launched.listeners.enumerated() {
                try strangers.add(listener, .read, .listener(place))
            }
        }
        self.poller = poller
        self.strangers = strangers
        isAccepting = !launched.standsBy
        isReadingInbox = !launched.standsBy
        index = launched.index
        configuration = launched.configuration
        messageLimits = MessageLimits(launched.configuration)
        placementKey = launched.placementKey
        placement = Placement(key: launched.placementKey, workers: launched.outboxes.count)
        awaiting = Awaiting(launched.awaited, placementKey: launched.placementKey)
        memory = launched.memory
        page = launched.memory.page(launched.page)
        addresses = launched.addresses
        held = HeldMemory(MemoryBudget(launched.configuration, launched.memory.memoryPool))
        logger = launched.logger
        outboxes = launched.outboxes
        now = Clock.monotonicNanoseconds()
        second = UInt32(now / 1_000_000_000)
        clock = TurnClock(now: now)
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
    ///
    /// - Parameter parts: the parts of its sandbox that hold.
    mutating func run(_ parts: SandboxParts) {
        page.zeroGauges()
        held.budget.takeFloor()
        page[.memoryGranted] = UInt64(held.budget.granted)
        page.state = .serving
        page.heartbeat = now
        report(.ready(parts))
        logger.debug("serving")
        while !isFinished { turn(waiting: patience) }
        sayGoodbye()
        logger.debug("finished", metadata: ["connections": "\(connections.count)"])
    }

    /// One turn, whose wait for events takes at most some milliseconds.
    mutating func turn(waiting milliseconds: Int32) {
        poller.wait(milliseconds: milliseconds)
        beginTurn()
        resumePaused()
        serveMembers()
        if isInboxReady { serveInbox() }
        if doStrangersWait { serveStrangers() }
        runTimers()
        forgetGone()
        retryHandovers()
        retryAccept()
        if drainDeadline != nil { drainSome() }
        settleAllotted()
        if isLeaving { leaveSome() }
        tellDueHostKeys()
        publish()
    }

    private mutating func beginTurn() {
        now = clock.begin()
        let before = second
        second = UInt32(truncatingIfNeeded: now / 1_000_000_000)
        if second != before {
            expireKeys()
            renewTicketKeys()
            publishSecond()
        }
    }

    /// Milliseconds that the next wait may take: a heartbeat a second, and less while something must be tried again.
    @inline(__always)
    var patience: Int32 {
        if hasWorkLeft { return 0 }
        if isLeaving, let leaving, !leaving.isDone { return leaving.isCutShort ? 0 : Limits.leavingTurnMilliseconds }
        if heldBatches > 0 { return Limits.holdingTurnMilliseconds }
        let isIdle = handovers.isEmpty && acceptAgainAt == 0 && drainDeadline == nil
        let pause = (pauses.due - min(now, pauses.due)) / 1_000_000 + 1
        return min(isIdle ? 1000 : Limits.busyTurnMilliseconds, hostKeyPatience, Int32(clamping: pause))
    }

    // MARK: - Input

    /// What this turn had no time for.
    @inline(__always)
    private var hasWorkLeft: Bool {
        !aside.members.isEmpty || isInboxReady || doStrangersWait || !areTimersDone || hasOutput
    }

    @inline(__always)
    private var doStrangersWait: Bool {
        areStrangersReady || strangers.hasEvents || !unanswered.isEmpty || canResumeHandshake
            || !aside.strangers.isEmpty
    }

    @inline(__always)
    private var areTimersDone: Bool { connectionTimers.isDone(upTo: second) && roomTimers.isDone(upTo: second) }

    /// Looks at the clock after a piece of work. The heart beats within a turn, too: a worker that has much to do does
    /// not hang.
    ///
    /// - Returns: what the piece has cost, nanoseconds.
    @discardableResult
    mutating func lookAtClock() -> UInt64 {
        let cost = clock.look()
        page.heartbeat = clock.now
        return cost
    }

    private mutating func serveMembers() {
        setShare(ready: poller.ready + aside.members.count)
        let later = (isInboxReady, doStrangersWait, !areTimersDone)
        allotInput(aside: aside.members.isEmpty ? 0 : Limits.turnAsideNanosecondsMin, later: later)
        repeat {
            serveMembers(isCrowd: poller.isFull)
            guard !clock.isOver, poller.isFull else { break }
            // One wait returns at most `eventsPerWaitMax`: a voice frame may be among the next.
            lookAtClock()
            poller.wait(milliseconds: 0)
        } while poller.hasEvents
        guard !aside.members.isEmpty else { return }
        allotInput(least: Limits.turnAsideNanosecondsMin, later: later)
        serveAsideMembers()
    }

    private mutating func serveMembers(isCrowd: Bool) {
        while !clock.isOver, let event = poller.next() {
            switch event.source {
            case .control:
                receiveControl()
                lookAtClock()
            case .inbox: isInboxReady = isReadingInbox
            case .strangers: areStrangersReady = true
            case .listener: preconditionFailure("listeners are strangers'")
            case .connection(let id): serve(id, event, isCrowd: isCrowd)
            }
        }
    }

    private mutating func setShare(ready: Int) {
        if share.ready != ready { share = RoundShare(ready: ready) }
    }

    /// Gives the source of work that comes next what is left of the turn's time for input, but for the least of the
    /// later sources that have work.
    ///
    /// - Parameters:
    ///   - least: what it has in any case.
    ///   - aside: what it leaves to those of its connections that have been set aside.
    private mutating func allotInput(
        least: UInt64 = 0, aside: UInt64 = 0, later: (inbox: Bool, strangers: Bool, timers: Bool)
    ) {
        let reserved =
            (later.inbox ? Limits.turnInboxNanosecondsMin : 0)
            + (later.strangers ? Limits.turnStrangersNanosecondsMin : 0)
            + (later.timers ? Limits.turnTimersNanosecondsMin : 0) + aside
        clock.allot(until: now + Limits.turnInputNanoseconds - reserved, least: least)
    }

    /// Serves a connection that has raised an event, if its share of the round allows it.
    ///
    /// - Parameter isCrowd: whether more are ready than one wait brings.
    private mutating func serve(_ id: SlotID, _ event: Event, isCrowd: Bool = false) {
        // An event may be for a connection that an earlier one has ended.
        guard connections.contains(id), !connections[id.slot].isFrozen else { return }
        if event.isBroken && !connections[id.slot].interest.contains(.read) {
            // Nothing would read or write it, and the event would come back at once.
            doom(id.slot, .socketError)
            return
        }
        if event.isWritable { resumeWriting(id.slot) }
        // One that is set aside is said to be broken, watched or not: its queue comes to it.
        guard event.isReadable, !connections[id.slot].isAside else { return }
        guard isRead(id.slot) else {
            // Otherwise thousands that may not be read would fill every wait.
            if isCrowd { setAside(id.slot) }
            return
        }
        hasReadItsShare = false
        // A peek at a broken socket would take the error that the read is to find.
        if isBehindOthers(id.slot) || (isCrowd && !event.isBroken && hasMoreThanItsShare(id.slot)) {
            setAside(id.slot)
            return
        }
        let least = Limits.shareBegunNanosecondsMin
        guard connections[id.slot].debt.mayBeServed(share, least: least) else { return }
        read(id.slot)
        connections[id.slot].debt.charge(lookAtClock(), share)
        if isBehindOthers(id.slot) { setAside(id.slot) }
    }

    private mutating func serveInbox() {
        allotInput(least: Limits.turnInboxNanosecondsMin, later: (false, doStrangersWait, !areTimersDone))
        isInboxReady = receiveHandoffs()
    }

    /// Handshakes that wait for a step, requests that wait for their answer, and then what is new. Each of them has its
    /// part.
    private mutating func serveStrangers() {
        setShare(ready: max(strangers.ready + aside.strangers.count, unanswered.count))
        allotInput(least: Limits.turnStrangersNanosecondsMin, later: (false, false, !areTimersDone))
        let time = clock.timeLeft
        clock.allot(time / 2)
        resumeHandshakes()
        clock.allot(time / 4)
        answerSome()
        allotInput(least: Limits.turnStrangersNanosecondsMin / 4, later: (false, false, !areTimersDone))
        if !strangers.hasEvents {
            strangers.wait(milliseconds: 0)
            areStrangersReady = false
            setShare(ready: strangers.ready + aside.strangers.count)
        }
        while !clock.isOver, let event = strangers.next() {
            switch event.source {
            case .listener(let place):
                // It may have been given up earlier in this turn.
                if isAccepting { acceptConnections(place) }
            case .connection(let id): serve(id, event)
            case .control, .inbox, .strangers: preconditionFailure("these are watched with the members")
            }
        }
        guard !aside.strangers.isEmpty else { return }
        allotInput(least: Limits.turnStrangersNanosecondsMin / 4, later: (false, false, !areTimersDone))
        serveAsideStrangers()
    }

    /// Answers requests of those whose first ones have been answered in earlier services.
    private mutating func answerSome() {
        for _ in 0..<unanswered.count {
            guard !clock.isOver, let next = unanswered.popFirst() else { return }
            guard connections.contains(next), connections[next.slot].isUnanswered else { continue }
            guard connections[next.slot].debt.mayBeServed(share) else {
                unanswered.append(next)
                continue
            }
            connections[next.slot].isUnanswered = false
            serveRequests(next.slot)
            endIfClosed(next.slot)
            connections[next.slot].debt.charge(lookAtClock(), share)
        }
    }

    private mutating func runTimers() {
        guard !areTimersDone else { return }
        allotInput(least: Limits.turnTimersNanosecondsMin, later: (false, false, false))
        while !clock.isOver, let slot = connectionTimers.next(upTo: second, in: &connections) {
            connectionDue(slot)
            lookAtClock()
        }
        // Rooms have far fewer; one a turn at the least.
        repeat {
            guard let slot = roomTimers.next(upTo: second, in: &rooms) else { return }
            roomDue(slot)
            lookAtClock()
        } while !clock.isOver
    }

    // MARK: - Output

    /// Whether something is to be sent or removed that does not wait for more.
    @inline(__always)
    private var hasOutput: Bool {
        activeBatches.count > heldBatches || !touched.isEmpty || !doomed.isEmpty || joinsDue > 0
    }

    /// Flushes what the turn has brought forth and removes what is to go, until neither step produces new work or the
    /// time is over: a leave is said to those who stay, and saying it may find another connection broken.
    mutating func settle() {
        clock.look()
        settleAllotted()
    }

    /// The same, from the last look at the clock on.
    private mutating func settleAllotted() {
        clock.allot(Limits.turnOutputNanoseconds)
        repeat {
            flushRooms()
            if joinsDue > 0 { joinDue() }
            flushTouched()
            removeDoomed()
            relieveMemory()
        } while hasOutput && !clock.isOver
    }

    /// Settles all there is, however long it takes: for a process that ends.
    mutating func settleEverything() {
        repeat { settle() } while hasOutput
    }

    /// Makes this turn's numbers seen.
    mutating func publish() {
        // After each piece of work there has been a look at the clock.
        let end = clock.now
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
        page.heartbeat = end
    }

    /// What need not be seen more often than once a second.
    private mutating func publishSecond() {
        page[.loopLag] = lagPeak
        lagPeak = 0
        returnMemory()
        page[.heldBytes] = UInt64(heldBytes)
    }

    @inline(__always)
    private var isFinished: Bool {
        if hasFailed { return true }
        if isLeaving, let leaving, leaving.isDone { return connections.count == 0 || now >= leaving.deadline }
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
