// What waits for several members of a room, once. A block is frames that were said in one batch; each member's outbox
// names the ranges of it that are still to leave. A block is freed when the last range has left or was dropped.
//
// Counted by hand, in a plain integer: one owner, the worker, reads and writes all of it.

import Shared

/// Frames of one lane of a batch.
struct SharedBlock: ~Copyable {
    let bytes: ByteQueue
    /// Ranges in outboxes, and one more while they are being given theirs.
    var references = 1
    /// The share that the memory is charged to.
    let share: UInt32
}

/// The blocks of one worker.
struct SharedBlocks: ~Copyable {
    private var blocks = Slab<SharedBlock>()
    /// Memory of blocks that were freed, by share, for the owner of the sums to take note of.
    private var freed: [(share: UInt32, bytes: Int)] = []

    init() {}

    var count: Int { blocks.count }
    var hasFreed: Bool { !freed.isEmpty }

    /// Adds a block with one reference, its caller's.
    mutating func add(_ bytes: consuming ByteQueue, share: UInt32) -> UInt32 {
        blocks.insert(SharedBlock(bytes: bytes, share: share)).slot
    }

    /// The bytes of a block: valid until it is freed.
    func bytes(_ block: UInt32) -> UnsafeRawBufferPointer {
        unsafe blocks[block].bytes.unsafeBytes
    }

    func capacity(_ block: UInt32) -> Int { blocks[block].bytes.capacity }

    mutating func retain(_ block: UInt32) {
        blocks[block].references += 1
    }

    mutating func release(_ block: UInt32) {
        blocks[block].references -= 1
        guard blocks[block].references == 0 else { return }
        let last = blocks.remove(block)
        freed.append((last.share, last.bytes.capacity))
    }

    /// One of the blocks freed since they were last asked for; nil after the last.
    mutating func takeFreed() -> (share: UInt32, bytes: Int)? { freed.popLast() }
}
