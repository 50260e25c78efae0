import Logging
import Shared
import Testing

private let machine = Machine(cpusByAffinity: 4, cpuQuota: nil, descriptorsMax: 1 << 20)

private typealias Outcome = (configuration: Configuration?, problems: [Configuration.Problem], warnings: [String])

private func read(_ environment: [String: String], on machine: Machine = machine) -> Outcome {
    let (configuration, problems, warnings) = Configuration.read(environment: environment, machine: machine)
    return (configuration, problems, warnings)
}

private let variables = Configuration.settings.map { "\($0.name)" }

/// A variable that holds a number, its default and what it may be.
struct NumberCase: Sendable, CustomTestStringConvertible {
    var name: String
    var path: any WritableKeyPath<Configuration, Int> & Sendable
    var standard: Int
    var range: ClosedRange<Int>
    /// What else to set so that the whole range is open.
    var beside: [String: String] = [:]

    var testDescription: String { name }
}

private let numbers: [NumberCase] = [
    NumberCase(name: "RELAY_MAX_ROOMS", path: \.roomsMax, standard: 1000, range: 1...1_000_000),
    NumberCase(name: "RELAY_MAX_CLIENTS_PER_ROOM", path: \.clientsPerRoomMax, standard: 20, range: 1...10_000),
    NumberCase(
        name: "RELAY_MAX_MESSAGE_SIZE", path: \.messageBytesMax, standard: 1_048_576, range: 1024...67_108_864,
        beside: ["RELAY_MAX_BACKLOG": "1073741824"]),
    NumberCase(name: "RELAY_ROOM_IDLE_TIMEOUT", path: \.roomIdleSeconds, standard: 3600, range: 1...2_592_000),
    NumberCase(name: "RELAY_RATE_LIMIT_PER_IP", path: \.joinsPerSecondPerAddress, standard: 100, range: 0...100_000),
    NumberCase(
        name: "RELAY_WORKERS", path: \.workers, standard: 4, range: 1...256, beside: ["RELAY_MAX_MEMORY": "4G"]),
    NumberCase(
        name: "RELAY_MAX_MEMORY", path: \.memoryBytesMax, standard: 536_870_912, range: 8_388_608...1_099_511_627_776,
        beside: ["RELAY_WORKERS": "1", "RELAY_MAX_MESSAGE_SIZE": "1024"]),
    NumberCase(
        name: "RELAY_MAX_BACKLOG", path: \.backlogBytesMax, standard: 19_923_134, range: 1034...1_073_741_824,
        beside: ["RELAY_MAX_MESSAGE_SIZE": "1024"]),
    NumberCase(name: "RELAY_MAX_CONNECTIONS", path: \.connectionsMax, standard: 1_000_000, range: 1...1_000_000),
    NumberCase(
        name: "RELAY_MAX_CONNECTIONS_PER_IP", path: \.connectionsPerAddressMax, standard: 500, range: 0...1_000_000),
    NumberCase(name: "RELAY_MAX_ROOMS_PER_IP", path: \.roomsPerAddressMax, standard: 100, range: 0...1_000_000),
    NumberCase(
        name: "RELAY_MAX_MESSAGES_PER_SECOND", path: \.messagesPerSecondMax, standard: 0, range: 0...1_000_000),
    NumberCase(name: "RELAY_MAX_BYTES_PER_SECOND", path: \.bytesPerSecondMax, standard: 0, range: 0...(1 << 32)),
    NumberCase(name: "RELAY_PING_INTERVAL", path: \.pingSeconds, standard: 25, range: 5...30),
    NumberCase(name: "RELAY_SHUTDOWN_GRACE", path: \.shutdownGraceSeconds, standard: 10, range: 0...3600),
]

