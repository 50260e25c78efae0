// One lane of an outbox: whole frames in order, some as bytes of the lane's own, some as ranges of blocks that other
// members wait for as well (SharedBlocks). A lane that holds only bytes of its own is one queue and nothing else.
//
// Invariants: no frame lies in two segments; the first segment alone may begin within a frame. Where there are
// segments, those that are the lane's own are together all bytes of `own`, in this order. The last segment is not
// empty.

import Shared

/// Frames of one class that wait for one connection.
struct LaneQueue: ~Copyable {
    private struct Segment {
        /// `ownBytes`, or the block that the range lies in.
        var block: UInt32
        var start: Int
        var end: Int

        static let ownBytes = UInt32.max
        var isOwn: Bool { block == Self.ownBytes }
        var count: Int { end - start }
    }

    private(set) var own = ByteQueue()
    /// Empty while all that waits is in `own`. Those in front of `head` have left.
    private var segments: [Segment] = []
    private var head = 0
    /// Bytes that wait.
    private(set) var count = 0

    init() {}

    /// A lane that holds these frames.
    init(_ frames: consuming ByteQueue) {
        count = frames.count
        own = frames
    }

    var isEmpty: Bool { count == 0 }
    /// Memory that is this lane's alone.
    var capacity: Int { own.capacity + segments.capacity * MemoryLayout<Segment>.stride }
    /// How many pieces the lane is in.
    var pieces: Int { segments.isEmpty ? (own.isEmpty ? 0 : 1) : segments.count - head }

    // MARK: - Putting in

    mutating func append(_ frames: RawSpan) {
        guard frames.byteCount > 0 else { return }
        own.append(frames)
        grewByOwn(frames.byteCount)
    }

    /// A whole frame.
    mutating func appendFrame(_ opcode: Opcode, _ payload: RawSpan) {
        let before = own.count
        ServerFrame.appendHeader(opcode, length: payload.byteCount, to: &own)
        own.append(payload)
        grewByOwn(own.count - before)
    }

    private mutating func grewByOwn(_ bytes: Int) {
        count += bytes
        guard let last = segments.indices.last else { return }
        if segments[last].isOwn {
            segments[last].end += bytes
        } else {
            segments.append(Segment(block: Segment.ownBytes, start: 0, end: bytes))
        }
    }

    /// Frames that lie in a block.
    mutating func append(_ range: Range<Int>, of block: UInt32, _ blocks: inout SharedBlocks) {
        guard !range.isEmpty else { return }
        if segments.isEmpty && !own.isEmpty {
            segments.append(Segment(block: Segment.ownBytes, start: 0, end: own.count))
        }
        blocks.retain(block)
        segments.append(Segment(block: block, start: range.lowerBound, end: range.upperBound))
        count += range.count
    }

    /// Turns the lane's own bytes into a block if they are many and `extra` more would not fit: growth copies all that
    /// waits, even for a short leave notice. This lane holds all references of the block.
    ///
    /// - Returns: the block's memory, which was the lane's; 0 if none was made.
    mutating func shelve(before extra: Int, _ blocks: inout SharedBlocks, share: UInt32) -> Int {
        guard own.count >= Limits.laneBytesMovedMax, own.growth(for: extra) > 0 else { return 0 }
        if segments.isEmpty { segments.append(Segment(block: Segment.ownBytes, start: 0, end: own.count)) }
        var bytes = ByteQueue()
        swap(&bytes, &own)
        let capacity = bytes.capacity
        let block = blocks.add(bytes, share: share)
        var offset = 0
        for index in head..<segments.count where segments[index].isOwn && segments[index].count > 0 {
            // The first is named by the reference that the block was made with.
            if offset > 0 { blocks.retain(block) }
            let count = segments[index].count
            segments[index] = Segment(block: block, start: offset, end: offset + count)
            offset += count
        }
        return capacity
    }

