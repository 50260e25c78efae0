// The relay's report as Prometheus reads it: text format 0.0.4. Names and labels are an interface: dashboards and alerts of
// operators hang on them. No label says who: no room, no client, no address.
//
// Counters and histograms are sums over all pages of shared memory, which outlive the workers: they never fall while the relay
// runs.

import Shared

enum Metrics {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    static func text(_ report: RelayReport) -> String {
        var page = MetricsText()
        addRelay(report, to: &page)
        addWorkers(report, to: &page)
        for family in counterFamilies {
            page.begin(family.name, .counter, family.help)
            for sample in family.samples {
                page.add(sample.labels, Double(report.counters[sample.counter.rawValue]))
            }
        }
        page.begin(
            "relay_slow_consumers_total", .counter,
            "Clients closed because they read too slowly: those of relay_closes_total with reason slow or memory.")
        page.add([], Double(report[.closedSlow] &+ report[.closedMemory]))
        addHistograms(report, to: &page)
        addAdmin(report.admin, to: &page)
        return page.text
    }

    // MARK: - The relay and its workers

    private static func addRelay(_ report: RelayReport, to page: inout MetricsText) {
        func gauge(_ name: String, _ help: String, _ value: Double) {
            page.begin(name, .gauge, help)
            page.add([], value)
        }
        page.begin("relay_build_info", .gauge, "1, with the relay's version.")
        page.add([("version", report.version)], 1)
        page.begin("relay_health", .gauge, "1 for what /health says, 0 for what it does not.")
        for health in [Health.ok, .degraded, .unavailable] {
            page.add([("status", HealthReport.name(health))], health == report.health ? 1 : 0)
        }
        gauge("relay_ready", "1 if /readyz says so, else 0.", report.unreadyReason == nil ? 1 : 0)
        gauge("relay_generation", "Generation of workers, raised with each reload.", Double(report.generation))
        page.begin("relay_changes_total", .counter, "Changes of generations by kind and result.")
        for (kind, name) in Change.Kind.names.enumerated() {
            let (succeeded, failed) = report.changes[kind]
            page.add([("kind", name), ("result", "success")], Double(succeeded))
            page.add([("kind", name), ("result", "failure")], Double(failed))
        }
        gauge("relay_change_under_way", "1 while rooms move to other workers, else 0.", report.isChanging ? 1 : 0)
        gauge("relay_connections", "Sockets of clients, in whatever state.", Double(report.connections))
        gauge("relay_connections_limit", "RELAY_MAX_CONNECTIONS.", Double(report.connectionsMax))
        gauge("relay_clients", "Connections that are in a room.", Double(report.clients))
        gauge("relay_rooms", "Rooms open.", Double(report.rooms))
        gauge("relay_rooms_limit", "RELAY_MAX_ROOMS.", Double(report.roomsMax))
        gauge(
            "relay_queued_bytes", "Memory of queues that hold bytes for clients which are slow.",
            Double(report.heldBytes))
        page.begin(
            "relay_limiter_evictions_total", .counter,
            "Addresses that a flood of others pushed out of the rate limiter's table.")
        page.add([], Double(report.limiterEvictions))
        gauge("process_start_time_seconds", "Start of the supervisor, Unix time.", report.startedAt)
        if let bytes = report.supervisor.memoryBytes {
            gauge("process_resident_memory_bytes", "Resident memory of the supervisor.", Double(bytes))
        }
        if let seconds = report.supervisor.cpuSeconds {
            page.begin("process_cpu_seconds_total", .counter, "CPU time of the supervisor.")
            page.add([], seconds)
        }
    }

