import Shared
import Testing

@testable import worker

@Suite struct `A ClientHello` {
    /// A handshake record around some bytes.
    private func record(_ bytes: some Collection<UInt8>) -> [UInt8] {
        [22, 3, 1, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes
    }

    /// A message of so many bytes with its header.
    private func message(_ count: Int, type: UInt8 = 1) -> [UInt8] {
        let length = count - 4
        return [type, UInt8(length >> 16), UInt8(length >> 8 & 0xFF), UInt8(length & 0xFF)]
            + [UInt8](repeating: 7, count: length)
    }

    private func read(_ bytes: [UInt8]) -> ClientHello { ClientHello(bytes.span.bytes) }

    @Test func `of a real client is whole with its last byte, and not before`() {
        let client = TLSClient()
        client.receive([])
        let hello = client.output()
        for end in 0..<hello.count { #expect(read(Array(hello[..<end])) == .incomplete) }
        #expect(read(hello) == .whole)
        #expect(read(hello + [22, 3, 3]) == .whole)
    }

    @Test func `may be cut into records`() {
        let hello = message(300)
        for size in [1, 2, 3, 4, 5, 17, 299] where 300 / size < 64 {
            var records: [UInt8] = []
            for start in stride(from: 0, to: 300, by: size) { records += record(hello[start..<min(start + size, 300)]) }
            for end in 0..<records.count { #expect(read(Array(records[..<end])) == .incomplete) }
            #expect(read(records) == .whole)
        }
        // The head alone in pieces of a byte, and then the rest.
        let records = hello.prefix(4).flatMap { record([$0]) } + record(hello.dropFirst(4))
        for end in 0..<records.count { #expect(read(Array(records[..<end])) == .incomplete) }
        #expect(read(records) == .whole)
        // In more pieces than anybody makes.
        let many = hello.flatMap { record([$0]) }
        #expect(read(Array(many[..<(64 * 6)])) == .incomplete)
        #expect(read(Array(many[..<(64 * 6 + 5)])) == .tooLong)
        #expect(read(many) == .tooLong)
    }

    @Test func `is a record's worth at most`() {
        #expect(read(record(message(16_384))) == .whole)
        #expect(read(Array(record(message(16_384)).dropLast())) == .incomplete)
        // As soon as it says how long it is.
        for count in [16_385, 65_536, 0xFF_FFFF + 4] {
            #expect(read(record(message(count).prefix(4))) == .tooLong)
            #expect(read(record(message(count).prefix(3))) == .incomplete)
        }
        #expect(5 + 16_384 <= Limits.tlsHelloBytesMax)
    }

    @Test func `is needed whole in its record, whatever stands behind it there`() {
        let bytes = record(message(100) + [1, 2, 3])
        for end in 0..<bytes.count { #expect(read(Array(bytes[..<end])) == .incomplete) }
        #expect(read(bytes) == .whole)
    }

    @Test(
        arguments: [
            [0], [21], [23, 3, 3], [0x80, 46, 1], [22, 3, 1, 0, 0], [22, 3, 1, 0x40, 1], [22, 3, 1, 0xFF, 0xFF],
            [22, 3, 1, 0, 9, 2], [22, 3, 1, 0, 9, 0], [22, 3, 1, 0, 1, 1, 23, 3, 1, 0, 1],
            [22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0],
        ] as [[UInt8]])
    func `that can't be one is for libssl to refuse, at once`(bytes: [UInt8]) {
        #expect(read(bytes) == .whole)
    }

    @Test func `is no request`() {
        for text in ["GET / HTTP/1.1\r\n", "P", "get"] { #expect(read(Array(text.utf8)) == .http) }
        #expect(read([]) == .incomplete)
    }

    @Test func `never traps, whatever the bytes, and what is whole stays so`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<20_000 {
            let size = Int.random(in: 1...40, using: &random)
            var bytes: [UInt8] = []
            let hello = message(Int.random(in: 4...60, using: &random))
            for start in stride(from: 0, to: hello.count, by: size) {
                bytes += record(hello[start..<min(start + size, hello.count)])
            }
            bytes = mutate(bytes, &random)
            var last = ClientHello.incomplete
            for end in 0...bytes.count {
                let now = read(Array(bytes[..<end]))
                if last != .incomplete { #expect(now == last, "seed \(seed), round \(round)") }
                last = now
            }
        }
    }
}
