// Client frames from bytes as they arrive, however the network cut them (RFC 6455, sections 5.2 to 5.5). No I/O, no
// allocation: what spans two reads is the header bytes seen so far, or how much of a payload is still to come.
//
// States: between frames (`remaining` nil; up to 13 header bytes kept) -> inside a frame (`remaining` payload bytes to come).
// Beside that, `messageOpcode` says whether a fragmented message is open, across the control frames between its fragments.

import Shared

/// A stretch of payload within the bytes given, still masked.
struct MaskedPayload: Equatable {
    var range: Range<Int>
    /// Rotated so that its lowest byte meets the first byte of `range`.
    var key: UInt32
}

/// The frame state of one connection.
struct FrameReader {
    /// What the bytes say next.
    enum Step: Equatable {
        /// All bytes are taken.
        case needMore
        /// A whole message of one frame.
        case message(MaskedPayload, isText: Bool)
        /// A part of a message; the last one completes it.
        case piece(MaskedPayload, isText: Bool, isLast: Bool)
        /// A part of a control frame's payload; the last one completes it.
        case control(Opcode, MaskedPayload, isLast: Bool)
        case violation(FrameHeader.Violation)
        /// The message is, or would become, larger than allowed: close code 1009.
        case tooBig
    }

    private var header = InlineArray<14, UInt8>(repeating: 0)
    private var headerCount = 0
    private var opcode = Opcode.continuation
    private var isFinal = false
    /// Whether a part of the payload that is being read has been given already.
    private var isSplit = false
    private var key: UInt32 = 0
    private var remaining: Int?
    private var messageOpcode: Opcode?
    /// Payload bytes of the open message, those announced by the current frame included.
    private var messageBytes = 0
    /// Counts messages, and control frames outside one, that have ended; it wraps.
    private(set) var messagesEnded: UInt32 = 0

    init() {}

    /// Whether a frame or a fragmented message is under way.
    var isBetweenMessages: Bool { remaining == nil && headerCount == 0 && messageOpcode == nil }

    /// The next step in `bytes` from `offset`, which is moved behind what was taken.
    mutating func next(_ bytes: RawSpan, _ offset: inout Int, messageBytesMax: Int) -> Step {
        while true {
            if remaining == nil {
                if let stop = readHeader(bytes, &offset, messageBytesMax) { return stop }
            }
            guard let announced = remaining else { return .needMore }
            let taken = min(announced, bytes.byteCount - offset)
            if taken == 0 && announced > 0 { return .needMore }
            let payload = MaskedPayload(range: offset..<(offset + taken), key: key)
            offset += taken
            let isLast = taken == announced
            let wasSplit = isSplit
            if isLast {
                remaining = nil
                isSplit = false
            } else {
                remaining = announced - taken
                isSplit = true
                // Rotating right by a byte a byte keeps the key's lowest byte at the next payload byte.
                let shift = UInt32(taken % 4) * 8
                if shift > 0 { key = key >> shift | key << (32 - shift) }
            }
            if isLast && isFinal && !(opcode.isControl && messageOpcode != nil) { messagesEnded &+= 1 }
            if opcode.isControl { return .control(opcode, payload, isLast: isLast) }
            let isText = messageOpcode == .text
            let isWhole = isLast && isFinal && !wasSplit && opcode != .continuation
            let completes = isLast && isFinal
            if completes {
                messageOpcode = nil
                messageBytes = 0
            }
            if isWhole { return .message(payload, isText: isText) }
            // An empty fragment that completes nothing says nothing.
            if taken == 0 && !completes { continue }
            return .piece(payload, isText: isText, isLast: completes)
        }
    }

    /// Reads a header, from the bytes kept and those given. Nil when it is complete and good: `remaining` is set.
    private mutating func readHeader(_ bytes: RawSpan, _ offset: inout Int, _ messageBytesMax: Int) -> Step? {
        let parsed: FrameHeader
        if headerCount == 0 {
            switch FrameHeader.parse(bytes, at: offset) {
            case .header(let header, let size):
                parsed = header
                offset += size
            case .violation(let violation):
                return .violation(violation)
            case .incomplete:
                while offset < bytes.byteCount {
                    header[headerCount] = bytes.byte(offset)
                    headerCount += 1
                    offset += 1
                }
                return .needMore
            }
        } else {
            // Byte by byte until the header is whole: a header is cut rarely, and its length is known only on the way.
            while true {
                guard offset < bytes.byteCount else { return .needMore }
                header[headerCount] = bytes.byte(offset)
                headerCount += 1
                offset += 1
                let parse = unsafe FrameHeader.parse(header.span.bytes.extracting(0..<headerCount), at: 0)
                if case .incomplete = parse { continue }
                headerCount = 0
                switch parse {
                case .header(let header, _): parsed = header
                case .violation(let violation): return .violation(violation)
                case .incomplete: preconditionFailure("an incomplete header has been continued above")
                }
                break
            }
        }
        return begin(parsed, messageBytesMax)
    }

