// A change of generations: new workers take the place of old ones, and every room and connection moves from these to those while it
// is used (worker/Handoff/Moving.swift). A reload replaces all of them, `recycle` one.
//
//     preparing   the successors start and stand by. One that fails, or is not ready in time, ends the change: nothing has happened
//     routing     all are ready: they serve, and everybody else is told the new inboxes; who leaves hands over what comes
//     moving      all have been told, so no inbox of a leaver gets anything any more (lastCall): rooms go over
//     over        no leaver has a room left. Their processes end when their last connections have
//
// A process that dies in between is replaced in its place like any other: what waits in its inbox is kept. Of a leaver that dies the
// successors are told, for they hold joins back until its rooms have come.

import CLinux
import Glibc
import Logging
import Shared

/// A change of generations that is under way.
struct Change {
    enum Kind: Equatable {
        case reload
        /// By the new program, when it has taken over.
        case upgrade
        case recycle(Int)

        /// Its place in shared memory's counts.
        var number: Int {
            switch self {
            case .reload: 0
            case .upgrade: 1
            case .recycle: 2
            }
        }

        static let names = ["reload", "upgrade", "recycle"]

        /// Whether another that is asked for is done with this one as well. Two recycles of
        /// different workers become a reload (`joined`).
        func covers(_ other: Change.Kind) -> Bool {
            switch self {
            case .upgrade: true
            case .reload: other != .upgrade
            case .recycle: other == self
            }
        }

        /// One change that does what both would.
        func joined(with other: Change.Kind) -> Change.Kind {
            if covers(other) { return self }
            return other.covers(self) ? other : .reload
        }

        /// What it is called when it is over.
        var past: String {
            switch self {
            case .reload: "reloaded"
            case .upgrade: "upgraded"
            case .recycle: "recycled"
            }
        }

        var name: String {
            switch self {
            case .reload: "reload"
            case .upgrade: "upgrade"
            case .recycle: "recycle"
            }
        }
    }

    enum Stage {
        case preparing
        case routing
        case moving
    }

    var kind: Kind
    var stage = Stage.preparing
    let startedAt = Clock.monotonicNanoseconds()
    var configuration: Configuration
    var credentials: Credentials?
    /// The workers that start, and those that they replace.
    var successors: [WorkerPlace]
    var leavers: [WorkerPlace]
    /// How many workers there were.
    let workersBefore: Int
    var moved = ControlMessage.Moved()

    /// Adds what a worker says that it has let go: each number as far as it can be true.
    mutating func add(_ part: ControlMessage.Moved) {
        moved.rooms &+= min(part.rooms, Gauge.rooms.most)
        moved.clients &+= min(part.clients, Gauge.clients.most)
        moved.bytes &+= min(part.bytes, Gauge.heldBytes.most)
        moved.longestPause = max(moved.longestPause, min(part.longestPause, Gauge.movePauseMax.most))
    }

    /// What the successors wait for.
    var awaited: ControlMessage.Awaited {
        ControlMessage.Awaited(workers: workersBefore, pending: leavers.filter { !$0.hasMoved }.map(\.index))
    }
}

/// Why a change can't begin, or was given up.
struct ChangeError: Error, CustomStringConvertible {
    var description: String
}

extension Supervisor {
    /// Every place that has a process, or may get one.
    var everyPlace: [WorkerPlace] {
        let standing = change?.stage == .preparing ? change?.successors ?? [] : []
        return places + standing + leavers
    }

    // MARK: - Beginning

    /// Begins a change, or remembers it until the one under way is over.
    func request(_ kind: Change.Kind) {
        guard drainDeadline == nil else {
            logger.warning("\(kind.name) refused: the relay is stopping")
            ended(kind, ChangeOutcome(isSuccess: false, text: "\(kind.name) refused: the relay is stopping"))
            return
        }
        guard change == nil else {
            remember(kind)
            return
        }
        do throws(ChangeError) {
            try begin(kind)
        } catch {
            failed(kind, "\(error)")
        }
    }

    /// Keeps a change for later, in place of one that it brings about as well: an upgrade reads the settings, and either replaces
    /// every worker.
    func remember(_ kind: Change.Kind) {
        if let change { logger.notice("\(kind.name) waits for the \(change.kind.name) that is under way") }
        nextChange = nextChange.map { $0.joined(with: kind) } ?? kind
    }

    /// Nothing has changed: says so in the log, and to whoever has asked.
    func failed(_ kind: Change.Kind, _ reason: String) {
        logger.error("\(kind.name) failed: nothing has changed", metadata: ["reason": "\(reason)"])
        ended(kind, ChangeOutcome(isSuccess: false, text: "\(kind.name) failed, nothing has changed: \(reason)"))
    }

