// Every metric of the relay, a row each: name, help, type, and where its value comes from. Names and labels are an
// interface: dashboards and alerts of operators hang on them. No label says who: no room, no client, no address.

import Shared

/// One metric: a row of the table.
struct Metric: Sendable {
    enum Source: Sendable {
        /// One sample; none, and no metric, where the value is nil.
        case value(@Sendable (RelayReport) -> Double?)
        /// Samples that differ in their labels.
        case values(@Sendable (RelayReport) -> [(labels: [MetricsText.Label], value: Double)])
        /// One sample a worker that serves: a label names one worker, and those that leave have successors of the same
        /// number.
        case perWorker(@Sendable (WorkerReport) -> Double?)
        case counter(Counter)
        /// Counters by the values of a label.
        case counters(label: String, KeyValuePairs<String, Counter>)
        /// A whole family, by the label that its values differ in.
        case family(label: String, CounterFamily)
        case histogram(Histogram)
    }

    let name: String
    let kind: MetricsText.Kind
    let help: String
    let source: Source

    static func gauge(_ name: String, _ help: String, _ value: @escaping @Sendable (RelayReport) -> Double?) -> Metric {
        Metric(name: name, kind: .gauge, help: help, source: .value(value))
    }

    static func counter(_ name: String, _ help: String, _ counter: Counter) -> Metric {
        Metric(name: name, kind: .counter, help: help, source: .counter(counter))
    }

    static func counter(_ name: String, _ help: String, _ value: @escaping @Sendable (RelayReport) -> Double?) -> Metric
    {
        Metric(name: name, kind: .counter, help: help, source: .value(value))
    }

    static func counters(
        _ name: String, _ help: String, by label: String, _ counters: KeyValuePairs<String, Counter>
    ) -> Metric {
        Metric(name: name, kind: .counter, help: help, source: .counters(label: label, counters))
    }

    static func family(_ name: String, _ help: String, by label: String, _ family: CounterFamily) -> Metric {
        Metric(name: name, kind: .counter, help: help, source: .family(label: label, family))
    }

    static func perWorker(
        _ name: String, _ kind: MetricsText.Kind, _ help: String, _ value: @escaping @Sendable (WorkerReport) -> Double?
    ) -> Metric {
        Metric(name: name, kind: kind, help: help, source: .perWorker(value))
    }

    static func values(
        _ name: String, _ kind: MetricsText.Kind, _ help: String,
        _ values: @escaping @Sendable (RelayReport) -> [(labels: [MetricsText.Label], value: Double)]
    ) -> Metric {
        Metric(name: name, kind: kind, help: help, source: .values(values))
    }

    static func histogram(_ name: String, _ help: String, _ histogram: Histogram) -> Metric {
        Metric(name: name, kind: .histogram, help: help, source: .histogram(histogram))
    }
}

extension Metrics {
    /// In the order of the page. Every counter, family and histogram has one row (a test compares).
    static let table: [Metric] = relay + workers + connections + joins + messages + rooms + durations + admin

    private static let relay: [Metric] = [
        .values("relay_build_info", .gauge, "1, with the relay's version.") { [([("version", $0.version)], 1)] },
        .values("relay_health", .gauge, "1 for what /health says, 0 for what it does not.") { report in
            [Health.ok, .degraded, .unavailable].map {
                ([("status", HealthReport.name($0))], $0 == report.health ? 1 : 0)
            }
        },
        .gauge("relay_ready", "1 if /readyz says so, else 0.") { $0.unreadyReason == nil ? 1 : 0 },
        .gauge("relay_generation", "Generation of workers, raised with each reload.") { Double($0.generation) },
        .values("relay_changes_total", .counter, "Changes of generations by kind and result.") { report in
            zip(Change.Kind.names, report.changes).flatMap { kind, count in
                [
                    ([("kind", kind), ("result", "success")], Double(count.succeeded)),
                    ([("kind", kind), ("result", "failure")], Double(count.failed)),
                ]
            }
        },
        .gauge("relay_change_under_way", "1 while rooms move to other workers, else 0.") { $0.isChanging ? 1 : 0 },
        .gauge("relay_connections", "Sockets of clients, in whatever state.") { Double($0.connections) },
        .gauge("relay_connections_limit", "RELAY_MAX_CONNECTIONS.") { Double($0.connectionsMax) },
        .gauge("relay_clients", "Connections that are in a room.") { Double($0.clients) },
        .gauge("relay_rooms", "Rooms open.") { Double($0.rooms) },
        .gauge("relay_rooms_limit", "RELAY_MAX_ROOMS.") { Double($0.roomsMax) },
        .gauge("relay_memory_bytes", "Memory that is kept for connections.") { Double($0.heldBytes) },
        .gauge("relay_memory_granted_bytes", "What workers have taken of RELAY_MAX_MEMORY.") {
            Double($0.memoryGranted)
        },
        .gauge("relay_memory_limit_bytes", "RELAY_MAX_MEMORY.") { Double($0.memoryBytesMax) },
        .gauge(
            "relay_kernel_tcp_memory_bytes",
            "Memory that the kernel holds for TCP sockets of this network namespace, the relay's and others'."
        ) { $0.kernelTCPBytes.map { Double($0) } },
        .counter(
            "relay_limiter_evictions_total", "Addresses that a flood of others pushed out of the rate limiter's table."
        ) { Double($0.limiterEvictions) },
        .gauge("process_start_time_seconds", "Start of the supervisor, Unix time.") { $0.startedAt },
        .gauge("process_resident_memory_bytes", "Resident memory of the supervisor.") {
            $0.supervisor.memoryBytes.map { Double($0) }
        },
        .counter("process_cpu_seconds_total", "CPU time of the supervisor.") { $0.supervisor.cpuSeconds },
    ]

