// An epoll instance of the admin server's own: the supervisor waits for its one descriptor, whatever number of connections
// there are behind it.

import CLinux
import Glibc
import Shared

/// What happened to a connection or listener.
struct AdminEvent {
    /// What it was added under.
    var id: UInt64
    var isReadable: Bool
    var isWritable: Bool
    /// Reset, or both sides have ended.
    var isBroken: Bool
}

struct AdminPoller: ~Copyable {
    private let epoll: Descriptor

    /// The corresponding C function is epoll_create1(2).
    init() throws(SystemError) {
        let number = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard number >= 0 else { throw SystemError("epoll_create1") }
        epoll = Descriptor(owning: number)
    }

    /// Readable while there are events.
    var number: Int32 { epoll.number }

    /// False for want of memory. The corresponding C function is epoll_ctl(2).
    func add(_ descriptor: Int32, _ id: UInt64) -> Bool {
        control(EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue, id)
    }

    func watch(_ descriptor: Int32, reads: Bool, writes: Bool, _ id: UInt64) {
        let interest = (reads ? EPOLLIN.rawValue : 0) | (writes ? EPOLLOUT.rawValue : 0)
        let changed = control(EPOLL_CTL_MOD, descriptor, interest, id)
        precondition(changed, "a watched descriptor can be watched for something else")
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ interest: UInt32, _ id: UInt64) -> Bool {
        var event = unsafe epoll_event()
        unsafe event.events = interest
        unsafe event.data.u64 = id
        return unsafe epoll_ctl(epoll.number, operation, descriptor, &event) == 0
    }

    /// Events that there are, without waiting; at most Limits.adminEventsPerTurnMax.
    func events() -> [AdminEvent] {
        var events = unsafe [epoll_event](repeating: epoll_event(), count: Limits.adminEventsPerTurnMax)
        let count = unsafe epoll_wait(epoll.number, &events, Int32(events.count), 0)
        guard count > 0 else { return [] }
        let failed = EPOLLERR.rawValue | EPOLLHUP.rawValue
        return unsafe events.prefix(Int(count)).map { event in
            unsafe AdminEvent(
                id: event.data.u64, isReadable: event.events & (EPOLLIN.rawValue | failed) != 0,
                isWritable: event.events & (EPOLLOUT.rawValue | failed) != 0, isBroken: event.events & failed != 0)
        }
    }
}