    /// Takes memory from the pool for bytes that are about to be appended.
    mutating func borrow(from pool: inout QueuePool) {
        pool.lend(to: &own)
    }

    mutating func giveBack(to pool: inout QueuePool) {
        pool.takeBack(&own)
    }

    // MARK: - Looking at what waits

    /// Calls `body` with each piece, in order, until it returns false.
    func eachPiece(_ blocks: borrowing SharedBlocks, _ body: (UnsafeRawBufferPointer) -> Bool) {
        if segments.isEmpty {
            if !own.isEmpty { _ = unsafe body(own.unsafeBytes) }
            return
        }
        var ownOffset = 0
        for index in head..<segments.count {
            let segment = segments[index]
            let whole = unsafe segment.isOwn ? own.unsafeBytes : blocks.bytes(segment.block)
            let start = segment.isOwn ? ownOffset : segment.start
            guard unsafe body(UnsafeRawBufferPointer(rebasing: whole[start..<(start + segment.count)])) else { return }
            if segment.isOwn { ownOffset += segment.count }
        }
    }

    /// Adds the bytes of `range` to a gather list, as many of its pieces as there is room for.
    func gather(_ range: Range<Int>, into vectors: inout GatherList, _ blocks: borrowing SharedBlocks) {
        guard !range.isEmpty else { return }
        var offset = 0
        unsafe eachPiece(blocks) { piece in
            guard !vectors.isFull, offset < range.upperBound else { return false }
            let end = min(piece.count, range.upperBound - offset)
            let start = min(end, max(0, range.lowerBound - offset))
            unsafe vectors.append(piece, start..<end)
            offset += piece.count
            return true
        }
    }

    /// What taking `count` bytes from a lane that begins with a whole frame leaves of the frame that they end in, and
    /// how many frames have begun to leave.
    func split(at count: Int, _ blocks: borrowing SharedBlocks) -> (rest: Int, frames: Int) {
        var (left, rest, frames) = (count, 0, 0)
        unsafe eachPiece(blocks) { piece in
            let bytes = unsafe piece.bytes
            var offset = 0
            while offset < left && offset < bytes.byteCount {
                offset += ServerFrame.bytes(bytes, at: offset)
                frames += 1
            }
            rest = max(0, offset - left)
            left -= min(left, bytes.byteCount)
            return left > 0
        }
        return (rest, frames)
    }

    // MARK: - Taking out

    /// Takes `count` bytes from the front.
    mutating func removeFirst(_ count: Int, _ blocks: inout SharedBlocks) {
        precondition(count >= 0 && count <= self.count, "more bytes than there are")
        self.count -= count
        guard !segments.isEmpty else { return own.removeFirst(count) }
        var left = count
        while left > 0 {
            let taken = min(left, segments[head].count)
            remove(taken, fromSegment: head, behind: 0, &blocks)
            left -= taken
            if segments[head].count == 0 { head += 1 }
        }
        tidy()
    }

    /// Takes bytes from the front of a segment, and gives the block back with the last. Those of the lane's own stand
    /// after `prefix` bytes of `own`.
    private mutating func remove(
        _ count: Int, fromSegment index: Int, behind prefix: Int, _ blocks: inout SharedBlocks
    ) {
        if segments[index].isOwn {
            own.remove(count, behind: prefix)
            segments[index].end -= count
        } else {
            segments[index].start += count
            if segments[index].count == 0 { blocks.release(segments[index].block) }
        }
    }

    /// Forgets segments that have left.
    private mutating func tidy() {
        if head == segments.count || (head == segments.count - 1 && segments[head].isOwn) {
            (segments, head) = ([], 0)
        } else if head >= 64 && head * 2 >= segments.count {
            segments.removeFirst(head)
            head = 0
        }
    }

