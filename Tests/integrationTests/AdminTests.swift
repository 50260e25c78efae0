import Foundation
import Glibc
import Testing

@Suite struct `The admin listener` {
    @Test func `answers each of its paths, and 404 and 405 otherwise`() async throws {
        try await Relay.runAdmin { relay, admin in
            #expect(try await admin.answer("/livez").answer == "200 ok\n")
            #expect(try await admin.answer("/readyz").answer == "200 ready\n")
            #expect(try await admin.answer("/status").body.hasPrefix("relay "))
            #expect(try await admin.answer("/").body.contains("/metrics\n"))
            for path in ["/health", "/metrics", "/livez", "/readyz", "/status"] {
                let answer = try await admin.answer(path)
                #expect(answer["cache-control"] == "no-store")
                let get = try await curl(
                    "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:\(admin.port)\(path)")
                #expect(get == "200")
            }
            for path in ["/healthz", "/ws", "/metrics/"] {
                #expect(try await admin.answer(path).status == 404, "\(path)")
            }
            let client = try await RawClient(admin.port)
            try await client.send(
                "POST /health HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            let refused = try await client.response()
            #expect(refused.status == 405)
            #expect(refused["allow"] == "GET, HEAD")
            // On the same connection.
            let head = try await client.response(hasBody: false)
            #expect(head.status == 200 && head["content-length"] == "3" && head["connection"] == "keep-alive")
            #expect(client.unread() == [])
        }
    }

    @Test func `reads requests as strictly as the public port, in any pieces`() async throws {
        try await Relay.runAdmin(workers: 1) { relay, admin in
            for (request, status) in [
                ("GET /livez HTTP/1.1\n\n", 400), ("GET /livez HTTP/1.1\r\n\r\n", 400), ("hello\r\n\r\n", 400),
                ("GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
                ("GET /livez HTTP/1.1\r\nHost: localhost\r\nA: \(String(repeating: "a", count: 17_000))\r\n\r\n", 431),
            ] {
                let client = try await RawClient(admin.port)
                try await client.send(request)
                #expect(try await client.response().status == status)
                #expect(try await client.rest() == [])
            }
            let client = try await RawClient(admin.port)
            for byte in "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8 { try await client.send([byte]) }
            #expect(try await client.response().body == "ok\n")
            // As many as there are, in their order.
            let paths = (0..<100).map { ["/livez", "/nowhere", "/readyz"][$0 % 3] }
            try await client.send(paths.map { "GET \($0) HTTP/1.1\r\nHost: localhost\r\n\r\n" }.joined())
            for path in paths { #expect(try await client.response().status == (path == "/nowhere" ? 404 : 200)) }
            // Content is not read: the connection ends.
            try await client.send("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            #expect(try await client.response().status == 200)
            #expect(try await client.rest() == [])
            try await admin.counts([#"relay_admin_closes_total{reason="bad_request"}"#: 5])
        }
    }

    @Test func `tells who is where while the relay serves`() async throws {
        try await Relay.runAdmin(workers: 2) { relay, admin in
            var members: [WebSocketClient] = []
            for _ in 0..<6 {
                let session = Session()
                members.append(try await relay.join(session.host()))
                members.append(try await relay.join(session.guest()))
            }
            let health = try await admin.health()
            #expect(health.status == "ok" && health.phase == "serving" && health.generation == 1)
            #expect(health.rooms == 6 && health.clients == 12 && health.restarts == 0)
            #expect(health.connections >= 12)
            #expect(health.workers.map(\.index) == [0, 1])
            #expect(health.workers.compactMap(\.pid).sorted() == relay.workerPIDs)
            for worker in health.workers {
                #expect(worker.state == "serving" && worker.lastExit == nil && worker.restarts == 0)
                #expect(try #require(worker.memoryBytes) > 1 << 20)
                #expect(try #require(worker.heartbeatAgeSeconds) < 20)
                #expect(worker.cpuSeconds >= 0 && worker.loopLagSeconds >= 0)
            }
            try await admin.counts([
                #"relay_joins_total{result="host"}"#: 6, #"relay_joins_total{result="guest"}"#: 6,
                "relay_rooms": 6, "relay_clients": 12,
            ])
            let metrics = try await admin.metrics()
            let received = try #require(metrics[#"relay_handoffs_total{result="received"}"#])
            #expect(metrics["relay_handoff_duration_seconds_count"] == received)
            #expect(members.allSatisfy { $0.isOpen })
        }
    }

    @Test func `counts messages and bytes by class, and how long they took`() async throws {
        try await Relay.runAdmin(workers: 1) { relay, admin in
            let session = Session()
            let host = try await relay.join(session.host())
            let guests = [try await relay.join(session.guest("a")), try await relay.join(session.guest("b"))]
            for _ in 0..<10 { host.send(binary: [0x4B, 0x56] + [UInt8](repeating: 7, count: 100)) }
            for _ in 0..<5 { host.send(String(repeating: "x", count: 1000)) }
            for guest in guests { _ = try await guest.data(5) }
            let metrics = try await awaited("all to be counted") { () -> PrometheusText? in
                let metrics = try await admin.metrics()
                return metrics[#"relay_messages_delivered_total{class="data"}"#] == 10 ? metrics : nil
            }
            // A frame's header is 2 bytes, and 4 from 126 bytes on.
            for (name, value) in [
                (#"relay_messages_received_total{class="voice"}"#, 10),
                (#"relay_messages_received_total{class="data"}"#, 5),
                (#"relay_message_received_bytes_total{class="voice"}"#, 10 * 104),
                (#"relay_message_received_bytes_total{class="data"}"#, 5 * 1004),
                (#"relay_messages_delivered_total{class="voice"}"#, 20),
                (#"relay_message_delivered_bytes_total{class="voice"}"#, 20 * 104),
                (#"relay_message_delivered_bytes_total{class="data"}"#, 10 * 1004),
                ("relay_delivery_latency_seconds_count", 30),
            ] as [(String, Double)] {
                #expect(metrics[name] == value, "\(name)")
            }
            #expect(try #require(metrics["relay_network_sent_bytes_total"]) >= 20 * 104 + 10 * 1004)
            #expect(try #require(metrics["relay_loop_lag_seconds_count"]) > 0)
        }
    }

    @Test func `says starting until a worker serves`() async throws {
        let variables = ["RELAY_METRICS_ADDR": "127.0.0.1:0", "RELAY_SHUTDOWN_GRACE": "0"]
        try await runRelay(worker: "exec sleep 1000", variables) { process in
            let admin = try await Admin(process)
            #expect(try await admin.answer("/readyz").answer == "503 starting\n")
            #expect(try await admin.answer("/livez").status == 200)
            #expect(try await admin.answer("/status").status == 503)
            let health = try await admin.health()
            #expect(health.status == "unavailable" && health.phase == "starting")
            #expect(health.workers.map(\.state) == ["starting"])
            process.signal(SIGTERM)
            #expect(try await process.ended() == .status(0))
        }
    }

    @Test func `answers while a worker hangs, and tells of its end`() async throws {
        try await Relay.runAdmin(workers: 2, losesWorkers: true) { relay, admin in
            let victim = try #require(relay.workerPIDs.last)
            kill(victim, SIGSTOP)
            let health = try await awaited("a worker that is seen to hang", seconds: 40) { () -> AdminHealth? in
                let health = try await admin.health()
                return health.status == "degraded" ? health : nil
            }
            #expect(try await admin.answer("/readyz").status == 200)
            let worker = try #require(health.workers.first { $0.pid == victim } ?? health.workers.last)
            #expect(["hanging", "down", "starting"].contains(worker.state))
            try await eventually("its successor", seconds: 40) {
                let health = try await admin.health()
                return health.status == "ok" && health.workers[worker.index].lastExit == "signal 9 (Killed): hung"
                    && health.workers[worker.index].restarts == 1 && health.restarts == 1
            }
            try await relay.process.says("worker hangs: killing it")
        }
    }

    @Test func `says draining until the last worker has gone`() async throws {
        try await Relay.runAdmin(workers: 2, ["RELAY_SHUTDOWN_GRACE": "3600"]) { relay, admin in
            let workers = relay.workerPIDs
            for worker in workers { kill(worker, SIGSTOP) }
            for worker in workers { try await eventually("a halt") { Processes.state(of: worker) == "T" } }
            relay.process.signal(SIGTERM)
            try await eventually("the signal to be heeded") {
                try await admin.answer("/readyz").answer == "503 draining\n"
            }
            #expect(try await admin.answer("/livez").status == 200)
            let health = try await admin.health()
            #expect(health.status == "unavailable" && health.phase == "draining")
            relay.process.signal(SIGTERM)
            #expect(try await relay.process.ended() == .status(0))
        }
    }

    @Test func `shows counters that never fall, whatever dies`() async throws {
        try await Relay.runAdmin(workers: 3, losesWorkers: true) { relay, admin in
            var before: [String: Double] = [:]
            func scrape() async throws {
                let now = try await admin.metrics().monotonic
                for (name, value) in before {
                    let next = try #require(now[name], "\(name) is gone")
                    #expect(next >= value, "\(name)")
                }
                before = now
            }
            for round in 0..<4 {
                for _ in 0..<6 {
                    let session = Session()
                    let host = try await relay.join(session.host())
                    let guest = try await relay.join(session.guest())
                    host.send("hello")
                    _ = try await guest.data(1)
                    try await scrape()
                }
                let victim = relay.workerPIDs[round % relay.workerPIDs.count]
                kill(victim, SIGKILL)
                for _ in 0..<5 { try await scrape() }
                try await eventually("its successor") {
                    try await scrape()
                    let health = try await admin.health()
                    return health.status == "ok" && health.restarts == round + 1
                }
            }
            #expect(before[#"relay_joins_total{result="host"}"#] == 24)
            #expect(before[#"relay_messages_received_total{class="data"}"#] == 24)
        }
    }

    @Test func `is not held up by slow clients, nor is what it serves for`() async throws {
        try await Relay.runAdmin(workers: 2, losesWorkers: true) { relay, admin in
            // More than there may be: some that say nothing, some that never end, some that never read.
            var clients: [RawClient] = []
            for number in 0..<100 {
                let client = try await RawClient(admin.port, receiveBuffer: 4096)
                switch number % 3 {
                case 0: break
                case 1: try await client.send("GET /metrics HTTP/1.1\r\nHo")
                default:
                    try await client.send(
                        String(repeating: "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", count: 50))
                }
                clients.append(client)
            }
            #expect(try await admin.answer("/livez").status == 200)
            let victim = try #require(relay.workerPIDs.first)
            kill(victim, SIGKILL)
            try await eventually("a successor") { !relay.workerPIDs.contains(victim) && relay.workerPIDs.count == 2 }
            try await relay.healthy()
            // Their time runs out, or others have taken their places. Those that ask do not read even now.
            for (number, client) in clients.enumerated() where number % 3 != 2 {
                _ = try await client.rest(seconds: 60)
            }
            let metrics = try await admin.metrics()
            let ended = try ["timeout", "replaced"].map {
                try #require(metrics[#"relay_admin_closes_total{reason="\#($0)"}"#])
            }
            #expect(ended.allSatisfy { $0 > 0 }, "\(ended)")
        }
    }

    @Test func `goes on over a reload, and its counters with it`() async throws {
        try await Relay.runAdmin(workers: 2) { relay, admin in
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.join(session.guest())
            host.send("before")
            _ = try await guest.data(1)
            let before = try await admin.metrics().monotonic
            relay.process.signal(SIGHUP)
            try await eventually("the new generation") {
                let health = try await admin.health()
                return health.generation == 2 && health.status == "ok" && health.workers.count == 2
                    && health.workers.allSatisfy { $0.generation == 2 }
            }
            let metrics = try await admin.metrics()
            for (name, value) in before { #expect(try #require(metrics.monotonic[name]) >= value, "\(name)") }
            #expect(metrics["relay_generation"] == 2 && metrics["relay_clients"] == 2 && metrics["relay_rooms"] == 1)
            #expect(metrics[#"relay_rooms_moved_total{direction="in"}"#] == 1)
            #expect(host.isOpen && guest.isOpen)
        }
    }

    @Test func `must find its port free`() async throws {
        try await Relay.run(workers: 1) { relay in
            let second = try await run(
                try program("relay"),
                environment: ["RELAY_ADDR": "127.0.0.1:0", "RELAY_METRICS_ADDR": "127.0.0.1:\(relay.port)"])
            #expect(second.end == .status(69))
            #expect(second.errors.contains("can't listen on 127.0.0.1:\(relay.port)"))
            #expect(second.errors.contains("RELAY_METRICS_ADDR"))
        }
    }
}

@Suite struct `The admin socket` {
    @Test func `is there again after an upgrade`() async throws {
        try await Relay.run(workers: 1) { relay in
            #expect(try await ask(relay, "/readyz") == "ready\n200")
            relay.process.signal(SIGUSR2)
            try await eventually("the end of the upgrade") { relay.process.errors.contains(" upgraded ") }
            let health = try await run(try program("relay"), ["health", "--pid", "\(relay.process.pid)"])
            #expect(health.end == .status(0) && health.output.contains(": ok, 1 of 1 worker serving"))
        }
    }

    private func ask(_ relay: Relay, _ path: String, as user: String? = nil) async throws -> String {
        let curl = ["curl", "-sS", "--max-time", "20", "-w", "%{http_code}"]
        let ask = ["--abstract-unix-socket", "relay-admin-\(relay.process.pid)", "http://relay\(path)"]
        let become = user.map { ["setpriv", "--reuid", $0, "--clear-groups"] } ?? ["env"]
        let result = try await run("env", become + curl + ask)
        return result.output
    }

    @Test func `is there without a metrics address`() async throws {
        try await Relay.run(workers: 1) { relay in
            let alive = try await ask(relay, "/livez")
            #expect(alive == "ok\n200")
            #expect(try await ask(relay, "/readyz") == "ready\n200")
        }
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become another user"))
    func `refuses other users`() async throws {
        try await Relay.run(workers: 1) { relay in
            #expect(try await ask(relay, "/livez", as: "65534") == "this relay is another user's\n403")
            #expect(try await ask(relay, "/livez", as: "0") == "ok\n200")
            try await relay.process.says("admin socket: another user is refused")
            // A relay of another user's admits that user and root.
            let process = try ChildProcess(
                "setpriv",
                ["--reuid", "65534", "--clear-groups", "sh", "-c", "exec \"$0\" </dev/null", try program("relay")],
                environment: ["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "1"])
            defer { process.signal(SIGKILL) }
            try await eventually("the other relay") { process.errors.contains(" listening ") }
            let other = Relay(process: process, port: 0, workers: 1)
            #expect(try await ask(other, "/livez", as: "65534") == "ok\n200")
            #expect(try await ask(other, "/livez") == "ok\n200")
            #expect(try await ask(other, "/livez", as: "65533") == "this relay is another user's\n403")
            process.signal(SIGTERM)
            #expect(try await process.ended() == .status(0))
        }
    }
}
