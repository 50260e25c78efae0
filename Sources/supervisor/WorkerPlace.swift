// One worker's place: what must outlive the processes that fill it, one after the other.
//
//     down ──launch──▶ starting ──ready──▶ serving ──drain──▶ draining
//      ▲                  │                   │                  │
//      └──────────────── the process ends ◀──────────────────────┘

import CLinux
import Glibc
import Shared

extension [UInt8] {
    /// Overwrites the bytes: for what may be secret.
    fileprivate mutating func wipe() {
        unsafe withUnsafeMutableBytes { bytes in
            if let start = bytes.baseAddress { unsafe explicit_bzero(start, bytes.count) }
        }
    }
}

/// The descriptors and memory that a worker's place holds, and the process in it.
final class WorkerPlace {
    /// Its number in its generation.
    let index: Int
    let generation: UInt64
    /// Its own, and at a lower count of workers than before those that nobody else has.
    let listeners: [Int32]
    /// Both ends are kept: handoffs wait in the kernel while no process reads them.
    let inboxReceiver: Int32
    let inboxSender: Int32
    /// Place of its page in the shared memory.
    let pageIndex: Int
    let page: WorkerPage

    private(set) var pid: pid_t?
    var control: ControlChannel?
    private(set) var isReady = false
    /// The parts of its process's sandbox that hold, as the process has said before it served anybody.
    private(set) var sandbox: SandboxParts = []
    /// In a change of generations: whether it hands joins to the new inboxes, and whether it has no room left.
    private(set) var isRouted = false
    var hasMoved = false
    /// Processes that have died here since the place was left.
    var deathsLeaving = 0
    private var watchdog = Watchdog()
    /// CLOCK_MONOTONIC nanoseconds of the last launch.
    private(set) var launchedAt: UInt64 = 0
    var restarts = RestartPolicy()
    /// Processes that were started because the one before had ended.
    private(set) var restartCount: UInt64 = 0
    /// How the last process ended.
    private(set) var lastEnd: WorkerEnd?
    /// CPU time of the processes that have ended.
    private(set) var cpuSecondsOfTheDead = 0.0
    /// Why the process says that it can't begin, fit to be shown.
    private(set) var failure: String?
    /// Why the supervisor has killed the process.
    private(set) var killReason: String?
    /// Messages that the process may still answer: routes, each with `routed`.
    private var routesUnanswered = 0
    /// Looks at which the process was without its control channel.
    private var controlLostChecks = 0
    private var conduct = WorkerConduct()
    /// When the next process is due, CLOCK_MONOTONIC nanoseconds; nil if one runs or none is wanted.
    var restartDue: UInt64?
    /// Keys of the place's rooms. The expiry is 0 while the worker that has the room lives.
    var hostKeys: [[UInt8]: HostKey] = [:]

    struct HostKey {
        var publicKey: [UInt8]
        var expiry: UInt64
    }

    init(
        index: Int, generation: UInt64 = 1, listeners: [Int32], pageIndex: Int, page: WorkerPage
    ) throws(SystemError) {
        self.index = index
        self.generation = generation
        self.listeners = listeners
        self.pageIndex = pageIndex
        self.page = page
        (inboxReceiver, inboxSender) = try MessagePair(bufferBytes: Int32(Limits.inboxBufferBytes)).split()
    }

    /// A place that another program of this relay has left, with its process.
    init(_ state: Inheritance.PlaceState, page: WorkerPage) {
        index = state.index
        generation = state.generation
        listeners = state.listeners
        (inboxReceiver, inboxSender) = (state.inboxReceiver, state.inboxSender)
        pageIndex = state.pageIndex
        self.page = page
        hostKeys = state.hostKeys
        (isReady, hasMoved, sandbox) = (state.isReady, state.hasMoved, state.sandbox)
        launchedAt = state.launchedAt
        restartCount = state.restartCount
        cpuSecondsOfTheDead = Double(state.cpuMilliseconds) / 1000
        guard state.pid != 0 else {
            restartDue = max(1, state.restartDue)
            return
        }
        pid = state.pid
        control = ControlChannel(Descriptor(owning: state.control))
    }

