// The supervisor: starts the workers, replaces those that die, and ends them all. It holds whatever must outlive a worker
// and touches no client's byte.
//
// Signals set intent by way of a signalfd; the loop acts on it:
//     SIGTERM, SIGINT   drain, exit 0; a second one ends at once
//     SIGCHLD           reap, account for what died with the process, start the next one
//     SIGHUP            reload (Generations.swift)
//     SIGUSR2           upgrade to a new program

import CLinux
import Glibc
import Logging
import Shared

/// Why the relay can't start.
struct StartError: Error, CustomStringConvertible {
    var description: String
    var exitStatus: Int32
}

final class Supervisor {
    var configuration: Configuration
    /// Reads the configuration anew: of the environment, and of the file that was named.
    let settings: Settings
    var logger: Logger
    let program: WorkerProgram
    /// Who workers run as.
    var accounts = WorkerAccounts()
    /// With TLS: the open files, and the ring of ticket keys.
    var credentials: Credentials?
    let tickets: TicketMemory?
    let ticketFile: Int32?
    private var credentialsLookedAt = Clock.monotonicNanoseconds()
    private var credentialsSeen: CredentialStamp?
    private var credentialsRefused: CredentialStamp?
    private var ticketsRotatedAt = Clock.monotonicNanoseconds()
    let memory: SharedMemory
    let memoryFile: Int32
    /// The same files as workers get them: for reading alone.
    private let memoryReader: Descriptor
    private let ticketReader: Int32?
    /// Made when RELAY_MAX_CONNECTIONS_PER_IP or RELAY_MAX_ROOMS_PER_IP is first on.
    var addresses: AddressTable?
    var listeners: Listeners
    let admin: AdminServer
    /// Counts reloads and upgrades.
    var generation: UInt64 = 1
    /// The workers that serve, by their numbers.
    var places: [WorkerPlace] = []
    /// Those of generations before, which let their last connections go.
    var leavers: [WorkerPlace] = []
    /// A reload or the like that is under way (Generations.swift).
    var change: Change?
    /// Asked for while another was under way.
    var nextChange: Change.Kind?
    /// Of the last change.
    var lastOutcome: ChangeOutcome?
    /// Admin connections that wait for the end of one.
    var askers: [UInt64] = []
    /// And for that of the one after it.
    var nextAskers: [UInt64] = []
    /// SipHash key that pins rooms to workers: the same as long as the relay runs.
    let placementKey: [UInt8]
    private let signals: Descriptor
    let startedAt: UInt64
    var hasServed = false
    /// When what is left is killed, once the relay drains.
    var drainDeadline: UInt64?
    private var isForced = false
    /// Whether another program goes on in this process when the workers have ended.
    var becomesSuccessor = false
    /// The program that was asked whether it can take over.
    var successor: Int32?
    /// Whether this program goes on with another's workers.
    private let isTakingOver: Bool
    private var exitStatus = ExitStatus.success
    private var heartsCheckedAt: UInt64 = 0
    /// What workers said that was not heeded, by `WorkerFault`'s order.
    private(set) var workerFaults = [UInt64](repeating: 0, count: WorkerFault.allCases.count)
    private var roomsAudit = QuotaAudit()
    private var connectionsAudit = QuotaAudit()
    private var memoryAudit = MemoryAudit()
    /// How often each of them was wrong, by `CommonCount`'s order.
    private(set) var corrections = [UInt64](repeating: 0, count: CommonCount.allCases.count)
    private var faultLogRate = LogRate(perSecond: 1, burst: 5)
    private var starvedLogRate = LogRate(perSecond: 1, burst: 5)

    var address: ListenAddress { listeners.address }
    var adminAddress: ListenAddress? { admin.address }

