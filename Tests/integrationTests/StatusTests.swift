import Foundation
import Glibc
import Testing

@Suite struct `relay status and relay health` {
    private func relay(_ arguments: String...) async throws -> (end: ChildProcess.End, output: String, errors: String) {
        try await run(try program("relay"), arguments)
    }

    @Test func `say that a relay serves, by its id and by its address`() async throws {
        try await Relay.runAdmin(workers: 2) { running, admin in
            for target in [["--pid", "\(running.process.pid)"], ["--address", "127.0.0.1:\(admin.port)"]] {
                let health = try await relay("health", target[0], target[1])
                #expect(health.end == .status(0))
                #expect(health.output.contains(": ok, 2 of 2 workers serving, up "))
                #expect(health.output.split(separator: "\n").count == 1)
                let status = try await relay("status", target[0], target[1])
                #expect(status.end == .status(0))
                let lines = status.output.split(separator: "\n", omittingEmptySubsequences: false)
                #expect(lines.count == 9, "\(status.output)")
                #expect(lines[2].hasPrefix("memory ") && lines[3].hasPrefix("sandbox: "), "\(status.output)")
                #expect(lines[5].hasPrefix("WORKER"), "\(status.output)")
                let json = try await relay("status", "--json", target[0], target[1])
                let object = try AdminHealth(json: json.output)
                #expect(object.status == "ok" && object.workers.count == 2)
            }
        }
    }

    @Test func `exit 1 where the relay does not serve`() async throws {
        try await runRelay(worker: "exec sleep 1000", ["RELAY_SHUTDOWN_GRACE": "0"]) { process in
            let health = try await awaited("the admin socket") { () -> (ChildProcess.End, String)? in
                let health = try await relay("health", "--pid", "\(process.pid)")
                return health.output.contains("no relay with pid") ? nil : (health.end, health.output)
            }
            #expect(health.0 == .status(1))
            #expect(health.1.contains(": unavailable (starting), 0 of 1 worker serving, up "))
            #expect(try await relay("status", "--pid", "\(process.pid)").end == .status(1))
        }
    }

    @Test func `exit 1 where there is no relay, and say so`() async throws {
        let health = try await relay("health", "--pid", "1")
        #expect(health.end == .status(1) && health.output == "relay: no relay with pid 1 is running\n")
        let status = try await relay("status", "--pid", "1")
        #expect(status.end == .status(1) && status.errors == "relay: no relay with pid 1 is running\n")
        let address = try await relay("health", "--address", "127.0.0.1:1")
        #expect(address.end == .status(1) && address.output.contains("no relay has it as RELAY_METRICS_ADDR"))
        #expect(try await relay("health", "--address", "nowhere").end == .status(64))
    }

    @Test(.enabled(if: geteuid() == 0, "a network namespace of its own takes root"))
    func `find the one relay that there is, and ask which where there are several`() async throws {
        // Relays of other tests can't be seen from in there.
        let script = #"""
            "$0" health; echo "none: $?"
            RELAY_ADDR=127.0.0.1:0 RELAY_WORKERS=1 "$0" >/dev/null 2>&1 & one=$!
            until "$0" health; do kill -0 $one || exit 9; done; echo "one: $?"
            RELAY_ADDR=127.0.0.1:0 RELAY_WORKERS=1 "$0" >/dev/null 2>&1 & two=$!
            until "$0" health --pid $two; do kill -0 $two || exit 9; done >/dev/null
            "$0" health; echo "two: $?"
            kill $one $two; wait $one; echo "stopped: $?"
            """#
        let result = try await run(
            "unshare", ["--net", "sh", "-c", "ip link set lo up; \(script)", try program("relay")], seconds: 60)
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(lines.starts(with: ["relay: no relay is running", "none: 1"]), "\(result)")
        #expect(lines.contains("one: 0") && lines.contains("two: 1") && lines.last == "stopped: 0", "\(result)")
        #expect(lines.contains { $0.hasPrefix("relay: several relays are running; say which: --pid ") }, "\(result)")
    }

    @Test func `show it again each second, if asked, until they are stopped`() async throws {
        try await Relay.run(workers: 1) { running in
            let watch = try ChildProcess(
                try program("relay"), ["status", "--watch", "--pid", "\(running.process.pid)"])
            defer { watch.signal(SIGKILL) }
            try await eventually("a second look") { watch.output.components(separatedBy: "\u{1B}[H\u{1B}[J").count > 2 }
            running.process.signal(SIGTERM)
            try await eventually("the end to be told") { watch.output.contains("no relay with pid") }
            watch.signal(SIGINT)
            #expect(try await watch.ended() == .signal(SIGINT))
        }
    }
}