@Suite struct `The configuration` {
    @Test func `has the documented defaults`() throws {
        let outcome = read([:])
        let configuration = try #require(outcome.configuration)
        #expect(outcome.problems.isEmpty)
        #expect(outcome.warnings.isEmpty)
        #expect(configuration.listen == ListenAddress(host: .any, port: 8443))
        for number in numbers { #expect(configuration[keyPath: number.path] == number.standard, "\(number.name)") }
        #expect(configuration.trustedProxies.map(\.description) == ["127.0.0.0/8", "::1"])
        #expect(configuration.clientAddress == .auto)
        #expect(configuration.allowedOrigins.isEmpty && configuration.metricsHosts.isEmpty)
        #expect(configuration.logLevel == .info)
        #expect(configuration.logFormat == .text)
        Limits.check(configuration)
    }

    @Test(arguments: numbers)
    func `takes the bounds of each number and nothing beyond them`(number: NumberCase) throws {
        func read(_ value: Int) -> Outcome {
            SharedTests.read(number.beside.merging([number.name: "\(value)"]) { $1 })
        }
        for value in [number.range.lowerBound, number.range.lowerBound + 1, number.range.upperBound] {
            let configuration = try #require(read(value).configuration, "\(number.name)=\(value)")
            #expect(configuration[keyPath: number.path] == value)
        }
        for value in [number.range.lowerBound - 1, number.range.upperBound + 1] {
            let outcome = read(value)
            #expect(outcome.configuration == nil)
            let problem = try #require(outcome.problems.first)
            #expect(outcome.problems.count == 1)
            #expect(problem.variable == number.name)
            #expect(problem.value == "\(value)")
            #expect(problem.allowed.contains("from \(number.range.lowerBound) to \(number.range.upperBound)"))
            #expect(problem.description.hasPrefix("\(number.name)="))
        }
    }

    @Test(
        arguments: numbers,
        [
            " ", "x", "-1", "+1", " 2000", "2000 ", "2e3", "0x7D0", "2000.0", "2,000", "2_000", "٢٠٠٠", "２０００",
            "2000\n",
            "99999999999999999999", "1000000000000000000000000000000", "AUTO", "2000\0",
        ])
    func `refuses what is no plain decimal number`(number: NumberCase, text: String) {
        let outcome = read(number.beside.merging([number.name: text]) { $1 })
        #expect(outcome.problems.map(\.variable) == [number.name])
        #expect(outcome.problems.map(\.value) == [text])
        #expect(outcome.configuration == nil)
    }

    @Test(arguments: variables.filter { $0 != "RELAY_TRUSTED_PROXIES" })
    func `takes an empty value for none`(variable: String) {
        let outcome = read([variable: ""])
        #expect(outcome.configuration == read([:]).configuration)
        #expect(outcome.configuration != nil)
        #expect(outcome.warnings.isEmpty)
    }

    @Test func `takes auto where that is the default and nowhere else`() {
        for number in numbers {
            let isAuto = [
                "RELAY_WORKERS", "RELAY_MAX_CONNECTIONS", "RELAY_MAX_MEMORY", "RELAY_MAX_BACKLOG",
            ].contains(number.name)
            #expect((read([number.name: "auto"]).configuration == read([:]).configuration) == isAuto, "\(number.name)")
        }
    }

    @Test(
        arguments: [
            ("RELAY_MAX_MESSAGE_SIZE", "1K", 1024), ("RELAY_MAX_MESSAGE_SIZE", "4M", 4_194_304),
            ("RELAY_MAX_MESSAGE_SIZE", "007M", 7_340_032), ("RELAY_MAX_BACKLOG", "1G", 1_073_741_824),
            ("RELAY_MAX_BACKLOG", "16384K", 16_777_216),
        ] as [(String, String, Int)])
    func `takes sizes in bytes with K, M and G for powers of 1024`(name: String, text: String, bytes: Int) throws {
        let number = try #require(numbers.first { $0.name == name })
        let configuration = try #require(read(number.beside.merging([name: text]) { $1 }).configuration)
        #expect(configuration[keyPath: number.path] == bytes)
    }

    @Test(arguments: [
        "K", "M", "1k", "1m", "1KB", "1KiB", "1 K", " 1M", "1M ", "1.5M", "-1M", "+1M", "1MM", "M1", "1B", "1T", "0x1M",
        "10\u{0600}K", "٢M", "1M\u{301}", "1M\0", "0K", "1000K\n", "9007199254740993K", "999999999999999999G",
        "1000000000000000000M",
    ])
    func `refuses other sizes, and says which there are`(text: String) {
        for (name, range, rest) in [
            ("RELAY_MAX_MESSAGE_SIZE", "from 1024 to 67108864", ""),
            ("RELAY_MAX_BACKLOG", "from 1034 to 1073741824", ", or auto"),
            ("RELAY_MAX_MEMORY", "from 8388608 to 1099511627776", ", or auto"),
        ] {
            let problems = read([name: text]).problems
            #expect(
                problems.map(\.allowed) == [
                    "bytes, a whole number \(range), or with K, M or G for powers of 1024\(rest)"
                ])
        }
    }

