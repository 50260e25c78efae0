// Text encodings and digests that HTTP, WebSocket and tokens need.

import COpenSSL
import CSodium

enum Encoding {
    /// base64url without padding (RFC 4648, section 5).
    static func base64URL(_ bytes: [UInt8]) -> String {
        base64(bytes, alphabet: sodium_base64_VARIANT_URLSAFE_NO_PADDING)
    }

    /// base64 with padding (RFC 4648, section 4).
    static func base64(_ bytes: [UInt8]) -> String {
        base64(bytes, alphabet: sodium_base64_VARIANT_ORIGINAL)
    }

    private static func base64(_ bytes: [UInt8], alphabet: Int32) -> String {
        var text = [CChar](repeating: 0, count: sodium_base64_encoded_len(bytes.count, alphabet))
        _ = unsafe sodium_bin2base64(&text, text.count, bytes, bytes.count, alphabet)
        return String(decoding: text.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static func randomBytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        unsafe bytes.withUnsafeMutableBytes { raw in
            if let base = raw.baseAddress { unsafe randombytes_buf(base, raw.count) }
        }
        return bytes
    }

    /// Lower-case hexadecimal.
    static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        let text = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return String(decoding: text, as: UTF8.self)
    }

    static func sha1(_ bytes: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: Int(SHA_DIGEST_LENGTH))
        _ = unsafe SHA1(bytes, bytes.count, &digest)
        return digest
    }

    /// Percent-encodes all but the unreserved characters (RFC 3986, section 2.3).
    static func percent(_ text: String) -> String {
        var encoded = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                encoded += "%" + hex([byte]).uppercased()
            }
        }
        return encoded
    }

    /// A JSON string with its quotes (RFC 8259, section 7).
    static func json(_ text: String) -> String {
        var encoded = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\":
                encoded += "\\"
                encoded.unicodeScalars.append(scalar)
            case "\u{0}"..."\u{1f}":
                encoded += "\\u00" + hex([UInt8(scalar.value)])
            default:
                encoded.unicodeScalars.append(scalar)
            }
        }
        return encoded + "\""
    }
}
