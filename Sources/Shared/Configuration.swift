// What an operator can set: one value, read from the RELAY_ variables at start (ConfigurationReading.swift), checked
// as a whole, and sent to each worker as bytes. A worker never reads the environment.

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
    /// RELAY_TLS_CERT and RELAY_TLS_KEY; nil: plain HTTP.
    package var tls: TLSFiles?
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
    /// RELAY_TRUSTED_PROXIES: whose forwarding headers count; empty: nobody's.
    package var trustedProxies = [AddressRange("127.0.0.0/8"), AddressRange("::1")].compactMap(\.self)
    /// RELAY_MAX_BACKLOG: data waiting for one slow client.
    package var backlogBytesMax = 8 << 20
    /// RELAY_MAX_CONNECTIONS: over the whole relay.
    package var connectionsMax = Limits.connectionsRange.upperBound
    /// RELAY_MAX_CONNECTIONS_PER_IP; 0 is off.
    package var connectionsPerAddressMax = 0
    /// RELAY_SHUTDOWN_GRACE.
    package var shutdownGraceSeconds = 10
    /// RELAY_LOG_LEVEL.
    package var logLevel = LogLevel.info
    /// RELAY_LOG_FORMAT.
    package var logFormat = LogFormat.text

    package init() {}

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
        [
            "RELAY_ADDR=\(listen)",
            "RELAY_METRICS_ADDR=\(metrics?.description ?? "")",
            "RELAY_TLS_CERT=\(tls?.certificate ?? "")",
            "RELAY_TLS_KEY=\(tls?.privateKey ?? "")",
            "RELAY_MAX_ROOMS=\(roomsMax)",
            "RELAY_MAX_CLIENTS_PER_ROOM=\(clientsPerRoomMax)",
            "RELAY_MAX_MESSAGE_SIZE=\(messageBytesMax)",
            "RELAY_ROOM_IDLE_TIMEOUT=\(roomIdleSeconds)",
            "RELAY_RATE_LIMIT_PER_IP=\(joinsPerSecondPerAddress)",
            "RELAY_WORKERS=\(workers)",
            "RELAY_TRUSTED_PROXIES=\(trustedProxies.map(\.description).joined(separator: ","))",
            "RELAY_MAX_BACKLOG=\(backlogBytesMax)",
            "RELAY_MAX_CONNECTIONS=\(connectionsMax)",
            "RELAY_MAX_CONNECTIONS_PER_IP=\(connectionsPerAddressMax)",
            "RELAY_SHUTDOWN_GRACE=\(shutdownGraceSeconds)",
            "RELAY_LOG_LEVEL=\(logLevel.rawValue)",
            "RELAY_LOG_FORMAT=\(logFormat.rawValue)",
        ].joined(separator: "\n")
    }
}

// MARK: - As bytes

// Field by field in the order of the declaration. Numbers are u64, enumerations u8 by their place in `allCases`, a
// host is u8 (0 any, 1 an address) and 16 bytes, what may be absent stands behind u8 (0 absent, 1 there), a list is a u32
// count and its elements. A change raises
// `ControlMessage.version`.
extension Configuration {
    package func encode(into writer: inout ByteWriter) {
        listen.encode(into: &writer)
        writer.write(UInt8(metrics == nil ? 0 : 1))
        metrics?.encode(into: &writer)
        writer.write(tls?.certificate ?? "")
        writer.write(tls?.privateKey ?? "")
        for number in [
            roomsMax, clientsPerRoomMax, messageBytesMax, roomIdleSeconds, joinsPerSecondPerAddress, workers,
        ] {
            writer.write(UInt64(number))
        }
        writer.write(UInt32(trustedProxies.count))
        for range in trustedProxies {
            range.first.encode(into: &writer)
            writer.write(UInt8(range.prefixBits))
        }
        for number in [backlogBytesMax, connectionsMax, connectionsPerAddressMax, shutdownGraceSeconds] {
            writer.write(UInt64(number))
        }
        writer.write(UInt8(LogLevel.allCases.firstIndex(of: logLevel) ?? 0))
        writer.write(UInt8(LogFormat.allCases.firstIndex(of: logFormat) ?? 0))
    }