    var state: Inheritance.PlaceState {
        Inheritance.PlaceState(
            index: index, generation: generation, pageIndex: pageIndex, listeners: listeners,
            inboxReceiver: inboxReceiver, inboxSender: inboxSender, pid: control == nil ? 0 : pid ?? 0,
            control: control?.number ?? -1, isReady: isReady, hasMoved: hasMoved, sandbox: sandbox,
            launchedAt: launchedAt,
            restartDue: restartDue ?? 0, restartCount: restartCount,
            cpuMilliseconds: UInt64(cpuSecondsOfTheDead * 1000), hostKeys: hostKeys)
    }

    /// Goes on with the figures of the place that it takes over: they are the worker's, whatever process it is.
    func continueFigures(of other: WorkerPlace) {
        restartCount += other.restartCount
        cpuSecondsOfTheDead += other.cpuSecondsOfTheDead
        if let pid = other.pid { cpuSecondsOfTheDead += ProcessReading(pid: pid).cpuSeconds ?? 0 }
    }

    /// Whether a change brings it, or has brought it.
    func isNew(in change: Change) -> Bool { change.successors.contains { $0 === self } }

    /// Throws away what waits in the inbox, and closes the clients' sockets with it.
    ///
    /// - Returns: how many connections, and where these and rooms that were on their way are counted.
    func discardInbox() -> (connections: Int, charges: [AddressCharge]) {
        var bytes = [UInt8](repeating: 0, count: Limits.receiveBufferBytes)
        var descriptors: [Int32] = [-1, -1]
        var connections = 0
        var charges: [AddressCharge] = []
        defer { bytes.wipe() }
        for _ in 0..<Limits.inboxDiscardsMax {
            var count = 0
            let received = unsafe clinux_receive_message(
                inboxReceiver, &bytes, bytes.count, &descriptors, descriptors.count, &count)
            // A message that is too long, or whose descriptors are, is gone with them.
            if received < 0 && errno == EMSGSIZE {
                connections += 1
                continue
            }
            if received <= 0 { return (connections, charges) }
            for descriptor in descriptors.prefix(count) { _ = Glibc.close(descriptor) }
            if count > 0 { connections += 1 }
            charges.append(AddressCharge(inMessage: unsafe bytes.span.extracting(0..<received).bytes))
        }
        return (connections, charges)
    }

    /// Closes the inbox: for a place that nobody will come to again.
    func close() {
        _ = Glibc.close(inboxReceiver)
        _ = Glibc.close(inboxSender)
    }

    /// A process was started in the place.
    func launched(_ pid: pid_t, _ control: consuming ControlChannel, now: UInt64) {
        self.pid = pid
        self.control = consume control
        isReady = false
        (failure, killReason) = (nil, nil)
        (routesUnanswered, controlLostChecks) = (0, 0)
        conduct = WorkerConduct()
        sandbox = []
        _ = page.takeViolation()
        if lastEnd != nil { restartCount += 1 }
        watchdog = Watchdog()
        launchedAt = now
        restartDue = nil
    }

    /// Looks at the process, once a second.
    func watch() -> Watchdog.Verdict {
        guard let pid else { return .well }
        let reading = ProcessReading(pid: pid)
        watchdog.look(
            Watchdog.Look(heartbeat: page.heartbeat, state: reading.state, cpuSeconds: reading.cpuSeconds),
            looksMax: isReady ? Limits.heartbeatSilentChecksMax : Limits.launchSilentChecksMax)
        return watchdog.verdict
    }

    /// Whether the process wants to run and is not let.
    var isStarved: Bool { pid != nil && watchdog.verdict == .starved }

    /// Whether the supervisor has killed the process, which is about to be gone.
    var isKilled: Bool { killReason != nil }

    /// Sends the process a message; one that can't be reached is about to be seen dead.
    func send(_ message: ControlMessage) -> Bool {
        do throws(SystemError) {
            return try control?.send(message) ?? false
        } catch {
            return false
        }
    }