    private static let workers: [Metric] = [
        .values("relay_sandbox", .gauge, "1 for a part of the sandbox that holds in every worker that serves, else 0.")
        {
            report in
            guard let parts = report.sandbox else { return [] }
            return SandboxParts.named.map { ([("part", $0.name)], parts.contains($0.part) ? 1 : 0) }
        },
        .values(
            "relay_worker_faults_total", .counter,
            "Messages of workers that the supervisor ignored, by reason: none, unless a worker misbehaves."
        ) { report in
            zip(WorkerFault.allCases, report.workerFaults).map { ([("reason", $0.rawValue)], Double($1)) }
        },
        .values(
            "relay_count_corrections_total", .counter,
            "Counts of the whole relay that were wrong and were put right: none, unless a worker misbehaves or dies."
        ) { report in
            zip(CommonCount.allCases, report.corrections).map { ([("kind", $0.name)], Double($1)) }
        },
        .values("relay_workers", .gauge, "Workers by state.") { report in
            WorkerReport.State.allCases.map { state in
                ([("state", state.rawValue)], Double(report.everyWorker.count { $0.state == state }))
            }
        },
        .perWorker("relay_worker_restarts_total", .counter, "Processes started because the one before had died.") {
            Double($0.restarts)
        },
        .perWorker("relay_worker_heartbeat_age_seconds", .gauge, "Time since the worker's loop last turned.") {
            $0.heartbeatAgeSeconds
        },
        .perWorker("relay_worker_uptime_seconds", .gauge, "Age of the worker's process.") { $0.uptimeSeconds },
        .perWorker(
            "relay_worker_loop_lag_seconds", .gauge, "Longest turn of the worker's loop in the last whole second."
        ) { $0.loopLagSeconds },
        .perWorker("relay_worker_resident_memory_bytes", .gauge, "Resident memory of the worker's process.") {
            $0.memoryBytes.map { Double($0) }
        },
        .perWorker("relay_worker_cpu_seconds_total", .counter, "CPU time of all processes in the worker's place.") {
            $0.cpuSeconds
        },
    ]

    private static let connections: [Metric] = [
        .counter("relay_connections_accepted_total", "Connections accepted.", .accepted),
        .counter(
            "relay_accept_failures_total", "Times that accepting failed for want of descriptors or memory.",
            .acceptFailed),
        .family(
            "relay_connections_refused_total", "Connections refused, by reason.", by: "reason", .connectionRefusals),
        .counter("relay_requests_total", "HTTP requests, joins among them.", .requests),
        .counter(
            "relay_requests_refused_total", "HTTP requests refused, joins that failed among them.", .requestRefused),
        .counter(
            "relay_requests_rate_limited_total",
            "HTTP requests other than joins that were refused because their address makes too many.",
            .requestRateLimited),
        .counters(
            "relay_client_address_conflicts_total",
            "Requests that count for their trusted proxy, because its headers don't say whose they are, by reason.",
            by: "reason",
            [
                "disagreement": .clientAddressDisagreement, "repeated": .clientAddressRepeated,
                "malformed": .clientAddressMalformed,
            ]),
        .counters(
            "relay_tls_handshakes_total", "TLS handshakes completed, by whether a session was resumed.", by: "resumed",
            ["false": .tlsHandshakeFull, "true": .tlsHandshakeResumed]),
        .family(
            "relay_tls_handshake_failures_total", "TLS handshakes failed, by reason.", by: "reason",
            .tlsHandshakeFailures),
        .counter(
            "relay_tls_handshakes_put_off_total",
            "Times that a TLS handshake had to wait because many others were under way.", .tlsHandshakePutOff),
        .family(
            "relay_tls_violations_total", "Connections that broke a rule of TLS after their handshake, by rule.",
            by: "violation", .tlsViolations),
        .counter("relay_network_received_bytes_total", "Bytes read from clients' sockets.", .bytesReceived),
        .counter("relay_network_sent_bytes_total", "Bytes written to clients' sockets.", .bytesSent),
        .family("relay_closes_total", "Connections closed, by reason.", by: "reason", .closes),
        .counter(
            "relay_slow_consumers_total",
            "Clients closed because they read too slowly: those of relay_closes_total with reason slow or memory."
        ) { Double($0[.close(.slow)] &+ $0[.close(.memory)]) },
    ]