    /// Takes a configuration from a message; everything is within the limits, whatever the bytes were.
    package init(from reader: inout ByteReader) throws(ByteCodingError) {
        listen = try Self.readListenAddress(&reader)
        switch try reader.read(UInt8.self) {
        case 0: metrics = nil
        case 1: metrics = try Self.readListenAddress(&reader)
        default: throw .invalid(field: "metrics address")
        }
        tls = try Self.readTLS(&reader)
        roomsMax = try Self.read(&reader, Limits.roomsRange, "rooms")
        clientsPerRoomMax = try Self.read(&reader, Limits.clientsPerRoomRange, "clients per room")
        messageBytesMax = try Self.read(&reader, Limits.messageBytesRange, "message bytes")
        roomIdleSeconds = try Self.read(&reader, Limits.roomIdleSecondsRange, "room idle seconds")
        joinsPerSecondPerAddress = try Self.read(&reader, Limits.joinsPerSecondRange, "joins per second")
        workers = try Self.read(&reader, Limits.workersRange, "workers")
        trustedProxies = try Self.readRanges(&reader)
        backlogBytesMax = try Self.read(&reader, Limits.backlogBytesRange, "backlog bytes")
        connectionsMax = try Self.read(&reader, Limits.connectionsRange, "connections")
        connectionsPerAddressMax = try Self.read(
            &reader, Limits.connectionsPerAddressRange, "connections per address")
        shutdownGraceSeconds = try Self.read(&reader, Limits.shutdownGraceSecondsRange, "shutdown grace seconds")
        logLevel = try Self.readCase(&reader, "log level")
        logFormat = try Self.readCase(&reader, "log format")
        guard backlogBytesMax >= messageBytesMax + Limits.frameHeaderBytesMax else {
            throw .invalid(field: "backlog bytes")
        }
    }

    private static func read(
        _ reader: inout ByteReader, _ range: ClosedRange<Int>, _ field: StaticString
    ) throws(ByteCodingError) -> Int {
        guard let number = Int(exactly: try reader.read(UInt64.self)), range.contains(number) else {
            throw .invalid(field: field)
        }
        return number
    }

    private static func readCase<Value: CaseIterable>(
        _ reader: inout ByteReader, _ field: StaticString
    ) throws(ByteCodingError) -> Value where Value.AllCases == [Value] {
        let place = Int(try reader.read(UInt8.self))
        guard place < Value.allCases.count else { throw .invalid(field: field) }
        return Value.allCases[place]
    }

    private static func readListenAddress(_ reader: inout ByteReader) throws(ByteCodingError) -> ListenAddress {
        let kind = try reader.read(UInt8.self)
        let address = try Address(from: &reader)
        let port = try reader.read(UInt16.self)
        switch kind {
        case 0: return ListenAddress(host: .any, port: port)
        case 1: return ListenAddress(host: .address(address), port: port)
        default: throw .invalid(field: "listen address")
        }
    }

    private static func readTLS(_ reader: inout ByteReader) throws(ByteCodingError) -> TLSFiles? {
        let certificate = try reader.readText(max: Limits.pathBytesMax, field: "certificate")
        let privateKey = try reader.readText(max: Limits.pathBytesMax, field: "private key")
        guard certificate.isEmpty == privateKey.isEmpty else { throw .invalid(field: "private key") }
        return certificate.isEmpty ? nil : TLSFiles(certificate: certificate, privateKey: privateKey)
    }

    private static func readRanges(_ reader: inout ByteReader) throws(ByteCodingError) -> [AddressRange] {
        let count = Int(try reader.read(UInt32.self))
        guard count <= Limits.trustedProxiesMax else { throw .invalid(field: "trusted proxies") }
        var ranges: [AddressRange] = []
        for _ in 0..<count {
            let first = try Address(from: &reader)
            let bits = Int(try reader.read(UInt8.self))
            guard let range = AddressRange(first: first, prefixBits: bits) else {
                throw .invalid(field: "trusted proxies")
            }
            ranges.append(range)
        }
        return ranges
    }
}

extension ListenAddress {
    fileprivate func encode(into writer: inout ByteWriter) {
        switch host {
        case .any:
            writer.write(UInt8(0))
            Address(high: 0, low: 0).encode(into: &writer)
        case .address(let address):
            writer.write(UInt8(1))
            address.encode(into: &writer)
        }
        writer.write(port)
    }
}

extension Address {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(high)
        writer.write(low)
    }

    fileprivate init(from reader: inout ByteReader) throws(ByteCodingError) {
        self.init(high: try reader.read(), low: try reader.read())
    }
}
