import Foundation
import Glibc
import Testing

/// Whatever becomes of the log, the relay goes on.
@Suite struct `A log that can't be written` {
    /// Much is said, by supervisor and workers, and all is served.
    private func serve(_ relay: Relay) async throws {
        for _ in 0..<8 {
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            for index in 0..<20 { guest.send("\(index)") }
            #expect(try await host.data(20) == (0..<20).map { "\($0)" })
            #expect(try await relay.answer(session.guest().with("Upgrade", nil)).status == 426)
        }
        let workers = relay.workerPIDs
        let victim = try #require(workers.first)
        kill(victim, SIGKILL)
        try await eventually("a successor") { relay.workerPIDs.count == 2 && relay.workerPIDs != workers }
        try await relay.healthy()
        let session = Session()
        let host = try await relay.join(session.host())
        let guest = try await relay.join(session.guest())
        guest.send("still here")
        #expect(try await host.data(1) == ["still here"])
        relay.process.signal(SIGTERM)
        #expect(try await host.ended() == .closed(code: 1001))
        #expect(try await relay.process.ended() == .status(0))
    }

    private static let variables = ["RELAY_LOG_LEVEL": "trace", "RELAY_RATE_LIMIT_PER_IP": "0"]

    @Test(arguments: [
        // A full disk; none at all; one that is only read.
        "exec \"$0\" 2>/dev/full", "exec \"$0\" 2>&-", "exec \"$0\" 2</dev/null",
        // Neither input nor log: the first descriptors that the relay opens would be these.
        "exec \"$0\" <&- 2>&-",
    ])
    func `ends nothing`(shell: String) async throws {
        try await Relay.run(workers: 2, Self.variables, shell: shell, losesWorkers: true) { try await serve($0) }
    }

    @Test func `ends nothing where nobody reads the pipe that it goes to`() async throws {
        try await withTemporaryFolder { folder in
            let path = "\(folder)/pipe"
            try #require(mkfifo(path, 0o600) == 0)
            // This end is open, full, and never read.
            let pipe = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
            try #require(pipe >= 0)
            defer { close(pipe) }
            let filling = [UInt8](repeating: 0x78, count: 4096)
            while write(pipe, filling, filling.count) > 0 {}
            while write(pipe, filling, 1) > 0 {}
            let shell = "exec \"$0\" 2>'\(path)'"
            try await Relay.run(workers: 2, Self.variables, shell: shell, losesWorkers: true) { try await serve($0) }
        }
    }

    @Test func `and no output either leave the relay as it was`() async throws {
        // Everything closed: the port is found by asking.
        let port = try freePort()
        let variables = ["RELAY_ADDR": "127.0.0.1:\(port)", "RELAY_WORKERS": "2"].merging(Self.variables) { $1 }
        let process = try ChildProcess(
            "/bin/sh", ["-c", "exec \"$0\" <&- >&- 2>&-", try program("relay")], environment: variables)
        defer {
            for worker in Processes.children(of: process.pid) { kill(worker, SIGKILL) }
            process.signal(SIGKILL)
        }
        let relay = Relay(process: process, port: port, workers: 2)
        try await eventually("a relay") { (try? await relay.health().status) == 200 }
        try await relay.healthy()
        // Nothing else has taken their numbers, for the log to be written into.
        for pid in [process.pid] + relay.workerPIDs {
            guard let streams = streams(of: pid) else { continue }
            #expect(streams == ["/dev/null", "/dev/null", "/dev/null"])
        }
        try await serve(relay)
    }

    /// What a process's standard streams are; nil where the system does not let this process see it.
    private func streams(of pid: pid_t) -> [String]? {
        try? (0...2).map { try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\($0)") }
    }

    /// A port that was free a moment ago.
    private func freePort() throws -> Int {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(socket) }
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &name) { name in
            name.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                bind(socket, name, length) == 0 && getsockname(socket, name, &length) == 0
            }
        }
        try #require(result)
        return Int(UInt16(bigEndian: name.sin_port))
    }
}
