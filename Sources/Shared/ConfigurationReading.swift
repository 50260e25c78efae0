// The configuration as an operator writes it: RELAY_ environment variables. Everything that is wrong is reported at
// once, each problem in a line that names the variable, its value and what is allowed. An empty value is as none,
// because that is what `VARIABLE=` in a compose file means; only RELAY_TRUSTED_PROXIES has a meaning for empty:
// trust nobody.

import Logging

extension Configuration {
    /// The variables of the relay.
    package enum Variable: String, CaseIterable, Sendable {
        case address = "RELAY_ADDR"
        case metricsAddress = "RELAY_METRICS_ADDR"
        case certificate = "RELAY_TLS_CERT"
        case privateKey = "RELAY_TLS_KEY"
        case roomsMax = "RELAY_MAX_ROOMS"
        case clientsPerRoomMax = "RELAY_MAX_CLIENTS_PER_ROOM"
        case messageBytesMax = "RELAY_MAX_MESSAGE_SIZE"
        case roomIdleSeconds = "RELAY_ROOM_IDLE_TIMEOUT"
        case joinsPerSecondPerAddress = "RELAY_RATE_LIMIT_PER_IP"
        case workers = "RELAY_WORKERS"
        case trustedProxies = "RELAY_TRUSTED_PROXIES"
        case backlogBytesMax = "RELAY_MAX_BACKLOG"
        case connectionsMax = "RELAY_MAX_CONNECTIONS"
        case connectionsPerAddressMax = "RELAY_MAX_CONNECTIONS_PER_IP"
        case shutdownGraceSeconds = "RELAY_SHUTDOWN_GRACE"
        case logLevel = "RELAY_LOG_LEVEL"
        case logFormat = "RELAY_LOG_FORMAT"
    }

    /// Why a variable's value can't be used.
    package struct Problem: Sendable, Equatable, CustomStringConvertible {
        package var variable: String
        /// nil where the value may be a secret.
        package var value: String?
        package var allowed: String

        /// One line, whatever the value holds.
        package var description: String {
            guard let value else { return "\(variable) is set: \(allowed)" }
            return "\(variable)=\(LogText.quoted(value, bytesMax: Limits.quotedValueBytesMax)): allowed: \(allowed)"
        }
    }

    /// Reads the configuration from an environment.
    ///
    /// - Returns: the configuration, or nil and every problem; and in either case what is odd but no reason to stop.
    package static func read(
        environment: [String: String], machine: Machine
    ) -> (Configuration?, problems: [Problem], warnings: [String]) {
        var reader = ConfigurationReader(environment: environment, machine: machine)
        let configuration = reader.readConfiguration()
        return (reader.problems.isEmpty ? configuration : nil, reader.problems, reader.warnings)
    }
}

/// Reads variable after variable and collects what is wrong.
private struct ConfigurationReader {
    typealias Variable = Configuration.Variable

    let environment: [String: String]
    let machine: Machine
    var problems: [Configuration.Problem] = []
    var warnings: [String] = []

    init(environment: [String: String], machine: Machine) {
        self.environment = environment
        self.machine = machine
    }

    mutating func readConfiguration() -> Configuration {
        var configuration = Configuration()
        if let address = readAddress(.address) { configuration.listen = address }
        configuration.metrics = readAddress(.metricsAddress)
        readTLS(&configuration.tls)
        readNumber(.roomsMax, Limits.roomsRange, &configuration.roomsMax)
        readNumber(.clientsPerRoomMax, Limits.clientsPerRoomRange, &configuration.clientsPerRoomMax)
        let messageBytesFit = readNumber(.messageBytesMax, Limits.messageBytesRange, &configuration.messageBytesMax)
        readNumber(.roomIdleSeconds, Limits.roomIdleSecondsRange, &configuration.roomIdleSeconds)
        readNumber(.joinsPerSecondPerAddress, Limits.joinsPerSecondRange, &configuration.joinsPerSecondPerAddress)
        readWorkers(&configuration.workers)
        readTrustedProxies(&configuration.trustedProxies)
        let backlogFits = readNumber(.backlogBytesMax, Limits.backlogBytesRange, &configuration.backlogBytesMax)
        if messageBytesFit && backlogFits { compareBacklog(configuration) }
        readConnections(&configuration.connectionsMax, workers: configuration.workers)
        readNumber(
            .connectionsPerAddressMax, Limits.connectionsPerAddressRange, &configuration.connectionsPerAddressMax)
        readNumber(.shutdownGraceSeconds, Limits.shutdownGraceSecondsRange, &configuration.shutdownGraceSeconds)
        readCase(.logLevel, &configuration.logLevel)
        readCase(.logFormat, &configuration.logFormat)
        warnAboutNames()
        return configuration
    }

