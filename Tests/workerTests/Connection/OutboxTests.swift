import Shared
import Testing

@testable import worker

/// In a debug build a hundred times as fast as `Array(frames.joined())`.
private func concatenated(_ frames: [[UInt8]]) -> [UInt8] {
    frames.reduce(into: []) { $0.append(contentsOf: $1) }
}

/// An outbox, and beside it a list of whole frames that says what must leave it.
private struct Fixture: ~Copyable {
    var outbox = Outbox()
    var blocks = SharedBlocks()
    private var gather = GatherList()
    private let pair: StreamPair

    /// What is left of a room's frame that has begun to leave.
    var begun: [UInt8] = []
    var control: [UInt8] = []
    var voice: [[UInt8]] = []
    var data: [[UInt8]] = []
    /// Everything that has left.
    var wire: [UInt8] = []

    init() throws {
        pair = try StreamPair()
    }

    var waiting: [UInt8] { begun + control + concatenated(voice) + concatenated(data) }

    var waitingCount: Int {
        begun.count + control.count + voice.reduce(0) { $0 + $1.count } + data.reduce(0) { $0 + $1.count }
    }

    /// Frames of a class, of which a send past the outbox took the first `sent` bytes.
    private mutating func skip(_ frames: [[UInt8]], sent: Int) -> [[UInt8]] {
        wire += concatenated(frames).prefix(sent)
        var (frames, left) = (frames, sent)
        while let first = frames.first, left > 0 {
            if left < first.count { begun = Array(first[left...]) }
            left -= first.count
            frames.removeFirst()
        }
        return frames
    }

    /// - Parameter isShared: whether the frames lie in a block, between others, that nobody else has.
    mutating func appendVoice(_ frames: [[UInt8]], sent: Int = 0, isShared: Bool = false) {
        let block = isShared ? addBlock(frames) : nil
        outbox.appendVoice(concatenated(frames).span.bytes, sent: sent, in: block, at: Self.offset, &blocks)
        if let block { blocks.release(block) }
        voice += skip(frames, sent: sent)
    }

    mutating func appendData(_ frames: [[UInt8]], sent: Int = 0, isShared: Bool = false) {
        let block = isShared ? addBlock(frames) : nil
        outbox.appendData(concatenated(frames).span.bytes, sent: sent, in: block, at: Self.offset, &blocks)
        if let block { blocks.release(block) }
        data += skip(frames, sent: sent)
    }

    /// Where in their block frames lie.
    private static let offset = 7

    private mutating func addBlock(_ frames: [[UInt8]]) -> UInt32 {
        var bytes = ByteQueue()
        bytes.append([UInt8](repeating: 0xFF, count: Self.offset))
        bytes.append(concatenated(frames))
        bytes.append([UInt8](repeating: 0xFF, count: 5))
        return blocks.add(bytes, share: 0)
    }

    mutating func appendControlFrame(_ opcode: Opcode, _ payload: [UInt8]) {
        outbox.appendControlFrame(opcode, payload.span.bytes)
        control += Frame(opcode: opcode.rawValue, payload: payload).unmasked
    }

