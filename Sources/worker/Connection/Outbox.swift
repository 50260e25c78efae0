// What waits to leave on one connection while its socket takes no more. Three lanes: control (HTTP answers, pings,
// pongs), voice, data; each holds whole frames, but for a frame that has begun to leave, whose rest goes before
// anything else. Voice and data may lie in blocks that other members wait for as well (LaneQueue, SharedBlocks).
//
// Order on the wire: the cut frame's rest, control, voice, data. So voice overtakes data that waits, and nothing ever
// stands inside a frame.
//
// Invariants: `cutBytes` > 0 exactly when `cutLane` is not nil, and then they are the first bytes of that lane;
// `voiceFrames` counts the whole frames in the voice lane, at most Limits.voiceFramesWaitingMax. An outbox that names
// blocks is emptied (`dropAll`) before it goes.

import Shared

/// A connection's output that the kernel has not taken.
struct Outbox: ~Copyable {
    private enum CutLane { case voice, data }

    private(set) var control = ByteQueue()
    private(set) var voice = LaneQueue()
    private(set) var data = LaneQueue()
    private(set) var voiceFrames = 0
    private var cutLane: CutLane?
    private var cutBytes = 0
    /// A part of a batch was sent and the rest is not in the outbox yet: a frame may be half sent.
    var isBatchCut = false
    /// The socket took no more: wait for it to become writable.
    var isBlocked = false

    init() {}

    var isEmpty: Bool { control.isEmpty && voice.isEmpty && data.isEmpty }
    /// Whether nothing of a room waits, so that a room's frames may go out past this outbox.
    var isClearForRoom: Bool { voice.isEmpty && data.isEmpty && !isBlocked }
    var count: Int { control.count + voice.count + data.count }
    /// Memory that is this outbox's alone.
    var capacity: Int { control.capacity + voice.capacity + data.capacity }
    /// Whether a frame has begun to leave.
    var isCut: Bool { cutLane != nil || isBatchCut }

    // MARK: - Putting in

    mutating func appendControl(_ bytes: [UInt8]) {
        control.append(bytes)
    }

    /// A control frame with this payload.
    mutating func appendControlFrame(_ opcode: Opcode, _ payload: RawSpan) {
        ServerFrame.appendHeader(opcode, length: payload.byteCount, to: &control)
        control.append(payload)
    }

    /// A close frame behind everything that waits (RFC 6455, 5.5.1): code nil for an empty payload.
    mutating func appendClose(code: UInt16?) {
        let payload: [2 of UInt8] = [UInt8((code ?? 0) >> 8), UInt8((code ?? 0) & 0xFF)]
        data.appendFrame(.close, unsafe payload.span.bytes.extracting(first: code == nil ? 0 : 2))
    }

    /// Voice frames of which the first `skip` bytes have left: what is left of the frame they end in goes first. The caller
    /// then drops old voice.
    ///
    /// - Parameters:
    ///   - block: where the frames lie; nil if they are to be copied.
    ///   - offset: where in the block.
    mutating func appendVoice(
        _ frames: RawSpan, sent skip: Int, in block: UInt32? = nil, at offset: Int = 0, _ blocks: inout SharedBlocks
    ) {
        let boundary = Self.boundary(frames, after: skip)
        cut(.voice, boundary - skip)
        if let block {
            voice.append((offset + skip)..<(offset + frames.byteCount), of: block, &blocks)
        } else {
            voice.append(frames.extracting(skip..<frames.byteCount))
        }
        var next = boundary
        while next < frames.byteCount {
            next += ServerFrame.bytes(frames, at: next)
            voiceFrames += 1
        }
    }

    /// The same with data frames.
    mutating func appendData(
        _ frames: RawSpan, sent skip: Int, in block: UInt32? = nil, at offset: Int = 0, _ blocks: inout SharedBlocks
    ) {
        cut(.data, Self.boundary(frames, after: skip) - skip)
        if let block {
            data.append((offset + skip)..<(offset + frames.byteCount), of: block, &blocks)
        } else {
            data.append(frames.extracting(skip..<frames.byteCount))
        }
    }

    private mutating func cut(_ lane: CutLane, _ bytes: Int) {
        guard bytes > 0 else { return }
        precondition(cutLane == nil, "one frame at most has begun to leave")
        cutLane = lane
        cutBytes = bytes
    }

    /// The end of the frame that byte `position` lies in, or `position` where a frame ends there.
    private static func boundary(_ frames: RawSpan, after position: Int) -> Int {
        var offset = 0
        while offset < position { offset += ServerFrame.bytes(frames, at: offset) }
        return offset
    }

    /// Drops voice that is stale: beyond 64 frames (wire protocol), or, for frames of absurd size, beyond the bytes allowed.
    ///
    /// - Returns: how many frames were dropped.
    mutating func dropOldVoice(bytesMax: Int, _ blocks: inout SharedBlocks) -> Int {
        let dropped = voice.dropOldest(
            behind: cutLane == .voice ? cutBytes : 0, frames: voiceFrames, framesMax: Limits.voiceFramesWaitingMax,
            bytesMax: bytesMax, &blocks)
        voiceFrames -= dropped
        return dropped
    }

    /// Whether more data waits than allowed: the client is too slow.
    func isTooLong(_ bytesMax: Int) -> Bool { data.count > bytesMax }

