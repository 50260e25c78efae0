// The program of the workers: where it is, what it inherits, how it is started.

import CLinux
import Glibc
import Shared

/// `relay-worker`, beside this program.
struct WorkerProgram {
    let path: String
    /// The program as it was when this one started: whatever is installed in its place meanwhile, a worker that is started is of its
    /// supervisor's version. Held as long as the process.
    private let file: Int32
    /// `relay` itself.
    let supervisorPath: String
    /// NAME=value: what a worker in a sandbox gets, and one without.
    private let environment: [String]
    private let wholeEnvironment: [String]

    /// The variables of this process that workers in a sandbox have as well, and those that begin with one of
    /// `inheritedPrefixes`: what the loader, the allocator and libcrypto go by, and sanitizers. The relay's own travel
    /// validated in the launch message; what else there is, such as a password for some other program, is none of
    /// theirs.
    static let inherited: Set<String> = [
        "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ia32cap", "OPENSSL_armcap",
        "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
    ]
    static let inheritedPrefixes = ["MALLOC_"]

    /// - Parameter variables: this process's environment.
    init(variables: [String: String]) throws(StartError) {
        guard let text = Self.path(of: "self"), let slash = text.lastIndex(of: "/") else {
            throw StartError(
                description: "can't find this program's own path in /proc", exitStatus: ExitStatus.unavailable)
        }
        supervisorPath = text
        path = text[...slash] + "relay-worker"
        file = Self.open(path)
        guard unsafe access(path, X_OK) == 0, file >= 0 else {
            throw StartError(
                description: "\(path) is missing or not executable: relay and relay-worker belong in one folder",
                exitStatus: ExitStatus.unavailable)
        }
        // A trap starts Swift's backtracer by default, which holds the dead worker's descriptors and prints registers.
        let others = variables.filter { !$0.key.hasPrefix("RELAY_") && $0.key != "SWIFT_BACKTRACE" }
        wholeEnvironment = Self.lines(others)
        environment = Self.lines(others.filter { Self.isInherited($0.key) })
    }

