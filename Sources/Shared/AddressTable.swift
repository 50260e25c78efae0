// How many connections and rooms each address has over all workers (RELAY_MAX_CONNECTIONS_PER_IP,
// RELAY_MAX_ROOMS_PER_IP): an open-addressing table after the rest of the shared memory, in the same file, made when
// one of the limits is first on.
//
// Byte map, from `SharedMemory.byteCount` on (all words little-endian 64-bit atomics):
//
//     0                 count of entries, a power of two
//     8                 seed of the hash, drawn at creation
//     4096 ...          entries, 8 bytes each: fingerprint in the low 42 bits, count above it; 0 is a free one
//     behind them       ledgers, one for each page of a worker, `AddressLedger.byteCount` bytes each (AddressLedger.swift)
//
// An entry is one word, so that a key is claimed with its first connection and freed with its last by the same
// compare-and-swap that counts: there is no state between, and nothing that a dead process could leave half done. The
// hash is a bijection of key and seed, which is another for rooms: its high bits say where a search begins, its low
// ones are the fingerprint. A search looks at the `probes` entries from there on and never stops at a free one, because
// entries come and go.
//
// Exact: two workers that claim entries for one key at the same moment may end with two. So whoever has counted itself looks
// again and takes all entries of its key together; over the maximum, it uncounts itself. Let more connections than the
// maximum be admitted at some moment, and of these the one that counted itself last: when it looked again, all others were
// counted, each in an entry that it does not leave while it lives, because a connection remembers where it is counted (its
// `AddressToken`). So it has seen them all, and was not admitted. (All of this is sequentially consistent.) One that
// uncounted itself beside another entry tries again, for the other may do the same; so as many are admitted as may be.
//
// An address of IPv6 is counted by two keys (AddressKeys.swift), the wider one first: what is refused because of its
// /48 touches nothing else. For the moment until the other key has refused, the /48 counts one too many, so a neighbour
// may be refused at its very edge; nobody is admitted beyond it.
//
// Where the entries near are all taken by others, a connection is admitted and not counted. Nobody can bring this about
// alone: more than half of the table must be taken, by hundreds of thousands of addresses at a time. The table is no
// larger because each of its pages that has ever been looked at stays in memory: 8 MiB at most, 8 bytes for each
// address at the least.
//
// Two addresses are taken for one if their fingerprints are equal and their places near: of a million addresses at a time that
// is one pair in half a million relays.

import CLinux
import Glibc
import Synchronization

/// What an address has a number of.
package enum AddressKind: CaseIterable, Sendable {
    case connection
    case room
}

/// Where one key of a connection or room is counted: a place in the table, and the fingerprint that stands there.
package struct AddressToken: Equatable, Sendable {
    /// The fingerprint in the low 42 bits, the place above; 0: counted nowhere.
    package let bits: UInt64

    package static let none = AddressToken(bits: 0)
    fileprivate static let placeShift: UInt64 = 42

    /// Whatever another process says: `AddressTable.give` takes nothing on trust.
    package init(bits: UInt64) {
        self.bits = bits
    }

    fileprivate init(place: Int, fingerprint: UInt64) {
        bits = UInt64(place) << Self.placeShift | fingerprint
    }

    fileprivate var place: Int { Int(bits >> Self.placeShift) }
    fileprivate var fingerprint: UInt64 { bits & AddressTable.fingerprintMask }
}

