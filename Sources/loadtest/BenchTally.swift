// What the load generator counts, and how it reads the messages that it counts.

/// `@safe`: `next` is allocated in `init` with `count` entries and indexed below that only.
@safe
struct BenchTally {
    private let workload: Workload
    /// For each receiver and each member of its room, the next sequence number. Receivers are numbered over all rooms.
    private let next: UnsafeMutablePointer<UInt32>
    private let count: Int

    /// Only messages that arrive in the measured window are timed.
    var isMeasuring = false
    private(set) var delivered: UInt64 = 0
    private(set) var measured: UInt64 = 0
    private(set) var skipped: UInt64 = 0
    private(set) var repeated: UInt64 = 0
    private(set) var foreign: UInt64 = 0
    private(set) var latency = Histogram()

    init(workload: Workload) {
        self.workload = workload
        // Without speakers nothing is counted.
        count = workload.speakers == 0 ? 0 : workload.rooms * workload.members * workload.members
        unsafe next = .allocate(capacity: max(1, count))
        unsafe next.initialize(repeating: 0, count: max(1, count))
    }

    func deallocate() {
        unsafe next.deallocate()
    }

    /// One binary message of `count` bytes: voice, data, or several data messages joined with line feeds. All messages of
    /// a workload are of one length, so a joined message is checked by stride. Calls `arrived` with the sender's index and the count of its
    /// messages that are here, if this receiver is the one who counts.
    @inline(__always)
    mutating func take(
        _ bytes: UnsafePointer<UInt8>, _ count: Int, receiver: Int, now: UInt64, arrived: (Int, UInt32) -> Void
    ) {
        let length = workload.payloadBytes
        var start = 0
        while start < count {
            guard count - start >= length, unsafe isOurs(bytes + start),
                unsafe count - start == length || bytes[start + length] == 0x0A
            else {
                foreign += 1
                return
            }
            unsafe takeOne(bytes + start, receiver: receiver, now: now, arrived: arrived)
            start += length + 1
        }
    }

    @inline(__always)
    private func isOurs(_ bytes: UnsafePointer<UInt8>) -> Bool {
        // The caller has seen that a whole payload is there.
        unsafe workload.isVoice ? bytes[0] == 0x4B && bytes[1] == 0x56 : bytes[0] == 0x44 && bytes[1] == 0x4D
    }

    @inline(__always)
    private mutating func takeOne(
        _ bytes: UnsafePointer<UInt8>, receiver: Int, now: UInt64, arrived: (Int, UInt32) -> Void
    ) {
        let members = workload.members
        let room = Int(unsafe Self.number(bytes + Stamp.room, 3))
        let member = Int(unsafe Self.number(bytes + Stamp.member, 2))
        guard room == receiver / members, member < members, member != receiver % members else {
            foreign += 1
            return
        }
        let sequence = UInt32(truncatingIfNeeded: unsafe Self.number(bytes + Stamp.sequence, 5))
        // receiver is below rooms x members and member below members, so the index is below count.
        let index = receiver * members + member
        let expected = unsafe next[index]
        guard sequence >= expected else {
            repeated += 1
            return
        }
        skipped += UInt64(sequence - expected)
        unsafe next[index] = sequence + 1
        delivered += 1
        if isMeasuring {
            measured += 1
            let time = unsafe Self.number(bytes + Stamp.time, 9)
            latency.record(now > time ? now - time : 0)
        }
        if receiver % members == (member + 1) % members { arrived(room * members + member, sequence + 1) }
    }

    @inline(__always)
    private static func number(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
        var value: UInt64 = 0
        var index = count - 1
        while index >= 0 {
            value = unsafe value << 7 | UInt64(bytes[index] & 0x7F)
            index -= 1
        }
        return value
    }

    /// How many of a member's messages the receiver has that has fewest. `slot` is numbered like a receiver.
    func slowest(of slot: Int) -> UInt32 {
        let members = workload.members
        let (first, member) = (slot - slot % members, slot % members)
        var least = UInt32.max
        for receiver in first..<first + members where receiver != slot {
            // Both are below rooms x members, so the index is below count.
            least = unsafe min(least, next[receiver * members + member])
        }
        return least
    }

    /// Messages that were sent and never came, over all recipients; `sent` is what each connection has sent.
    func lost(sent: (Int) -> UInt32) -> UInt64 {
        var outstanding: UInt64 = 0
        let members = workload.members
        for receiver in 0..<workload.rooms * members {
            let first = receiver / members * members
            for member in 0..<members where first + member != receiver {
                let next = unsafe next[receiver * members + member]
                outstanding += UInt64(sent(first + member) &- next)
            }
        }
        return outstanding + skipped
    }
}
