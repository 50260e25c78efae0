// JSON (RFC 8259), as far as a relay needs it: the top-level members of one object, found without building a tree.
//
// A client may send a megabyte of anything as its first message, so reading takes no recursion, time in proportion to
// the bytes, and no memory but a byte per nesting level. Claims are checked whole: what is cut off or followed by
// something is no object. Of a long message only the beginning is read, and counts for what it has.
//
// Of members with the same name the last counts, `null` is as good as absent, names match exactly, and an escaped
// half of a surrogate pair reads as U+FFFD: as the first relay did, but for the exact names.

import Shared

/// Nesting levels, as many as the first relay took. Only time hangs on it, not the stack.
private let depthMax = 10_000

/// The value of a member.
enum JSONValue: Equatable {
    /// Where a string's characters lie, between its quotes and still escaped.
    case string(Range<Int>)
    /// Where a number lies.
    case number(Range<Int>)
    /// `true`, `false`, an array or an object.
    case other
}

/// The values of an object's members with these names, nil where there is none. nil altogether if the bytes are not
/// exactly one JSON object.
func readJSONMembers(_ bytes: Span<UInt8>, _ names: StaticString...) -> [JSONValue?]? {
    // The quick way out for what is no object: most data messages of other programs.
    var reader = JSONReader()
    reader.skipWhitespace(bytes)
    guard reader.take(Octet.braceOpen, bytes) else { return nil }
    // RFC 8259, 8.1: JSON is UTF-8.
    guard isUTF8(bytes) else { return nil }
    return reader.readMembers(bytes, names, isWhole: true)
}

/// The value of the member with this name that ends within the first bytes of a text, whatever follows; the last one if
/// there are several. nil if there is none, or if the bytes do not begin like an object.
///
/// - Parameter bytes: the beginning of a text, cut anywhere. Nothing says that they are UTF-8.
func readJSONMember(inBeginning bytes: Span<UInt8>, _ name: StaticString) -> JSONValue? {
    var reader = JSONReader()
    reader.skipWhitespace(bytes)
    guard reader.take(Octet.braceOpen, bytes) else { return nil }
    return reader.readMembers(bytes, [name], isWhole: false)?[0]
}

/// The characters of a string whose place `readJSONMembers` found, as UTF-8.
func unescapeJSON(_ bytes: Span<UInt8>, _ range: Range<Int>) -> [UInt8] {
    // Most texts have no escape.
    guard bytes.contains(Octet.backslash, in: range) else { return [UInt8](copying: bytes.extracting(range)) }
    var text: [UInt8] = []
    var index = range.lowerBound
    while index < range.upperBound {
        guard bytes[index] == Octet.backslash else {
            text.append(bytes[index])
            index += 1
            continue
        }
        let escaped = bytes[index + 1]
        index += 2
        guard escaped == UInt8(ascii: "u") else {
            text.append(unescapedOctet(escaped))
            continue
        }
        var unit = UInt32(codeUnit(bytes, index))
        index += 4
        // RFC 8259, 7: beyond U+FFFF as a pair of surrogates.
        if (0xD800...0xDBFF).contains(unit), index + 6 <= range.upperBound, bytes[index] == Octet.backslash,
            bytes[index + 1] == UInt8(ascii: "u")
        {
            let low = UInt32(codeUnit(bytes, index + 2))
            if (0xDC00...0xDFFF).contains(low) {
                unit = 0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00)
                index += 6
            }
        }
        // Half a pair is no scalar.
        let scalar = Unicode.Scalar(unit) ?? "\u{FFFD}"
        text.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
    }
    return text
}

/// Whether a text of ASCII, escaped or not, stands in a place that a reader found. Nothing is copied: a message may
/// have a name in every sixth byte.
func isJSONText(_ bytes: Span<UInt8>, _ range: Range<Int>, _ text: StaticString) -> Bool {
    let count = text.utf8CodeUnitCount
    if range.count == count { return bytes.extracting(range).equals(text) }
    // An escape takes 6 characters for one at most.
    guard (count...6 * count).contains(range.count) else { return false }
    // A static text of ASCII has so many bytes there.
    let wanted = unsafe UnsafeBufferPointer(start: text.utf8Start, count: count).span
    var index = range.lowerBound
    for place in wanted.indices {
        guard index < range.upperBound else { return false }
        var octet = bytes[index]
        index += 1
        if octet == Octet.backslash {
            let escaped = bytes[index]
            index += 1
            if escaped == UInt8(ascii: "u") {
                guard let unit = UInt8(exactly: codeUnit(bytes, index)), unit < 0x80 else { return false }
                octet = unit
                index += 4
            } else {
                octet = unescapedOctet(escaped)
            }
        }
        guard octet == wanted[place] else { return false }
    }
    return index == range.upperBound
}