    // MARK: - Kinds of values

    /// A variable's value; nil if it is unset or empty, or too long, which is a problem.
    private mutating func value(of variable: Variable) -> String? {
        guard let value = environment[variable.rawValue], !value.isEmpty else { return nil }
        guard value.utf8.count <= Limits.environmentValueBytesMax else {
            report(variable, value, "at most \(Limits.environmentValueBytesMax) bytes")
            return nil
        }
        return value
    }

    private mutating func report(_ variable: Variable, _ value: String?, _ allowed: String) {
        problems.append(Configuration.Problem(variable: variable.rawValue, value: value, allowed: allowed))
    }

    /// - Returns: false if there was a problem.
    @discardableResult
    private mutating func readNumber(_ variable: Variable, _ range: ClosedRange<Int>, _ number: inout Int) -> Bool {
        let before = problems.count
        guard let text = value(of: variable) else { return problems.count == before }
        guard let read = Self.decimal(text), range.contains(read) else {
            report(variable, text, "a whole number from \(range.lowerBound) to \(range.upperBound)")
            return false
        }
        number = read
        return true
    }

    private mutating func readCase<Value: RawRepresentable & CaseIterable>(
        _ variable: Variable, _ value: inout Value
    ) where Value.RawValue == String {
        guard let text = self.value(of: variable) else { return }
        guard let read = Value(rawValue: text) else {
            report(variable, text, Value.allCases.map(\.rawValue).joined(separator: ", "))
            return
        }
        value = read
    }

