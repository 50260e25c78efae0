// What an operator can set: one value, read from the RELAY_ variables at start (ConfigurationReading.swift), checked
// as a whole, and sent to each worker as bytes. A worker never reads the environment.
//
// A setting is a field and a row of `settings`. README.md and config/relay.env document it.

package import Logging

/// swift-log's levels: trace, debug, info, notice, warning, error, critical.
package typealias LogLevel = Logger.Level

/// How a log line is written.
package enum LogFormat: String, CaseIterable, Sendable {
    /// For people: `2026-11-24T14:42:03.123Z INFO  worker/1   message key=value`.
    case text
    /// For machines: one JSON object a line.
    case json
}

/// The relay's configuration. The values of a default `Configuration()` are the documented defaults, with one worker
/// and as many connections as `Limits` allows, for these two depend on the machine.
package struct Configuration: Sendable, Equatable {
    /// RELAY_ADDR.
    package var listen = ListenAddress(host: .any, port: 8443)
    /// RELAY_METRICS_ADDR: where the supervisor tells how the relay is; nil: at its Unix socket alone.
    package var metrics: ListenAddress?
    /// RELAY_TLS_CERT; nil: plain HTTP.
    package private(set) var certificateFile: String?
    /// RELAY_TLS_KEY; both or neither.
    package private(set) var privateKeyFile: String?
    /// RELAY_MAX_ROOMS: over the whole relay.
    package var roomsMax = 1000
    /// RELAY_MAX_CLIENTS_PER_ROOM.
    package var clientsPerRoomMax = 20
    /// RELAY_MAX_MESSAGE_SIZE.
    package var messageBytesMax = 1 << 20
    /// RELAY_ROOM_IDLE_TIMEOUT.
    package var roomIdleSeconds = 3600
    /// RELAY_RATE_LIMIT_PER_IP; 0 is off.
    package var joinsPerSecondPerAddress = 100
    /// RELAY_WORKERS.
    package var workers = 1
    /// RELAY_TRUSTED_PROXIES: who may name the client; empty: nobody.
    package var trustedProxies = [AddressRange("127.0.0.0/8"), AddressRange("::1")].compactMap(\.self)
    /// RELAY_CLIENT_ADDRESS: how they name the client.
    package var clientAddress = ClientAddressSource.auto
    /// RELAY_ALLOWED_ORIGINS: pages from which browsers may join; empty: from any.
    package var allowedOrigins: [Origin] = []
    /// RELAY_METRICS_HOSTS: names that RELAY_METRICS_ADDR answers to, beside addresses and localhost.
    package var metricsHosts: [HostName] = []
    /// RELAY_MAX_BACKLOG: data waiting for one slow client.
    package var backlogBytesMax = 19 * ((1 << 20) + Limits.frameHeaderBytesMax)
    /// RELAY_MAX_MEMORY, bytes: what all workers together may hold for connections.
    package var memoryBytesMax = 512 << 20
    /// RELAY_MAX_CONNECTIONS: over the whole relay.
    package var connectionsMax = Limits.connectionsRange.upperBound
    /// RELAY_MAX_CONNECTIONS_PER_IP; 0 is off.
    package var connectionsPerAddressMax = 500
    /// RELAY_MAX_ROOMS_PER_IP; 0 is off.
    package var roomsPerAddressMax = 100
    /// RELAY_MAX_MESSAGES_PER_SECOND, of one member; 0 is off.
    package var messagesPerSecondMax = 0
    /// RELAY_MAX_BYTES_PER_SECOND, of one member; 0 is off.
    package var bytesPerSecondMax = 0
    /// RELAY_PING_INTERVAL. Below the 30 s and more after which routers and proxies forget a silent connection.
    package var pingSeconds = 25
    /// RELAY_SHUTDOWN_GRACE.
    package var shutdownGraceSeconds = 10
    /// RELAY_LOG_LEVEL.
    package var logLevel = LogLevel.info
    /// RELAY_LOG_FORMAT.
    package var logFormat = LogFormat.text
    /// RELAY_SANDBOX.
    package var sandbox = SandboxMode.auto
    /// RELAY_WORKER_USER: the user that workers run as where root started the relay; nil: `relay-worker`, else
    /// `nobody`.
    package var workerUser: String?

    package init() {}

    /// Whether what an address has is counted.
    package var countsAddresses: Bool { connectionsPerAddressMax > 0 || roomsPerAddressMax > 0 }

    /// RELAY_TLS_CERT and RELAY_TLS_KEY; nil: plain HTTP.
    package var tls: TLSFiles? {
        get {
            guard let certificateFile, let privateKeyFile else { return nil }
            return TLSFiles(certificate: certificateFile, privateKey: privateKeyFile)
        }
        set { (certificateFile, privateKeyFile) = (newValue?.certificate, newValue?.privateKey) }
    }

    /// The files that make the relay speak TLS, in PEM.
    package struct TLSFiles: Sendable, Equatable {
        /// A chain, the server's certificate first.
        package var certificate: String
        package var privateKey: String

        package init(certificate: String, privateKey: String) {
            self.certificate = certificate
            self.privateKey = privateKey
        }
    }

    /// What is in force, a variable a line, as an environment file would set it.
    package var summary: String {
        Self.settings.map { "\($0.name)=\($0.text(self))" }.joined(separator: "\n")
    }
}

