import Logging
import Shared
import Testing

/// Configurations that differ from the default in every field.
private var unusual: Configuration {
    var configuration = Configuration()
    configuration.listen = ListenAddress(host: .address(Address(high: 1, low: 2)), port: 443)
    configuration.roomsMax = 1
    configuration.clientsPerRoomMax = 2
    configuration.messageBytesMax = 1024
    configuration.roomIdleSeconds = 3
    configuration.joinsPerSecondPerAddress = 0
    configuration.workers = 256
    configuration.memoryBytesMax = 3 << 30
    configuration.trustedProxies = ["10.0.0.0/8", "2001:db8::/32", "::1"].compactMap(AddressRange.init)
    configuration.clientAddress = .proxyProtocol
    configuration.allowedOrigins = ["https://a.example", "http://[::1]:80"].compactMap { Origin($0) }
    configuration.metricsHosts = ["b.example"].compactMap { HostName($0) }
    configuration.backlogBytesMax = 1034
    configuration.connectionsMax = 5
    configuration.connectionsPerAddressMax = 6
    configuration.roomsPerAddressMax = 7
    configuration.shutdownGraceSeconds = 0
    configuration.logLevel = .critical
    configuration.logFormat = .json
    return configuration
}

@Suite struct `Control messages` {
    private static let publicKey = [UInt8](0..<32)

    private static func launch(
        index: Int = 1, workers: Int = 3, page: Int = 5, pending: [Int] = [0, 3], key: [UInt8] = [UInt8](1...16),
        _ configuration: Configuration = unusual
    ) -> ControlMessage {
        .launch(
            .init(
                index: index, workers: workers, page: page, standsBy: true, placementKey: key,
                awaited: .init(workers: 4, pending: pending), configuration: configuration))
    }

    private static func hostKeys(_ keys: [(room: [UInt8], expiry: UInt64)]) -> ControlMessage {
        .hostKeys(keys.map { .init(room: $0.room, publicKey: publicKey, expiry: $0.expiry) })
    }

    private static var moved: ControlMessage.Moved {
        var moved = ControlMessage.Moved()
        moved.add(pause: 3)
        moved.add(pause: 2)
        (moved.clients, moved.bytes) = (.max, 9)
        return moved
    }

    static let every: [ControlMessage] = [
        launch(), launch(index: 0, workers: 1, Configuration()), launch(index: 255, workers: 256),
        .inboxes(first: 0), .inboxes(first: 253), hostKeys([(Array("ré".utf8), .max)]), hostKeys([]),
        hostKeys([([1], 2), ([], 3)]), .hostKeys([.over(room: [1]), .over(room: [])]),
        hostKeys(Array(repeating: ([UInt8](repeating: 255, count: 256), 0), count: Limits.hostKeysPerMessageMax)),
        .start, .ready([]), .ready(.all),
        .drain(deadline: 0x0102_0304_0506_0708, isRestart: true), .drain(deadline: 0, isRestart: false),
        launch(page: 1023, pending: []), launch(pending: [0, 1, 2, 3]), .listeners, .serve,
        .route(workers: 1, leaves: false), .route(workers: 256, leaves: true), .routed, .lastCall, .moved(moved),
        .sourceGone(index: 0), .sourceGone(index: 255), .failed(reason: ""), .failed(reason: "can't: \u{1F600}"),
        .checkCredentials(Sandbox()), .credentials(from: -1, until: .max),
        .makeCertificate(Sandbox(mode: .required, user: 1, group: .max)), .certificate([], privateKey: []),
        .certificate([1, 2], privateKey: [3]),
    ]

