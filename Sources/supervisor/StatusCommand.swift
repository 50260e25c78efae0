// `relay status`: how a running relay is, for people. The relay itself lays out the table (`/status`), so that it can be had by
// any HTTP client as well.

import ArgumentParser
import Glibc
import Shared

/// Which relay a command asks.
struct TargetOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The relay whose supervisor has this process id.", valueName: "n"))
    var pid: Int32?

    @Option(help: ArgumentHelp("The relay with this RELAY_METRICS_ADDR.", valueName: "host:port"))
    var address: String?

    var target: AdminTarget {
        get throws {
            guard let address else { return .relay(pid) }
            guard pid == nil else { throw ValidationError("--pid and --address exclude each other") }
            let text = address.hasPrefix("localhost:") ? "127.0.0.1:" + address.dropFirst(10) : address
            guard let parsed = ListenAddress(text), parsed.port != 0 else {
                throw ValidationError(
                    "--address \(LogText.quoted(address, bytesMax: Limits.quotedValueBytesMax)): it is HOST:PORT, "
                        + "[IPV6]:PORT or :PORT, with an IP address or localhost as HOST")
            }
            return .address(parsed)
        }
    }
}

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show how a running relay is.",
        discussion: """
            Asks the one relay of this user that runs on this machine (and in this network namespace), unless told \
            which. Exits 0 if it serves, 1 if it does not or there is none.
            """)

    @OptionGroup var options: TargetOptions

    @Flag(help: "Show it again each second, until Ctrl-C.")
    var watch = false

    @Flag(help: "Print the JSON of /health.")
    var json = false

    func validate() throws {
        _ = try options.target
    }

    func run() throws {
        let target = try options.target
        while true {
            let answer: AdminClient.Answer?
            let text: String
            do throws(AdminClientError) {
                let given = try AdminClient.get(json ? "/health" : "/status", from: target)
                (answer, text) = (given, given.body)
            } catch {
                guard watch else {
                    standardError("relay: \(error.description)")
                    throw ExitCode(ExitStatus.unhealthy)
                }
                // It may come back.
                (answer, text) = (nil, "relay: \(error.description)\n")
            }
            // ECMA-48: the cursor to the top left, and everything behind it erased.
            let clear = watch && !json ? "\u{1B}[H\u{1B}[J" : ""
            print(clear + printable(text), terminator: "")
            _ = fflush(nil)
            guard watch else {
                guard let answer, answer.status == 200 else { throw ExitCode(ExitStatus.unhealthy) }
                return
            }
            sleep(1)
        }
    }
}
