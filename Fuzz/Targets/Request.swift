// HTTP request heads: whole, and byte by byte with what was searched before, which must come to the same.

import Shared

@testable import worker

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    plantSeeds(
        [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /health HTTP/1.0\r\n\r\n",
            "GET /ws?room=a%20b&token=x.y&pubkey=AAAA HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\n"
                + "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 1.2.3.4, ::1\r\n\r\n",
            "POST http://a/ws HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        ].map { Array($0.utf8) })
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    withCopy(bytes, count) { input in
        let span = UnsafeRawBufferPointer(input).bindMemory(to: UInt8.self).span
        let whole = parseRequest(span)
        if case .head(let request) = whole {
            precondition(request.headBytes > 0 && request.headBytes <= input.count, "a head within the bytes")
            let query = QueryParameters(request.query)
            for name: StaticString in ["room", "token", "pubkey"] { _ = query.first(name).map(decodePublicKey) }
        }
        // The same in two reads.
        guard input.count > 1 else { return }
        let cut = Int(input[0]) * input.count / 256
        let part = parseRequest(span.extracting(0..<cut))
        if case .incomplete = part {
            let again = parseRequest(span, searched: cut)
            switch (whole, again) {
            case (.incomplete, .incomplete), (.refused, .refused): break
            case (.head(let one), .head(let other)): precondition(one.headBytes == other.headBytes, "another head")
            default: fatalError("what a head is depends on how it was cut")
            }
        }
    }
    return 0
}
