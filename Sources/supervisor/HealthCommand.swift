// `relay health`: yes or no, for the health check of a container. It needs no HTTP client in the image.

import ArgumentParser
import Shared

struct HealthCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Say in a line whether a running relay serves.",
        discussion: "Exits 0 if it does, degraded or not, and 1 if it does not or there is none.")

    @OptionGroup var options: TargetOptions

    func validate() throws {
        _ = try options.target
    }

    func run() throws {
        let target = try options.target
        let answer: AdminClient.Answer
        do throws(AdminClientError) {
            answer = try AdminClient.get("/status", from: target)
        } catch {
            print("relay: \(error.description)")
            throw ExitCode(ExitStatus.unhealthy)
        }
        print(printable(String(answer.body.prefix { $0 != "\n" })))
        guard answer.status == 200 else { throw ExitCode(ExitStatus.unhealthy) }
    }
}