    mutating func appendClose(code: UInt16?) {
        outbox.appendClose(code: code)
        data.append(
            Frame(opcode: Frame.close, payload: code.map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] } ?? []).unmasked)
    }

    /// How many frames were dropped, and how many should be.
    mutating func dropOldVoice(bytesMax: Int) -> (Int, Int) {
        var expected = 0
        while voice.count > 64 || (voice.count > 1 && voice.reduce(0) { $0 + $1.count } > bytesMax) {
            voice.removeFirst()
            expected += 1
        }
        return (outbox.dropOldVoice(bytesMax: bytesMax, &blocks), expected)
    }

    mutating func dropBacklog() -> (Int, Int) {
        let expected = voice.count
        voice = []
        data = []
        return (outbox.dropBacklog(&blocks), expected)
    }

    /// Sends what waits as the relay does, and has the kernel take all but the last bytes of it.
    ///
    /// - Returns: whether what came at the other end is what had to.
    mutating func send(_ take: (Int) -> Int) -> Bool {
        let expected = waiting
        guard !expected.isEmpty else { return outbox.isEmpty }
        gather.removeAll()
        outbox.gather(into: &gather, blocks)
        guard gather.bytes == expected.count || gather.isFull,
            case .bytes(let sent) = gather.send(to: pair.near.number)
        else { return false }
        let received = pair.receive()
        let taken = take(sent)
        outbox.consume(taken, &blocks)
        consume(taken)
        return received == Array(expected.prefix(sent))
    }

    private mutating func consume(_ count: Int) {
        wire += waiting.prefix(count)
        var left = count
        let rest = min(left, begun.count)
        begun.removeFirst(rest)
        left -= rest
        let controls = min(left, control.count)
        control.removeFirst(controls)
        left -= controls
        while left > 0 {
            let frame = voice.isEmpty ? data.removeFirst() : voice.removeFirst()
            if left < frame.count { begun = Array(frame[left...]) }
            left -= min(left, frame.count)
        }
    }

    /// Leaves and comes again, as between processes. False if that is refused.
    mutating func move() -> Bool {
        func copy(_ bytes: [UInt8]) -> ByteQueue {
            var copy = ByteQueue()
            copy.append(bytes)
            return copy
        }
        let moved = Outbox(
            control: copy(outbox.control.array), voice: copy(outbox.voice.array(blocks)),
            data: copy(outbox.data.array(blocks)), cut: outbox.cut)
        guard let moved else { return false }
        _ = outbox.dropAll(&blocks)
        outbox = moved
        return true
    }

    /// Whether the outbox counts as the model does.
    var isInStep: Bool {
        outbox.voiceFrames == voice.count && outbox.count == waitingCount && outbox.isEmpty == (waitingCount == 0)
            && outbox.control.count == control.count && outbox.isClearForRoom == (outbox.count == control.count)
    }
}

/// Makes frames whose payloads say what they are and the how-manyth.
private struct Source {
    var random: SplitMix64
    private(set) var voiceMade: UInt32 = 0
    private(set) var dataMade: UInt32 = 0

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
    }

    private mutating func payload(_ mark: String, _ number: UInt32, lengths: [Int]) -> [UInt8] {
        let length = lengths.randomElement(using: &random) ?? 6
        let head = Array(mark.utf8) + (0..<4).map { UInt8(number >> (8 * $0) & 0xFF) }
        return head + [UInt8](repeating: UInt8.random(in: 0...255, using: &random), count: length - head.count)
    }

    mutating func voice() -> [UInt8] {
        voiceMade += 1
        return Frame(opcode: Frame.binary, payload: payload("KV", voiceMade, lengths: [6, 7, 120, 125, 126, 300]))
            .unmasked
    }

    mutating func data() -> [UInt8] {
        dataMade += 1
        // Rarely one with a 64-bit length.
        let lengths = dataMade.isMultiple(of: 200) ? [65_536] : [6, 7, 50, 125, 126, 127, 1000]
        return Frame(opcode: Frame.binary, payload: payload("{}", dataMade, lengths: lengths)).unmasked
    }

    /// The number of a payload that `payload` made.
    static func number(_ payload: [UInt8]) -> UInt32 {
        payload[2..<6].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}

@Suite struct `An outbox` {
    private let voice = (0..<200).map { Frame(opcode: Frame.binary, payload: [0x4B, 0x56, UInt8($0)]).unmasked }
    private let data = (0..<10).map { Frame(opcode: Frame.binary, payload: [0x7B, UInt8($0)]).unmasked }

    @Test func `lets control frames overtake voice, and voice overtake data`() throws {
        var fixture = try Fixture()
        fixture.appendData([data[0], data[1]])
        fixture.appendVoice([voice[0]])
        fixture.appendControlFrame(.pong, [1, 2])
        fixture.appendVoice([voice[1]])
        let isRight = fixture.send { $0 }
        #expect(isRight)
        let wire = fixture.wire
        let expected = [[0x8A, 2, 1, 2], voice[0], voice[1], data[0], data[1]]
        #expect(wire == Array(expected.joined()))
        let isEmpty = fixture.outbox.isEmpty
        #expect(isEmpty)
    }

    @Test func `finishes a frame that has begun before anything overtakes it`() throws {
        for taken in 1..<data[0].count {
            var fixture = try Fixture()
            fixture.appendData([data[0], data[1]])
            _ = fixture.send { _ in taken }
            fixture.appendControlFrame(.ping, [])
            fixture.appendVoice([voice[0]])
            _ = fixture.send { $0 }
            let wire = fixture.wire
            let expected = [data[0], [0x89, 0], voice[0], data[1]]
            #expect(wire == Array(expected.joined()), "\(taken) bytes had left")
        }
    }

