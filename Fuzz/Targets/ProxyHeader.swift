// PROXY headers: whole, and each of their beginnings, which must come to the same.

import Shared

@testable import worker

private let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    plantSeeds(
        [
            "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET / HTTP/1.1\r\n",
            "PROXY TCP6 2001:db8::42 ::1 1 2\r\n", "PROXY UNKNOWN anything\r\n",
        ].map { Array($0.utf8) } + [
            signature + [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 3, 4, 22, 3, 1],
            signature + [0x21, 0x21, 0, 39] + [UInt8](repeating: 1, count: 36) + [4, 0, 0],
            signature + [0x20, 0, 0, 0], signature + [0x21, 0x31, 0, 216] + [UInt8](repeating: 97, count: 216),
        ])
    return 0
}

private enum Verdict: Equatable {
    case incomplete
    case header(ProxyHeader)
    case refused(ProxyHeaderError)
}

private func judge(_ bytes: Span<UInt8>) -> Verdict {
    do throws(ProxyHeaderError) {
        return try parseProxyHeader(bytes).map { .header($0) } ?? .incomplete
    } catch {
        return .refused(error)
    }
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    withCopy(bytes, count) { input in
        let span = UnsafeRawBufferPointer(input).bindMemory(to: UInt8.self).span
        let whole = judge(span)
        if case .header(let header) = whole {
            precondition(header.byteCount > 0 && header.byteCount <= count, "a header within the bytes")
            precondition(judge(span.extracting(0..<(header.byteCount - 1))) == .incomplete, "its last byte decides")
        }
        // Incomplete, and from some byte on the same for ever; and nothing is awaited for longer than a header may be.
        var decided = Verdict.incomplete
        for end in 0...min(count, 400) {
            let part = judge(span.extracting(0..<end))
            precondition(decided == .incomplete || part == decided, "what a header is depends on how it was cut")
            decided = part
        }
        precondition(decided == .incomplete || decided == whole, "what a header is depends on how it was cut")
        precondition(whole != .incomplete || count < Limits.proxyHeaderBytesMax, "awaited for too long")
    }
    return 0
}
