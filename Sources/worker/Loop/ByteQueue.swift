// A growing run of raw bytes: appended at the tail, taken from the head. What a connection or a room keeps between two
// turns of the loop stands in one of these; an empty one owns no memory.
//
// Invariant: 0 <= head <= tail <= capacity; storage is nil exactly when capacity is 0.

import Glibc
import Shared

/// Bytes waiting, in order.
@safe
struct ByteQueue: ~Copyable {
    private var storage: UnsafeMutableRawPointer?
    private(set) var capacity = 0
    private var head = 0
    private var tail = 0

    init() {
        unsafe storage = nil
    }

    deinit {
        unsafe free(storage)
    }

    var count: Int { tail - head }
    var isEmpty: Bool { head == tail }

    /// The bytes, valid until the queue is next changed. The only way to hand them to a system call.
    func withBytes<Result: ~Copyable>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        unsafe body(unsafeBytes)
    }

    /// The bytes in place, valid until the queue is next changed: for reading one queue while others change.
    var unsafeBytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: storage.map { unsafe UnsafeRawPointer($0) + head }, count: count)
    }

    /// The byte at `index` from the head.
    subscript(index: Int) -> UInt8 {
        precondition(index >= 0 && index < count, "index out of range")
        guard let storage = unsafe storage else { preconditionFailure("a queue that holds bytes has storage") }
        return unsafe storage.load(fromByteOffset: head + index, as: UInt8.self)
    }

    /// A copy of the bytes.
    var array: [UInt8] {
        unsafe withBytes { bytes in unsafe Array(bytes) }
    }

    /// Makes room for `extra` bytes behind the tail and says where it is.
    @inline(__always)
    private mutating func room(_ extra: Int) -> UnsafeMutableRawPointer {
        if let storage = unsafe storage, capacity - tail >= extra { return unsafe storage + tail }
        return unsafe makeRoom(extra, doublesMax: Limits.queueDoublesBytesMax)
    }

    /// Moves the bytes to the front if that is enough, and otherwise into more memory.
    private mutating func makeRoom(_ extra: Int, doublesMax: Int) -> UnsafeMutableRawPointer {
        let count = count
        if let storage = unsafe storage, capacity - count >= extra, head >= capacity / 2 {
            unsafe memmove(storage, storage + head, count)
            (head, tail) = (0, count)
            return unsafe storage + count
        }
        let larger = Self.grown(capacity, toHold: count + extra, doublesMax)
        let fresh: UnsafeMutableRawPointer?
        if head == 0 {
            // Without a copy where the allocation can grow in place.
            unsafe fresh = realloc(storage, larger)
        } else {
            unsafe fresh = malloc(larger)
            if let fresh = unsafe fresh, let storage = unsafe storage {
                unsafe memcpy(fresh, storage + head, count)
                unsafe free(storage)
            }
        }
        guard let fresh = unsafe fresh else { fatalError("out of memory: \(larger) bytes") }
        unsafe storage = fresh
        (capacity, head, tail) = (larger, 0, count)
        return unsafe fresh + count
    }

    /// What a queue of `capacity` grows to when `needed` bytes must fit: twice as much while it is small, a quarter
    /// more when it is large, so that memory is not taken for bytes that may never come.
    private static func grown(_ capacity: Int, toHold needed: Int, _ doublesMax: Int) -> Int {
        let step = capacity < doublesMax ? capacity : capacity / 4
        return max(needed, capacity + step, 64)
    }

    /// By how much the memory grows when `extra` bytes are appended.
    ///
    /// - Parameter doublesMax: the capacity below which it doubles; `reserve` takes the same.
    func growth(for extra: Int, doublesMax: Int = Limits.queueDoublesBytesMax) -> Int {
        guard capacity - tail < extra else { return 0 }
        if capacity - count >= extra && head >= capacity / 2 { return 0 }
        return Self.grown(capacity, toHold: count + extra, doublesMax) - capacity
    }

    /// Makes sure that `extra` more bytes fit without another allocation.
    mutating func reserve(_ extra: Int, doublesMax: Int = Limits.queueDoublesBytesMax) {
        guard storageIsShort(of: extra) else { return }
        _ = unsafe makeRoom(extra, doublesMax: doublesMax)
    }

    private func storageIsShort(of extra: Int) -> Bool { unsafe storage == nil || capacity - tail < extra }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        unsafe memcpy(room(bytes.count), source, bytes.count)
        tail += bytes.count
    }

    mutating func append(_ bytes: RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe append($0) }
    }

    mutating func append(_ bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { unsafe append($0) }
    }

    mutating func append(_ byte: UInt8) {
        unsafe room(1).storeBytes(of: byte, as: UInt8.self)
        tail += 1
    }

    /// Appends the lowest `count` bytes of a word, lowest first.
    mutating func append(word: UInt64, count: Int) {
        precondition(count >= 0 && count <= 8, "a word has eight bytes")
        // All eight are written: there is room for them, and those behind `count` are overwritten by what follows.
        unsafe room(8).storeBytes(of: word.littleEndian, as: UInt64.self)
        tail += count
    }

    /// Appends `bytes` exclusive-ored with the four-byte masking key (RFC 6455, 5.3), `key` being the key rotated so that its
    /// lowest byte meets the first of `bytes`.
    mutating func append(unmasking bytes: RawSpan, key: UInt32) {
        let count = bytes.byteCount
        guard count > 0 else { return }
        let target = unsafe room(count)
        // Eight bytes at a time: a byte at a time costs ten times as much.
        let wide = UInt64(key) << 32 | UInt64(key)
        var index = 0
        // Each load lies below `count`, the length of both source and room.
        while index &+ 8 <= count {
            let word = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: index, as: UInt64.self)
            unsafe target.storeBytes(
                of: (UInt64(littleEndian: word) ^ wide).littleEndian, toByteOffset: index, as: UInt64.self)
            index &+= 8
        }
        // Up to seven bytes are left: the key's four come round again.
        var rest = wide
        while index < count {
            let byte = unsafe bytes.unsafeLoad(fromUncheckedByteOffset: index, as: UInt8.self)
            unsafe target.storeBytes(of: byte ^ UInt8(truncatingIfNeeded: rest), toByteOffset: index, as: UInt8.self)
            rest = rest &>> 8
            index &+= 1
        }
        tail += count
    }

    /// Appends `count` bytes of a file from `offset` on. The corresponding C function is pread(2).
    mutating func append(file: Int32, offset: Int, count: Int) throws(SystemError) {
        guard count > 0 else { return }
        let target = unsafe room(count)
        var read = 0
        while read < count {
            let result = unsafe pread(file, target + read, count - read, off_t(offset + read))
            if result < 0 && errno == EINTR { continue }
            guard result > 0 else { throw SystemError("pread", result == 0 ? EIO : errno) }
            read += result
        }
        tail += count
    }

    /// Takes `count` bytes from the head.
    mutating func removeFirst(_ count: Int) {
        precondition(count >= 0 && count <= self.count, "more bytes than there are")
        head += count
        if head == tail { (head, tail) = (0, 0) }
    }

    /// Takes `count` bytes away that stand behind the first `prefix`, by moving those few forward.
    mutating func remove(_ count: Int, behind prefix: Int) {
        precondition(count >= 0 && prefix >= 0 && prefix + count <= self.count, "more bytes than there are")
        if prefix > 0, let storage = unsafe storage {
            unsafe memmove(storage + head + count, storage + head, prefix)
        }
        removeFirst(count)
    }

    /// Takes the bytes behind the first `count` away.
    mutating func truncate(to count: Int) {
        precondition(count >= 0 && count <= self.count, "more bytes than there are")
        tail = head + count
        if head == tail { (head, tail) = (0, 0) }
    }

    /// Empties the queue and keeps its memory for the next bytes.
    mutating func removeAll() {
        (head, tail) = (0, 0)
    }

    /// Empties the queue and gives its memory back.
    mutating func release() {
        unsafe free(storage)
        unsafe storage = nil
        (capacity, head, tail) = (0, 0, 0)
    }

    /// Gives back memory beyond what the bytes in it need.
    mutating func shrink() {
        guard capacity > count else { return }
        // Copied: where mremap(2) is refused, realloc(3) gives nothing back.
        var exact = ByteQueue()
        if !isEmpty {
            unsafe exact.storage = malloc(count)
            guard unsafe exact.storage != nil else { return }
            exact.capacity = count
            unsafe exact.append(unsafeBytes)
        }
        self = exact
    }

    /// Empties the queue, overwrites its memory and gives it back: for bytes that are secret. Where they were put in without
    /// `reserve`, growing may have left copies behind.
    mutating func wipe() {
        // The whole allocation, so that bytes taken out earlier go as well.
        if let storage = unsafe storage { unsafe explicit_bzero(storage, capacity) }
        release()
    }

    /// Gives the memory back if no byte is in it and it is larger than `max`.
    mutating func releaseIfIdle(above max: Int) {
        if isEmpty && capacity > max { release() }
    }
}
