/// A WebSocket frame as RFC 6455, 5.2 draws it: written and read here without a line of the relay's own code.
struct Frame: Equatable {
    var isFinal = true
    var opcode: UInt8
    var payload: [UInt8]

    static let continuation: UInt8 = 0
    static let text: UInt8 = 1
    static let binary: UInt8 = 2
    static let close: UInt8 = 8
    static let ping: UInt8 = 9
    static let pong: UInt8 = 10

    /// A payload length in its shortest form: 7 bits, or 16 behind 126, or 64 behind 127, big-endian.
    static func length(_ count: Int, mask: UInt8) -> [UInt8] {
        if count < 126 { return [mask | UInt8(count)] }
        if count < 65_536 { return [mask | 126, UInt8(count / 256), UInt8(count % 256)] }
        return [mask | 127] + (0..<8).map { UInt8(truncatingIfNeeded: count >> (56 - 8 * $0)) }
    }

    /// As a server sends it.
    var unmasked: [UInt8] {
        [(isFinal ? 0x80 : 0) | opcode] + Self.length(payload.count, mask: 0) + payload
    }

    /// As a client sends it.
    func masked(_ key: [UInt8]) -> [UInt8] {
        [(isFinal ? 0x80 : 0) | opcode] + Self.length(payload.count, mask: 0x80) + key
            + payload.enumerated().map { $1 ^ key[$0 % 4] }
    }

    /// A server's frames one behind the other; nil if the bytes are anything else.
    static func parse(_ bytes: [UInt8]) -> [Frame]? {
        var frames: [Frame] = []
        var rest = bytes[...]
        while let first = rest.popFirst() {
            guard first & 0x70 == 0, let short = rest.popFirst(), short < 128 else { return nil }
            let wide = short == 126 ? 2 : short == 127 ? 8 : 0
            guard rest.count >= wide else { return nil }
            let count = wide == 0 ? Int(short) : rest.prefix(wide).reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(wide)
            guard rest.count >= count else { return nil }
            frames.append(Frame(isFinal: first & 0x80 != 0, opcode: first & 0x0F, payload: Array(rest.prefix(count))))
            rest = rest.dropFirst(count)
        }
        return frames
    }
}
