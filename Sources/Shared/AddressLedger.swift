// Where the connections and rooms of one worker are counted in the `AddressTable`: what is given back if it dies. One
// ledger a page, written by the page's worker alone, and by the supervisor after its death.
//
// Byte map (words as in AddressTable.swift; a charge is two of them, narrow and wide):
//
//     0          charge on its way: a connection that is being counted or taken over, and has no slot yet
//     16         the same of a room
//     32         records of connections that have ever been used: the first so many
//     40         the same of rooms
//     64 ...     records of connections, a charge each, by the connection's slot in its worker
//     16 Mi ...  records of rooms
//
// Order of the writes: a charge is written here before it is counted, and uncounted before it is removed here. So
// whatever is counted stands here, and a worker that dies between two writes has one too many given back: a count that
// is one too few until those connections have gone, never one that stays. A connection on its way to another worker is
// counted, and in no ledger: it lives in the inbox, which outlives both. It leaves the sender's behind the message and
// is in the receiver's before the message is taken, for the same reason. A room that moves leaves the sender's after
// its last message, which has its charge, and is in the receiver's with its first member: if one dies in between, it is
// given back twice at the worst.

import Glibc
import Synchronization

/// One page's ledger, and the table that it counts in.
@safe
package struct AddressLedger: ~Copyable {
    private let table: AddressTable
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private var used: (connections: Int, rooms: Int)

    /// A slot for each connection or room that a worker can have, and for those that have left within a turn or wait
    /// to.
    static let recordsMax = partBytes / 16 - firstRecord / 2
    private static let partBytes = 16 << 20
    static let byteCount = 2 * partBytes
    /// In words.
    private static let firstRecord = 8

    /// Maps the ledger of a page.
    ///
    /// - Parameter file: the shared memory's.
    package init(_ table: AddressTable, page: Int, file: Int32) throws(SystemError) {
        precondition(page >= 0 && page < Limits.workerPages, "no such page")
        let offset = off_t(table.ledgerOffset(page: page))
        let mapping = unsafe mmap(nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { throw SystemError("mmap") }
        self.table = table
        unsafe words = mapping.bindMemory(to: Atomic<UInt64>.self, capacity: Self.byteCount / 8)
        used = (0, 0)
        used.connections = min(Int(clamping: load(Self.usedIndex(.connection))), Self.recordsMax)
        used.rooms = min(Int(clamping: load(Self.usedIndex(.room))), Self.recordsMax)
    }

    deinit {
        unsafe munmap(words, Self.byteCount)
    }

    /// Gives back what a dead worker's ledger holds, and empties it. For the supervisor, when the process is reaped.
    ///
    /// - Parameter file: the shared memory's.
    package static func reclaim(_ table: AddressTable, page: Int, file: Int32) throws(SystemError) {
        let ledger = try AddressLedger(table, page: page, file: file)
        for kind in AddressKind.allCases {
            ledger.reclaim(at: wayIndex(kind))
            for slot in 0..<ledger.used(kind) { ledger.reclaim(at: recordIndex(kind, slot)) }
        }
        // Its pages go back to the kernel.
        guard unsafe madvise(ledger.words, Self.byteCount, MADV_REMOVE) == 0 else { throw SystemError("madvise") }
    }

    private func reclaim(at index: Int) {
        table.give(AddressCharge(narrow: AddressToken(bits: load(index)), wide: AddressToken(bits: load(index + 1))))
        store(index, .none)
    }

    // MARK: - The way of a connection or room

    /// Counts one more of an address. It is then on its way, to be held or abandoned.
    ///
    /// - Returns: where it is counted, which may be nowhere; nil if it is refused.
    package func take(_ kind: AddressKind, _ keys: AddressKeys, max: Int) -> AddressCharge? {
        let charge = table.take(kind, keys, max: max) { store(Self.wayIndex(kind), $0) }
        if charge == nil || charge == AddressCharge.none { store(Self.wayIndex(kind), .none) }
        return charge
    }

    /// What is counted already is about to be taken over.
    package func expect(_ kind: AddressKind, _ charge: AddressCharge) {
        store(Self.wayIndex(kind), charge)
    }

    /// What was on its way is that of this slot.
    package mutating func hold(_ kind: AddressKind, _ charge: AddressCharge, slot: UInt32) {
        precondition(slot < Self.recordsMax, "there is a record for each slot that a worker can have")
        if slot >= used(kind) {
            if kind == .connection { used.connections = Int(slot) + 1 } else { used.rooms = Int(slot) + 1 }
            store(word: Self.usedIndex(kind), UInt64(used(kind)))
        }
        store(Self.recordIndex(kind, Int(slot)), charge)
        store(Self.wayIndex(kind), .none)
    }

    /// What was on its way comes to nothing.
    package func abandon(_ kind: AddressKind, _ charge: AddressCharge) {
        table.give(charge)
        store(Self.wayIndex(kind), .none)
    }

    /// That of this slot has ended.
    package func release(_ kind: AddressKind, _ charge: AddressCharge, slot: UInt32) {
        table.give(charge)
        store(Self.recordIndex(kind, Int(slot)), .none)
    }

    /// That of this slot is on its way to another worker, counted as it is.
    package func handedOver(_ kind: AddressKind, slot: UInt32) {
        store(Self.recordIndex(kind, Int(slot)), .none)
    }

    // MARK: - Words

    private static func wayIndex(_ kind: AddressKind) -> Int { kind == .connection ? 0 : 2 }
    private static func usedIndex(_ kind: AddressKind) -> Int { kind == .connection ? 4 : 5 }

    private static func recordIndex(_ kind: AddressKind, _ slot: Int) -> Int {
        kind == .connection ? firstRecord + 2 * slot : partBytes / 8 + 2 * slot
    }

    private func used(_ kind: AddressKind) -> Int { kind == .connection ? used.connections : used.rooms }

    private func store(_ index: Int, _ charge: AddressCharge) {
        store(word: index, charge.narrow.bits)
        store(word: index + 1, charge.wide.bits)
    }

    /// Every index is one of the head's, or that of a record whose slot `hold` has checked.
    private func load(_ index: Int) -> UInt64 {
        unsafe words[index].load(ordering: .sequentiallyConsistent)
    }

    private func store(word index: Int, _ value: UInt64) {
        unsafe words[index].store(value, ordering: .sequentiallyConsistent)
    }
}
