import Testing

@testable import worker

@Suite struct `Frame headers` {
    static let lengths = [0, 1, 124, 125, 126, 127, 255, 256, 65_534, 65_535, 65_536, 1 << 20, 1 << 32, Int.max]

    private func parse(_ bytes: [UInt8], at offset: Int = 0) -> FrameHeader.Parse {
        FrameHeader.parse(bytes.span.bytes, at: offset)
    }

    /// The header of a binary frame, with this length field behind its second byte.
    private func header(_ short: UInt8, _ wide: [UInt8] = []) -> [UInt8] {
        [0x82, 0x80 | short] + wide + [1, 2, 3, 4]
    }

    @Test(arguments: lengths) func `are read with every form of length and incomplete at every truncation`(
        length: Int
    ) {
        for (first, opcode, isFinal) in [
            (0x82, .binary, true), (0x01, .text, false), (0x80, .continuation, true), (0x00, .continuation, false),
        ] as [(UInt8, Opcode, Bool)] {
            let bytes = [first] + Frame.length(length, mask: 0x80) + [0x0A, 0x0B, 0x0C, 0x0D]
            let header = FrameHeader(opcode: opcode, isFinal: isFinal, length: length, key: 0x0D0C_0B0A)
            #expect(parse(bytes) == .header(header, bytes: bytes.count))
            #expect(parse([9, 9, 9] + bytes + [9], at: 3) == .header(header, bytes: bytes.count))
            for end in 0..<bytes.count {
                #expect(parse(Array(bytes[..<end])) == .incomplete, "\(end) of \(bytes.count) bytes")
            }
            #expect(bytes.count <= FrameHeader.bytesMax)
        }
    }

    @Test func `are what RFC 6455, 5.2 allows, for any two first bytes`() {
        let opcodes: [UInt8: Opcode] = [0: .continuation, 1: .text, 2: .binary, 8: .close, 9: .ping, 10: .pong]
        for first in UInt8.min...UInt8.max {
            for second in UInt8.min...UInt8.max {
                let short = Int(second & 0x7F)
                let isControl = first & 0x08 != 0
                var violations: [FrameHeader.Violation] = []
                if first & 0x70 != 0 { violations.append(.reservedBits) }
                if opcodes[first & 0x0F] == nil { violations.append(.reservedOpcode) }
                if second & 0x80 == 0 { violations.append(.unmasked) }
                if isControl && first & 0x80 == 0 { violations.append(.controlFragmented) }
                if isControl && short > 125 { violations.append(.controlTooLong) }
                let wide: [UInt8] = short == 126 ? [1, 0] : short == 127 ? [0, 0, 0, 0, 0, 1, 0, 0] : []
                let bytes = [first, second] + wide + [1, 2, 3, 4]
                let start = parse([first, second])
                let isRight: Bool
                switch parse(bytes) {
                case .header(let header, let count):
                    let length = short == 126 ? 256 : short == 127 ? 65_536 : short
                    isRight =
                        violations.isEmpty && start == .incomplete && header.opcode == opcodes[first & 0x0F]
                        && header.isFinal == (first >= 0x80) && header.length == length && count == bytes.count
                case .violation(let violation):
                    // Nobody waits for the rest of a frame that is wrong already.
                    isRight = violations.contains(violation) && start == .violation(violation)
                case .incomplete:
                    isRight = false
                }
                if !isRight { Issue.record("\(bytes): \(parse(bytes))") }
            }
        }
    }

    @Test(arguments: [0, 1, 124, 125]) func `are refused for 16 bits where 7 are enough`(length: UInt8) {
        #expect(parse(header(126, [0, length])) == .violation(.lengthNotMinimal))
        let bytes: [UInt8] = header(126, [0, 126])
        #expect(
            parse(bytes)
                == .header(FrameHeader(opcode: .binary, isFinal: true, length: 126, key: 0x0403_0201), bytes: 8))
    }

    @Test(arguments: [[0, 0], [0, 125], [0, 126], [1, 0], [0xFF, 0xFF]] as [[UInt8]])
    func `are refused for 64 bits where 16 are enough`(low: [UInt8]) {
        #expect(parse(header(127, [0, 0, 0, 0, 0, 0] + low)) == .violation(.lengthNotMinimal))
    }

    @Test func `are refused for a length with its highest bit set`() {
        #expect(parse(header(127, [0x80, 0, 0, 0, 0, 0, 0, 0])) == .violation(.lengthTooLarge))
        #expect(parse(header(127, [UInt8](repeating: 0xFF, count: 8))) == .violation(.lengthTooLarge))
        let largest = FrameHeader(opcode: .binary, isFinal: true, length: .max, key: 0x0403_0201)
        #expect(parse(header(127, [0x7F] + [UInt8](repeating: 0xFF, count: 7))) == .header(largest, bytes: 14))
    }

    @Test func `never trap, whatever the bytes`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...16, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            let offset = Int.random(in: 0...bytes.count, using: &random)
            let whole = parse(bytes, at: offset)
            if case .header(let header, let count) = whole {
                #expect(count <= bytes.count - offset && header.length >= 0, "seed \(seed)")
            }
            // More bytes change nothing but `incomplete`.
            let more = parse(bytes + [0x81], at: offset)
            #expect(whole == .incomplete || more == whole, "seed \(seed)")
        }
    }
}

@Suite struct `Close codes` {
    @Test func `are valid on the wire by RFC 6455, 7.4 and the registry that it founds`() {
        // 1004 is reserved; 1005, 1006 and 1015 are for local use; 1012 to 1014 were registered later.
        let named: Set<UInt16> = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]
        let wrong = (UInt16.min...UInt16.max).filter { code in
            CloseCode.isValidOnWire(code) != (named.contains(code) || (code >= 3000 && code < 5000))
        }
        #expect(wrong == [])
    }

    @Test func `that the relay sends are those of the wire protocol`() {
        #expect(CloseCode.goingAway.rawValue == 1001)
        #expect(CloseCode.protocolError.rawValue == 1002)
        #expect(CloseCode.invalidText.rawValue == 1007)
        #expect(CloseCode.messageTooBig.rawValue == 1009)
        #expect(CloseCode.internalError.rawValue == 1011)
        #expect(CloseCode.tryAgainLater.rawValue == 1013)
    }
}

@Suite struct `Server frames` {
    private let lengths = [0, 1, 2, 125, 126, 127, 255, 256, 65_535, 65_536, 100_000]

    @Test func `have headers in the shortest form, final and unmasked`() {
        for length in lengths + [Int(Int32.max), 1 << 40] {
            for opcode in [Opcode.text, .binary, .close, .ping, .pong] {
                var queue = ByteQueue()
                ServerFrame.appendHeader(opcode, length: length, to: &queue)
                let bytes = queue.array
                #expect(bytes == [0x80 | opcode.rawValue] + Frame.length(length, mask: 0))
                #expect(ServerFrame.headerBytes(length) == bytes.count)
                #expect(bytes.count <= 10)
            }
        }
    }

    @Test func `are walked over one by one`() {
        let frames = lengths.map { Frame(opcode: Frame.binary, payload: [UInt8](repeating: 0x7F, count: $0)).unmasked }
        let train = Array(frames.joined())
        var offset = 0
        for frame in frames {
            #expect(ServerFrame.bytes(train.span.bytes, at: offset) == frame.count)
            offset += frame.count
        }
        #expect(offset == train.count)
    }
}