    /// Forgets what waits, but for the rest of a frame that has begun to leave. For a close that does not wait for its backlog.
    ///
    /// - Returns: how many voice frames were dropped.
    mutating func dropBacklog(_ blocks: inout SharedBlocks) -> Int {
        let dropped = voiceFrames
        voice.truncate(to: cutLane == .voice ? cutBytes : 0, &blocks)
        data.truncate(to: cutLane == .data ? cutBytes : 0, &blocks)
        voiceFrames = 0
        return dropped
    }

    /// Forgets everything, the rest of a cut frame too: for a connection that will never see another byte of it.
    ///
    /// - Returns: how many voice frames were dropped.
    mutating func dropAll(_ blocks: inout SharedBlocks) -> Int {
        let dropped = voiceFrames
        voice.truncate(to: 0, &blocks)
        data.truncate(to: 0, &blocks)
        self = Outbox()
        return dropped
    }

    // MARK: - Taking out

    /// Adds what waits to a gather list, in the order of the wire, as many pieces as there is room for: what is left of
    /// it goes on with the next send.
    func gather(into vectors: inout GatherList, _ blocks: borrowing SharedBlocks) {
        let voiceCut = cutLane == .voice ? cutBytes : 0
        let dataCut = cutLane == .data ? cutBytes : 0
        voice.gather(0..<voiceCut, into: &vectors, blocks)
        data.gather(0..<dataCut, into: &vectors, blocks)
        if !control.isEmpty && !vectors.isFull {
            unsafe control.withBytes { unsafe vectors.append($0, 0..<$0.count) }
        }
        voice.gather(voiceCut..<voice.count, into: &vectors, blocks)
        data.gather(dataCut..<data.count, into: &vectors, blocks)
    }

    /// Removes `sent` bytes in the order of `gather`. The caller gives back what is empty then.
    mutating func consume(_ sent: Int, _ blocks: inout SharedBlocks) {
        var left = sent
        if let lane = cutLane {
            let taken = min(left, cutBytes)
            switch lane {
            case .voice: voice.removeFirst(taken, &blocks)
            case .data: data.removeFirst(taken, &blocks)
            }
            cutBytes -= taken
            left -= taken
            if cutBytes == 0 { cutLane = nil }
        }
        let taken = min(left, control.count)
        control.removeFirst(taken)
        left -= taken
        if left > 0 {
            let taken = min(left, voice.count)
            let (rest, frames) = voice.split(at: taken, blocks)
            voice.removeFirst(taken, &blocks)
            left -= taken
            voiceFrames -= frames
            cut(.voice, rest)
        }
        if left > 0 {
            let (rest, _) = data.split(at: left, blocks)
            data.removeFirst(left, &blocks)
            cut(.data, rest)
        }
        voice.copySmallRemainder(&blocks)
        data.copySmallRemainder(&blocks)
    }

    /// Gives back the memory of what has left: an idle connection owns no buffer.
    mutating func giveBack(to pool: inout QueuePool) {
        control.releaseIfIdle(above: 0)
        data.giveBack(to: &pool)
        voice.giveBack(to: &pool)
    }

    /// Takes memory for voice, or for data, that is about to be copied.
    mutating func borrowForVoice(from pool: inout QueuePool) { voice.borrow(from: &pool) }
    mutating func borrowForData(from pool: inout QueuePool) { data.borrow(from: &pool) }

    /// Turns a long lane into a block before it grows by so many bytes (`LaneQueue.shelve`).
    ///
    /// - Returns: the memory of the block that it lies in from now on; 0 if it stays the lane's own.
    mutating func shelveVoice(before extra: Int, _ blocks: inout SharedBlocks, share: UInt32) -> Int {
        voice.shelve(before: extra, &blocks, share: share)
    }
    mutating func shelveData(before extra: Int, _ blocks: inout SharedBlocks, share: UInt32) -> Int {
        data.shelve(before: extra, &blocks, share: share)
    }

    // MARK: - Moving

    /// The frame that has begun to leave: bytes of it that are left, at the head of which lane.
    struct Cut: Equatable {
        var isVoice: Bool
        var bytes: Int
    }

    var cut: Cut? { cutLane.map { Cut(isVoice: $0 == .voice, bytes: cutBytes) } }

    /// The same outbox in another process; nil unless the lanes hold whole frames behind the cut one's rest.
    init?(control: consuming ByteQueue, voice: consuming ByteQueue, data: consuming ByteQueue, cut: Cut?) {
        let (voiceCut, dataCut) = cut.map { $0.isVoice ? ($0.bytes, 0) : (0, $0.bytes) } ?? (0, 0)
        guard cut.map({ $0.bytes > 0 }) ?? true, voiceCut <= voice.count, dataCut <= data.count else { return nil }
        guard let frames = unsafe ServerFrame.count(voice.unsafeBytes.bytes, from: voiceCut),
            unsafe ServerFrame.count(data.unsafeBytes.bytes, from: dataCut) != nil,
            frames <= Limits.voiceFramesWaitingMax
        else { return nil }
        self.control = control
        self.voice = LaneQueue(voice)
        self.data = LaneQueue(data)
        voiceFrames = frames
        cutLane = cut.map { $0.isVoice ? .voice : .data }
        cutBytes = cut?.bytes ?? 0
    }
}
