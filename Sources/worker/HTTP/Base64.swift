// Base64 (RFC 4648) by libsodium, strict: one text for one byte string.

import CSodium

/// Base64's alphabets (RFC 4648, 4 and 5).
enum Base64Variant {
    /// With padding.
    case original
    /// "-" and "_", without padding: JWT's (RFC 7515, 2).
    case urlWithoutPadding

    fileprivate var code: Int32 {
        switch self {
        case .original: sodium_base64_VARIANT_ORIGINAL
        case .urlWithoutPadding: sodium_base64_VARIANT_URLSAFE_NO_PADDING
        }
    }
}

/// No line feeds, no stray bits, padding exactly as the variant has it.
func decodeBase64(_ text: ArraySlice<UInt8>, variant: Base64Variant) -> [UInt8]? {
    // libsodium (1.0.18, seen where `char` is signed) takes any octet from 0x80 for the alphabet's last character.
    let span = text.span
    for index in span.indices where span[index] >= 0x80 { return nil }
    var isBase64 = true
    let decoded = unsafe [UInt8](unsafeUninitializedCapacity: text.count / 4 * 3 + 3) { decoded, count in
        guard let start = decoded.baseAddress else { return }
        isBase64 = unsafe text.withUnsafeBytes { characters in
            // Reads characters.count bytes, writes decoded.count at most, and says how many. nil: nothing to skip, and all
            // must be base64.
            unsafe sodium_base642bin(
                start, decoded.count, characters.baseAddress?.assumingMemoryBound(to: CChar.self),
                characters.count, nil, &count, nil, variant.code) == 0
        }
    }
    return isBase64 ? decoded : nil
}

/// With padding.
func encodeBase64(_ bytes: [UInt8]) -> [UInt8] {
    let characters = (bytes.count + 2) / 3 * 4
    return unsafe [UInt8](unsafeUninitializedCapacity: characters + 1) { output, count in
        guard let start = UnsafeMutableRawPointer(output.baseAddress) else { return }
        // Reads bytes.count bytes, writes the characters and a NUL.
        _ = unsafe sodium_bin2base64(
            start.assumingMemoryBound(to: CChar.self), output.count, bytes, bytes.count, Base64Variant.original.code)
        count = characters
    }
}
