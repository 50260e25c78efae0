// What an operator can set, a row a setting: its variable, its field and its kind. Reading an environment, the summary,
// the bytes between processes and the check of ranges all follow from the row (the table stands in
// Configuration.swift).

/// One setting: a row of `Configuration.settings`.
package struct Setting: Sendable {
    /// Its variable: `RELAY_MAX_ROOMS`.
    package let name: StaticString
    /// Whether an empty value means something; else it is as none.
    package let takesEmpty: Bool
    /// Whether the value may be a secret by mistake, so that no message shows it.
    let isSecret: Bool

    /// Reads a value into its field; nil is none, and sets the default where that depends on the machine.
    ///
    /// - Returns: what is allowed, if the value is not.
    let read: @Sendable (String?, Machine, inout Configuration) -> String?
    /// The value as it can be set again.
    let text: @Sendable (Configuration) -> String
    let isValid: @Sendable (Configuration) -> Bool
    let encode: @Sendable (Configuration, inout ByteWriter) -> Void
    let decode: @Sendable (inout Configuration, inout ByteReader) throws(ByteCodingError) -> Void

    /// A setting whose default is that of its field.
    init<Value: Sendable>(
        _ name: StaticString, _ path: any WritableKeyPath<Configuration, Value> & Sendable, _ kind: SettingKind<Value>
    ) {
        self.init(name, path, kind) { text, _, configuration in
            guard let text else { return nil }
            guard let value = kind.parse(text), kind.isValid(value) else { return kind.allowed }
            configuration[keyPath: path] = value
            return nil
        }
    }

    /// A setting that may be `auto`, which is its default.
    ///
    /// - Parameters:
    ///   - kind: makes a kind of a range: `SettingKind.number` or `.bytes`.
    ///   - auto: the value of `auto`. It may depend on the settings above this one in the table.
    ///   - most: as much as the machine allows, where that may be less than the range.
    ///   - advice: how to make the machine allow more.
    init(
        _ name: StaticString, _ path: any WritableKeyPath<Configuration, Int> & Sendable,
        _ kind: @escaping @Sendable (ClosedRange<Int>) -> SettingKind<Int>, in range: ClosedRange<Int>,
        auto: @escaping @Sendable (Machine, Configuration) -> Int,
        most: @escaping @Sendable (Machine, Configuration) -> Int = { _, _ in .max },
        advice: @escaping @Sendable (Machine) -> String = { _ in "" }
    ) {
        self.init(name, path, kind(range)) { text, machine, configuration in
            let bound = min(range.upperBound, most(machine, configuration))
            let advice = bound < range.upperBound ? ": \(advice(machine))" : ""
            guard bound >= range.lowerBound else { return "none\(advice)" }
            let kind = kind(range.lowerBound...bound)
            configuration[keyPath: path] = max(range.lowerBound, min(bound, auto(machine, configuration)))
            guard let text, text != "auto" else { return nil }
            guard let value = kind.parse(text), kind.isValid(value) else { return "\(kind.allowed), or auto\(advice)" }
            configuration[keyPath: path] = value
            return nil
        }
    }

    private init<Value: Sendable>(
        _ name: StaticString, _ path: any WritableKeyPath<Configuration, Value> & Sendable, _ kind: SettingKind<Value>,
        read: @escaping @Sendable (String?, Machine, inout Configuration) -> String?
    ) {
        self.name = name
        takesEmpty = kind.takesEmpty
        isSecret = kind.isSecret
        self.read = read
        text = { kind.text($0[keyPath: path]) }
        isValid = { kind.isValid($0[keyPath: path]) }
        encode = { kind.encode($0[keyPath: path], &$1) }
        decode = { (configuration, reader) throws(ByteCodingError) in
            let value = try kind.decode(&reader, name)
            guard kind.isValid(value) else { throw .invalid(field: name) }
            configuration[keyPath: path] = value
        }
    }
}

/// What the value of a setting may be, and how it is written: in an environment, and as bytes.
struct SettingKind<Value: Sendable>: Sendable {
    /// What is allowed, in words.
    var allowed: String
    /// The value of a text, nil if it is none. It need not be valid.
    var parse: @Sendable (String) -> Value?
    var text: @Sendable (Value) -> String
    var isValid: @Sendable (Value) -> Bool = { _ in true }
    var encode: @Sendable (Value, inout ByteWriter) -> Void
    /// Takes a value, which need not be valid. The text names the setting in errors.
    var decode: @Sendable (inout ByteReader, StaticString) throws(ByteCodingError) -> Value
    var takesEmpty = false
    var isSecret = false
}

// MARK: - Numbers

