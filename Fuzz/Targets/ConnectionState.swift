// A connection handed over, and the session in it.

import Glibc

@testable import Shared
@testable import worker

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    func message(phase: UInt8 = 0, input: [UInt8], output: [UInt8] = [], session: [UInt8] = []) -> [UInt8] {
        let head =
            Array("RLYC".utf8) + integer(ConnectionState.version) + [phase, 1] + [UInt8](repeating: 0, count: 16)
            + [UInt8](repeating: 1, count: 16)
        let counts = [input, output, session].flatMap { integer(UInt32($0.count)) }
        let client = [UInt8](repeating: 2, count: 16) + [session.isEmpty ? 1 : 2]
        return head + integer(UInt32(77)) + counts + integer(UInt64(5)) + client + input + output + session
    }
    let request = Array("GET /ws?room=a HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
    let session = sessionBytes(suite: 0x1301, waiting: [23, 3, 3])
    plantSeeds([
        message(input: request), message(input: request, session: session),
        message(input: request, output: [1, 2, 3], session: session), message(phase: 1, input: Array("PROXY ".utf8)),
    ])
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    withCopy(bytes, count) { input in
        let socket = Descriptor(owning: open("/dev/null", O_RDONLY | O_CLOEXEC))
        let whole = UnsafeRawBufferPointer(input)
        guard let decoded = try? ConnectionState.decode(whole.bytes, socket: socket, now: 1000) else { return }
        var message = ByteQueue()
        let session = decoded.session
        precondition(session.isEmpty || session.upperBound <= whole.count, "a session beyond the message")
        ConnectionState.encode(decoded.connection, sessionBytes: session.count, into: &message)
        message.append(UnsafeRawBufferPointer(rebasing: whole[session]))
        precondition(message.count == whole.count, "another length")
        if !session.isEmpty { _ = try? TLSSession(decoding: UnsafeRawBufferPointer(rebasing: whole[session])) }
    }
    return 0
}
