import Shared
import Testing

@testable import worker

/// What a reader made of some bytes.
private struct Reading: Equatable {
    enum Event: Equatable {
        case message([UInt8], isText: Bool)
        case control(Opcode, [UInt8])
    }

    enum End: Equatable {
        case open
        case violation(FrameHeader.Violation)
        case tooBig
        /// The reader broke its promises.
        case stuck
    }

    var events: [Event] = []
    var end = End.open
    var isBetweenMessages = true

    private var message: [UInt8] = []
    private var control: [UInt8] = []
    private var reader = FrameReader()
    private let messageBytesMax: Int

    static func == (left: Reading, right: Reading) -> Bool {
        left.events == right.events && left.end == right.end
            && (left.end != .open || left.isBetweenMessages == right.isBetweenMessages)
    }

    /// Reads pieces one after the other, each as if it had come from the network.
    ///
    /// - Parameter moves: whether each piece is read by another process.
    init(_ pieces: [ArraySlice<UInt8>], messageBytesMax: Int = 1 << 20, moves: Bool = false) {
        self.messageBytesMax = messageBytesMax
        for piece in pieces where end == .open {
            take(Array(piece))
            if moves && end == .open { move() }
        }
        isBetweenMessages = reader.isBetweenMessages
    }

    private mutating func move() {
        var writer = ByteWriter()
        reader.encode(into: &writer)
        #expect(writer.bytes.count == 38)
        #expect(reader.messageBytesTaken == message.count)
        #expect(reader.controlBytesTakenMax >= control.count)
        var source = ByteReader(writer.bytes)
        do throws(ByteCodingError) {
            reader = try FrameReader(from: &source)
            if source.count > 0 { end = .stuck }
        } catch {
            end = .stuck
        }
    }

    private mutating func take(_ bytes: [UInt8]) {
        var offset = 0
        // Each step takes a byte, or is the end of the bytes, or completes a frame without payload.
        for _ in 0...(2 * bytes.count + 1) {
            let before = offset
            let step = reader.next(bytes.span.bytes, &offset, messageBytesMax: messageBytesMax)
            guard offset >= before && offset <= bytes.count else { break }
            switch step {
            case .needMore:
                if offset != bytes.count { end = .stuck }
                return
            case .violation(let violation):
                end = .violation(violation)
                return
            case .tooBig:
                end = .tooBig
                return
            case .message(let payload, let isText):
                if !message.isEmpty { end = .stuck }
                events.append(.message(Self.unmask(bytes, payload), isText: isText))
            case .piece(let payload, let isText, let isLast):
                message += Self.unmask(bytes, payload)
                if message.count > messageBytesMax { end = .stuck }
                guard isLast else { continue }
                events.append(.message(message, isText: isText))
                message = []
            case .control(let opcode, let payload, let isLast):
                control += Self.unmask(bytes, payload)
                if control.count > 125 { end = .stuck }
                guard isLast else { continue }
                events.append(.control(opcode, control))
                control = []
            }
        }
        end = .stuck
    }

    private static func unmask(_ bytes: [UInt8], _ payload: MaskedPayload) -> [UInt8] {
        bytes[payload.range].enumerated().map { $1 ^ UInt8(payload.key >> UInt32(8 * ($0 % 4)) & 0xFF) }
    }
}

/// Frames as a client sends them, and the events that they are.
private struct Conversation {
    var bytes: [UInt8] = []
    var events: [Reading.Event] = []

    init(_ seed: UInt64, lengths: [Int] = [0, 1, 2, 3, 4, 5, 11, 125, 126, 200], messages: Int = 12) {
        var random = SplitMix64(seed: seed)
        func payload(_ lengths: [Int]) -> [UInt8] {
            (0..<(lengths.randomElement(using: &random) ?? 0)).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        func add(_ frame: Frame) {
            bytes += frame.masked((0..<4).map { _ in UInt8.random(in: 0...255, using: &random) })
        }
        func maybeControl() {
            guard Int.random(in: 0..<3, using: &random) == 0 else { return }
            let opcode: Opcode = Bool.random(using: &random) ? .ping : .pong
            let payload = payload([0, 1, 4, 7, 125])
            add(Frame(opcode: opcode.rawValue, payload: payload))
            events.append(.control(opcode, payload))
        }
        for _ in 0..<messages {
            let isText = Bool.random(using: &random)
            let parts = (0..<(Bool.random(using: &random) ? 1 : Int.random(in: 2...4, using: &random))).map { _ in
                payload(lengths)
            }
            for (index, part) in parts.enumerated() {
                let opcode = index > 0 ? Frame.continuation : isText ? Frame.text : Frame.binary
                add(Frame(isFinal: index == parts.count - 1, opcode: opcode, payload: part))
                if index == parts.count - 1 { events.append(.message(Array(parts.joined()), isText: isText)) }
                maybeControl()
            }
        }
        add(Frame(opcode: Frame.close, payload: [0x03, 0xE8]))
        events.append(.control(.close, [0x03, 0xE8]))
    }
}

@Suite struct `Frame readers` {
    private let key: [UInt8] = [0x11, 0x22, 0x33, 0x44]

