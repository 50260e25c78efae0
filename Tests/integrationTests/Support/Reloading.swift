// A relay whose settings, certificate and program change while it runs.

import Foundation
import Glibc
import Testing

extension Relay {
    /// Starts a relay whose settings stand in a file, from a folder of its own with a `relay` and a `relay-worker` in it.
    static func runChangeable(
        workers: Int = 2, _ variables: [String: String] = [:], tls: Bool = false, losesWorkers: Bool = false,
        _ body: (Relay) async throws -> Void
    ) async throws {
        let certificate = tls ? try await Certificate.of(.ecdsa) : nil
        try await withTemporaryFolder { folder in
            for name in ["relay", "relay-worker"] {
                // Linked where it can be: the programs are large.
                let path = try integrationTests.program(name)
                if link(path, "\(folder)/\(name)") != 0 {
                    try FileManager.default.copyItem(atPath: path, toPath: "\(folder)/\(name)")
                }
            }
            // A new generation's workers are run as nobody when the relay is root's.
            chmod(folder, 0o755)
            var settings = variables.merging(["RELAY_WORKERS": "\(workers)"]) { $1 }
            if let certificate { settings.merge(try certificate.variables(in: folder)) { $1 } }
            let file = "\(folder)/relay.env"
            try lines(settings).write(toFile: file, atomically: true, encoding: .utf8)
            let base = ["RELAY_RATE_LIMIT_PER_IP": "0"]
            // What stands in the file goes before what `run` sets in the environment.
            try await run(
                workers: workers, base, losesWorkers: losesWorkers, program: "\(folder)/relay", settings: file
            ) { plain in
                var relay = plain
                relay.certificate = certificate
                relay.tls = try certificate?.clientContext()
                relay.folder = folder
                try await body(relay)
            }
        }
    }

    private static func lines(_ settings: [String: String]) -> String {
        settings.map { "\($0.key)=\($0.value)\n" }.sorted().joined()
    }

    /// Changes a line of the file of settings; nil takes it out.
    func set(_ name: String, _ value: String?) throws {
        let text = try String(contentsOfFile: settings, encoding: .utf8)
        let others = text.split(separator: "\n").filter { !$0.hasPrefix("\(name)=") }.map(String.init)
        let all = others + (value.map { ["\(name)=\($0)"] } ?? [])
        try (all.joined(separator: "\n") + "\n").write(toFile: settings, atomically: true, encoding: .utf8)
    }

    /// How often the log says something.
    func count(_ text: String) -> Int { process.errors.components(separatedBy: text).count - 1 }

    /// Sends a signal and waits until the log says what has come of it once more.
    func change(_ signal: Int32 = SIGHUP, until text: String = "supervisor reloaded", seconds: Double = 40) async throws
    {
        let before = count(text)
        process.signal(signal)
        try await eventually("“\(text)”: \(process.errors)", seconds: seconds) { count(text) > before }
    }
}
