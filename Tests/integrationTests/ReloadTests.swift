import Glibc
import Testing

/// Rooms that talk without a pause, and notice nothing.
private struct Talk {
    let rooms: [(host: WebSocketClient, guest: WebSocketClient, session: Session)]
    var said = 0

    init(_ relay: Relay, rooms count: Int) async throws {
        var rooms: [(WebSocketClient, WebSocketClient, Session)] = []
        for _ in 0..<count {
            let session = Session()
            rooms.append((try await relay.join(session.host()), try await relay.join(session.guest()), session))
        }
        self.rooms = rooms
    }

    /// Everybody says something of this many bytes, and it is on its way.
    mutating func say(bytes: Int = 20) {
        let rest = String(repeating: "x", count: bytes)
        for room in rooms {
            room.host.send("host \(said) \(rest)")
            room.guest.send("guest \(said) \(rest)")
        }
        said += 1
    }

    /// All of it arrives, once and in order.
    func check(_ relay: Relay) async throws {
        for room in rooms {
            _ = try await room.host.data(said)
            _ = try await room.guest.data(said)
        }
        for room in rooms {
            #expect(room.host.data.map { Self.head($0) } == (0..<said).map { "guest \($0)" })
            #expect(room.guest.data.map { Self.head($0) } == (0..<said).map { "host \($0)" })
            #expect(room.host.oddities + room.guest.oddities == [])
            #expect(room.host.isOpen && room.guest.isOpen, "\(relay.process.errors)")
        }
    }

    private static func head(_ text: String) -> String { text.split(separator: " ").prefix(2).joined(separator: " ") }
}