/// The integer at a number's place; nil if it has a fraction or an exponent, or is beyond 64 bits.
func readJSONInteger(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Int64? {
    let isNegative = bytes[range.lowerBound] == Octet.minus
    var value: Int64 = 0
    for index in (isNegative ? range.lowerBound + 1 : range.lowerBound)..<range.upperBound {
        guard isDigit(bytes[index]) else { return nil }
        // Below zero until its sign is known to fit: there is one number more there.
        let (tens, isOver) = value.multipliedReportingOverflow(by: 10)
        let (difference, isBeyond) = tens.subtractingReportingOverflow(Int64(bytes[index] - Octet.zero))
        guard !isOver, !isBeyond else { return nil }
        value = difference
    }
    if isNegative { return value }
    return value == .min ? nil : -value
}

private func unescapedOctet(_ escaped: UInt8) -> UInt8 {
    switch escaped {
    case UInt8(ascii: "b"): 0x08
    case UInt8(ascii: "f"): 0x0C
    case UInt8(ascii: "n"): Octet.lineFeed
    case UInt8(ascii: "r"): Octet.carriageReturn
    case UInt8(ascii: "t"): Octet.tab
    default: escaped
    }
}

/// Four hexadecimal digits, which the reader has checked.
private func codeUnit(_ bytes: Span<UInt8>, _ index: Int) -> UInt16 {
    (index..<index + 4).reduce(0) { $0 << 4 | UInt16(hexValue(bytes[$1]) ?? 0) }
}

/// A place in a text, which moves forward over what it reads. Every method leaves it behind what it took, and says with
/// false or nil that the text is no JSON; the place means nothing then.
private struct JSONReader {
    private var index = 0

    /// The members of the object whose brace has just been taken.
    ///
    /// - Parameter isWhole: whether nothing but whitespace may follow the object; if not, the members up to where the
    ///   bytes end, or are no JSON any more, count.
    mutating func readMembers(_ bytes: Span<UInt8>, _ names: [StaticString], isWhole: Bool) -> [JSONValue?]? {
        var values = [JSONValue?](repeating: nil, count: names.count)
        skipWhitespace(bytes)
        if !take(Octet.braceClose, bytes) {
            repeat {
                skipWhitespace(bytes)
                guard let name = readName(bytes) else { return isWhole ? nil : values }
                let start = index
                guard let value = readValue(bytes) else { return isWhole ? nil : values }
                if bytes[start] != UInt8(ascii: "n"), let place = match(bytes, name, names) { values[place] = value }
                skipWhitespace(bytes)
            } while take(Octet.comma, bytes)
            guard take(Octet.braceClose, bytes) else { return isWhole ? nil : values }
        }
        skipWhitespace(bytes)
        return index == bytes.count || !isWhole ? values : nil
    }

    /// Which of the names stands at a place, escaped or not.
    private func match(_ bytes: Span<UInt8>, _ range: Range<Int>, _ names: [StaticString]) -> Int? {
        names.firstIndex { isJSONText(bytes, range, $0) }
    }

    mutating func skipWhitespace(_ bytes: Span<UInt8>) {
        while index < bytes.count {
            switch bytes[index] {
            case Octet.space, Octet.tab, Octet.lineFeed, Octet.carriageReturn: index += 1
            default: return
            }
        }
    }

    /// Takes an octet if it is the next.
    mutating func take(_ octet: UInt8, _ bytes: Span<UInt8>) -> Bool {
        guard index < bytes.count, bytes[index] == octet else { return false }
        index += 1
        return true
    }

    /// A member's name and its colon, and whitespace up to the value.
    private mutating func readName(_ bytes: Span<UInt8>) -> Range<Int>? {
        guard let name = readString(bytes) else { return nil }
        skipWhitespace(bytes)
        guard take(Octet.colon, bytes) else { return nil }
        skipWhitespace(bytes)
        return name
    }

    private mutating func readValue(_ bytes: Span<UInt8>) -> JSONValue? {
        guard index < bytes.count else { return nil }
        switch bytes[index] {
        case Octet.braceOpen, Octet.bracketOpen: return skipContainer(bytes) ? .other : nil
        default: return readScalar(bytes)
        }
    }

    private mutating func readScalar(_ bytes: Span<UInt8>) -> JSONValue? {
        guard index < bytes.count else { return nil }
        switch bytes[index] {
        case Octet.quote: return readString(bytes).map { .string($0) }
        case UInt8(ascii: "t"): return takeWord("true", bytes) ? .other : nil
        case UInt8(ascii: "f"): return takeWord("false", bytes) ? .other : nil
        case UInt8(ascii: "n"): return takeWord("null", bytes) ? .other : nil
        default: return readNumber(bytes).map { .number($0) }
        }
    }

    private mutating func takeWord(_ word: String, _ bytes: Span<UInt8>) -> Bool {
        for octet in word.utf8 {
            guard take(octet, bytes) else { return false }
        }
        return true
    }

    /// An array or object, with whatever is in it.
    private mutating func skipContainer(_ bytes: Span<UInt8>) -> Bool {
        // What closes the containers that are open, the outermost first. The object around them all is not among them.
        var closers: [UInt8] = []
        while true {
            // Here a value begins.
            if let closer = closer(bytes) {
                index += 1
                closers.append(closer)
                guard closers.count < depthMax else { return false }
                skipWhitespace(bytes)
                if !take(closer, bytes) {
                    if closer == Octet.braceClose, readName(bytes) == nil { return false }
                    continue
                }
                closers.removeLast()
            } else if readScalar(bytes) == nil {
                return false
            }
            // Here one has ended: so may those around it.
            while let closer = closers.last {
                skipWhitespace(bytes)
                if take(closer, bytes) {
                    closers.removeLast()
                    continue
                }
                guard take(Octet.comma, bytes) else { return false }
                skipWhitespace(bytes)
                if closer == Octet.braceClose, readName(bytes) == nil { return false }
                break
            }
            if closers.isEmpty { return true }
        }
    }

    /// What closes the container that opens here, nil if none does.
    private func closer(_ bytes: Span<UInt8>) -> UInt8? {
        guard index < bytes.count else { return nil }
        switch bytes[index] {
        case Octet.braceOpen: return Octet.braceClose
        case Octet.bracketOpen: return Octet.bracketClose
        default: return nil
        }
    }

    /// RFC 8259, 7; the range between the quotes.
    private mutating func readString(_ bytes: Span<UInt8>) -> Range<Int>? {
        guard take(Octet.quote, bytes) else { return nil }
        let start = index
        while index < bytes.count {
            switch bytes[index] {
            case Octet.quote:
                index += 1
                return start..<index - 1
            case Octet.backslash:
                index += 1
                guard takeEscape(bytes) else { return nil }
            case 0...0x1F:
                return nil
            default:
                index += 1
            }
        }
        return nil
    }

    /// What stands behind a backslash.
    private mutating func takeEscape(_ bytes: Span<UInt8>) -> Bool {
        guard index < bytes.count else { return false }
        let octet = bytes[index]
        index += 1
        guard octet == UInt8(ascii: "u") else { return "\"\\/bfnrt".utf8.contains(octet) }
        for _ in 0..<4 {
            guard index < bytes.count, hexValue(bytes[index]) != nil else { return false }
            index += 1
        }
        return true
    }

    /// RFC 8259, 6.
    private mutating func readNumber(_ bytes: Span<UInt8>) -> Range<Int>? {
        let start = index
        _ = take(Octet.minus, bytes)
        // No digit follows a leading zero.
        guard take(Octet.zero, bytes) || takeDigits(bytes) else { return nil }
        if take(Octet.dot, bytes) {
            guard takeDigits(bytes) else { return nil }
        }
        if take(UInt8(ascii: "e"), bytes) || take(UInt8(ascii: "E"), bytes) {
            _ = take(Octet.plus, bytes) || take(Octet.minus, bytes)
            guard takeDigits(bytes) else { return nil }
        }
        return start..<index
    }

    /// One digit at least.
    private mutating func takeDigits(_ bytes: Span<UInt8>) -> Bool {
        let start = index
        while index < bytes.count, isDigit(bytes[index]) { index += 1 }
        return index > start
    }
}

/// Whether bytes are UTF-8 (RFC 3629).
func isUTF8(_ bytes: Span<UInt8>) -> Bool {
    do {
        _ = try UTF8Span(validating: bytes)
        return true
    } catch {
        return false
    }
}
