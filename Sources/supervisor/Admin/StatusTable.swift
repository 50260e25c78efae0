// The relay's report for people: one line that says how it is, and a line a worker.

import Shared

enum StatusTable {
    private static let header = [
        "WORKER", "GEN", "PID", "STATE", "UP", "RESTARTS", "ROOMS", "CLIENTS", "CONNS", "LAG", "BEAT", "MEMORY", "CPU",
        "LAST EXIT",
    ]
    /// Columns of words; the others are numbers and stand to the right.
    private static let words: Set<String> = ["STATE", "LAST EXIT"]

    static func text(_ report: RelayReport) -> String {
        var lines = [
            report.summary,
            "generation \(report.generation), \(report.rooms) rooms, \(report.clients) clients, "
                + "\(report.connections) connections, \(report.restarts) restarts",
            "memory for connections \(mebibytes(report.heldBytes)) of \(mebibytes(UInt64(report.memoryBytesMax)))"
                + (report.kernelTCPBytes.map { ", the kernel's for TCP \(mebibytes($0))" } ?? ""),
        ]
        if let parts = report.sandbox { lines.append(sandbox(parts)) }
        if let last = report.lastChange { lines.append("last change: \(last)") }
        if report.isChanging { lines.append("rooms are moving to other workers") }
        lines.append("")
        return (lines + aligned([header] + report.everyWorker.map { row($0) })).joined(separator: "\n") + "\n"
    }

    /// What of the sandbox holds in every worker, and what does not.
    static func sandbox(_ parts: SandboxParts) -> String {
        let missing = SandboxParts.all.subtracting(parts).names
        let on = parts.isEmpty ? "nothing" : parts.names.joined(separator: ", ")
        return "sandbox: \(on)" + (missing.isEmpty ? "" : "; without \(missing.joined(separator: ", "))")
    }

    private static func row(_ worker: WorkerReport) -> [String] {
        [
            "\(worker.index)", "\(worker.generation)", worker.pid.map { "\($0)" } ?? "-", worker.state.rawValue,
            worker.uptimeSeconds.map { duration($0) } ?? "-", "\(worker.restarts)", "\(worker.rooms)",
            "\(worker.clients)", "\(worker.connections)", milliseconds(worker.loopLagSeconds),
            worker.heartbeatAgeSeconds.map { "\(decimal($0, places: 1))s" } ?? "-",
            worker.memoryBytes.map { mebibytes($0) } ?? "-",
            "\(decimal(worker.cpuSeconds, places: 1))s", worker.lastExit ?? "-",
        ]
    }

    /// Columns as wide as their widest cell, two blanks apart.
    private static func aligned(_ rows: [[String]]) -> [String] {
        let widths = header.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let blanks = String(repeating: " ", count: widths[column] - cell.count)
                let isLast = column == row.count - 1
                line += words.contains(header[column]) ? cell + (isLast ? "" : blanks) : blanks + cell
                if !isLast { line += "  " }
            }
            return line
        }
    }

    private static func mebibytes(_ bytes: UInt64) -> String { "\(decimal(Double(bytes) / 1_048_576, places: 1))M" }

    private static func milliseconds(_ seconds: Double) -> String {
        "\(decimal(seconds * 1000, places: seconds < 0.01 ? 2 : 0))ms"
    }

    /// "12s", "3m 5s", "2h 0m", "4d 7h": the two largest units.
    static func duration(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 0, seconds < 1e11 else { return "-" }
        let whole = Int(seconds)
        switch whole {
        case ..<60: return "\(whole)s"
        case ..<3600: return "\(whole / 60)m \(whole % 60)s"
        case ..<86_400: return "\(whole / 3600)h \(whole / 60 % 60)m"
        default: return "\(whole / 86_400)d \(whole / 3600 % 24)h"
        }
    }
}
