// Connections that wait for something, in the order in which they came.

/// A first-in, first-out queue that moves its elements rarely.
struct SlotQueue {
    private var elements: [SlotID] = []
    private var head = 0

    var count: Int { elements.count - head }
    var isEmpty: Bool { head == elements.count }

    mutating func append(_ id: SlotID) {
        elements.append(id)
    }

    mutating func popFirst() -> SlotID? {
        guard head < elements.count else { return nil }
        defer { head += 1 }
        let first = elements[head]
        // Half of it has left: the rest moves to the front.
        if head >= 64 && head * 2 >= elements.count {
            elements.removeFirst(head)
            head = 0
        }
        return first
    }
}