    @Test func `goes on in the middle of a send that went past it`() throws {
        let frames = [voice[0], voice[1], voice[2]]
        for sent in 0...(3 * voice[0].count) {
            var fixture = try Fixture()
            fixture.appendVoice(frames, sent: sent)
            fixture.appendData([data[0]])
            let frames = fixture.outbox.voiceFrames
            #expect(frames == 3 - (sent + voice[0].count - 1) / voice[0].count)
            let isRight = fixture.send { $0 }
            #expect(isRight)
            let wire = fixture.wire
            #expect(wire == Array([voice[0], voice[1], voice[2], data[0]].joined()), "\(sent) bytes had left")
        }
        for sent in 0...(2 * data[0].count) {
            var fixture = try Fixture()
            fixture.appendData([data[0], data[1]], sent: sent)
            fixture.appendVoice([voice[0]])
            _ = fixture.send { $0 }
            let wire = fixture.wire
            var frames = [data[0], data[1]]
            frames.insert(voice[0], at: (sent + data[0].count - 1) / data[0].count)
            #expect(wire == Array(frames.joined()), "\(sent) bytes had left")
        }
    }

    @Test func `keeps 64 voice frames, the newest, and the rest of one that has begun`() throws {
        for taken in [0, 1, voice[0].count - 1, voice[0].count] {
            var fixture = try Fixture()
            fixture.appendVoice(Array(voice[..<2]))
            _ = fixture.send { _ in taken }
            fixture.appendVoice(Array(voice[2..<66]))
            let (dropped, expected) = fixture.dropOldVoice(bytesMax: 1 << 20)
            let waiting = fixture.outbox.voiceFrames
            #expect(dropped == expected)
            #expect(dropped == (taken == 0 ? 2 : 1))
            #expect(waiting == 64)
            _ = fixture.send { $0 }
            let wire = fixture.wire
            let kept = Array(taken == 0 ? voice[2..<66] : voice[..<1] + voice[2..<66])
            #expect(wire == Array(kept.joined()), "\(taken) bytes had left")
        }
        var fixture = try Fixture()
        fixture.appendVoice(Array(voice[..<64]))
        let (dropped, _) = fixture.dropOldVoice(bytesMax: 1 << 20)
        #expect(dropped == 0)
    }

    @Test func `drops voice beyond the bytes allowed, but never the only frame`() throws {
        let size = voice[0].count
        for (bytesMax, kept) in [(4 * size, 4), (4 * size - 1, 3), (2 * size, 2), (size, 1), (size - 1, 1), (0, 1)] {
            var fixture = try Fixture()
            fixture.appendVoice(Array(voice[..<4]))
            let (dropped, expected) = fixture.dropOldVoice(bytesMax: bytesMax)
            let waiting = fixture.outbox.voiceFrames
            #expect(dropped == expected)
            #expect(waiting == kept)
        }
    }

    @Test func `counts its data against the limit, and neither voice nor control frames`() throws {
        var fixture = try Fixture()
        fixture.appendVoice(Array(voice[..<64]))
        fixture.appendControlFrame(.ping, [UInt8](repeating: 0, count: 125))
        fixture.appendData(data)
        let bytes = data.joined().count
        let (at, above) = (fixture.outbox.isTooLong(bytes), fixture.outbox.isTooLong(bytes - 1))
        #expect(!at)
        #expect(above)
    }

    @Test(arguments: [nil, 1000, 1001, 1013, 4999] as [UInt16?])
    func `puts a close frame behind everything`(code: UInt16?) throws {
        var fixture = try Fixture()
        fixture.appendData([data[0]])
        fixture.appendVoice([voice[0]])
        fixture.appendClose(code: code)
        _ = fixture.send { $0 }
        let wire = fixture.wire
        let close: [UInt8] = code.map { [0x88, 2, UInt8($0 >> 8), UInt8($0 & 0xFF)] } ?? [0x88, 0]
        #expect(wire == Array([voice[0], data[0], close].joined()))
    }

