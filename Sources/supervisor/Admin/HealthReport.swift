// The relay's report as JSON (RFC 8259): what `/health` of the admin listeners answers.

import Shared

enum HealthReport {
    static func json(_ report: RelayReport) -> String {
        var object = JSONObject()
        object.add("status", text: name(report.health))
        object.add("version", text: report.version)
        object.add("phase", text: "\(report.phase)")
        object.add("uptime_seconds", decimal(report.uptimeSeconds))
        object.add("generation", "\(report.generation)")
        object.add("changing", report.isChanging ? "true" : "false")
        object.add("last_change", text: report.lastChange)
        object.add("rooms", "\(report.rooms)")
        object.add("clients", "\(report.clients)")
        object.add("connections", "\(report.connections)")
        object.add("restarts", "\(report.restarts)")
        object.add("sandbox", names(report.sandbox))
        object.add("workers", "[\(report.everyWorker.map { worker($0) }.joined(separator: ","))]")
        return object.text
    }

    private static func worker(_ worker: WorkerReport) -> String {
        var object = JSONObject()
        object.add("index", "\(worker.index)")
        object.add("generation", "\(worker.generation)")
        object.add("pid", worker.pid.map { "\($0)" })
        object.add("state", text: worker.state.rawValue)
        object.add("uptime_seconds", worker.uptimeSeconds.map { decimal($0) })
        object.add("restarts", "\(worker.restarts)")
        object.add("last_exit", text: worker.lastExit)
        object.add("heartbeat_age_seconds", worker.heartbeatAgeSeconds.map { decimal($0) })
        object.add("rooms", "\(worker.rooms)")
        object.add("clients", "\(worker.clients)")
        object.add("connections", "\(worker.connections)")
        object.add("loop_lag_seconds", decimal(worker.loopLagSeconds, places: 6))
        object.add("memory_bytes", worker.memoryBytes.map { "\($0)" })
        object.add("cpu_seconds", decimal(worker.cpuSeconds))
        object.add("sandbox", names(worker.sandbox))
        return object.text
    }

    /// Words that need no escape.
    private static func names(_ parts: SandboxParts?) -> String? {
        parts.map { "[\($0.names.map { "\"\($0)\"" }.joined(separator: ","))]" }
    }

    static func name(_ health: Health) -> String {
        switch health {
        case .ok: "ok"
        case .degraded: "degraded"
        case .unavailable: "unavailable"
        }
    }
}

/// A JSON object, member by member.
private struct JSONObject {
    private var members: [String] = []

    /// A value that is JSON already; `null` where there is none.
    mutating func add(_ name: String, _ json: String?) {
        members.append("\"\(name)\":\(json ?? "null")")
    }

    mutating func add(_ name: String, text: String?) {
        add(name, text.map { String(decoding: LogText.json($0, bytesMax: Limits.logValueBytesMax), as: UTF8.self) })
    }

    var text: String { "{\(members.joined(separator: ","))}" }
}

/// A number with a fixed count of digits behind its point; 0 for what is none.
func decimal(_ value: Double, places: Int = 3) -> String {
    guard value.isFinite, abs(value) < 1e12 else { return "0" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = Int((abs(value) * scale).rounded())
    let digits = String(scaled % Int(scale))
    let fraction = String(repeating: "0", count: max(0, places - digits.count)) + digits
    let sign = value < 0 && scaled > 0 ? "-" : ""
    return places == 0 ? "\(sign)\(scaled)" : "\(sign)\(scaled / Int(scale)).\(fraction)"
}
