// `relay-load check`: options and exit status.

import ArgumentParser
import CLinux

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check that a running relay keeps its wire protocol.",
        discussion: """
            Opens rooms, joins guests, sends every kind of message in both directions and compares what each member \
            gets with what it must get; then tries what the relay must refuse. Room ids are random, so a relay in use \
            may be checked; nobody else's room is touched.

            A relay with W workers has W x W ways from the worker that accepts a connection to the worker that owns \
            its room, and a client can't choose. --workers W opens as many rooms as make it 99 % likely that all are \
            used; the last line says how likely it was. A relay's limit of joins per second (RELAY_RATE_LIMIT_PER_IP) \
            makes a big check slower, not wrong.

            Exit status: 0 if everything is as it must be, 1 if something is not, 2 if the relay can't be reached or \
            the options are wrong.

            Over wss:// the relay's certificate must be one that this machine trusts, or that --ca names. TLS itself is \
            checked too: records cut and joined, KeyUpdates, close_notify, resumption.

            Example: relay-load check --url ws://localhost:8443
            """)

    @Option(help: ArgumentHelp("The relay, as ws://HOST:PORT or wss://HOST:PORT.", valueName: "url"))
    var url: String

    @OptionGroup var trust: TrustOptions

    @Option(help: "Workers of the relay: sets --rooms so that every way between them is used. Up to 64.")
    var workers: Int?

    @Option(name: .customLong("rooms"), help: "Rooms to open at once (default: 64, or by --workers).")
    var roomsGiven: Int?

    @Option(help: "Guests in each room beside its host. The relay allows 20 clients in a room by default.")
    var guests = 3

    @Option(help: "Seconds after which a step that is not done has failed; joins get longer, for the rate limit.")
    var timeout = 10.0

    @Option(help: "The relay's RELAY_MAX_MESSAGE_SIZE in bytes.")
    var maxMessage = 1_048_576

    @Flag(help: "Show up to 20 failures of each kind, not 3.")
    var verbose = false

    /// Rooms to open at once.
    var rooms: Int {
        roomsGiven ?? max(64, workers.map { Coverage.rooms(workers: $0, joinsPerRoom: guests + 1) } ?? 64)
    }

    func validate() throws {
        guard (1...64).contains(workers ?? 1) else { throw ValidationError("--workers must be from 1 to 64") }
        guard (1...100_000).contains(rooms) else { throw ValidationError("--rooms must be from 1 to 100000") }
        guard (2...63).contains(guests) else {
            throw ValidationError("--guests must be from 2 to 63: with fewer, no message goes from guest to guest")
        }
        guard (0.1...3600).contains(timeout) else {
            throw ValidationError("--timeout must be from 0.1 to 3600 seconds")
        }
        guard (65_600...268_435_456).contains(maxMessage) else {
            throw ValidationError("--max-message must be from 65600 to 268435456")
        }
    }

    func run() throws {
        do {
            let endpoint = try Endpoint(url: url, trust: trust)
            let descriptors = clinux_raise_descriptor_limit()
            guard descriptors > rooms * (guests + 1) + 100 else {
                throw UsageError(
                    "\(rooms) rooms x \(guests + 1) members need more than the \(descriptors) open files that the "
                        + "system allows: raise the limit (ulimit -Hn) or use fewer --rooms")
            }
            let check = CheckRun(endpoint: endpoint, options: self)
            guard try check.run() else { throw Exit.failed }
        } catch let error as UsageError {
            standardError("relay-load: \(error)")
            throw Exit.unusable
        } catch let error as ConnectError {
            standardError("relay-load: \(error.advice)")
            throw Exit.unusable
        }
    }
}
