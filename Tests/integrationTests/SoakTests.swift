import Foundation
import Glibc
import Testing

@Suite struct `relay-load soak` {
    private static let faults = [
        "disconnects", "lost", "repeated", "reordered", "corrupted", "misdelivered", "notices", "refused",
        "wrong_answers",
    ]

    /// A short run; what it printed as its summary, and how it ended.
    private func soak(
        _ url: String, _ options: [String] = []
    ) async throws -> (end: ChildProcess.End, summary: [String: Any], words: String) {
        let result = try await run(
            try program("relay-load"),
            ["soak", "--url", url, "--json", "--quiet", "--max-message", "100000"] + options, seconds: 120)
        let words = "\(result.output)\n\(result.errors)"
        let summary = try? JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
        return (result.end, try #require(summary, "\(words)"), words)
    }

    private func number(_ name: String, _ summary: [String: Any]) -> Int { summary[name] as? Int ?? -1 }

    private static let lively = [
        "--rooms", "6", "--clients", "4", "--seconds", "4", "--rate", "60", "--churn", "3", "--pauses", "2",
    ]

    @Test(arguments: [1, 2, 4])
    func `finds nothing amiss`(workers: Int) async throws {
        try await Relay.run(workers: workers, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let result = try await soak("ws://127.0.0.1:\(relay.port)", Self.lively)
            #expect(result.end == .status(0), "\(result.words)")
            let names = [
                "data_sent", "voice_sent", "joins", "leaves", "slow_readers", "fragmented", "half_sent_frames",
            ]
            for name in names {
                #expect(number(name, result.summary) > 0, "\(name): \(result.words)")
            }
        }
    }

    @Test(arguments: [1, 2, 4])
    func `finds nothing amiss over TLS`(workers: Int) async throws {
        try await Relay.runTLS(workers: workers, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let result = try await soak(
                "wss://127.0.0.1:\(relay.port)", ["--ca", "\(relay.folder)/ca.pem"] + Self.lively)
            #expect(result.end == .status(0), "\(result.words)")
            for name in ["half_sent_records", "key_updates"] {
                #expect(number(name, result.summary) > 0, "\(name): \(result.words)")
            }
        }
    }

    /// `Benchmarks/soak` does this for longer.
    @Test(arguments: [false, true])
    func `finds nothing amiss while the relay is reloaded, upgraded and recycled`(tls: Bool) async throws {
        try await Relay.runChangeable(tls: tls) { relay in
            let url = "\(tls ? "wss" : "ws")://127.0.0.1:\(relay.port)"
            let options = (tls ? ["--ca", "\(relay.folder)/ca.pem"] : []) + ["--rooms", "8", "--rate", "60"]
            async let result = soak(url, options + ["--seconds", "10", "--churn", "2", "--pauses", "2"])
            for workers in [5, 1, 3, 2] {
                try relay.set("RELAY_WORKERS", "\(workers)")
                try await relay.change()
                try await relay.change(SIGUSR2, until: "supervisor upgraded")
                let recycle = try await run(
                    "\(relay.folder)/relay", ["recycle", "--pid", "\(relay.process.pid)", "\(workers - 1)"], seconds: 60
                )
                #expect(recycle.end == .status(0), "\(recycle.errors)")
            }
            let ended = try await result
            #expect(ended.end == .status(0), "\(ended.words)\n\(relay.process.errors)")
            #expect(number("data_sent", ended.summary) > 0 && number("voice_sent", ended.summary) > 0)
        }
    }

    private static func name(_ fault: FaultyProxy.Fault) -> String {
        switch fault {
        case .loseData, .loseVoice: "lost"
        case .repeatData, .repeatVoice: "repeated"
        case .swapData, .swapVoice: "reordered"
        case .corruptData, .corruptVoice: "corrupted"
        case .loseNotice, .repeatNotice: "notices"
        case .cutConnection: "disconnects"
        case .refuse: "refused"
        }
    }

    @Test(arguments: FaultyProxy.Fault.allCases)
    func `finds the one mistake of a relay, and calls it by its name`(fault: FaultyProxy.Fault) async throws {
        try await Relay.run(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let proxy = try FaultyProxy(fault, relayPort: relay.port)
            defer { proxy.end() }
            let result = try await soak(
                "ws://127.0.0.1:\(proxy.port)",
                [
                    "--rooms", "3", "--clients", "4", "--seconds", "6", "--rate", "60", "--churn", "2", "--pauses", "0",
                ])
            #expect(proxy.mistakes > 0, "\(result.words)")
            #expect(result.end == .status(1), "\(result.words)")
            let found = Self.faults.filter { number($0, result.summary) != 0 }
            #expect(found == [Self.name(fault)], "\(result.words)")
            let count = number(Self.name(fault), result.summary)
            #expect(fault.isLoss ? (1...proxy.mistakes).contains(count) : count == 1, "\(result.words)")
        }
    }

    @Test func `reports an interval at each SIGUSR1, and ends at SIGTERM with everything received`() async throws {
        try await Relay.run(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let soak = try ChildProcess(
                try program("relay-load"),
                ["soak", "--url", "ws://127.0.0.1:\(relay.port)", "--rooms", "2", "--rate", "20", "--quiet"])
            defer { soak.signal(SIGKILL) }
            try await eventually("a beginning") { soak.output.contains("Soaking ") }
            for interval in 1...2 {
                soak.signal(SIGUSR1)
                try await eventually("an interval's figures") { soak.output.contains("interval \(interval): ") }
            }
            soak.signal(SIGTERM)
            #expect(try await soak.finished(seconds: 60) == .status(0), "\(soak.output)\n\(soak.errors)")
            #expect(soak.output.contains("All ok: "))
        }
    }

    @Test func `says that a relay can't be reached, and which options are wrong`() async throws {
        var port = 0
        try await Relay.run(workers: 1) { relay in
            port = relay.port
            relay.process.signal(SIGTERM)
            _ = try await relay.process.ended()
        }
        let path = try program("relay-load")
        #expect(try await run(path, ["soak", "--url", "ws://127.0.0.1:\(port)"]).end == .status(2))
        #expect(try await run(path, ["soak", "--url", "ws://127.0.0.1:1", "--clients", "2"]).end == .status(2))
    }
}
