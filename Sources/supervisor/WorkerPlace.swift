// One worker's place: what must outlive the processes that fill it, one after the other.
//
//     down ──launch──▶ starting ──ready──▶ serving ──drain──▶ draining
//      ▲                  │                   │                  │
//      └──────────────── the process ends ◀──────────────────────┘

import CLinux
import Glibc
import Shared

/// The descriptors and memory that a worker's place holds, and the process in it.
final class WorkerPlace {
    let index: Int
    let listener: Int32
    /// Both ends are kept: handoffs wait in the kernel while no process reads them.
    let inboxReceiver: Int32
    let inboxSender: Int32
    let page: WorkerPage

    private(set) var pid: pid_t?
    var control: ControlChannel?
    var isReady = false
    /// The heartbeat at the last look, and at how many looks in a row it has been the same.
    private var heartbeatSeen: UInt64 = 0
    private var silentChecks = 0
    /// CLOCK_MONOTONIC nanoseconds of the last launch.
    private(set) var launchedAt: UInt64 = 0
    var restarts = RestartPolicy()
    /// When the next process is due, CLOCK_MONOTONIC nanoseconds; nil if one runs or none is wanted.
    var restartDue: UInt64?
    /// Keys of the place's rooms. The expiry is 0 while the worker that has the room lives.
    var hostKeys: [[UInt8]: HostKey] = [:]

    struct HostKey {
        var publicKey: [UInt8]
        var expiry: UInt64
    }

    init(index: Int, listener: Int32, page: WorkerPage) throws(SystemError) {
        self.index = index
        self.listener = listener
        self.page = page
        (inboxReceiver, inboxSender) = try MessagePair(bufferBytes: Int32(Limits.inboxBufferBytes)).split()
    }

    /// A process was started in the place.
    func launched(_ pid: pid_t, _ control: consuming ControlChannel, now: UInt64) {
        self.pid = pid
        self.control = consume control
        isReady = false
        (heartbeatSeen, silentChecks) = (0, 0)
        launchedAt = now
        restartDue = nil
    }

    /// Looks at the heartbeat. True when it has not changed for too many looks; that is said once.
    func isSilent() -> Bool {
        let heartbeat = page.heartbeat
        silentChecks = heartbeat == heartbeatSeen ? silentChecks + 1 : 0
        heartbeatSeen = heartbeat
        return silentChecks == (isReady ? Limits.heartbeatSilentChecksMax : Limits.launchSilentChecksMax)
    }

    /// Sends the process a message; one that can't be reached is about to be seen dead.
    func send(_ message: ControlMessage) -> Bool {
        do throws(SystemError) {
            return try control?.send(message) ?? false
        } catch {
            return false
        }
    }

    /// The process is gone: its rooms' keys begin to run out.
    func ended(now: UInt64) {
        pid = nil
        control = nil
        isReady = false
        page.state = .down
        page.zeroGauges()
        for room in hostKeys.keys where hostKeys[room]?.expiry == 0 {
            hostKeys[room]?.expiry = now + Limits.hostKeySurvivalNanoseconds
        }
        hostKeys = hostKeys.filter { $0.value.expiry > now }
    }
}
