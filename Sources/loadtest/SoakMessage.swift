// The messages of a soak. What message `number` of a sender is follows from the run's seed, so a receiver knows every byte that
// must come without having been told.
//
//     data      "S", sender and number as 8 hex digits each, content
//     voice     "KV", sender and number as 8 hex digits each, when it was sent as 16 hex digits, content
//     tiny      below 17 bytes: the sender's letter in its room, content
//     hello     {"from":"ID"}: message 0 of every other sender; leave notices must call it that from then on

/// Who sends: what a message depends on beside its number.
struct SoakSender: Equatable {
    /// Of the run's seed.
    let seed: UInt64
    /// A connection's number in the run, never used twice.
    let id: UInt32
    /// Of "a" to "z": different from that of everybody else in the room at the same time.
    let letter: UInt8
    let lengthMax: Int

    /// The token's `peer_id`.
    var peer: String { "peer-" + Self.hex(id) }
    var saysHello: Bool { id % 2 == 1 }
    /// What a leave notice calls a sender who has said so many data messages.
    func name(dataSent: UInt32) -> String { saysHello && dataSent > 0 ? "self-" + Self.hex(id) : peer }

    static func hex(_ value: UInt32) -> String { SoakMessage.hex(UInt64(value), digits: 8) }
}

struct SoakMessage: Equatable {
    enum Kind {
        case hello
        case tiny
        /// UTF-8 with characters of two bytes.
        case text
        /// Without line feeds, so that the relay may join it with others.
        case joinable
        /// Any bytes.
        case octets
        case voice
    }

    let sender: SoakSender
    let number: UInt32
    let kind: Kind
    let count: Int
    private let seed: UInt64

    static let dataHeaderCount = 17
    static let voiceHeaderCount = 34
    private static let sizesAtLimits = [17, 125, 126, 127, 16_384, 65_535, 65_536]

    static func voice(_ sender: SoakSender, _ number: UInt32) -> SoakMessage {
        let seed = seed(sender, number, salt: 0x7)
        return SoakMessage(
            sender: sender, number: number, kind: .voice, count: 60 + Int(SoakRandom.word(seed, -1) % 140), seed: seed)
    }

    static func data(_ sender: SoakSender, _ number: UInt32) -> SoakMessage {
        let seed = seed(sender, number, salt: 0xD)
        if number == 0, sender.saysHello {
            return SoakMessage(sender: sender, number: 0, kind: .hello, count: 24, seed: seed)
        }
        var random = SoakRandom(seed: ~seed)
        let count = min(sender.lengthMax, length(&random, sender.lengthMax))
        if count < dataHeaderCount {
            return SoakMessage(sender: sender, number: number, kind: .tiny, count: count, seed: seed)
        }
        let kind = [Kind.text, .joinable, .octets][random.pick(0...2)]
        return SoakMessage(sender: sender, number: number, kind: kind, count: count, seed: seed)
    }

    /// Mostly short, as messages are; in each hundred thousand bytes there is a long one too.
    private static func length(_ random: inout SoakRandom, _ lengthMax: Int) -> Int {
        switch random.pick(0...999) {
        case 0..<200: random.pick(1...16)
        case 200..<650: random.pick(17...200)
        case 650..<860: random.pick(200...4000)
        case 860..<960: random.pick(4000...40_000)
        case 960..<990: sizesAtLimits[random.pick(0...sizesAtLimits.count - 1)]
        case 990..<998: random.pick(65_537...400_000)
        default: lengthMax - random.pick(0...16)
        }
    }

    private static func seed(_ sender: SoakSender, _ number: UInt32, salt: UInt64) -> UInt64 {
        SoakRandom.word(sender.seed ^ salt << 60 ^ UInt64(sender.id) << 32 ^ UInt64(number), 0)
    }

    // MARK: Bytes

    /// How many bytes stand before the content.
    private var headerCount: Int {
        switch kind {
        case .hello: count
        case .tiny: 1
        case .text, .joinable, .octets: Self.dataHeaderCount
        case .voice: Self.voiceHeaderCount
        }
    }

    private func header(time: UInt64) -> [UInt8] {
        switch kind {
        case .hello: Array("{\"from\":\"self-\(SoakSender.hex(sender.id))\"}".utf8)
        case .tiny: [sender.letter]
        case .text, .joinable, .octets: Array(("S" + SoakSender.hex(sender.id) + SoakSender.hex(number)).utf8)
        case .voice:
            Array(("KV" + SoakSender.hex(sender.id) + SoakSender.hex(number) + Self.hex(time, digits: 16)).utf8)
        }
    }

    /// Eight bytes of content, the lowest first.
    @inline(__always)
    private func word(_ index: Int, isWhole: Bool) -> UInt64 {
        let word = SoakRandom.word(seed, index)
        switch kind {
        case .octets, .voice, .hello: return word
        case .joinable: return word | 0x8080_8080_8080_8080
        case .text, .tiny:
            let ascii = word & 0x3F3F_3F3F_3F3F_3F3F | 0x4040_4040_4040_4040
            // U+00C0 to U+00FF is C3 and a byte from 80 to BF; at the end, where it might be cut, there is none.
            guard kind == .text, isWhole else { return ascii }
            return ascii & ~0xFFFF | 0xC3 | (0x80 | word & 0x3F) << 8
        }
    }

    /// The payload. `time` is voice's only.
    func payload(time: UInt64 = 0) -> [UInt8] {
        var bytes = header(time: time)
        bytes.reserveCapacity(count)
        var index = 0
        while bytes.count < count {
            let rest = min(8, count - bytes.count)
            let word = word(index, isWhole: rest == 8)
            for shift in 0..<rest { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
            index += 1
        }
        return bytes
    }

    /// Whether these `count` bytes are the payload; of voice the time may be any.
    func matches(_ bytes: borrowing Span<UInt8>, at start: Int) -> Bool {
        guard bytes.count - start >= count else { return false }
        let header = header(time: 0)
        let compared = kind == .voice ? headerCount - 16 : headerCount
        for index in 0..<compared where bytes[start + index] != header[index] { return false }
        var position = start + headerCount
        var index = 0
        let end = start + count
        let raw = unsafe bytes.bytes
        while end - position >= 8 {
            // position + 8 is at most the end of this message, which the guard above found within the bytes.
            let word = unsafe raw.unsafeLoadUnaligned(fromByteOffset: position, as: UInt64.self)
            if UInt64(littleEndian: word) != self.word(index, isWhole: true) { return false }
            position += 8
            index += 1
        }
        let last = word(index, isWhole: false)
        for offset in 0..<(end - position)
        where bytes[position + offset] != UInt8(truncatingIfNeeded: last >> UInt64(8 * offset)) { return false }
        return true
    }

    // MARK: Numbers as text

    static func hex(_ value: UInt64, digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    /// The number written as so many hex digits; nil if they are none.
    static func number(_ bytes: borrowing Span<UInt8>, at start: Int, digits: Int) -> UInt64? {
        guard bytes.count - start >= digits else { return nil }
        var value: UInt64 = 0
        for index in start..<start + digits {
            switch bytes[index] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(bytes[index] - 0x30)
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(bytes[index] - 0x57)
            default: return nil
            }
        }
        return value
    }
}
