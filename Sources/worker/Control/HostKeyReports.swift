// What the supervisor does not know yet of this worker's host keys: it keeps them for the case that the worker crashes
// (ARCHITECTURE.md, Crashes). In a storm of joins each message would wake it, which costs more than the message says; so changes
// wait a little, and leave in as few messages as hold them.
//
//     unknown ──held──▶ to be told ──taken──▶ known ──dropped──▶ to be taken back ──taken──▶ unknown
//        ▲                  │                                            │
//        └─────dropped──────┘                 held: to be told at once, in the place of what is known
//
// There is one change a room at most, and none for a room that has come and gone in between. So however long the channel is full,
// nothing is lost, and no more waits than there are rooms here and keys there.

import Shared

struct HostKeyReports {
    private enum Change {
        /// The key holds from now on.
        case held(ControlMessage.HostKey, replaces: Bool)
        case dropped
    }

    private var changes: [RoomID: Change] = [:]
    /// When they are to be told, CLOCK_MONOTONIC nanoseconds: when the oldest has waited long enough. `max` if there are none.
    private(set) var due = UInt64.max

    var count: Int { changes.count }
    var isEmpty: Bool { changes.isEmpty }
    /// Whether there is no reason to wait for more.
    var fillsMessage: Bool { changes.count >= Limits.hostKeysPerMessageMax }

    /// A room's key holds.
    ///
    /// - Parameter isKnown: whether the supervisor has, or is about to be told, a key of this room that outlived its worker.
    /// - Returns: whether the supervisor may have another host's key of this room: it must not keep that for a moment longer, or a
    ///   crash would lock this host out.
    mutating func hold(_ key: ControlMessage.HostKey, isKnown: Bool, now: UInt64) -> Bool {
        let room = RoomID(bytes: key.room)
        let (replaces, isUrgent) =
            switch changes[room] {
            case .held(_, let replaces): (replaces, false)
            case .dropped: (true, true)
            case nil: (isKnown, false)
            }
        change(room, .held(key, replaces: replaces), now)
        return isUrgent
    }

    /// A room's key holds no more.
    mutating func drop(_ room: RoomID, now: UInt64) {
        if case .held(_, replaces: false) = changes[room] {
            changes[room] = nil
            if changes.isEmpty { due = .max }
        } else {
            change(room, .dropped, now)
        }
    }

    private mutating func change(_ room: RoomID, _ change: Change, _ now: UInt64) {
        changes[room] = change
        due = min(due, now + Limits.hostKeyReportNanoseconds)
    }

    /// Takes out as much as one message holds, in no order, because each is about another room.
    mutating func takeMessage() -> ControlMessage {
        var taken: [ControlMessage.HostKey] = []
        for (room, change) in changes {
            guard taken.count < Limits.hostKeysPerMessageMax else { break }
            switch change {
            case .held(let key, _): taken.append(key)
            case .dropped: taken.append(.over(room: room.bytes))
            }
        }
        if taken.count == changes.count {
            // What a channel that was full for long has left is not kept.
            changes.removeAll(keepingCapacity: changes.capacity <= 2 * Limits.hostKeysPerMessageMax)
            due = .max
        } else {
            for key in taken { changes[RoomID(bytes: key.room)] = nil }
        }
        return .hostKeys(taken)
    }
}

extension Worker {
    /// A host key is to outlive this worker. The supervisor is told within `Limits.hostKeyReportNanoseconds`.
    ///
    /// - Parameter isKnown: whether it has, or is about to be told, a key of this room that outlived its worker.
    mutating func reportHostKey(_ room: [UInt8], _ publicKey: [UInt8], expiry: UInt64 = 0, isKnown: Bool) {
        guard !isSupervisorGone else { return }
        let key = ControlMessage.HostKey(room: room, publicKey: publicKey, expiry: expiry)
        if hostKeyReports.hold(key, isKnown: isKnown, now: now) {
            tellHostKeys()
        } else if hostKeyReports.fillsMessage {
            tellSomeHostKeys()
        }
    }

    /// A host key is of no use any more.
    mutating func reportHostKeyGone(_ room: [UInt8]) {
        guard !isSupervisorGone else { return }
        hostKeyReports.drop(RoomID(bytes: room), now: now)
        if hostKeyReports.fillsMessage { tellSomeHostKeys() }
    }

    /// Tells a message's worth when it is time. What is left, behind a channel that was full for long, makes the next turn.
    mutating func tellDueHostKeys() {
        if now >= hostKeyReports.due { tellSomeHostKeys() }
    }

    /// Tells all that is to be told, as far as the channel takes it.
    mutating func tellHostKeys() {
        while !hostKeyReports.isEmpty && !control.isBlocked && !isSupervisorGone { tellSomeHostKeys() }
    }

    private mutating func tellSomeHostKeys() {
        // In a full channel one message may wait, and the changes behind it here, where there is one a room.
        guard !control.isBlocked else { return }
        tell(hostKeyReports.takeMessage())
    }

    /// Milliseconds until the supervisor is to be told something, rounded up; a channel that is full makes an event when it is not.
    var hostKeyPatience: Int32 {
        guard !hostKeyReports.isEmpty, !control.isBlocked else { return .max }
        let left = hostKeyReports.due - min(hostKeyReports.due, now)
        return Int32((left + 999_999) / 1_000_000)
    }
}
