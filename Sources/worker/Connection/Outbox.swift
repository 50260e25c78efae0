// What waits to leave on one connection while its socket takes no more. Three lanes: control (HTTP answers, pings, pongs),
// voice, data; each holds whole frames, but for a frame that has begun to leave, whose rest goes before anything else.
//
// Order on the wire: the cut frame's rest, control, voice, data. So voice overtakes data that waits, and nothing ever
// stands inside a frame.
//
// Invariants: `cutBytes` > 0 exactly when `cutLane` is not nil, and then they are the first bytes of that lane;
// `voiceFrames` counts the whole frames in the voice lane, at most Limits.voiceFramesWaitingMax.

import Shared

/// A connection's output that the kernel has not taken.
struct Outbox: ~Copyable {
    private enum CutLane { case voice, data }

    private(set) var control = ByteQueue()
    private(set) var voice = ByteQueue()
    private(set) var data = ByteQueue()
    private(set) var voiceFrames = 0
    private var cutLane: CutLane?
    private var cutBytes = 0
    /// The socket took no more: wait for it to become writable.
    var isBlocked = false

    init() {}

    var isEmpty: Bool { control.isEmpty && voice.isEmpty && data.isEmpty }
    /// Whether nothing of a room waits, so that a room's frames may go out past this outbox.
    var isClearForRoom: Bool { voice.isEmpty && data.isEmpty && !isBlocked }
    var count: Int { control.count + voice.count + data.count }
    /// Memory of what waits of a room.
    var backlogCapacity: Int { voice.capacity + data.capacity }

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
        ServerFrame.appendHeader(.close, length: code == nil ? 0 : 2, to: &data)
        if let code {
            data.append(UInt8(code >> 8))
            data.append(UInt8(code & 0xFF))
        }
    }

    /// Voice frames of which the first `skip` bytes have left: what is left of the frame they end in goes first. The caller
    /// then drops old voice.
    mutating func appendVoice(_ frames: RawSpan, sent skip: Int) {
        let boundary = Self.boundary(frames, after: skip)
        cut(.voice, boundary - skip)
        append(voice: frames.extracting(skip..<frames.byteCount), cut: boundary - skip)
    }

    /// Data frames of which the first `skip` bytes have left.
    mutating func appendData(_ frames: RawSpan, sent skip: Int) {
        let boundary = Self.boundary(frames, after: skip)
        cut(.data, boundary - skip)
        data.append(frames.extracting(skip..<frames.byteCount))
    }

    private mutating func cut(_ lane: CutLane, _ bytes: Int) {
        guard bytes > 0 else { return }
        precondition(cutLane == nil, "one frame at most has begun to leave")
        cutLane = lane
        cutBytes = bytes
    }

    /// Appends frames behind `cut` bytes of a frame that has begun, and counts them.
    private mutating func append(voice frames: RawSpan, cut: Int) {
        voice.append(frames)
        var offset = cut
        while offset < frames.byteCount {
            offset += ServerFrame.bytes(frames, at: offset)
            voiceFrames += 1
        }
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
    mutating func dropOldVoice(bytesMax: Int) -> Int {
        let kept = cutLane == .voice ? cutBytes : 0
        // Counted first and removed at once: the cut frame's rest is moved once, however many go.
        let (frames, bytes) = unsafe voice.withBytes { waiting in
            let waiting = unsafe waiting.bytes
            var (frames, bytes) = (0, 0)
            while voiceFrames - frames > Limits.voiceFramesWaitingMax
                || (waiting.byteCount - kept - bytes > bytesMax && voiceFrames - frames > 1)
            {
                bytes += ServerFrame.bytes(waiting, at: kept + bytes)
                frames += 1
            }
            return (frames, bytes)
        }
        if frames > 0 { voice.remove(bytes, behind: kept) }
        voiceFrames -= frames
        return frames
    }

    /// Whether more data waits than allowed: the client is too slow.
    func isTooLong(_ bytesMax: Int) -> Bool { data.count > bytesMax }

    /// Forgets what waits, but for the rest of a frame that has begun to leave. For a close that does not wait for its backlog.
    ///
    /// - Returns: how many voice frames were dropped.
    mutating func dropBacklog() -> Int {
        let dropped = voiceFrames
        voice.truncate(to: cutLane == .voice ? cutBytes : 0)
        data.truncate(to: cutLane == .data ? cutBytes : 0)
        voiceFrames = 0
        voice.shrink()
        data.shrink()
        return dropped
    }

    /// Forgets everything, the rest of a cut frame too: for a connection that will never see another byte of it.
    ///
    /// - Returns: how many voice frames were dropped.
    mutating func dropAll() -> Int {
        let dropped = voiceFrames
        self = Outbox()
        return dropped
    }

    // MARK: - Taking out

    /// Adds what waits to a gather list, in the order of the wire.
    func gather(into vectors: inout GatherList) {
        let voiceCut = cutLane == .voice ? cutBytes : 0
        let dataCut = cutLane == .data ? cutBytes : 0
        if voiceCut > 0 { unsafe voice.withBytes { unsafe vectors.append($0, 0..<voiceCut) } }
        if dataCut > 0 { unsafe data.withBytes { unsafe vectors.append($0, 0..<dataCut) } }
        unsafe control.withBytes { unsafe vectors.append($0, 0..<$0.count) }
        unsafe voice.withBytes { unsafe vectors.append($0, voiceCut..<$0.count) }
        unsafe data.withBytes { unsafe vectors.append($0, dataCut..<$0.count) }
    }

    /// Removes `sent` bytes in the order of `gather`. The caller gives back what is empty then.
    mutating func consume(_ sent: Int) {
        var left = sent
        if let lane = cutLane {
            let taken = min(left, cutBytes)
            switch lane {
            case .voice: voice.removeFirst(taken)
            case .data: data.removeFirst(taken)
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
            let (rest, frames) = Self.split(voice, at: taken)
            voice.removeFirst(taken)
            left -= taken
            voiceFrames -= frames
            cut(.voice, rest)
        }
        if left > 0 {
            let (rest, _) = Self.split(data, at: left)
            data.removeFirst(left)
            cut(.data, rest)
        }
    }

    /// What taking `count` bytes from whole frames leaves of the frame it ends in, and how many frames have begun to leave.
    private static func split(_ lane: borrowing ByteQueue, at count: Int) -> (rest: Int, frames: Int) {
        unsafe lane.withBytes { bytes in
            let frames = unsafe bytes.bytes
            var offset = 0
            var begun = 0
            while offset < count {
                offset += ServerFrame.bytes(frames, at: offset)
                begun += 1
            }
            return (offset - count, begun)
        }
    }

    /// Takes memory for what is about to wait.
    mutating func borrow(from pool: inout QueuePool) {
        pool.lend(to: &data)
        pool.lend(to: &voice)
    }

    /// Gives back the memory of what has left: an idle connection owns no buffer.
    mutating func giveBack(to pool: inout QueuePool) {
        control.releaseIfIdle(above: 0)
        pool.takeBack(&data)
        pool.takeBack(&voice)
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
        self.voice = voice
        self.data = data
        voiceFrames = frames
        cutLane = cut.map { $0.isVoice ? .voice : .data }
        cutBytes = cut?.bytes ?? 0
    }
}
