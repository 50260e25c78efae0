// Text as it may stand in a line: bounded, and without anything that could end the line, move the cursor or reorder
// what a reader sees. Escapes are Swift's (\n, \t, \\, \", \u{7F}), in JSON those of RFC 8259, 7. What is cut ends
// in "…".

/// Pure functions from text to the bytes of a log line.
package enum LogText {
    private static let ellipsis = Array("…".utf8)

    /// Escaped, not quoted.
    static func escaped(_ text: String, bytesMax: Int) -> [UInt8] {
        limited(text, bytesMax: bytesMax) { swiftEscape($0, isQuoted: false) }
    }

    /// As it is where it reads as one word, else quoted.
    static func bareOrQuoted(_ text: String, bytesMax: Int) -> [UInt8] {
        let isBare = !text.isEmpty && text.utf8.count <= bytesMax && text.utf8.allSatisfy(isWord)
        return isBare ? Array(text.utf8) : quotedBytes(text, bytesMax: bytesMax)
    }

    /// A key: what is no word in it becomes "_".
    static func key(_ text: String, bytesMax: Int) -> [UInt8] {
        limited(text.isEmpty ? "_" : text, bytesMax: bytesMax) { scalar in
            [scalar.isASCII && isWord(UInt8(scalar.value)) ? UInt8(scalar.value) : UInt8(ascii: "_")]
        }
    }

    /// Quoted and escaped: for messages to an operator.
    package static func quoted(_ text: String, bytesMax: Int) -> String {
        String(decoding: quotedBytes(text, bytesMax: bytesMax), as: UTF8.self)
    }

    /// Escaped and cut: another process's words, to be kept and shown later.
    package static func shown(_ text: String, bytesMax: Int) -> String {
        String(decoding: escaped(text, bytesMax: bytesMax), as: UTF8.self)
    }

    /// A JSON string.
    package static func json(_ text: String, bytesMax: Int) -> [UInt8] {
        let quote = [UInt8(ascii: "\"")]
        return quote + limited(text, bytesMax: bytesMax - 2, escape: jsonEscape) + quote
    }

    private static func quotedBytes(_ text: String, bytesMax: Int) -> [UInt8] {
        let quote = [UInt8(ascii: "\"")]
        return quote + limited(text, bytesMax: bytesMax - 2) { swiftEscape($0, isQuoted: true) } + quote
    }

    /// Escaped scalar by scalar as far as it fits: never more than `bytesMax` bytes, never a part of an escape.
    private static func limited(_ text: String, bytesMax: Int, escape: (Unicode.Scalar) -> [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        // Where to cut if the rest does not fit.
        var cut = 0
        for scalar in text.unicodeScalars {
            bytes += escape(scalar)
            guard bytes.count <= bytesMax else { return bytes[..<cut] + ellipsis }
            if bytes.count <= bytesMax - ellipsis.count { cut = bytes.count }
        }
        return bytes
    }

    /// Printable ASCII without blank, `"`, `=` and `\`.
    private static func isWord(_ octet: UInt8) -> Bool {
        switch octet {
        case UInt8(ascii: "\""), UInt8(ascii: "="), UInt8(ascii: "\\"): false
        default: 0x21...0x7E ~= octet
        }
    }

    /// Whether a scalar can end a line, act on a terminal, or show nothing or something else than it is.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: true
        default: false
        }
    }

    private static func swiftEscape(_ scalar: Unicode.Scalar, isQuoted: Bool) -> [UInt8] {
        switch scalar {
        case "\\": Array(#"\\"#.utf8)
        case "\"" where isQuoted: Array(#"\""#.utf8)
        case "\n": Array(#"\n"#.utf8)
        case "\r": Array(#"\r"#.utf8)
        case "\t": Array(#"\t"#.utf8)
        case _ where isControl(scalar): Array(#"\u{\#(String(scalar.value, radix: 16, uppercase: true))}"#.utf8)
        default: Array(scalar.utf8)
        }
    }

    private static func jsonEscape(_ scalar: Unicode.Scalar) -> [UInt8] {
        switch scalar {
        case "\\": Array(#"\\"#.utf8)
        case "\"": Array(#"\""#.utf8)
        case "\n": Array(#"\n"#.utf8)
        case "\r": Array(#"\r"#.utf8)
        case "\t": Array(#"\t"#.utf8)
        case _ where isControl(scalar): scalar.utf16.flatMap { Array(#"\u\#(hexadecimal($0))"#.utf8) }
        default: Array(scalar.utf8)
        }
    }

    private static func hexadecimal(_ unit: UInt16) -> String {
        let digits = String(unit, radix: 16, uppercase: true)
        return String(repeating: "0", count: 4 - digits.count) + digits
    }

    // MARK: - Time

    /// `2026-11-24T14:42:03.123Z` (RFC 3339) for nanoseconds since 1970.
    package static func utc(nanoseconds: UInt64) -> String {
        let seconds = nanoseconds / 1_000_000_000
        let (year, month, day) = date(daysSince1970: Int(seconds / 86_400))
        let time = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60].map { padded(Int($0), 2) }
        let milliseconds = padded(Int(nanoseconds / 1_000_000 % 1000), 3)
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
            + "T\(time.joined(separator: ":")).\(milliseconds)Z"
    }

    /// The Gregorian date of a day: years begin in March here, so that the leap day is a year's last, and come in
    /// eras of 400 years, which are 146,097 days each.
    package static func date(daysSince1970: Int) -> (year: Int, month: Int, day: Int) {
        let days = daysSince1970 + 719_468  // since 0000-03-01
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = days / 146_097 * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        return (year, month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
    }

    private static func padded(_ number: Int, _ digits: Int) -> String {
        let text = "\(number)"
        return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
    }
}