    private func begin(_ kind: Change.Kind) throws(ChangeError) {
        var next = configuration
        var nextCredentials: Credentials?
        if kind == .reload || kind == .upgrade {
            next = try readChanges()
            nextCredentials = try readCredentials(next)
        }
        if next.countsAddresses && addresses == nil {
            do throws(SystemError) { addresses = try Self.makeAddressTable(in: memoryFile) } catch {
                throw ChangeError(description: "RELAY_MAX_CONNECTIONS_PER_IP, RELAY_MAX_ROOMS_PER_IP: \(error)")
            }
        }
        let leaving: [WorkerPlace]
        if case .recycle(let index) = kind {
            guard places.indices.contains(index) else {
                throw ChangeError(description: "there is no worker \(index); they are 0 to \(places.count - 1)")
            }
            leaving = [places[index]]
        } else {
            leaving = places
        }
        let successors: [WorkerPlace]
        do throws(ChangeError) {
            successors = try makeSuccessors(kind, next)
        } catch {
            nextCredentials?.close()
            throw error
        }
        change = Change(
            kind: kind, configuration: next, credentials: nextCredentials, successors: successors, leavers: leaving,
            workersBefore: places.count)
        logger.info("\(kind.name) begins", metadata: ["workers": "\(successors.count)"])
        for place in successors { launch(place) }
    }

    /// The configuration as it stands now, if the relay can change to it while it runs.
    private func readChanges() throws(ChangeError) -> Configuration {
        let (read, problems, warnings) = settings.read()
        for warning in warnings { logger.warning("configuration", metadata: ["reason": "\(warning)"]) }
        guard var next = read else {
            throw ChangeError(description: problems.joined(separator: "; "))
        }
        guard next.listen == configuration.listen else {
            throw ChangeError(description: "RELAY_ADDR can't change without a restart")
        }
        guard next.metrics == configuration.metrics else {
            throw ChangeError(description: "RELAY_METRICS_ADDR can't change without a restart")
        }
        guard (next.tls == nil) == (configuration.tls == nil) else {
            throw ChangeError(description: "TLS can't be turned on or off without a restart")
        }
        next.listen = configuration.listen
        do throws(StartError) { try accounts.resolve(next) } catch {
            throw ChangeError(description: error.description)
        }
        return next
    }

    private func readCredentials(_ next: Configuration) throws(ChangeError) -> Credentials? {
        guard let files = next.tls else { return nil }
        do throws(StartError) {
            let read = try Credentials(files, program, accounts.sandbox(next))
            let now = Int64(Clock.unixNanoseconds() / 1_000_000_000)
            if let warning = read.warning(nowUnixSeconds: now) {
                logger.warning("certificate", metadata: ["file": "\(files.certificate)", "reason": "\(warning)"])
            }
            return read
        } catch {
            throw ChangeError(description: error.description)
        }
    }

    /// Places for the new workers, each with an inbox and a page of its own.
    private func makeSuccessors(_ kind: Change.Kind, _ next: Configuration) throws(ChangeError) -> [WorkerPlace] {
        let indices: [Int]
        if case .recycle(let index) = kind { indices = [index] } else { indices = Array(0..<next.workers) }
        do throws(ListenError) { try listeners.grow(to: next.workers) } catch {
            throw ChangeError(description: error.description)
        }
        let taken = Set(everyPlace.map(\.pageIndex))
        let pages = (0..<Limits.workerPages).filter { !taken.contains($0) }
        guard pages.count >= indices.count else {
            throw ChangeError(description: "workers of earlier generations are still letting connections go")
        }
        var made: [WorkerPlace] = []
        do throws(SystemError) {
            for (index, page) in zip(indices, pages) {
                memory.page(page).deathsInRow = 0
                made.append(
                    try WorkerPlace(
                        index: index, generation: generation + 1,
                        listeners: listeners.share(of: index, workers: next.workers), pageIndex: page,
                        page: memory.page(page)))
            }
        } catch {
            for place in made { place.close() }
            throw ChangeError(description: "\(error)")
        }
        return made
    }

    // MARK: - Launching

    /// What a process that starts in a place is told.
    func describeLaunch(_ place: WorkerPlace) -> ControlMessage.Launch {
        let isSuccessor = change.map { place.isNew(in: $0) } ?? false
        let standsBy = isSuccessor && change?.stage == .preparing
        let isLeaver = leavers.contains { $0 === place }
        let awaited = isSuccessor ? change?.awaited : nil
        return ControlMessage.Launch(
            index: place.index, workers: peers(of: place).count, page: place.pageIndex,
            standsBy: standsBy || isLeaver, placementKey: placementKey,
            awaited: awaited ?? ControlMessage.Awaited(workers: 1, pending: []),
            sandbox: accounts.sandbox(configuration(of: place)), configuration: configuration(of: place))
    }

