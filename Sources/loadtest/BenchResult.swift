// What a run of `relay-load bench` prints.

import Glibc

/// A number with so many digits behind the point.
func fixed(_ value: Double, _ digits: Int) -> String {
    guard value.isFinite else { return "0" }
    let scale = (0..<digits).reduce(1.0) { scale, _ in scale * 10 }
    let scaled = Int((abs(value) * scale).rounded())
    let whole = "\(scaled / Int(scale))"
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard digits > 0 else { return sign + whole }
    let rest = "\(scaled % Int(scale))"
    return sign + whole + "." + String(repeating: "0", count: digits - rest.count) + rest
}

/// An aligned line: "  name      value".
func line(_ name: String, _ value: String) -> String {
    "  \(name.padded(to: 24))\(value.paddedLeft(to: 14))"
}

struct BenchResult {
    let workload: Workload
    let seconds: Double
    /// In the measured window; the other counts are of the whole run.
    let delivered: UInt64
    let sent: UInt64
    let notSent: UInt64
    let lost: UInt64
    let repeated: UInt64
    let foreign: UInt64
    let latency: Histogram
    let cpuNanoseconds: UInt64?
    let stealPercent: Double

    private func microseconds(_ share: Double) -> String {
        fixed(Double(latency.percentile(share)) / 1000, 1)
    }

    private var cpuPerDelivery: Double? {
        cpuNanoseconds.map { delivered == 0 ? 0 : Double($0) / 1000 / Double(delivered) }
    }

    private var cpuPercent: Double? {
        cpuNanoseconds.map { Double($0) / 1e7 / seconds }
    }

    var text: String {
        var lines = ["\(workload.name): \(workload.rooms) rooms x \(workload.members), \(fixed(seconds, 1)) s"]
        lines.append(line("deliveries", "\(delivered)"))
        lines.append(line("deliveries/s", fixed(Double(delivered) / seconds, 0)))
        lines.append(line("latency p50, us", microseconds(0.5)))
        lines.append(line("latency p99, us", microseconds(0.99)))
        lines.append(line("latency p99.9, us", microseconds(0.999)))
        lines.append(line("latency max, us", fixed(Double(latency.maximum) / 1000, 1)))
        lines.append(line("lost", "\(lost)"))
        if repeated > 0 { lines.append(line("repeated or reordered", "\(repeated)")) }
        if foreign > 0 { lines.append(line("not understood", "\(foreign)")) }
        if notSent > 0 { lines.append(line("not sent (relay full)", "\(notSent)")) }
        if let cpuPerDelivery, let cpuPercent {
            lines.append(line("server CPU/delivery, us", fixed(cpuPerDelivery, 3)))
            lines.append(line("server CPU, % of one", fixed(cpuPercent, 1)))
        }
        lines.append(line("steal, %", fixed(stealPercent, 2)))
        return lines.joined(separator: "\n")
    }

    var json: String {
        var fields = [
            "\"workload\":\"\(workload.name)\"", "\"rooms\":\(workload.rooms)", "\"members\":\(workload.members)",
            "\"seconds\":\(fixed(seconds, 3))", "\"delivered\":\(delivered)",
            "\"deliveries_per_second\":\(fixed(Double(delivered) / seconds, 1))",
            "\"latency_p50_us\":\(microseconds(0.5))", "\"latency_p99_us\":\(microseconds(0.99))",
            "\"latency_p99_9_us\":\(microseconds(0.999))",
            "\"latency_max_us\":\(fixed(Double(latency.maximum) / 1000, 1))",
            "\"sent\":\(sent)", "\"not_sent\":\(notSent)", "\"lost\":\(lost)", "\"repeated\":\(repeated)",
            "\"not_understood\":\(foreign)",
        ]
        if let cpuPerDelivery, let cpuPercent {
            fields.append("\"cpu_us_per_delivery\":\(fixed(cpuPerDelivery, 4))")
            fields.append("\"cpu_percent\":\(fixed(cpuPercent, 2))")
        }
        fields.append("\"steal_percent\":\(fixed(stealPercent, 2))")
        return "{" + fields.joined(separator: ",") + "}"
    }
}

struct IdleResult {
    let connections: Int
    let before: [(pid: Int32, bytes: UInt64)]
    let after: [(pid: Int32, bytes: UInt64)]

    private func sum(_ processes: [(pid: Int32, bytes: UInt64)]) -> UInt64 {
        processes.reduce(0) { $0 + $1.bytes }
    }

    private var perConnection: Double {
        (Double(sum(after)) - Double(sum(before))) / Double(connections)
    }

    var text: String {
        var lines = ["\(connections) idle connections"]
        guard !after.isEmpty else { return lines[0] + " (memory: give --server-pid)" }
        for process in after {
            let start = before.first { $0.pid == process.pid }?.bytes ?? 0
            lines.append(line("RSS of \(process.pid), KiB", "\(start / 1024) -> \(process.bytes / 1024)"))
        }
        lines.append(line("RSS in all, KiB", "\(sum(before) / 1024) -> \(sum(after) / 1024)"))
        lines.append(line("bytes per connection", fixed(perConnection, 0)))
        return lines.joined(separator: "\n")
    }

    var json: String {
        var fields = ["\"workload\":\"idle\"", "\"connections\":\(connections)"]
        if !after.isEmpty {
            fields.append("\"rss_before_bytes\":\(sum(before))")
            fields.append("\"rss_after_bytes\":\(sum(after))")
            fields.append("\"bytes_per_connection\":\(fixed(perConnection, 1))")
        }
        return "{" + fields.joined(separator: ",") + "}"
    }
}