    /// Bytes in pieces that end at random places.
    private func pieces(_ bytes: [UInt8], _ random: inout SplitMix64, most: Int) -> [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Int.random(in: 1...most, using: &random)
            pieces.append(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        return pieces
    }

    @Test func `read the same messages from every split`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let conversation = Conversation(seed)
        let bytes = conversation.bytes
        let whole = Reading([bytes[...]])
        #expect(whole.events == conversation.events, "seed \(seed)")
        #expect(whole.end == .open && whole.isBetweenMessages, "seed \(seed)")
        #expect(Reading(bytes.indices.map { bytes[$0...$0] }) == whole, "seed \(seed): byte by byte")
        for cut in 0...bytes.count {
            #expect(Reading([bytes[..<cut], bytes[cut...]]) == whole, "seed \(seed): cut at \(cut)")
            #expect(Reading([bytes[..<cut], bytes[cut...]], moves: true) == whole, "seed \(seed): moved at \(cut)")
        }
    }

    @Test func `read the same messages from pieces of any size`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<300 as Range<UInt64> {
            let long = round.isMultiple(of: 100)
            let conversation =
                long
                ? Conversation(seed &+ round, lengths: [0, 65_535, 65_536], messages: 2)
                : Conversation(seed &+ round)
            let most = long ? 66_000 : [1, 3, 17, 300].randomElement(using: &random) ?? 1
            let reading = Reading(pieces(conversation.bytes, &random, most: most))
            #expect(reading.events == conversation.events, "seed \(seed), round \(round)")
            #expect(reading.end == .open && reading.isBetweenMessages, "seed \(seed), round \(round)")
        }
    }

    @Test func `say at every byte whether a message is under way`() {
        let frames = [
            Frame(opcode: Frame.binary, payload: [1]), Frame(isFinal: false, opcode: Frame.text, payload: [2]),
            Frame(opcode: Frame.ping, payload: [3]), Frame(opcode: Frame.continuation, payload: [4]),
        ].map { $0.masked(key) }
        let bytes = Array(frames.joined())
        // Between the first message and the second, and at the end; the ping stands inside the second.
        let between = [0, frames[0].count, bytes.count]
        for end in 0...bytes.count {
            #expect(Reading([bytes[..<end]]).isBetweenMessages == between.contains(end), "\(end)")
        }
    }

    @Test func `give a whole message of one frame where it lies, also when its header was cut`() {
        let bytes = Frame(opcode: Frame.binary, payload: [5, 6, 7]).masked(key)
        for cut in 0...6 {
            var reader = FrameReader()
            var offset = 0
            let first = reader.next(bytes.span.bytes.extracting(0..<cut), &offset, messageBytesMax: 100)
            #expect(first == .needMore)
            offset = 0
            let second = reader.next(bytes.span.bytes.extracting(cut..<bytes.count), &offset, messageBytesMax: 100)
            let payload = MaskedPayload(range: (6 - cut)..<(9 - cut), key: 0x4433_2211)
            #expect(second == .message(payload, isText: false))
        }
    }

    @Test func `take a message of exactly the maximum and refuse one byte more, before it comes`() {
        for max in [1, 125, 126, 65_535, 65_536] {
            let fits = Frame(opcode: Frame.binary, payload: [UInt8](repeating: 1, count: max)).masked(key)
            let reading = Reading([fits[...]], messageBytesMax: max)
            #expect(reading.end == .open)
            #expect(reading.events.count == 1)
            let header = [0x82] + Frame.length(max + 1, mask: 0x80) + key
            #expect(Reading([header[...]], messageBytesMax: max).end == .tooBig)
            #expect(Reading(header.indices.map { header[$0...$0] }, messageBytesMax: max).end == .tooBig)
            #expect(Reading([header.dropLast()], messageBytesMax: max).end == .open)
        }
        let endless: [UInt8] = [0x82] + Frame.length(.max, mask: 0x80) + key
        #expect(Reading([endless[...]], messageBytesMax: 64 << 20).end == .tooBig)
    }

