// The real relay, on a port of loopback that the kernel chose, for as long as a test needs it.

import Foundation
import Glibc
import NIOSSL
import Testing

/// A running relay.
struct Relay: Sendable {
    let process: ChildProcess
    let port: Int
    let workers: Int
    /// What it serves TLS with, if it does.
    var certificate: Certificate?
    /// Trusts that certificate's issuer.
    var tls: NIOSSLContext?
    /// With TLS: cert.pem, key.pem and ca.pem, and room for a test's own files.
    var folder = ""
    /// What it was started with as --env-file, if it was.
    var settings = ""

    /// A few at a time: more would only make each other slow.
    private static let gate = Gate(5)

    /// The supervisor's children, in no order.
    var workerPIDs: [pid_t] { Processes.children(of: process.pid).sorted() }

    func url(_ path: String) -> String { "\(tls == nil ? "http" : "https")://127.0.0.1:\(port)\(path)" }

    /// Starts a relay for `body` and ends all of its processes, whatever `body` does. No worker may die meanwhile, unless
    /// `losesWorkers`.
    ///
    /// - Parameters:
    ///   - shell: a shell's command that starts it, as "$0".
    ///   - program: another `relay` than the one that was built.
    ///   - settings: a file that it is started with as --env-file.
    static func run(
        workers: Int = 2, _ variables: [String: String] = [:], descriptorsMax: Int? = nil, shell: String? = nil,
        losesWorkers: Bool = false, program: String? = nil, settings: String? = nil,
        _ body: (Relay) async throws -> Void
    ) async throws {
        let shell = shell ?? descriptorsMax.map { "ulimit -n \($0) && exec \"$0\"" }
        await gate.enter()
        do {
            let path = try program ?? integrationTests.program("relay")
            try await runInside(path, settings, workers, variables, shell, losesWorkers, body)
        } catch {
            await gate.leave()
            throw error
        }
        await gate.leave()
    }

    /// The same with TLS.
    static func runTLS(
        _ kind: Certificate.Kind = .ecdsa, workers: Int = 2, _ variables: [String: String] = [:],
        losesWorkers: Bool = false, _ body: (Relay) async throws -> Void
    ) async throws {
        let certificate = try await Certificate.of(kind)
        try await withTemporaryFolder { folder in
            let all = variables.merging(try certificate.variables(in: folder)) { $1 }
            try await run(workers: workers, all, losesWorkers: losesWorkers) { plain in
                var relay = plain
                relay.certificate = certificate
                relay.tls = try certificate.clientContext()
                relay.folder = folder
                try await body(relay)
            }
        }
    }

    private static func runInside(
        _ path: String, _ settings: String?, _ workers: Int, _ variables: [String: String], _ shell: String?,
        _ losesWorkers: Bool, _ body: (Relay) async throws -> Void
    ) async throws {
        // One address is all clients here, so what one may have is for those tests that are about it.
        let base = [
            "RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "\(workers)", "RELAY_MAX_CONNECTIONS_PER_IP": "0",
            "RELAY_MAX_ROOMS_PER_IP": "0",
        ]
        let environment = base.merging(variables) { $1 }
        let arguments = settings.map { ["run", "--env-file", $0] } ?? []
        let process =
            if let shell {
                try ChildProcess("/bin/sh", ["-c", shell, path], environment: environment)
            } else {
                try ChildProcess(path, arguments, environment: environment)
            }
        defer { end(process) }
        do {
            var relay = Relay(process: process, port: try await port(process), workers: workers)
            relay.settings = settings ?? ""
            try await body(relay)
            if !losesWorkers { #expect(!process.errors.contains("worker died"), "\(process.errors)") }
        } catch {
            Issue.record("the relay said: \(process.errors)")
            throw error
        }
    }

    /// What says that all workers serve: `... listening address=127.0.0.1:PORT workers=N` in the log, or, where that is lost,
    /// `relay 1.2.3 listens on 127.0.0.1:PORT with ...` for people.
    static func port(_ process: ChildProcess, seconds: Double = patienceSeconds) async throws -> Int {
        try await awaited("the relay's word that it listens", seconds: seconds) {
            if let end = process.end { throw SpawnError(description: "the relay ended: \(end)") }
            let lines = (process.errors + process.output).split(separator: "\n")
            guard let line = lines.first(where: { $0.contains(" listening ") || $0.contains(" listens on ") }),
                let field = line.split(separator: " ").first(where: { $0.contains("127.0.0.1:") })
            else { return nil }
            return field.split(separator: ":").last.flatMap { Int($0) }
        }
    }

    private static func end(_ process: ChildProcess) {
        let workers = Processes.children(of: process.pid)
        process.signal(SIGKILL)
        // Orphans end by themselves, but not at once.
        for worker in workers where kill(worker, 0) == 0 { _ = kill(worker, SIGKILL) }
    }

    /// What a fresh connection is told at `/health`.
    func health() async throws -> HTTPResponse {
        let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        guard let tls else { return try await answer(request) }
        let client = try await TLSClient(port, tls)
        try await client.send(request)
        return try await client.response()
    }

    /// Waits until every worker serves.
    func healthy(seconds: Double = patienceSeconds) async throws {
        try await eventually("a relay that is well", seconds: seconds) {
            try await health().body == #"{"status":"ok"}"#
        }
    }
}
