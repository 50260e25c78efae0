// What the relay knows about itself at one moment, as a plain value: taken from shared memory, the workers' places and /proc, and
// told in three languages: JSON for programs (HealthReport), a table for people (StatusTable), Prometheus's text (Metrics).

import Glibc
import Shared

/// The relay at one moment.
struct RelayReport {
    var version = Version.text
    var health = Health.unavailable
    var phase = RelayPhase.starting
    var uptimeSeconds = 0.0
    /// Unix seconds of the supervisor's start.
    var startedAt = 0.0
    /// Raised with each reload.
    var generation: UInt64 = 1
    /// Of each kind of change: how many succeeded and failed.
    var changes: [(succeeded: UInt64, failed: UInt64)] = [(0, 0), (0, 0), (0, 0)]
    var isChanging = false
    /// What became of the last change.
    var lastChange: String?
    var roomsMax = 0
    var connectionsMax = 0
    var workers: [WorkerReport] = []
    /// Of generations before: they let their last connections go.
    var leavers: [WorkerReport] = []
    /// The supervisor's own process.
    var supervisor = ProcessReading()

    // Over all pages of shared memory, those of workers that are gone included
    var counters = [UInt64](repeating: 0, count: Counter.allCases.count)
    /// Of each family its values, in the order of `CounterFamily.labels`.
    var families = CounterFamily.allCases.map { [UInt64](repeating: 0, count: $0.labels.count) }
    var histograms = [HistogramCounts](repeating: HistogramCounts(), count: Histogram.allCases.count)
    var heldBytes: UInt64 = 0
    /// What workers have taken of RELAY_MAX_MEMORY.
    var memoryGranted = 0
    var memoryBytesMax = 0
    /// What the kernel holds for TCP sockets, over the whole network namespace; nil where /proc does not say.
    var kernelTCPBytes: UInt64?
    var limiterEvictions: UInt64 = 0
    var admin = AdminCounts()
    /// What workers said that was not heeded, in the order of `WorkerFault`.
    var workerFaults = [UInt64](repeating: 0, count: WorkerFault.allCases.count)
    /// How often counts of the whole relay were put right, in the order of `CommonCount`.
    var corrections = [UInt64](repeating: 0, count: CommonCount.allCases.count)

    var everyWorker: [WorkerReport] { workers + leavers }
    /// Sums over the workers.
    var rooms: UInt64 { everyWorker.reduce(0) { $0 &+ $1.rooms } }
    var clients: UInt64 { everyWorker.reduce(0) { $0 &+ $1.clients } }
    var connections: UInt64 { everyWorker.reduce(0) { $0 &+ $1.connections } }
    var restarts: UInt64 { everyWorker.reduce(0) { $0 &+ $1.restarts } }
    var workersServing: Int { workers.count { $0.state == .serving } }

    /// The parts of the sandbox that hold in every worker that serves; nil if none does.
    var sandbox: SandboxParts? {
        let parts = everyWorker.compactMap(\.sandbox)
        return parts.isEmpty ? nil : parts.reduce(.all) { $0.intersection($1) }
    }

    /// Why `/readyz` says no; nil while the relay serves.
    var unreadyReason: String? {
        switch phase {
        case .starting: "starting"
        case .draining: "draining"
        case .serving: workersServing == 0 ? "no worker serves" : nil
        }
    }

    /// One line for a person: how it is, and what of it serves.
    var summary: String {
        let (status, reason) =
            switch health {
            case .ok: ("ok", "")
            case .degraded: ("degraded", "")
            case .unavailable: ("unavailable", unreadyReason.map { " (\($0))" } ?? " (a worker keeps dying)")
            }
        return "relay \(version): \(status)\(reason), \(workersServing) of \(workers.count) "
            + "\(workers.count == 1 ? "worker" : "workers") serving, up \(StatusTable.duration(uptimeSeconds))"
    }
}

/// One worker's place and the process in it.
struct WorkerReport {
    enum State: String, CaseIterable {
        /// No process; the next is due.
        case down
        case starting
        case serving
        case draining
        /// Its loop has not turned for so long that it does not count as serving.
        case hanging
        /// The same, because others have the CPU.
        case starved
        /// Replaced by a worker of a new generation: its last connections go.
        case leaving
    }

