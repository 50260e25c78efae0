// What is due within less than a second, to the millisecond: connections that are not read for a while. The timer wheel
// has seconds.

/// A binary heap of times and connections.
struct Alarms {
    private var heap: [(due: UInt64, id: SlotID)] = []

    var count: Int { heap.count }
    /// When the next is due, CLOCK_MONOTONIC nanoseconds; `max` if none is.
    var due: UInt64 { heap.first?.due ?? .max }

    mutating func add(_ id: SlotID, due: UInt64) {
        heap.append((due, id))
        var child = heap.count - 1
        while child > 0, heap[child].due < heap[(child - 1) / 2].due {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    /// Takes the next that is due by `now`; nil if none is.
    mutating func next(upTo now: UInt64) -> SlotID? {
        guard let first = heap.first, first.due <= now else { return nil }
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while 2 * parent + 1 < heap.count {
            var child = 2 * parent + 1
            if child + 1 < heap.count, heap[child + 1].due < heap[child].due { child += 1 }
            guard heap[child].due < heap[parent].due else { break }
            heap.swapAt(child, parent)
            parent = child
        }
        return first.id
    }
}
