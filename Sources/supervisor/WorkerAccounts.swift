// Who the workers of a relay that was started as root become (RELAY_WORKER_USER): a user of the relay's own where there
// is one, because another service that runs as `nobody` may signal the relay's processes. Looked up when a
// configuration comes into force, and not when a worker is started: the answer may come over a network.

import Glibc
import Shared

struct WorkerAccounts {
    /// The user that is taken if nobody says which.
    static let defaultName = "relay-worker"

    /// Ids by name.
    private var known: [String: (user: UInt32, group: UInt32)] = [:]
    private let isRoot: Bool

    init(isRoot: Bool = geteuid() == 0) {
        self.isRoot = isRoot
    }

    /// Looks up the user of a configuration.
    ///
    /// - Parameter lookUp: getpwnam(3), the user and its group; nil if there is none of that name.
    mutating func resolve(
        _ configuration: Configuration,
        lookUp: (String) -> (user: UInt32, group: UInt32)? = WorkerAccounts.lookUp
    ) throws(StartError) {
        guard isRoot else { return }
        let name = configuration.workerUser ?? Self.defaultName
        guard let found = lookUp(name) else {
            guard configuration.workerUser == nil else {
                throw StartError(
                    description: "RELAY_WORKER_USER=\(name): there is no such user",
                    exitStatus: ExitStatus.configuration)
            }
            known[name] = nil
            return
        }
        guard found.user != 0, found.group != 0 else {
            throw StartError(
                description: "RELAY_WORKER_USER=\(name): workers don't run as root, nor in its group",
                exitStatus: ExitStatus.configuration)
        }
        known[name] = found
    }

    /// What is odd about it, but no reason to stop.
    func remark(_ configuration: Configuration) -> String? {
        guard isRoot else {
            return configuration.workerUser.map {
                "RELAY_WORKER_USER=\($0) has no effect: the relay was not started as root"
            }
        }
        guard configuration.workerUser == nil, known[Self.defaultName] == nil else { return nil }
        return "workers run as nobody, as other services may: add a user \(Self.defaultName), or set RELAY_WORKER_USER"
    }

    /// How workers with this configuration are caged.
    func sandbox(_ configuration: Configuration) -> Sandbox {
        let found = known[configuration.workerUser ?? Self.defaultName]
        return Sandbox(
            mode: configuration.sandbox, user: found?.user ?? Limits.nobody, group: found?.group ?? Limits.nobody)
    }

    /// The corresponding C function is getpwnam(3).
    static func lookUp(_ name: String) -> (user: UInt32, group: UInt32)? {
        // Points to memory that the next call changes; both numbers are copied before.
        guard let entry = unsafe getpwnam(name) else { return nil }
        return unsafe (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }
}
