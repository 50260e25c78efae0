// Keys from traffic secrets (RFC 8446, 7.1 to 7.3): the part of the key schedule that goes on after the handshake, which is
// libssl's. All outputs are at most one hash long, so that HKDF-Expand is one HMAC (RFC 5869, 2.3).

import COpenSSL
import CTLSKeys

/// The suites spoken (RFC 8446, B.4).
enum Suite: UInt16, CaseIterable {
    case aes128GCM = 0x1301
    case aes256GCM = 0x1302
    case chacha20Poly1305 = 0x1303

    /// Bytes of the suite's hash, and so of its traffic secrets.
    var hashBytes: Int { self == .aes256GCM ? 48 : 32 }
    var keyBytes: Int { self == .aes128GCM ? 16 : 32 }

    /// As RFC 8446 writes it.
    var name: StaticString {
        switch self {
        case .aes128GCM: "TLS_AES_128_GCM_SHA256"
        case .aes256GCM: "TLS_AES_256_GCM_SHA384"
        case .chacha20Poly1305: "TLS_CHACHA20_POLY1305_SHA256"
        }
    }
}

enum KeySchedule {
    static let ivBytes = 12
    static let secretBytesMax = 48
    static let keyBytesMax = 32

    private static let sha256 = Digest("SHA256")
    private static let sha384 = Digest("SHA384")

    /// HKDF-Expand-Label(secret, label, "", output.count) (RFC 8446, 7.1). `output` may be the secret's own bytes.
    static func expandLabel(
        _ suite: Suite, _ secret: UnsafeRawBufferPointer, _ label: StaticString,
        into output: UnsafeMutableRawBufferPointer
    ) {
        precondition(output.count <= suite.hashBytes, "one round of HKDF-Expand is enough")
        // struct { uint16 length; opaque label<7..255>; opaque context<0..255>; } and HKDF's counter.
        var info = InlineArray<32, UInt8>(repeating: 0)
        info[1] = UInt8(output.count)
        var count = 3
        for byte in "tls13 ".utf8 {
            info[count] = byte
            count += 1
        }
        label.withUTF8Buffer { text in
            for index in text.indices {
                info[count] = unsafe text[index]
                count += 1
            }
        }
        info[2] = UInt8(count - 3)
        // The context is empty: its length is the zero that stands there.
        count += 1
        info[count] = 1
        count += 1
        let digest = unsafe (suite.hashBytes == 48 ? sha384 : sha256).pointer
        // Reads the secret and `count` bytes of info, writes `output.count` bytes; reads the secret before it writes.
        let made = unsafe info.span.bytes.withUnsafeBytes { info in
            unsafe ctlskeys_expand(
                digest, secret.baseAddress?.assumingMemoryBound(to: UInt8.self), secret.count,
                info.baseAddress?.assumingMemoryBound(to: UInt8.self), count,
                output.baseAddress?.assumingMemoryBound(to: UInt8.self), output.count)
        }
        guard made == 1 else { fatalError("out of memory: HKDF-Expand") }
    }
}

/// A digest of libcrypto's, fetched once a process and never changed.
@safe
private struct Digest: @unchecked Sendable {
    let pointer: OpaquePointer

    init(_ name: StaticString) {
        let fetched = name.withUTF8Buffer { text in
            // A StaticString ends with a NUL.
            unsafe text.withMemoryRebound(to: CChar.self) { unsafe EVP_MD_fetch(nil, $0.baseAddress, nil) }
        }
        guard let fetched = unsafe fetched else { fatalError("libcrypto has no \(name)") }
        unsafe pointer = fetched
    }
}
