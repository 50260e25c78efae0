// The small pieces of HTTP's and URI's grammar: octets, tokens, lists, percent-encoding.

/// Octets that the grammars name. Inlinable, because the worker compares every byte of a client's first message with some.
@usableFromInline
package enum Octet {
    @inlinable package static var tab: UInt8 { UInt8(ascii: "\t") }
    @inlinable package static var lineFeed: UInt8 { UInt8(ascii: "\n") }
    @inlinable package static var carriageReturn: UInt8 { UInt8(ascii: "\r") }
    @inlinable package static var space: UInt8 { UInt8(ascii: " ") }
    @inlinable package static var quote: UInt8 { UInt8(ascii: "\"") }
    @inlinable package static var hash: UInt8 { UInt8(ascii: "#") }
    @inlinable package static var percent: UInt8 { UInt8(ascii: "%") }
    @inlinable package static var ampersand: UInt8 { UInt8(ascii: "&") }
    @inlinable package static var plus: UInt8 { UInt8(ascii: "+") }
    @inlinable package static var comma: UInt8 { UInt8(ascii: ",") }
    @inlinable package static var minus: UInt8 { UInt8(ascii: "-") }
    @inlinable package static var dot: UInt8 { UInt8(ascii: ".") }
    @inlinable package static var slash: UInt8 { UInt8(ascii: "/") }
    @inlinable package static var zero: UInt8 { UInt8(ascii: "0") }
    @inlinable package static var nine: UInt8 { UInt8(ascii: "9") }
    @inlinable package static var colon: UInt8 { UInt8(ascii: ":") }
    @inlinable package static var equals: UInt8 { UInt8(ascii: "=") }
    @inlinable package static var questionMark: UInt8 { UInt8(ascii: "?") }
    @inlinable package static var bracketOpen: UInt8 { UInt8(ascii: "[") }
    @inlinable package static var bracketClose: UInt8 { UInt8(ascii: "]") }
    @inlinable package static var backslash: UInt8 { UInt8(ascii: "\\") }
    @inlinable package static var braceOpen: UInt8 { UInt8(ascii: "{") }
    @inlinable package static var braceClose: UInt8 { UInt8(ascii: "}") }
}

@inlinable
package func isDigit(_ octet: UInt8) -> Bool {
    octet >= Octet.zero && octet <= Octet.nine
}

private func isLetterOrDigit(_ octet: UInt8) -> Bool {
    switch octet {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), Octet.zero...Octet.nine: true
    default: false
    }
}

/// RFC 9110, 5.6.2.
func isToken(_ text: Span<UInt8>) -> Bool {
    for index in text.indices where !isTokenCharacter(text[index]) { return false }
    return !text.isEmpty
}

private func isTokenCharacter(_ octet: UInt8) -> Bool {
    if isLetterOrDigit(octet) { return true }
    switch octet {
    case UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"), UInt8(ascii: "%"), UInt8(ascii: "&"),
        UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
        return true
    default:
        return false
    }
}

/// uri-host [ ":" port ] (RFC 9110, 7.2) by its characters: names and addresses are nobody's business here, but what
/// no URI may hold is refused. May be empty.
func isHost(_ text: Span<UInt8>) -> Bool {
    for index in text.indices where !isHostCharacter(text[index]) { return false }
    return true
}

private func isHostCharacter(_ octet: UInt8) -> Bool {
    if isLetterOrDigit(octet) { return true }
    switch octet {
    case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: "!"),
        UInt8(ascii: "$"), UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "("), UInt8(ascii: ")"),
        UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "="),
        UInt8(ascii: "%"), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"):
        return true
    default:
        return false
    }
}

/// A range without blanks (OWS, RFC 9110, 5.6.3) at either end.
func trimBlanks(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Range<Int> {
    func isBlank(_ octet: UInt8) -> Bool { octet == Octet.space || octet == Octet.tab }
    var (start, end) = (range.lowerBound, range.upperBound)
    while start < end, isBlank(bytes[start]) { start += 1 }
    while start < end, isBlank(bytes[end - 1]) { end -= 1 }
    return start..<end
}

/// An ASCII letter in lower case, as names and tokens are compared; any other octet as it is.
func lowercased(_ octet: UInt8) -> UInt8 {
    octet >= UInt8(ascii: "A") && octet <= UInt8(ascii: "Z") ? octet | 0x20 : octet
}

/// The members of a list field's line, one by one, without the empty ones (RFC 9110, 5.6.1.2).
struct ListMembers {
    private var rest: Range<Int>

    init(_ line: Range<Int>) {
        rest = line
    }

    /// Where the next member stands, without blanks around it; nil behind the last.
    mutating func next(_ bytes: Span<UInt8>) -> Range<Int>? {
        while !rest.isEmpty {
            let comma = bytes.firstIndex(of: Octet.comma, in: rest)
            let member = trimBlanks(bytes, rest.lowerBound..<comma)
            rest = min(comma + 1, rest.upperBound)..<rest.upperBound
            if !member.isEmpty { return member }
        }
        return nil
    }
}

/// Whether each "%" is followed by two hexadecimal digits (RFC 3986, 2.1).
func isPercentEncoded(_ text: Span<UInt8>) -> Bool {
    var index = text.firstIndex(of: Octet.percent, in: text.indices)
    while index < text.count {
        guard text.count - index > 2, hexValue(text[index + 1]) != nil, hexValue(text[index + 2]) != nil else {
            return false
        }
        index = text.firstIndex(of: Octet.percent, in: (index + 3)..<text.count)
    }
    return true
}

/// RFC 3986, 2.1; nil if a "%" is not followed by two hexadecimal digits.
package func decodePercent(_ text: Span<UInt8>, plusIsSpace: Bool) -> [UInt8]? {
    // Most texts have nothing to decode.
    guard text.contains(Octet.percent) || (plusIsSpace && text.contains(Octet.plus)) else {
        return [UInt8](copying: text)
    }
    var decoded: [UInt8] = []
    decoded.reserveCapacity(text.count)
    var index = 0
    while index < text.count {
        switch text[index] {
        case Octet.percent:
            guard text.count - index > 2, let high = hexValue(text[index + 1]), let low = hexValue(text[index + 2])
            else { return nil }
            decoded.append(high << 4 | low)
            index += 3
        case Octet.plus where plusIsSpace:
            decoded.append(Octet.space)
            index += 1
        case let octet:
            decoded.append(octet)
            index += 1
        }
    }
    return decoded
}

@inlinable
package func hexValue(_ octet: UInt8) -> UInt8? {
    switch octet {
    case Octet.zero...Octet.nine: octet - Octet.zero
    case UInt8(ascii: "a")...UInt8(ascii: "f"): octet - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): octet - UInt8(ascii: "A") + 10
    default: nil
    }
}