    @Test func `forgets its backlog for a close, but finishes what has begun and what is no room's`() throws {
        for taken in 0...(2 * (voice[0].count + data[0].count)) {
            let (taken, isShared) = (taken / 2, taken.isMultiple(of: 2))
            var fixture = try Fixture()
            fixture.appendVoice([voice[0]], isShared: isShared)
            fixture.appendData([data[0], data[1]], isShared: isShared)
            _ = fixture.send { _ in taken }
            fixture.appendVoice([voice[1], voice[2]])
            fixture.appendControlFrame(.pong, [7])
            let (dropped, expected) = fixture.dropBacklog()
            #expect(dropped == expected)
            fixture.appendClose(code: 1013)
            let isInStep = fixture.isInStep
            #expect(isInStep)
            _ = fixture.send { $0 }
            let frames = try #require(Frame.parse(fixture.wire), "\(taken) bytes had left")
            #expect(frames.last == Frame(opcode: Frame.close, payload: [0x03, 0xF5]))
            #expect(frames.dropLast().last == Frame(opcode: Frame.pong, payload: [7]))
            let begun = taken == 0 ? 0 : taken <= voice[0].count ? 1 : 2
            #expect(frames.count == begun + 2)
        }
    }

    @Test func `goes on in another process from every byte`() throws {
        let frames = [voice[0], voice[1]]
        for sent in 0...(2 * voice[0].count) {
            for isVoice in [true, false] {
                var fixture = try Fixture()
                let isShared = sent.isMultiple(of: 2)
                if isVoice {
                    fixture.appendVoice(frames, sent: sent, isShared: isShared)
                } else {
                    fixture.appendData(frames, sent: sent, isShared: isShared)
                }
                let hasMoved = fixture.move()
                #expect(hasMoved)
                let isInStep = fixture.isInStep
                #expect(isInStep)
                fixture.appendControlFrame(.ping, [])
                let isRight = fixture.send { $0 }
                #expect(isRight, "\(sent) bytes had left")
            }
        }
    }

    @Test func `owns no memory once everything has left and was given back`() throws {
        var fixture = try Fixture()
        fixture.appendData(data)
        fixture.appendVoice([voice[0]])
        fixture.appendControlFrame(.ping, [])
        _ = fixture.send { $0 - 1 }
        _ = fixture.send { $0 }
        var pool = QueuePool()
        fixture.outbox.giveBack(to: &pool)
        let capacity = fixture.outbox.capacity
        #expect(capacity == 0)
    }

    @Test func `holds a block for as long as a range of it waits`() throws {
        var fixture = try Fixture()
        fixture.appendData([data[0], data[1]], isShared: true)
        fixture.appendVoice([voice[0]], isShared: true)
        fixture.appendData([data[2]])
        var counts = [fixture.blocks.count]
        for taken in [voice[0].count, data[0].count, data[1].count, data[2].count] {
            _ = fixture.send { _ in taken }
            counts.append(fixture.blocks.count)
        }
        #expect(counts == [2, 1, 1, 0, 0])
        fixture.appendData([data[0]], isShared: true)
        let dropped = fixture.outbox.dropAll(&fixture.blocks)
        let left = fixture.blocks.count
        #expect((dropped, left) == (0, 0))
    }

    @Test func `copies what is little of a large block, and lets the block go`() throws {
        for size in [Limits.remainderCopiedBytesMax, Limits.remainderCopiedBytesMax + 1] {
            let frame = Frame(opcode: Frame.binary, payload: [UInt8](repeating: 7, count: 60_000)).unmasked
            var fixture = try Fixture()
            fixture.appendData([frame], isShared: true)
            _ = fixture.send { _ in frame.count - size }
            let blocks = fixture.blocks.count
            #expect(blocks == (size <= Limits.remainderCopiedBytesMax ? 0 : 1))
            fixture.appendVoice([voice[0]])
            _ = fixture.send { $0 }
            let wire = fixture.wire
            #expect(wire == frame + voice[0])
        }
    }

    @Test func `sends as many pieces as a send takes, and goes on with the next`() throws {
        var fixture = try Fixture()
        var frames: [UInt8] = []
        for index in 0..<(3 * GatherList.capacity) {
            fixture.appendData([data[index % 10]], isShared: true)
            frames += data[index % 10]
        }
        for _ in 0..<3 {
            let isRight = fixture.send { $0 }
            #expect(isRight)
        }
        let (wire, isEmpty) = (fixture.wire, fixture.outbox.isEmpty)
        #expect(wire == frames)
        #expect(isEmpty)
    }

