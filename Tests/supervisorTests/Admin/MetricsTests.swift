import Shared
import Testing

@testable import supervisor

@Suite struct `The metrics page` {
    @Test func `is Prometheus's text format, and has each counter, family and histogram exactly once`() throws {
        let page = try PrometheusText(Metrics.text(.example()))
        #expect(page.families.keys.allSatisfy { $0.hasPrefix("relay_") || $0.hasPrefix("process_") })
        #expect(page.families.count == Set(Metrics.table.map(\.name)).count)
        #expect(Metrics.table.count == page.families.count)
        var (counters, families, histograms): ([Counter], [CounterFamily], [Histogram]) = ([], [], [])
        for metric in Metrics.table {
            switch metric.source {
            case .counter(let counter): counters.append(counter)
            case .counters(_, let labelled): counters += labelled.map(\.value)
            case .family(_, let family): families.append(family)
            case .histogram(let histogram): histograms.append(histogram)
            case .value, .values, .perWorker: break
            }
        }
        #expect(counters.sorted { $0.rawValue < $1.rawValue } == Counter.allCases)
        #expect(families.sorted { $0.rawValue < $1.rawValue } == CounterFamily.allCases)
        #expect(histograms.sorted { $0.rawValue < $1.rawValue } == Histogram.allCases)
    }