    @Test func `add up the fragments of a message, and nothing between them`() {
        for (sizes, isTooBig) in [
            ([50, 50], false), ([50, 51], true), ([100, 0], false), ([100, 1], true), ([0, 100], false),
            ([0, 101], true), ([99, 1, 0], false), ([33, 33, 34], false), ([33, 33, 35], true), ([1, 99, 1], true),
            ([1, .max], true), ([100, .max], true),
        ] as [([Int], Bool)] {
            var bytes: [UInt8] = []
            for (index, size) in sizes.enumerated() {
                let opcode = index == 0 ? Frame.text : Frame.continuation
                bytes += [(index == sizes.count - 1 ? 0x80 : 0) | opcode] + Frame.length(size, mask: 0x80) + key
                bytes += [UInt8](repeating: 0, count: min(size, 200))
                if index < sizes.count - 1 {
                    bytes += Frame(opcode: Frame.ping, payload: [UInt8](repeating: 0, count: 125)).masked(key)
                }
            }
            let reading = Reading([bytes[...]], messageBytesMax: 100)
            #expect(reading.end == (isTooBig ? .tooBig : .open), "\(sizes)")
            #expect(Reading(bytes.indices.map { bytes[$0...$0] }, messageBytesMax: 100) == reading, "\(sizes)")
            let messages = reading.events.count {
                if case .message = $0 { true } else { false }
            }
            #expect(messages == (isTooBig ? 0 : 1))
        }
    }

    @Test func `begin to count anew with each message`() {
        let parts = [
            Frame(isFinal: false, opcode: Frame.binary, payload: [UInt8](repeating: 1, count: 60)),
            Frame(opcode: Frame.continuation, payload: [UInt8](repeating: 2, count: 40)),
            Frame(opcode: Frame.binary, payload: [UInt8](repeating: 3, count: 100)),
        ]
        let bytes = Array((parts + parts).map { $0.masked(key) }.joined())
        let reading = Reading([bytes[...]], messageBytesMax: 100)
        #expect(reading.end == .open)
        #expect(reading.events.count == 4)
    }

    @Test func `refuse a continuation of nothing and a message inside a message`() {
        let text = Frame(opcode: Frame.text, payload: [1])
        let start = Frame(isFinal: false, opcode: Frame.binary, payload: [])
        let more = Frame(isFinal: false, opcode: Frame.continuation, payload: [2])
        let end = Frame(opcode: Frame.continuation, payload: [])
        let ping = Frame(opcode: Frame.ping, payload: [])
        for (frames, violation) in [
            ([more], .continuationWithoutMessage), ([end], .continuationWithoutMessage),
            ([text, end], .continuationWithoutMessage), ([start, end, more], .continuationWithoutMessage),
            ([ping, end], .continuationWithoutMessage), ([start, text], .messageInsideMessage),
            ([start, start], .messageInsideMessage), ([start, more, ping, text], .messageInsideMessage),
            ([start, ping, more, end, text, ping], nil),
        ] as [([Frame], FrameHeader.Violation?)] {
            let bytes = Array(frames.map { $0.masked(key) }.joined())
            let expected: Reading.End = violation.map { .violation($0) } ?? .open
            #expect(Reading([bytes[...]]).end == expected)
            #expect(Reading(bytes.indices.map { bytes[$0...$0] }).end == expected)
        }
    }

    @Test func `refuse a wrong header wherever it stands, and give what came before it`() {
        let good = Frame(opcode: Frame.binary, payload: [1, 2, 3]).masked(key)
        for (bytes, violation) in [
            ([0xC2, 0x80], .reservedBits), ([0x83, 0x80], .reservedOpcode), ([0x82, 0x00], .unmasked),
            ([0x09, 0x80], .controlFragmented), ([0x89, 0xFE], .controlTooLong),
            ([0x82, 0xFE, 0, 1, 0, 0, 0, 0], .lengthNotMinimal),
            ([0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], .lengthTooLarge),
        ] as [([UInt8], FrameHeader.Violation)] {
            let all = good + bytes
            let expected = Reading.Event.message([1, 2, 3], isText: false)
            for cut in 0...all.count {
                let reading = Reading([all[..<cut], all[cut...]])
                #expect(reading.end == .violation(violation))
                #expect(reading.events == [expected])
            }
        }
    }

