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
package func isToken(_ text: ArraySlice<UInt8>) -> Bool {
    !text.isEmpty && text.allSatisfy { isLetterOrDigit($0) || "!#$%&'*+-.^_`|~".utf8.contains($0) }
}

/// uri-host [ ":" port ] (RFC 9110, 7.2) by its characters: names and addresses are nobody's business here, but what
/// no URI may hold is refused. May be empty.
package func isHost(_ text: ArraySlice<UInt8>) -> Bool {
    text.allSatisfy { isLetterOrDigit($0) || "-._~!$&'()*+,;=%:[]".utf8.contains($0) }
}

/// Without blanks (OWS, RFC 9110, 5.6.3) at either end.
package func trimBlanks(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    func isBlank(_ octet: UInt8) -> Bool { octet == Octet.space || octet == Octet.tab }
    var rest = text.drop { isBlank($0) }
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    return rest
}

/// ASCII letters in lower case, as names and tokens are compared.
package func lowercase(_ text: ArraySlice<UInt8>) -> String {
    String(decoding: text.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
}

/// The members of a list field, given by its lines, without the empty ones (RFC 9110, 5.6.1.2).
package func listMembers(_ lines: [ArraySlice<UInt8>]) -> [ArraySlice<UInt8>] {
    lines.flatMap { $0.split(separator: Octet.comma) }.map { trimBlanks($0) }.filter { !$0.isEmpty }
}

/// Whether a list of tokens holds one, given in lower case.
package func listContains(_ lines: [ArraySlice<UInt8>], _ token: String) -> Bool {
    listMembers(lines).contains { lowercase($0) == token }
}

/// RFC 3986, 2.1; nil if a "%" is not followed by two hexadecimal digits.
package func decodePercent(_ text: ArraySlice<UInt8>, plusIsSpace: Bool) -> [UInt8]? {
    var decoded: [UInt8] = []
    decoded.reserveCapacity(text.count)
    var index = text.startIndex
    while index < text.endIndex {
        switch text[index] {
        case Octet.percent:
            guard text.endIndex - index > 2, let high = hexValue(text[index + 1]), let low = hexValue(text[index + 2])
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