    /// Copies what is left of a large block, when it is little, so that it does not hold all of the block.
    mutating func copySmallRemainder(_ blocks: inout SharedBlocks) {
        // Where bytes of its own follow, it would have to go in front of them.
        guard !segments.isEmpty, own.isEmpty, !segments[head].isOwn else { return }
        let segment = segments[head]
        guard segment.count <= Limits.remainderCopiedBytesMax,
            blocks.capacity(segment.block) >= Limits.remainderBlocksRatio * segment.count
        else { return }
        unsafe own.append(UnsafeRawBufferPointer(rebasing: blocks.bytes(segment.block)[segment.start..<segment.end]))
        segments[head] = Segment(block: Segment.ownBytes, start: 0, end: segment.count)
        blocks.release(segment.block)
        tidy()
    }

    /// Drops the oldest frames after the first `kept` bytes: while there are more than `framesMax`, or more than one
    /// and more bytes than `bytesMax`.
    ///
    /// - Parameter frames: how many whole frames wait.
    /// - Returns: how many were dropped.
    mutating func dropOldest(
        behind kept: Int, frames: Int, framesMax: Int, bytesMax: Int, _ blocks: inout SharedBlocks
    ) -> Int {
        /// Whether one more goes when so many have.
        func isTooMuch(_ dropped: Int, _ bytes: Int) -> Bool {
            frames - dropped > framesMax || (frames - dropped > 1 && bytes > bytesMax)
        }
        guard isTooMuch(0, count - kept) else { return 0 }
        var dropped = 0
        guard !segments.isEmpty else {
            // Counted first and removed at once: what is kept is moved once, however many go.
            var bytes = 0
            unsafe own.withBytes { waiting in
                let waiting = unsafe waiting.bytes
                while isTooMuch(dropped, count - kept - bytes) {
                    bytes += ServerFrame.bytes(waiting, at: kept + bytes)
                    dropped += 1
                }
            }
            own.remove(bytes, behind: kept)
            count -= bytes
            return dropped
        }
        if kept > 0 { splitFirst(at: kept, &blocks) }
        let prefix = kept > 0 && segments[head].isOwn ? kept : 0
        var index = kept > 0 ? head + 1 : head
        while isTooMuch(dropped, count - kept) {
            let segment = segments[index]
            let whole = unsafe segment.isOwn ? own.unsafeBytes.bytes : blocks.bytes(segment.block).bytes
            let bytes = ServerFrame.bytes(whole, at: segment.isOwn ? prefix : segment.start)
            remove(bytes, fromSegment: index, behind: prefix, &blocks)
            count -= bytes
            dropped += 1
            if segments[index].count == 0 { index += 1 }
        }
        if kept > 0 {
            segments[index - 1] = segments[head]
            index -= 1
        }
        head = index
        tidy()
        return dropped
    }

    /// Makes two segments of the first, the first of them `count` bytes long.
    private mutating func splitFirst(at count: Int, _ blocks: inout SharedBlocks) {
        let first = segments[head]
        guard count < first.count else { return }
        var rest = first
        if first.isOwn {
            (segments[head].end, rest.end) = (count, first.count - count)
        } else {
            segments[head].end = first.start + count
            rest.start += count
            blocks.retain(first.block)
        }
        segments.insert(rest, at: head + 1)
    }

    /// Drops what stands after the first `count` bytes, which lie in the first segment, and the memory that it took.
    mutating func truncate(to count: Int, _ blocks: inout SharedBlocks) {
        precondition(count <= self.count, "more bytes than there are")
        self.count = count
        defer { own.shrink() }
        guard !segments.isEmpty else { return own.truncate(to: count) }
        if count > 0 {
            splitFirst(at: count, &blocks)
            own.truncate(to: segments[head].isOwn ? count : 0)
        } else {
            own.removeAll()
        }
        for index in (count > 0 ? head + 1 : head)..<segments.count where !segments[index].isOwn {
            blocks.release(segments[index].block)
        }
        segments = count > 0 && !segments[head].isOwn ? [segments[head]] : []
        head = 0
    }
}
