// The keys that TLS session tickets are sealed with: one ring for all workers, so that a client resumes on any of them. The supervisor
// draws a new key now and then; workers read the ring when its generation has changed. It lies in memory of its own, which is never
// written to a core dump, and whose keys are overwritten as they leave the ring.
//
// Byte map (version 1):
//
//     0       generation: 64 bits, odd while the ring is being written
//     8       count of keys: 64 bits
//     16 ...  keys of `Limits.ticketKeyBytes` bytes, newest first, room for `Limits.ticketKeys`
//
// The supervisor is the one writer. A reader that sees the generation change reads again (a sequence lock).

import CLinux
import Glibc
import Synchronization

/// The ring of ticket keys in shared memory.
@safe
package struct TicketMemory: @unchecked Sendable {
    private let base: UnsafeMutableRawPointer
    private static let bytes = 4096
    private static let ringOffset = 16

    /// The file behind the memory, which workers are given to map.
    package static func makeFile() throws(SystemError) -> Descriptor {
        let number = unsafe clinux_memfd("relay-tickets")
        guard number >= 0 else { throw SystemError("memfd_create") }
        return Descriptor(owning: number)
    }

    /// Sizes the file, maps it and draws a first key.
    package static func create(in file: borrowing Descriptor) throws(SystemError) -> TicketMemory {
        guard ftruncate(file.number, bytes) == 0 else { throw SystemError("ftruncate") }
        guard clinux_seal(file.number, CLINUX_SEAL_SIZE) == 0 else { throw SystemError("fcntl") }
        let memory = try TicketMemory(file, isWriter: true)
        memory.rotate()
        return memory
    }

    /// Maps memory that `create` made, to read it.
    package init(mapping file: borrowing Descriptor) throws(SystemError) {
        var status = stat()
        guard unsafe fstat(file.number, &status) == 0 else { throw SystemError("fstat") }
        guard status.st_size >= Self.bytes else { throw SystemError("mmap", EINVAL) }
        try self.init(file, isWriter: false)
    }

    /// Maps memory that `create` made in another program of the same supervisor.
    package init(continuing file: borrowing Descriptor) throws(SystemError) {
        try self.init(file, isWriter: true)
    }

    private init(_ file: borrowing Descriptor, isWriter: Bool) throws(SystemError) {
        let access = isWriter ? PROT_READ | PROT_WRITE : PROT_READ
        let mapping = unsafe mmap(nil, Self.bytes, access, MAP_SHARED, file.number, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { throw SystemError("mmap") }
        guard unsafe madvise(mapping, Self.bytes, MADV_DONTDUMP) == 0 else { throw SystemError("madvise") }
        unsafe base = mapping
    }

    private func word(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe base.advanced(by: offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    /// Changes with every rotation.
    package var generation: UInt64 { unsafe word(0).pointee.load(ordering: .acquiring) }

    /// Draws a new key; the oldest leaves the ring when it is full. For the supervisor alone.
    package func rotate() {
        let count = Int(unsafe word(8).pointee.load(ordering: .relaxed))
        let kept = min(count, Limits.ticketKeys - 1)
        let ring = unsafe base + Self.ringOffset
        unsafe word(0).pointee.wrappingAdd(1, ordering: .acquiringAndReleasing)
        // What follows must not be seen before the odd generation.
        atomicMemoryFence(ordering: .releasing)
        // The ring has room for `kept` + 1 keys: the oldest is overwritten by the one before it.
        unsafe memmove(ring + Limits.ticketKeyBytes, ring, kept * Limits.ticketKeyBytes)
        // The system's generator is the kernel's: getrandom(2).
        var random = SystemRandomNumberGenerator()
        for offset in stride(from: 0, to: Limits.ticketKeyBytes, by: 8) {
            unsafe ring.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
        }
        unsafe word(8).pointee.store(UInt64(kept + 1), ordering: .relaxed)
        unsafe word(0).pointee.wrappingAdd(1, ordering: .acquiringAndReleasing)
    }

    /// Gives a copy of the ring to `body`, and wipes it.
    ///
    /// - Returns: the generation that was read; nil if the ring kept changing, which a second try in a moment mends.
    package func read(_ body: (UnsafeRawBufferPointer) -> Void) -> UInt64? {
        unsafe withUnsafeTemporaryAllocation(byteCount: Self.bytes, alignment: 8) { copy in
            defer {
                if let start = copy.baseAddress { unsafe explicit_bzero(start, copy.count) }
            }
            for _ in 0..<100 {
                let before = generation
                guard before.isMultiple(of: 2) else { continue }
                let count = min(Int(unsafe word(8).pointee.load(ordering: .relaxed)), Limits.ticketKeys)
                let bytes = count * Limits.ticketKeyBytes
                unsafe copy.copyMemory(from: UnsafeRawBufferPointer(start: base + Self.ringOffset, count: bytes))
                atomicMemoryFence(ordering: .acquiring)
                guard generation == before else { continue }
                unsafe body(UnsafeRawBufferPointer(rebasing: copy[..<bytes]))
                return before
            }
            return nil
        }
    }
}