    @Test func `never trap or stand still, and judge mutated bytes the same from every split`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<2000 as Range<UInt64> {
            var bytes = Conversation(seed &+ round % 50, lengths: [0, 1, 5, 126], messages: 4).bytes
            for _ in 0..<Int.random(in: 1...5, using: &random) where !bytes.isEmpty {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &random)
                case 2: bytes.remove(at: index)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                }
            }
            let whole = Reading([bytes[...]], messageBytesMax: 200)
            #expect(whole.end != .stuck, "seed \(seed), round \(round)")
            let split = Reading(pieces(bytes, &random, most: 40), messageBytesMax: 200)
            #expect(split == whole, "seed \(seed), round \(round)")
            let moved = Reading(pieces(bytes, &random, most: 40), messageBytesMax: 200, moves: true)
            #expect(moved == whole, "seed \(seed), round \(round)")
        }
    }

    // MARK: - As bytes

    private func decoded(_ bytes: [UInt8]) -> Result<FrameReader, ByteCodingError> {
        Result { () throws(ByteCodingError) in
            var reader = ByteReader(bytes)
            return try FrameReader(from: &reader)
        }
    }

    private func isRefused(_ change: (inout [UInt8]) -> Void) -> Bool {
        var bytes = [UInt8](repeating: 0, count: 38)
        change(&bytes)
        guard case .failure(let error) = decoded(bytes) else { return false }
        return error == .invalid(field: "frame state")
    }

    /// Sets little-endian words.
    private func set(_ bytes: inout [UInt8], _ offset: Int, _ value: Int) {
        for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
    }

    @Test func `as bytes are refused at every truncation`() {
        for end in 0..<38 {
            guard case .failure(.truncated) = decoded([UInt8](repeating: 0, count: end)) else {
                Issue.record("\(end) bytes were taken")
                continue
            }
        }
        #expect(!isRefused { _ in })
    }

    @Test func `as bytes keep to what a reader can be in`() {
        // A header of 14 bytes is whole, and so is one of which the bytes kept are all.
        #expect(isRefused { $0[0] = 14 })
        #expect(isRefused { ($0[0], $0[1], $0[2]) = (6, 0x82, 0x80) })
        #expect(!isRefused { ($0[0], $0[1], $0[2]) = (5, 0x82, 0x80) })
        #expect(isRefused { ($0[0], $0[1], $0[2]) = (2, 0x83, 0x80) }, "a header that is wrong has been refused before")
        for opcode in [3, 7, 11, 255] as [UInt8] { #expect(isRefused { $0[15] = opcode }) }
        #expect(isRefused { $0[16] = 8 })
        // Split, or with a rest, and inside nothing.
        #expect(isRefused { $0[16] = 2 })
        #expect(isRefused { $0[21] = 1 })
        for opcode in [3, 8, 9, 255] as [UInt8] { #expect(isRefused { $0[29] = opcode }) }
        // Inside data of no message.
        #expect(isRefused { ($0[15], $0[16], $0[21]) = (2, 4, 1) })
        #expect(!isRefused { ($0[15], $0[16], $0[21], $0[29], $0[30]) = (2, 4, 1, 2, 1) })
        #expect(isRefused { ($0[15], $0[16], $0[21], $0[29], $0[30]) = (2, 4, 2, 2, 1) }, "more than announced")
        // Inside a payload with a header kept.
        #expect(isRefused { ($0[0], $0[1], $0[15], $0[16], $0[21]) = (1, 0x82, 9, 4, 1) })
    }

    @Test func `as bytes keep to the limits of lengths`() {
        for (left, isGood) in [(125, true), (126, false)] {
            #expect(isRefused { ($0[15], $0[16], $0[21]) = (9, 4, UInt8(left)) } == !isGood)
        }
        let max = 64 << 20
        #expect(Limits.messageBytesRange.upperBound == max)
        for (bytes, isGood) in [(max, true), (max + 1, false)] {
            #expect(
                isRefused {
                    ($0[15], $0[16], $0[29]) = (2, 4, 2)
                    set(&$0, 21, bytes)
                    set(&$0, 30, bytes)
                } == !isGood)
            #expect(
                isRefused {
                    $0[29] = 1
                    set(&$0, 30, bytes)
                } == !isGood)
        }
        #expect(isRefused { ($0[15], $0[16], $0[28]) = (9, 4, 255) })
        #expect(isRefused { ($0[29], $0[37]) = (1, 255) })
    }

    @Test func `as bytes never make anybody trap`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var taken = 0
        for round in 0..<10_000 {
            var bytes = [UInt8](repeating: 0, count: 38)
            if round.isMultiple(of: 2) { (bytes[15], bytes[16], bytes[21], bytes[29], bytes[30]) = (2, 4, 9, 2, 20) }
            bytes = Array(mutate(bytes, &random).prefix(38))
            guard case .success(var reader) = decoded(bytes) else { continue }
            taken += 1
            let more = (0..<60).map { _ in UInt8.random(in: 0...255, using: &random) }
            var offset = 0
            for _ in 0..<130 {
                switch reader.next(more.span.bytes, &offset, messageBytesMax: 1024) {
                case .message, .piece, .control: continue
                case .needMore, .violation, .tooBig: break
                }
                break
            }
        }
        #expect(taken > 100, "seed \(seed)")
    }
}
