// A session written down: what decodes must encode to the very same bytes.

@testable import worker

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    plantSeeds([
        sessionBytes(suite: 0x1301), sessionBytes(suite: 0x1302, flags: 8), sessionBytes(suite: 0x1303, flags: 1),
        sessionBytes(suite: 0x1301, flags: 2, alert: 20), sessionBytes(suite: 0x1301, fragment: 3),
        sessionBytes(suite: 0x1301, flags: 32, waiting: [23, 3, 3, 0, 20, 1, 2]),
    ])
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    withCopy(bytes, count) { input in
        guard let session = try? TLSSession(decoding: UnsafeRawBufferPointer(input)) else { return }
        precondition(session.encodedBytes == input.count, "another length")
        var message = ByteQueue()
        session.encode(into: &message)
        // Nothing is kept by a session that reads no more; everything else is as it was.
        precondition(message.unsafeBytes.elementsEqual(input), "another session")
    }
    return 0
}
