// The load generator's event loop: one thread, one epoll, one receive buffer.

import CLinux
import Glibc

/// The relay ended a connection, or broke the protocol, under load.
struct LoadError: Error, CustomStringConvertible {
    var description: String
}

/// `@safe`: its blocks are allocated in `init`, freed in `deinit`, and indexed by slots below `count` only.
@safe
struct BenchLoop: ~Copyable {
    private let workload: Workload
    private let count: Int
    private let connections: UnsafeMutablePointer<BenchConnection>
    private let poller: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private static let eventsMax = 512
    private var scratch: UnsafeMutablePointer<UInt8>
    private var scratchCapacity = 512 * 1024
    /// Speakers whose window may have room, each at most once.
    private let dirty: UnsafeMutablePointer<Int>
    private var dirtyCount = 0
    private(set) var tally: BenchTally
    /// Paced messages sent so far, and how many could not be queued because the relay does not read.
    private var pacedCount: UInt64 = 0
    private(set) var notSent: UInt64 = 0
    private var pacedStart: UInt64 = 0
    private var isSending = false

    /// Descriptors and TLS stay with the transports, which must outlive the loop. Member `m` of room `r` is at `r * members + m`.
    init(workload: Workload, transports: [Transport]) {
        self.workload = workload
        count = transports.count
        unsafe connections = .allocate(capacity: max(1, count))
        unsafe events = .allocate(capacity: Self.eventsMax)
        unsafe events.initialize(repeating: epoll_event(), count: Self.eventsMax)
        unsafe scratch = .allocate(capacity: scratchCapacity)
        unsafe dirty = .allocate(capacity: max(1, count))
        tally = BenchTally(workload: workload)
        poller = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(poller >= 0, "epoll_create1 fails only without memory or descriptors")
        for (slot, transport) in transports.enumerated() {
            let (room, member) = (slot / workload.members, slot % workload.members)
            let speaks = member < workload.speakers
            let connection = BenchConnection(
                transport: transport, payload: workload.payload(room: room, member: member),
                unsentMax: speaks ? workload.unsentMax : 0)
            unsafe (connections + slot).initialize(to: connection)
            register(slot, EPOLL_CTL_ADD, EPOLLIN.rawValue)
        }
    }

    deinit {
        for slot in 0..<count { unsafe connections[slot].deallocate() }
        unsafe connections.deallocate()
        unsafe events.deallocate()
        unsafe scratch.deallocate()
        unsafe dirty.deallocate()
        tally.deallocate()
        _ = close(poller)
    }

    private func register(_ slot: Int, _ operation: Int32, _ interest: UInt32) {
        var event = unsafe epoll_event()
        unsafe event.events = interest
        unsafe event.data.u64 = UInt64(slot)
        let result = unsafe epoll_ctl(poller, operation, connections[slot].descriptor, &event)
        precondition(result == 0, "epoll_ctl on an open socket")
    }

    // MARK: Phases

    mutating func startSending() {
        isSending = true
        pacedStart = Clock.monotonic()
        guard case .window = workload.pace else { return }
        for slot in 0..<count where slot % workload.members < workload.speakers { markDirty(slot) }
    }

    mutating func stopSending() { isSending = false }

    mutating func measure(_ on: Bool) { tally.isMeasuring = on }

    /// Sends and receives until the deadline.
    mutating func run(until deadline: Deadline) throws(LoadError) {
        while true {
            let now = Clock.monotonic()
            if now >= deadline.moment { return }
            try sendPaced(now: now)
            try refillWindows()
            try wait(until: min(deadline.moment, nextDue()))
        }
    }

    /// Receives what is still under way, for as long as something comes or the deadline allows.
    mutating func drain(until deadline: Deadline) throws(LoadError) {
        while lost > 0, !deadline.hasPassed {
            try run(until: Deadline(seconds: 0.02, within: deadline))
        }
    }

    /// Messages that have not come. Right only once nothing is under way.
    var lost: UInt64 {
        tally.lost { slot in unsafe connections[slot].sent }
    }

