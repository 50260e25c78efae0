// What is to be done later: a binary heap by time.

struct SoakTimers {
    enum Kind {
        /// A speaker's next voice frame.
        case voice
        /// A member's next data message, or whatever else it does.
        case act
        /// What a member was writing goes on.
        case write
        /// A paused member reads again.
        case read
        /// Somebody joins where a place is free.
        case join(room: Int, place: Int)
        /// Somebody leaves, or a room ends.
        case churn
        /// Somebody stops reading for a while.
        case pause
        /// Once a second: what takes too long, and whether the machine keeps up.
        case look
    }

    struct Entry {
        let due: UInt64
        let kind: Kind
        /// The connection that it is for; 0 for those that are for none.
        let member: UInt32
    }

    private var heap: [Entry] = []

    var nextDue: UInt64 { heap.first?.due ?? .max }

    mutating func add(_ kind: Kind, at due: UInt64, member: UInt32 = 0) {
        heap.append(Entry(due: due, kind: kind, member: member))
        var index = heap.count - 1
        while index > 0, heap[index].due < heap[(index - 1) / 2].due {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    /// Takes the earliest one, if it is due.
    mutating func take(now: UInt64) -> Entry? {
        guard let first = heap.first, first.due <= now else { return nil }
        let last = heap.removeLast()
        if heap.isEmpty { return first }
        heap[0] = last
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < heap.count && heap[child].due < heap[least].due {
                least = child
            }
            if least == index { return first }
            heap.swapAt(index, least)
            index = least
        }
    }
}
