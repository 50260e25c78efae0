// The relay's report as Prometheus reads it: text format 0.0.4. What there is stands in MetricTable.swift, a row a
// metric.
//
// Counters and histograms are sums over all pages of shared memory, which outlive the workers: they never fall while the relay
// runs.

import Shared

enum Metrics {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    static func text(_ report: RelayReport) -> String {
        var page = MetricsText()
        for metric in table { add(metric, report, to: &page) }
        return page.text
    }

    private static func add(_ metric: Metric, _ report: RelayReport, to page: inout MetricsText) {
        if case .value(let value) = metric.source, value(report) == nil { return }
        page.begin(metric.name, metric.kind, metric.help)
        switch metric.source {
        case .value(let value):
            if let value = value(report) { page.add([], value) }
        case .values(let values):
            for sample in values(report) { page.add(sample.labels, sample.value) }
        case .perWorker(let value):
            for worker in report.workers {
                if let value = value(worker) { page.add([("worker", "\(worker.index)")], value) }
            }
        case .counter(let counter):
            page.add([], Double(report[counter]))
        case .counters(let label, let counters):
            for (name, counter) in counters { page.add([(label, name)], Double(report[counter])) }
        case .family(let label, let family):
            for (name, count) in zip(family.labels, report.families[family.rawValue]) {
                page.add([(label, name)], Double(count))
            }
        case .histogram(let histogram):
            page.add(report.histograms[histogram.rawValue])
        }
    }
}

extension RelayReport {
    subscript(counter: Counter) -> UInt64 { counters[counter.rawValue] }

    subscript(counter: LabelledCounter) -> UInt64 { families[counter.family.rawValue][counter.index] }
}

/// A page in the text format, line by line.
struct MetricsText {
    enum Kind: String {
        case counter
        case gauge
        case histogram
    }

    typealias Label = (name: String, value: String)

    private(set) var text = ""
    private var name = ""

    /// A family: its samples follow.
    mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        self.name = name
        text += "# HELP \(name) \(Self.escaped(help, quote: false))\n# TYPE \(name) \(kind.rawValue)\n"
    }

    mutating func add(_ labels: [Label], _ value: Double) {
        addSample("", labels, Self.number(value))
    }

    /// Buckets are cumulative, and the last is all there is.
    mutating func add(_ counts: HistogramCounts) {
        var total: UInt64 = 0
        for (index, count) in counts.buckets.enumerated() {
            total &+= count
            let bound = index < Histogram.bounds.count ? Self.number(seconds(Histogram.bounds[index])) : "+Inf"
            addSample("_bucket", [("le", bound)], "\(total)")
        }
        addSample("_sum", [], Self.number(seconds(counts.sum)))
        addSample("_count", [], "\(total)")
    }

    private mutating func addSample(_ suffix: String, _ labels: [Label], _ value: String) {
        let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value, quote: true))\"" }
        text += "\(name)\(suffix)\(labels.isEmpty ? "" : "{\(pairs.joined(separator: ","))}") \(value)\n"
    }

    /// Whole numbers without a point: as all counters are.
    static func number(_ value: Double) -> String {
        if let whole = Int64(exactly: value) { return "\(whole)" }
        // Swift writes infinity and NaN otherwise than Prometheus reads them.
        guard value.isFinite else { return value.isNaN ? "NaN" : value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }

    static func escaped(_ text: String, quote: Bool) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += #"\\"#
            case "\n": escaped += #"\n"#
            case "\"" where quote: escaped += #"\""#
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}
