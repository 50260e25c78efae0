import Shared
import Testing

@testable import worker

@Suite struct `A pool of queues` {
    @Test func `lends what it was given, as often as it was given some`() {
        var pool = QueuePool()
        var queue = ByteQueue()
        pool.lend(to: &queue)
        let none = queue.capacity
        #expect(none == 0)
        for bytes in [100, 200, 300] {
            var used = ByteQueue()
            used.reserve(bytes)
            pool.takeBack(&used)
            let left = used.capacity
            #expect(left == 0)
        }
        var lent: [Int] = []
        for _ in 0..<4 {
            var taker = ByteQueue()
            pool.lend(to: &taker)
            lent.append(taker.capacity)
        }
        #expect(lent == [300, 200, 100, 0])
    }

    @Test func `leaves queues that hold bytes, or have memory, as they are`() {
        var pool = QueuePool()
        var full = ByteQueue()
        full.append([1, 2, 3] as [UInt8])
        pool.takeBack(&full)
        let bytes = full.array
        #expect(bytes == [1, 2, 3])
        var spare = ByteQueue()
        spare.reserve(1000)
        pool.takeBack(&spare)
        let before = full.capacity
        pool.lend(to: &full)
        let after = full.capacity
        #expect(before == after)
    }

    @Test func `keeps a bounded number of bounded queues, and hands nobody's bytes on`() {
        var pool = QueuePool()
        for (bytes, isKept) in [(Limits.spareQueueBytesMax, true), (Limits.spareQueueBytesMax + 1, false)] {
            var queue = ByteQueue()
            queue.reserve(bytes)
            pool.takeBack(&queue)
            var lent = ByteQueue()
            pool.lend(to: &lent)
            let capacity = lent.capacity
            #expect(capacity == (isKept ? bytes : 0))
        }
        for _ in 0...Limits.spareQueues {
            var queue = ByteQueue()
            queue.append([UInt8](repeating: 7, count: 100))
            queue.removeFirst(100)
            pool.takeBack(&queue)
        }
        var lent = 0
        while true {
            var queue = ByteQueue()
            pool.lend(to: &queue)
            let (capacity, isEmpty) = (queue.capacity, queue.isEmpty)
            #expect(isEmpty)
            guard capacity > 0 else { break }
            lent += 1
        }
        #expect(lent == Limits.spareQueues)
    }
}
