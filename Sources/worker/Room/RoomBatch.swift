// What a room's members said in one turn of the loop, or in a few (HoldingBack), encoded once: each member is then sent the
// ranges of it that others said. Two lanes, because voice may overtake data that waits and never the other way round.
//
// A lane is frames one behind the other and a list of runs: who said the frames up to which byte. A member who said nothing
// gets the lane in one piece; one who did gets what stands around its own runs.

import Shared

/// Frames of one class, and who said them.
struct Lane: ~Copyable {
    /// Frames of one sender that stand together.
    struct Run {
        /// The connection's slot; `Lane.noSender` for what the relay itself says.
        var sender: UInt32
        /// End of the run's bytes.
        var end: Int
        var frames: Int
    }

    static let noSender = UInt32.max

    var bytes = ByteQueue()
    private(set) var runs: [Run] = []
    private(set) var frames = 0
    /// Bytes of the longest of them.
    private(set) var longestFrame = 0

    init() {}

    /// Says who said the frame that has been appended last.
    mutating func commit(sender: UInt32) {
        let end = bytes.count
        longestFrame = max(longestFrame, end - (runs.last?.end ?? 0))
        frames += 1
        if let last = runs.indices.last, runs[last].sender == sender {
            runs[last].end = end
            runs[last].frames += 1
        } else {
            runs.append(Run(sender: sender, end: end, frames: 1))
        }
    }

    /// Appends a whole binary frame and says whose it is. `payload` is masked with `key`; 0 if it is not masked.
    ///
    /// - Returns: the frame's bytes; nil, and nothing is appended, if it should be text and is none.
    mutating func say(_ payload: RawSpan, key: UInt32, isText: Bool, sender: UInt32) -> Int? {
        let before = bytes.count
        ServerFrame.appendHeader(.binary, length: payload.byteCount, to: &bytes)
        bytes.append(unmasking: payload, key: key)
        guard !isText || endsWithText(payload.byteCount) else {
            bytes.truncate(to: before)
            return nil
        }
        commit(sender: sender)
        return bytes.count - before
    }

    /// Whether the last bytes are well-formed UTF-8.
    private func endsWithText(_ count: Int) -> Bool {
        unsafe RawSpan(_unsafeBytes: bytes.unsafeBytes).extracting(last: count).isUTF8
    }

    /// The next range of bytes that `member` did not say, from run `index` on; nil behind the last.
    func nextRange(notFrom member: UInt32, _ index: inout Int) -> Range<Int>? {
        while index < runs.count && runs[index].sender == member { index += 1 }
        guard index < runs.count else { return nil }
        let start = index == 0 ? 0 : runs[index - 1].end
        while index < runs.count && runs[index].sender != member { index += 1 }
        return start..<runs[index - 1].end
    }

    /// Frames that `member` did not say itself, and their bytes.
    func size(notFrom member: UInt32) -> (frames: Int, bytes: Int) {
        var size = (frames: frames, bytes: bytes.count)
        for index in runs.indices where runs[index].sender == member {
            size.frames -= runs[index].frames
            size.bytes -= runs[index].end - (index == 0 ? 0 : runs[index - 1].end)
        }
        return size
    }

    /// Memory of the lane.
    var capacity: Int { bytes.capacity + runs.capacity * MemoryLayout<Run>.stride }

    /// Empties the lane; memory above `max` bytes is given back.
    mutating func removeAll(keeping max: Int) {
        bytes.removeAll()
        bytes.releaseIfIdle(above: max)
        if runs.capacity > 0 {
            let isKept = runs.capacity * MemoryLayout<Run>.stride <= max
            runs.removeAll(keepingCapacity: isKept)
        }
        (frames, longestFrame) = (0, 0)
    }
}

/// What was said in one room.
struct RoomBatch: ~Copyable {
    var voice = Lane()
    var data = Lane()
    /// The room's slot; `Room.none` while the batch is spare.
    var room = UInt32.max
    /// The beginning of the turn in which the first of it was said; CLOCK_MONOTONIC nanoseconds.
    var openedAt: UInt64 = 0
    /// Whether it has been held back to gather more.
    var isHeld = false

    /// What members wait for of it while others are still to be sent it: each has a reference of the batch's own
    /// (SharedBlocks).
    var voiceBlock: UInt32?
    var dataBlock: UInt32?
    /// Bytes that members have waited for so far.
    var waitedVoice = 0
    var waitedData = 0

    /// Memory that its room's share is charged with; what a batch keeps between turns is nobody's.
    var chargedBytes = 0
    /// Memory that it keeps between turns.
    var keptBytes = 0

    init() {}

    var capacity: Int { voice.capacity + data.capacity }

    /// Gives back all memory of a batch that is spare.
    ///
    /// - Returns: how much it was.
    mutating func release() -> Int {
        let before = keptBytes
        voice.removeAll(keeping: 0)
        data.removeAll(keeping: 0)
        keptBytes = capacity
        return before - keptBytes
    }

    var byteCount: Int { voice.bytes.count + data.bytes.count }
}
