// What all processes of the relay read and write without asking each other: one memfd, mapped by each.
//
// Byte map (all words little-endian 64-bit atomics unless said otherwise; version 6):
//
//     0                 what all workers count in
//        24             rooms open over the whole relay (quota)
//        32             connections open over the whole relay (quota)
//        40             limiter entries that a flood of addresses pushed out
//        48             bytes of RELAY_MAX_MEMORY that workers have taken (MemoryPool)
//     4096              header, the supervisor's
//         0             magic "RLYSHM" and the version, written before any worker starts
//         8             count of pages (Limits.workerPages)
//        16             phase of the relay (RelayPhase)
//        48             limiter seed, drawn at creation
//        56             pages that have ever been used: the first so many
//        64 ...         changes of generations: 2 words a kind (reload, upgrade, recycle), those that succeeded and those that failed
//     8192 * (1 + i)    page i. A worker keeps its page over its deaths; at a reload its successor takes another, because for a
//                       while both live
//         0             state (WorkerState), written by the worker while it lives and by the supervisor after its death
//         8             heartbeat: CLOCK_MONOTONIC nanoseconds of the last turn of its loop
//        16             pid
//        40             number of the system call that ended the worker, with bit 63 set; 0: none
//        64 ...         gauges, 8 bytes each in the order of `Gauge`: of this process, zeroed at its start
//       512 ...         counters, 8 bytes each in the order of `Counter`: outlive the process, never fall
//      2048 ...         histograms, 256 bytes each in the order of `Histogram`: buckets and then the sum, nanoseconds, 8 bytes each;
//                       they outlive the process as well
//      4096 ...         families of counters, 512 bytes each in the order of `CounterFamily`, in them 8 bytes each in the order of
//                       the family's values; counters like the others
//     8192 * (1 + p)    after the p pages: what the supervisor says of each, 16 bytes
//         0             role of the page's worker (WorkerRole)
//         8             deaths in a row (RestartPolicy)
//     after those       per-address limiter: `SharedMemory.limiterSlots` entries of 16 bytes, key then theoretical arrival
//                       time; a key is one of an address's (AddressKeys.swift), mixed with the bucket that it is of
//     after it          connections and rooms per address, where they are limited: AddressTable.swift
//
// Who writes: a worker its own page; the supervisor the header, what it says of pages, the pages of dead workers, and
// the quotas on behalf of the dead; any worker the quotas and the limiter, by compare-and-swap. A counter has one
// writer at a time, so it is a relaxed load and store, not a locked addition. A worker maps for writing what it writes
// and nothing else, the rest from a descriptor that is open for reading alone, and then has neither descriptor: so it
// stays, whatever becomes of the worker. The file keeps its size (F_SEAL_SHRINK), so that nobody's access faults.

import CLinux
import Glibc
import Synchronization

/// What the relay as a whole is doing.
package enum RelayPhase: UInt64, Sendable {
    case starting = 0
    case serving = 1
    case draining = 2
}

/// What one worker is doing.
package enum WorkerState: UInt64, Sendable {
    case down = 0
    case starting = 1
    case serving = 2
    case draining = 3
}

/// What a page's worker is to the relay.
package enum WorkerRole: UInt64, Sendable {
    /// The page is free: its counters tell of the past.
    case none = 0
    /// It counts for `/health`.
    case current = 1
    /// Its rooms go to a successor; it ends when the last connection has gone.
    case leaving = 2
}

/// The health of the relay as `/health` tells it.
package enum Health: Sendable, Equatable {
    case ok
    case degraded
    case unavailable
}

/// What the limiter counts by itself. The raw value goes into the keys of entries.
package enum RateBucket: UInt64, Sendable {
    /// Requests for `/ws`.
    case joins = 0
    /// Other requests, whatever their answer, and TLS handshakes.
    case requests = 1

    /// The rate as a multiple of RELAY_RATE_LIMIT_PER_IP.
    fileprivate var rateFactor: Int { self == .joins ? 1 : Limits.requestRateFactor }
}