    /// What a process that starts in a place goes by.
    func configuration(of place: WorkerPlace) -> Configuration {
        guard let change, change.stage == .preparing, place.isNew(in: change) else { return configuration }
        return change.configuration
    }

    /// The workers that a place's process hands connections to.
    func peers(of place: WorkerPlace) -> [WorkerPlace] {
        guard let change, change.stage == .preparing, place.isNew(in: change) else { return places }
        return serving(after: change)
    }

    /// The workers that serve when a change is over.
    private func serving(after change: Change) -> [WorkerPlace] {
        guard case .recycle(let index) = change.kind else { return change.successors }
        var all = places
        all[index] = change.successors[0]
        return all
    }

    /// As many as one message takes.
    static func parts(_ descriptors: [Int32]) -> [[Int32]] {
        stride(from: 0, to: descriptors.count, by: Int(CLINUX_DESCRIPTORS_MAX)).map {
            Array(descriptors[$0..<min($0 + Int(CLINUX_DESCRIPTORS_MAX), descriptors.count)])
        }
    }

    func sendInboxes(of peers: [WorkerPlace], to place: WorkerPlace) throws(SystemError) {
        var first = 0
        for part in Self.parts(peers.map(\.inboxSender)) {
            try place.control?.sendAlways(.inboxes(first: first), descriptors: part)
            first += part.count
        }
    }

    /// Sends a process the inboxes of the workers that serve, to be used from now on; it answers `routed`.
    private func sendRoute(to place: WorkerPlace, leaves: Bool) throws(SystemError) {
        guard place.control != nil else { return }
        place.willRoute()
        try sendInboxes(of: places, to: place)
        try place.control?.sendAlways(.route(workers: places.count, leaves: leaves))
    }

    /// A leaver's place that a process starts in again: there may be connections in its inbox.
    func sendRoute(afterLaunchOf place: WorkerPlace) throws(SystemError) {
        guard leavers.contains(where: { $0 === place }) else { return }
        try sendRoute(to: place, leaves: true)
        if change?.stage == .moving { try place.control?.sendAlways(.lastCall) }
    }

    // MARK: - Going on

    /// Does what has become possible since the last turn.
    func advanceChange() {
        guard let now = change else {
            beginNext()
            return
        }
        switch now.stage {
        case .preparing:
            // What is still to be sent may name descriptors that the change closes.
            if now.successors.allSatisfy(\.isReady) && isQuiet {
                commitChange()
            } else if Clock.monotonicNanoseconds() - now.startedAt > Limits.generationReadyNanoseconds {
                let late = now.successors.filter { !$0.isReady }.map { "\($0.index)" }.joined(separator: ", ")
                giveUpChange("not ready in time: worker \(late)")
            }
        case .routing:
            // Nobody sends to a leaver's inbox when all who could have been told the new ones.
            guard everyPlace.allSatisfy({ $0.isRouted || $0.isNew(in: now) }) else { return }
            change?.stage = .moving
            for place in now.leavers { _ = place.send(.lastCall) }
        case .moving:
            guard now.leavers.allSatisfy(\.hasMoved) else { return }
            finishChange(now)
        }
    }

    /// The successors are ready: from here on there is no way back, and no need of one.
    private func commitChange() {
        guard let now = change else { return }
        let staying = places.filter { place in !now.leavers.contains { $0 === place } }
        // Those of changes before still have requests and handshakes that may lead anywhere.
        let stragglers = leavers
        places = serving(after: now)
        generation += 1
        leavers += now.leavers
        change?.stage = .routing
        for place in now.successors {
            if let before = now.leavers.first(where: { $0.index == place.index }) { place.continueFigures(of: before) }
            memory.assign(place.pageIndex, .current)
            _ = place.send(.serve)
        }
        for place in now.leavers { memory.assign(place.pageIndex, .leaving) }
        if now.kind == .reload || now.kind == .upgrade {
            credentials?.close()
            credentials = now.credentials
            change?.credentials = nil
            apply(now.configuration)
        }
        for place in staying + stragglers + now.leavers {
            let leaves = !staying.contains { $0 === place }
            place.mustRoute()
            // One that stays and has no process now is told when it starts again; a straggler that has ended says no more.
            if !leaves && place.pid == nil || place.hasMoved && place.control == nil { place.skipRoute() }
            if leaves && place.pid == nil && !place.hasMoved {
                // What waits in its inbox must be read by somebody.
                launch(place)
                continue
            }
            do throws(SystemError) {
                try sendRoute(to: place, leaves: leaves)
            } catch {
                logger.debug("route: \(error)")
            }
        }
    }

