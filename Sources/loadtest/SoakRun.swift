// A soak's event loop: one thread, one epoll, timers; and its course from the first join to the summary.

import CLinux
import Glibc

final class SoakRun {
    let endpoint: Endpoint
    let options: SoakCommand
    let seed: UInt64
    var random: SoakRandom
    var report: SoakReport
    var timers = SoakTimers()
    var rooms: [SoakRoom] = []
    /// Everybody whose connection is open, or being opened or closed.
    var members: [UInt32: SoakMember] = [:]
    var nextID: UInt32 = 1
    /// Connections that are not in yet.
    var joining = 0
    var isSending = true
    /// How many times longer members wait between messages than they were asked to, because the soak does not keep up.
    var slowness = 1.0
    private var busy: UInt64 = 0
    private var lookedAt: UInt64 = 0
    private var buffer = [UInt8](repeating: 0, count: 262_144)
    private let poller: Int32
    private let signals: Int32
    private var wantsEnd = false

    /// Bytes of data that may be on their way to one member: what would pass it is not begun. Well below RELAY_MAX_BACKLOG's
    /// default of 8 MiB, which would end the connection.
    static let outstandingMax = 3 << 20
    /// Ways in that are under way at a time.
    static let joiningMax = 64
    /// For what is under way when sending stops.
    private static let drainSeconds = 20.0
    /// A turn so long is like a pause of all receivers: the relay may have dropped voice for them.
    private static let turnMax: UInt64 = 400_000_000

    init(_ endpoint: Endpoint, _ options: SoakCommand, seed: UInt64) {
        self.endpoint = endpoint
        self.options = options
        self.seed = seed
        random = SoakRandom(seed: seed)
        report = SoakReport(isJSON: options.json)
        poller = epoll_create1(Int32(EPOLL_CLOEXEC))
        let numbers = [SIGINT, SIGTERM, SIGUSR1]
        signals = unsafe clinux_signalfd(numbers, numbers.count)
        precondition(poller >= 0 && signals >= 0, "they fail only without memory or descriptors")
        register(signals, EPOLL_CTL_ADD, EPOLLIN.rawValue, 0)
    }

    deinit {
        _ = close(signals)
        _ = close(poller)
    }

    var endpointIsSecure: Bool { endpoint.tls != nil }

    private func register(_ descriptor: Int32, _ operation: Int32, _ interest: UInt32, _ id: UInt32) {
        var event = unsafe epoll_event()
        unsafe event.events = interest
        unsafe event.data.u64 = UInt64(id)
        let result = unsafe epoll_ctl(poller, operation, descriptor, &event)
        precondition(result == 0, "epoll_ctl on an open socket")
    }

    func watch(_ member: SoakMember, isNew: Bool = false) {
        guard let transport = member.transport else { return }
        let interest = (member.isPaused ? 0 : EPOLLIN.rawValue) | (member.awaitsRoom ? EPOLLOUT.rawValue : 0)
        register(transport.descriptor, isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, interest, member.id)
    }

    // MARK: The course

    /// Whether nothing was amiss.
    func run() -> Bool {
        if !options.json {
            print("Soaking \(endpoint.authority): \(options.rooms) rooms x \(options.clients), seed \(seed)")
        }
        _ = fflush(nil)
        begin(Clock.monotonic())
        let end = options.seconds.map { Deadline(seconds: $0) }
        var statusAt = Deadline(seconds: 5)
        while !wantsEnd, end?.hasPassed != true {
            turn(until: end?.moment ?? .max)
            if !options.quiet, statusAt.hasPassed {
                report.status("\(members.count) connections")
                statusAt = Deadline(seconds: 5)
            }
        }
        isSending = false
        let drain = Deadline(seconds: Self.drainSeconds)
        while !isSettled, !drain.hasPassed { turn(until: Clock.monotonic() + 10_000_000) }
        takeStock()
        report.summarize(seed: seed)
        for member in members.values { sayGoodbye(member) }
        return report.whole.isClean
    }

