// How a worker's process ended, in words, and whether a next one can do better.

import CLinux
import Glibc
import Shared

enum WorkerEnd: Equatable, CustomStringConvertible {
    /// With a status of ExitStatus, and the reason that the worker gave, if it gave one.
    case exited(Int32, reason: String?)
    /// With the reason of the supervisor, if it has killed it.
    case killed(signal: Int32, reason: String? = nil)

    /// - Parameters:
    ///   - status: as waitpid(2) returns it.
    ///   - reason: the worker's for an exit, the supervisor's for a kill.
    init(waitStatus status: Int32, reason: String?) {
        self =
            clinux_wait_exited(status) != 0
            ? .exited(clinux_wait_exit_status(status), reason: reason)
            : .killed(signal: clinux_wait_signal(status), reason: reason)
    }

    /// "signal 9 (Killed)", "trap, signal 4 (Illegal instruction)", "exit 71 (could not begin): out of memory".
    var description: String {
        switch self {
        case .killed(let signal, let reason):
            // What a failed check of Swift's ends in: SIGILL on x86, SIGTRAP on ARM.
            let kind = signal == SIGILL || signal == SIGTRAP ? "trap, signal" : "signal"
            let name = unsafe String(cString: strsignal(signal))
            return "\(kind) \(signal) (\(name))\(reason.map { ": \($0)" } ?? "")"
        case .exited(let status, let reason):
            let meaning = Self.meaning(status).map { " (\($0))" } ?? ""
            return "exit \(status)\(meaning)\(reason.map { ": \($0)" } ?? "")"
        }
    }

    private static func meaning(_ status: Int32) -> String? {
        switch status {
        case ExitStatus.usage: "not started by relay"
        case ExitStatus.unavailable: "of another version than relay"
        case ExitStatus.internalError: "internal error"
        case ExitStatus.launchFailed: "could not begin"
        case ExitStatus.configuration: "wrong configuration"
        // posix_spawn(3): what could not be executed.
        case 127: "could not be executed"
        default: nil
        }
    }

    /// A worker that could not begin for a reason that stays: the relay's exit status, if none has ever served. nil for what a
    /// restart may heal, which is everything else: too little memory, a crash.
    var hopeless: Int32? {
        guard case .exited(let status, _) = self else { return nil }
        switch status {
        case ExitStatus.usage, ExitStatus.unavailable, ExitStatus.configuration: return status
        case 127: return ExitStatus.unavailable
        default: return nil
        }
    }
}
