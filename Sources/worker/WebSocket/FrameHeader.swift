// The header of a WebSocket frame (RFC 6455, section 5.2), read from clients and written to them.
//
//     byte 0   FIN | RSV1 RSV2 RSV3 | opcode (4 bits)
//     byte 1   MASK | length (7 bits): 0...125, or 126: 16 bits follow, or 127: 64 bits follow, big-endian
//     ...      masking key, 4 bytes, from clients only

/// What a frame carries.
enum Opcode: UInt8 {
    case continuation = 0
    case text = 1
    case binary = 2
    case close = 8
    case ping = 9
    case pong = 10

    var isControl: Bool { rawValue >= 8 }
}

/// A status code of a close frame that the relay sends (RFC 6455, 7.4.1; RFC 6455 registry).
enum CloseCode: UInt16 {
    case goingAway = 1001
    case protocolError = 1002
    case invalidText = 1007
    case policyViolation = 1008
    case messageTooBig = 1009
    case internalError = 1011
    case serviceRestart = 1012
    case tryAgainLater = 1013

    /// Whether a peer may put `code` on the wire: 1000 to 1014 without those reserved for local use, and the ranges for
    /// libraries and applications (RFC 6455, 7.4.2).
    static func isValidOnWire(_ code: UInt16) -> Bool {
        switch code {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}

/// A client's frame header, checked.
struct FrameHeader: Equatable {
    var opcode: Opcode
    var isFinal: Bool
    /// Payload bytes.
    var length: Int
    /// As it stands on the wire, read little-endian: the lowest byte masks the first payload byte.
    var key: UInt32

    /// Longest header a client can send: 2 + 8 + 4.
    static let bytesMax = 14
    /// A control frame's payload (RFC 6455, 5.5).
    static let controlPayloadBytesMax = 125

    /// How a header was read.
    enum Parse: Equatable {
        /// The bytes end before the header does.
        case incomplete
        case header(FrameHeader, bytes: Int)
        case violation(Violation)
    }

    /// Why a frame breaks the protocol: close code 1002.
    enum Violation: Error, Equatable {
        case reservedBits
        case reservedOpcode
        case unmasked
        case lengthNotMinimal
        case lengthTooLarge
        case controlFragmented
        case controlTooLong
        case continuationWithoutMessage
        case messageInsideMessage
        case closePayloadOfOneByte
        case closeCodeInvalid
        case closeReasonNotUTF8
    }

    /// Reads the header that begins at `offset`.
    static func parse(_ bytes: RawSpan, at offset: Int) -> Parse {
        let available = bytes.byteCount - offset
        guard available >= 2 else { return .incomplete }
        let first = bytes.byte(offset)
        let second = bytes.byte(offset + 1)
        guard first & 0x70 == 0 else { return .violation(.reservedBits) }
        guard let opcode = Opcode(rawValue: first & 0x0F) else { return .violation(.reservedOpcode) }
        guard second & 0x80 != 0 else { return .violation(.unmasked) }
        let isFinal = first & 0x80 != 0
        let short = Int(second & 0x7F)
        if opcode.isControl {
            guard isFinal else { return .violation(.controlFragmented) }
            guard short <= controlPayloadBytesMax else { return .violation(.controlTooLong) }
        }
        var length = short
        var size = 6
        if short == 126 {
            size = 8
            guard available >= size else { return .incomplete }
            length = Int(bytes.byte(offset + 2)) << 8 | Int(bytes.byte(offset + 3))
            guard length > 125 else { return .violation(.lengthNotMinimal) }
        } else if short == 127 {
            size = 14
            guard available >= size else { return .incomplete }
            var wide: UInt64 = 0
            for index in 2..<10 { wide = wide << 8 | UInt64(bytes.byte(offset + index)) }
            // "the most significant bit MUST be 0" (5.2), which also makes it an Int.
            guard let exact = Int(exactly: wide) else { return .violation(.lengthTooLarge) }
            guard exact > 0xFFFF else { return .violation(.lengthNotMinimal) }
            length = exact
        }
        guard available >= size else { return .incomplete }
        var key: UInt32 = 0
        for index in 0..<4 { key |= UInt32(bytes.byte(offset + size - 4 + index)) << UInt32(8 * index) }
        return .header(FrameHeader(opcode: opcode, isFinal: isFinal, length: length, key: key), bytes: size)
    }
}

/// The header of a frame that the relay sends: final and unmasked.
enum ServerFrame {
    /// Bytes of the header in front of a payload of `length` bytes.
    static func headerBytes(_ length: Int) -> Int {
        length <= 125 ? 2 : length <= 0xFFFF ? 4 : 10
    }

    static func appendHeader(_ opcode: Opcode, length: Int, to queue: inout ByteQueue) {
        let first = UInt64(0x80 | opcode.rawValue)
        switch headerBytes(length) {
        case 2:
            queue.append(word: first | UInt64(length) << 8, count: 2)
        case 4:
            queue.append(word: first | 126 << 8 | UInt64(UInt16(length).byteSwapped) << 16, count: 4)
        default:
            queue.append(word: first | 127 << 8, count: 2)
            queue.append(word: UInt64(length).byteSwapped, count: 8)
        }
    }

    /// Bytes of the whole frame, header included, that begins at `offset`; what the relay wrote itself is well-formed.
    static func bytes(_ frames: RawSpan, at offset: Int) -> Int {
        switch frames.byte(offset + 1) {
        case 126:
            return 4 + (Int(frames.byte(offset + 2)) << 8 | Int(frames.byte(offset + 3)))
        case 127:
            var length = 0
            for index in 2..<10 { length = length << 8 | Int(frames.byte(offset + index)) }
            return 10 + length
        case let short:
            return 2 + Int(short)
        }
    }

    /// How many whole frames stand in `bytes` from `start` on, one behind the other; nil if something else does.
    static func count(_ bytes: RawSpan, from start: Int) -> Int? {
        var (offset, frames) = (start, 0)
        while offset < bytes.byteCount {
            let available = bytes.byteCount - offset
            guard available >= 2 else { return nil }
            let header =
                switch bytes.byte(offset + 1) {
                case 126: 4
                case 127: 10
                case let short: short < 126 ? 2 : Int.max
                }
            // A length of 2^56 and more would not fit an Int; none is as long.
            guard header <= available, header < 10 || bytes.byte(offset + 2) == 0 else { return nil }
            let whole = self.bytes(bytes, at: offset)
            guard whole <= available else { return nil }
            offset += whole
            frames += 1
        }
        return offset == bytes.byteCount ? frames : nil
    }
}

extension RawSpan {
    /// The byte at `offset`; traps outside the span.
    func byte(_ offset: Int) -> UInt8 {
        unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }
}