    private func begin(_ now: UInt64) {
        for index in 0..<options.rooms {
            rooms.append(SoakRoom(index: index, places: options.clients))
            for place in 0..<options.clients { timers.add(.join(room: index, place: place), at: now) }
        }
        if options.churn > 0 { timers.add(.churn, at: now + 1_000_000_000) }
        if options.pauses > 0 { timers.add(.pause, at: now + 1_000_000_000) }
        lookedAt = now
        timers.add(.look, at: now + 1_000_000_000)
    }

    private func turn(until moment: UInt64) {
        let began = Clock.monotonic()
        var now = began
        while let entry = timers.take(now: now) {
            let late = now - entry.due
            report.count { $0.turnMax = max($0.turnMax, late) }
            fire(entry, now)
            now = Clock.monotonic()
        }
        let worked = now - began
        let events = wait(until: min(moment, timers.nextDue))
        let ready = Clock.monotonic()
        for (id, what) in events { handle(id, what) }
        let length = worked + (Clock.monotonic() - ready)
        busy += length
        report.count { $0.turnMax = max($0.turnMax, length) }
        guard length > Self.turnMax else { return }
        for member in members.values { member.lagsUntil = max(member.lagsUntil, Clock.monotonic() + 1_000_000_000) }
    }

    private func wait(until moment: UInt64) -> [(UInt32, UInt32)] {
        let now = Clock.monotonic()
        let rest = moment > now ? min(moment - now, 1_000_000_000) : 0
        var timeout = timespec(tv_sec: Int(rest / 1_000_000_000), tv_nsec: Int(rest % 1_000_000_000))
        return unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 256) { events in
            let ready = unsafe epoll_pwait2(poller, events.baseAddress, 256, &timeout, nil)
            precondition(ready >= 0 || errno == EINTR, "epoll_pwait2 (needs Linux 5.11 or newer)")
            // As many as the kernel has filled in.
            return (0..<max(0, Int(ready))).map { index in
                unsafe (UInt32(truncatingIfNeeded: events[index].data.u64), events[index].events)
            }
        }
    }

    private func handle(_ id: UInt32, _ what: UInt32) {
        guard id != 0 else { return readSignals() }
        guard let member = members[id] else { return }
        if what & EPOLLOUT.rawValue != 0 { advance(member, Clock.monotonic()) }
        guard what & ~EPOLLOUT.rawValue != 0, member.state != .ended else { return }
        // A paused member is told of nothing but the connection's end.
        if member.isPaused { resume(member, Clock.monotonic()) }
        receive(member, &buffer)
    }

    private func readSignals() {
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        while unsafe read(signals, &information, size) == size {
            if information.ssi_signo == UInt32(SIGUSR1) { report.mark() } else { wantsEnd = true }
        }
    }

    private func fire(_ entry: SoakTimers.Entry, _ now: UInt64) {
        switch entry.kind {
        case .join(let room, let place): join(rooms[room], place, now)
        case .churn:
            if isSending { churn(now) }
            timers.add(.churn, at: now + UInt64(1e9 / options.churn))
        case .pause:
            if isSending { pauseSomebody(now) }
            timers.add(.pause, at: now + UInt64(1e9 / options.pauses))
        case .look: look(now)
        case .voice, .act, .write, .read:
            guard let member = members[entry.member], member.state != .ended else { return }
            switch entry.kind {
            case .voice: speak(member, due: entry.due, now)
            case .act: act(member, now)
            case .read: if member.isPaused { resume(member, now) }
            default: advance(member, now)
            }
        }
    }

    /// Once a second.
    private func look(_ now: UInt64) {
        let share = Double(busy) / Double(max(1, now - lookedAt))
        (busy, lookedAt) = (0, now)
        if share > 0.8 { slowness = min(64, slowness * 2) } else if share < 0.5 { slowness = max(1, slowness / 2) }
        if slowness > 1 { report.count { $0.throttledSeconds += 1 } }
        lookForOverdue(now)
        timers.add(.look, at: now + 1_000_000_000)
    }
}
