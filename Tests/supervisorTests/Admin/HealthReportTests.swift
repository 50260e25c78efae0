import Shared
import Testing

@testable import supervisor

@Suite struct `The report as JSON` {
    @Test func `says everything in a fixed order, and null for what there is not`() {
        #expect(
            HealthReport.json(.example())
                == #"{"status":"degraded","version":"1.2.3","phase":"serving","uptime_seconds":11045.500,"generation":2,"#
                + #""changing":false,"last_change":null,"rooms":3,"clients":12,"connections":14,"restarts":2,"#
                + #""sandbox":["limits","seccomp"],"workers":["#
                + #"{"index":0,"generation":2,"pid":4711,"state":"serving","uptime_seconds":11045.000,"restarts":0,"last_exit":null,"#
                + #""heartbeat_age_seconds":0.250,"rooms":3,"clients":12,"connections":14,"loop_lag_seconds":0.000153,"#
                + #""memory_bytes":16211968,"cpu_seconds":12.346,"sandbox":["limits","seccomp"]},"#
                + #"{"index":1,"generation":2,"pid":null,"state":"down","uptime_seconds":null,"restarts":2,"#
                + #""last_exit":"exit 71 (could not begin): \"no\" memory","heartbeat_age_seconds":null,"rooms":0,"#
                + #""clients":0,"connections":0,"loop_lag_seconds":0.000000,"memory_bytes":null,"cpu_seconds":0.000,"sandbox":null}]}"#
        )
    }

    @Test(
        arguments: [
            (0, 3, "0.000"), (0.000_49, 3, "0.000"), (0.000_51, 3, "0.001"), (1.999_9, 3, "2.000"), (12.34, 1, "12.3"),
            (-0.5, 1, "-0.5"), (-0.001, 1, "0.0"), (7.5, 0, "8"), (.nan, 3, "0"), (.infinity, 3, "0"), (1e300, 3, "0"),
            (1_795_690_784.25, 3, "1795690784.250"),
        ] as [(Double, Int, String)])
    func `writes numbers with a fixed count of digits`(value: Double, places: Int, text: String) {
        #expect(decimal(value, places: places) == text)
    }
}

@Suite struct `The report's verdict` {
    @Test func `is ready while the relay serves with any worker`() {
        var report = RelayReport.example()
        #expect(report.unreadyReason == nil)
        report.workers[0].state = .hanging
        #expect(report.unreadyReason == "no worker serves")
        report.phase = .draining
        #expect(report.unreadyReason == "draining")
        report.phase = .starting
        #expect(report.unreadyReason == "starting")
    }

    @Test func `is a line for people`() {
        var report = RelayReport.example()
        #expect(report.summary == "relay 1.2.3: degraded, 1 of 2 workers serving, up 3h 4m")
        report.health = .unavailable
        #expect(report.summary == "relay 1.2.3: unavailable (a worker keeps dying), 1 of 2 workers serving, up 3h 4m")
        report.phase = .starting
        report.workers.removeLast()
        report.workers[0].state = .starting
        report.uptimeSeconds = 1.9
        #expect(report.summary == "relay 1.2.3: unavailable (starting), 0 of 1 worker serving, up 1s")
    }
}
