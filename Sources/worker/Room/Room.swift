// A room: the host key that guests' tokens are verified against, and who is in it. It lives in exactly one worker, so
// nothing here is ever locked.

import Shared

/// An open room. It has at least one member, or is about to be removed.
struct Room: ~Copyable, Timed {
    let id: [UInt8]
    let hostKey: [UInt8]
    /// The share that the memory of its members is charged to (Connection/MemoryShares), and whose that is.
    let share: UInt32
    let source: UInt64
    /// Slots of the connections in it, in no order.
    private(set) var members: [UInt32] = []
    /// What has been said and not been sent yet.
    var batch: UInt32?
    /// How often of late members were sent what was said.
    var pace = SendPace()
    /// Whether it is on its way from or to another worker: nothing is read or written until all of it has gone or come.
    var isFrozen = false
    /// Second of the last message, join or leave.
    var activeAt: UInt32
    /// Where it is counted: at the address whose host opened it (RELAY_MAX_ROOMS_PER_IP).
    var addressCharge = AddressCharge.none
    var timer = TimerLinks()

    static let none = UInt32.max

    init(id: [UInt8], hostKey: [UInt8], share: UInt32, source: UInt64, now: UInt32) {
        self.id = id
        self.hostKey = hostKey
        self.share = share
        self.source = source
        activeAt = now
    }

    /// Adds a member and says at which place.
    mutating func add(_ member: UInt32) -> UInt32 {
        members.append(member)
        return UInt32(members.count - 1)
    }

    /// Takes all members out, in their order.
    mutating func removeAll() -> [UInt32] {
        defer { members.removeAll() }
        return members
    }

    /// Removes the member at a place. The last member takes the place: it is returned, if there is one.
    mutating func remove(at place: UInt32) -> UInt32? {
        let last = members.removeLast()
        guard place < members.count else { return nil }
        members[Int(place)] = last
        return last
    }
}

/// A room's id as a key: opaque bytes, compared as such.
struct RoomID: Hashable {
    let bytes: [UInt8]

    /// All bytes at once: what an array does byte by byte costs several times as much.
    func hash(into hasher: inout Hasher) {
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }
}