// MARK: - The settings

extension Configuration {
    /// Every setting, in the order in which they are read and written. A change of it raises `ControlMessage.version`.
    package static let settings: [Setting] = [
        Setting("RELAY_ADDR", \.listen, .listenAddress),
        Setting("RELAY_METRICS_ADDR", \.metrics, .optional(.listenAddress)),
        Setting("RELAY_TLS_CERT", \.certificateFile, .optional(.pemPath)),
        Setting("RELAY_TLS_KEY", \.privateKeyFile, .optional(.pemPath)),
        Setting("RELAY_MAX_ROOMS", \.roomsMax, .number(Limits.roomsRange)),
        Setting("RELAY_MAX_CLIENTS_PER_ROOM", \.clientsPerRoomMax, .number(Limits.clientsPerRoomRange)),
        Setting("RELAY_MAX_MESSAGE_SIZE", \.messageBytesMax, .bytes(Limits.messageBytesRange)),
        Setting("RELAY_ROOM_IDLE_TIMEOUT", \.roomIdleSeconds, .number(Limits.roomIdleSecondsRange)),
        Setting("RELAY_RATE_LIMIT_PER_IP", \.joinsPerSecondPerAddress, .number(Limits.joinsPerSecondRange)),
        Setting(
            "RELAY_MAX_MEMORY", \.memoryBytesMax, SettingKind.bytes, in: Limits.memoryRange,
            auto: { machine, _ in machine.memoryAuto }),
        Setting(
            "RELAY_WORKERS", \.workers, SettingKind.number, in: Limits.workersRange,
            auto: { $0.workersAuto(for: $1) },
            most: { machine, _ in machine.workersMax }, advice: \.descriptorAdvice),
        Setting(
            "RELAY_TRUSTED_PROXIES", \.trustedProxies,
            .list(
                "addresses or CIDR ranges (with no bit set beyond the prefix)", none: "to trust nobody",
                max: Limits.trustedProxiesMax, of: .addressRange)),
        Setting("RELAY_CLIENT_ADDRESS", \.clientAddress, .choice),
        Setting(
            "RELAY_ALLOWED_ORIGINS", \.allowedOrigins,
            .list(
                "origins, each SCHEME://HOST or SCHEME://HOST:PORT", none: "to let pages of any join",
                max: Limits.allowedOriginsMax, of: .origin)),
        Setting(
            "RELAY_METRICS_HOSTS", \.metricsHosts,
            .list(
                "host names, without ports", none: "to answer to IP addresses and localhost alone",
                max: Limits.metricsHostsMax, of: .hostName)),
        Setting(
            "RELAY_MAX_BACKLOG", \.backlogBytesMax, SettingKind.bytes, in: Limits.backlogBytesRange,
            auto: { _, configuration in configuration.backlogAuto }),
        // As many as the descriptors suffice for.
        Setting(
            "RELAY_MAX_CONNECTIONS", \.connectionsMax, SettingKind.number, in: Limits.connectionsRange,
            auto: { $0.connectionsMax(workers: $1.workers) }, most: { $0.connectionsMax(workers: $1.workers) },
            advice: \.descriptorAdvice),
        Setting(
            "RELAY_MAX_CONNECTIONS_PER_IP", \.connectionsPerAddressMax, .number(Limits.connectionsPerAddressRange)),
        Setting("RELAY_MAX_MESSAGES_PER_SECOND", \.messagesPerSecondMax, .number(Limits.messagesPerSecondRange)),
        Setting("RELAY_MAX_BYTES_PER_SECOND", \.bytesPerSecondMax, .bytes(Limits.bytesPerSecondRange)),
        Setting("RELAY_PING_INTERVAL", \.pingSeconds, .number(Limits.pingSecondsRange)),
        Setting("RELAY_MAX_ROOMS_PER_IP", \.roomsPerAddressMax, .number(Limits.roomsPerAddressRange)),
        Setting("RELAY_SHUTDOWN_GRACE", \.shutdownGraceSeconds, .number(Limits.shutdownGraceSecondsRange)),
        Setting("RELAY_LOG_LEVEL", \.logLevel, .choice),
        Setting("RELAY_LOG_FORMAT", \.logFormat, .choice),
        Setting("RELAY_SANDBOX", \.sandbox, .choice),
        Setting("RELAY_WORKER_USER", \.workerUser, .optional(.userName)),
    ]