    @Test func `puts no frame inside a frame and keeps each class in order, whatever happens`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for connection in 0..<30 as Range<UInt64> {
            var source = Source(seed: seed &+ connection)
            var fixture = try Fixture()
            var voiceDropped = 0
            for round in 0..<200 {
                let context = "seed \(seed), connection \(connection), round \(round)"
                let count = Int.random(in: 1...20, using: &source.random)
                // A send past the outbox: only while nothing waits in it can it have taken a part.
                let isFree = fixture.waitingCount == 0 && Bool.random(using: &source.random)
                switch Int.random(in: 0..<10, using: &source.random) {
                case 0...2:
                    let frames = (0..<count).map { _ in source.voice() }
                    let sent = isFree ? Int.random(in: 0...concatenated(frames).count, using: &source.random) : 0
                    fixture.appendVoice(frames, sent: sent, isShared: Bool.random(using: &source.random))
                    let bytesMax = Bool.random(using: &source.random) ? 2000 : 1 << 20
                    let (dropped, expected) = fixture.dropOldVoice(bytesMax: bytesMax)
                    #expect(dropped == expected, "\(context)")
                    voiceDropped += dropped
                case 3...4:
                    let frames = (0..<count).map { _ in source.data() }
                    let sent = isFree ? Int.random(in: 0...concatenated(frames).count, using: &source.random) : 0
                    fixture.appendData(frames, sent: sent, isShared: Bool.random(using: &source.random))
                case 5:
                    let opcode: Opcode = Bool.random(using: &source.random) ? .ping : .pong
                    fixture.appendControlFrame(opcode, [UInt8](repeating: 9, count: 6 * count))
                case 6:
                    let hasMoved = fixture.move()
                    #expect(hasMoved, "\(context)")
                default:
                    // Often a few bytes, so that every place of a frame is cut.
                    let most = Bool.random(using: &source.random) ? 12 : 4000
                    var random = source.random
                    let isRight = fixture.send { Int.random(in: 0...min(most, $0), using: &random) }
                    source.random = random
                    #expect(isRight, "\(context)")
                }
                guard fixture.isInStep, fixture.outbox.voiceFrames <= 64 else {
                    Issue.record("\(context): \(fixture.outbox.voiceFrames) voice frames")
                    return
                }
            }
            let drops = Bool.random(using: &source.random)
            if drops { voiceDropped += fixture.dropBacklog().0 }
            fixture.appendClose(code: 1001)
            while !fixture.outbox.isEmpty {
                guard fixture.send({ $0 }) else {
                    Issue.record("seed \(seed), connection \(connection): the end")
                    return
                }
            }
            let blocks = fixture.blocks.count
            #expect(blocks == 0, "seed \(seed), connection \(connection): a block outlives its readers")
            try check(fixture.wire, source, voiceDropped: voiceDropped, isWhole: !drops, "seed \(seed), \(connection)")
        }
    }

    /// That the bytes are frames, each class in order, data without a gap, and a close frame at the end.
    private func check(
        _ wire: [UInt8], _ source: Source, voiceDropped: Int, isWhole: Bool, _ context: String
    ) throws {
        let frames = try #require(Frame.parse(wire), "\(context)")
        #expect(frames.allSatisfy { $0.isFinal }, "\(context)")
        #expect(frames.last?.opcode == Frame.close, "\(context)")
        #expect(frames.count { $0.opcode == Frame.close } == 1, "\(context)")
        let said = frames.filter { $0.opcode == Frame.binary }.map(\.payload)
        let voice = said.filter { $0[0] == 0x4B }.map(Source.number)
        #expect(zip(voice, voice.dropFirst()).allSatisfy { $0 < $1 }, "\(context)")
        #expect(voice.count + voiceDropped == Int(source.voiceMade), "\(context): each voice frame left or was dropped")
        let data = said.filter { $0[0] == 0x7B }.map(Source.number)
        #expect(data == data.indices.map { UInt32($0 + 1) }, "\(context)")
        if isWhole { #expect(data.count == Int(source.dataMade), "\(context): no data is lost") }
    }
}

extension LaneQueue {
    /// A copy of what waits.
    func array(_ blocks: borrowing SharedBlocks) -> [UInt8] {
        var bytes: [UInt8] = []
        eachPiece(blocks) {
            bytes += $0
            return true
        }
        return bytes
    }
}
