// `relay-load soak`: options and exit status.

import ArgumentParser
import CLinux

struct SoakCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Keep rooms busy and check that every message comes exactly once and in order.",
        discussion: """
            For changing the relay under load: reloads, upgrades, anything of which no client may notice. Members send \
            numbered messages of all sizes whose every byte the receivers know, and voice; they stop in the middle of \
            frames, messages and TLS records, read slowly, renew keys, ping, leave, come back; rooms end and new ones begin. A \
            connection that ends although the soak did not end it is a disconnect. New connections that are not let in \
            count as faults too (429 does not: it is a limit of the relay's).

            Runs for --seconds, or until SIGINT or SIGTERM; then it waits for what is under way and reports. SIGUSR1 \
            prints the figures since the last SIGUSR1, in one line: send one before and one after a change. How long voice \
            took is measured from the moment before it was sent. "own longest turn" is how long the soak itself was away \
            from its sockets: a delay up to that may be its own.

            What a message is follows from --seed; when it meets what others do depends on the machine as well.

            The relay's RELAY_MAX_BACKLOG must be 8 MiB, its default, or more; RELAY_MAX_MESSAGE_SIZE at least \
            --max-message.

            Exit status: 0 if nothing was amiss, 1 if something was, 2 if the relay can't be reached or the options are \
            wrong.

            Example: relay-load soak --url ws://localhost:8443 --seconds 60
            """)

    @Option(help: ArgumentHelp("The relay, as ws://HOST:PORT or wss://HOST:PORT.", valueName: "url"))
    var url: String

    @OptionGroup var trust: TrustOptions

    @Option(help: "Rooms at a time.")
    var rooms = 50

    @Option(help: "Members of each room.")
    var clients = 5

    @Option(help: "Seconds to send; without, until a signal.")
    var seconds: Double?

    @Option(help: "Data messages a second, of all together.")
    var rate = 300.0

    @Option(help: "Members of a room who speak, 50 voice frames a second each; every other room has one less.")
    var speakers = 2

    @Option(help: "Members who leave and come back, a second; one in twenty ends its room.")
    var churn = 1.0

    @Option(help: "Members who stop reading for a while, a second.")
    var pauses = 1.0

    @Option(name: .customLong("max-message"), help: "Bytes of the longest message.")
    var maxMessage = 1_048_576

    @Option(help: "What the messages depend on (default: random, printed).")
    var seed: UInt64?

    @Flag(help: "No line every five seconds.")
    var quiet = false

    @Flag(help: "Print the summary, and each interval, as one line of JSON.")
    var json = false

    func validate() throws {
        guard (1...10_000).contains(rooms) else { throw ValidationError("--rooms must be from 1 to 10000") }
        guard (3...20).contains(clients) else { throw ValidationError("--clients must be from 3 to 20") }
        guard (0.1...604_800).contains(seconds ?? 1) else {
            throw ValidationError("--seconds must be from 0.1 to 604800")
        }
        guard (0.1...100_000).contains(rate) else { throw ValidationError("--rate must be from 0.1 to 100000") }
        guard (0...clients).contains(speakers) else { throw ValidationError("--speakers must be from 0 to --clients") }
        guard (0...1000).contains(churn), (0...1000).contains(pauses) else {
            throw ValidationError("--churn and --pauses must be from 0 to 1000")
        }
        guard (200...1_048_576).contains(maxMessage) else {
            throw ValidationError("--max-message must be from 200 to 1048576")
        }
    }

    func run() throws {
        do {
            let endpoint = try Endpoint(url: url, trust: trust)
            let descriptors = clinux_raise_descriptor_limit()
            guard descriptors > rooms * clients + 100 else {
                throw UsageError(
                    "\(rooms) rooms x \(clients) members need more than the \(descriptors) open files that the system "
                        + "allows: raise the limit (ulimit -Hn) or use fewer --rooms")
            }
            // Nothing is worth reporting if nobody listens.
            _ = try Transport.connect(to: endpoint, deadline: Deadline(seconds: 10))
            let soak = SoakRun(endpoint, self, seed: seed ?? UInt64.random(in: 0...UInt64.max))
            guard soak.run() else { throw Exit.failed }
        } catch let error as UsageError {
            standardError("relay-load: \(error)")
            throw Exit.unusable
        } catch let error as ConnectError {
            standardError("relay-load: \(error.advice)")
            throw Exit.unusable
        }
    }
}
