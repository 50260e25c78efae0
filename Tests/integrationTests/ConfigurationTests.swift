import Testing

@Suite struct `The command line` {
    private func relay(
        _ arguments: String..., environment: [String: String] = [:]
    ) async throws -> (end: ChildProcess.End, output: String, errors: String) {
        try await run(try program("relay"), arguments, environment: environment)
    }

    @Test func `says what is in force`() async throws {
        let result = try await relay(
            "check-config",
            environment: [
                "RELAY_ADDR": "[::1]:9000", "RELAY_WORKERS": "3", "RELAY_MAX_ROOMS": "7", "RELAY_MAX_BACKLOG": "",
                "RELAY_TRUSTED_PROXIES": "",
            ])
        #expect(result.end == .status(0))
        let lines = result.output.split(separator: "\n").map(String.init)
        for line in [
            "RELAY_ADDR=[::1]:9000", "RELAY_WORKERS=3", "RELAY_MAX_ROOMS=7", "RELAY_MAX_BACKLOG=19923134",
            "RELAY_TRUSTED_PROXIES=", "RELAY_MAX_CLIENTS_PER_ROOM=20", "RELAY_MAX_MESSAGE_SIZE=1048576",
            "RELAY_ROOM_IDLE_TIMEOUT=3600", "RELAY_RATE_LIMIT_PER_IP=100", "RELAY_SHUTDOWN_GRACE=10",
            "RELAY_LOG_LEVEL=info", "RELAY_LOG_FORMAT=text",
        ] {
            #expect(lines.contains(line), "\(line)")
        }
        #expect(result.errors.isEmpty)
        let byDefault = try await relay("check-config").output
        #expect(byDefault.contains("RELAY_ADDR=:8443\n"))
        #expect(byDefault.contains("RELAY_TRUSTED_PROXIES=127.0.0.0/8,::1"))
    }

    @Test(arguments: [["check-config"], ["run"], []])
    func `names every variable that is wrong, with its value, and exits 78`(arguments: [String]) async throws {
        let bad = [
            "RELAY_ADDR": "localhost", "RELAY_WORKERS": "0", "RELAY_MAX_ROOMS": "many", "RELAY_MAX_MESSAGE_SIZE": "-1",
            "RELAY_MAX_CLIENTS_PER_ROOM": "1e3", "RELAY_ROOM_IDLE_TIMEOUT": "0", "RELAY_RATE_LIMIT_PER_IP": "1.5",
            "RELAY_MAX_BACKLOG": "x", "RELAY_TRUSTED_PROXIES": "10.0.0.1/8", "RELAY_MAX_CONNECTIONS": "0",
            "RELAY_SHUTDOWN_GRACE": "ten", "RELAY_MAX_MEMORY": "7M", "RELAY_LOG_LEVEL": "loud",
            "RELAY_LOG_FORMAT": "xml",
        ]
        let result = try await run(try program("relay"), arguments, environment: bad)
        #expect(result.end == .status(78))
        #expect(result.output.isEmpty)
        let lines = result.errors.split(separator: "\n")
        #expect(lines.count == bad.count)
        for (name, value) in bad {
            let line = lines.first { $0.contains("\(name)=") }
            #expect(line?.contains(value) == true && line?.contains("allowed") == true, "\(name)")
        }
    }

    @Test func `warns about a variable that it does not know`() async throws {
        let result = try await relay("check-config", environment: ["RELAY_MAX_ROOM": "5"])
        #expect(result.end == .status(0))
        #expect(result.errors.contains("RELAY_MAX_ROOM") && result.errors.contains("RELAY_MAX_ROOMS?"))
    }

    @Test func `refuses half of a TLS configuration, without showing it`() async throws {
        for name in ["RELAY_TLS_CERT", "RELAY_TLS_KEY"] {
            let result = try await relay(environment: [name: "/nowhere/secret"])
            #expect(result.end == .status(78))
            #expect(result.errors.contains(name))
        }
    }

    @Test func `explains itself`() async throws {
        let help = try await relay("--help")
        #expect(help.end == .status(0))
        #expect(help.output.contains("check-config") && help.output.contains("RELAY_"))
        #expect(help.errors.isEmpty)
        #expect(try await relay("--version").end == .status(0))
        #expect(try await relay("--nonsense").end == .status(64))
    }

    @Test func `says so where its port is taken, and exits 69`() async throws {
        try await Relay.run(workers: 1) { first in
            let result = try await relay(environment: ["RELAY_ADDR": "127.0.0.1:\(first.port)", "RELAY_WORKERS": "2"])
            #expect(result.end == .status(69))
            #expect(result.errors.contains("127.0.0.1:\(first.port)"))
            #expect(result.errors.contains("another program listens there"))
            // The one that was there has lost nothing.
            try await first.healthy()
        }
    }

    @Test func `tells who starts a worker by hand what to do`() async throws {
        let result = try await run(try program("relay-worker"))
        #expect(result.end == .status(64))
        #expect(result.errors.contains("run `relay`"))
    }

    @Test func `logs JSON where it is asked to`() async throws {
        let process = try ChildProcess(
            try program("relay"),
            environment: ["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "1", "RELAY_LOG_FORMAT": "json"])
        defer { process.signal(9) }
        try await eventually("a line about listening") { process.errors.contains(#""listening""#) }
        process.signal(15)
        #expect(try await process.finished() == .status(0))
        for line in process.errors.split(separator: "\n") { #expect(line.hasPrefix("{") && line.hasSuffix("}")) }
    }
}
