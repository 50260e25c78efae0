// The command line of `relay-load`.

import ArgumentParser
import Glibc

/// `relay-load`: `check`, `bench` and `soak`. Shares no code with the relay, so that a mistake made there is not made here again.
struct RelayLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay-load",
        abstract: "Check a running relay end to end, measure it, or keep it busy.",
        discussion: """
            Start with `relay-load check --url ws://localhost:8443`, which plays hosts and guests and says whether the \
            relay keeps every promise of its wire protocol. `relay-load bench` puts the relay under load and measures \
            latency, lost messages and the server's CPU time; `relay-load soak` keeps it busy while something is changed, \
            and tells whether any client could notice.
            """,
        subcommands: [CheckCommand.self, BenchCommand.self, SoakCommand.self])

    /// Runs the command line. Wrong options end with status 2, not with ArgumentParser's own 64: two kinds of "can't
    /// even begin" would only make scripts longer.
    static func start() -> Never {
        do {
            var command = try parseAsRoot()
            try command.run()
            Glibc.exit(0)
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            standardError(fullMessage(for: error))
            Glibc.exit(Exit.unusable.rawValue)
        }
    }
}

/// The exit statuses of all commands.
enum Exit {
    static let failed = ExitCode(1)
    static let unusable = ExitCode(2)
}

/// A problem that ends a command with status 2: one line on stderr that says what to do.
struct UsageError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Writes a line to stderr. Standard output holds results only.
func standardError(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = unsafe bytes.withUnsafeBytes { unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
