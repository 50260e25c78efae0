// `relay-load bench`: options, and the course of a run.

import ArgumentParser
import CLinux

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Put a relay under load and measure latency, lost messages and CPU time.",
        discussion: """
            Workloads:
              voice   100 rooms x 5: one member of each sends 50 x 120 bytes a second
              chat    10 rooms x 20: all members send 20 x 200 bytes a second
              flood   4 rooms x 20: all members keep 32 x 120 bytes under way
              bulk    10 rooms x 5: all members keep 8 x 16 KiB under way

            A delivery is one message at one recipient. With --server-pid, on the relay's own machine, the relay's CPU \
            time is measured too: of the process given, its children and all their threads. Give the relay and \
            relay-load CPUs of their own (taskset), and repeat: neighbours on a shared machine change results by half. \
            "steal" is CPU time that a hypervisor took away; results with more than 4 % of it mean little.

            --idle N instead opens N silent connections and tells what they cost the relay in memory. It keeps them \
            open for --seconds.

            --handshakes N opens N connections one after another (or --parallel many at a time), each of which joins a room of its own and leaves: \
            what a join costs with its handshake. Over wss:// --resume offers each time the ticket of the one before.

            The relay's RELAY_RATE_LIMIT_PER_IP (0: off) slows down opening many connections; on 127.0.0.1 they come from \
            200 addresses, 127.0.0.2 and up, each with a limit of its own.

            Exit status: 0 if no message was lost, 1 if any was, a connection ended or a ticket was not taken, 2 if the relay can't be reached or the \
            options are wrong.

            Example: relay-load bench --url ws://localhost:8443 --workload voice --server-pid $(pidof -s relay)
            """)

    @Option(help: ArgumentHelp("The relay, as ws://HOST:PORT or wss://HOST:PORT.", valueName: "url"))
    var url: String

    @OptionGroup var trust: TrustOptions

    @Option(help: ArgumentHelp("voice, chat, flood or bulk.", valueName: "name"))
    var workload: WorkloadName?

    @Option(help: ArgumentHelp("Open this many silent connections instead of a workload.", valueName: "connections"))
    var idle: Int?

    @Option(help: ArgumentHelp("Join and leave this many times instead of a workload.", valueName: "connections"))
    var handshakes: Int?

    @Flag(help: "With --handshakes over wss://: resume.")
    var resume = false

    @Option(help: "With --handshakes: connections at a time, in step.")
    var parallel = 1

    @Option(help: "Seconds to measure, or with --idle to keep the connections open.")
    var seconds = 10.0

    @Option(help: "Seconds of load before measuring.")
    var warmup = 1.0

    @Option(
        name: .customLong("server-pid"),
        help: ArgumentHelp("A process of the relay; descendants count too. May be repeated.", valueName: "pid"))
    var serverPids: [Int32] = []

    @Option(help: "Rooms, in place of the workload's own number.")
    var rooms: Int?

    @Option(help: "Members of each room, in place of the workload's own number.")
    var members: Int?

    @Flag(help: "Print one line of JSON.")
    var json = false

    func validate() throws {
        guard [workload != nil, idle != nil, handshakes != nil].count(where: { $0 }) == 1 else {
            throw ValidationError("give one of --workload, --idle and --handshakes")
        }
        guard !resume || (handshakes != nil && url.hasPrefix("wss://")) else {
            throw ValidationError("--resume needs --handshakes and wss://")
        }
        guard (1...1_000_000).contains(handshakes ?? 1), (1...200).contains(parallel) else {
            throw ValidationError("--handshakes must be from 1 to 1000000, --parallel from 1 to 200")
        }
        guard (0.1...86400).contains(seconds), (0...3600).contains(warmup) else {
            throw ValidationError("--seconds must be from 0.1 to 86400, --warmup from 0 to 3600")
        }
        guard (1...100_000).contains(rooms ?? 1), (2...1000).contains(members ?? 2), (1...1_000_000).contains(idle ?? 1)
        else {
            throw ValidationError(
                "--rooms must be from 1 to 100000, --members from 2 to 1000, --idle from 1 to 1000000")
        }
    }

    /// The sequence numbers kept: one for each pair of members of a room.
    private static let pairsMax = 1 << 28

    func run() throws {
        do {
            let endpoint = try Endpoint(url: url, trust: trust)
            let server = serverPids.isEmpty ? nil : try ServerProcesses(serverPids)
            if let idle {
                try runIdle(idle, endpoint, server)
            } else if let handshakes {
                let load = HandshakeLoad(endpoint: endpoint, count: handshakes, resumes: resume, parallel: parallel)
                let result = try load.run(server)
                print(json ? result.json : result.text)
                if resume, result.resumed < handshakes { throw Exit.failed }
            } else if let workload {
                let workload = Workload(workload, rooms: rooms, members: members)
                guard workload.rooms * workload.members * workload.members <= Self.pairsMax else {
                    throw UsageError("\(workload.rooms) rooms x \(workload.members) members are too many")
                }
                let result = try runWorkload(workload, endpoint, server)
                print(json ? result.json : result.text)
                if result.lost > 0 || result.repeated > 0 || result.foreign > 0 { throw Exit.failed }
            }
        } catch let error as UsageError {
            standardError("relay-load: \(error)")
            throw Exit.unusable
        } catch let error as ConnectError {
            standardError("relay-load: \(error.advice)")
            throw Exit.unusable
        } catch let error as LoadError {
            standardError("relay-load: \(error)")
            throw Exit.failed
        }
    }

    private func runWorkload(
        _ workload: Workload, _ endpoint: Endpoint, _ server: ServerProcesses?
    ) throws -> BenchResult {
        let transports = try open(workload.rooms * workload.members, members: workload.members, endpoint)
        // The loop uses the transports' descriptors, so they must live as long.
        return try withExtendedLifetime(transports) {
            var loop = BenchLoop(workload: workload, transports: transports)
            loop.startSending()
            try loop.run(until: Deadline(seconds: warmup))
            let cpuBefore = server?.cpuTime()
            let machineBefore = MachineTime.now()
            let start = Clock.monotonic()
            loop.measure(true)
            try loop.run(until: Deadline(seconds: seconds))
            loop.measure(false)
            let elapsed = Clock.monotonic() - start
            let steal = MachineTime.now().stealPercent(since: machineBefore)
            let cpu = cpuBefore.flatMap { before in
                server.map { ServerProcesses.difference(before, $0.cpuTime()) }
            }
            loop.stopSending()
            try loop.drain(until: Deadline(seconds: 3))
            let tally = loop.tally
            let result = BenchResult(
                workload: workload, seconds: Double(elapsed) / 1e9, delivered: tally.measured, sent: loop.sent,
                notSent: loop.notSent, lost: loop.lost, repeated: tally.repeated, foreign: tally.foreign,
                latency: tally.latency, cpuNanoseconds: cpu, stealPercent: steal)
            loop.closeAll()
            return result
        }
    }

    private func runIdle(_ connections: Int, _ endpoint: Endpoint, _ server: ServerProcesses?) throws {
        let members = members ?? 20
        let before = server?.residentBytes()
        let transports = try open(connections, members: members, endpoint)
        try withExtendedLifetime(transports) {
            let workload = Workload(idle: (connections + members - 1) / members, members: members)
            var loop = BenchLoop(workload: workload, transports: transports)
            // The relay finishes its part of the last handshakes.
            try loop.run(until: Deadline(seconds: min(1, seconds)))
            let result = IdleResult(
                connections: connections, before: before ?? [], after: server?.residentBytes() ?? [])
            if !json { print(result.text) }
            try loop.run(until: Deadline(seconds: max(0, seconds - 1)))
            if json { print(result.json) }
            loop.closeAll()
        }
    }

    /// Opens `count` connections, room by room, each room's host first.
    private func open(_ count: Int, members: Int, _ endpoint: Endpoint) throws -> [Transport] {
        let descriptors = clinux_raise_descriptor_limit()
        guard descriptors > count + 50 else {
            throw UsageError(
                "\(count) connections need more than the \(descriptors) open files that the system allows (ulimit -Hn)")
        }
        // The relay may take 100 joins a second of one address only.
        let deadline = Deadline(seconds: 30 + Double(count) / 50)
        var transports: [Transport] = []
        transports.reserveCapacity(count)
        var session = Session(room: "")
        for slot in 0..<count {
            if slot % members == 0 { session = Session(room: "bench-" + Encoding.hex(Encoding.randomBytes(12))) }
            let request =
                slot % members == 0 ? session.hostRequest() : session.guestRequest(peer: "guest \(slot % members)")
            let source = endpoint.isLoopback ? SocketAddress.loopback(slot % 200) : nil
            // One that gets no answer need not take the time of all.
            let deadline = Deadline(seconds: 15, within: deadline)
            switch try request.perform(at: endpoint, from: source, deadline: deadline) {
            case .switched(let transport, let rest, _):
                guard rest.isEmpty else { throw LoadError(description: "a frame before anybody has spoken") }
                transports.append(transport)
            case let other:
                let what = "connection \(slot + 1) of \(count) was refused: \(other.summary)"
                let advice =
                    "Is a limit reached (RELAY_MAX_ROOMS, RELAY_MAX_CLIENTS_PER_ROOM, RELAY_MAX_CONNECTIONS...)?"
                throw UsageError("\(what). \(advice)")
            }
        }
        return transports
    }
}
