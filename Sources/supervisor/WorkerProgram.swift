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
    /// NAME=value.
    let environment: [String]

    /// - Parameter variables: this process's environment. Workers inherit everything but the relay's own variables, which
    ///   travel validated in the launch message.
    init(variables: [String: String]) throws(StartError) {
        let program = unsafe [CChar](unsafeUninitializedCapacity: 4096) { buffer, count in
            guard let start = buffer.baseAddress else { return }
            count = unsafe max(0, readlink("/proc/self/exe", start, buffer.count))
        }
        let text = String(decoding: program.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard let slash = text.lastIndex(of: "/") else {
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
        environment =
            variables.filter { !$0.key.hasPrefix("RELAY_") && $0.key != "SWIFT_BACKTRACE" }
            .map { "\($0.key)=\($0.value)" } + ["SWIFT_BACKTRACE=enable=no"]
    }

    /// Starts it with a control channel. The corresponding C function is posix_spawn(3).
    ///
    /// - Parameter name: what it is called in a list of processes.
    func start(name: String) throws(SystemError) -> (pid: pid_t, control: Int32) {
        let pair = try MessagePair(bufferBytes: Int32(Limits.controlBufferBytes))
        let pid = try spawn(name: name, control: pair.far.number)
        let ends = pair.split()
        _ = close(ends.far)
        return (pid, ends.near)
    }

    private func spawn(name: String, control: Int32) throws(SystemError) -> pid_t {
        var pid: pid_t = 0
        var arguments = unsafe [strdup(name), nil]
        var variables = unsafe environment.map { unsafe strdup($0) } + [nil]
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

    /// Runs the `relay` that is installed now, and waits for its end, Limits.takeOverCheckMilliseconds at most.
    ///
    /// - Returns: its exit status.
    func runSupervisor(_ arguments: [String]) throws(SystemError) -> Int32 {
        let program = Self.open(supervisorPath)
        guard program >= 0 else { throw SystemError("open \(supervisorPath)") }
        let held = Descriptor(owning: program)
        let pair = try MessagePair(bufferBytes: 4096)
        var pid: pid_t = 0
        var copies = unsafe ([supervisorPath] + arguments).map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
        let result = unsafe clinux_spawn(held.number, &copies, clinux_environment(), pair.far.number, &pid)
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

    /// Becomes the `relay` that is installed now, with this process's arguments. The corresponding C function is execve(2), which
    /// returns only if it fails.
    func becomeSupervisor(inheriting file: Int32) throws(SystemError) {
        var arguments = CommandLine.arguments
        if let given = arguments.firstIndex(of: "--inherit") {
            arguments.removeSubrange(given..<min(given + 2, arguments.count))
        }
        // `run` is the default, but its options need its name.
        if arguments.count < 2 || arguments[1] != "run" { arguments.insert("run", at: min(1, arguments.count)) }
        arguments += ["--inherit", "\(file)"]
        var copies = unsafe arguments.map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
        _ = unsafe execve(supervisorPath, &copies, clinux_environment())
        throw SystemError("execve \(supervisorPath)")
    }

    /// Starts it for one question and waits for the answer, Limits.credentialCheckMilliseconds at most.
    func ask(_ question: ControlMessage, descriptors: [Int32] = []) throws(SystemError) -> ControlMessage {
        let (pid, number) = try start(name: "relay-worker")
        var control = ControlChannel(Descriptor(owning: number))
        defer {
            // It ends by itself behind its answer; without one it is not waited for.
            kill(pid, SIGKILL)
            var status: Int32 = 0
            while unsafe waitpid(pid, &status, 0) < 0 && errno == EINTR {}
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
            case .closed: throw SystemError("relay-worker", EPIPE)
            case .malformed: throw SystemError("relay-worker", EPROTO)
            case .failed(let error): throw error
            }
        }
    }
}