/// The relay's shared memory. A copy of this value is another reference to the same mapping, which lasts as long as the process.
@safe
package struct SharedMemory: @unchecked Sendable {
    private let base: UnsafeMutableRawPointer

    private static let magic: UInt64 = 0x524C_5953_484D_0006  // "RLYSHM", version 6
    static let pageBytes = 8192
    /// 4 MiB: four entries for each of 65,536 addresses in the same instant, joins and requests by two keys. An entry
    /// lives only while its bucket refills, 2 s at most, so more are never needed at sane rates; beyond that the entry
    /// nearest to its end is pushed out.
    static let limiterSlots = 1 << 18
    /// Entries that a search looks at.
    static let limiterProbes = 16

    /// What every worker writes, and where the supervisor's words begin.
    private static let headerOffset = 4096
    private static let rowsOffset = pageBytes * (1 + Limits.workerPages)
    private static let rowBytes = 16
    private static let limiterOffset = rowsOffset + rowBytes * Limits.workerPages
    /// Pages that are never touched cost nothing.
    static let byteCount = limiterOffset + limiterSlots * 16

    /// The file behind the memory, which workers are given to map.
    package static func makeFile() throws(SystemError) -> Descriptor {
        let number = unsafe clinux_memfd("relay")
        guard number >= 0 else { throw SystemError("memfd_create") }
        return Descriptor(owning: number)
    }

    /// Sizes the file, maps it and writes the header.
    package static func create(in file: borrowing Descriptor) throws(SystemError) -> SharedMemory {
        guard ftruncate(file.number, byteCount) == 0 else { throw SystemError("ftruncate") }
        // It may still grow, by a table of addresses.
        guard clinux_seal(file.number, CLINUX_SEAL_SHRINK) == 0 else { throw SystemError("fcntl") }
        let memory = try SharedMemory(mapping: file.number, PROT_READ | PROT_WRITE)
        var random = SystemRandomNumberGenerator()
        memory.fixed(48).store(random.next(), ordering: .relaxed)
        memory.fixed(8).store(UInt64(Limits.workerPages), ordering: .relaxed)
        memory.fixed(0).store(magic, ordering: .releasing)
        return memory
    }

    /// Maps memory that `create` made: for the supervisor, which writes all of it.
    package static func map(_ descriptor: borrowing Descriptor) throws(SystemError) -> SharedMemory {
        try check(descriptor)
        return try SharedMemory(mapping: descriptor.number, PROT_READ | PROT_WRITE).checked()
    }

    /// Maps it for a worker: for writing its own page and what all workers count in.
    ///
    /// - Parameters:
    ///   - descriptor: open for reading alone (`clinux_reopen_for_reading`).
    ///   - writable: the same file, open for writing.
    package static func map(
        _ descriptor: borrowing Descriptor, writable: borrowing Descriptor, page: Int
    ) throws(SystemError) -> SharedMemory {
        precondition(page >= 0 && page < Limits.workerPages, "no such page")
        try check(descriptor)
        try check(writable)
        // Parts begin at multiples of 4 KiB. Where the kernel's pages are larger, one that is mapped for writing would
        // be all of it.
        guard sysconf(Int32(_SC_PAGESIZE)) == 4096 else { return try map(writable) }
        let memory = try SharedMemory(mapping: descriptor.number, PROT_READ).checked()
        for (offset, count) in [
            (0, headerOffset), (pageBytes * (1 + page), pageBytes), (limiterOffset, limiterSlots * 16),
        ] {
            // In the place of what has just been mapped there.
            let part = unsafe mmap(
                memory.base + offset, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, writable.number,
                off_t(offset))
            guard unsafe part != MAP_FAILED else { throw SystemError("mmap") }
        }
        return memory
    }

    private static func check(_ descriptor: borrowing Descriptor) throws(SystemError) {
        var status = stat()
        guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("fstat") }
        guard status.st_size >= byteCount else { throw SystemError("mmap", EINVAL) }
    }

    private func checked() throws(SystemError) -> SharedMemory {
        guard fixed(0).load(ordering: .acquiring) == Self.magic, fixed(8).load(ordering: .relaxed) == Limits.workerPages
        else {
            throw SystemError("mmap", EINVAL)
        }
        return self
    }

    private init(mapping descriptor: Int32, _ access: Int32) throws(SystemError) {
        let mapping = unsafe mmap(nil, Self.byteCount, access, MAP_SHARED, descriptor, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { throw SystemError("mmap") }
        unsafe base = mapping
    }

    /// The word at a byte offset. Every caller's offset lies inside the mapping by construction of the byte map.
    private func word(_ offset: Int) -> Word {
        unsafe Word(base.advanced(by: offset).assumingMemoryBound(to: Atomic<UInt64>.self))
    }

    /// A word of the header.
    private func fixed(_ offset: Int) -> Word { word(Self.headerOffset + offset) }

    // MARK: - The relay as a whole

    package var phase: RelayPhase {
        get { RelayPhase(rawValue: fixed(16).load(ordering: .acquiring)) ?? .starting }
        nonmutating set { fixed(16).store(newValue.rawValue, ordering: .releasing) }
    }

    /// Rooms open, to be kept at or below RELAY_MAX_ROOMS.
    package var rooms: Quota { Quota(word(24)) }

    /// Connections open, to be kept at or below RELAY_MAX_CONNECTIONS.
    package var connections: Quota { Quota(word(32)) }

    /// What workers hold of RELAY_MAX_MEMORY.
    package var memoryPool: MemoryPool { MemoryPool(word(48)) }

    package var limiterEvictions: UInt64 { word(40).load(ordering: .relaxed) }

    package func page(_ index: Int) -> WorkerPage {
        precondition(index >= 0 && index < Limits.workerPages, "no such page")
        return unsafe WorkerPage(
            base.advanced(by: Self.pageBytes * (1 + index)), row: base + Self.rowsOffset + Self.rowBytes * index)
    }

    /// Counts a change of generations that is over. For the supervisor alone.
    package func countChange(_ kind: Int, succeeded: Bool) {
        precondition((0..<3).contains(kind), "no such kind of change")
        _ = fixed(64 + 16 * kind + (succeeded ? 0 : 8)).add(1)
    }

    /// Changes of a kind that succeeded, or failed, since the relay started.
    package func changes(_ kind: Int, succeeded: Bool) -> UInt64 {
        precondition((0..<3).contains(kind), "no such kind of change")
        return fixed(64 + 16 * kind + (succeeded ? 0 : 8)).load(ordering: .relaxed)
    }

    /// How many pages have ever been used: the first so many.
    package var pagesUsed: Int { min(Int(clamping: fixed(56).load(ordering: .acquiring)), Limits.workerPages) }

    /// Pages that have ever been used. Their counters together tell what has happened since the relay started.
    package var pages: some Collection<WorkerPage> { (0..<pagesUsed).lazy.map { page($0) } }

    /// Gives a page to a worker's place, or changes what its worker is to the relay. For the supervisor alone.
    package func assign(_ index: Int, _ role: WorkerRole) {
        page(index).role = role
        if index >= pagesUsed { fixed(56).store(UInt64(index + 1), ordering: .releasing) }
    }

    /// What `/health` says: `ok` while every worker serves, `degraded` while some do; `unavailable` while none does, while
    /// one keeps crashing, and while the relay drains.
    ///
    /// - Parameter silenceMax: nanoseconds after which a worker whose heart does not beat counts as not serving.
    package func health(now: UInt64, silenceMax: UInt64) -> Health {
        guard phase == .serving else { return .unavailable }
        var (serving, workers) = (0, 0)
        for index in 0..<pagesUsed {
            let page = page(index)
            guard page.role == .current else { continue }
            workers += 1
            let beat = page.heartbeat
            if page.deathsInRow >= Limits.deathsInRowUnhealthy { return .unavailable }
            if page.state == .serving, now < beat || now - beat <= silenceMax { serving += 1 }
        }
        if serving == workers && workers > 0 { return .ok }
        return serving > 0 ? .degraded : .unavailable
    }

    // MARK: - The per-address limiter

    /// Whether another of what a bucket counts may come from an address now: only if both its keys admit it.
    ///
    /// - Parameter rate: RELAY_RATE_LIMIT_PER_IP, above 0.
    /// - Returns: nil if admitted, else the nanoseconds until one would be.
    package func admit(_ keys: AddressKeys, to bucket: RateBucket, rate: Int, now: UInt64) -> UInt64? {
        let rate = rate * bucket.rateFactor
        let narrow = entryKey(keys.narrow, bucket)
        guard let wide = keys.wide.map({ entryKey($0, bucket) }) else {
            return admit(key: narrow, rate: rate, burst: rate * Limits.burstFactor, now: now)
        }
        let wideRate = rate * Limits.wideRateFactor
        let wideBurst = wideRate * Limits.burstFactor
        // Looked at first: an attacker's other networks of 64 bits then take neither entries nor what there is for
        // their neighbours.
        if let wait = wait(key: wide, rate: wideRate, burst: wideBurst, now: now) { return wait }
        if let wait = admit(key: narrow, rate: rate, burst: rate * Limits.burstFactor, now: now) { return wait }
        return admit(key: wide, rate: wideRate, burst: wideBurst, now: now)
    }

    /// The key of an entry: nobody who does not know the seed can aim at another bucket's.
    private func entryKey(_ key: UInt64, _ bucket: RateBucket) -> UInt64 {
        guard bucket != .joins else { return key }
        // Not 0, which is no entry.
        return max(1, key ^ Self.mix(fixed(48).load(ordering: .relaxed) &+ bucket.rawValue))
    }

    /// Whether one more with this key may come now, by GCRA: `rate` a second, `burst` at once.
    ///
    /// - Returns: nil if admitted, else the nanoseconds until one would be.
    func admit(key: UInt64, rate: Int, burst: Int, now: UInt64) -> UInt64? {
        let interval = 1_000_000_000 / UInt64(rate)
        let tolerance = interval * UInt64(burst)
        while true {
            let slot = limiterSlot(key: key, now: now)
            let arrival = word(slot + 8).load(ordering: .relaxed)
            let next = owed(arrival, now) + interval
            if next - now > tolerance { return next - tolerance - now }
            guard word(slot + 8).exchange(expected: arrival, desired: next) else { continue }
            // Another worker may have given the slot to another address between the search and the exchange. Then that
            // newcomer has paid for this one, one at most, and this address pays once more, in a slot of its own.
            if word(slot).load(ordering: .acquiring) == key { return nil }
        }
    }

    /// What `admit` would say, without counting anything.
    private func wait(key: UInt64, rate: Int, burst: Int, now: UInt64) -> UInt64? {
        let start = limiterStart(key: key)
        for probe in 0..<Self.limiterProbes {
            let offset = limiterOffset(start, probe)
            let found = word(offset).load(ordering: .acquiring)
            if found == 0 { return nil }
            guard found == key else { continue }
            let interval = 1_000_000_000 / UInt64(rate)
            let next = owed(word(offset + 8).load(ordering: .relaxed), now) + interval
            let tolerance = interval * UInt64(burst)
            return next - now > tolerance ? next - tolerance - now : nil
        }
        return nil
    }

    /// Until when an entry is in debt. Nobody owes more than a burst, which is seconds: what is further ahead was not
    /// written here.
    private func owed(_ arrival: UInt64, _ now: UInt64) -> UInt64 {
        arrival <= now &+ Limits.limiterDebtNanosecondsMax ? max(arrival, now) : now
    }

    private func limiterStart(key: UInt64) -> Int {
        Int(truncatingIfNeeded: Self.mix(key ^ fixed(48).load(ordering: .relaxed)))
    }

    private func limiterOffset(_ start: Int, _ probe: Int) -> Int {
        Self.limiterOffset + ((start &+ probe) & (Self.limiterSlots - 1)) * 16
    }

    /// The byte offset of the entry of `key`, which is claimed if there is none.
    private func limiterSlot(key: UInt64, now: UInt64) -> Int {
        let start = limiterStart(key: key)
        while true {
            var free = -1
            var freeKey: UInt64 = 0
            var freeArrival = UInt64.max
            for probe in 0..<Self.limiterProbes {
                let offset = limiterOffset(start, probe)
                let found = word(offset).load(ordering: .acquiring)
                if found == key { return offset }
                let arrival = found == 0 ? 0 : word(offset + 8).load(ordering: .relaxed)
                if arrival < freeArrival {
                    (free, freeKey, freeArrival) = (offset, found, arrival)
                    if found == 0 { break }  // Entries are never emptied: the key can't stand behind an empty one.
                }
            }
            if freeArrival > now { _ = word(40).add(1) }
            // An entry whose arrival time has passed is a full bucket, the same as none, so its new owner inherits
            // nothing. One that is pushed out early leaves its debt to the newcomer: never more than its own limit.
            if word(free).exchange(expected: freeKey, desired: key) { return free }
        }
    }

    /// The finalizer of SplitMix64: spreads keys that an attacker can choose but, without the seed, not aim.
    static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// One atomic word of the shared memory.
@safe
private struct Word {
    private let address: UnsafeMutablePointer<Atomic<UInt64>>

    init(_ address: UnsafeMutablePointer<Atomic<UInt64>>) {
        unsafe self.address = unsafe address
    }

    func load(ordering: AtomicLoadOrdering) -> UInt64 {
        switch ordering {
        case .relaxed: unsafe address.pointee.load(ordering: .relaxed)
        default: unsafe address.pointee.load(ordering: .acquiring)
        }
    }

    func store(_ value: UInt64, ordering: AtomicStoreOrdering) {
        switch ordering {
        case .relaxed: unsafe address.pointee.store(value, ordering: .relaxed)
        default: unsafe address.pointee.store(value, ordering: .releasing)
        }
    }

    func add(_ value: UInt64) -> UInt64 {
        unsafe address.pointee.wrappingAdd(value, ordering: .relaxed).newValue
    }

    func exchange(expected: UInt64, desired: UInt64) -> Bool {
        unsafe address.pointee.compareExchange(
            expected: expected, desired: desired, ordering: .acquiringAndReleasing
        ).exchanged
    }
}

/// A count over the whole relay that must not pass a maximum.
package struct Quota: Sendable {
    private let word: UncheckedWord

    fileprivate init(_ word: Word) {
        self.word = UncheckedWord(word: word)
    }

    package var count: UInt64 { word.word.load(ordering: .relaxed) }

    /// Takes one if fewer than `max` are taken.
    package func take(max: Int) -> Bool {
        var taken = count
        while taken < UInt64(max) {
            if word.word.exchange(expected: taken, desired: taken + 1) { return true }
            taken = count
        }
        return false
    }

    /// Puts right a count that has been found wrong, by `excess` too much or, negative, too little. For the supervisor.
    package func correct(by excess: Int64) {
        if excess > 0 {
            give(UInt64(excess))
        } else if excess < 0 {
            _ = word.word.add(excess.magnitude)
        }
    }

    /// Gives back `amount`: one's own, or all of a dead worker's. Never below none: a count that a crash at the wrong
    /// instruction has made wrong by one must not become one that is full for ever.
    package func give(_ amount: UInt64 = 1) {
        var taken = count
        while !word.word.exchange(expected: taken, desired: taken - min(taken, amount)) { taken = count }
    }
}

/// Bytes of RELAY_MAX_MEMORY that workers have taken. What a worker has is its `memoryGranted` as well, never more than
/// it has here, which the supervisor gives back when the worker is gone; what one that ends between the two has taken
/// the supervisor finds when it compares (supervisor/MemoryAudit).
package struct MemoryPool: Sendable {
    private let word: UncheckedWord

    fileprivate init(_ word: Word) {
        self.word = UncheckedWord(word: word)
    }

    package var taken: Int { Int(clamping: word.word.load(ordering: .relaxed)) }

    /// Takes `bytes` if no more than `max` are taken then.
    package func take(_ bytes: Int, max: Int) -> Bool {
        while true {
            let before = word.word.load(ordering: .relaxed)
            let after = before &+ UInt64(bytes)
            guard after >= before, after <= UInt64(Swift.max(0, max)) else { return false }
            if word.word.exchange(expected: before, desired: after) { return true }
        }
    }

    /// Takes `bytes` whatever is taken: for a worker's floor.
    package func takeAnyhow(_ bytes: Int) {
        _ = word.word.add(UInt64(bytes))
    }

    /// Puts right what has been found wrong, by `excess` too much or, negative, too little. For the supervisor.
    package func correct(by excess: Int64) {
        if excess > 0 {
            give(Int(clamping: excess))
        } else if excess < 0 {
            takeAnyhow(Int(clamping: excess.magnitude))
        }
    }

    /// Gives back one's own, or a dead worker's. Never below none.
    package func give(_ bytes: Int) {
        while true {
            let before = word.word.load(ordering: .relaxed)
            if word.word.exchange(expected: before, desired: before - min(before, UInt64(Swift.max(0, bytes)))) {
                return
            }
        }
    }
}

/// The memory behind a `Word` is shared between processes; every access is atomic.
private struct UncheckedWord: @unchecked Sendable {
    let word: Word
}

/// The page of one worker.
@safe
package struct WorkerPage: @unchecked Sendable {
    private let base: UnsafeMutableRawPointer
    /// What the supervisor says of it.
    private let row: UnsafeMutableRawPointer

    fileprivate init(_ base: UnsafeMutableRawPointer, row: UnsafeMutableRawPointer) {
        unsafe self.base = unsafe base
        unsafe self.row = unsafe row
    }

    private static let gaugesOffset = 64
    private static let countersOffset = 512
    private static let familiesOffset = 4096
    private static let familyBytes = CounterFamily.labelsMax * 8

    private func word(_ offset: Int) -> Word {
        unsafe Word(base.advanced(by: offset).assumingMemoryBound(to: Atomic<UInt64>.self))
    }

    private func rowWord(_ offset: Int) -> Word {
        unsafe Word(row.advanced(by: offset).assumingMemoryBound(to: Atomic<UInt64>.self))
    }

    package var state: WorkerState {
        get { WorkerState(rawValue: word(0).load(ordering: .acquiring)) ?? .down }
        nonmutating set { word(0).store(newValue.rawValue, ordering: .releasing) }
    }

    /// CLOCK_MONOTONIC nanoseconds.
    package var heartbeat: UInt64 {
        get { word(8).load(ordering: .relaxed) }
        nonmutating set { word(8).store(newValue, ordering: .relaxed) }
    }

    package var pid: Int32 {
        get { Int32(truncatingIfNeeded: word(16).load(ordering: .relaxed)) }
        nonmutating set { word(16).store(UInt64(newValue), ordering: .relaxed) }
    }

    /// Processes in this place that have died one after the other without having lived long.
    package var deathsInRow: Int {
        get { Int(clamping: rowWord(8).load(ordering: .relaxed)) }
        nonmutating set { rowWord(8).store(UInt64(newValue), ordering: .relaxed) }
    }

    /// Where the sandbox writes the number of a system call that it does not allow (csandbox.violation). The page lasts
    /// as long as the process.
    @unsafe package var violationWord: UnsafeMutablePointer<UInt64> {
        unsafe base.advanced(by: 40).assumingMemoryBound(to: UInt64.self)
    }

    /// The system call that ended the worker, as far as it says; nil: none. Forgets it.
    package func takeViolation() -> UInt32? {
        let said = word(40).load(ordering: .relaxed)
        word(40).store(0, ordering: .relaxed)
        return said >> 63 == 1 ? UInt32(truncatingIfNeeded: said) : nil
    }

    package fileprivate(set) var role: WorkerRole {
        get { WorkerRole(rawValue: rowWord(0).load(ordering: .acquiring)) ?? .none }
        nonmutating set { rowWord(0).store(newValue.rawValue, ordering: .releasing) }
    }

    package subscript(gauge: Gauge) -> UInt64 {
        get { min(word(Self.gaugesOffset + gauge.rawValue * 8).load(ordering: .relaxed), gauge.most) }
        nonmutating set { word(Self.gaugesOffset + gauge.rawValue * 8).store(newValue, ordering: .relaxed) }
    }

    package subscript(counter: Counter) -> UInt64 {
        word(Self.countersOffset + counter.rawValue * 8).load(ordering: .relaxed)
    }

    /// Adds to a counter. Only the process that owns the page may.
    package func add(_ amount: UInt64, to counter: Counter) {
        let word = word(Self.countersOffset + counter.rawValue * 8)
        word.store(word.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    package subscript(counter: LabelledCounter) -> UInt64 {
        self[counter.family, counter.index]
    }

    /// The counter at a place of a family's block.
    package subscript(family: CounterFamily, index: Int) -> UInt64 {
        precondition(index >= 0 && index < CounterFamily.labelsMax, "no such counter")
        return word(Self.offset(of: family, index)).load(ordering: .relaxed)
    }

    /// Counts what has a label. Only the process that owns the page may.
    package func count(_ counter: LabelledCounter, _ amount: UInt64 = 1) {
        let word = word(Self.offset(of: counter.family, counter.index))
        word.store(word.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    private static func offset(of family: CounterFamily, _ index: Int) -> Int {
        familiesOffset + family.rawValue * familyBytes + index * 8
    }

    /// For a process that starts: gauges are of the process, not of the worker's place.
    package func zeroGauges() {
        for gauge in Gauge.allCases { self[gauge] = 0 }
    }

    /// That every gauge and counter lies within its part of the page; checked by a test.
    package static var fits: Bool {
        gaugesOffset + Gauge.allCases.count * 8 <= countersOffset
            && countersOffset + Counter.allCases.count * 8 <= histogramsOffset
            && (Histogram.bounds.count + 2) * 8 <= histogramBytes
            && histogramsOffset + Histogram.allCases.count * histogramBytes <= familiesOffset
            && CounterFamily.allCases.allSatisfy { $0.labels.count <= CounterFamily.labelsMax }
            && familiesOffset + CounterFamily.allCases.count * familyBytes <= SharedMemory.pageBytes
    }

    // MARK: - Histograms (Histogram.swift)

    private static let histogramsOffset = 2048
    private static let histogramBytes = 256

    func value(at histogram: Histogram, _ place: Int) -> UInt64 {
        word(Self.histogramsOffset + histogram.rawValue * Self.histogramBytes + place * 8).load(ordering: .relaxed)
    }

    func add(_ amount: UInt64, at histogram: Histogram, _ place: Int) {
        let word = word(Self.histogramsOffset + histogram.rawValue * Self.histogramBytes + place * 8)
        word.store(word.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }
}
