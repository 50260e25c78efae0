// What a worker's sandbox takes away, tried from inside it by a program that does nothing else (Tests/cageprobe).

import Foundation
import Glibc
import Testing

@Suite(.enabled(if: geteuid() == 0, "becoming nobody takes root")) struct `From inside the sandbox` {
    /// Lines of words, by the first one or two of them.
    private func probe(_ mode: String) async throws -> [[Substring]] {
        // A backtrace of Swift's would be one more violation.
        let process = try ChildProcess(
            try program("cageprobe"), [mode], environment: ["SWIFT_BACKTRACE": "enable=no"])
        #expect(try await process.ended() == .status(0), "\(process.errors)")
        return process.output.split(separator: "\n").map { $0.split(separator: " ") }
    }

    @Test func `no system call passes but those on the list, and each that does not is told by its number`()
        async throws
    {
        let lines = try await probe("calls")
        var always: Set<Int> = []
        var sometimes: Set<Int> = []
        for line in lines where line[0] == "list" {
            let number = try #require(Int(line[1]))
            if line[2] == "always" { always.insert(number) } else { sometimes.insert(number) }
        }
        #expect(always.count > 30 && sometimes.count > 5)
        var tried = 0
        for line in lines where line[0] != "list" {
            let number = try #require(Int(line[0]))
            tried += 1
            // The kernel keeps these two for its own probes and asks no filter (since Linux 6.11); from elsewhere they
            // do nothing.
            if [335, 336].contains(number) { continue }
            let isViolation = line[1...] == ["signal", "\(SIGSYS)", "told", "\(number)"]
            if number >= 0x4000_0000 {
                // Of another kind of system call: killed without a word.
                #expect(line[1...] == ["signal", "\(SIGSYS)"], "\(line)")
            } else if always.contains(number) {
                #expect(!isViolation, "\(line)")
            } else if !sometimes.contains(number) {
                #expect(isViolation, "\(line)")
            }
        }
        #expect(tried > 1024)
    }

    @Test func `calls pass with the arguments that a worker gives them`() async throws {
        let allowed: Set<Substring> = [
            "mmap-read-write", "mprotect-read", "shutdown-write", "fcntl-getfl", "ioctl-siocoutq",
            "setsockopt-user-timeout", "getsockopt-tcp-info",
        ]
        let lines = try await probe("arguments")
        #expect(lines.count > 20)
        for line in lines {
            let end = allowed.contains(line[0]) ? ["exit", "0"] : ["signal", "\(SIGSYS)", "told"]
            #expect(line[1...].starts(with: end.map { Substring($0) }), "\(line)")
        }
    }

    @Test func `each part holds by itself`() async throws {
        let lines = try await probe("parts")
        let landlock = try #require(lines.first.flatMap { Int($0[2]) })
        let needs: [Substring: Int] = [
            "open-file": 1, "make-file": 1, "reach-tcp": 4, "hold-tcp": 4, "signal-parent": 6,
        ]
        for line in lines.dropFirst() {
            if let version = needs[line[0]], landlock < version { continue }
            if line[1] == "outside" {
                // Nobody listens at the port.
                #expect(line[2] == "exit" && ["0", "\(ECONNREFUSED)"].contains(line[3]), "\(line)")
            } else {
                let codes = [EACCES, EPERM, EAGAIN, EFBIG].map { "\($0)" }
                #expect(line[2] == "exit" && codes.contains(String(line[3])), "\(line)")
            }
        }
        #expect(lines.count == 19)
    }

    @Test func `a process ends as it would outside, and a violation can't be caught`() async throws {
        let ends: [Substring: [Int32]] = [
            "abort": [SIGABRT], "trap": [SIGILL, SIGTRAP], "fault": [SIGSEGV], "heap": [SIGABRT], "handler": [SIGSYS],
            "blocked": [SIGSYS],
        ]
        for line in try await probe("ends") {
            guard let signals = ends[line[0]] else {
                #expect(line == ["exit", "exit", "7"])
                continue
            }
            #expect(line[1] == "signal" && signals.map { "\($0)" }.contains(String(line[2])), "\(line)")
        }
    }

    @Test(arguments: ["auto", "required"])
    func `workers are in the whole of it, and the relay says so`(mode: String) async throws {
        try await Relay.runAdmin(workers: 2, ["RELAY_SANDBOX": mode]) { relay, admin in
            try await relay.healthy()
            for worker in relay.workerPIDs {
                let status = try String(contentsOfFile: "/proc/\(worker)/status", encoding: .utf8)
                for field in [
                    "NoNewPrivs:\t1", "Seccomp:\t2", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000",
                    "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
                    "Groups:\t65534 \n",
                ] {
                    #expect(status.contains(field), "\(field) in \(status)")
                }
                let limits = try String(contentsOfFile: "/proc/\(worker)/limits", encoding: .utf8)
                #expect(limits.contains("Max processes             0                    0 "), "\(limits)")
                // Nothing of the environment but what is listed.
                let environment = try String(contentsOfFile: "/proc/\(worker)/environ", encoding: .utf8)
                let names = environment.split(separator: "\0").compactMap { $0.split(separator: "=").first }
                #expect(Set(names).isSubset(of: ["LD_LIBRARY_PATH", "SWIFT_BACKTRACE"]), "\(names)")
            }
            let table = try await admin.answer("/status").answer
            let parts = "capabilities, no_new_privileges, limits, landlock, seccomp"
            #expect(table.contains("\nsandbox: \(parts)\n"), "\(table)")
            let metrics = try await admin.answer("/metrics").answer
            for part in parts.components(separatedBy: ", ") {
                #expect(metrics.contains("relay_sandbox{part=\"\(part)\"} 1\n"))
            }
            #expect(!relay.process.errors.contains("not in the whole sandbox"))
        }
    }

    @Test func `a relay without it says what is missing`() async throws {
        try await Relay.runAdmin(workers: 1, ["RELAY_SANDBOX": "off"]) { relay, admin in
            try await relay.healthy()
            let table = try await admin.answer("/status").answer
            #expect(table.contains("sandbox: capabilities, no_new_privileges; without limits, landlock, seccomp\n"))
            try await relay.process.says("workers are not in the whole sandbox")
            let worker = try #require(relay.workerPIDs.first)
            let status = try String(contentsOfFile: "/proc/\(worker)/status", encoding: .utf8)
            #expect(status.contains("Seccomp:\t0") && status.contains("CapEff:\t0000000000000000"))
        }
    }
}
