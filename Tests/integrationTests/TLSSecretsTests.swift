import Foundation
import Glibc
import Synchronization
import Testing

@Suite struct `TLS secrets` {
    /// Lines of a key log, gathered.
    private final class KeyLog: Sendable {
        private let lines = Mutex<[String]>([])

        var text: String { lines.withLock { $0.joined() } }

        func append(_ line: String) {
            lines.withLock { $0.append(line) }
        }

        /// Secrets by name and client random.
        var secrets: [String: [UInt8]] {
            var secrets: [String: [UInt8]] = [:]
            for line in text.split(separator: "\n") {
                let fields = line.split(separator: " ").map(String.init)
                if fields.count == 3, let secret = hexDecoded(fields[2]) {
                    secrets["\(fields[0]) \(fields[1])"] = secret
                }
            }
            return secrets
        }
    }

    /// What may be nowhere: the key's file, as text and decoded.
    private static func privateKey(_ certificate: Certificate) throws -> [String: [UInt8]] {
        let lines = certificate.key.split(separator: "\n").filter { !$0.hasPrefix("-----") }
        let text = lines.joined()
        return [
            "the key's PEM": Array(text.utf8.prefix(48)),
            "the key's DER": Array(try #require(Data(base64Encoded: text))),
        ]
    }

    @Test(.enabled(if: ProcessMemory.isReadable, "reading a worker's memory takes CAP_SYS_PTRACE"))
    func `of a connection are in its owner's memory alone, and nowhere when it has ended`() async throws {
        try await Relay.runTLS(workers: 4) { relay in
            let certificate = try #require(relay.certificate)
            let workers = relay.workerPIDs
            let before = workers.map { Processes.descriptors(of: $0) }
            let log = KeyLog()
            let tls = try certificate.clientContext(keyLog: log.append)
            let session = Session()
            let host = try await TLSClient(relay.port, tls)
            try await host.send(session.host().head)
            #expect(try await host.response().status == 101)
            // 12 connections of one room: that its owner has accepted them all is beyond chance.
            var guests: [TLSClient] = []
            for index in 0..<11 {
                let guest = try await TLSClient(relay.port, tls)
                try await guest.send(
                    Array(session.guest("\(index)").head.utf8) + RawFrame.client(text: "hello \(index)"))
                #expect(try await guest.response().status == 101)
                var heard: [String] = []
                while heard.last != "hello \(index)" {
                    heard += String(decoding: try await host.frame().payload, as: UTF8.self).components(
                        separatedBy: "\n")
                }
                guests.append(guest)
            }
            // A worker that has handed a connection over closes it at the end of its turn.
            let owner = try await awaited("one worker to have all of them") { () -> pid_t? in
                let more = workers.indices.filter { Processes.descriptors(of: workers[$0]) != before[$0] }
                guard more.count == 1, let index = more.first, let count = before[index] else { return nil }
                return Processes.descriptors(of: workers[index]) == count + 12 ? workers[index] : nil
            }

            let secrets = log.secrets
            let current = secrets.filter { $0.key.contains("_TRAFFIC_SECRET_0 ") }
            #expect(current.count == 2 * 12 && secrets.count > current.count)
            var needles = secrets
            for (name, secret) in current {
                // What records are sealed with, and what a mistake would leave in a log.
                if secret.count == 32 { needles["key of \(name)"] = TrafficKeys.expand(secret, "key", 16) }
                needles["hexadecimal \(name)"] = Array(secret.map { String(format: "%02x", $0) }.joined().utf8)
            }
            needles.merge(try Self.privateKey(certificate)) { $1 }
            for worker in workers {
                let found = try ProcessMemory.found(needles, in: worker)
                if worker == owner {
                    #expect(found.isSuperset(of: current.keys))
                    let others = found.subtracting(current.keys).filter { !$0.hasPrefix("key of") }
                    #expect(others == [], "the owner")
                } else {
                    #expect(found == [], "a worker that only accepted")
                }
            }
            #expect(try ProcessMemory.found(needles, in: relay.process.pid) == [], "the supervisor")

            for client in [host] + guests {
                try await client.close()
                _ = try await client.rest()
            }
            try await eventually("the owner to forget") { try ProcessMemory.found(needles, in: owner) == [] }
        }
    }

    @Test(.enabled(if: ProcessMemory.isReadable, "reading a worker's memory takes CAP_SYS_PTRACE"))
    func `of keys that were renewed are gone`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let client = try await KeyedClient.join(relay, session.guest())
            let old = Self.keys(of: client)
            // The update is the last record that is opened, and its answer the last that is sealed.
            try await client.socket.send(client.keyUpdate(requested: true))
            try await eventually("an answer") {
                try await client.take()
                return client.updates == [0]
            }
            let new = Self.keys(of: client)
            var holders = 0
            for worker in relay.workerPIDs {
                #expect(try ProcessMemory.found(old, in: worker) == [])
                let found = try ProcessMemory.found(new, in: worker)
                if !found.isEmpty { holders += 1 }
                #expect(found.isEmpty || found.isSuperset(of: ["the client's secret", "the relay's secret"]))
            }
            #expect(holders == 1)
            try await client.socket.send(client.data(RawFrame.client(text: "under the new key")))
            #expect(try await host.data(1) == ["under the new key"])
            host.send("and back")
            #expect(try await client.frame().payload == Array("and back".utf8))
        }
    }

    private static func keys(of client: KeyedClient) -> [String: [UInt8]] {
        [
            "the client's secret": client.writingSecret, "the relay's secret": client.readingSecret,
            "the client's key": TrafficKeys.expand(client.writingSecret, "key", 32),
            "the relay's key": TrafficKeys.expand(client.readingSecret, "key", 32),
        ]
    }

    @Test func `are in no core dump, and nobody may look at a worker`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            for worker in relay.workerPIDs {
                let limits = try String(contentsOfFile: "/proc/\(worker)/limits", encoding: .utf8)
                let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") }
                #expect(core?.split(separator: " ").suffix(3) == ["0", "0", "bytes"], "\(String(describing: core))")
                // The files in /proc of a process that is not dumpable are root's (proc(5)), whoever runs it.
                var status = stat()
                #expect(stat("/proc/\(worker)/environ", &status) == 0)
                #expect(status.st_uid == 0)
                if geteuid() == 0 {
                    let text = try String(contentsOfFile: "/proc/\(worker)/status", encoding: .utf8)
                    #expect(text.contains("Uid:\t65534\t65534\t65534\t65534"))
                }
            }
        }
    }

    @Test(arguments: ["text", "json"])
    func `are in no line of the log, whatever its level`(format: String) async throws {
        let variables = ["RELAY_LOG_LEVEL": "trace", "RELAY_LOG_FORMAT": format]
        try await withTemporaryFolder { folder in
            let certificate = try await Certificate.of(.ecdsa)
            let all = variables.merging(try certificate.variables(in: folder)) { $1 }
            let process = try ChildProcess(
                try program("relay"),
                environment: all.merging(["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "3"]) { $1 })
            defer { process.signal(SIGKILL) }
            let port = try await awaited("a port") {
                process.errors.firstMatch(of: /listening.*127\.0\.0\.1:([0-9]+)/).flatMap { Int($0.1) }
            }
            let log = KeyLog()
            let tls = try certificate.clientContext(keyLog: log.append)
            var hidden = [String](
                certificate.key.split(separator: "\n").filter { !$0.hasPrefix("-----") }.map(String.init))
            let session = Session()
            let joins = [session.host("someone"), session.guest("somebody")]
            hidden += joins.compactMap { $0.token } + [session.key.parameter, "a word in confidence"]
            let host = try await WebSocketClient.join(port: port, joins[0], tls: tls)
            let guest = try await WebSocketClient.join(port: port, joins[1], tls: tls)
            guest.send("a word in confidence")
            #expect(try await host.data(1) == ["a word in confidence"])
            // And what goes wrong: a token that is refused, requests and records that are none.
            var refused = session.guest()
            refused.token = refused.token.map { $0 + "AAAA" }
            hidden += [refused.token ?? ""]
            await #expect(throws: Refusal.self) { try await WebSocketClient.join(port: port, refused, tls: tls) }
            let broken = try await TLSClient(port, tls)
            try await broken.send("NONSENSE a word in confidence\r\n\r\n")
            _ = try await broken.rest()
            let violent = try await TLSClient(port, tls)
            try await violent.socket.send(Array("a word in confidence".utf8))
            _ = try await violent.rest()
            let plain = try await RawClient(port)
            try await plain.send("GET /?a%20word%20in%20confidence&a word in confidence HTTP/1.1\r\n\r\n")
            _ = try await plain.rest()
            let garbage = try await RawClient(port)
            try await garbage.send([0x16, 3, 1, 0, 20] + Array("a word in confidence".utf8))
            _ = try await garbage.rest()
            guest.close(code: 1000)
            _ = try await guest.ended()
            process.signal(SIGTERM)
            #expect(try await process.finished() == .status(0))

            let secrets = log.text.split(separator: "\n").compactMap { $0.split(separator: " ").last.map(String.init) }
            #expect(secrets.count >= 5)
            let said = process.errors + process.output
            #expect(said.lowercased().contains("trace"))
            for text in hidden + secrets {
                #expect(!text.isEmpty && !said.lowercased().contains(text.lowercased()), "\(text)")
            }
        }
    }
}