    /// Digits alone, without sign and blanks; nil as well for more than any limit's digits.
    private static func decimal(_ text: String) -> Int? {
        guard text.utf8.count <= 18, text.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }) else {
            return nil
        }
        return Int(text)
    }

    // MARK: - Single variables

    private mutating func readAddress(_ variable: Variable) -> ListenAddress? {
        guard let text = value(of: variable) else { return nil }
        guard let read = ListenAddress(text) else {
            report(
                variable, text,
                "HOST:PORT, :PORT (IPv4 and IPv6) or [IPV6]:PORT, with an IP address as HOST and a PORT from 0 to 65535"
            )
            return nil
        }
        return read
    }

    /// A number or `auto`, which is the default.
    private mutating func readWorkers(_ workers: inout Int) {
        workers = machine.workersAuto
        guard let text = value(of: .workers), text != "auto" else { return }
        guard let read = Self.decimal(text), Limits.workersRange.contains(read) else {
            let range = Limits.workersRange
            report(.workers, text, "a whole number from \(range.lowerBound) to \(range.upperBound), or auto")
            return
        }
        guard read <= machine.workersMax else {
            report(.workers, text, "1 to \(machine.workersMax), or auto: \(descriptorAdvice)")
            return
        }
        workers = read
    }

    private mutating func readTrustedProxies(_ proxies: inout [AddressRange]) {
        let variable = Variable.trustedProxies
        if environment[variable.rawValue]?.isEmpty == true { proxies = [] }
        guard let text = value(of: variable) else { return }
        let entries = text.split(separator: ",", omittingEmptySubsequences: false).map { $0.drop { $0 == " " } }
        let read = entries.map { AddressRange(String($0.reversed().drop { $0 == " " }.reversed())) }
        guard read.count <= Limits.trustedProxiesMax, !read.contains(nil) else {
            report(
                variable, text,
                "at most \(Limits.trustedProxiesMax) addresses or CIDR ranges (with no bit set beyond the prefix), "
                    + "separated by commas; empty to trust nobody")
            return
        }
        proxies = read.compactMap(\.self)
    }

    /// A recipient's backlog must hold one message of the largest size, or such messages could never be delivered.
    private mutating func compareBacklog(_ configuration: Configuration) {
        let bytesMin = configuration.messageBytesMax + Limits.frameHeaderBytesMax
        guard configuration.backlogBytesMax < bytesMin else { return }
        report(
            .backlogBytesMax, "\(configuration.backlogBytesMax)",
            "at least \(bytesMin), so that a message of RELAY_MAX_MESSAGE_SIZE=\(configuration.messageBytesMax) fits; "
                + "set either so")
    }

    /// A number or `auto`, which is the default: as many as the descriptors suffice for (`Machine.connectionsMax`).
    private mutating func readConnections(_ connections: inout Int, workers: Int) {
        let most = machine.connectionsMax(workers: workers)
        guard most >= 1 else {
            report(.connectionsMax, environment[Variable.connectionsMax.rawValue] ?? "", "none: \(descriptorAdvice)")
            return
        }
        connections = most
        guard let text = value(of: .connectionsMax), text != "auto" else { return }
        guard let read = Self.decimal(text), (1...most).contains(read) else {
            let isBound = most < Limits.connectionsRange.upperBound
            report(
                .connectionsMax, text,
                "a whole number from 1 to \(most), or auto" + (isBound ? ": \(descriptorAdvice)" : ""))
            return
        }
        connections = read
    }

    private var descriptorAdvice: String {
        "the limit of open files is \(machine.descriptorsMax); "
            + "raise it with ulimit -n, LimitNOFILE= of systemd or --ulimit nofile= of Docker"
    }

    /// Both or neither: serving plain HTTP to somebody who asked for TLS would be dangerous.
    private mutating func readTLS(_ tls: inout Configuration.TLSFiles?) {
        let (certificate, privateKey) = (readPath(.certificate), readPath(.privateKey))
        switch (certificate, privateKey) {
        case (nil, nil): break
        case (let certificate?, let privateKey?):
            tls = Configuration.TLSFiles(certificate: certificate, privateKey: privateKey)
        case (_?, nil):
            report(.certificate, nil, "TLS needs RELAY_TLS_KEY as well; unset both for plain HTTP")
        case (nil, _?):
            report(.privateKey, nil, "TLS needs RELAY_TLS_CERT as well; unset both for plain HTTP")
        }
    }

    private mutating func readPath(_ variable: Variable) -> String? {
        guard let path = value(of: variable) else { return nil }
        // The value is not shown: by mistake it may be the key itself.
        guard !path.utf8.contains(UInt8(ascii: "\n")), path.utf8.count < Limits.pathBytesMax else {
            report(variable, nil, "it takes the path of a PEM file, not what is in the file")
            return nil
        }
        return path
    }

    // MARK: - Names

    private mutating func warnAboutNames() {
        for name in environment.keys.sorted() where name.hasPrefix("RELAY_") && Variable(rawValue: name) == nil {
            let nearest = Self.nearest(to: name).map { ": did you mean \($0)?" } ?? ": it has no effect"
            warnings.append("unknown variable \(LogText.quoted(name, bytesMax: Limits.quotedValueBytesMax))\(nearest)")
        }
    }

    /// The variable that differs least from `name`, if it differs in at most a quarter of its letters, case aside.
    private static func nearest(to name: String) -> String? {
        let letters = Array(name.prefix(100).uppercased().utf8)
        let nearest = Variable.allCases
            .map { (name: $0.rawValue, distance: distance(letters, Array($0.rawValue.utf8))) }
            .min { $0.distance < $1.distance }
        guard let nearest, nearest.distance <= max(2, (nearest.name.utf8.count - "RELAY_".utf8.count) / 4) else {
            return nil
        }
        return nearest.name
    }

    /// Levenshtein's distance. Nothing is near to a name far longer than any variable's.
    private static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        guard left.count <= 64 else { return Int.max }
        var row = Array(0...right.count)
        for (i, letter) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, other) in right.enumerated() {
                let substituted = diagonal + (letter == other ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
            }
        }
        return row[right.count]
    }
}