    var sent: UInt64 {
        (0..<count).reduce(0) { sum, slot in sum + UInt64(unsafe connections[slot].sent) }
    }

    /// Says goodbye to all.
    mutating func closeAll() {
        for slot in 0..<count {
            unsafe connections[slot].queueControl(Frame.close(1000))
            _ = unsafe connections[slot].flush()
        }
    }

    // MARK: Sending

    /// Nanoseconds from one paced message of anybody to the next.
    private var interval: Double? {
        guard isSending, case .perSecond(let rate) = workload.pace, workload.speakers > 0 else { return nil }
        return 1e9 / (rate * Double(workload.rooms * workload.speakers))
    }

    private func nextDue() -> UInt64 {
        guard let interval else { return .max }
        return pacedStart + UInt64(Double(pacedCount) * interval)
    }

    /// Speakers take turns, room by room, so that the load is even.
    private mutating func sendPaced(now: UInt64) throws(LoadError) {
        guard let interval else { return }
        let due = UInt64(Double(now - pacedStart) / interval) + 1
        while pacedCount < due {
            let turn = Int(pacedCount % UInt64(workload.rooms * workload.speakers))
            let slot = turn % workload.rooms * workload.members + turn / workload.rooms
            if unsafe !connections[slot].queueMessage(time: Clock.monotonic()) { notSent += 1 }
            try flush(slot)
            pacedCount += 1
        }
    }

    private mutating func markDirty(_ slot: Int) {
        guard unsafe !connections[slot].isDirty else { return }
        unsafe connections[slot].isDirty = true
        // Each slot is there at most once, so there is room.
        unsafe dirty[dirtyCount] = slot
        dirtyCount += 1
    }

    /// Windows that a message's slowest receiver may be behind before its speaker waits for him too. Only a machine
    /// that is busy with something else comes so far; without it one receiver could lag until the relay closes him.
    private static let windowsBehindMax: UInt32 = 8

    private mutating func refillWindows() throws(LoadError) {
        guard case .window(let window) = workload.pace else { return }
        let time = Clock.monotonic()
        var waiting = 0
        for index in 0..<dirtyCount {
            let slot = unsafe dirty[index]
            if isSending,
                unsafe connections[slot].sent &- tally.slowest(of: slot) > UInt32(window) * Self.windowsBehindMax
            {
                // At most as many as there were.
                unsafe dirty[waiting] = slot
                waiting += 1
                continue
            }
            unsafe connections[slot].isDirty = false
            guard isSending else { continue }
            while unsafe connections[slot].sent &- connections[slot].arrived < UInt32(window) {
                guard unsafe connections[slot].queueMessage(time: time) else { break }
            }
            try flush(slot)
        }
        dirtyCount = waiting
    }

    private func flush(_ slot: Int) throws(LoadError) {
        if let error = unsafe connections[slot].flush() { throw ended(slot, error) }
        let waits = unsafe connections[slot].hasOutput
        guard unsafe waits != connections[slot].awaitsRoom else { return }
        unsafe connections[slot].awaitsRoom = waits
        register(slot, EPOLL_CTL_MOD, EPOLLIN.rawValue | (waits ? EPOLLOUT.rawValue : 0))
    }

    private func ended(_ slot: Int, _ reason: String) -> LoadError {
        LoadError(
            description:
                "the connection of member \(slot % workload.members) in room \(slot / workload.members) ended: "
                + reason)
    }

    // MARK: Receiving

    private mutating func wait(until moment: UInt64) throws(LoadError) {
        let now = Clock.monotonic()
        let rest = moment > now ? moment - now : 0
        var timeout = timespec(tv_sec: Int(rest / 1_000_000_000), tv_nsec: Int(rest % 1_000_000_000))
        let ready = unsafe epoll_pwait2(poller, events, Int32(Self.eventsMax), &timeout, nil)
        guard ready >= 0 else {
            if errno == EINTR { return }
            throw LoadError(description: "epoll_pwait2: \(Transport.errorText(errno)) (needs Linux 5.11 or newer)")
        }
        for index in 0..<Int(ready) {
            // The kernel gives back what was registered: a slot.
            let slot = Int(unsafe events[index].data.u64)
            let what = unsafe events[index].events
            if what & EPOLLOUT.rawValue != 0 { try flush(slot) }
            if what & ~EPOLLOUT.rawValue != 0 {
                try receive(slot)
                // At once, not after the batch: the relay works while this loop reads on.
                try refillWindows()
            }
        }
    }

