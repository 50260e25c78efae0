// A program that a test runs: its output gathered, its end awaited, and ended by its id whatever becomes of the test.

import Foundation
import Glibc
import Synchronization

/// A program could not be run.
struct SpawnError: Error, CustomStringConvertible {
    var description: String
}

/// A running or finished program.
final class ChildProcess: Sendable {
    enum End: Equatable {
        case status(Int32)
        case signal(Int32)
    }

    private struct State {
        var output: [UInt8] = []
        var errors: [UInt8] = []
        var openPipes = 2
        var end: End?
        /// Where its input is written to, if it has any.
        var input: Int32?
    }

    let pid: pid_t
    private let state = Mutex(State())
    /// Glibc's pipe2(2) is not to be had: no program may be started between a pipe and its close-on-exec.
    private static let spawning = Mutex(())

    var output: String { String(decoding: outputBytes, as: UTF8.self) }
    var outputBytes: [UInt8] { state.withLock { $0.output } }
    var errors: String { state.withLock { String(decoding: $0.errors, as: UTF8.self) } }

    /// Waits until `text` stands in `errors`: what a program logs arrives some time after what it does.
    func says(_ text: String) async throws {
        do { try await eventually("\"\(text)\"") { errors.contains(text) } } catch {
            throw TimedOut(description: "\(error), in \(errors)")
        }
    }
    var end: End? { state.withLock { $0.end } }

    /// Starts a program with these variables, and PATH and LD_LIBRARY_PATH of this process.
    ///
    /// - Parameter takesInput: whether `write` is to be used; without, its input is empty.
    init(
        _ path: String, _ arguments: [String] = [], environment: [String: String] = [:], takesInput: Bool = false
    ) throws {
        var variables = environment
        for name in ["PATH", "LD_LIBRARY_PATH", "HOME"] {
            if let value = ProcessInfo.processInfo.environment[name] { variables[name] = value }
        }
        let (pid, input, output, errors) = try Self.spawning.withLock { _ in
            let input = takesInput ? try Self.pipe() : nil
            let output = try Self.pipe()
            let errors = try Self.pipe()
            defer {
                if let input { close(input.read) }
                close(output.write)
                close(errors.write)
            }
            do {
                let lines = variables.map { "\($0.key)=\($0.value)" }
                let pid = try Self.spawn(path, [path] + arguments, lines, input?.read, output.write, errors.write)
                return (pid, input?.write, output.read, errors.read)
            } catch {
                if let input { close(input.write) }
                close(output.read)
                close(errors.read)
                throw error
            }
        }
        self.pid = pid
        state.withLock { $0.input = input }
        gather(output) { $0.output += $1 }
        gather(errors) { $0.errors += $1 }
        Thread.detachNewThread { [self] in reap() }
    }

    deinit {
        closeInput()
    }

    /// Writes to its input; less than a pipe holds, for this waits until it is taken.
    func write(_ bytes: [UInt8]) {
        state.withLock { state in
            // SwiftNIO ignores SIGPIPE: a program that has ended takes nothing.
            if let input = state.input { _ = Glibc.write(input, bytes, bytes.count) }
        }
    }

    func write(_ text: String) {
        write(Array(text.utf8))
    }

    /// Its input ends.
    func closeInput() {
        state.withLock {
            if let input = $0.input { close(input) }
            $0.input = nil
        }
    }

    func signal(_ number: Int32) {
        // Until it is reaped, under the lock, the id is nobody else's.
        state.withLock { if $0.end == nil { _ = kill(pid, number) } }
    }

    /// Waits for its end.
    @discardableResult
    func ended(seconds: Double = patienceSeconds) async throws -> End {
        try await awaited("the end of process \(pid)", seconds: seconds) { end }
    }

    /// Waits for its end and that of its output.
    func finished(seconds: Double = patienceSeconds) async throws -> End {
        let end = try await ended(seconds: seconds)
        try await eventually("the end of output", seconds: seconds) { state.withLock { $0.openPipes == 0 } }
        return end
    }

    // MARK: - Parts

