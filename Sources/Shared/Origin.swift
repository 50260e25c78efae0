// Where a web page comes from (RFC 6454, 7.1), as browsers send it and operators list it. It is read into one spelling,
// so that two origins are the same exactly if they are equal.

/// Where a web page comes from, as its browser says: "https://chat.example".
package struct Origin: Hashable, Sendable, CustomStringConvertible {
    /// In lower case.
    private let scheme: String
    /// Without the port that is the scheme's own: browsers leave it out.
    private let authority: HostAndPort

    /// scheme "://" host [ ":" port ]. "null", the origin of a page that has none, is nil as well.
    package init?(utf8 bytes: Span<UInt8>) {
        guard bytes.count <= Limits.originBytesMax else { return nil }
        let colon = bytes.firstIndex(of: Octet.colon, in: bytes.indices)
        guard colon > 0, bytes.count - colon > 3, bytes[colon + 1] == Octet.slash, bytes[colon + 2] == Octet.slash,
            let scheme = Self.scheme(bytes.extracting(0..<colon)),
            let authority = HostAndPort(utf8: bytes.extracting((colon + 3)..<bytes.count))
        else { return nil }
        self.scheme = scheme
        self.authority = authority.withoutPort(Self.port(of: scheme))
    }

    package init?(_ text: some StringProtocol) {
        self.init(utf8: Array(text.utf8).span)
    }

    package var description: String { "\(scheme)://\(authority)" }

    /// RFC 3986, 3.1.
    private static func scheme(_ bytes: Span<UInt8>) -> String? {
        var scheme: [UInt8] = []
        for index in bytes.indices {
            let octet = lowercased(bytes[index])
            switch octet {
            case UInt8(ascii: "a")...UInt8(ascii: "z"): break
            case Octet.zero...Octet.nine, Octet.plus, Octet.minus, Octet.dot: guard index > 0 else { return nil }
            default: return nil
            }
            scheme.append(octet)
        }
        return String(decoding: scheme, as: UTF8.self)
    }

    private static func port(of scheme: String) -> Int? {
        switch scheme {
        case "http", "ws": 80
        case "https", "wss": 443
        default: nil
        }
    }
}
