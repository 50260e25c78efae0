// epoll, level-triggered. The user data of an event is a connection's SlotID, so that an event for a connection that has
// gone is recognised, or one of the fixed sources.

import CLinux
import Glibc
import Shared

/// What an event is about.
enum EventSource {
    /// One of the worker's, by its place among them.
    case listener(Int)
    case inbox
    case control
    /// Connections that are in no room, and listeners: an epoll instance of their own.
    case strangers
    case connection(SlotID)

    /// Slot numbers at the top are not connections': the slab never grows that far.
    private static let firstFixed = UInt32.max - 15

    init(word: UInt64) {
        switch UInt32(truncatingIfNeeded: word) {
        case Self.firstFixed: self = .listener(Int(SlotID(word: word).generation))
        case Self.firstFixed + 1: self = .inbox
        case Self.firstFixed + 2: self = .control
        case Self.firstFixed + 3: self = .strangers
        default: self = .connection(SlotID(word: word))
        }
    }

    var word: UInt64 {
        switch self {
        case .listener(let place): SlotID(slot: Self.firstFixed, generation: UInt32(place)).word
        case .inbox: UInt64(Self.firstFixed + 1)
        case .control: UInt64(Self.firstFixed + 2)
        case .strangers: UInt64(Self.firstFixed + 3)
        case .connection(let id): id.word
        }
    }
}

/// What a descriptor is watched for.
struct Interest: OptionSet {
    let rawValue: UInt32
    static let read = Interest(rawValue: EPOLLIN.rawValue)
    static let write = Interest(rawValue: EPOLLOUT.rawValue)
}

/// One event.
struct Event {
    var source: EventSource
    var isReadable: Bool
    var isWritable: Bool
    /// The connection is reset, or both sides have ended: said whether it is watched for anything or not.
    var isBroken: Bool
}

/// An epoll instance, and the events of its last wait that have not been taken.
///
/// A turn that has no time for all events of a wait takes the rest in the next one, before it waits again: epoll puts
/// what it has returned at the end of its list, so every ready connection has its turn, but only if what epoll returned
/// is served.
@safe
struct Poller: ~Copyable {
    private let epoll: Descriptor
    private let events: UnsafeMutableBufferPointer<epoll_event>
    /// Events of the last wait, and how many of them have been taken.
    private(set) var ready = 0
    private var taken = 0

    /// The corresponding C function is epoll_create1(2).
    init(eventsMax: Int) throws(SystemError) {
        let number = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard number >= 0 else { throw SystemError("epoll_create1") }
        epoll = Descriptor(owning: number)
        unsafe events = .allocate(capacity: eventsMax)
        unsafe events.initialize(repeating: epoll_event())
    }

    deinit {
        unsafe events.deallocate()
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: Interest, _ word: UInt64) -> Int32 {
        var event = unsafe epoll_event()
        unsafe event.events = interest.rawValue
        unsafe event.data.u64 = word
        return unsafe epoll_ctl(epoll.number, operation, descriptor, &event)
    }

    /// The corresponding C function is epoll_ctl(2) with EPOLL_CTL_ADD.
    func add(_ descriptor: Int32, _ interest: Interest, _ source: EventSource) throws(SystemError) {
        // The one failure that operation brings: ENOSPC and ENOMEM.
        guard control(EPOLL_CTL_ADD, descriptor, interest, source.word) == 0 else { throw SystemError("epoll_ctl") }
    }

    /// EPOLL_CTL_MOD.
    func change(_ descriptor: Int32, to interest: Interest, _ source: EventSource) {
        let result = control(EPOLL_CTL_MOD, descriptor, interest, source.word)
        precondition(result == 0, "a watched descriptor can be watched for something else")
    }

    /// EPOLL_CTL_DEL: needed before a descriptor is given away, because what is open elsewhere keeps firing.
    func remove(_ descriptor: Int32) {
        let result = control(EPOLL_CTL_DEL, descriptor, [], 0)
        precondition(result == 0, "only what is watched is removed")
    }

    /// For another epoll instance.
    var number: Int32 { epoll.number }

    /// Whether events of the last wait are left.
    var hasEvents: Bool { taken < ready }

    /// Whether the last wait brought as many as it can, so that there may be more.
    var isFull: Bool { unsafe ready == events.count }

    /// Waits for events, at most `milliseconds`; does nothing while some are left. The corresponding C function is
    /// epoll_wait(2).
    mutating func wait(milliseconds: Int32) {
        guard !hasEvents else { return }
        let count = unsafe epoll_wait(epoll.number, events.baseAddress, Int32(events.count), milliseconds)
        precondition(count >= 0 || errno == EINTR, "epoll_wait fails for no other reason")
        (ready, taken) = (max(0, Int(count)), 0)
    }

    /// Takes the next event of the last wait; nil if none is left.
    mutating func next() -> Event? {
        guard taken < ready else { return nil }
        let event = unsafe events[taken]
        taken += 1
        // Errors and hang-ups show themselves to the read or write that follows.
        let failed = EPOLLERR.rawValue | EPOLLHUP.rawValue
        return unsafe Event(
            source: EventSource(word: unsafe event.data.u64),
            isReadable: event.events & (EPOLLIN.rawValue | failed) != 0,
            isWritable: event.events & (EPOLLOUT.rawValue | failed) != 0,
            isBroken: event.events & failed != 0)
    }
}
