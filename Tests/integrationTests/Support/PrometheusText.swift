// A reader of Prometheus's text format 0.0.4 that forgives nothing: what promtool's `check metrics` looks at, and what a scraper
// would make something odd of. Written from the format's description, not from the relay's writer.

/// What is wrong with a page.
struct PrometheusError: Error, CustomStringConvertible {
    var line: Int
    var problem: String

    var description: String { "line \(line): \(problem)" }
}

/// A page of metrics.
struct PrometheusText {
    struct Family {
        var type: String
        var help: String
    }

    private(set) var families: [String: Family] = [:]
    /// Values by name and labels as they stand: `relay_joins_total{result="host"}`.
    private(set) var samples: [String: Double] = [:]

    private var line = 0
    private var family = ""
    /// Of the histogram at hand: bounds and counts so far, its sum and count.
    private var buckets: [(bound: Double, count: Double)] = []
    private var sum: Double?
    private var count: Double?

    init(_ text: String) throws {
        guard text.hasSuffix("\n") else { throw PrometheusError(line: 0, problem: "no line feed at the end") }
        for (index, line) in text.dropLast().split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            self.line = index + 1
            try read(String(line))
        }
        try endFamily()
    }

    subscript(name: String) -> Double? { samples[name] }

    /// The values of counters and of histograms' parts: what may never fall.
    var monotonic: [String: Double] {
        samples.filter { key, _ in
            let name = String(key.prefix { $0 != "{" })
            return ["counter", "histogram"].contains(families[Self.familyName(name, families)]?.type)
        }
    }

    private static func familyName(_ sample: String, _ families: [String: Family]) -> String {
        for suffix in ["_bucket", "_sum", "_count"] where sample.hasSuffix(suffix) {
            let name = String(sample.dropLast(suffix.count))
            if families[name]?.type == "histogram" { return name }
        }
        return sample
    }

    private func fail(_ problem: String) -> PrometheusError { PrometheusError(line: line, problem: problem) }

    private mutating func read(_ text: String) throws {
        guard text.hasPrefix("#") else {
            try readSample(text)
            return
        }
        let parts = text.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 4, parts[0] == "#" else { throw fail("a comment that is neither HELP nor TYPE: \(text)") }
        let name = parts[2]
        guard Self.isName(name, colons: true) else { throw fail("bad name \(name)") }
        switch parts[1] {
        case "HELP":
            try endFamily()
            guard families[name] == nil else { throw fail("\(name) stands twice") }
            guard !parts[3].isEmpty else { throw fail("\(name) has no help") }
            try checkEscapes(parts[3], allowed: ["\\", "n"])
            families[name] = Family(type: "", help: parts[3])
            family = name
        case "TYPE":
            guard name == family, families[name]?.type == "" else {
                throw fail("TYPE \(name) does not follow its HELP")
            }
            guard ["counter", "gauge", "histogram"].contains(parts[3]) else { throw fail("type \(parts[3])") }
            guard (parts[3] == "counter") == name.hasSuffix("_total") else {
                throw fail("a counter, and nothing else, ends in _total: \(name)")
            }
            for unit in ["millisecond", "microsecond", "nanosecond", "minute", "kilobyte", "_ms", "_ns", "_kb"]
            where name.contains(unit) {
                throw fail("\(name) is in no base unit")
            }
            families[name]?.type = parts[3]
        default:
            throw fail("a comment that is neither HELP nor TYPE: \(text)")
        }
    }

    /// name{label="value",...} value
    private mutating func readSample(_ text: String) throws {
        guard let type = families[family]?.type, !type.isEmpty else { throw fail("a sample before its TYPE: \(text)") }
        let name = String(text.prefix { $0 != "{" && $0 != " " })
        guard Self.isName(name, colons: true) else { throw fail("bad name \(name)") }
        var rest = Substring(text.dropFirst(name.count))
        let labels = try readLabels(&rest)
        guard rest.first == " " else { throw fail("no blank before the value: \(text)") }
        let word = String(rest.dropFirst())
        guard let value = word == "+Inf" ? .infinity : Double(word), !word.contains(" ") else {
            throw fail("no number: \(word)")
        }
        let key = String(text.dropLast(word.count + 1))
        guard samples[key] == nil else { throw fail("\(key) stands twice") }
        samples[key] = value
        switch type {
        case "histogram": try readHistogram(name, labels, value)
        case "counter":
            guard name == family else { throw fail("\(name) is not of the family \(family)") }
            guard value >= 0 && value.isFinite else { throw fail("a counter of \(value)") }
        default:
            guard name == family else { throw fail("\(name) is not of the family \(family)") }
        }
    }

    private mutating func readLabels(_ rest: inout Substring) throws -> [String: String] {
        var labels: [String: String] = [:]
        guard rest.first == "{" else { return labels }
        rest.removeFirst()
        while true {
            let name = String(rest.prefix { $0 != "=" })
            guard Self.isName(name, colons: false), !name.hasPrefix("__") else { throw fail("bad label name \(name)") }
            rest = rest.dropFirst(name.count)
            guard rest.hasPrefix("=\"") else { throw fail("a label's value is quoted") }
            rest = rest.dropFirst(2)
            var value = ""
            while let next = rest.first, next != "\"" {
                value.append(next)
                rest.removeFirst()
                if next == "\\", let escaped = rest.first {
                    value.append(escaped)
                    rest.removeFirst()
                }
            }
            try checkEscapes(value, allowed: ["\\", "n", "\""])
            guard labels.updateValue(value, forKey: name) == nil else { throw fail("label \(name) stands twice") }
            guard rest.first == "\"" else { throw fail("a label's value has no end") }
            rest.removeFirst()
            switch rest.first {
            case ",": rest.removeFirst()
            case "}":
                rest.removeFirst()
                return labels
            default: throw fail("labels without an end")
            }
        }
    }

    private func checkEscapes(_ text: String, allowed: Set<Character>) throws {
        var isEscape = false
        for character in text {
            if isEscape {
                guard allowed.contains(character) else { throw fail("escape \\\(character)") }
                isEscape = false
            } else {
                isEscape = character == "\\"
            }
        }
        guard !isEscape else { throw fail("half an escape") }
    }

    /// A histogram without labels of its own: all that the relay has.
    private mutating func readHistogram(_ name: String, _ labels: [String: String], _ value: Double) throws {
        switch name {
        case "\(family)_bucket":
            guard labels.count == 1, let text = labels["le"], let bound = text == "+Inf" ? .infinity : Double(text)
            else {
                throw fail("a bucket without le")
            }
            guard buckets.last.map({ $0.bound < bound }) ?? true else { throw fail("bounds do not grow") }
            guard buckets.last.map({ $0.count <= value }) ?? true else { throw fail("buckets are not cumulative") }
            buckets.append((bound, value))
        case "\(family)_sum" where labels.isEmpty: sum = value
        case "\(family)_count" where labels.isEmpty: count = value
        default: throw fail("\(name) is not of the histogram \(family)")
        }
    }

    private mutating func endFamily() throws {
        defer { (family, buckets, sum, count) = ("", [], nil, nil) }
        guard !family.isEmpty else { return }
        let type = families[family]?.type
        guard type != "" else { throw fail("\(family) has no type") }
        guard type == "histogram" else { return }
        guard buckets.last?.bound == .infinity, buckets.count > 1, let sum, sum >= 0, let count,
            buckets.last?.count == count
        else { throw fail("the histogram \(family) is not whole") }
    }

    private static func isName(_ text: String, colons: Bool) -> Bool {
        guard let first = text.unicodeScalars.first, !("0"..."9").contains(first) else { return false }
        return text.unicodeScalars.allSatisfy { scalar in
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "_": true
            case ":": colons
            default: false
            }
        }
    }
}
