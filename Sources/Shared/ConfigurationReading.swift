// The configuration as an operator writes it: RELAY_ environment variables. Everything that is wrong is reported at
// once, each problem in a line that names the variable, its value and what is allowed. An empty value is as none,
// because that is what `VARIABLE=` in a compose file means; only a list has a meaning for empty: nothing is in it.

extension Configuration {
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

/// Reads setting after setting and collects what is wrong.
private struct ConfigurationReader {
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
        for setting in Configuration.settings { read(setting, &configuration) }
        for relation in Configuration.relations where !relation.names.contains(where: { isWrong("\($0)") }) {
            if let problem = relation.problem(configuration) { problems.append(problem) }
        }
        warnAboutNames()
        return configuration
    }

    private mutating func read(_ setting: Setting, _ configuration: inout Configuration) {
        var text = environment["\(setting.name)"]
        if text?.isEmpty == true && !setting.takesEmpty { text = nil }
        let isTooLong = (text?.utf8.count ?? 0) > Limits.environmentValueBytesMax
        let allowed =
            isTooLong
            ? "at most \(Limits.environmentValueBytesMax) bytes" : setting.read(text, machine, &configuration)
        guard let allowed else { return }
        problems.append(
            Configuration.Problem(
                variable: "\(setting.name)", value: setting.isSecret ? nil : text ?? "", allowed: allowed))
    }

    private func isWrong(_ variable: String) -> Bool {
        problems.contains { $0.variable == variable }
    }

    // MARK: - Names

    private mutating func warnAboutNames() {
        let known = Configuration.settings.map { "\($0.name)" }
        for name in environment.keys.sorted() where name.hasPrefix("RELAY_") && !known.contains(name) {
            let nearest = Self.nearest(to: name).map { ": did you mean \($0)?" } ?? ": it has no effect"
            warnings.append("unknown variable \(LogText.quoted(name, bytesMax: Limits.quotedValueBytesMax))\(nearest)")
        }
    }

    /// The variable that differs least from `name`, if it differs in at most a quarter of its letters, case aside.
    private static func nearest(to name: String) -> String? {
        let letters = Array(name.prefix(100).uppercased().utf8)
        let nearest = Configuration.settings
            .map { (name: "\($0.name)", distance: distance(letters, Array("\($0.name)".utf8))) }
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
