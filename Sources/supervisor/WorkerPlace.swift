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
    var isReady = false
    /// In a change of generations: whether it hands joins to the new inboxes, and whether it has no room left.
    var isRouted = false
    var hasMoved = false
    /// Processes that have died here since the place was left.
    var deathsLeaving = 0
    /// The heartbeat at the last look, and at how many looks in a row it has been the same.
    private var heartbeatSeen: UInt64 = 0
    private var silentChecks = 0
    /// CLOCK_MONOTONIC nanoseconds of the last launch.
    private(set) var launchedAt: UInt64 = 0
    var restarts = RestartPolicy()
    /// Processes that were started because the one before had ended.
    private(set) var restartCount: UInt64 = 0
    /// How the last process ended.
    private(set) var lastEnd: WorkerEnd?
    /// CPU time of the processes that have ended.
    private(set) var cpuSecondsOfTheDead = 0.0
    /// What the process said last about why it can't go on.
    var failure: String?
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
        (isReady, hasMoved) = (state.isReady, state.hasMoved)
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
            control: control?.number ?? -1, isReady: isReady, hasMoved: hasMoved, launchedAt: launchedAt,
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
    /// - Returns: of each connection where its address is counted.
    func discardInbox() -> [AddressToken] {
        var bytes = [UInt8](repeating: 0, count: Limits.receiveBufferBytes)
        var descriptors: [Int32] = [-1, -1]
        var connections: [AddressToken] = []
        defer { bytes.wipe() }
        while true {
            var count = 0
            let received = unsafe clinux_receive_message(
                inboxReceiver, &bytes, bytes.count, &descriptors, descriptors.count, &count)
            // A message that is too long, or whose descriptors are, is gone with them.
            if received < 0 && errno == EMSGSIZE {
                connections.append(.none)
                continue
            }
            if received <= 0 { return connections }
            for descriptor in descriptors.prefix(count) { _ = Glibc.close(descriptor) }
            guard count > 0 else { continue }
            connections.append(AddressToken(inMessage: unsafe bytes.span.extracting(0..<received).bytes))
        }
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
        failure = nil
        if lastEnd != nil { restartCount += 1 }
        (heartbeatSeen, silentChecks) = (0, 0)
        launchedAt = now
        restartDue = nil
    }

    /// Looks at the heartbeat. True when it has not changed for too many looks; that is said once.
    func isSilent() -> Bool {
        let heartbeat = page.heartbeat
        silentChecks = heartbeat == heartbeatSeen ? silentChecks + 1 : 0
        heartbeatSeen = heartbeat
        return silentChecks == (isReady ? Limits.heartbeatSilentChecksMax : Limits.launchSilentChecksMax)
    }

    /// Sends the process a message; one that can't be reached is about to be seen dead.
    func send(_ message: ControlMessage) -> Bool {
        do throws(SystemError) {
            return try control?.send(message) ?? false
        } catch {
            return false
        }
    }

    /// The process has told of host keys: a room's own has no expiry, one that it was given has, and one that is over a past one.
    func take(_ keys: [ControlMessage.HostKey], now: UInt64) {
        for key in keys {
            let isOver = key.expiry != 0 && key.expiry <= now
            hostKeys[key.room] = isOver ? nil : HostKey(publicKey: key.publicKey, expiry: key.expiry)
        }
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
