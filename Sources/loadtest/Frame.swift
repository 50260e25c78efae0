// WebSocket frames (RFC 6455, section 5) as a client writes and reads them.

/// RFC 6455, section 5.2.
enum Opcode: UInt8 {
    case continuation = 0
    case text = 1
    case binary = 2
    case close = 8
    case ping = 9
    case pong = 10
}

/// The first bytes of a frame.
struct FrameHeader: Equatable {
    var final = true
    var reserved: UInt8 = 0
    var opcode: UInt8
    var masked = false
    var payloadCount: Int

    /// Parses the header at `bytes[start...]`. Nil: more bytes are needed.
    static func parse(_ bytes: borrowing Span<UInt8>, at start: Int) -> (header: FrameHeader, count: Int)? {
        let available = bytes.count - start
        guard available >= 2 else { return nil }
        let first = bytes[start]
        let second = bytes[start + 1]
        var count = 2
        var length = UInt64(second & 0x7F)
        if length >= 126 {
            let extended = length == 126 ? 2 : 8
            guard available >= 2 + extended else { return nil }
            length = 0
            for index in 0..<extended { length = length << 8 | UInt64(bytes[start + 2 + index]) }
            count += extended
        }
        let masked = second & 0x80 != 0
        if masked { count += 4 }
        guard available >= count else { return nil }
        let header = FrameHeader(
            final: first & 0x80 != 0, reserved: first & 0x70, opcode: first & 0x0F, masked: masked,
            payloadCount: Int(clamping: length))
        return (header, count)
    }

    /// How many bytes the length takes beyond the first two (RFC 6455, section 5.2: as few as hold it).
    static func extendedLength(_ payloadCount: Int) -> Int {
        payloadCount < 126 ? 0 : payloadCount <= 0xFFFF ? 2 : 8
    }
}

/// A frame to send. The fields that only a broken client would change are here for the checks of the relay's refusals.
struct Frame {
    var opcode: Opcode
    var payload: [UInt8] = []
    var final = true
    var masked = true
    var reserved: UInt8 = 0

    /// The frame on the wire, masked with a random key (RFC 6455, section 5.3).
    var encoded: [UInt8] {
        let length = payload.count
        let maskBit: UInt8 = masked ? 0x80 : 0
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length + 14)
        bytes.append((final ? 0x80 : 0) | reserved | opcode.rawValue)
        switch FrameHeader.extendedLength(length) {
        case 0:
            bytes.append(maskBit | UInt8(length))
        case 2:
            bytes += [maskBit | 126, UInt8(length >> 8), UInt8(length & 0xFF)]
        default:
            bytes.append(maskBit | 127)
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: UInt64(length) >> UInt64(shift)))
            }
        }
        guard masked else { return bytes + payload }
        let key = Encoding.randomBytes(4)
        bytes += key
        let start = bytes.count
        bytes += payload
        var index = start
        while index < bytes.count {
            bytes[index] ^= key[(index - start) & 3]
            index += 1
        }
        return bytes
    }

    /// A close frame with a code (RFC 6455, section 5.5.1).
    static func close(_ code: UInt16, _ reason: String = "") -> Frame {
        Frame(opcode: .close, payload: [UInt8(code >> 8), UInt8(code & 0xFF)] + Array(reason.utf8))
    }
}
