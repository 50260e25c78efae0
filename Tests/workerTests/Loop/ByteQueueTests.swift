import Shared
import Testing

@testable import worker

@Suite struct `Byte queues` {
    /// What a queue must hold, as plainly as can be said.
    private static func unmasked(_ bytes: ArraySlice<UInt8>, _ key: [UInt8], rotation: Int) -> [UInt8] {
        bytes.enumerated().map { $1 ^ key[($0 + rotation) % 4] }
    }

    /// The key with its byte `rotation` lowest.
    private static func word(_ key: [UInt8], rotation: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(key[($1 + rotation) % 4]) << UInt32(8 * $1) }
    }

    @Test func `own no memory until something is put in`() {
        var queue = ByteQueue()
        let (capacity, count, isEmpty, bytes) = (queue.capacity, queue.count, queue.isEmpty, queue.array)
        #expect(capacity == 0)
        #expect(count == 0)
        #expect(isEmpty)
        #expect(bytes == [])
        queue.append([])
        queue.append([UInt8]().span.bytes)
        queue.append(unmasking: [UInt8]().span.bytes, key: 1)
        queue.removeFirst(0)
        queue.remove(0, behind: 0)
        queue.truncate(to: 0)
        queue.removeAll()
        queue.release()
        queue.releaseIfIdle(above: 0)
        let after = queue.capacity
        #expect(after == 0)
    }

    @Test func `unmask every length from every place with every rotation of the key`() {
        let source = (0..<64).map { UInt8($0 * 37 & 0xFF) }
        let key: [UInt8] = [0x01, 0xA2, 0x7F, 0xF0]
        for length in 0...40 {
            for rotation in 0..<4 {
                // Neither the bytes nor the room for them are aligned.
                for place in 0..<8 {
                    var queue = ByteQueue()
                    queue.append([UInt8](repeating: 9, count: place))
                    let range = place..<(place + length)
                    queue.append(
                        unmasking: source.span.bytes.extracting(range), key: Self.word(key, rotation: rotation))
                    let bytes = queue.array
                    let expected =
                        [UInt8](repeating: 9, count: place)
                        + Self.unmasked(source[range], key, rotation: rotation)
                    #expect(bytes == expected, "length \(length), rotation \(rotation), place \(place)")
                }
            }
        }
    }

    @Test func `leave bytes as they are under the key 0`() {
        let source = [UInt8](0...255)
        var queue = ByteQueue()
        queue.append(unmasking: source.span.bytes, key: 0)
        let bytes = queue.array
        #expect(bytes == source)
    }

    @Test func `take bytes away behind a prefix and keep the rest in order`() {
        let source = [UInt8](0..<20)
        for prefix in 0...20 {
            for count in 0...(20 - prefix) {
                var queue = ByteQueue()
                // The head is not at the front of the memory.
                queue.append([0xEE, 0xEE, 0xEE])
                queue.append(source)
                queue.removeFirst(3)
                queue.remove(count, behind: prefix)
                let bytes = queue.array
                #expect(bytes == Array(source[..<prefix] + source[(prefix + count)...]), "\(count) behind \(prefix)")
            }
        }
    }

    @Test func `do as an array does, whatever is done to them`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var queue = ByteQueue()
        var model: [UInt8] = []
        for round in 0..<8000 {
            let some = (0..<Int.random(in: 0...90, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
            }
            let few = Int.random(in: 0...model.count, using: &random)
            switch Int.random(in: 0..<24, using: &random) {
            case 0...3:
                queue.append(some)
                model += some
            case 4...5:
                queue.append(some.span.bytes)
                model += some
            case 6:
                queue.append(7)
                model.append(7)
            case 7...10:
                let key = UInt32.random(in: 0...UInt32.max, using: &random)
                queue.append(unmasking: some.span.bytes, key: key)
                model += some.enumerated().map { $1 ^ UInt8(key >> (8 * ($0 % 4)) & 0xFF) }
            case 11...15:
                queue.removeFirst(few)
                model.removeFirst(few)
            case 16...18:
                let prefix = Int.random(in: 0...(model.count - few), using: &random)
                queue.remove(few, behind: prefix)
                model.removeSubrange(prefix..<(prefix + few))
            case 19...20:
                queue.truncate(to: few)
                model.removeLast(model.count - few)
            case 21:
                let room = some.count
                queue.reserve(room)
                let before = queue.capacity
                queue.append([UInt8](repeating: 1, count: room))
                let after = queue.capacity
                #expect(before == after, "seed \(seed), round \(round): what is reserved is there")
                model += [UInt8](repeating: 1, count: room)
            case 22:
                let before = queue.capacity
                queue.removeAll()
                let after = queue.capacity
                #expect(before == after, "seed \(seed), round \(round)")
                model = []
            default:
                if model.isEmpty {
                    queue.releaseIfIdle(above: 0)
                } else {
                    let before = queue.capacity
                    queue.releaseIfIdle(above: 0)
                    let after = queue.capacity
                    #expect(before == after, "seed \(seed), round \(round): what holds bytes is not released")
                }
            }
            let (bytes, count, isEmpty, capacity) = (queue.array, queue.count, queue.isEmpty, queue.capacity)
            guard bytes == model, count == model.count, isEmpty == model.isEmpty, capacity >= count else {
                Issue.record("seed \(seed), round \(round): \(bytes) instead of \(model)")
                return
            }
            if let index = model.indices.randomElement(using: &random) {
                let byte = queue[index]
                #expect(byte == model[index], "seed \(seed), round \(round)")
            }
        }
    }

    @Test func `double while they are small and grow by a quarter when they are large`() {
        var queue = ByteQueue()
        var capacities: [Int] = []
        for index in 0..<200_000 {
            let (before, growth) = (queue.capacity, queue.growth(for: 1))
            queue.append(UInt8(index & 0xFF))
            let capacity = queue.capacity
            #expect(capacity == before + growth)
            if capacity != before { capacities.append(capacity) }
        }
        let bytes = queue.array
        #expect(bytes == (0..<200_000).map { UInt8($0 & 0xFF) })
        #expect(capacities.first == 64)
        for (before, after) in zip(capacities, capacities.dropFirst()) {
            #expect(after == (before < Limits.queueDoublesBytesMax ? 2 * before : before + before / 4))
        }
    }

    @Test func `don't grow when as much is taken as is put in`() {
        var queue = ByteQueue()
        queue.append([UInt8](repeating: 1, count: 50))
        for _ in 0..<10_000 {
            queue.append([UInt8](repeating: 2, count: 10))
            queue.removeFirst(10)
        }
        let (count, capacity) = (queue.count, queue.capacity)
        #expect(count == 50)
        #expect(capacity <= 240)
    }

    @Test func `give their memory back when told to, and only above the size told`() {
        var queue = ByteQueue()
        queue.append([UInt8](repeating: 1, count: 100))
        queue.removeFirst(100)
        let full = queue.capacity
        queue.releaseIfIdle(above: full)
        let kept = queue.capacity
        #expect(kept == full)
        queue.releaseIfIdle(above: full - 1)
        let idle = queue.capacity
        #expect(idle == 0)
        queue.append([1, 2])
        queue.release()
        let (count, capacity) = (queue.count, queue.capacity)
        #expect(count == 0)
        #expect(capacity == 0)
        queue.append([3])
        let bytes = queue.array
        #expect(bytes == [3])
    }
}