    /// One read, behind the incomplete frame of the last one.
    private mutating func receive(_ slot: Int) throws(LoadError) {
        let kept = unsafe connections[slot].inputCount
        if scratchCapacity - kept < 65536 { grow(to: kept * 2 + 65536, keeping: 0) }
        if let input = unsafe connections[slot].input, kept > 0 { unsafe scratch.update(from: input, count: kept) }
        let count: Int
        switch unsafe connections[slot].read(into: scratch + kept, scratchCapacity - kept) {
        case .bytes(let some): count = some
        case .wouldBlock: return
        case .ended(let reason): throw ended(slot, reason)
        }
        let total = kept + count
        let used = try parse(slot, total)
        unsafe connections[slot].keep(scratch + used, total - used)
    }

    private mutating func grow(to capacity: Int, keeping count: Int) {
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        unsafe larger.update(from: scratch, count: count)
        unsafe scratch.deallocate()
        unsafe scratch = larger
        scratchCapacity = capacity
    }

    /// Takes the whole frames off the scratch buffer; gives back how many bytes they were.
    private mutating func parse(_ slot: Int, _ total: Int) throws(LoadError) -> Int {
        let now = Clock.monotonic()
        var start = 0
        while total - start >= 2 {
            // Every index below is under `total`, which the read filled.
            let second = unsafe Int(scratch[start + 1])
            let header = second < 126 ? 2 : second == 126 ? 4 : 10
            guard second <= 127 else { throw ended(slot, "a masked frame from the relay") }
            guard total - start >= header else { break }
            var length = second
            if header > 2 {
                length = 0
                for index in 2..<header { length = unsafe length << 8 | Int(scratch[start + index]) }
                guard length >= 0, length < 1 << 30 else { throw ended(slot, "a frame of \(length) bytes") }
            }
            guard total - start - header >= length else { break }
            let first = unsafe scratch[start]
            if first == 0x82 {
                takeMessage(slot, start + header, length, now)
            } else {
                try takeControl(slot, first, start + header, length)
            }
            start += header + length
        }
        return start
    }

    @inline(__always)
    private mutating func takeMessage(_ slot: Int, _ start: Int, _ length: Int, _ now: UInt64) {
        guard workload.speakers > 0 else { return }
        let bytes = unsafe UnsafePointer(scratch + start)
        let connections = unsafe connections
        let dirty = unsafe dirty
        var dirtyCount = dirtyCount
        unsafe tally.take(bytes, length, receiver: slot, now: now) { sender, arrived in
            unsafe connections[sender].arrived = arrived
            guard unsafe !connections[sender].isDirty else { return }
            unsafe connections[sender].isDirty = true
            unsafe dirty[dirtyCount] = sender
            dirtyCount += 1
        }
        self.dirtyCount = dirtyCount
    }

    private mutating func takeControl(_ slot: Int, _ first: UInt8, _ start: Int, _ length: Int) throws(LoadError) {
        let payload = unsafe Array(UnsafeBufferPointer(start: scratch + start, count: length))
        switch first {
        case 0x89:
            unsafe connections[slot].queueControl(Frame(opcode: .pong, payload: payload))
            try flush(slot)
        case 0x8A: return
        case 0x88:
            let code = payload.count >= 2 ? Int(payload[0]) << 8 | Int(payload[1]) : nil
            throw ended(slot, "the relay closed it with \(code.map { "code \($0)" } ?? "no code")")
        default: throw ended(slot, "a frame with first byte 0x\(Encoding.hex([first])) from the relay")
        }
    }
}