    @Test func `takes a size for the bytes that it is, at the bounds`() {
        #expect(read(["RELAY_MAX_MESSAGE_SIZE": "65536K", "RELAY_MAX_BACKLOG": "1G"]).configuration != nil)
        #expect(read(["RELAY_MAX_MESSAGE_SIZE": "65537K", "RELAY_MAX_BACKLOG": "1G"]).configuration == nil)
        #expect(read(["RELAY_MAX_MESSAGE_SIZE": "65M", "RELAY_MAX_BACKLOG": "1G"]).configuration == nil)
        #expect(read(["RELAY_MAX_BACKLOG": "2G"]).configuration == nil)
        // Only sizes have suffixes.
        let sizes = ["RELAY_MAX_MESSAGE_SIZE", "RELAY_MAX_BACKLOG", "RELAY_MAX_BYTES_PER_SECOND", "RELAY_MAX_MEMORY"]
        for number in numbers where !sizes.contains(number.name) {
            #expect(read([number.name: "1K"]).problems.map(\.variable) == [number.name])
        }
    }

    @Test func `takes leading zeros of a number for nothing`() {
        #expect(read(["RELAY_MAX_ROOMS": "007"]).configuration?.roomsMax == 7)
    }

    @Test(arguments: ClientAddressSource.allCases)
    func `reads what names the client`(source: ClientAddressSource) {
        #expect(read(["RELAY_CLIENT_ADDRESS": source.rawValue]).configuration?.clientAddress == source)
        #expect(
            ClientAddressSource.allCases.map(\.rawValue).joined(separator: "|")
                == "auto|peer|x-forwarded-for|x-real-ip|cf-connecting-ip|proxy-protocol")
        for wrong in [source.rawValue.uppercased(), "\(source.rawValue) ", "forwarded"] {
            #expect(read(["RELAY_CLIENT_ADDRESS": wrong]).problems.map(\.variable) == ["RELAY_CLIENT_ADDRESS"])
        }
        let untrusting = read(["RELAY_CLIENT_ADDRESS": source.rawValue, "RELAY_TRUSTED_PROXIES": ""])
        #expect((untrusting.configuration == nil) == (source == .proxyProtocol), "nobody could connect")
        if source == .proxyProtocol {
            #expect(untrusting.problems.map(\.variable) == ["RELAY_CLIENT_ADDRESS"])
            #expect(untrusting.problems.first?.allowed.contains("RELAY_TRUSTED_PROXIES") == true)
        }
    }

    @Test func `reads from which pages browsers may join, and by which names metrics may be asked for`() {
        let outcome = read([
            "RELAY_ALLOWED_ORIGINS": "https://Chat.example:443, http://localhost:3000",
            "RELAY_METRICS_HOSTS": "Relay.example , prometheus",
        ])
        #expect(
            outcome.configuration?.allowedOrigins.map(\.description) == [
                "https://chat.example", "http://localhost:3000",
            ])
        #expect(outcome.configuration?.metricsHosts.map(\.description) == ["relay.example", "prometheus"])
        for wrong in [
            "*", "chat.example", "https://chat.example/", "https://a,,https://b", "null", "https://a https://b",
        ] {
            #expect(read(["RELAY_ALLOWED_ORIGINS": wrong]).problems.map(\.variable) == ["RELAY_ALLOWED_ORIGINS"])
        }
        for wrong in ["*", "relay:9090", "[::1]", "https://relay", "a b", ","] {
            #expect(read(["RELAY_METRICS_HOSTS": wrong]).problems.map(\.variable) == ["RELAY_METRICS_HOSTS"])
        }
        let many = { (text: String, count: Int) in Array(repeating: text, count: count).joined(separator: ",") }
        #expect(read(["RELAY_ALLOWED_ORIGINS": many("https://a", 16)]).configuration?.allowedOrigins.count == 16)
        #expect(read(["RELAY_ALLOWED_ORIGINS": many("https://a", 17)]).configuration == nil)
        #expect(read(["RELAY_METRICS_HOSTS": many("a", 16)]).configuration?.metricsHosts.count == 16)
        #expect(read(["RELAY_METRICS_HOSTS": many("a", 17)]).configuration == nil)
    }

    @Test(arguments: ["[::1]:80", "127.0.0.1:0", ":65535"])
    func `reads where to listen`(text: String) {
        #expect(read(["RELAY_ADDR": text]).configuration?.listen == ListenAddress(text))
        #expect(read(["RELAY_METRICS_ADDR": text]).configuration?.metrics == ListenAddress(text))
        #expect(read([:]).configuration?.metrics == nil)
    }

    @Test(arguments: ["8443", "localhost:8443", ":65536", "::1:80", " :80"])
    func `says what an address to listen on looks like`(text: String) throws {
        for variable in ["RELAY_ADDR", "RELAY_METRICS_ADDR"] {
            let problem = try #require(read([variable: text]).problems.first)
            #expect(problem.variable == variable)
            #expect(problem.allowed.contains("HOST:PORT"))
        }
    }

    @Test(
        arguments: [
            ("", []), ("10.0.0.0/8", ["10.0.0.0/8"]), ("10.0.0.0/8,::1", ["10.0.0.0/8", "::1"]),
            (" 10.0.0.1 , 10.0.0.2 ", ["10.0.0.1", "10.0.0.2"]),
        ] as [(String, [String])])
    func `reads whom to trust, and empty for nobody`(text: String, ranges: [String]) {
        #expect(read(["RELAY_TRUSTED_PROXIES": text]).configuration?.trustedProxies.map(\.description) == ranges)
    }

    @Test(arguments: [
        " ", ",", "10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0/8,,::1", "10.0.0.1/8", "localhost", "10.0.0.0/8 ::1", "*",
        "all",
    ])
    func `refuses to guess whom to trust`(text: String) {
        #expect(read(["RELAY_TRUSTED_PROXIES": text]).problems.map(\.variable) == ["RELAY_TRUSTED_PROXIES"])
    }

    @Test func `takes so many trusted proxies and no more`() {
        let most = Array(repeating: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", count: Limits.trustedProxiesMax)
        let outcome = read(["RELAY_TRUSTED_PROXIES": most.joined(separator: ",")])
        #expect(outcome.configuration?.trustedProxies.count == Limits.trustedProxiesMax)
        let more = Array(repeating: "::1", count: Limits.trustedProxiesMax + 1).joined(separator: ",")
        #expect(read(["RELAY_TRUSTED_PROXIES": more]).problems.count == 1)
    }

    @Test(arguments: ["trace", "debug", "info", "notice", "warning", "error", "critical"])
    func `reads the log level`(text: String) {
        #expect(read(["RELAY_LOG_LEVEL": text]).configuration?.logLevel.rawValue == text)
    }

    @Test func `refuses other log levels and formats and lists them`() {
        for text in ["INFO", "warn", "off", "0", "info "] {
            let problems = read(["RELAY_LOG_LEVEL": text]).problems
            #expect(problems.map(\.allowed) == ["trace, debug, info, notice, warning, error, critical"])
        }
        #expect(read(["RELAY_LOG_FORMAT": "json"]).configuration?.logFormat == .json)
        #expect(
            read(["RELAY_LOG_FORMAT": "xml"]).problems.map(\.description) == [
                "RELAY_LOG_FORMAT=\"xml\": allowed: text, json"
            ])
    }

    @Test func `takes of a worker's user what can be a name`() {
        for name in ["", "relay-worker", String(repeating: "a", count: 32)] {
            #expect(read(["RELAY_WORKER_USER": name]).configuration?.workerUser == (name.isEmpty ? nil : name))
        }
        for name in ["a b", "a:b", "a/b", "é", "a\n", String(repeating: "a", count: 33)] {
            #expect(read(["RELAY_WORKER_USER": name]).problems.map(\.variable) == ["RELAY_WORKER_USER"])
        }
    }

    @Test func `wants a backlog that holds the largest message, and names both variables`() throws {
        #expect(read(["RELAY_MAX_MESSAGE_SIZE": "2000", "RELAY_MAX_BACKLOG": "2010"]).configuration != nil)
        for environment in [
            ["RELAY_MAX_MESSAGE_SIZE": "2000", "RELAY_MAX_BACKLOG": "2009"],
            ["RELAY_MAX_BACKLOG": "1048585"],
        ] {
            let problems = read(environment).problems
            #expect(problems.count == 1)
            let text = try #require(problems.first).description
            #expect(text.contains("RELAY_MAX_BACKLOG="))
            #expect(text.contains("RELAY_MAX_MESSAGE_SIZE="))
        }
        #expect(read(["RELAY_MAX_BACKLOG": "1048586"]).configuration != nil)
    }

    @Test func `has a backlog that holds what everybody else in a room may say at once, within half of the memory`() {
        func backlog(_ environment: [String: String]) -> Int? { read(environment).configuration?.backlogBytesMax }
        #expect(backlog([:]) == 19 * 1_048_586)
        #expect(backlog(["RELAY_MAX_CLIENTS_PER_ROOM": "2"]) == 1_048_586)
        #expect(backlog(["RELAY_MAX_CLIENTS_PER_ROOM": "1"]) == 1_048_586)
        #expect(backlog(["RELAY_MAX_MESSAGE_SIZE": "2M"]) == 19 * 2_097_162)
        #expect(backlog(["RELAY_MAX_MEMORY": "32M", "RELAY_WORKERS": "1"]) == 16 << 20)
        #expect(backlog(["RELAY_MAX_CLIENTS_PER_ROOM": "10000"]) == 256 << 20)
    }

    @Test func `has half of the machine's memory, and no more workers than half of that suffices for`() throws {
        func configuration(_ bytes: Int, _ environment: [String: String] = [:]) throws -> Configuration {
            let machine = Machine(cpusByAffinity: 64, cpuQuota: nil, descriptorsMax: 1 << 20, memoryBytes: bytes)
            return try #require(read(environment, on: machine).configuration)
        }
        for (mebibytes, workers) in [(16, 1), (64, 2), (256, 8), (1024, 32), (1 << 20, 64)] {
            let configuration = try configuration(mebibytes << 20)
            #expect(configuration.memoryBytesMax == max(8, mebibytes / 2) << 20)
            #expect(configuration.workers == workers)
        }
        #expect(try configuration(4 << 30, ["RELAY_MAX_MESSAGE_SIZE": "64M"]).workers == 7)
        #expect(try configuration(4 << 30, ["RELAY_MAX_MEMORY": "100M"]).workers == 6)
    }

    @Test func `wants memory for each worker's floor, and says how much`() throws {
        let floor = Limits.memoryFloorBytes(Configuration())
        let environment = ["RELAY_WORKERS": "3", "RELAY_MAX_MEMORY": "\(3 * floor - 1)"]
        let problems = read(environment).problems
        #expect(problems.map(\.variable) == ["RELAY_MAX_MEMORY"])
        let text = try #require(problems.first).description
        for part in ["at least \(3 * floor)", "RELAY_WORKERS=3", "RELAY_MAX_MESSAGE_SIZE=1048576"] {
            #expect(text.contains(part), "\(text)")
        }
        #expect(read(["RELAY_WORKERS": "3", "RELAY_MAX_MEMORY": "\(3 * floor)"]).configuration != nil)
    }

    @Test func `fits its connections and workers to the descriptors`() throws {
        let small = Machine(cpusByAffinity: 2, cpuQuota: nil, descriptorsMax: 1024, memoryBytes: 1 << 32)
        #expect(read([:], on: small).configuration?.connectionsMax == 958)
        #expect(read(["RELAY_WORKERS": "1"], on: small).configuration?.connectionsMax == 959)
        #expect(read(["RELAY_MAX_CONNECTIONS": "958"], on: small).configuration?.connectionsMax == 958)
        let problem = try #require(read(["RELAY_MAX_CONNECTIONS": "959"], on: small).problems.first)
        #expect(problem.allowed.contains("from 1 to 958"))
        #expect(problem.allowed.contains("ulimit -n"))
        #expect(read(["RELAY_WORKERS": "120"], on: small).configuration?.workers == 120)
        #expect(try #require(read(["RELAY_WORKERS": "121"], on: small).problems.first).allowed.contains("1 to 120"))
        let tiny = Machine(cpusByAffinity: 2, cpuQuota: nil, descriptorsMax: 65)
        #expect(read([:], on: tiny).problems.map(\.variable) == ["RELAY_MAX_CONNECTIONS"])
    }

    @Test func `tells all problems at once, each in a line`() {
        var environment: [String: String] = [:]
        for variable in variables { environment[variable] = "no\nsuch thing" }
        let outcome = read(environment)
        #expect(outcome.configuration == nil)
        #expect(outcome.problems.map(\.variable) == variables)
        #expect(outcome.warnings.isEmpty)
        for problem in outcome.problems { #expect(!problem.description.contains("\n")) }
    }

    @Test func `quotes little of a long value and refuses one that is too long`() throws {
        let long = String(repeating: "1", count: Limits.environmentValueBytesMax + 1)
        for variable in variables {
            let problems = read([variable: long]).problems
            #expect(Set(problems.map(\.variable)) == [variable])
            #expect(try #require(problems.first).description.utf8.count < 400)
        }
    }

    @Test(arguments: [("RELAY_TLS_CERT", "RELAY_TLS_KEY"), ("RELAY_TLS_KEY", "RELAY_TLS_CERT")])
    func `wants both files of TLS, or neither`(name: String, other: String) throws {
        let outcome = read([name: "/a"])
        #expect(outcome.configuration == nil)
        #expect(
            outcome.problems.map(\.description) == [
                "\(name) is set: TLS needs \(other) as well; unset both for plain HTTP"
            ])
        #expect(read([name: "/a", other: ""]).configuration == nil)
        #expect(read([name: "", other: ""]).configuration?.tls == nil)
        let both = read(["RELAY_TLS_CERT": "/a", "RELAY_TLS_KEY": "/b"])
        #expect(both.configuration?.tls == .init(certificate: "/a", privateKey: "/b"))
    }

    @Test(arguments: ["RELAY_TLS_CERT", "RELAY_TLS_KEY"])
    func `does not show what may be a key in place of its file`(name: String) throws {
        let secret = "-----BEGIN PRIVATE KEY-----\nPRIVATE\n"
        let outcome = read([name: secret])
        #expect(outcome.configuration == nil)
        let text = try #require(outcome.problems.first).description
        #expect(text == "\(name) is set: it takes the path of a PEM file, not what is in the file")
        #expect(!"\(outcome)".contains("PRIVATE"))
        // A path has PATH_MAX bytes with its NUL.
        for (bytes, isGood) in [(4095, true), (4096, false)] {
            let path = String(repeating: "p", count: bytes)
            #expect((read(["RELAY_TLS_CERT": path, "RELAY_TLS_KEY": path]).configuration != nil) == isGood)
        }
    }

    @Test(
        arguments: [
            ("RELAY_MAX_ROOM", "RELAY_MAX_ROOMS"), ("RELAY_ADRR", "RELAY_ADDR"), ("RELAY_LOGLEVEL", "RELAY_LOG_LEVEL"),
            ("RELAY_RATE_LIMIT", nil), ("RELAY_WORKER", "RELAY_WORKERS"), ("RELAY_", nil),
            ("RELAY_SOMETHING_ELSE", nil),
            ("RELAY_MAX_CLIENTS_PER_ROOMS", "RELAY_MAX_CLIENTS_PER_ROOM"), ("RELAY_max_rooms", "RELAY_MAX_ROOMS"),
            ("RELAY_\u{1B}[2J", nil), ("RELAY_" + String(repeating: "X", count: 100_000), nil),
        ] as [(String, String?)])
    func `warns about unknown names and suggests what is near`(name: String, suggestion: String?) throws {
        let outcome = read([name: "1"])
        #expect(outcome.configuration != nil)
        let warning = try #require(outcome.warnings.first)
        #expect(outcome.warnings.count == 1)
        #expect(warning.utf8.count < 300)
        #expect(!warning.contains("\u{1B}"))
        if let suggestion {
            #expect(warning == "unknown variable \"\(name)\": did you mean \(suggestion)?")
        } else {
            #expect(warning.hasSuffix("\": it has no effect"))
        }
    }

    @Test func `leaves other programs' variables alone`() {
        let outcome = read(["PATH": "/bin", "RELAYED": "1", "relay_addr": "x", "XRELAY_ADDR": "x"])
        #expect(outcome.configuration == read([:]).configuration)
        #expect(outcome.warnings.isEmpty)
    }

    @Test func `sums itself up as it can be set again`() throws {
        let configuration = try #require(read(unusual).configuration)
        var environment: [String: String] = [:]
        for line in configuration.summary.split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            environment[String(parts[0])] = String(parts[1])
        }
        #expect(environment.keys.sorted() == variables.sorted())
        #expect(read(environment).configuration == configuration)
    }
}

