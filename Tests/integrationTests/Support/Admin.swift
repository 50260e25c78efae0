// A relay's admin listeners, as a test asks them.

import Foundation
import Glibc
import Testing

/// What `/health` of the admin listeners says, as far as tests look at it.
struct AdminHealth: Decodable {
    struct Worker: Decodable {
        var index: Int
        var generation: Int
        var pid: Int32?
        var state: String
        var restarts: Int
        var lastExit: String?
        var uptimeSeconds: Double?
        var heartbeatAgeSeconds: Double?
        var rooms: Int
        var clients: Int
        var connections: Int
        var loopLagSeconds: Double
        var memoryBytes: Int?
        var cpuSeconds: Double
    }

    var status: String
    var version: String
    var phase: String
    var uptimeSeconds: Double
    var generation: Int
    var rooms: Int
    var clients: Int
    var connections: Int
    var restarts: Int
    var workers: [Worker]

    init(json: String) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(AdminHealth.self, from: Data(json.utf8))
    }
}

/// The admin listener on RELAY_METRICS_ADDR of a relay process.
struct Admin: Sendable {
    let port: Int

    /// Waits for the line that says where it is.
    init(_ process: ChildProcess) async throws {
        port = try await awaited("the admin listener's address") {
            if let end = process.end { throw SpawnError(description: "the relay ended: \(end) \(process.errors)") }
            let line = process.errors.split(separator: "\n").first { $0.contains(" admin listener address=") }
            return line?.split(separator: ":").last.flatMap { Int($0) }
        }
    }

    func answer(_ path: String) async throws -> HTTPResponse {
        let client = try await RawClient(port)
        try await client.send("GET \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return try await client.response()
    }

    func health() async throws -> AdminHealth {
        let answer = try await answer("/health")
        #expect(answer["content-type"] == "application/json")
        let health = try AdminHealth(json: answer.body)
        #expect(answer.status == (health.status == "unavailable" ? 503 : 200))
        return health
    }

    func metrics() async throws -> PrometheusText {
        let answer = try await answer("/metrics")
        #expect(answer.status == 200)
        #expect(answer["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
        return try PrometheusText(answer.body)
    }

    /// Waits until these are the values of these metrics: some things are counted after their clients hear of them.
    func counts(_ values: [String: Double]) async throws {
        var found: [String: Double] = [:]
        do {
            try await eventually("\(values)") {
                let metrics = try await metrics()
                found = Dictionary(uniqueKeysWithValues: values.keys.map { ($0, metrics[$0] ?? .nan) })
                return found == values
            }
        } catch let error as TimedOut {
            throw TimedOut(description: "\(error.description); there is \(found)")
        }
    }
}

extension Relay {
    /// A relay with an admin listener on a port of loopback.
    static func runAdmin(
        workers: Int = 2, _ variables: [String: String] = [:], losesWorkers: Bool = false,
        _ body: (Relay, Admin) async throws -> Void
    ) async throws {
        let all = ["RELAY_METRICS_ADDR": "127.0.0.1:0", "RELAY_RATE_LIMIT_PER_IP": "0"].merging(variables) { $1 }
        try await run(workers: workers, all, losesWorkers: losesWorkers) { relay in
            try await body(relay, try await Admin(relay.process))
        }
    }
}

/// A relay whose workers are a shell script: for what no true worker does.
func runRelay(
    worker script: String, _ variables: [String: String], _ body: (ChildProcess) async throws -> Void
) async throws {
    try await withTemporaryFolder { folder in
        try FileManager.default.copyItem(atPath: try program("relay"), toPath: "\(folder)/relay")
        try write("#!/bin/sh\n\(script)\n", to: "\(folder)/relay-worker")
        #expect(chmod("\(folder)/relay-worker", 0o755) == 0)
        let environment = ["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "1"].merging(variables) { $1 }
        let process = try ChildProcess("\(folder)/relay", environment: environment)
        defer {
            let workers = Processes.children(of: process.pid)
            process.signal(SIGKILL)
            for worker in workers where kill(worker, 0) == 0 { _ = kill(worker, SIGKILL) }
        }
        do {
            try await body(process)
        } catch {
            Issue.record("the relay said: \(process.errors)")
            throw error
        }
    }
}