    /// What of a configuration the supervisor itself goes by.
    private func apply(_ next: Configuration) {
        configuration = next
        logger = makeLogger(level: next.logLevel, format: next.logFormat, process: "supervisor")
    }

    private func finishChange(_ now: Change) {
        change = nil
        hasServed = true
        // For one that was started again after its predecessor's inbox had brought it the leavers' last word.
        for place in places {
            for leaver in now.leavers { _ = place.send(.sourceGone(index: leaver.index)) }
        }
        // As the new owners have seen it; those that have not come yet are few.
        let longestPause = now.successors.map { $0.page[.movePauseMax] }.reduce(now.moved.longestPause, max)
        let took = (Clock.monotonicNanoseconds() - now.startedAt) / 1_000_000
        logger.notice(
            "\(now.kind.past)",
            metadata: [
                "version": "\(Version.text)", "generation": "\(generation)", "workers": "\(places.count)",
                "rooms": "\(now.moved.rooms)",
                "clients": "\(now.moved.clients)", "waiting_bytes": "\(now.moved.bytes)",
                "longest_pause": "\(longestPause / 1000)us", "took": "\(took)ms",
            ])
        tellSandbox()
        let rooms = now.moved.rooms == 1 ? "1 room" : "\(now.moved.rooms) rooms"
        let clients = now.moved.clients == 1 ? "1 client" : "\(now.moved.clients) clients"
        ended(
            now.kind,
            ChangeOutcome(
                isSuccess: true,
                text: "\(now.kind.past): \(rooms) with \(clients) moved to "
                    + "\(now.successors.count == 1 ? "1 worker" : "\(now.successors.count) workers") in \(took) ms"))
        beginNext()
    }

    private func beginNext() {
        guard let next = nextChange else { return }
        nextChange = nil
        askers += nextAskers
        nextAskers.removeAll()
        if next == .upgrade { requestUpgrade() } else { request(next) }
    }

    // MARK: - Ends

    /// A process has ended that a change concerns. True if that was all there is to say and do.
    func endedInChange(_ place: WorkerPlace, _ end: WorkerEnd, _ metadata: Logger.Metadata) -> Bool {
        if let change, change.stage == .preparing, place.isNew(in: change) {
            giveUpChange("worker \(place.index) of the new generation ended: \(end)")
            return true
        }
        guard let leaver = leavers.firstIndex(where: { $0 === place }) else {
            // A worker that stays is told of the new inboxes when it starts again.
            place.skipRoute()
            return false
        }
        if place.hasMoved {
            if end != .exited(ExitStatus.success, reason: nil) {
                logger.error("worker died while its last connections left", metadata: metadata)
            } else {
                logger.debug("worker left", metadata: metadata)
            }
            leavers.remove(at: leaver)
            memory.assign(place.pageIndex, .none)
            place.close()
            return true
        }
        // Its rooms are lost but for their keys.
        for worker in places where worker.pid != nil {
            for keys in place.hostKeyMessages { _ = worker.send(keys) }
            _ = worker.send(.sourceGone(index: place.index))
        }
        place.hostKeys = [:]
        place.mustRoute()
        // Another process in its place takes what waits in its inbox; but not for ever.
        place.deathsLeaving += 1
        guard place.deathsLeaving >= Limits.leaverDeathsMax else { return false }
        logger.error("worker kept dying while it left: what waited in its inbox is lost", metadata: metadata)
        place.hasMoved = true
        leavers.remove(at: leaver)
        memory.assign(place.pageIndex, .none)
        let lost = place.discardInbox()
        memory.connections.give(UInt64(lost.connections))
        for charge in lost.charges { addresses?.give(charge) }
        place.close()
        return true
    }

    /// The successors are ended; the workers that serve have noticed nothing.
    private func giveUpChange(_ reason: String) {
        guard let now = change else { return }
        endSuccessors(now)
        change = nil
        failed(now.kind, reason)
        beginNext()
    }

    private func endSuccessors(_ now: Change) {
        now.credentials?.close()
        for place in now.successors {
            if let pid = place.pid {
                kill(pid, SIGKILL)
                var status: Int32 = 0
                while unsafe waitpid(pid, &status, 0) < 0 && errno == EINTR {}
                giveBackMemory(of: place)
                place.ended(now: Clock.monotonicNanoseconds())
            }
            place.close()
        }
    }

    /// The relay stops.
    func abandonChange() {
        nextChange = nil
        guard let now = change else { return }
        logger.warning("\(now.kind.name) given up: the relay stops")
        ended(now.kind, ChangeOutcome(isSuccess: false, text: "\(now.kind.name) given up: the relay stops"))
        if now.stage == .preparing { endSuccessors(now) }
        change = nil
    }
}
