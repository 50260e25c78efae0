// Workers that an attacker has taken over, from their first moment on (Tests/cageprobe/false_worker.c): the supervisor
// stays, does not grow, goes on answering, and ends what goes on for too long, with a reason.

import Foundation
import Glibc
import Testing

@Suite struct `A false worker` {
    /// Runs a relay whose two workers do nothing but `mode`, and ends it as an operator would.
    private func run(
        _ mode: String, _ variables: [String: String] = [:], _ body: (ChildProcess, Admin) async throws -> Void
    ) async throws {
        try await Programs.run { programs in
            let probe = try program("cageprobe")
            if link(probe, "\(programs.folder)/relay-worker") != 0 {
                try FileManager.default.copyItem(atPath: probe, toPath: "\(programs.folder)/relay-worker")
            }
            try write(mode, to: "\(programs.folder)/mode")
            let all = [
                "RELAY_ADDR": "127.0.0.1:0", "RELAY_METRICS_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "2",
                "RELAY_MAX_CONNECTIONS_PER_IP": "9", "RELAY_SHUTDOWN_GRACE": "0",
            ]
            let process = try ChildProcess(programs.relay, environment: all.merging(variables) { $1 })
            defer {
                let workers = Processes.children(of: process.pid)
                process.signal(SIGKILL)
                for worker in workers where kill(worker, 0) == 0 { _ = kill(worker, SIGKILL) }
            }
            do {
                let admin = try await Admin(process)
                try await body(process, admin)
                // Nothing of it has kept the supervisor from anything.
                for path in ["/metrics", "/health", "/status"] {
                    #expect(!(try await admin.answer(path).answer.isEmpty))
                }
                let bytes = try #require(residentBytes(of: process.pid))
                #expect(bytes < 64 << 20, "\(bytes) bytes")
                process.signal(SIGTERM)
                #expect(try await process.ended() == .status(0))
            } catch {
                Issue.record("the relay said: \(process.errors.suffix(4000))")
                throw error
            }
        }
    }

    private func residentBytes(of pid: pid_t) -> Int? {
        let text = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8)
        return text?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 4096 }
    }

    @Test(arguments: [
        ("nonsense", "signal 9 (Killed): sent nonsense"), ("misplaced", "signal 9 (Killed): sent nonsense"),
        ("close", "signal 9 (Killed): closed its control channel"),
        ("call", "signal 31 (Bad system call): sandbox violation"), ("die", "exit 1"),
        ("failure", #"exit 71 (could not begin): \u{1B}\u{1B}"#),
    ])
    func `is ended, with a reason, as often as it comes back`(mode: String, end: String) async throws {
        try await run(mode) { process, admin in
            try await eventually("some ends") {
                let health = try await admin.health()
                return health.restarts >= 3 && health.workers.contains { $0.lastExit?.hasPrefix(end) == true }
            }
            if mode == "nonsense" || mode == "misplaced" {
                let page = try await admin.answer("/metrics").answer
                let reason = mode == "nonsense" ? "malformed" : "misplaced"
                #expect(
                    page.firstMatch(of: try Regex(#"relay_worker_faults_total\{reason="\#(reason)"\} [1-9]"#)) != nil)
                try await process.says("worker sends nonsense: killing it")
            }
        }
    }

    @Test(arguments: ["scribble", "keys", "flood", "inbox", "noise"])
    func `neither ends nor grows nor holds the supervisor, whatever it does`(mode: String) async throws {
        try await run(mode) { process, admin in
            for _ in 0..<20 {
                #expect(try await admin.answer("/livez").status == 200)
                #expect(!(try await admin.answer("/metrics").answer.isEmpty))
                _ = try await admin.health()
            }
            if mode == "keys" {
                try await eventually("keys too many") {
                    try await admin.answer("/metrics").answer.firstMatch(
                        of: /relay_worker_faults_total\{reason="host_keys"\} [1-9]/) != nil
                }
            }
        }
    }

    @Test func `that stands still is ended, and others are not`() async throws {
        try await run("sleep") { process, admin in
            try await eventually("an end") {
                try await admin.health().workers.contains { $0.lastExit == "signal 9 (Killed): hung" }
            }
        }
    }
}
