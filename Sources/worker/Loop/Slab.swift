// Values at addresses that do not move, named by a slot number. A slot is used again after its value is removed; the slot's
// generation changes each time, so a `SlotID` that outlived its value is recognised.
//
// Invariant: a slot is occupied exactly when its generation is odd.

/// A slot and the generation that its value was put in with.
struct SlotID: Equatable {
    var slot: UInt32
    var generation: UInt32

    init(slot: UInt32, generation: UInt32) {
        self.slot = slot
        self.generation = generation
    }

    /// As one word, for epoll's user data.
    init(word: UInt64) {
        slot = UInt32(truncatingIfNeeded: word)
        generation = UInt32(truncatingIfNeeded: word >> 32)
    }

    var word: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
}

/// A table of noncopyable values that grows in chunks and never moves them.
@safe
struct Slab<Element: ~Copyable>: ~Copyable {
    private static var chunkCount: Int { 128 }

    private var chunks: [UnsafeMutablePointer<Element>] = unsafe []
    private var generations: [UInt32] = []
    private var free: [UInt32] = []
    /// How many slots are occupied.
    private(set) var count = 0

    init() {}

    deinit {
        for slot in generations.indices where !generations[slot].isMultiple(of: 2) {
            unsafe address(slot).deinitialize(count: 1)
        }
        for index in unsafe chunks.indices { unsafe chunks[index].deallocate() }
    }

    /// Slots that exist, occupied or not: the range to walk when every value is wanted.
    var slots: Range<UInt32> { 0..<UInt32(generations.count) }

    private func address(_ slot: Int) -> UnsafeMutablePointer<Element> {
        unsafe chunks[slot / Self.chunkCount] + slot % Self.chunkCount
    }

    func isOccupied(_ slot: UInt32) -> Bool {
        !generations[Int(slot)].isMultiple(of: 2)
    }

    /// Whether the value that `id` named is still there.
    func contains(_ id: SlotID) -> Bool {
        id.slot < generations.count && generations[Int(id.slot)] == id.generation && isOccupied(id.slot)
    }

    func id(_ slot: UInt32) -> SlotID {
        SlotID(slot: slot, generation: generations[Int(slot)])
    }

    mutating func insert(_ value: consuming Element) -> SlotID {
        if free.isEmpty {
            let first = UInt32(generations.count)
            unsafe chunks.append(.allocate(capacity: Self.chunkCount))
            generations.append(contentsOf: repeatElement(0, count: Self.chunkCount))
            free.append(contentsOf: (first..<(first + UInt32(Self.chunkCount))).reversed())
        }
        let slot = free.removeLast()
        unsafe address(Int(slot)).initialize(to: value)
        generations[Int(slot)] &+= 1
        count += 1
        return id(slot)
    }

    mutating func remove(_ slot: UInt32) -> Element {
        precondition(isOccupied(slot), "nothing stands in this slot")
        generations[Int(slot)] &+= 1
        free.append(slot)
        count -= 1
        return unsafe address(Int(slot)).move()
    }

    subscript(slot: UInt32) -> Element {
        _read {
            precondition(isOccupied(slot), "nothing stands in this slot")
            yield unsafe address(Int(slot)).pointee
        }
        _modify {
            precondition(isOccupied(slot), "nothing stands in this slot")
            yield unsafe &address(Int(slot)).pointee
        }
    }
}
