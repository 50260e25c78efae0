// WebSocket frames: in one piece and cut in two, which must say the same payload bytes and the same end.

@testable import worker

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    plantSeeds([
        [0, 0x81, 0x82, 1, 2, 3, 4, 65, 66], [3, 0x01, 0x81, 1, 2, 3, 4, 65, 0x80, 0x81, 1, 2, 3, 4, 66],
        [9, 0x89, 0x80, 1, 2, 3, 4, 0x88, 0x82, 0, 0, 0, 0, 3, 0xE8],
        [1, 0x82, 0xFE, 0, 126, 1, 2, 3, 4] + [UInt8](repeating: 9, count: 126),
        [2, 0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0],
    ])
    return 0
}

/// What was read, unmasked, and how it ended.
private struct Said: Equatable {
    var payload: [UInt8] = []
    var ends: [String] = []
}

private func read(_ pieces: [[UInt8]], max: Int) -> Said {
    var reader = FrameReader()
    var said = Said()
    for piece in pieces {
        var offset = 0
        piece.withUnsafeBytes { bytes in
            func take(_ payload: MaskedPayload) {
                precondition(payload.range.upperBound <= offset && payload.range.upperBound <= bytes.count, "beyond")
                for (index, place) in payload.range.enumerated() {
                    said.payload.append(bytes[place] ^ UInt8(truncatingIfNeeded: payload.key >> UInt32(index % 4 * 8)))
                }
            }
            while true {
                switch reader.next(bytes.bytes, &offset, messageBytesMax: max) {
                case .needMore:
                    precondition(offset == bytes.count, "all is taken")
                    return
                case .message(let payload, let isText):
                    take(payload)
                    said.ends.append("message \(isText)")
                case .piece(let payload, let isText, let isLast):
                    take(payload)
                    if isLast { said.ends.append("message \(isText)") }
                case .control(let opcode, let payload, let isLast):
                    take(payload)
                    if isLast { said.ends.append("\(opcode)") }
                case .violation(let violation):
                    said.ends.append("\(violation)")
                    offset = -1
                    return
                case .tooBig:
                    said.ends.append("too big")
                    offset = -1
                    return
                }
            }
        }
        if offset < 0 { break }
    }
    return said
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    guard let cut = input.first else { return 0 }
    let frames = Array(input.dropFirst())
    let whole = read([frames], max: 4096)
    let at = Int(cut) * frames.count / 256
    precondition(read([Array(frames[..<at]), Array(frames[at...])], max: 4096) == whole, "a cut changes what is said")
    if frames.count < 512 { precondition(read(frames.map { [$0] }, max: 4096) == whole, "byte by byte") }
    return 0
}
