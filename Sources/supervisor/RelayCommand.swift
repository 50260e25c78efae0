// The command line of `relay`.

import ArgumentParser
import CLinux
import Glibc
import Logging
import Shared

/// `relay`: run by default.
struct RelayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay",
        abstract: "A WebSocket relay for end-to-end encrypted collaboration and voice.",
        discussion: """
            Everything is set by environment variables named RELAY_...; without any, the relay listens on port 8443 with
            one worker per CPU. `config/relay.env` explains each.

            SIGTERM and SIGINT close every connection with code 1001 and end the relay; a second one ends it at once.
            """,
        version: Version.text,
        subcommands: [RunCommand.self, CheckConfigCommand.self],
        defaultSubcommand: RunCommand.self)
}

/// The version of this build.
enum Version {
    static let text = "0.1.0"
}

struct CheckConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-config",
        abstract: "Check the RELAY_ variables and say what is in force.",
        discussion: "Exits 0 if the relay could start with them, else 78 with every problem on stderr.")

    func run() throws {
        print(try readConfiguration().summary)
    }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the relay (the default).",
        discussion: "Stops with status 0 after SIGTERM or SIGINT, 69 if its port is taken, 78 if a variable is wrong.")

    func run() throws {
        // Whoever reads the log or the greeting may go away; that ends no relay.
        _ = signal(SIGPIPE, SIG_IGN)
        let configuration = try readConfiguration()
        let logger = makeLogger(
            level: configuration.logLevel, format: configuration.logFormat, process: "supervisor")
        let supervisor: Supervisor
        do throws(StartError) {
            supervisor = try Supervisor(
                configuration, workerPath: try Self.workerPath(), environment: Self.workerEnvironment(), logger: logger)
        } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
        let status = supervisor.run {
            logger.info(
                "listening",
                metadata: ["address": "\(supervisor.address)", "workers": "\(configuration.workers)"])
            if configuration.logFormat == .text { Self.greet(supervisor.address, configuration) }
        }
        throw ExitCode(status)
    }

    /// For whoever has started the relay at a terminal.
    private static func greet(_ address: ListenAddress, _ configuration: Configuration) {
        let host =
            switch address.host {
            case .any: "localhost"
            case .address(let host): host.isIPv4 ? "\(host)" : "[\(host)]"
            }
        let workers = configuration.workers == 1 ? "1 worker" : "\(configuration.workers) workers"
        print(
            """

            relay \(Version.text) listens on \(address) with \(workers).

              Clients connect to   ws://\(host):\(address.port)/ws
              Is it healthy?       curl http://\(host):\(address.port)/health
              Does it all work?    relay-load check --url ws://\(host):\(address.port)
              Settings             relay check-config; config/relay.env explains each
              Stop                 Ctrl-C

            """)
        _ = fflush(nil)
    }

    /// `relay-worker` beside this binary.
    private static func workerPath() throws(StartError) -> String {
        let path = unsafe [CChar](unsafeUninitializedCapacity: 4096) { buffer, count in
            guard let start = buffer.baseAddress else { return }
            count = unsafe max(0, readlink("/proc/self/exe", start, buffer.count))
        }
        let text = String(decoding: path.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard let slash = text.lastIndex(of: "/") else {
            throw StartError(
                description: "can't find this program's own path in /proc", exitStatus: ExitStatus.unavailable)
        }
        return text[...slash] + "relay-worker"
    }

    /// What workers inherit: everything but the relay's own variables, which travel validated in the launch message.
    private static func workerEnvironment() -> [String] {
        // A trap starts Swift's backtracer by default, which holds the dead worker's descriptors and prints registers.
        environmentVariables().filter { !$0.key.hasPrefix("RELAY_") && $0.key != "SWIFT_BACKTRACE" }
            .map { "\($0.key)=\($0.value)" } + ["SWIFT_BACKTRACE=enable=no"]
    }
}

/// The configuration of this process's environment; every problem is printed.
private func readConfiguration() throws -> Configuration {
    _ = clinux_raise_descriptor_limit()
    let (configuration, problems, warnings) = Configuration.read(
        environment: environmentVariables(), machine: Machine.current())
    for warning in warnings { standardError("relay: warning: \(warning)") }
    for problem in problems { standardError("relay: \(problem)") }
    guard let configuration else { throw ExitCode(ExitStatus.configuration) }
    return configuration
}

private func environmentVariables() -> [String: String] {
    var variables: [String: String] = [:]
    guard var entry = unsafe clinux_environment() else { return variables }
    while let text = unsafe entry.pointee {
        let pair = unsafe String(cString: text)
        if let equals = pair.firstIndex(of: "=") {
            variables[String(pair[..<equals])] = String(pair[pair.index(after: equals)...])
        }
        unsafe entry += 1
    }
    return variables
}

private func standardError(_ line: String) {
    var line = line + "\n"
    line.withUTF8 { text in _ = unsafe write(2, text.baseAddress, text.count) }
}
