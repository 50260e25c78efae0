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
    /// What was said before it, and has been sent to some of the members.
    var flush: PartFlush?
    /// While `flush` goes on the next batch has become full: members are not read.
    var isFull = false
    /// The turn in which it was this room's turn to move, CLOCK_MONOTONIC nanoseconds: since then members are not read.
    var quietSince: UInt64?
    /// Whether joins wait until the next batch is begun (FlushingInPieces.swift).
    var isAwaited = false
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
        precondition(flush == nil, "what was said is sent to all members first")
        defer { members.removeAll() }
        return members
    }

    /// Removes the member at a place, and fills the place with the last member. During a flush the list has parts: those
    /// that were sent the batch, those that are still to be sent it, those that joined later. The place is filled with
    /// the last member of its part, that member's place with the last of the next part, and so on, so that no member
    /// changes its part.
    ///
    /// - Returns: up to three places that have another member now; the rest is `Room.none`.
    mutating func remove(at place: UInt32) -> [3 of UInt32] {
        var changed = [3 of UInt32](repeating: Room.none)
        var hole = Int(place)
        if var part = flush {
            if hole < part.next {
                part.next -= 1
                fill(&hole, from: part.next, &changed[0])
            }
            if hole < part.end {
                part.end -= 1
                fill(&hole, from: part.end, &changed[1])
            }
            flush = part
        }
        fill(&hole, from: members.count - 1, &changed[2])
        members.removeLast()
        return changed
    }

    private mutating func fill(_ hole: inout Int, from last: Int, _ changed: inout UInt32) {
        guard hole != last else { return }
        members[hole] = members[last]
        changed = UInt32(hole)
        hole = last
    }
}

/// How far a batch has been sent to a room's members.
struct PartFlush {
    let batch: UInt32
    /// Places of members. Those before `next` have been sent it; those from `end` on have come later, and it is not for
    /// them.
    var next = 0
    var end: Int
}

/// A room's id as a key: opaque bytes, compared as such.
struct RoomID: Hashable {
    let bytes: [UInt8]

    /// All bytes at once: what an array does byte by byte costs several times as much.
    func hash(into hasher: inout Hasher) {
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }
}
