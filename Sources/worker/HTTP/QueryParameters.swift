// The query of `/ws`, and the form of what it carries.

import Shared

/// The parameters of a query in application/x-www-form-urlencoded.
struct QueryParameters {
    private var pairs: [(name: [UInt8], value: [UInt8])] = []

    /// A pair with a malformed escape counts as absent. A ";" separates nothing.
    init(_ raw: [UInt8]) {
        for pair in raw.split(separator: Octet.ampersand) {
            let name = pair.prefix { $0 != Octet.equals }
            let value = pair[name.endIndex...].dropFirst()
            if let name = decodePercent(name, plusIsSpace: true), let value = decodePercent(value, plusIsSpace: true) {
                pairs.append((name, value))
            }
        }
    }

    /// The value of a parameter, of a repeated one the first.
    func first(_ name: StaticString) -> [UInt8]? {
        let octets = Array(name.description.utf8)
        return pairs.first { $0.name == octets }?.value
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
