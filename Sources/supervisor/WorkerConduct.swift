// What the supervisor puts up with from one worker's process. A worker reads clients' bytes, so it is where an attack
// lands: what it says is looked at so often and no more, what it should not say is counted and not heeded, and a
// process that goes on is killed.

import Shared

/// Why something that a worker said was not heeded. The names are those of `relay_worker_faults_total`.
enum WorkerFault: String, CaseIterable {
    /// Not a message of this version.
    case malformed
    /// A message that is not this worker's to send, or not now.
    case misplaced
    /// A host key beyond what its rooms can need.
    case hostKeys = "host_keys"
    /// A system call that its sandbox does not allow: it has ended with it.
    case systemCall = "system_call"
}

/// Counts one process's messages and faults.
struct WorkerConduct: Equatable {
    private static let interval = 1_000_000_000 / Limits.controlMessagesPerSecond

    private(set) var faults = 0
    /// When the process may send as much as ever again: GCRA's theoretical arrival time.
    private var fullAt: UInt64 = 0

    /// A message was taken.
    mutating func tookMessage(now: UInt64) {
        fullAt = max(fullAt, now) &+ Self.interval
    }

    /// When the process is listened to again, CLOCK_MONOTONIC nanoseconds; nil: now. What it sends meanwhile waits in
    /// the channel.
    func pausedUntil(now: UInt64) -> UInt64? {
        let debt = Self.interval * UInt64(Limits.controlMessagesBurst)
        guard fullAt > now &+ debt else { return nil }
        return fullAt - debt
    }

    /// Something was not heeded.
    ///
    /// - Returns: whether that was once too often: the process is to be killed. True once.
    mutating func add(_: WorkerFault) -> Bool {
        faults &+= 1
        return faults == Limits.controlFaultsMax
    }
}

/// What came of a message.
enum Heeded: Equatable {
    case nothing
    /// The process serves from now on.
    case ready
    case fault(WorkerFault)
}

extension WorkerPlace {
    /// Does what a message of this place's process asks for, if it is this process's to send, and now. Each word is
    /// heeded once.
    ///
    /// - Parameters:
    ///   - change: the change of generations under way.
    ///   - keysMax: host keys that the place may have.
    func heed(_ message: ControlMessage, in change: inout Change?, keysMax: Int, now: UInt64) -> Heeded {
        switch message {
        case .ready(let parts):
            return becomeReady(parts) ? .ready : .fault(.misplaced)
        case .hostKeys(let keys):
            return take(keys, max: keysMax, now: now) ? .nothing : .fault(.hostKeys)
        case .failed(let reason):
            // Logged with the end of the process, which follows.
            return fail(reason) ? .nothing : .fault(.misplaced)
        case .routed:
            return routed() ? .nothing : .fault(.misplaced)
        case .moved(let moved):
            // From a draining worker that has received `lastCall`.
            guard change?.stage == .moving, !hasMoved, change?.leavers.contains(where: { $0 === self }) == true else {
                return .fault(.misplaced)
            }
            hasMoved = true
            change?.add(moved)
            return .nothing
        case .launch, .inboxes, .start, .drain, .checkCredentials, .credentials, .makeCertificate, .certificate,
            .listeners, .serve, .route, .lastCall, .sourceGone:
            return .fault(.misplaced)
        }
    }
}
