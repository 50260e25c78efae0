// Base64 (RFC 4648), strict: one text for one byte string. What comes in it, signatures, claims and public keys, holds no secret of
// the relay's: reading it need not take the same time whatever it says, as libsodium's does at several times the price.

import Shared

/// Base64's alphabets (RFC 4648, 4 and 5).
enum Base64Variant {
    /// With padding.
    case original
    /// "-" and "_", without padding: JWT's (RFC 7515, 2).
    case urlWithoutPadding

    /// What a character's entry in `base64Values` must not hold.
    fileprivate var foreign: UInt8 {
        switch self {
        case .original: 0x80
        case .urlWithoutPadding: 0x40
        }
    }
}

/// The six bits of each ASCII character. Of "+" and "/" also 0x40, of "-" and "_" 0x80, of what is in no alphabet both.
private let base64Values: [UInt8] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7E, 0xFF, 0xBE, 0xFF, 0x7F,
    0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E,
    0x0F, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0xFF, 0xFF, 0xFF, 0xFF, 0xBF,
    0xFF, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x2F, 0x30, 0x31, 0x32, 0x33, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
]

/// Strict: no line feeds, no stray bits, padding exactly as the variant has it.
func decodeBase64(_ text: ArraySlice<UInt8>, variant: Base64Variant) -> [UInt8]? {
    let characters = withoutPadding(text.span, variant)
    // 2, 3 or no characters are left over from groups of four; one would be six bits of a byte.
    guard let characters, characters % 4 != 1 else { return nil }
    var isBase64 = true
    let decoded = [UInt8](capacity: characters / 4 * 3 + 2) { output in
        isBase64 = decode(text.span.extracting(0..<characters), variant.foreign, into: &output)
    }
    return isBase64 ? decoded : nil
}

/// How many characters stand before the padding; nil if that is not the one that the variant has.
private func withoutPadding(_ text: Span<UInt8>, _ variant: Base64Variant) -> Int? {
    guard variant == .original else { return text.count }
    guard text.count.isMultiple(of: 4) else { return nil }
    var count = text.count
    while count > text.count - 2, count > 0, text[count - 1] == Octet.equals { count -= 1 }
    return count
}

/// False for a character of no or another alphabet, and for bits behind the last byte. In groups of four characters: appending
/// byte by byte as bits come takes twice as long.
private func decode(_ text: Span<UInt8>, _ foreign: UInt8, into output: inout OutputSpan<UInt8>) -> Bool {
    var index = 0
    while text.count - index >= 4 {
        guard let bits = bits(text.extracting(index..<index + 4), foreign) else { return false }
        output.append(UInt8(truncatingIfNeeded: bits >> 16))
        output.append(UInt8(truncatingIfNeeded: bits >> 8))
        output.append(UInt8(truncatingIfNeeded: bits))
        index += 4
    }
    guard index < text.count else { return true }
    return decodeRest(text.extracting(index..<text.count), foreign, into: &output)
}

/// Two characters, which hold a byte and four bits that must be 0, or three: two bytes and two bits.
private func decodeRest(_ text: Span<UInt8>, _ foreign: UInt8, into output: inout OutputSpan<UInt8>) -> Bool {
    guard let bits = bits(text, foreign) else { return false }
    if text.count == 2 {
        output.append(UInt8(truncatingIfNeeded: bits >> 4))
        return bits & 0xF == 0
    }
    output.append(UInt8(truncatingIfNeeded: bits >> 10))
    output.append(UInt8(truncatingIfNeeded: bits >> 2))
    return bits & 0x3 == 0
}

/// The bits of up to four characters; nil if one is in no or another alphabet.
@inline(__always)
private func bits(_ text: Span<UInt8>, _ foreign: UInt8) -> UInt32? {
    let values = base64Values.span
    var bits: UInt32 = 0
    var (characters, seen): (UInt8, UInt8) = (0, 0)
    for index in text.indices {
        let value = values[Int(text[index] & 0x7F)]
        characters |= text[index]
        seen |= value
        bits = bits << 6 | UInt32(value & 0x3F)
    }
    return characters < 0x80 && seen & foreign == 0 ? bits : nil
}

/// With padding.
func encodeBase64(_ bytes: [UInt8]) -> [UInt8] {
    [UInt8](capacity: (bytes.count + 2) / 3 * 4) { output in
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let count = min(3, bytes.count - start)
            var bits: UInt32 = 0
            for place in 0..<3 { bits = bits << 8 | (place < count ? UInt32(bytes[start + place]) : 0) }
            for place in 0..<4 {
                let value = UInt8(truncatingIfNeeded: bits >> (18 - 6 * place)) & 0x3F
                output.append(place <= count ? base64Character(value) : Octet.equals)
            }
        }
    }
}

/// The character of six bits.
private func base64Character(_ value: UInt8) -> UInt8 {
    switch value {
    case 0..<26: UInt8(ascii: "A") + value
    case 26..<52: UInt8(ascii: "a") + (value - 26)
    case 52..<62: Octet.zero + (value - 52)
    case 62: Octet.plus
    default: Octet.slash
    }
}