extension SettingKind where Value == Int {
    /// A whole number: digits alone.
    static func number(_ range: ClosedRange<Int>) -> SettingKind {
        whole("a whole number from \(range.lowerBound) to \(range.upperBound)", range) { decimal($0[...]) }
    }

    /// A size: bytes, or with a suffix KiB, MiB and GiB.
    static func bytes(_ range: ClosedRange<Int>) -> SettingKind {
        whole(
            "bytes, a whole number from \(range.lowerBound) to \(range.upperBound), or with K, M or G for powers of 1024",
            range
        ) { text in
            let shift: Int? =
                switch text.utf8.last {
                case UInt8(ascii: "K"): 10
                case UInt8(ascii: "M"): 20
                case UInt8(ascii: "G"): 30
                default: nil
                }
            guard let shift else { return decimal(text[...]) }
            guard text.utf8.count > 1, let units = decimal(Substring(text.utf8.dropLast())) else { return nil }
            let (bytes, overflow) = units.multipliedReportingOverflow(by: 1 << shift)
            return overflow ? nil : bytes
        }
    }

    private static func whole(
        _ allowed: String, _ range: ClosedRange<Int>, _ parse: @escaping @Sendable (String) -> Int?
    ) -> SettingKind {
        SettingKind(
            allowed: allowed, parse: parse, text: { "\($0)" }, isValid: { range.contains($0) },
            encode: { $1.write(UInt64(clamping: $0)) },
            decode: { (reader, name) throws(ByteCodingError) in
                guard let number = Int(exactly: try reader.read(UInt64.self)) else { throw .invalid(field: name) }
                return number
            })
    }
}

/// Digits alone, without sign and blanks; nil as well for more than any limit's digits.
private func decimal(_ text: Substring) -> Int? {
    guard text.utf8.count <= 18, text.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }) else {
        return nil
    }
    return Int(text)
}

// MARK: - Words

extension SettingKind
where Value: CaseIterable & RawRepresentable, Value.RawValue == String, Value.AllCases == [Value] {
    /// One of a few words. As bytes a u8, its place among them.
    static var choice: SettingKind {
        SettingKind(
            allowed: Value.allCases.map(\.rawValue).joined(separator: ", "), parse: { Value(rawValue: $0) },
            text: { $0.rawValue },
            encode: { value, writer in
                writer.write(UInt8(Value.allCases.firstIndex { $0.rawValue == value.rawValue } ?? 0))
            },
            decode: { (reader, name) throws(ByteCodingError) in
                let place = Int(try reader.read(UInt8.self))
                guard place < Value.allCases.count else { throw .invalid(field: name) }
                return Value.allCases[place]
            })
    }
}

extension SettingKind where Value == String {
    /// A text with a rule of its own.
    static func text(
        _ allowed: String, bytesMax: Int, isSecret: Bool = false, where isValid: @escaping @Sendable (String) -> Bool
    ) -> SettingKind {
        SettingKind(
            allowed: allowed, parse: { $0 }, text: { $0 },
            isValid: { !$0.isEmpty && $0.utf8.count <= bytesMax && isValid($0) }, encode: { $1.write($0) },
            decode: { (reader, name) throws(ByteCodingError) in try reader.readText(max: bytesMax, field: name) },
            isSecret: isSecret)
    }

    /// The path of a PEM file. PATH_MAX counts its NUL.
    static var pemPath: SettingKind {
        // By mistake the value may be the key itself.
        text(
            "it takes the path of a PEM file, not what is in the file", bytesMax: Limits.pathBytesMax - 1,
            isSecret: true
        ) { !$0.utf8.contains(UInt8(ascii: "\n")) }
    }
}

extension SettingKind where Value == String {
    /// The name of a user; whether there is one is known where the relay runs.
    static var userName: SettingKind {
        text(
            "the name of a user: at most \(Limits.userNameBytesMax) letters, digits, dots, dashes and underscores",
            bytesMax: Limits.userNameBytesMax
        ) { name in
            name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
        }
    }
}

// MARK: - Several, or none

extension SettingKind {
    /// A value that may be absent: that is the default. As bytes it stands after a u8: 0 absent, 1 there.
    static func optional<Wrapped: Sendable>(_ kind: SettingKind<Wrapped>) -> SettingKind where Value == Wrapped? {
        SettingKind(
            allowed: kind.allowed, parse: { text in kind.parse(text).map { Optional($0) } },
            text: { $0.map { kind.text($0) } ?? "" }, isValid: { $0.map { kind.isValid($0) } ?? true },
            encode: { value, writer in
                writer.write(UInt8(value == nil ? 0 : 1))
                if let value { kind.encode(value, &writer) }
            },
            decode: { (reader, name) throws(ByteCodingError) in
                switch try reader.read(UInt8.self) {
                case 0: return nil
                case 1: return try kind.decode(&reader, name)
                default: throw .invalid(field: name)
                }
            },
            isSecret: kind.isSecret)
    }