/// Where a connection or room is counted, by both keys of its address.
package struct AddressCharge: Equatable, Sendable {
    package var narrow = AddressToken.none
    /// None for IPv4.
    package var wide = AddressToken.none

    package static let none = AddressCharge()

    package init(narrow: AddressToken = .none, wide: AddressToken = .none) {
        self.narrow = narrow
        self.wide = wide
    }

    /// In a message between workers: what is to be given back if nobody takes the message. Each kind that has something
    /// to give back has it in bytes 8 to 23, narrow and then wide.
    package init(inMessage bytes: RawSpan) {
        guard bytes.byteCount >= Self.messageBytes else { return }
        // There are as many bytes, and each bit pattern is a number.
        narrow = AddressToken(
            bits: UInt64(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        wide = AddressToken(
            bits: UInt64(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 16, as: UInt64.self)))
    }

    /// As much of a message as says what is to be given back.
    package static let messageBytes = 24
}

/// The table. A copy of this value is another reference to the same mapping, which lasts as long as the process.
@safe
package struct AddressTable: @unchecked Sendable {
    private let entries: UnsafeMutablePointer<Atomic<UInt64>>
    private let mask: Int
    private let seed: UInt64

    fileprivate static let fingerprintMask: UInt64 = 1 << AddressToken.placeShift - 1
    private static let one: UInt64 = 1 << AddressToken.placeShift
    private static let countMax = (1 << (64 - Int(AddressToken.placeShift))) - 1
    /// Entries that a search looks at. At a quarter full so many in a row are taken with a probability of less than
    /// 10^-16.
    static let probes = 64
    /// Entries for each connection that the relay may have: its address and its room's make it a quarter full at most.
    private static let entriesPerConnection = 8
    /// 8 MiB: a quarter full at 262,144 keys.
    static let entriesMax = 1 << 20
    /// Attempts of one connection to be counted. A second one takes another worker that claims an entry for the same address
    /// within the same microsecond.
    private static let attemptsMax = 64
    private static let headerBytes = 4096

    /// Behind `SharedMemory`: makes the file longer and draws the seed.
    ///
    /// - Parameter connectionsMax: over the whole relay, whatever a reload may set.
    package static func create(in file: Int32, connectionsMax: Int) throws(SystemError) -> AddressTable {
        var count = headerBytes / 8
        while count < min(entriesPerConnection * connectionsMax, entriesMax) { count *= 2 }
        // Pages that are never touched cost nothing.
        guard ftruncate(file, off_t(ledgerOffset(entries: count, page: Limits.workerPages))) == 0 else {
            throw SystemError("ftruncate")
        }
        var random = SystemRandomNumberGenerator()
        let header = [UInt64(count), random.next() as UInt64]
        let written = unsafe header.withUnsafeBytes { bytes in
            unsafe pwrite(file, bytes.baseAddress, bytes.count, off_t(SharedMemory.byteCount))
        }
        // From here on the file keeps its size.
        guard written == 16, clinux_seal(file, CLINUX_SEAL_SIZE) == 0, let table = try map(file) else {
            throw SystemError("pwrite")
        }
        return table
    }

    /// Maps a table that `create` made; nil if the file has none.
    package static func map(_ file: Int32) throws(SystemError) -> AddressTable? {
        var header: [UInt64] = [0, 0]
        let read = unsafe header.withUnsafeMutableBytes { bytes in
            unsafe pread(file, bytes.baseAddress, bytes.count, off_t(SharedMemory.byteCount))
        }
        if read == 0 { return nil }
        // As many entries as a place of a token can name.
        guard read == 16, let count = Int(exactly: header[0]), count.nonzeroBitCount == 1,
            (probes...(1 << (64 - Int(AddressToken.placeShift)))).contains(count)
        else { throw SystemError("mmap", EINVAL) }
        var status = stat()
        guard unsafe fstat(file, &status) == 0 else { throw SystemError("fstat") }
        guard status.st_size >= ledgerOffset(entries: count, page: Limits.workerPages) else {
            throw SystemError("mmap", EINVAL)
        }
        let offset = off_t(SharedMemory.byteCount + headerBytes)
        let mapping = unsafe mmap(nil, count * 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { throw SystemError("mmap") }
        return unsafe AddressTable(
            entries: mapping.bindMemory(to: Atomic<UInt64>.self, capacity: count), mask: count - 1, seed: header[1])
    }

    private init(entries: UnsafeMutablePointer<Atomic<UInt64>>, mask: Int, seed: UInt64) {
        unsafe self.entries = unsafe entries
        self.mask = mask
        self.seed = seed
    }

    /// Where a page's ledger begins in the file.
    static func ledgerOffset(entries: Int, page: Int) -> Int {
        SharedMemory.byteCount + headerBytes + 8 * entries + page * AddressLedger.byteCount
    }

    func ledgerOffset(page: Int) -> Int { Self.ledgerOffset(entries: mask + 1, page: page) }

    /// What is counted, over all addresses and by all keys: for tests, because it looks at every entry.
    package var count: Int {
        (0...mask).reduce(0) { $0 + Int(load($1) >> AddressToken.placeShift) }
    }

    // MARK: - Counting

    /// Counts one more of an address, if it has fewer than `max` by its narrow key and so much less than
    /// `Limits.wideCountFactor` times that by its wide one.
    ///
    /// - Parameter intent: written down before a count changes, so that it can be given back if this process dies.
    /// - Returns: where it is counted, which may be nowhere; nil if it is refused.
    func take(
        _ kind: AddressKind, _ keys: AddressKeys, max: Int, intent: (AddressCharge) -> Void
    ) -> AddressCharge? {
        var charge = AddressCharge.none
        if let wide = keys.wide {
            let token = take(kind, key: wide, max: max * Limits.wideCountFactor) {
                intent(AddressCharge(wide: $0))
            }
            guard let token else { return nil }
            charge.wide = token
        }
        let token = take(kind, key: keys.narrow, max: max) { intent(AddressCharge(narrow: $0, wide: charge.wide)) }
        guard let token else {
            give(charge.wide)
            return nil
        }
        charge.narrow = token
        return charge
    }

    /// The same by one key.
    func take(_ kind: AddressKind, key: UInt64, max: Int, intent: (AddressToken) -> Void) -> AddressToken? {
        let hash = SharedMemory.mix(key ^ (kind == .connection ? seed : SharedMemory.mix(seed)))
        let start = Int(hash >> (64 - UInt64(mask.nonzeroBitCount)))
        // Not 0, so that no token is.
        let fingerprint = Swift.max(1, hash & Self.fingerprintMask)
        let max = Swift.min(max, Self.countMax)
        for _ in 0..<Self.attemptsMax {
            let before = search(start, fingerprint)
            guard before.count < max else { return nil }
            guard let place = before.place else { return AddressToken.none }
            let token = AddressToken(place: place, fingerprint: fingerprint)
            intent(token)
            let counted = before.word == 0 ? Self.one | fingerprint : before.word &+ Self.one
            guard exchange(place, before.word, counted) else { continue }
            if search(start, fingerprint).count <= max { return token }
            give(token)
        }
        return nil
    }

    package func give(_ charge: AddressCharge) {
        give(charge.narrow)
        give(charge.wide)
    }

    /// Counts one less. Of a token that is no longer true, because a crash at the wrong instruction has already
    /// given it back, nothing happens: a count may be one too few for a while, never one that stays.
    package func give(_ token: AddressToken) {
        let place = token.place
        guard token != .none, place <= mask else { return }
        while true {
            let word = load(place)
            // A count of 0 beside a fingerprint is written by no worker in its right mind; the supervisor gives for it
            // all the same.
            guard word >= Self.one, word & Self.fingerprintMask == token.fingerprint else { return }
            let less = word - Self.one
            if exchange(place, word, less < Self.one ? 0 : less) { return }
        }
    }

    /// All entries of a key together, and the one to count in: its first, else the first free one.
    private func search(_ start: Int, _ fingerprint: UInt64) -> (count: Int, place: Int?, word: UInt64) {
        var count = 0
        var found: (place: Int, word: UInt64)?
        var free: Int?
        for probe in 0..<Self.probes {
            let place = (start + probe) & mask
            let word = load(place)
            if word == 0 {
                if free == nil { free = place }
            } else if word & Self.fingerprintMask == fingerprint {
                count += Int(word >> AddressToken.placeShift)
                if found == nil { found = (place, word) }
            }
        }
        return (count, found?.place ?? free, found?.word ?? 0)
    }

    /// `place` is masked or checked by every caller, so it lies in the mapping.
    private func load(_ place: Int) -> UInt64 {
        unsafe entries[place].load(ordering: .sequentiallyConsistent)
    }

    private func exchange(_ place: Int, _ expected: UInt64, _ desired: UInt64) -> Bool {
        unsafe entries[place].compareExchange(
            expected: expected, desired: desired, ordering: .sequentiallyConsistent
        ).exchanged
    }
}
