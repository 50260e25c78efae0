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
        subcommands: [
            RunCommand.self, StatusCommand.self, HealthCommand.self, CheckConfigCommand.self, ReloadCommand.self,
            UpgradeCommand.self, RecycleCommand.self, DevCertCommand.self,
            TakeOverCheckCommand.self,
        ],
        defaultSubcommand: RunCommand.self)
}

/// The version of this build.
enum Version {
    static let text = "0.1.0"
}

/// Where the settings come from.
struct SettingsOptions: ParsableArguments {
    @Option(
        name: .customLong("env-file"),
        help: ArgumentHelp(
            "A file of NAME=value lines that go before the environment; read again at a reload.", valueName: "file"))
    var file: String?

    var settings: Settings { Settings(file: file) }
}

struct CheckConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-config",
        abstract: "Check the RELAY_ variables and say what is in force.",
        discussion: "Exits 0 if the relay could start with them, else 78 with every problem on stderr.")

    @OptionGroup var options: SettingsOptions

    func run() throws {
        print(try Self.check(options.settings).summary)
    }

    /// The configuration, if the relay could start with it.
    @discardableResult
    static func check(_ settings: Settings) throws -> Configuration {
        let configuration = try readConfiguration(settings)
        do throws(StartError) {
            if let files = configuration.tls {
                let program = try WorkerProgram(variables: environmentVariables())
                let now = Int64(Clock.unixNanoseconds() / 1_000_000_000)
                var accounts = WorkerAccounts()
                try accounts.resolve(configuration)
                let sandbox = accounts.sandbox(configuration)
                let warning = try Credentials(files, program, sandbox).warning(nowUnixSeconds: now)
                if let warning { standardError("relay: warning: RELAY_TLS_CERT: \(warning)") }
            }
        } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
        return configuration
    }
}

/// What a running relay asks the program that is to take its place (Upgrade.swift).
struct TakeOverCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "take-over-check", abstract: "Whether this program could take a running relay's place.",
        shouldDisplay: false)

    @Option var format: UInt32
    @OptionGroup var options: SettingsOptions

    func run() throws {
        try CheckConfigCommand.check(options.settings)
        do throws(StartError) {
            _ = try WorkerProgram(variables: environmentVariables())
        } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
        if format != Compatibility.format { throw ExitCode(TakeOver.otherFormat) }
    }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the relay (the default).",
        discussion: "Stops with status 0 after SIGTERM or SIGINT, 69 if its port is taken, 78 if a variable is wrong.")

    @OptionGroup var options: SettingsOptions

    @Option(help: .private)
    var inherit: Int32?

    func run() throws {
        // Whoever reads the log or the greeting may go away; that ends no relay.
        _ = signal(SIGPIPE, SIG_IGN)
        // Executed by its descriptor, it would be called by the descriptor's number.
        unsafe clinux_set_name("relay")
        let inheritance = try takeInheritance()
        // Whoever has workers to go on with does so with the settings in force; what is wrong with others is told when they are to
        // be taken (Generations.swift).
        let configuration: Configuration
        if let inherited = inheritance?.estate?.configuration {
            _ = clinux_raise_descriptor_limit()
            configuration = inherited
        } else {
            configuration = try readConfiguration(options.settings)
        }
        let logger = makeLogger(
            level: configuration.logLevel, format: configuration.logFormat, process: "supervisor")
        let supervisor: Supervisor
        do throws(StartError) {
            let program = try WorkerProgram(variables: environmentVariables())
            supervisor = try makeSupervisor(inheritance, configuration, program, logger)
        } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
        let status = supervisor.run {
            logger.info(
                "listening",
                metadata: [
                    "address": "\(supervisor.address)", "workers": "\(configuration.workers)",
                    "tls": configuration.tls == nil ? "off" : "1.3",
                ])
            if configuration.logFormat == .text {
                Self.greet(supervisor.address, metrics: supervisor.adminAddress, configuration)
            }
        }
        throw ExitCode(status)
    }

    private func takeInheritance() throws -> Inheritance? {
        guard let inherit else { return nil }
        do throws(StartError) { return try Inheritance.take(from: inherit) } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
    }

    private func makeSupervisor(
        _ inheritance: Inheritance?, _ configuration: Configuration, _ program: WorkerProgram, _ logger: Logger
    ) throws(StartError) -> Supervisor {
        guard let inheritance else {
            return try Supervisor(configuration, options.settings, program, logger: logger)
        }
        let listeners = Listeners(inheritance.address, descriptors: inheritance.listeners)
        guard let estate = inheritance.estate else {
            return try Supervisor(configuration, options.settings, program, logger: logger, inherited: listeners)
        }
        return try Supervisor(listeners, estate, options.settings, program, logger: logger)
    }

    /// For whoever has started the relay at a terminal.
    private static func greet(_ address: ListenAddress, metrics: ListenAddress?, _ configuration: Configuration) {
        let host =
            switch address.host {
            case .any: "localhost"
            case .address(let host): host.isIPv4 ? "\(host)" : "[\(host)]"
            }
        let workers = configuration.workers == 1 ? "1 worker" : "\(configuration.workers) workers"
        let secure = configuration.tls == nil ? "" : "s"
        // A certificate of one's own making is not trusted by itself.
        let (curl, check) =
            configuration.tls.map { (" --cacert \($0.certificate)", " --ca \($0.certificate)") } ?? ("", "")
        print(
            """

            relay \(Version.text) listens on \(address) with \(workers).

              Clients connect to   ws\(secure)://\(host):\(address.port)/ws
              Is it healthy?       curl\(curl) http\(secure)://\(host):\(address.port)/health
              How is it doing?     relay status --watch\(metrics.map { "; metrics at \($0)" } ?? "")
              Does it all work?    relay-load check\(check) --url ws\(secure)://\(host):\(address.port)
              Settings             relay check-config; config/relay.env explains each
              Stop                 Ctrl-C

            """)
        _ = fflush(nil)
    }
}

/// The configuration of this process; every problem is printed.
private func readConfiguration(_ settings: Settings) throws -> Configuration {
    _ = clinux_raise_descriptor_limit()
    let (configuration, problems, warnings) = settings.read()
    for warning in warnings { standardError("relay: warning: \(warning)") }
    for problem in problems { standardError("relay: \(problem)") }
    guard let configuration else { throw ExitCode(ExitStatus.configuration) }
    return configuration
}

func environmentVariables() -> [String: String] {
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

/// Opens standard streams that whoever started this process has closed. Else the first descriptors to be opened would take their
/// numbers, and the log would be written into a listener, an inbox or the shared memory.
func openStandardStreams() {
    for number in Int32(0)...2 where fcntl(number, F_GETFD) < 0 {
        // The lowest number that is free is this one; it stays open for workers.
        _ = unsafe open("/dev/null", O_RDWR)
    }
}

func standardError(_ line: String) {
    var line = line + "\n"
    line.withUTF8 { text in _ = unsafe write(2, text.baseAddress, text.count) }
}