    private static let joins: [Metric] = [
        .family("relay_joins_total", "Joins by result: host and guest were let in.", by: "result", .joins),
        .counters(
            "relay_handoffs_total", "Connections handed to the worker of their room, by result.", by: "result",
            ["sent": .handoffSent, "received": .handoffReceived, "malformed": .handoffMalformed]),
        .counter(
            "relay_handoff_retries_total", "Attempts to hand over a connection whose owner had been busy.",
            .handoffRetried),
    ]

    private static let messages: [Metric] = [
        .counters(
            "relay_messages_received_total", "Messages of clients, by class.", by: "class",
            ["voice": .voiceReceived, "data": .dataReceived]),
        .counters(
            "relay_message_received_bytes_total", "Bytes of clients' messages, by class.", by: "class",
            ["voice": .voiceBytesReceived, "data": .dataBytesReceived]),
        .counters(
            "relay_messages_delivered_total", "Messages passed on, once a recipient, by class.", by: "class",
            ["voice": .voiceDelivered, "data": .dataDelivered]),
        .counters(
            "relay_message_delivered_bytes_total", "Bytes of messages passed on, once a recipient, by class.",
            by: "class", ["voice": .voiceBytesDelivered, "data": .dataBytesDelivered]),
        .counter(
            "relay_held_batches_total",
            "Batches of a room's data that a busy worker held back for some 2 ms, to send more at once.", .batchesHeld),
        .counter(
            "relay_shared_blocks_total", "Messages, or runs of them, that waited once for several clients.",
            .blocksShared),
        .counter("relay_leave_notices_total", "Leave notices, once a recipient.", .leaveNotices),
        .counter(
            "relay_reads_paused_total",
            "Times that a member was not read for a while, for RELAY_MAX_MESSAGES_PER_SECOND or RELAY_MAX_BYTES_PER_SECOND.",
            .readsPaused),
        .family("relay_drops_total", "What was dropped and not sent, by what it was.", by: "reason", .drops),
    ]

    private static let rooms: [Metric] = [
        .counter("relay_rooms_opened_total", "Rooms opened.", .roomsOpened),
        .counter("relay_rooms_closed_total", "Rooms closed; not those that a worker's death ended.", .roomsClosed),
        .counters(
            "relay_rooms_moved_total", "Rooms that moved between workers at a reload or the like.", by: "direction",
            ["out": .roomsMovedOut, "in": .roomsMovedIn]),
        .counters(
            "relay_clients_moved_total", "Clients that moved with their rooms.", by: "direction",
            ["out": .membersMovedOut, "in": .membersMovedIn]),
        .counter("relay_moved_bytes_total", "Bytes that waited for or from clients which moved.", .bytesMoved),
        .counter(
            "relay_joins_awaiting_room_total", "Joins that waited for a room which was on its way.", .joinAwaitedRoom),
        .counters(
            "relay_host_keys_total", "Host keys that outlived their worker, by what became of them.", by: "event",
            ["restored": .hostKeysRestored, "expired": .hostKeysExpired]),
    ]

    private static let durations: [Metric] = [
        .histogram(
            "relay_loop_lag_seconds",
            "Duration of event loop iterations: an upper bound of the delay that the loop adds.",
            .loopLag),
        .histogram(
            "relay_delivery_latency_seconds",
            "Messages delivered, by the time from the wake-up that read them to the end of the turn that sent them.",
            .deliveryLatency),
        .histogram(
            "relay_handoff_duration_seconds",
            "Connections handed to the worker of their room, by the time until it took them.", .handoffDuration),
        .histogram(
            "relay_move_pause_seconds",
            "Rooms that moved to another worker at a reload or the like, by the time that they were quiet.", .movePause),
    ]

    private static let admin: [Metric] = [
        .counter("relay_admin_requests_total", "Requests at the admin listeners.") { Double($0.admin.requests) },
        .values(
            "relay_admin_closes_total", .counter, "Connections of the admin listeners that were ended, by reason."
        ) { report in
            AdminCounts.Close.allCases.map { ([("reason", $0.rawValue)], Double(report.admin[$0])) }
        },
        .values(
            "relay_admin_refusals_total", .counter,
            "Requests at RELAY_METRICS_ADDR that were refused, by what was wrong."
        ) { report in
            AdminRefusal.allCases.map { ([("reason", $0.rawValue)], Double(report.admin[$0])) }
        },
    ]
}