    private static func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { throw SpawnError(description: "pipe: errno \(errno)") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    private static func spawn(
        _ path: String, _ arguments: [String], _ environment: [String], _ input: Int32?, _ output: Int32,
        _ errors: Int32
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, 0)
        } else {
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        }
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        // SwiftNIO's sockets are not close-on-exec: a copy in a program would keep them open when NIO closes them. Closing
        // what is not open is no error here.
        for descriptor in Int32(3)..<4096 { posix_spawn_file_actions_addclose(&actions, descriptor) }
        // The threads of Swift's tasks block signals, and SwiftNIO ignores SIGPIPE: neither is for the program.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var pipes = sigset_t()
        sigemptyset(&pipes)
        sigaddset(&pipes, SIGPIPE)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &pipes)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var argv = arguments.map { strdup($0) } + [nil]
        var envp = environment.map { strdup($0) } + [nil]
        defer { for copy in argv + envp { free(copy) } }
        var pid: pid_t = 0
        let result = posix_spawnp(&pid, path, &actions, &attributes, &argv, &envp)
        guard result == 0 else { throw SpawnError(description: "\(path): errno \(result)") }
        return pid
    }

    private func gather(_ pipe: Int32, _ keep: @escaping @Sendable (inout State, ArraySlice<UInt8>) -> Void) {
        Thread.detachNewThread { [self] in
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = read(pipe, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { break }
                state.withLock { keep(&$0, buffer[..<count]) }
            }
            close(pipe)
            state.withLock { $0.openPipes -= 1 }
        }
    }

    private func reap() {
        var information = siginfo_t()
        while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) != 0 && errno == EINTR {}
        state.withLock { state in
            var status: Int32 = 0
            waitpid(pid, &status, 0)
            // wait(2): the low seven bits are the signal that ended it, the next byte its status.
            state.end = status & 0x7F == 0 ? .status(status >> 8 & 0xFF) : .signal(status & 0x7F)
        }
    }
}

/// Where this package's programs are: beside the test program.
func program(_ name: String) throws -> String {
    let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let path = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
    guard FileManager.default.isExecutableFile(atPath: path) else {
        throw SpawnError(description: "\(path) is missing: build everything first, with swift build --build-tests")
    }
    return path
}

/// Runs a program to its end.
func run(
    _ path: String, _ arguments: [String] = [], environment: [String: String] = [:], seconds: Double = patienceSeconds
) async throws -> (end: ChildProcess.End, output: String, errors: String) {
    let process = try ChildProcess(path, arguments, environment: environment)
    defer { process.signal(SIGKILL) }
    let end = try await process.finished(seconds: seconds)
    return (end, process.output, process.errors)
}

/// curl with its usual quiet; headers with `-i` or `-D -` are the caller's wish.
func curl(_ arguments: String...) async throws -> String {
    let result = try await run("curl", ["-sS", "--max-time", "20", "--noproxy", "*"] + arguments)
    guard result.end == .status(0) else {
        throw SpawnError(description: "curl \(arguments): \(result.end) \(result.errors)")
    }
    return result.output
}

/// What /proc says of processes.
enum Processes {
    /// The corresponding file is /proc/PID/task/PID/children.
    static func children(of pid: pid_t) -> [pid_t] {
        let text = try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)
        return (text ?? "").split(separator: " ").compactMap { pid_t($0) }
    }

    /// The state letter of /proc/PID/stat; nil if there is no such process.
    static func state(of pid: pid_t) -> Character? {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return nil }
        return text[(text.lastIndex(of: ")") ?? text.startIndex)...].dropFirst(2).first
    }

    /// Whether a process has ended, reaped or not: who adopts orphans may be slow to reap.
    static func isGone(_ pid: pid_t) -> Bool {
        guard let state = state(of: pid) else { return true }
        return state == "Z" || state == "X"
    }

    /// A size in KiB out of /proc/PID/status, such as VmRSS or VmSize.
    static func kibibytes(_ name: String, of pid: pid_t) -> Int? {
        let text = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = (text ?? "").split(separator: "\n").first { $0.hasPrefix("\(name):") }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) }
    }

    /// Open descriptors; nil where the system does not let this process see them.
    static func descriptors(of pid: pid_t) -> Int? {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd"))?.count
    }
}
