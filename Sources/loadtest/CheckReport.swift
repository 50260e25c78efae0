// What the check prints: a line per property, the first failures in detail, a summary.

/// One promise of the relay, and how often it was kept.
struct Property {
    let name: String
    private(set) var passed = 0
    private(set) var failed = 0
    /// The first failures.
    private(set) var details: [String] = []
    /// Set when the property was not checked.
    var skipped: String?

    init(_ name: String) { self.name = name }

    mutating func pass(_ count: Int = 1) { passed += count }

    mutating func fail(_ detail: String) {
        failed += 1
        if details.count < 20 { details.append(detail) }
    }

    mutating func expect(_ kept: Bool, _ detail: @autoclosure () -> String) {
        if kept { pass() } else { fail(detail()) }
    }

    mutating func expect<Value: Equatable>(_ what: String, _ got: Value, is expected: Value) {
        expect(got == expected, "\(what): expected \(expected), got \(got)")
    }
}

struct CheckReport {
    /// Failures shown under each property.
    let detailsMax: Int
    private(set) var checks = 0
    private(set) var failures = 0
    private(set) var properties = 0
    private(set) var failedProperties = 0

    init(detailsMax: Int) { self.detailsMax = detailsMax }

    mutating func add(_ property: Property) {
        properties += 1
        checks += property.passed + property.failed
        failures += property.failed
        let name = property.name.padded(to: 58)
        if let reason = property.skipped {
            print("  --      \(name) not checked: \(reason)")
            return
        }
        // A property of which nothing was seen was not kept.
        let kept = property.failed == 0 && property.passed > 0
        if !kept { failedProperties += 1 }
        let total = property.passed + property.failed
        let count = property.failed == 0 ? "\(total)" : "\(property.passed) of \(total)"
        print("  \(kept ? "ok    " : "FAILED")  \(name) \(count)")
        for detail in property.details.prefix(detailsMax) { print("            \(detail)") }
        let hidden = property.failed - min(property.details.count, detailsMax)
        if hidden > 0 { print("            and \(hidden) more") }
        if total == 0 { print("            nothing could be checked") }
    }

    var isClean: Bool { failedProperties == 0 }
}

extension String {
    func padded(to width: Int) -> String {
        count >= width ? self : self + String(repeating: " ", count: width - count)
    }

    func paddedLeft(to width: Int) -> String {
        count >= width ? self : String(repeating: " ", count: width - count) + self
    }
}