    /// A relay that begins.
    ///
    /// - Parameter inherited: listeners that another program has left, with whoever waits in them.
    init(
        _ configuration: Configuration, _ settings: Settings, _ program: WorkerProgram, logger: Logger,
        inherited: Listeners? = nil
    ) throws(StartError) {
        self.configuration = configuration
        self.settings = settings
        self.program = program
        self.logger = logger
        isTakingOver = false
        startedAt = Clock.monotonicNanoseconds()
        try Self.harden()
        try accounts.resolve(configuration)
        if let files = configuration.tls {
            credentials = try Credentials(files, program, accounts.sandbox(configuration))
            let now = Int64(Clock.unixNanoseconds() / 1_000_000_000)
            if let warning = credentials?.warning(nowUnixSeconds: now) {
                logger.warning("certificate", metadata: ["file": "\(files.certificate)", "reason": "\(warning)"])
            }
        } else {
            credentials = nil
        }
        do throws(ListenError) {
            if var inherited {
                try inherited.grow(to: configuration.workers)
                listeners = inherited
            } else {
                listeners = try Listeners(configuration.listen, count: configuration.workers)
            }
            admin = try AdminServer(configuration.metrics, logger: logger)
        } catch {
            throw StartError(description: error.description, exitStatus: ExitStatus.unavailable)
        }
        do throws(SystemError) {
            signals = try Self.watchSignals()
            let file = try SharedMemory.makeFile()
            memory = try SharedMemory.create(in: file)
            if configuration.countsAddresses { addresses = try Self.makeAddressTable(in: file.number) }
            memoryReader = try Self.reader(of: file.number)
            memoryFile = file.release()
            if configuration.tls == nil {
                (tickets, ticketFile, ticketReader) = (nil, nil, nil)
            } else {
                let ring = try TicketMemory.makeFile()
                tickets = try TicketMemory.create(in: ring)
                ticketReader = try Self.reader(of: ring.number).release()
                ticketFile = ring.release()
            }
            for index in 0..<configuration.workers {
                memory.assign(index, .current)
                places.append(
                    try WorkerPlace(
                        index: index, listeners: listeners.share(of: index, workers: configuration.workers),
                        pageIndex: index, page: memory.page(index)))
            }
        } catch {
            throw StartError(description: "can't start: \(error)", exitStatus: ExitStatus.unavailable)
        }
        var random = SystemRandomNumberGenerator()
        placementKey = (0..<Limits.placementKeyBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// A program that goes on with another's workers (Upgrade.swift), and then has its own take their place.
    init(
        _ listeners: Listeners, _ estate: Inheritance.Estate, _ settings: Settings, _ program: WorkerProgram,
        logger: Logger
    ) throws(StartError) {
        configuration = estate.configuration
        self.settings = settings
        self.program = program
        self.logger = logger
        self.listeners = listeners
        isTakingOver = true
        admin = try Self.takeOverAdmin(configuration.metrics, logger)
        (startedAt, hasServed, generation) = (estate.startedAt, estate.hasServed, estate.generation)
        placementKey = estate.placementKey
        credentials = estate.credentials
        try Self.harden()
        do throws(SystemError) {
            signals = try Self.watchSignals()
            let file = Descriptor(owning: estate.memory)
            memory = try SharedMemory.map(file)
            addresses = try AddressTable.map(file.number)
            memoryReader = try Self.reader(of: file.number)
            memoryFile = file.release()
            if let number = estate.ticketFile {
                let ring = Descriptor(owning: number)
                tickets = try TicketMemory(continuing: ring)
                ticketReader = try Self.reader(of: ring.number).release()
                ticketFile = ring.release()
            } else {
                (tickets, ticketFile, ticketReader) = (nil, nil, nil)
            }
        } catch {
            throw StartError(description: "can't take over: \(error)", exitStatus: ExitStatus.unavailable)
        }
        places = estate.places.map { WorkerPlace($0, page: memory.page($0.pageIndex)) }
        leavers = estate.leavers.map { WorkerPlace($0, page: memory.page($0.pageIndex)) }
        // It was there when the configuration came into force; if it is no more, the next reload says so.
        do throws(StartError) { try accounts.resolve(configuration) } catch {
            logger.error("workers run as nobody", metadata: ["reason": "\(error.description)"])
        }
        // Whoever has ended while no supervisor looked.
        reap()
    }

    private static func reader(of file: Int32) throws(SystemError) -> Descriptor {
        let number = clinux_reopen_for_reading(file)
        guard number >= 0 else { throw SystemError("open") }
        return Descriptor(owning: number)
    }

    /// It will hold ticket keys, and the descriptor of the private key.
    private static func harden() throws(StartError) {
        guard clinux_harden() == 0 else {
            throw StartError(description: "can't start: \(SystemError("prctl"))", exitStatus: ExitStatus.unavailable)
        }
    }

    private static func watchSignals() throws(SystemError) -> Descriptor {
        let watched = [SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGUSR2]
        let number = unsafe clinux_signalfd(watched, watched.count)
        guard number >= 0 else { throw SystemError("signalfd") }
        return Descriptor(owning: number)
    }

    // MARK: - The loop

    /// Runs until every worker has ended. Returns the exit status.
    ///
    /// - Parameter whenServing: called once, when every worker serves.
    func run(whenServing: () -> Void) -> Int32 {
        if isTakingOver {
            request(.upgrade)
        } else {
            for place in places { launch(place) }
        }
        while !isFinished {
            let ready = wait()
            if ready.hasSignals { handleSignals() }
            for place in ready.places { receive(from: place) }
            watchHearts()
            rotateTickets()
            watchCredentials()
            restartDue()
            advanceChange()
            enforceDeadline()
            serveAdmin(hasEvents: ready.hasAdminEvents)
            if !hasServed && drainDeadline == nil && places.allSatisfy(\.isReady) {
                hasServed = true
                whenServing()
                tellSandbox()
            }
        }
        guard becomesSuccessor else {
            logger.info("stopped")
            return exitStatus
        }
        do throws(ChangeError) { try become(inheriting: nil) } catch {
            logger.error("can't become the new program", metadata: ["reason": "\(error)"])
        }
        return ExitStatus.unavailable
    }

    /// Says what of the workers' sandbox this system, or the configuration, does not give.
    func tellSandbox() {
        if let remark = accounts.remark(configuration) { logger.notice("\(remark)") }
        let parts = places.reduce(SandboxParts.all) { $0.intersection($1.sandbox) }
        guard parts != .all else { return }
        logger.warning(
            "workers are not in the whole sandbox",
            metadata: [
                "mode": "\(configuration.sandbox.rawValue)", "on": "\(parts.names.joined(separator: ","))",
                "missing": "\(SandboxParts.all.subtracting(parts).names.joined(separator: ","))",
            ])
    }

    private var isFinished: Bool {
        drainDeadline != nil && everyPlace.allSatisfy { $0.pid == nil }
    }

    /// What a wait has brought: nothing else is asked. What comes later makes the next wait short.
    private struct Ready {
        /// Those whose channels have something to say or take.
        var places: [WorkerPlace]
        var hasSignals: Bool
        var hasAdminEvents: Bool
    }

    /// Waits for a signal, a message, or the next thing that is due. poll(2): there is a handful of descriptors.
    private func wait() -> Ready {
        let now = Clock.monotonicNanoseconds()
        var patience = Limits.heartbeatCheckNanoseconds
        let reachable = everyPlace.filter { place in
            guard place.control != nil else { return false }
            guard let due = place.pausedUntil(now: now) else { return true }
            patience = min(patience, due - min(now, due))
            return false
        }
        var polled = reachable.map { place in
            let writes = place.control?.isBlocked == true ? Int16(POLLOUT) : 0
            return pollfd(fd: place.control?.number ?? -1, events: Int16(POLLIN) | writes, revents: 0)
        }
        polled.append(pollfd(fd: signals.number, events: Int16(POLLIN), revents: 0))
        polled.append(pollfd(fd: admin.number, events: Int16(POLLIN), revents: 0))
        for due in everyPlace.compactMap(\.restartDue) + [killDue].compactMap({ $0 }) {
            patience = min(patience, due > now ? due - now : 0)
        }
        // Rounded up: a wait that ends a little early would spin.
        _ = unsafe poll(&polled, nfds_t(polled.count), Int32((patience + 999_999) / 1_000_000))
        return Ready(
            places: zip(reachable, polled).filter { $1.revents != 0 }.map { $0.0 },
            hasSignals: polled[reachable.count].revents != 0,
            hasAdminEvents: polled[reachable.count + 1].revents != 0)
    }

    /// When workers that drain are killed.
    private var killDue: UInt64? {
        drainDeadline.map { isForced ? 0 : $0 + Limits.killDelayNanoseconds }
    }

    // MARK: - Launching

    func launch(_ place: WorkerPlace) {
        let now = Clock.monotonicNanoseconds()
        do throws(SystemError) {
            let (pid, control) = try program.start(name: "relay-worker", configuration(of: place).sandbox)
            place.page.state = .starting
            place.page.heartbeat = now
            place.launched(pid, ControlChannel(Descriptor(owning: control)), now: now)
        } catch {
            let pause = place.restarts.died(uptime: 0)
            place.page.deathsInRow = place.restarts.deathsInRow
            place.restartDue = now + max(pause, RestartPolicy.pauseMillisecondsFirst * 1_000_000)
            logger.error("can't start worker", metadata: ["worker": "\(place.index)", "reason": "\(error)"])
            return
        }
        let launch = describeLaunch(place)
        let peers = peers(of: place)
        let credentials = launch.standsBy ? change?.credentials ?? credentials : credentials
        do throws(SystemError) {
            var descriptors = [memoryFile, memoryReader.number, place.inboxReceiver]
            if let credentials, let ticketReader {
                descriptors += [credentials.certificate, credentials.privateKey, ticketReader]
            }
            try place.control?.sendAlways(.launch(launch), descriptors: descriptors)
            for part in Self.parts(place.listeners) {
                try place.control?.sendAlways(.listeners, descriptors: part)
            }
            try sendInboxes(of: peers, to: place)
            for keys in place.hostKeyMessages { try place.control?.sendAlways(keys) }
            try place.control?.sendAlways(.start)
            try sendRoute(afterLaunchOf: place)
        } catch {
            // It has died already: SIGCHLD is on its way.
            logger.error("launch cut short", metadata: ["worker": "\(place.index)", "reason": "\(error)"])
        }
    }

    private func restartDue() {
        guard drainDeadline == nil else { return }
        let now = Clock.monotonicNanoseconds()
        for place in everyPlace {
            if let due = place.restartDue, now >= due { launch(place) }
        }
    }

    // MARK: - Messages from workers

    /// Takes what a worker has said: a bounded number of messages, for what is left makes the next wait short.
    ///
    /// - Parameter max: as many as that.
    private func receive(from place: WorkerPlace, max: Int = Limits.controlMessagesPerTurnMax) {
        guard place.control != nil else { return }
        let now = Clock.monotonicNanoseconds()
        // What can't be sent to a worker that is dying is no reason not to hear what it said.
        do throws(SystemError) { try place.control?.flush() } catch { logger.debug("flush: \(error)") }
        for _ in 0..<max {
            guard let received = place.control?.receive() else { return }
            switch consume received {
            case .nothing:
                return
            case .message(let message, let descriptors):
                for descriptor in descriptors { _ = close(descriptor) }
                place.tookMessage(now: now)
                switch place.heed(message, in: &change, keysMax: hostKeysMax(of: place), now: now) {
                case .nothing: break
                case .ready: becameReady(place)
                case .fault(let fault): add(fault, "\(message.name)", place)
                }
            case .failed:
                place.control = nil
                return
            case .closed:
                // Its end is reaped in a moment, or it is killed for it (`watchHearts`).
                place.control = nil
                return
            case .malformed(let error):
                place.tookMessage(now: now)
                add(.malformed, "\(error)", place)
            }
        }
    }

    private func becameReady(_ place: WorkerPlace) {
        // The first one is enough to serve; the missing workers show as `degraded`.
        if drainDeadline == nil { memory.phase = .serving }
        logger.debug("worker ready", metadata: ["worker": "\(place.index)", "pid": "\(place.pid ?? 0)"])
        if let deadline = drainDeadline {
            _ = place.send(.drain(deadline: deadline, isRestart: becomesSuccessor))
        }
    }

    /// Host keys that a place may have: its share, as far as the others leave it.
    private func hostKeysMax(of place: WorkerPlace) -> Int {
        let others = everyPlace.reduce(0) { $0 + ($1 === place ? 0 : $1.hostKeys.count) }
        return min(Limits.hostKeysMax(configuration), max(0, Limits.hostKeysTotalMax(configuration) - others))
    }

    private func count(_ fault: WorkerFault) {
        for (number, one) in WorkerFault.allCases.enumerated() where one == fault { workerFaults[number] &+= 1 }
    }

    /// Counts what a worker should not have said, and kills one that goes on.
    private func add(_ fault: WorkerFault, _ detail: String, _ place: WorkerPlace) {
        count(fault)
        let metadata: Logger.Metadata = [
            "worker": "\(place.index)", "pid": "\(place.pid ?? 0)", "fault": "\(fault.rawValue)",
            "message": "\(detail)",
        ]
        if let suppressed = faultLogRate.admit(nowNanoseconds: Clock.monotonicNanoseconds()) {
            logger.error(
                "message of a worker not heeded", metadata: metadata.merging(["suppressed": "\(suppressed)"]) { $1 })
        }
        // A key too many is lost, and no more; what is no message, or another's, comes from a worker that is not
        // itself.
        guard fault != .hostKeys, place.add(fault) else { return }
        logger.error("worker sends nonsense: killing it", metadata: metadata)
        place.kill(because: "sent nonsense")
    }

    // MARK: - Ends of workers

    private func handleSignals() {
        while true {
            var information = signalfd_siginfo()
            let size = MemoryLayout<signalfd_siginfo>.size
            guard unsafe Glibc.read(signals.number, &information, size) == size else { return }
            switch Int32(information.ssi_signo) {
            case SIGTERM, SIGINT: stop()
            case SIGCHLD: reap()
            case SIGHUP: request(.reload)
            case SIGUSR2: requestUpgrade()
            default: break
            }
        }
    }

    private func reap() {
        while true {
            var status: Int32 = 0
            var microseconds: UInt64 = 0
            let pid = unsafe clinux_reap(&status, &microseconds)
            guard pid > 0 else { return }
            guard let place = everyPlace.first(where: { $0.pid == pid }) else { continue }
            // What it said last: host keys above all.
            receive(from: place, max: Limits.controlMessagesLastMax)
            let signal = clinux_wait_signal(status)
            let end = WorkerEnd(waitStatus: status, reason: place.reasonOfEnd(signal: signal))
            if signal == SIGSYS { count(.systemCall) }
            place.record(end, cpuSeconds: Double(microseconds) / 1e6)
            ended(place, end)
        }
    }

    /// Accounts for a worker that has ended, and arranges the next.
    private func ended(_ place: WorkerPlace, _ end: WorkerEnd) {
        let now = Clock.monotonicNanoseconds()
        let uptime = now - place.launchedAt
        let rooms = place.page[.rooms]
        let connections = place.page[.connections]
        let metadata: Logger.Metadata = [
            "worker": "\(place.index)", "pid": "\(place.pid ?? 0)", "cause": "\(end)",
            "uptime": "\(uptime / 1_000_000)ms", "rooms": "\(rooms)", "clients": "\(place.page[.clients])",
            "connections": "\(connections)",
        ]
        memory.rooms.give(rooms)
        memory.connections.give(connections)
        giveBackMemory(of: place)
        reclaimAddresses(place)
        place.ended(now: now)
        if drainDeadline != nil {
            logger.debug("worker stopped", metadata: metadata)
            return
        }
        guard !endedInChange(place, end, metadata) else { return }
        // Retried for ever it would only look as if it were being started. Once any has served, the others' rooms count more.
        if memory.phase == .starting, let status = end.hopeless {
            logger.critical("can't start: a worker could not begin, and none ever will", metadata: metadata)
            exitStatus = status
            drainDeadline = now
            isForced = true
            memory.phase = .draining
            for place in places { place.restartDue = nil }
            return
        }
        let pause = place.restarts.died(uptime: uptime)
        place.page.deathsInRow = place.restarts.deathsInRow
        place.restartDue = now + pause
        logger.error(
            "worker died",
            metadata: metadata.merging(
                ["restart_in": "\(pause / 1_000_000)ms"], uniquingKeysWith: { first, _ in first }))
    }

    /// Large enough for whatever RELAY_MAX_CONNECTIONS a reload may bring: it can't grow.
    static func makeAddressTable(in file: Int32) throws(SystemError) -> AddressTable {
        try AddressTable.create(in: file, connectionsMax: max(1, Machine.current().connectionsMax(workers: 1)))
    }

    /// Gives back what the dead worker's connections were counted with.
    private func reclaimAddresses(_ place: WorkerPlace) {
        guard let addresses else { return }
        do throws(SystemError) {
            try AddressLedger.reclaim(addresses, page: place.pageIndex, file: memoryFile)
        } catch {
            logger.error(
                "connections of a dead worker stay counted",
                metadata: ["worker": "\(place.index)", "reason": "\(error)"])
        }
    }

    /// Kills a worker whose loop has stopped turning though it could; its end is then handled like any other.
    private func watchHearts() {
        guard drainDeadline == nil else { return }
        let now = Clock.monotonicNanoseconds()
        guard now - heartsCheckedAt >= Limits.heartbeatCheckNanoseconds else { return }
        heartsCheckedAt = now
        auditQuotas()
        for place in everyPlace {
            if place.isReady && place.restarts.deathsInRow > 0 {
                place.restarts.lived(uptime: now - place.launchedAt)
                place.page.deathsInRow = place.restarts.deathsInRow
            }
            guard let pid = place.pid else { continue }
            if place.isUnreachable() {
                logger.error(
                    "worker has closed its control channel: killing it",
                    metadata: ["worker": "\(place.index)", "pid": "\(pid)"])
                place.kill(because: "closed its control channel")
            }
            let metadata: Logger.Metadata = [
                "worker": "\(place.index)", "pid": "\(pid)",
                "silent": "\((now - min(now, place.page.heartbeat)) / 1_000_000)ms",
            ]
            switch place.watch() {
            case .well: break
            case .starved:
                guard let suppressed = starvedLogRate.admit(nowNanoseconds: now) else { break }
                logger.warning(
                    "worker gets no CPU time: left alone",
                    metadata: metadata.merging(["suppressed": "\(suppressed)"]) { $1 })
            case .hangs where !place.isKilled:
                logger.error("worker hangs: killing it", metadata: metadata)
                place.kill(because: "hung")
            case .hangs: break
            }
        }
    }

    /// Puts right what workers count together, if a worker that was not itself has written it wrong. Not while rooms
    /// move.
    private func auditQuotas() {
        guard change == nil else {
            (roomsAudit, connectionsAudit, memoryAudit) = (QuotaAudit(), QuotaAudit(), MemoryAudit())
            return
        }
        let held = everyPlace.reduce(into: (rooms: UInt64(0), connections: UInt64(0))) { held, place in
            held.rooms &+= place.page[.rooms]
            held.connections &+= place.page[.connections]
        }
        let margin = Limits.quotaMargin
        let rooms = roomsAudit.look(count: memory.rooms.count, held: held.rooms, margin: margin)
        let connections = connectionsAudit.look(
            count: memory.connections.count, held: held.connections, margin: margin)
        memory.rooms.correct(by: rooms)
        memory.connections.correct(by: connections)
        let bytes = auditMemory()
        for (count, excess) in [(CommonCount.rooms, rooms), (.connections, connections), (.memory, bytes)]
        where excess != 0 {
            corrections[count.rawValue] &+= 1
        }
        guard rooms != 0 || connections != 0 || bytes != 0 else { return }
        logger.error(
            "counts of the whole relay were wrong, and are right now",
            metadata: ["rooms": "\(rooms)", "connections": "\(connections)", "memory_bytes": "\(bytes)"])
    }

    /// What a worker that has ended had of RELAY_MAX_MEMORY is the others'. Before its page says that it has nothing.
    func giveBackMemory(of place: WorkerPlace) {
        // No more than there is, whatever the worker has written.
        memory.memoryPool.give(min(Int(clamping: place.page[.memoryGranted]), memory.memoryPool.taken))
    }

    /// The same of what they have taken of RELAY_MAX_MEMORY. Not while workers of a generation before live, which may
    /// have had more of it.
    private func auditMemory() -> Int64 {
        guard leavers.isEmpty else {
            memoryAudit = MemoryAudit()
            return 0
        }
        let bytes = memoryAudit.look(memory.memoryPool, places.map(\.page), configuration)
        memory.memoryPool.correct(by: bytes)
        return bytes
    }

    /// Draws a new ticket key when it is time; workers see it within a second.
    private func rotateTickets() {
        let now = Clock.monotonicNanoseconds()
        guard let tickets, now - ticketsRotatedAt >= Limits.ticketKeyNanoseconds else { return }
        ticketsRotatedAt = now
        tickets.rotate()
        logger.debug("ticket keys rotated")
    }

    /// Takes a certificate that has been renewed. Both files must have stood still since the last look: they are written one
    /// after the other.
    private func watchCredentials() {
        let now = Clock.monotonicNanoseconds()
        guard let files = configuration.tls, now - credentialsLookedAt >= Limits.credentialLookNanoseconds else {
            return
        }
        credentialsLookedAt = now
        let seen = CredentialStamp(files)
        defer { credentialsSeen = seen }
        guard change == nil, drainDeadline == nil, let stamp = credentials?.stamp, seen != stamp,
            seen == credentialsSeen,
            seen != credentialsRefused
        else { return }
        logger.notice("certificate or key have changed: reloading")
        // Tried once: if they are no good, the next change of them is another try.
        credentialsRefused = seen
        request(.reload)
    }

    // MARK: - Stopping

    private func stop() {
        guard drainDeadline == nil else {
            logger.warning("second signal: stopping at once")
            isForced = true
            becomesSuccessor = false
            return
        }
        drain(isRestart: false)
    }

    /// Lets everybody go.
    ///
    /// - Parameter isRestart: whether clients are told to come back at once: close code 1012.
    func drain(isRestart: Bool) {
        let now = Clock.monotonicNanoseconds()
        let grace = UInt64(configuration.shutdownGraceSeconds) * 1_000_000_000
        drainDeadline = now + grace
        memory.phase = .draining
        logger.info("draining", metadata: ["grace": "\(configuration.shutdownGraceSeconds)s"])
        abandonChange()
        for place in everyPlace {
            place.restartDue = nil
            if place.isReady { _ = place.send(.drain(deadline: now + grace, isRestart: isRestart)) }
        }
    }

    /// Kills what is left when the grace is over, with some time for workers to end by themselves.
    private func enforceDeadline() {
        guard let killDue, Clock.monotonicNanoseconds() >= killDue else { return }
        for place in everyPlace {
            guard let pid = place.pid else { continue }
            if !isForced {
                logger.warning(
                    "worker did not stop in time: killing it",
                    metadata: ["worker": "\(place.index)", "pid": "\(pid)"])
            }
            place.kill(because: "did not stop in time")
        }
        // Asked again in a second, should one be slow to die.
        isForced = false
        drainDeadline = Clock.monotonicNanoseconds()
    }
}
