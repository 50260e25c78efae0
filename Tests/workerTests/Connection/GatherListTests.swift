import Glibc
import Shared
import Testing

@testable import worker

@Suite struct `Gather lists` {
    /// Fills a socket's buffer.
    private func fill(_ pair: borrowing StreamPair) {
        let block = [UInt8](repeating: 0, count: 65_536)
        while send(pair.near.number, block, block.count, Int32(MSG_NOSIGNAL)) > 0 {}
    }

    @Test(arguments: [1, 2, 63, 64])
    func `send their pieces in order in one call`(count: Int) throws {
        let pair = try StreamPair()
        var list = GatherList()
        let bytes = (0..<300).map { UInt8($0 & 0xFF) }
        let sent = bytes.withUnsafeBytes { bytes in
            // Back to front, so that the order is the list's and not the memory's.
            for index in 0..<count { list.append(bytes, (255 - index * 3)..<(258 - index * 3)) }
            return list.send(to: pair.near.number)
        }
        let (total, isFull, taken) = (list.bytes, list.isFull, list.count)
        #expect(sent == .bytes(3 * count))
        #expect(total == 3 * count)
        #expect(taken == count)
        #expect(isFull == (count == 64))
        let received = pair.receive()
        let pieces: [ArraySlice<UInt8>] = (0..<count).map { bytes[(255 - $0 * 3)..<(258 - $0 * 3)] }
        #expect(received == Array(pieces.joined()))
    }

    @Test func `take no place for an empty piece`() {
        var list = GatherList()
        [UInt8](repeating: 1, count: 4).withUnsafeBytes { bytes in
            list.append(bytes, 0..<0)
            list.append(bytes, 4..<4)
        }
        list.append(UnsafeRawBufferPointer(start: nil, count: 0), 0..<0)
        let (count, bytes) = (list.count, list.bytes)
        #expect(count == 0)
        #expect(bytes == 0)
    }

    @Test func `are empty again when everything is removed`() throws {
        let pair = try StreamPair()
        var list = GatherList()
        let sent = [7, 8, 9].withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            for _ in 0..<GatherList.capacity { list.append(bytes, 0..<bytes.count) }
            list.removeAll()
            list.append(bytes, 0..<1)
            return list.send(to: pair.near.number)
        }
        #expect(sent == .bytes(1))
    }

    @Test(arguments: [1, 3]) func `tell that the socket takes no more`(count: Int) throws {
        let pair = try StreamPair()
        fill(pair)
        var list = GatherList()
        let sent = [1, 2, 3].withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            for _ in 0..<count { list.append(bytes, 0..<bytes.count) }
            return list.send(to: pair.near.number)
        }
        #expect(sent == .wouldBlock)
    }

    @Test func `tell how much the socket took of what is more than it takes`() throws {
        let pair = try StreamPair()
        var list = GatherList()
        let bytes = [UInt8](repeating: 5, count: 4 << 20)
        let sent = bytes.withUnsafeBytes { bytes in
            list.append(bytes, 0..<10)
            list.append(bytes, 10..<bytes.count)
            return list.send(to: pair.near.number)
        }
        guard case .bytes(let count) = sent else {
            Issue.record("\(sent)")
            return
        }
        #expect(count > 0 && count < bytes.count)
        let received = pair.receive()
        #expect(received.count == count)
    }

    @Test(arguments: [1, 3]) func `tell that nobody reads any more, and raise no signal`(count: Int) throws {
        let (near, far) = try StreamPair().split()
        _ = close(far)
        defer { _ = close(near) }
        var list = GatherList()
        let sent = [1, 2, 3].withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            for _ in 0..<count { list.append(bytes, 0..<bytes.count) }
            return list.send(to: near)
        }
        #expect(sent == .failed(EPIPE))
    }
}