    /// Checks a header against the message that is open (RFC 6455, 5.4) and the size allowed.
    private mutating func begin(_ frame: FrameHeader, _ messageBytesMax: Int) -> Step? {
        if !frame.opcode.isControl {
            if frame.opcode == .continuation {
                guard messageOpcode != nil else { return .violation(.continuationWithoutMessage) }
            } else {
                guard messageOpcode == nil else { return .violation(.messageInsideMessage) }
                messageOpcode = frame.opcode
                messageBytes = 0
            }
            guard frame.length <= messageBytesMax - messageBytes else { return .tooBig }
            messageBytes += frame.length
        }
        opcode = frame.opcode
        isFinal = frame.isFinal
        key = frame.key
        remaining = frame.length
        return nil
    }
}

// MARK: - As bytes

// header bytes kept u8, those 14 bytes, opcode u8, flags u8 (1 final, 2 split, 4 inside a payload), key u32, remaining u64,
// message's opcode u8 (0 none), message's bytes u64.
extension FrameReader {
    func encode(into writer: inout ByteWriter) {
        writer.write(UInt8(headerCount))
        for index in 0..<FrameHeader.bytesMax { writer.write(header[index]) }
        writer.write(opcode.rawValue)
        writer.write(UInt8((isFinal ? 1 : 0) | (isSplit ? 2 : 0) | (remaining == nil ? 0 : 4)))
        writer.write(key)
        writer.write(UInt64(remaining ?? 0))
        writer.write(messageOpcode?.rawValue ?? 0)
        writer.write(UInt64(messageBytes))
    }

    init(from reader: inout ByteReader) throws(ByteCodingError) {
        let error = ByteCodingError.invalid(field: "frame state")
        let kept = Int(try reader.read(UInt8.self))
        guard kept < FrameHeader.bytesMax else { throw error }
        for index in 0..<FrameHeader.bytesMax { header[index] = try reader.read() }
        headerCount = kept
        guard let opcode = Opcode(rawValue: try reader.read()) else { throw error }
        self.opcode = opcode
        let flags = try reader.read(UInt8.self)
        guard flags < 8 else { throw error }
        (isFinal, isSplit) = (flags & 1 != 0, flags & 2 != 0)
        key = try reader.read()
        let lengthMax = UInt64(Limits.messageBytesRange.upperBound)
        let left = try reader.read(UInt64.self)
        let leftMax = opcode.isControl ? UInt64(FrameHeader.controlPayloadBytesMax) : lengthMax
        guard left <= leftMax, flags & 4 != 0 || (left == 0 && !isSplit) else { throw error }
        remaining = flags & 4 != 0 ? Int(left) : nil
        switch try reader.read(UInt8.self) {
        case 0: messageOpcode = nil
        case Opcode.text.rawValue: messageOpcode = .text
        case Opcode.binary.rawValue: messageOpcode = .binary
        default: throw error
        }
        let bytes = try reader.read(UInt64.self)
        guard bytes <= lengthMax else { throw error }
        messageBytes = Int(bytes)
        if remaining != nil {
            guard headerCount == 0, opcode.isControl || (messageOpcode != nil && left <= bytes) else { throw error }
        } else if headerCount > 0 {
            guard case .incomplete = unsafe FrameHeader.parse(header.span.bytes.extracting(0..<headerCount), at: 0)
            else {
                throw error
            }
        }
    }

    /// Payload bytes of the message that is under way that have come.
    var messageBytesTaken: Int { messageOpcode == nil ? 0 : messageBytes - (opcode.isControl ? 0 : remaining ?? 0) }

    /// As many payload bytes of the control frame that is under way as may have come.
    var controlBytesTakenMax: Int {
        guard opcode.isControl, let remaining else { return 0 }
        return FrameHeader.controlPayloadBytesMax - remaining
    }
}
