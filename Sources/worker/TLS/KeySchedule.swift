// Keys from traffic secrets (RFC 8446, 7.1 to 7.3): the part of the key schedule that goes on after the handshake, which is
// libssl's. All outputs are at most one hash long, so that HKDF-Expand is one HMAC (RFC 5869, 2.3).

import COpenSSL

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
        unsafe withUnsafeTemporaryAllocation(byteCount: secretBytesMax, alignment: 8) { hash in
            let bytes = unsafe info.span.bytes.withUnsafeBytes { info in
                // Reads the secret and `count` bytes of info, writes a hash of `secretBytesMax` bytes at most.
                unsafe HMAC(
                    suite.hashBytes == 48 ? EVP_sha384() : EVP_sha256(), secret.baseAddress, Int32(secret.count),
                    info.baseAddress, count, hash.baseAddress, nil)
            }
            guard unsafe bytes != nil else { fatalError("out of memory: HMAC") }
            // As many as `output` has, which are no more than a hash.
            unsafe output.copyMemory(from: UnsafeRawBufferPointer(rebasing: hash[..<output.count]))
            unsafe OPENSSL_cleanse(hash.baseAddress, hash.count)
        }
    }
}