    private func error(_ bytes: [UInt8]) -> ByteCodingError? {
        do throws(ByteCodingError) {
            _ = try ControlMessage(bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: every) func `are the same on the other side`(message: ControlMessage) throws {
        #expect(try ControlMessage(message.bytes) == message)
        #expect(message.bytes.count <= Limits.controlMessageBytesMax)
    }

    @Test func `are written by the byte map`() {
        #expect(ControlMessage.version == 5)
        #expect(ControlMessage.start.bytes == [5, 0, 5, 0])
        #expect(ControlMessage.ready([.limits, .seccomp]).bytes == [5, 0, 6, 0, 20, 0, 0, 0])
        #expect(ControlMessage.inboxes(first: 0x0102).bytes == [5, 0, 2, 0, 2, 1, 0, 0])
        #expect(
            ControlMessage.drain(deadline: 0x0102_0304_0506_0708, isRestart: true).bytes
                == [5, 0, 7, 0, 8, 7, 6, 5, 4, 3, 2, 1, 1])
        #expect(ControlMessage.failed(reason: "no").bytes == [5, 0, 8, 0, 2, 0, 0, 0, 0x6E, 0x6F])
        let hostKeys = Self.hostKeys([([7, 8], 9)])
        let start: [UInt8] = [5, 0, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0, 7, 8, 32, 0, 0, 0]
        #expect(hostKeys.bytes == start + Self.publicKey + [9, 0, 0, 0, 0, 0, 0, 0])
        let launch: [UInt8] = [5, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 1, 16, 0, 0, 0]
        let awaited: [UInt8] = [4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]
        let sandbox: [UInt8] = [0, 0xFE, 0xFF, 0, 0, 0xFE, 0xFF, 0, 0]
        #expect(Array(Self.launch().bytes.prefix(62)) == launch + [UInt8](1...16) + awaited + sandbox)
        #expect(ControlMessage.route(workers: 3, leaves: true).bytes == [5, 0, 15, 0, 3, 0, 0, 0, 1])
        #expect(ControlMessage.sourceGone(index: 4).bytes == [5, 0, 19, 0, 4, 0, 0, 0])
    }

    @Test(arguments: every) func `are refused at every truncation and with anything behind them`(
        message: ControlMessage
    ) {
        let bytes = message.bytes
        for end in 0..<bytes.count { #expect(error(Array(bytes[..<end])) == .truncated, "\(end) of \(bytes.count)") }
        #expect(error(bytes + [0]) == .trailing(count: 1))
        #expect(error(bytes + bytes) == .trailing(count: bytes.count))
    }

    @Test func `of another version or an unknown kind are refused`() {
        for version in [0, 1, 4, 6, 0x0100, 0xFFFF] as [UInt16] {
            let bytes = [UInt8(version & 0xFF), UInt8(version >> 8)] + ControlMessage.start.bytes[2...]
            #expect(error(bytes) == .invalid(field: "version"))
        }
        for kind in [0, 4, 20, 0x0105, 0xFFFF] as [UInt16] {
            #expect(error([5, 0, UInt8(kind & 0xFF), UInt8(kind >> 8)]) == .invalid(field: "kind"))
        }
    }

    @Test func `to launch name a worker that there is`() {
        for (index, workers) in [(0, 0), (0, 257), (256, 256), (0, 0xFFFF_FFFF)] {
            #expect(error(Self.launch(index: index, workers: workers).bytes) == .invalid(field: "workers"))
        }
        for count in [0, 15, 17] {
            let key = [UInt8](repeating: 1, count: count)
            #expect(error(Self.launch(key: key).bytes) == .invalid(field: "placement key"))
        }
    }

    @Test func `to launch name no user or group that is root`() {
        for sandbox in [Sandbox(user: 0), Sandbox(group: 0)] {
            #expect(error(ControlMessage.checkCredentials(sandbox).bytes) == .invalid(field: "sandbox"))
        }
    }

    @Test func `to launch name a page and sources that there are`() {
        #expect(error(Self.launch(page: 1024).bytes) == .invalid(field: "page"))
        #expect(error(Self.launch(pending: [4]).bytes) == .invalid(field: "sources"))
        #expect(error(Self.launch(pending: [0, 1, 2, 3, 0]).bytes) == .invalid(field: "sources"))
    }

    @Test func `of a change of generations keep to their ranges`() {
        #expect(error(ControlMessage.route(workers: 0, leaves: false).bytes) == .invalid(field: "workers"))
        #expect(error(ControlMessage.route(workers: 257, leaves: false).bytes) == .invalid(field: "workers"))
        #expect(error(ControlMessage.sourceGone(index: 256).bytes) == .invalid(field: "source"))
        #expect(error([5, 0, 15, 0, 3, 0, 0, 0, 2]) == .invalid(field: "leaves"))
        #expect(error([5, 0, 7, 0, 8, 7, 6, 5, 4, 3, 2, 1, 2]) == .invalid(field: "restart"))
    }

    @Test func `with a host key keep its size and the room's`() {
        for count in [0, 31, 33] {
            let key = [UInt8](repeating: 1, count: count)
            let bytes = ControlMessage.hostKeys([.init(room: [1], publicKey: key, expiry: 0)]).bytes
            #expect(error(bytes) == .invalid(field: "public key"))
        }
        let room = [UInt8](repeating: 1, count: 257)
        #expect(error(Self.hostKeys([(room, 0)]).bytes) == .invalid(field: "room"))
    }

    @Test func `hold a bounded number of host keys`() {
        let many = Array(repeating: ([UInt8]([1]), UInt64(0)), count: Limits.hostKeysPerMessageMax + 1)
        #expect(error(Self.hostKeys(many).bytes) == .invalid(field: "host keys"))
    }

    @Test func `to launch bring every field of the configuration`() throws {
        // A configuration that differs in one field only still differs on the other side.
        let changes: [(inout Configuration) -> Void] = [
            { $0.listen = unusual.listen }, { $0.roomsMax = 1 }, { $0.clientsPerRoomMax = 2 },
            { $0.messageBytesMax = 1024 }, { $0.roomIdleSeconds = 3 }, { $0.joinsPerSecondPerAddress = 0 },
            { $0.workers = 64 }, { $0.trustedProxies = [] }, { $0.backlogBytesMax = 2 << 20 },
            { $0.connectionsMax = 5 }, { $0.connectionsPerAddressMax = 6 }, { $0.roomsPerAddressMax = 7 },
            { $0.shutdownGraceSeconds = 0 },
            { $0.logLevel = .trace }, { $0.logFormat = .json }, { $0.tls = .init(certificate: "a", privateKey: "b") },
            { $0.metrics = unusual.listen }, { $0.messagesPerSecondMax = 7 }, { $0.bytesPerSecondMax = 8 },
            { $0.pingSeconds = 5 }, { $0.clientAddress = .peer },
            { $0.allowedOrigins = unusual.allowedOrigins },
            { $0.metricsHosts = unusual.metricsHosts }, { $0.sandbox = .required }, { $0.workerUser = "relay-worker" },
            { $0.memoryBytesMax = 64 << 20 },
        ]
        // The certificate and its key go together.
        #expect(changes.count + 1 == Configuration.settings.count, "a setting without a change here")
        #expect(
            Mirror(reflecting: Configuration()).children.count == Configuration.settings.count, "a field without a row")
        for change in changes {
            var configuration = Configuration()
            change(&configuration)
            #expect(configuration != Configuration())
            let message = try ControlMessage(Self.launch(configuration).bytes)
            #expect(message == Self.launch(configuration))
        }
    }

    @Test func `with the longest configuration fit the channel`() throws {
        var configuration = Configuration()
        configuration.trustedProxies = (0..<256).compactMap { AddressRange("2001:db8:\(String($0, radix: 16))::/48") }
        #expect(configuration.trustedProxies.count == 256)
        let name = String(repeating: "a", count: 253)
        configuration.allowedOrigins = Array(
            repeating: try #require(Origin("\(String(repeating: "s", count: 38))://\(name):65535")), count: 16)
        configuration.metricsHosts = Array(repeating: try #require(HostName(name)), count: 16)
        configuration.tls = .init(
            certificate: String(repeating: "c", count: 4095), privateKey: String(repeating: "k", count: 4095))
        let bytes = Self.launch(configuration).bytes
        #expect(bytes.count <= Limits.controlMessageBytesMax)
        #expect(try ControlMessage(bytes) == Self.launch(configuration))
        configuration.trustedProxies.append(contentsOf: configuration.trustedProxies.prefix(1))
        #expect(error(Self.launch(configuration).bytes) == .invalid(field: "RELAY_TRUSTED_PROXIES"))
    }

    @Test func `bring a configuration within its limits or none`() {
        let changes: [(String, (inout Configuration) -> Void)] = [
            ("RELAY_MAX_ROOMS", { $0.roomsMax = 0 }), ("RELAY_MAX_ROOMS", { $0.roomsMax = 1_000_001 }),
            ("RELAY_MAX_CLIENTS_PER_ROOM", { $0.clientsPerRoomMax = 0 }),
            ("RELAY_MAX_CLIENTS_PER_ROOM", { $0.clientsPerRoomMax = 10_001 }),
            ("RELAY_MAX_MESSAGE_SIZE", { $0.messageBytesMax = 1023 }),
            ("RELAY_MAX_MESSAGE_SIZE", { $0.messageBytesMax = 67_108_865 }),
            ("RELAY_ROOM_IDLE_TIMEOUT", { $0.roomIdleSeconds = 0 }),
            ("RELAY_ROOM_IDLE_TIMEOUT", { $0.roomIdleSeconds = 2_592_001 }),
            ("RELAY_RATE_LIMIT_PER_IP", { $0.joinsPerSecondPerAddress = 100_001 }),
            ("RELAY_WORKERS", { $0.workers = 0 }), ("RELAY_WORKERS", { $0.workers = 257 }),
            ("RELAY_MAX_BACKLOG", { $0.backlogBytesMax = 1033 }),
            ("RELAY_MAX_BACKLOG", { $0.backlogBytesMax = 1_073_741_825 }),
            ("RELAY_MAX_MEMORY", { $0.memoryBytesMax = (8 << 20) - 1 }),
            ("RELAY_MAX_MEMORY", { $0.memoryBytesMax = (1 << 40) + 1 }),
            // A floor for each worker.
            ("RELAY_MAX_MEMORY", { $0.workers = 65 }),
            // Room for one message and its header.
            ("RELAY_MAX_BACKLOG", { $0.backlogBytesMax = $0.messageBytesMax + 9 }),
            ("RELAY_MAX_CONNECTIONS", { $0.connectionsMax = 0 }),
            ("RELAY_MAX_CONNECTIONS", { $0.connectionsMax = 1_000_001 }),
            ("RELAY_SHUTDOWN_GRACE", { $0.shutdownGraceSeconds = 3601 }),
        ]
        for (field, change) in changes {
            var configuration = Configuration()
            change(&configuration)
            guard case .invalid(let found) = error(Self.launch(configuration).bytes) else {
                Issue.record("\(field) was taken")
                continue
            }
            #expect(found.description == field)
        }
        // The last bytes: log level and format, sandbox and no user; the byte after the sandbox: the kind of host.
        let bytes = Self.launch(Configuration()).bytes
        for (index, value, field) in [
            (bytes.count - 4, 7, "RELAY_LOG_LEVEL"), (bytes.count - 3, 2, "RELAY_LOG_FORMAT"),
            (bytes.count - 2, 3, "RELAY_SANDBOX"), (bytes.count - 1, 2, "RELAY_WORKER_USER"), (53, 3, "sandbox"),
            (62, 2, "RELAY_ADDR"), (81, 2, "RELAY_METRICS_ADDR"), (82, 2, "RELAY_TLS_CERT"),
        ] as [(Int, UInt8, StaticString)] {
            var bytes = bytes
            bytes[index] = value
            #expect(error(bytes) == .invalid(field: field))
            bytes[index] = 255
            #expect(error(bytes) == .invalid(field: field))
        }
    }

    @Test func `have names for the log that tell nothing but their kind`() {
        let names = Set(Self.every.map(\.name.description))
        let kinds = [
            "launch", "inboxes", "hostKeys", "start", "ready", "drain", "failed", "checkCredentials",
            "credentials",
            "makeCertificate", "certificate", "listeners", "serve", "route", "routed", "lastCall", "moved",
            "sourceGone",
        ]
        #expect(names == Set(kinds))
    }

    @Test func `never trap, whatever the bytes`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<10_000 {
            let bytes = random.mutate(Self.every[round % Self.every.count].bytes)
            do throws(ByteCodingError) {
                let message = try ControlMessage(bytes)
                // Every byte has a meaning, but for the address beside "any".
                let again = message.bytes
                #expect(again.count == bytes.count, "seed \(seed), round \(round)")
                #expect(try ControlMessage(again) == message, "seed \(seed), round \(round)")
                if case .launch(let launch) = message { Limits.check(launch.configuration) }
            } catch {
                continue
            }
        }
    }
}