    /// The process has told of host keys: a room's own has no expiry, one that it was given has, and one that is over a past one.
    ///
    /// - Parameter max: keys that the place may have.
    /// - Returns: whether all were taken.
    func take(_ keys: [ControlMessage.HostKey], max: Int, now: UInt64) -> Bool {
        var tookAll = true
        for key in keys {
            if key.expiry != 0 && key.expiry <= now {
                hostKeys[key.room] = nil
                continue
            }
            guard hostKeys.count < max || hostKeys[key.room] != nil else {
                tookAll = false
                continue
            }
            // No key outlives its worker by more than this, whatever the worker says.
            let expiry = min(key.expiry, now + Limits.hostKeySurvivalNanoseconds)
            hostKeys[key.room] = HostKey(publicKey: key.publicKey, expiry: expiry)
        }
        return tookAll
    }

    // MARK: - What the process may say, and when

    /// The process says that it serves, in a sandbox of these parts. False if it has said so before.
    func becomeReady(_ parts: SandboxParts) -> Bool {
        guard !isReady else { return false }
        isReady = true
        sandbox = parts
        return true
    }

    /// The process says why it can't begin. False if it has begun, or said so before.
    func fail(_ reason: String) -> Bool {
        guard !isReady, failure == nil else { return false }
        failure = LogText.shown(reason, bytesMax: Limits.failureBytesMax)
        return true
    }

    /// Whether the change of generations goes on without this place's word: it has no process now, or none that has to
    /// say anything.
    func skipRoute() { isRouted = true }

    /// The change of generations waits for this place.
    func mustRoute() { isRouted = false }

    /// The process is sent `route`.
    func willRoute() { routesUnanswered += 1 }

    /// The process answers a route. False if it was not sent any.
    func routed() -> Bool {
        guard routesUnanswered > 0 else { return false }
        routesUnanswered -= 1
        isRouted = routesUnanswered == 0
        return true
    }

    /// Until when the process is not listened to, because it has said too much too fast.
    func pausedUntil(now: UInt64) -> UInt64? { conduct.pausedUntil(now: now) }

    func tookMessage(now: UInt64) { conduct.tookMessage(now: now) }

    /// The process has said what it should not. True if it is to be killed for it.
    func add(_ fault: WorkerFault) -> Bool { conduct.add(fault) }

    /// Looks at the control channel once a second. True when the process has been without one for too long; that is
    /// said once.
    func isUnreachable() -> Bool {
        controlLostChecks = control == nil && pid != nil ? controlLostChecks + 1 : 0
        return controlLostChecks == Limits.controlLostChecksMax
    }

    /// The corresponding C function is kill(2) with SIGKILL: its end is then handled like any other, and logged with
    /// the reason.
    func kill(because reason: String) {
        guard let pid else { return }
        if killReason == nil { killReason = reason }
        _ = Glibc.kill(pid, SIGKILL)
    }

    /// The keys as messages to a worker.
    var hostKeyMessages: [ControlMessage] {
        let keys = hostKeys.map { room, key in
            ControlMessage.HostKey(room: room, publicKey: key.publicKey, expiry: key.expiry)
        }
        return stride(from: 0, to: keys.count, by: Limits.hostKeysPerMessageMax).map { first in
            .hostKeys(Array(keys[first..<min(first + Limits.hostKeysPerMessageMax, keys.count)]))
        }
    }

    /// Why the process has ended, as far as anybody said.
    ///
    /// - Parameter signal: what ended it, 0 if nothing did.
    func reasonOfEnd(signal: Int32) -> String? {
        guard signal == SIGSYS else { return killReason ?? failure }
        return "sandbox violation" + (page.takeViolation().map { ": system call \($0)" } ?? "")
    }

    /// For the report: how the process ended, and what it used.
    func record(_ end: WorkerEnd, cpuSeconds: Double) {
        lastEnd = end
        cpuSecondsOfTheDead += cpuSeconds
    }

    /// The process is gone: its rooms' keys begin to run out.
    func ended(now: UInt64) {
        pid = nil
        control = nil
        isReady = false
        page.state = .down
        page.zeroGauges()
        for room in hostKeys.keys where hostKeys[room]?.expiry == 0 {
            hostKeys[room]?.expiry = now + Limits.hostKeySurvivalNanoseconds
        }
        hostKeys = hostKeys.filter { $0.value.expiry > now }
    }
}
