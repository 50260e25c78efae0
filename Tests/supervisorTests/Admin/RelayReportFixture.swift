import Shared

@testable import supervisor

extension RelayReport {
    /// A relay with a worker that serves and one that has died.
    static func example() -> RelayReport {
        var report = RelayReport()
        report.version = "1.2.3"
        report.health = .degraded
        report.phase = .serving
        report.uptimeSeconds = 11_045.5
        report.startedAt = 1_795_690_784.25
        report.roomsMax = 1000
        report.connectionsMax = 5000
        report.supervisor = ProcessReading(memoryBytes: 15_945_728, cpuSeconds: 0.25)
        report.generation = 2
        var serving = WorkerReport()
        serving.generation = 2
        serving.pid = 4711
        serving.state = .serving
        serving.uptimeSeconds = 11_045
        serving.heartbeatAgeSeconds = 0.25
        (serving.rooms, serving.clients, serving.connections) = (3, 12, 14)
        serving.loopLagSeconds = 0.000_153
        serving.memoryBytes = 16_211_968
        serving.cpuSeconds = 12.345_6
        serving.sandbox = [.limits, .seccomp]
        var down = WorkerReport()
        (down.index, down.generation) = (1, 2)
        down.restarts = 2
        down.lastExit = "exit 71 (could not begin): \"no\" memory"
        report.workers = [serving, down]
        report.counters = Counter.allCases.map { UInt64($0.rawValue) + 1 }
        for family in CounterFamily.allCases {
            report.families[family.rawValue] = family.labels.indices.map { UInt64(family.rawValue * 100 + $0 + 1) }
        }
        report.histograms[Histogram.handoffDuration.rawValue].buckets[0] = 4
        report.histograms[Histogram.handoffDuration.rawValue].buckets[18] = 1
        report.histograms[Histogram.handoffDuration.rawValue].sum = 7_000_000_000
        report.heldBytes = 99
        (report.memoryGranted, report.memoryBytesMax, report.kernelTCPBytes) = (1 << 20, 512 << 20, 8192)
        return report
    }
}