@Suite struct `A reload` {
    @Test(arguments: [false, true])
    func `moves everybody to other numbers of workers, and nobody notices`(tls: Bool) async throws {
        try await Relay.runChangeable(tls: tls) { relay in
            var talk = try await Talk(relay, rooms: 12)
            for workers in [5, 1, 3, 3] {
                let before = Set(relay.workerPIDs)
                try relay.set("RELAY_WORKERS", "\(workers)")
                let reloaded = relay.count("supervisor reloaded")
                relay.process.signal(SIGHUP)
                // They talk while it goes on: messages before, in and behind the move.
                try await eventually("a reload: \(relay.process.errors)", seconds: 40) {
                    talk.say(bytes: talk.said % 7 == 0 ? 30_000 : 20)
                    try await Task.sleep(for: .milliseconds(2))
                    return relay.count("supervisor reloaded") > reloaded
                }
                talk.say()
                try await talk.check(relay)
                try await eventually("new workers alone") {
                    relay.workerPIDs.count == workers && before.isDisjoint(with: relay.workerPIDs)
                }
                try await relay.healthy()
                // Rooms are where everybody looks for them: newcomers find those who are there.
                let room = try #require(talk.rooms.randomElement())
                let guest = try await relay.join(room.session.guest("late"))
                guest.send(#"{"from":"late"}"#)
                #expect(try await room.host.data(talk.said + 1).last == #"{"from":"late"}"#)
                _ = try await room.guest.data(talk.said + 1)
                guest.close(code: 1000)
                _ = try await guest.ended()
                try await eventually("the leave notice") { room.host.data.count == talk.said + 2 }
                talk = try await Talk(relay, rooms: 12)
            }
        }
    }

    /// So many that workers are busy, and hold back what is said until there is more of it.
    @Test(arguments: [false, true])
    func `costs no message of rooms that talk without end`(tls: Bool) async throws {
        try await Relay.runChangeable(tls: tls) { relay in
            let url = "\(tls ? "wss" : "ws")://127.0.0.1:\(relay.port)"
            let trust = tls ? ["--ca", "\(relay.folder)/ca.pem"] : []
            let load = ["--workload", "flood", "--rooms", "3", "--members", "8", "--warmup", "0", "--seconds", "4"]
            async let flood = run(try program("relay-load"), ["bench", "--url", url] + trust + load, seconds: 120)
            for workers in [1, 3, 2] {
                try await Task.sleep(for: .milliseconds(300))
                try relay.set("RELAY_WORKERS", "\(workers)")
                try await relay.change()
            }
            let result = try await flood
            // Also if a connection ended.
            #expect(result.end == .status(0), "\(result.output)\n\(result.errors)\n\(relay.process.errors)")
        }
    }

    @Test(arguments: [false, true])
    func `goes on in the middle of a frame, of a message and of a request`(tls: Bool) async throws {
        try await Relay.runChangeable(tls: tls) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            // Fragments, a frame cut in its payload and one cut in its header, a ping between fragments.
            let guest: any ByteClient
            if tls {
                guest = try await relay.tlsJoin(session.guest())
            } else {
                guest = try await relay.rawJoin(session.guest())
            }
            let fragments =
                RawFrame.client(0x01, Array("one ".utf8)) + RawFrame.client(0x89, [7, 8])
                + RawFrame.client(0x80, Array("two".utf8))
            let long = RawFrame.client(0x82, [UInt8](repeating: 0x61, count: 70_000))
            let bytes = fragments + long + RawFrame.client(text: "end")
            // A request that has come in part, and a client that has not said a word.
            let asking = try await RawClient(relay.port)
            let silent = try await RawClient(relay.port)
            if !tls { try await asking.send("GET /hea") }

            // Cut everywhere that matters, with a reload in each gap.
            let cuts = [
                3, 9, 13, 16, 20, fragments.count + 1, fragments.count + 7, fragments.count + 40_000, bytes.count - 2,
            ]
            var sent = 0
            for cut in cuts + [bytes.count] {
                if tls {
                    try await (guest as? TLSClient)?.send(Array(bytes[sent..<cut]))
                } else {
                    try await (guest as? RawClient)?.send(Array(bytes[sent..<cut]))
                }
                sent = cut
                if cut < bytes.count { try await relay.change() }
            }
            let data = try await host.data(3)
            #expect(data.map(\.count) == [7, 70_000, 3])
            #expect(data[0] == "one two" && data[2] == "end")
            let pong = try await guest.frame()
            #expect(pong.first == 0x8A && pong.payload == [7, 8])
            if !tls {
                try await asking.send("lth HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(try await asking.response().status == 200)
                try await silent.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(try await silent.response().status == 200)
            }
            #expect(host.isOpen)
        }
    }

    @Test func `takes along what waits for a slow reader, however much`() async throws {
        try await Relay.runChangeable(workers: 1) { relay in
            let session = Session()
            let sender = try await relay.join(session.host())
            let quick = try await relay.join(session.guest("quick"))
            let slow = try await relay.rawJoin(session.guest("slow"), receiveBuffer: 8192)
            let texts = (0..<96).map { "\($0) " + String(repeating: "x", count: 32_768) }
            for text in texts { sender.send(text) }
            _ = try await quick.data(texts.count)
            for _ in 0..<3 { try await relay.change() }
            sender.send("the end")
            for text in texts + ["the end"] {
                let frame = try await slow.frame()
                #expect(frame.payload == Array(text.utf8))
            }
        }
    }

    @Test func `lets everybody join who comes meanwhile`() async throws {
        try await Relay.runChangeable(workers: 3) { relay in
            let sessions = (0..<8).map { _ in Session() }
            var hosts: [WebSocketClient] = []
            for session in sessions { hosts.append(try await relay.join(session.host())) }
            let isOver = Flag()
            try await withThrowingTaskGroup(of: Int.self) { group in
                for session in sessions {
                    group.addTask {
                        var joined = 0
                        while !isOver.isSet {
                            // Refused, this throws.
                            let guest = try await relay.join(session.guest("guest \(joined)"))
                            joined += 1
                            guest.send(#"{"from":"\#(joined)"}"#)
                            guest.close(code: 1000)
                            #expect(try await guest.ended() == .closed(code: 1000))
                        }
                        return joined
                    }
                }
                for workers in [2, 4, 1, 3, 3, 2] {
                    try relay.set("RELAY_WORKERS", "\(workers)")
                    try await relay.change()
                }
                isOver.set()
                var total = 0
                for try await joined in group { total += joined }
                #expect(total > 0)
            }
            // A message and a leave notice of each, and nothing else.
            for host in hosts {
                let notices = host.data.filter { $0.contains("session:leave") }
                try await eventually("the last notice") {
                    host.data.count == 2 * host.data.filter { $0.contains("session:leave") }.count
                }
                #expect(notices.count > 0)
                #expect(host.isOpen && host.oddities == [])
            }
        }
    }

    @Test func `takes settings into use, and refuses those that it can't`() async throws {
        try await Relay.runChangeable { relay in
            var talk = try await Talk(relay, rooms: 2)
            let workers = relay.workerPIDs
            for (name, value, reason) in [
                ("RELAY_MAX_ROOMS", "none", "RELAY_MAX_ROOMS=\\\"none\\\": allowed"),
                ("RELAY_ADDR", "127.0.0.1:1", "RELAY_ADDR can't change without a restart"),
                ("RELAY_METRICS_ADDR", "127.0.0.1:1", "RELAY_METRICS_ADDR can't change without a restart"),
                ("RELAY_TLS_CERT", "/nowhere", "TLS needs RELAY_TLS_KEY"),
            ] {
                try relay.set(name, value)
                try await relay.change(until: "reload failed: nothing has changed")
                try await relay.process.says(reason)
                try relay.set(name, nil)
            }
            #expect(relay.workerPIDs == workers)
            try relay.set("RELAY_MAX_ROOMS", "3")
            try relay.set("RELAY_LOG_FORMAT", "json")
            try await relay.change(until: #""message":"reloaded""#)
            let third = try await relay.join(Session().host())
            #expect(try await relay.answer(Session().host()).answer == "503 max rooms reached")
            #expect(third.isOpen)
            talk.say()
            try await talk.check(relay)
        }
    }

    @Test func `brings a new certificate, by itself as well, and leaves connections alone`() async throws {
        try await Relay.runChangeable(tls: true) { relay in
            var talk = try await Talk(relay, rooms: 3)
            let other = try await Certificate.of(.rsa)
            // One that does not fit its key is refused.
            try write(other.chain, to: "\(relay.folder)/cert.pem")
            try await relay.change(until: "reload failed: nothing has changed")
            try write(other.key, to: "\(relay.folder)/key.pem")
            // Nobody asks for it: the supervisor looks every ten seconds.
            let context = try other.clientContext()
            try await eventually("the new certificate: \(relay.process.errors)", seconds: 90) {
                relay.count("supervisor reloaded") == 1
            }
            try await relay.process.says("certificate or key have changed")
            let session = Session()
            let client = try await WebSocketClient.join(port: relay.port, session.host(), tls: context)
            #expect(client.isOpen)
            talk.say()
            try await talk.check(relay)
        }
    }

    @Test func `is done once more where it is asked for while one goes on`() async throws {
        try await Relay.runChangeable { relay in
            var talk = try await Talk(relay, rooms: 4)
            for _ in 0..<5 { relay.process.signal(SIGHUP) }
            try await eventually("the last reload: \(relay.process.errors)") {
                relay.count("reload begins") >= 1 && relay.count("reload begins") == relay.count("supervisor reloaded")
            }
            talk.say()
            try await talk.check(relay)
        }
    }

    @Test func `does not keep the relay from stopping`() async throws {
        for delay in [0, 5, 15, 40] {
            try await Relay.runChangeable(workers: 3) { relay in
                let talk = try await Talk(relay, rooms: 6)
                relay.process.signal(SIGHUP)
                try await Task.sleep(for: .milliseconds(delay))
                relay.process.signal(SIGTERM)
                #expect(try await relay.process.ended() == .status(0), "\(relay.process.errors)")
                for room in talk.rooms {
                    #expect(try await room.host.ended() == .closed(code: 1001))
                    #expect(try await room.guest.ended() == .closed(code: 1001))
                }
                try await eventually("no process left") { relay.workerPIDs.isEmpty }
            }
        }
    }

    @Test func `costs at most the rooms of a worker that dies in the middle of it`() async throws {
        var random = SplitMix64()
        try await Relay.runChangeable(workers: 3, losesWorkers: true) { relay in
            for _ in 0..<6 {
                let talk = try await Talk(relay, rooms: 12)
                try await relay.keysTold()
                let before = relay.count("supervisor reloaded")
                relay.process.signal(SIGHUP)
                try await Task.sleep(for: .milliseconds(Int.random(in: 0...60, using: &random)))
                // Old or new, whichever it is.
                if let victim = relay.workerPIDs.randomElement(using: &random) { kill(victim, SIGKILL) }
                try await eventually("an end of it, seed \(random.seed): \(relay.process.errors)", seconds: 40) {
                    relay.count("supervisor reloaded") > before
                        || relay.count("reload failed") > 0
                }
                try await relay.healthy(seconds: 40)
                try await eventually("three workers", seconds: 40) { relay.workerPIDs.count == 3 }
                // A room is hit with all who are in it at that moment, or works.
                var well = 0
                for room in talk.rooms {
                    room.host.send("anybody?")
                    try await eventually(
                        "the fate of a room, seed \(random.seed): \(relay.process.errors)", seconds: 40
                    ) {
                        !room.guest.isOpen || !room.host.isOpen || room.guest.data.last == "anybody?"
                    }
                    if room.guest.isOpen && room.host.isOpen { well += 1 }
                }
                #expect(well > 0, "seed \(random.seed)")
                // Whoever was cut off comes back, to the same room.
                for room in talk.rooms where !room.host.isOpen || !room.guest.isOpen {
                    let guest = try await relay.join(room.session.guest("back"))
                    let host = try await relay.join(room.session.host())
                    host.send("back")
                    try await eventually("words, seed \(random.seed)") { guest.data.last == "back" }
                }
            }
        }
    }
}

@Suite struct `Commands to a running relay` {
    private func command(_ relay: Relay, _ arguments: String...) async throws -> (end: ChildProcess.End, text: String) {
        let process = try ChildProcess("\(relay.folder)/relay", arguments + ["--pid", "\(relay.process.pid)"])
        let end = try await process.finished(seconds: 60)
        return (end, process.output + process.errors)
    }

    @Test func `are carried out when they end, and say what they have done`() async throws {
        try await Relay.runChangeable(workers: 3, ["RELAY_METRICS_ADDR": "127.0.0.1:0"]) { relay in
            var talk = try await Talk(relay, rooms: 9)
            let reload = try await command(relay, "reload")
            #expect(reload.end == .status(0), "\(reload.text)")
            #expect(reload.text.hasPrefix("reloaded: 9 rooms with 18 clients moved to 3 workers in "))
            talk.say()
            let upgrade = try await command(relay, "upgrade")
            #expect(upgrade.end == .status(0), "\(upgrade.text)")
            #expect(upgrade.text.hasPrefix("upgraded: 9 rooms with 18 clients moved to 3 workers in "))
            talk.say()
            // One worker alone: the others stay who they are.
            let before = relay.workerPIDs
            let recycle = try await command(relay, "recycle", "1")
            #expect(recycle.end == .status(0), "\(recycle.text)")
            #expect(recycle.text.contains(" moved to 1 worker in "))
            try await eventually("one new worker") {
                relay.workerPIDs.count == 3 && Set(relay.workerPIDs).intersection(before).count == 2
            }
            talk.say()
            try await talk.check(relay)
            // Whoever comes finds every room, whichever worker accepts.
            for room in talk.rooms { _ = try await relay.join(room.session.guest("late")) }

            let status = try await command(relay, "status", "--json")
            #expect(status.text.contains(#""generation":4"#) && status.text.contains(#""changing":false"#))
            #expect(status.text.contains(#""last_change":"recycled: "#))
            let wrong = try await command(relay, "recycle", "3")
            #expect(wrong.end == .status(1))
            #expect(wrong.text == "relay: recycle failed, nothing has changed: there is no worker 3; they are 0 to 2\n")
            try relay.set("RELAY_MAX_ROOMS", "none")
            let refused = try await command(relay, "reload")
            #expect(refused.end == .status(1))
            #expect(refused.text.hasPrefix("relay: reload failed, nothing has changed: RELAY_MAX_ROOMS="))
            #expect(try await command(relay, "upgrade").end == .status(1))
        }
    }

    @Test(arguments: [false, true])
    func `recycle each worker again and again, and nobody notices`(tls: Bool) async throws {
        try await Relay.runChangeable(workers: 3, tls: tls) { relay in
            var talk = try await Talk(relay, rooms: 9)
            for round in 0..<9 {
                talk.say(bytes: round * 5000)
                let recycle = try await command(relay, "recycle", "\(round % 3)")
                #expect(recycle.end == .status(0), "\(recycle.text)")
                talk.say()
            }
            try await talk.check(relay)
        }
    }

    @Test func `to no relay say so`() async throws {
        for arguments in [["reload"], ["upgrade"], ["recycle", "0"]] {
            let process = try ChildProcess(try program("relay"), arguments + ["--pid", "1"])
            #expect(try await process.finished() == .status(1))
            #expect(process.errors == "relay: no relay with pid 1 is running\n")
        }
        let process = try ChildProcess(try program("relay"), ["recycle", "256"])
        #expect(try await process.finished() == .status(64))
    }
}

@Suite struct `An upgrade` {
    @Test(arguments: [false, true])
    func `happens in place, and nobody notices`(tls: Bool) async throws {
        try await Relay.runChangeable(tls: tls) { relay in
            var talk = try await Talk(relay, rooms: 8)
            for round in 0..<4 {
                let before = Set(relay.workerPIDs)
                let upgraded = relay.count("supervisor upgraded")
                relay.process.signal(SIGUSR2)
                try await eventually("an upgrade: \(relay.process.errors)", seconds: 40) {
                    talk.say(bytes: round * 10_000)
                    try await Task.sleep(for: .milliseconds(4))
                    return relay.count("supervisor upgraded") > upgraded
                }
                talk.say()
                try await talk.check(relay)
                #expect(relay.process.end == nil)
                try await eventually("new workers alone") {
                    relay.workerPIDs.count == 2 && before.isDisjoint(with: relay.workerPIDs)
                }
                // What it inherits, it can hand on: a reload between two upgrades.
                if round == 1 { try await relay.change() }
                talk = try await Talk(relay, rooms: 8)
            }
            relay.process.signal(SIGTERM)
            #expect(try await relay.process.ended() == .status(0))
        }
    }

    @Test func `leaves everything as it was if the new program can't begin`() async throws {
        try await Relay.runChangeable { relay in
            var talk = try await Talk(relay, rooms: 3)
            let workers = relay.workerPIDs
            // Wrong settings.
            try relay.set("RELAY_MAX_ROOMS", "none")
            try await relay.change(SIGUSR2, until: "upgrade failed: nothing has changed")
            try relay.set("RELAY_MAX_ROOMS", nil)
            // Something else in the program's place, and nothing.
            try await Self.replace("relay", in: relay.folder, with: "#!/bin/sh\nexit 64\n")
            try await relay.change(SIGUSR2, until: "upgrade failed: nothing has changed")
            unlink("\(relay.folder)/relay")
            try await relay.change(SIGUSR2, until: "upgrade failed: nothing has changed")
            #expect(relay.workerPIDs == workers)
            talk.say()
            try await talk.check(relay)
            // A worker that dies is replaced by one of the version that runs, whatever stands in its place.
            try await Self.replace("relay-worker", in: relay.folder, with: "#!/bin/sh\nexit 64\n")
            try await relay.change()
            talk.say()
            try await talk.check(relay)
        }
    }

    @Test func `with workers that don't come up changes nothing for those who are there`() async throws {
        try await Relay.runChangeable { relay in
            var talk = try await Talk(relay, rooms: 3)
            let workers = relay.workerPIDs
            try await Self.replace("relay-worker", in: relay.folder, with: "#!/bin/sh\nexit 64\n")
            try await relay.change(SIGUSR2, until: "upgrade failed: nothing has changed")
            #expect(relay.workerPIDs == workers)
            talk.say()
            try await talk.check(relay)
            _ = try await relay.join(Session().host())
        }
    }

    @Test func `to a program that knows other formats closes with 1012, and refuses nobody`() async throws {
        try await Relay.runChangeable { relay in
            let talk = try await Talk(relay, rooms: 3)
            let real = "\(relay.folder)/relay.real"
            #expect(rename("\(relay.folder)/relay", real) == 0)
            try await Self.replace(
                "relay", in: relay.folder,
                with: "#!/bin/sh\nif [ \"$1\" = take-over-check ]; then exit 75; fi\nexec \(real) \"$@\"\n")
            relay.process.signal(SIGUSR2)
            for room in talk.rooms {
                #expect(try await room.host.ended() == .closed(code: 1012))
                // At once, in the same listeners.
                let host = try await relay.join(room.session.host())
                let guest = try await relay.join(room.session.guest())
                host.send("back")
                #expect(try await guest.data(1) == ["back"])
            }
            #expect(relay.process.end == nil)
        }
    }

    private static func replace(_ name: String, in folder: String, with script: String) async throws {
        unlink("\(folder)/\(name)")
        // By a process of its own: a file that this one has open for writing is, for a moment, open in what other tests
        // start as well, and can't be executed.
        let written = try await run(
            "sh", ["-c", #"printf %s "$1" >"$0" && chmod 755 "$0""#, "\(folder)/\(name)", script])
        #expect(written.end == .status(0))
    }
}
