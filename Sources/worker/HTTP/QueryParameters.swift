// The query of `/ws`, and the form of what it carries.

import Shared

/// The parameters of a query in application/x-www-form-urlencoded. They are looked for where they are asked for: there are
/// three at most that anybody asks for, and only one's value is long.
struct QueryParameters {
    private let raw: [UInt8]

    init(_ raw: [UInt8]) {
        self.raw = raw
    }

    /// The value of a parameter, of a repeated one the first. A pair with a malformed escape counts as absent. A ";" separates
    /// nothing.
    func first(_ name: StaticString) -> [UInt8]? {
        let query = raw.span
        var start = 0
        while start < query.count {
            let end = query.firstIndex(of: Octet.ampersand, in: start..<query.count)
            if let value = Self.value(of: name, in: query.extracting(start..<end)) { return value }
            start = end + 1
        }
        return nil
    }

    /// The value of a pair, if it has this name.
    private static func value(of name: StaticString, in pair: Span<UInt8>) -> [UInt8]? {
        let end = pair.firstIndex(of: Octet.equals, in: pair.indices)
        guard isName(pair.extracting(0..<end), name) else { return nil }
        return decodePercent(pair.extracting(min(end + 1, pair.count)..<pair.count), plusIsSpace: true)
    }

    /// Names may be escaped as well, but hardly ever are.
    private static func isName(_ text: Span<UInt8>, _ name: StaticString) -> Bool {
        guard text.contains(Octet.percent) else { return text.equals(name) }
        guard let decoded = decodePercent(text, plusIsSpace: true) else { return false }
        return decoded.span.equals(name)
    }
}

/// 1 to 256 bytes of UTF-8 without control characters: C0, DEL and, in UTF-8 C2 80 to C2 9F, C1.
func isValidRoomID(_ bytes: [UInt8]) -> Bool {
    guard (1...Limits.roomIDBytesMax).contains(bytes.count), isUTF8(bytes.span) else { return false }
    return bytes.indices.allSatisfy { index in
        switch bytes[index] {
        case 0...0x1F, 0x7F: false
        case 0x80...0x9F: bytes[index - 1] != 0xC2
        default: true
        }
    }
}

/// An Ed25519 public key, 32 bytes, in base64url without padding; nil for anything else.
func decodePublicKey(_ text: [UInt8]) -> [UInt8]? {
    // 43 characters hold 32 bytes: no need to decode a longer one.
    guard text.count == 43, let key = decodeBase64(text[...], variant: .urlWithoutPadding) else { return nil }
    return key.count == Limits.publicKeyBytes ? key : nil
}
