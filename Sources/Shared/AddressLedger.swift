// Where the connections of one worker are counted in the `AddressTable`: what is given back if it dies. One ledger a page, written
// by the page's worker alone, and by the supervisor after its death.
//
// Byte map (words as in AddressTable.swift):
//
//     0       token on its way: a connection that is being counted or taken over, and has no slot yet
//     8       records that have ever been used: the first so many
//     16 ...  records, a token each, by the connection's slot in its worker
//
// Order of the writes: a token is written here before it is counted, and uncounted before it is removed here. So whatever is
// counted stands here, and a worker that dies between two writes has one too many given back: a count that is one too few
// until those connections have gone, never one that stays. A connection on its way to another worker is counted, and in no
// ledger: it lives in the inbox, which outlives both. It leaves the sender's behind the message and is in the receiver's
// before the message is taken, for the same reason.

import Glibc
import Synchronization

/// One page's ledger, and the table that it counts in.
@safe
package struct AddressLedger: ~Copyable {
    private let table: AddressTable
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private var used: Int

    /// A slot for each connection that a worker can have, and for those that have left within a turn or wait to.
    static let recordsMax = byteCount / 8 - headerWords
    static let byteCount = 8 << 20
    private static let headerWords = 2

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
        used = 0
        used = min(Int(clamping: load(1)), Self.recordsMax)
    }

    deinit {
        unsafe munmap(words, Self.byteCount)
    }

    /// Gives back what a dead worker's ledger holds, and empties it. For the supervisor, when the process is reaped.
    ///
    /// - Parameter file: the shared memory's.
    package static func reclaim(_ table: AddressTable, page: Int, file: Int32) throws(SystemError) {
        let ledger = try AddressLedger(table, page: page, file: file)
        for index in 0..<(Self.headerWords + ledger.used) where index != 1 {
            table.give(AddressToken(bits: ledger.load(index)))
            ledger.store(index, 0)
        }
        // Its pages go back to the kernel.
        guard unsafe madvise(ledger.words, Self.byteCount, MADV_REMOVE) == 0 else { throw SystemError("madvise") }
    }

    // MARK: - A connection's way

    /// Counts a connection of the address with this key. It is then on its way, to be held or abandoned.
    package func take(key: UInt64, max: Int) -> AddressToken {
        let token = table.take(key: key, max: max) { store(0, $0.bits) }
        if token == .none { store(0, 0) }
        return token
    }

    /// A connection that is counted already is about to be taken over.
    package func expect(_ token: AddressToken) {
        store(0, token.bits)
    }

    /// What was on its way is the connection's in this slot.
    package mutating func hold(_ token: AddressToken, slot: UInt32) {
        precondition(slot < Self.recordsMax, "there is a record for each connection that a worker can have")
        if slot >= used {
            used = Int(slot) + 1
            store(1, UInt64(used))
        }
        store(Self.headerWords + Int(slot), token.bits)
        store(0, 0)
    }

    /// What was on its way comes to nothing.
    package func abandon(_ token: AddressToken) {
        table.give(token)
        store(0, 0)
    }

    /// The connection in this slot has ended.
    package func release(_ token: AddressToken, slot: UInt32) {
        table.give(token)
        store(Self.headerWords + Int(slot), 0)
    }

    /// The connection in this slot is on its way to another worker, counted as it is.
    package func handedOver(slot: UInt32) {
        store(Self.headerWords + Int(slot), 0)
    }

    /// Every index is 0, 1 or that of a record whose slot `hold` has checked.
    private func load(_ index: Int) -> UInt64 {
        unsafe words[index].load(ordering: .sequentiallyConsistent)
    }

    private func store(_ index: Int, _ value: UInt64) {
        unsafe words[index].store(value, ordering: .sequentiallyConsistent)
    }
}