    /// The path at which a process's program is installed; nil where it can't be seen. The corresponding C function is
    /// readlink(2).
    static func path(of process: String) -> String? {
        let path = unsafe [CChar](unsafeUninitializedCapacity: 4096) { buffer, count in
            guard let start = buffer.baseAddress else { return }
            count = unsafe max(0, readlink("/proc/\(process)/exe", start, buffer.count))
        }
        return path.isEmpty ? nil : installed(String(decoding: path.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    /// The path at which a program stands that has been executed from it, and perhaps replaced since (proc(5)).
    static func installed(_ path: String) -> String {
        let suffix = " (deleted)"
        return path.hasSuffix(suffix) ? String(path.dropLast(suffix.count)) : path
    }

    static func isInherited(_ name: String) -> Bool {
        inherited.contains(name) || inheritedPrefixes.contains { name.hasPrefix($0) }
    }

    private static func lines(_ variables: [String: String]) -> [String] {
        variables.map { "\($0.key)=\($0.value)" } + ["SWIFT_BACKTRACE=enable=no"]
    }

    /// What a worker's environment is.
    func environment(_ mode: SandboxMode) -> [String] { mode == .off ? wholeEnvironment : environment }

    /// Starts it with a control channel. The corresponding C function is posix_spawn(3).
    ///
    /// - Parameter name: what it is called in a list of processes.
    func start(name: String, _ mode: SandboxMode) throws(SystemError) -> (pid: pid_t, control: Int32) {
        let pair = try MessagePair(bufferBytes: Int32(Limits.controlBufferBytes))
        let pid = try spawn(name: name, mode, control: pair.far.number)
        let ends = pair.split()
        _ = close(ends.far)
        return (pid, ends.near)
    }

    private func spawn(name: String, _ mode: SandboxMode, control: Int32) throws(SystemError) -> pid_t {
        var pid: pid_t = 0
        var arguments = unsafe [strdup(name), nil]
        var variables = unsafe environment(mode).map { unsafe strdup($0) } + [nil]
        defer {
            let copies = unsafe arguments + variables
            for index in unsafe copies.indices { unsafe free(copies[index]) }
        }
        let result = unsafe clinux_spawn(file, &arguments, &variables, control, &pid)
        guard result == 0 else { throw SystemError("posix_spawn \(path)", result) }
        return pid
    }

    /// Above the numbers that a worker is born with.
    private static func open(_ path: String) -> Int32 {
        let number = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { return -1 }
        let file = Descriptor(owning: number)
        return fcntl(file.number, F_DUPFD_CLOEXEC, 16)
    }

    // MARK: - The supervisor's own program

    /// The `relay` that is installed now: what is asked whether it can take over is what then does, whatever is
    /// installed in between.
    func openSuccessor() throws(SystemError) -> Descriptor {
        let program = Self.open(supervisorPath)
        guard program >= 0 else { throw SystemError("open \(supervisorPath)") }
        return Descriptor(owning: program)
    }

    /// Runs a `relay`, and waits for its end, Limits.takeOverCheckMilliseconds at most.
    ///
    /// - Returns: its exit status.
    func run(_ successor: borrowing Descriptor, _ arguments: [String]) throws(SystemError) -> Int32 {
        let pair = try MessagePair(bufferBytes: 4096)
        var pid: pid_t = 0
        var copies = unsafe ([supervisorPath] + arguments).map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
        let result = unsafe clinux_spawn(successor.number, &copies, clinux_environment(), pair.far.number, &pid)
        let ends = pair.split()
        _ = close(ends.far)
        let end = Descriptor(owning: ends.near)
        guard result == 0 else { throw SystemError("posix_spawn \(supervisorPath)", result) }
        // Its end of the pair closes with it.
        var polled = pollfd(fd: end.number, events: Int16(POLLIN), revents: 0)
        while unsafe poll(&polled, 1, Limits.takeOverCheckMilliseconds) < 0 && errno == EINTR {}
        let isLate = polled.revents == 0
        if isLate { kill(pid, SIGKILL) }
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        guard !isLate else { throw SystemError(supervisorPath, ETIMEDOUT) }
        return clinux_wait_exited(status) != 0 ? clinux_wait_exit_status(status) : ExitStatus.internalError
    }

    /// Becomes a `relay`, with this process's arguments. The corresponding C function is fexecve(3), which returns only
    /// if it fails.
    func become(_ successor: borrowing Descriptor, inheriting file: Int32) throws(SystemError) {
        var arguments = CommandLine.arguments
        if let given = arguments.firstIndex(of: "--inherit") {
            arguments.removeSubrange(given..<min(given + 2, arguments.count))
        }
        // `run` is the default, but its options need its name.
        if arguments.count < 2 || arguments[1] != "run" { arguments.insert("run", at: min(1, arguments.count)) }
        arguments += ["--inherit", "\(file)"]
        var copies = unsafe arguments.map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
        _ = unsafe clinux_execute(successor.number, &copies, clinux_environment())
        throw SystemError("execveat \(supervisorPath)")
    }

    /// Starts it for one question and waits for the answer, Limits.credentialCheckMilliseconds at most.
    func ask(
        _ question: ControlMessage, _ mode: SandboxMode, descriptors: [Int32] = []
    ) throws(SystemError) -> ControlMessage {
        let (pid, number) = try start(name: "relay-worker", mode)
        var control = ControlChannel(Descriptor(owning: number))
        var isReaped = false
        func reap() -> Int32 {
            var status: Int32 = 0
            while unsafe waitpid(pid, &status, 0) < 0 && errno == EINTR {}
            isReaped = true
            return status
        }
        defer {
            // It ends by itself after its answer; without one it is not waited for.
            if !isReaped {
                kill(pid, SIGKILL)
                _ = reap()
            }
        }
        try control.sendAlways(question, descriptors: descriptors)
        while true {
            var polled = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
            let ready = unsafe poll(&polled, 1, Limits.credentialCheckMilliseconds)
            if ready < 0 && errno == EINTR { continue }
            guard ready > 0 else { throw SystemError("relay-worker", ETIMEDOUT) }
            switch control.receive() {
            case .message(let answer, let descriptors):
                for descriptor in descriptors { _ = close(descriptor) }
                return answer
            case .nothing: continue
            case .closed: throw SystemError("relay-worker, \(WorkerEnd(waitStatus: reap(), reason: nil))", EPIPE)
            case .malformed: throw SystemError("relay-worker", EPROTO)
            case .failed(let error): throw error
            }
        }
    }
}