    /// RELAY_MAX_BACKLOG when nobody says how much: everybody else in the room may say a message of the largest size at
    /// once. No more than half of the memory, but room for one message in any case.
    private var backlogAuto: Int {
        let message = messageBytesMax + Limits.frameHeaderBytesMax
        return max(message, min(max(1, clientsPerRoomMax - 1) * message, memoryBytesMax / 2))
    }

    /// What must be so between settings.
    static let relations: [SettingRelation] = [
        // Else a worker could be left without memory for a single message.
        SettingRelation("RELAY_MAX_MEMORY", "RELAY_WORKERS", "RELAY_MAX_MESSAGE_SIZE") { configuration in
            let bytesMin = configuration.workers * Limits.memoryFloorBytes(configuration)
            guard configuration.memoryBytesMax < bytesMin else { return nil }
            return Problem(
                variable: "RELAY_MAX_MEMORY", value: "\(configuration.memoryBytesMax)",
                allowed: "at least \(bytesMin), which RELAY_WORKERS=\(configuration.workers) with "
                    + "RELAY_MAX_MESSAGE_SIZE=\(configuration.messageBytesMax) need; set any of them so")
        },
        // Serving plain HTTP to somebody who asked for TLS would be dangerous.
        SettingRelation("RELAY_TLS_CERT", "RELAY_TLS_KEY") { configuration in
            guard (configuration.certificateFile == nil) != (configuration.privateKeyFile == nil) else { return nil }
            let (set, other) =
                configuration.certificateFile == nil
                ? ("RELAY_TLS_KEY", "RELAY_TLS_CERT") : ("RELAY_TLS_CERT", "RELAY_TLS_KEY")
            return Problem(
                variable: set, value: nil, allowed: "TLS needs \(other) as well; unset both for plain HTTP")
        },
        // Else nobody could connect.
        SettingRelation("RELAY_CLIENT_ADDRESS", "RELAY_TRUSTED_PROXIES") { configuration in
            guard configuration.clientAddress == .proxyProtocol, configuration.trustedProxies.isEmpty else {
                return nil
            }
            return Problem(
                variable: "RELAY_CLIENT_ADDRESS", value: configuration.clientAddress.rawValue,
                allowed: "proxy-protocol needs RELAY_TRUSTED_PROXIES, for only they may connect then")
        },
        // Else messages of the largest size could never be delivered.
        SettingRelation("RELAY_MAX_BACKLOG", "RELAY_MAX_MESSAGE_SIZE") { configuration in
            let bytesMin = configuration.messageBytesMax + Limits.frameHeaderBytesMax
            guard configuration.backlogBytesMax < bytesMin else { return nil }
            return Problem(
                variable: "RELAY_MAX_BACKLOG", value: "\(configuration.backlogBytesMax)",
                allowed: "at least \(bytesMin), so that a message of "
                    + "RELAY_MAX_MESSAGE_SIZE=\(configuration.messageBytesMax) fits; set either so")
        },
    ]

    /// The first setting that is out of its range or in no relation with another that it should be in; nil if there is
    /// none.
    package var firstInvalid: StaticString? {
        Self.settings.first { !$0.isValid(self) }?.name
            ?? Self.relations.first { $0.problem(self) != nil }?.names.first
    }
}

/// What must be so between settings that are in their ranges.
struct SettingRelation: Sendable {
    /// The settings that it is about.
    let names: [StaticString]
    let problem: @Sendable (Configuration) -> Configuration.Problem?

    init(_ names: StaticString..., problem: @escaping @Sendable (Configuration) -> Configuration.Problem?) {
        self.names = names
        self.problem = problem
    }
}

// MARK: - As bytes

// Setting by setting in the order of the table. Numbers are u64, words u8 by their place; the others say how they are
// written where they are defined (Setting.swift).
extension Configuration {
    package func encode(into writer: inout ByteWriter) {
        for setting in Self.settings { setting.encode(self, &writer) }
    }

    /// Takes a configuration from a message; everything is within the limits, whatever the bytes were.
    package init(from reader: inout ByteReader) throws(ByteCodingError) {
        self.init()
        for setting in Self.settings { try setting.decode(&self, &reader) }
        if let name = firstInvalid { throw .invalid(field: name) }
    }
}
