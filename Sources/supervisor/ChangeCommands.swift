// `relay reload`, `relay upgrade`, `relay recycle`: ask a running relay for a change, wait for its end, and say how it went.

import ArgumentParser
import Glibc
import Shared

struct ReloadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reload",
        abstract: "Have a running relay read its settings, certificate and key again.",
        discussion: """
            Every connection moves to new workers; no client notices. Exits 0 when that is done, 1 if nothing has changed \
            because something is wrong: it is said what. The same as SIGHUP, which does not wait.
            """)

    @Option(help: ArgumentHelp("The relay whose supervisor has this process id.", valueName: "n"))
    var pid: Int32?

    func run() throws {
        try ask(.reload, pid)
    }
}

struct UpgradeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade",
        abstract: "Have a running relay become the program that is installed now.",
        discussion: """
            Install both `relay` and `relay-worker` first. The process id stays, and every connection moves to new workers. \
            Exits 0 when that is done, 1 if nothing has changed because something is wrong: it is said what. The same as \
            SIGUSR2, which does not wait.
            """)

    @Option(help: ArgumentHelp("The relay whose supervisor has this process id.", valueName: "n"))
    var pid: Int32?

    func run() throws {
        try ask(.upgrade, pid)
    }
}

struct RecycleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recycle",
        abstract: "Replace one worker of a running relay by a fresh process.",
        discussion: """
            Its rooms and connections move over; no client notices. For a worker that takes too much memory, or that you \
            suspect of something. `relay status` shows their numbers. Exits 0 when that is done, else 1.
            """)

    @Argument(help: "The worker's number, from 0.")
    var worker: Int

    @Option(help: ArgumentHelp("The relay whose supervisor has this process id.", valueName: "n"))
    var pid: Int32?

    func validate() throws {
        guard (0..<Limits.workersMax).contains(worker) else {
            throw ValidationError("a worker's number is from 0 to \(Limits.workersMax - 1)")
        }
    }

    func run() throws {
        try ask(.recycle(worker), pid)
    }
}

private func ask(_ command: AdminCommand, _ pid: pid_t?) throws {
    do throws(AdminClientError) {
        let outcome = try AdminClient.change(command, pid)
        guard outcome.isSuccess else {
            standardError("relay: \(printable(outcome.text))")
            throw AdminClientError(description: "")
        }
        print(printable(outcome.text))
    } catch {
        if !error.description.isEmpty { standardError("relay: \(error.description)") }
        throw ExitCode(ExitStatus.unhealthy)
    }
}

extension AdminClient {
    /// Asks for a change and waits for its end.
    static func change(_ command: AdminCommand, _ pid: pid_t?) throws(AdminClientError) -> ChangeOutcome {
        let relay: pid_t
        if let pid { relay = pid } else { relay = try theRelay() }
        let answer = try request(
            "POST", command.path, from: .relay(relay), milliseconds: Limits.adminChangeMilliseconds)
        guard let answer else { return try outcome(relay) }
        return ChangeOutcome(isSuccess: answer.status == 200, text: line(answer.body))
    }

    /// The relay became another program, which says what has come of it.
    private static func outcome(_ relay: pid_t) throws(AdminClientError) -> ChangeOutcome {
        let deadline = Clock.monotonicNanoseconds() + UInt64(Limits.adminChangeMilliseconds) * 1_000_000
        while Clock.monotonicNanoseconds() < deadline {
            var answer: Answer?
            // Its socket is there again in a moment.
            do throws(AdminClientError) { answer = try get("/change", from: .relay(relay)) } catch { answer = nil }
            if let answer, answer.status == 200 || answer.status == 500 {
                return ChangeOutcome(isSuccess: answer.status == 200, text: line(answer.body))
            }
            if answer?.status == 404 {
                return ChangeOutcome(isSuccess: true, text: "restarted: the new program began afresh")
            }
            usleep(20_000)
        }
        throw AdminClientError(description: "the relay does not say what has become of it; see its log")
    }

    private static func line(_ body: String) -> String { String(body.prefix { $0 != "\n" }) }
}
