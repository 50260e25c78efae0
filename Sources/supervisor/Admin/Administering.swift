// What the supervisor does for its admin clients: answers in its own loop, carries out what they may ask for, and tells each
// how it has ended.

import Logging
import Shared

extension Supervisor {
    /// The clients of a relay that goes on don't suffer for a port that somebody else has taken meanwhile.
    static func takeOverAdmin(_ address: ListenAddress?, _ logger: Logger) throws(StartError) -> AdminServer {
        do throws(ListenError) { return try AdminServer(address, logger: logger) } catch {
            logger.error("no admin listener", metadata: ["reason": "\(error)"])
        }
        do throws(ListenError) { return try AdminServer(nil, logger: logger) } catch {
            throw StartError(description: "can't take over: \(error.cause)", exitStatus: ExitStatus.unavailable)
        }
    }

    /// A turn of the admin server, in the supervisor's loop.
    ///
    /// - Parameter hasEvents: whether its connections have something to say or take; if not, only time has passed.
    func serveAdmin(hasEvents: Bool) {
        var commands: [(AdminCommand, UInt64)] = []
        defer { for (command, asker) in commands { perform(command, asker) } }
        admin.turn(hasEvents: hasEvents) { request in
            AdminRoutes.reply(
                to: request, names: configuration.metricsHosts, report: { RelayReport(self) }, outcome: lastOutcome,
                isChanging: change != nil || nextChange != nil,
                perform: { command in
                    // Answered by `ended`, which may be at once.
                    commands.append((command, request.connection))
                    return .later
                })
        }
    }

    private func perform(_ command: AdminCommand, _ asker: UInt64) {
        if change == nil && nextChange == nil { askers.append(asker) } else { nextAskers.append(asker) }
        switch command {
        case .reload: request(.reload)
        case .upgrade: requestUpgrade()
        case .recycle(let index): request(.recycle(index))
        }
    }

    /// A change is over, or has not begun: whoever waits for one is told.
    func ended(_ kind: Change.Kind, _ outcome: ChangeOutcome) {
        memory.countChange(kind.number, succeeded: outcome.isSuccess)
        lastOutcome = outcome
        for asker in askers { admin.answer(asker, outcome.answer) }
        askers.removeAll()
    }
}
