// Memory of queues that are in use for moments: a message that two reads cut, output that a full socket refuses. It goes round between the
// connections that need it, so that the steady state of a busy worker allocates nothing; an idle connection still owns none.

import Shared

/// A few empty queues that have memory.
struct QueuePool: ~Copyable {
    private var spare = InlineArray<16, ByteQueue> { _ in ByteQueue() }
    private var count = 0
    /// Memory of all of them.
    private(set) var bytes = 0

    init() {
        precondition(spare.count == Limits.spareQueues, "the pool's size is the limit's")
    }

    /// Gives memory to a queue that has none, if there is any to give.
    mutating func lend(to queue: inout ByteQueue) {
        guard queue.capacity == 0, count > 0 else { return }
        count -= 1
        bytes -= spare[count].capacity
        swap(&spare[count], &queue)
    }

    /// Takes back the memory of a queue that is empty; what is too much, or too large, is freed.
    mutating func takeBack(_ queue: inout ByteQueue) {
        guard queue.isEmpty, queue.capacity > 0 else { return }
        guard count < spare.count, queue.capacity <= Limits.spareQueueBytesMax else {
            queue.release()
            return
        }
        queue.removeAll()
        bytes += queue.capacity
        swap(&spare[count], &queue)
        count += 1
    }

    /// Frees all of it.
    mutating func release() {
        for index in 0..<count { spare[index].release() }
        (count, bytes) = (0, 0)
    }
}