    /// Its number in its generation.
    var index = 0
    var generation: UInt64 = 1
    /// nil while it is down.
    var pid: pid_t?
    var state = State.down
    var uptimeSeconds: Double?
    /// Processes that were started because the one before had died.
    var restarts: UInt64 = 0
    /// How the last process ended; nil if none has.
    var lastExit: String?
    var heartbeatAgeSeconds: Double?
    var rooms: UInt64 = 0
    var clients: UInt64 = 0
    var connections: UInt64 = 0
    /// The longest turn of its loop in the last whole second.
    var loopLagSeconds = 0.0
    /// Resident, bytes.
    var memoryBytes: UInt64?
    /// Over all processes that filled the place.
    var cpuSeconds = 0.0
    /// The parts of its sandbox that hold; nil until it serves.
    var sandbox: SandboxParts?
}

extension RelayReport {
    /// Looks at the relay.
    init(_ supervisor: Supervisor, now: UInt64 = Clock.monotonicNanoseconds()) {
        let memory = supervisor.memory
        health = memory.health(now: now, silenceMax: Limits.heartbeatSilenceNanoseconds)
        phase = memory.phase
        uptimeSeconds = seconds(now - min(now, supervisor.startedAt))
        startedAt = supervisor.admin.bootedAt + seconds(supervisor.startedAt)
        generation = supervisor.generation
        changes = (0..<3).map {
            (succeeded: memory.changes($0, succeeded: true), failed: memory.changes($0, succeeded: false))
        }
        isChanging = supervisor.change != nil
        lastChange = supervisor.lastOutcome?.text
        roomsMax = supervisor.configuration.roomsMax
        connectionsMax = supervisor.configuration.connectionsMax
        memoryBytesMax = supervisor.configuration.memoryBytesMax
        memoryGranted = memory.memoryPool.taken
        kernelTCPBytes = ProcessReading.kernelTCPBytes()
        workers = supervisor.places.map { WorkerReport($0, now: now) }
        leavers = supervisor.leavers.map { place in
            var worker = WorkerReport(place, now: now)
            worker.state = .leaving
            return worker
        }
        self.supervisor = ProcessReading(pid: getpid())
        for page in memory.pages {
            for counter in Counter.allCases { counters[counter.rawValue] &+= page[counter] }
            for family in CounterFamily.allCases {
                for index in families[family.rawValue].indices {
                    families[family.rawValue][index] &+= page[family, index]
                }
            }
            for histogram in Histogram.allCases { histograms[histogram.rawValue] += page[histogram] }
            heldBytes &+= page[.heldBytes]
        }
        limiterEvictions = memory.limiterEvictions
        admin = supervisor.admin.counts
        workerFaults = supervisor.workerFaults
        corrections = supervisor.corrections
    }
}

extension WorkerReport {
    init(_ place: WorkerPlace, now: UInt64) {
        let page = place.page
        (index, generation) = (place.index, place.generation)
        pid = place.pid
        restarts = place.restartCount
        lastExit = place.lastEnd?.description
        rooms = page[.rooms]
        clients = page[.clients]
        connections = page[.connections]
        cpuSeconds = place.cpuSecondsOfTheDead
        guard let pid else { return }
        // Read before the clock was, or behind: a beat in the future is one of this moment.
        let silence = now - min(now, page.heartbeat)
        uptimeSeconds = seconds(now - min(now, place.launchedAt))
        heartbeatAgeSeconds = seconds(silence)
        state =
            switch page.state {
            case .down, .starting: .starting
            case .serving:
                silence <= Limits.heartbeatSilenceNanoseconds ? .serving : place.isStarved ? .starved : .hanging
            case .draining: .draining
            }
        loopLagSeconds = seconds(page[.loopLag])
        if place.isReady { sandbox = place.sandbox }
        let reading = ProcessReading(pid: pid)
        memoryBytes = reading.memoryBytes
        cpuSeconds += reading.cpuSeconds ?? 0
    }
}

func seconds(_ nanoseconds: UInt64) -> Double {
    Double(nanoseconds) / 1e9
}
