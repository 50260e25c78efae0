// What libssl derives and this worker goes on with: the first traffic secrets of both sides (RFC 8446, 7.1), taken where libssl
// gets its key schedule from (CTLSKeys), behind each step of a handshake.

import COpenSSL
import CTLSKeys

enum TrafficSecrets {
    enum Side {
        case client
        case server

        var number: ctlskeys_side { self == .client ? CTLSKEYS_CLIENT : CTLSKEYS_SERVER }
    }

    /// Whether libssl gets its derivations from there, once a process. Not to be asked before TLSContext.bootstrap.
    static let areTold = ctlskeys_load() == 1

    /// The last secret of that side that was derived on this thread, once; nil if there is none.
    static func take(_ side: Side) -> Secret? {
        var bytes = InlineArray<48, UInt8>(repeating: 0)
        precondition(bytes.count == CTLSKEYS_SECRET_BYTES_MAX, "any secret fits")
        var span = bytes.mutableSpan
        return unsafe span.withUnsafeMutableBufferPointer { buffer in
            let count = unsafe ctlskeys_take(side.number, buffer.baseAddress)
            guard count > 0 else { return nil }
            defer { unsafe OPENSSL_cleanse(buffer.baseAddress, buffer.count) }
            // Bytes that were just written.
            return unsafe Secret(copying: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]))
        }
    }
}