private let unusual = [
    "RELAY_ADDR": "[2001:db8::1]:1", "RELAY_METRICS_ADDR": "127.0.0.1:9",
    "RELAY_TLS_CERT": "/etc/c.pem", "RELAY_TLS_KEY": "k", "RELAY_MAX_ROOMS": "2",
    "RELAY_MAX_CLIENTS_PER_ROOM": "3",
    "RELAY_MAX_MESSAGE_SIZE": "4096", "RELAY_ROOM_IDLE_TIMEOUT": "5", "RELAY_RATE_LIMIT_PER_IP": "0",
    "RELAY_WORKERS": "7", "RELAY_MAX_MEMORY": "100000000",
    "RELAY_TRUSTED_PROXIES": "10.0.0.0/8,::/0,192.0.2.1", "RELAY_MAX_BACKLOG": "8192", "RELAY_MAX_CONNECTIONS": "9",
    "RELAY_MAX_CONNECTIONS_PER_IP": "10", "RELAY_MAX_ROOMS_PER_IP": "12", "RELAY_SHUTDOWN_GRACE": "11",
    "RELAY_LOG_LEVEL": "critical", "RELAY_CLIENT_ADDRESS": "proxy-protocol",
    "RELAY_ALLOWED_ORIGINS": "https://a.example,app://b:1", "RELAY_METRICS_HOSTS": "c.example,d",
    "RELAY_SANDBOX": "required", "RELAY_WORKER_USER": "relay.worker-1_a",
]