    @Test func `shows what is in the report`() throws {
        let report = RelayReport.example()
        let page = try PrometheusText(Metrics.text(report))
        for (name, value) in [
            (#"relay_build_info{version="1.2.3"}"#, 1), (#"relay_health{status="degraded"}"#, 1),
            (#"relay_health{status="ok"}"#, 0), ("relay_ready", 1), ("relay_generation", 2),
            ("relay_connections", 14), ("relay_connections_limit", 5000), ("relay_clients", 12), ("relay_rooms", 3),
            ("relay_rooms_limit", 1000), ("relay_memory_bytes", 99), ("relay_memory_granted_bytes", 1_048_576),
            ("relay_memory_limit_bytes", 536_870_912), ("relay_kernel_tcp_memory_bytes", 8192),
            ("process_start_time_seconds", 1_795_690_784.25),
            ("process_resident_memory_bytes", 15_945_728), ("process_cpu_seconds_total", 0.25),
            (#"relay_workers{state="serving"}"#, 1), (#"relay_workers{state="down"}"#, 1),
            (#"relay_workers{state="hanging"}"#, 0), (#"relay_worker_restarts_total{worker="1"}"#, 2),
            (#"relay_worker_heartbeat_age_seconds{worker="0"}"#, 0.25),
            (#"relay_worker_resident_memory_bytes{worker="0"}"#, 16_211_968),
            (#"relay_worker_cpu_seconds_total{worker="0"}"#, 12.345_6),
            (#"relay_joins_total{result="host"}"#, Double(report[.join(.host)])),
            (#"relay_joins_total{result="handoff_failed"}"#, 119),
            (#"relay_closes_total{reason="slow"}"#, Double(report[.close(.slow)])),
            (#"relay_closes_total{reason="timeout"}"#, 10),
            (#"relay_tls_violations_total{violation="unprotected_record"}"#, 401),
            (#"relay_tls_handshake_failures_total{reason="plain_http"}"#, 301),
            (#"relay_connections_refused_total{reason="address_full"}"#, 202),
            (#"relay_drops_total{reason="control_message"}"#, 503),
            ("relay_slow_consumers_total", Double(report[.close(.slow)] + report[.close(.memory)])),
            (#"relay_message_delivered_bytes_total{class="data"}"#, Double(report[.dataBytesDelivered])),
            (#"relay_handoff_duration_seconds_bucket{le="1e-05"}"#, 4),
            (#"relay_handoff_duration_seconds_bucket{le="5"}"#, 4),
            (#"relay_handoff_duration_seconds_bucket{le="+Inf"}"#, 5), ("relay_handoff_duration_seconds_sum", 7),
            ("relay_handoff_duration_seconds_count", 5), ("relay_loop_lag_seconds_count", 0),
        ] as [(String, Double)] {
            #expect(page[name] == value, "\(name)")
        }
        // Of a worker that is down there is nothing to tell.
        #expect(page[#"relay_worker_resident_memory_bytes{worker="1"}"#] == nil)
        #expect(page[#"relay_worker_heartbeat_age_seconds{worker="1"}"#] == nil)
    }

    @Test func `names each worker once, though one that leaves has a successor of its number`() throws {
        var report = RelayReport.example()
        var leaver = report.workers[0]
        (leaver.generation, leaver.state, leaver.connections) = (1, .leaving, 5)
        report.leavers = [leaver]
        let page = try PrometheusText(Metrics.text(report))
        #expect(page[#"relay_workers{state="leaving"}"#] == 1)
        #expect(page["relay_connections"] == 19)
        #expect(report.summary.contains("1 of 2 workers serving"))
        #expect(HealthReport.json(report).contains(#"{"index":0,"generation":1,"pid":4711,"state":"leaving","#))
    }

    @Test func `has no label that says who`() throws {
        let page = try PrometheusText(Metrics.text(.example()))
        let labels = Set(page.samples.keys.flatMap { $0.matches(of: #/([a-z_]+)="/#).map { String($0.1) } })
        #expect(
            labels == [
                "class", "direction", "event", "kind", "le", "part", "reason", "result", "resumed", "state", "status",
                "version", "violation", "worker",
            ])
    }

    @Test func `escapes what would end a line or a label`() {
        #expect(MetricsText.escaped("a\\b\"c\nd", quote: true) == #"a\\b\"c\nd"#)
        #expect(MetricsText.escaped("a\\b\"c\nd", quote: false) == #"a\\b"c\nd"#)
        var page = MetricsText()
        page.begin("a_total", .counter, "x\ny")
        page.add([("l", "\"\\\n")], 1)
        #expect(page.text == "# HELP a_total x\\ny\n# TYPE a_total counter\na_total{l=\"\\\"\\\\\\n\"} 1\n")
        #expect(throws: Never.self) { try PrometheusText(page.text) }
    }

    @Test(
        arguments: [
            (0, "0"), (1e15, "1000000000000000"), (0.25, "0.25"), (.infinity, "+Inf"), (-.infinity, "-Inf"),
            (.nan, "NaN"),
            (1e-05, "1e-05"),
        ] as [(Double, String)])
    func `writes numbers as Prometheus reads them`(value: Double, text: String) {
        #expect(MetricsText.number(value) == text)
    }

    @Test(arguments: [
        "a 1\n", "# TYPE a gauge\na 1\n", "# HELP a x\na 1\n", "# HELP a x\n# TYPE a gauge\na 1",
        "# HELP a x\n# TYPE a gauge\na 1\na 2\n", "# HELP a x\n# TYPE a counter\na 1\n",
        "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n", "# HELP a_total x\n# TYPE a_total counter\na_total -1\n",
        "# HELP a x\n# TYPE a gauge\nb 1\n", "# HELP a x\n# TYPE a gauge\na one\n",
        "# HELP a x\n# TYPE a gauge\na{l=\"x} 1\n",
        "# HELP a x\n# TYPE a gauge\na{l=\"\\x\"} 1\n", "# HELP a x\n# TYPE a gauge\na{1=\"x\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{l=\"x\",l=\"y\"} 1\n", "# HELP a x\n# TYPE a gauge\n\na 1\n",
        "# HELP a x\n# TYPE a gauge\na 1\n# HELP b x\n# TYPE b gauge\n# HELP a x\n# TYPE a gauge\na{l=\"x\"} 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_count 1\n",
        "# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n",
    ])
    func `would not pass its reader with a mistake in it`(text: String) {
        #expect(throws: PrometheusError.self) { try PrometheusText(text) }
    }
}