    private static func addWorkers(_ report: RelayReport, to page: inout MetricsText) {
        page.begin("relay_workers", .gauge, "Workers by state.")
        for state in WorkerReport.State.allCases {
            page.add([("state", state.rawValue)], Double(report.everyWorker.count { $0.state == state }))
        }
        // Of those that serve: a label names one worker, and those that leave have successors of the same number.
        func add(_ name: String, _ type: MetricsText.Kind, _ help: String, _ value: (WorkerReport) -> Double?) {
            page.begin(name, type, help)
            for worker in report.workers {
                if let value = value(worker) { page.add([("worker", "\(worker.index)")], value) }
            }
        }
        add("relay_worker_restarts_total", .counter, "Processes started because the one before had died.") {
            Double($0.restarts)
        }
        add("relay_worker_heartbeat_age_seconds", .gauge, "Time since the worker's loop last turned.") {
            $0.heartbeatAgeSeconds
        }
        add("relay_worker_uptime_seconds", .gauge, "Age of the worker's process.") { $0.uptimeSeconds }
        add("relay_worker_loop_lag_seconds", .gauge, "Longest turn of the worker's loop in the last whole second.") {
            $0.loopLagSeconds
        }
        add("relay_worker_resident_memory_bytes", .gauge, "Resident memory of the worker's process.") {
            $0.memoryBytes.map { Double($0) }
        }
        add("relay_worker_cpu_seconds_total", .counter, "CPU time of all processes in the worker's place.") {
            $0.cpuSeconds
        }
    }

    private static func addHistograms(_ report: RelayReport, to page: inout MetricsText) {
        for histogram in Histogram.allCases {
            let (name, help) =
                switch histogram {
                case .loopLag:
                    (
                        "relay_loop_lag_seconds",
                        "Turns of the workers' loops by how long they took: what comes meanwhile waits so long at the most."
                    )
                case .deliveryLatency:
                    (
                        "relay_delivery_latency_seconds",
                        "Messages delivered, by the time from the wake-up that read them to the end of the turn that sent them."
                    )
                case .movePause:
                    (
                        "relay_move_pause_seconds",
                        "Rooms that moved to another worker at a reload or the like, by the time that they were quiet."
                    )
                case .handoffDuration:
                    (
                        "relay_handoff_duration_seconds",
                        "Connections handed to the worker of their room, by the time until it took them."
                    )
                }
            page.begin(name, .histogram, help)
            page.add(report.histograms[histogram.rawValue])
        }
    }

    private static func addAdmin(_ counts: AdminCounts, to page: inout MetricsText) {
        page.begin("relay_admin_requests_total", .counter, "Requests at the admin listeners.")
        page.add([], Double(counts.requests))
        page.begin(
            "relay_admin_closes_total", .counter, "Connections of the admin listeners that were ended, by reason.")
        for reason in AdminCounts.Close.allCases { page.add([("reason", reason.rawValue)], Double(counts[reason])) }
    }
}

extension RelayReport {
    subscript(counter: Counter) -> UInt64 { counters[counter.rawValue] }
}

/// A page in the text format, line by line.
struct MetricsText {
    enum Kind: String {
        case counter
        case gauge
        case histogram
    }

    typealias Label = (name: String, value: String)

    private(set) var text = ""
    private var name = ""

    /// A family: its samples follow.
    mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        self.name = name
        text += "# HELP \(name) \(Self.escaped(help, quote: false))\n# TYPE \(name) \(kind.rawValue)\n"
    }

    mutating func add(_ labels: [Label], _ value: Double) {
        addSample("", labels, Self.number(value))
    }

    /// Buckets are cumulative, and the last is all there is.
    mutating func add(_ counts: HistogramCounts) {
        var total: UInt64 = 0
        for (index, count) in counts.buckets.enumerated() {
            total &+= count
            let bound = index < Histogram.bounds.count ? Self.number(seconds(Histogram.bounds[index])) : "+Inf"
            addSample("_bucket", [("le", bound)], "\(total)")
        }
        addSample("_sum", [], Self.number(seconds(counts.sum)))
        addSample("_count", [], "\(total)")
    }

    private mutating func addSample(_ suffix: String, _ labels: [Label], _ value: String) {
        let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value, quote: true))\"" }
        text += "\(name)\(suffix)\(labels.isEmpty ? "" : "{\(pairs.joined(separator: ","))}") \(value)\n"
    }

    /// Whole numbers without a point: as all counters are.
    static func number(_ value: Double) -> String {
        if let whole = Int64(exactly: value) { return "\(whole)" }
        // Swift writes infinity and NaN otherwise than Prometheus reads them.
        guard value.isFinite else { return value.isNaN ? "NaN" : value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }

    static func escaped(_ text: String, quote: Bool) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += #"\\"#
            case "\n": escaped += #"\n"#
            case "\"" where quote: escaped += #"\""#
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}
