// What it costs to let somebody in: connections one after another, each with its handshake and a join.

struct HandshakeLoad {
    let endpoint: Endpoint
    let count: Int
    /// Offer the last connection's ticket (RFC 8446, 2.2).
    let resumes: Bool

    /// Opens the connections and lets each go once it has joined. A tenth as many go before, to warm the relay up and
    /// to bring the first ticket; they are not measured.
    func run(_ server: ServerProcesses?) throws -> HandshakeResult {
        for index in 0..<max(1, count / 10) { _ = try connect(index) }
        settle()
        var result = HandshakeResult(connections: count)
        let cpuBefore = server?.cpuTime()
        let machineBefore = MachineTime.now()
        let start = Clock.monotonic()
        for index in 0..<count {
            let began = Clock.monotonic()
            let isResumed = try connect(index)
            result.latency.record(Clock.monotonic() - began)
            if isResumed { result.resumed += 1 }
        }
        result.seconds = Double(Clock.monotonic() - start) / 1e9
        settle()
        result.stealPercent = MachineTime.now().stealPercent(since: machineBefore)
        result.cpuNanoseconds = cpuBefore.flatMap { before in
            server.map { ServerProcesses.difference(before, $0.cpuTime()) }
        }
        return result
    }

    /// The relay learns that the last ones have left.
    private func settle() { Clock.sleep(nanoseconds: 100_000_000) }

    /// A host opens a room of his own and leaves. Whether his handshake was a resumption.
    private func connect(_ index: Int) throws -> Bool {
        let session = Session(room: "bench-" + Encoding.hex(Encoding.randomBytes(12)))
        let source = endpoint.isLoopback ? SocketAddress.loopback(index % 200) : nil
        let exchange = try session.hostRequest().perform(
            at: endpoint, from: source, resume: resumes, deadline: Deadline(seconds: 15))
        guard case .switched(let transport, _, _) = exchange else {
            throw UsageError("connection \(index + 1) of \(count) was refused: \(exchange.summary)")
        }
        return transport.secure?.isResumed ?? false
    }
}

struct HandshakeResult {
    let connections: Int
    var resumed = 0
    var seconds = 0.0
    /// From connect(2) to the answer to the join.
    var latency = Histogram()
    var cpuNanoseconds: UInt64?
    var stealPercent = 0.0

    private var cpuPerConnection: Double? {
        cpuNanoseconds.map { Double($0) / 1000 / Double(connections) }
    }

    var text: String {
        var lines = ["\(connections) connections one after another, each with a join"]
        lines.append(line("resumed", "\(resumed)"))
        lines.append(line("connections/s", fixed(Double(connections) / seconds, 0)))
        lines.append(line("latency p50, us", fixed(Double(latency.percentile(0.5)) / 1000, 1)))
        lines.append(line("latency p99, us", fixed(Double(latency.percentile(0.99)) / 1000, 1)))
        if let cpuPerConnection { lines.append(line("server CPU/connection, us", fixed(cpuPerConnection, 1))) }
        lines.append(line("steal, %", fixed(stealPercent, 2)))
        return lines.joined(separator: "\n")
    }

    var json: String {
        var fields = [
            "\"workload\":\"handshakes\"", "\"connections\":\(connections)", "\"resumed\":\(resumed)",
            "\"seconds\":\(fixed(seconds, 3))",
            "\"connections_per_second\":\(fixed(Double(connections) / seconds, 1))",
            "\"latency_p50_us\":\(fixed(Double(latency.percentile(0.5)) / 1000, 1))",
            "\"latency_p99_us\":\(fixed(Double(latency.percentile(0.99)) / 1000, 1))",
        ]
        if let cpuPerConnection { fields.append("\"cpu_us_per_connection\":\(fixed(cpuPerConnection, 2))") }
        fields.append("\"steal_percent\":\(fixed(stealPercent, 2))")
        return "{" + fields.joined(separator: ",") + "}"
    }
}
