// What it costs to let somebody in: connections one after another, or a few at a time, each with its handshake and a join.

struct HandshakeLoad {
    let endpoint: Endpoint
    let count: Int
    /// Offer the last connection's ticket (RFC 8446, 2.2).
    let resumes: Bool
    /// Connections at a time, in step: so many begin, so many join, so many leave.
    let parallel: Int

    /// Opens the connections and lets each go once it has joined. A tenth as many go before, to warm the relay up and
    /// to bring the first ticket; they are not measured.
    func run(_ server: ServerProcesses?) throws -> HandshakeResult {
        var result = HandshakeResult(connections: count)
        for _ in 0..<max(1, count / 10 / parallel) { try connect(parallel, &result) }
        result = HandshakeResult(connections: count)
        settle()
        let cpuBefore = server?.cpuTime()
        let machineBefore = MachineTime.now()
        let start = Clock.monotonic()
        for first in stride(from: 0, to: count, by: parallel) {
            try connect(min(parallel, count - first), &result)
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

    /// Hosts who each open a room of their own and leave.
    private func connect(_ count: Int, _ result: inout HandshakeResult) throws {
        let deadline = Deadline(seconds: 15)
        var hosts: [(transport: Transport, began: UInt64)] = []
        for index in 0..<count {
            let began = Clock.monotonic()
            let source = endpoint.isLoopback ? SocketAddress.loopback((result.opened + index) % 200) : nil
            let transport = try Transport.begin(to: endpoint, from: source, resume: resumes, deadline: deadline)
            hosts.append((transport, began))
        }
        for (transport, _) in hosts {
            let session = Session(room: "bench-" + Encoding.hex(Encoding.randomBytes(12)))
            try transport.finishHandshake(deadline: deadline)
            let bytes = session.hostRequest().encoded(authority: endpoint.authority)
            if let problem = Request.send(bytes, to: transport, deadline: deadline) { throw refused(problem) }
        }
        for (transport, began) in hosts {
            let exchange = Request.answer(from: transport, deadline: deadline)
            guard case .switched = exchange else { throw refused(exchange.summary) }
            result.latency.record(Clock.monotonic() - began)
            if transport.secure?.isResumed == true { result.resumed += 1 }
        }
        result.opened += count
    }

    private func refused(_ reason: String) -> UsageError {
        UsageError("a connection was refused: \(reason). RELAY_RATE_LIMIT_PER_IP must be 0 for this")
    }
}

struct HandshakeResult {
    let connections: Int
    var opened = 0
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
        var lines = ["\(connections) connections, each with a join"]
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