    /// Values with commas and blanks between them; empty is none of them. As bytes a u32 count and each.
    ///
    /// - Parameters:
    ///   - allowed: what they are: "addresses or CIDR ranges".
    ///   - none: what it means that there is none: "to trust nobody".
    static func list<Element: Sendable>(
        _ allowed: String, none: String, max: Int, of kind: SettingKind<Element>
    ) -> SettingKind where Value == [Element] {
        SettingKind(
            allowed: "at most \(max) \(allowed), separated by commas; empty \(none)",
            parse: { text in
                guard !text.isEmpty else { return [] }
                var values: [Element] = []
                for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
                    guard let value = kind.parse(trimmed(entry)) else { return nil }
                    values.append(value)
                }
                return values
            },
            text: { $0.map { kind.text($0) }.joined(separator: ",") },
            isValid: { $0.count <= max && $0.allSatisfy { kind.isValid($0) } },
            encode: { values, writer in
                writer.write(UInt32(values.count))
                for value in values { kind.encode(value, &writer) }
            },
            decode: { (reader, name) throws(ByteCodingError) in
                let count = Int(try reader.read(UInt32.self))
                guard count <= max else { throw .invalid(field: name) }
                var values: [Element] = []
                for _ in 0..<count { values.append(try kind.decode(&reader, name)) }
                return values
            },
            takesEmpty: true)
    }
}

private func trimmed(_ text: Substring) -> String {
    String(text.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
}

// MARK: - Addresses

extension SettingKind where Value == ListenAddress {
    /// Where to listen. As bytes a u8 (0 any, 1 an address), 16 bytes and the port.
    static var listenAddress: SettingKind {
        SettingKind(
            allowed:
                "HOST:PORT, :PORT (IPv4 and IPv6) or [IPV6]:PORT, with an IP address as HOST and a PORT from 0 to 65535",
            parse: { ListenAddress($0) }, text: { "\($0)" },
            encode: { value, writer in
                switch value.host {
                case .any:
                    writer.write(UInt8(0))
                    Address(high: 0, low: 0).encode(into: &writer)
                case .address(let address):
                    writer.write(UInt8(1))
                    address.encode(into: &writer)
                }
                writer.write(value.port)
            },
            decode: { (reader, name) throws(ByteCodingError) in
                let kind = try reader.read(UInt8.self)
                let address = try Address(from: &reader)
                let port = try reader.read(UInt16.self)
                switch kind {
                case 0: return ListenAddress(host: .any, port: port)
                case 1: return ListenAddress(host: .address(address), port: port)
                default: throw .invalid(field: name)
                }
            })
    }
}

extension SettingKind where Value == AddressRange {
    /// An address or a CIDR range. As bytes 16 and a u8, the bits of its prefix.
    static var addressRange: SettingKind {
        SettingKind(
            allowed: "an address or a CIDR range", parse: { AddressRange($0) }, text: { "\($0)" },
            encode: { value, writer in
                value.first.encode(into: &writer)
                writer.write(UInt8(value.prefixBits))
            },
            decode: { (reader, name) throws(ByteCodingError) in
                let first = try Address(from: &reader)
                let bits = Int(try reader.read(UInt8.self))
                guard let range = AddressRange(first: first, prefixBits: bits) else { throw .invalid(field: name) }
                return range
            })
    }
}

// MARK: - Names in URLs

extension SettingKind where Value == Origin {
    /// Where a web page comes from. As bytes a text.
    static var origin: SettingKind {
        SettingKind(
            allowed: "an origin", parse: { Origin($0) }, text: { "\($0)" },
            isValid: { $0.description.utf8.count <= Limits.originBytesMax }, encode: { $1.write($0.description) },
            decode: { (reader, name) throws(ByteCodingError) in
                let text = try reader.readText(max: Limits.originBytesMax, field: name)
                // In its one spelling, as it was written.
                guard let origin = Origin(text), origin.description == text else { throw .invalid(field: name) }
                return origin
            })
    }
}

extension SettingKind where Value == HostName {
    /// A host name. As bytes a text.
    static var hostName: SettingKind {
        SettingKind(
            allowed: "a host name", parse: { HostName($0) }, text: { "\($0)" }, encode: { $1.write($0.description) },
            decode: { (reader, name) throws(ByteCodingError) in
                let text = try reader.readText(max: Limits.hostNameBytesMax, field: name)
                guard let host = HostName(text), host.description == text else { throw .invalid(field: name) }
                return host
            })
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