@Suite struct `The configuration as bytes` {
    private func bytes(_ configuration: Configuration) -> [UInt8] {
        var writer = ByteWriter()
        configuration.encode(into: &writer)
        return writer.bytes
    }

    @Test(arguments: [
        [:], unusual, ["RELAY_ADDR": "127.0.0.1:0", "RELAY_TRUSTED_PROXIES": "", "RELAY_LOG_LEVEL": "trace"],
    ])
    func `is read back whole`(environment: [String: String]) throws {
        let configuration = try #require(read(environment).configuration)
        var reader = ByteReader(bytes(configuration))
        #expect(try Configuration(from: &reader) == configuration)
        try reader.finish()
    }

    @Test func `is truncated wherever it is cut`() throws {
        let whole = bytes(try #require(read(unusual).configuration))
        for count in 0..<whole.count {
            #expect(throws: ByteCodingError.truncated) {
                var reader = ByteReader(Array(whole.prefix(count)))
                _ = try Configuration(from: &reader)
            }
        }
    }

    @Test func `is a configuration within the limits, or an error, whatever byte is changed`() throws {
        let whole = bytes(try #require(read(unusual).configuration))
        for index in whole.indices {
            for change: UInt8 in [0x01, 0x80, 0xFF] {
                var changed = whole
                changed[index] ^= change
                var reader = ByteReader(changed)
                if let configuration = try? Configuration(from: &reader) {
                    Limits.check(configuration)
                    #expect(configuration != read(unusual).configuration)
                }
            }
        }
    }

    @Test func `has each variable once`() {
        #expect(Set(variables).count == variables.count)
        #expect(variables.allSatisfy { $0.hasPrefix("RELAY_") })
    }

    @Test(arguments: numbers)
    func `is refused with a number out of its range`(number: NumberCase) {
        var configuration = Configuration()
        configuration[keyPath: number.path] = 1 << 41
        #expect(throws: ByteCodingError.self) {
            var reader = ByteReader(bytes(configuration))
            _ = try Configuration(from: &reader)
        }
    }

    @Test func `fits a launch message at its longest`() throws {
        var configuration = try #require(read(unusual).configuration)
        configuration.trustedProxies = Array(
            repeating: try #require(AddressRange("::1")), count: Limits.trustedProxiesMax)
        let key = [UInt8](repeating: 7, count: Limits.placementKeyBytes)
        let launch = ControlMessage.Launch(
            index: 1, workers: 2, page: 0, placementKey: key, configuration: configuration)
        let message = ControlMessage.launch(launch)
        #expect(message.bytes.count <= Limits.controlMessageBytesMax)
        #expect(try ControlMessage(message.bytes) == message)
    }
}
