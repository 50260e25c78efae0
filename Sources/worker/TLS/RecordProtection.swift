// One direction's record protection (RFC 8446, 5.2 and 5.3): a traffic secret, the keys made of it, and the sequence number.
//
// Invariant: a sequence number is used once. It is taken before the cipher is called, so that no way out of a failure leads
// to a second record with the same nonce, and only `renew`, which changes the key, sets it back.
//
// A direction begins without a context of its own and uses the worker's; with its ninth record since `trim` it gets one
// (2 us), which saves 125 ns a record with AES. `dropContext` takes it away again.

import COpenSSL
import Shared

@safe
struct RecordProtection: ~Copyable {
    let suite: Suite
    private let seals: Bool
    /// Records protected under this key.
    private(set) var sequence: UInt64
    private var uses: UInt32 = 0
    private var context: OpaquePointer?
    /// Traffic secret, key and static IV, each at its offset.
    private let keys = Secret(count: RecordProtection.keysBytes)

    private static let keyOffset = KeySchedule.secretBytesMax
    private static let ivOffset = keyOffset + KeySchedule.keyBytesMax
    private static let keysBytes = ivOffset + KeySchedule.ivBytes

    /// - Parameter secret: the suite's hashBytes.
    init(_ suite: Suite, secret: UnsafeRawBufferPointer, sequence: UInt64, seals: Bool) {
        precondition(secret.count == suite.hashBytes, "a traffic secret is as long as the suite's hash")
        self.suite = suite
        self.seals = seals
        self.sequence = sequence
        unsafe context = nil
        // hashBytes is at most secretBytesMax, which stand at the block's beginning.
        unsafe keys.unsafeBytes.copyMemory(from: secret)
        deriveKeys()
    }

    deinit {
        unsafe EVP_CIPHER_CTX_free(context)
    }

    /// The traffic secret, valid while the value lives.
    var secret: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: keys.unsafeBytes[..<suite.hashBytes])
    }

    private var key: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: keys.unsafeBytes[Self.keyOffset..<Self.keyOffset + suite.keyBytes])
    }

    private var iv: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: keys.unsafeBytes[Self.ivOffset..<Self.keysBytes])
    }

    /// RFC 8446, 7.3.
    private func deriveKeys() {
        unsafe KeySchedule.expandLabel(suite, secret, "key", into: key)
        unsafe KeySchedule.expandLabel(suite, secret, "iv", into: iv)
    }

    /// The next generation of secret and keys (RFC 8446, 7.2), which begins with record 0 (5.3).
    mutating func renew(_ ciphers: borrowing RecordCiphers) {
        let secret = unsafe UnsafeMutableRawBufferPointer(rebasing: keys.unsafeBytes[..<suite.hashBytes])
        unsafe KeySchedule.expandLabel(suite, UnsafeRawBufferPointer(secret), "traffic upd", into: secret)
        deriveKeys()
        sequence = 0
        dropContext()
        ciphers.forget(suite, seals: seals)
    }

    /// Seals the record in place: a header that says how long it will be, `count` bytes of TLSInnerPlaintext, room for the tag.
    ///
    /// - Returns: whether it is sealed; if not, nothing of it may be sent.
    mutating func seal(_ record: UnsafeMutableRawPointer, _ count: Int, _ ciphers: borrowing RecordCiphers) -> Bool {
        let number = take(ciphers)
        let bytes = unsafe record.assumingMemoryBound(to: UInt8.self)
        if let context = unsafe context {
            return unsafe copenssl_record_seal(context, nil, ivAddress, number, bytes, Int32(truncatingIfNeeded: count))
                == 1
        }
        let shared = unsafe ciphers.sharedContext(suite, seals: true)
        return unsafe copenssl_record_seal(
            shared, keyAddress, ivAddress, number, bytes, Int32(truncatingIfNeeded: count)) == 1
    }

    /// Opens the record in place: its header, `count` bytes of ciphertext and the tag.
    ///
    /// - Returns: whether it is authentic; if not, what stands in it means nothing.
    mutating func open(_ record: UnsafeMutableRawPointer, _ count: Int, _ ciphers: borrowing RecordCiphers) -> Bool {
        let number = take(ciphers)
        let bytes = unsafe record.assumingMemoryBound(to: UInt8.self)
        if let context = unsafe context {
            return unsafe copenssl_record_open(context, nil, ivAddress, number, bytes, Int32(truncatingIfNeeded: count))
                == 1
        }
        let shared = unsafe ciphers.sharedContext(suite, seals: false)
        return unsafe copenssl_record_open(
            shared, keyAddress, ivAddress, number, bytes, Int32(truncatingIfNeeded: count)) == 1
    }

    /// Whether a record of this side's own making, sealed with this key at `number`, is authentic; opened in place. Changes
    /// nothing here.
    func isOwn(
        _ record: UnsafeMutableRawPointer, _ count: Int, number: UInt64, _ ciphers: borrowing RecordCiphers
    ) -> Bool {
        let shared = unsafe ciphers.sharedContext(suite, seals: false)
        return unsafe copenssl_record_open(
            shared, keyAddress, ivAddress, number, record.assumingMemoryBound(to: UInt8.self),
            Int32(truncatingIfNeeded: count)) == 1
    }

    /// Takes the next sequence number, and makes a context where it has come to be worth one.
    private mutating func take(_ ciphers: borrowing RecordCiphers) -> UInt64 {
        // 2^64 records would take longer than any connection lives; sessions renew keys long before (RFC 8446, 5.5).
        let number = sequence
        sequence += 1
        uses &+= 1
        if unsafe context == nil, uses > Limits.tlsSharedContextRecordsMax {
            unsafe context = ciphers.makeContext(suite, key: keyAddress, seals: seals)
        }
        return number
    }

    // The block is `keysBytes` long: both addresses lie in it.
    private var keyAddress: UnsafePointer<UInt8> {
        unsafe UnsafePointer((keys.address + Self.keyOffset).assumingMemoryBound(to: UInt8.self))
    }

    private var ivAddress: UnsafePointer<UInt8> {
        unsafe UnsafePointer((keys.address + Self.ivOffset).assumingMemoryBound(to: UInt8.self))
    }

    /// Back to the smallest form. The next record uses the worker's context.
    mutating func dropContext() {
        // Wipes what it holds.
        unsafe EVP_CIPHER_CTX_free(context)
        unsafe context = nil
        uses = 0
    }

    /// Called now and then: drops the context if it has been of little use since the last call.
    mutating func trim() {
        if uses <= Limits.tlsSharedContextRecordsMax { dropContext() }
        uses = 0
    }

    /// Whether the direction has a context of its own.
    var hasContext: Bool { unsafe context != nil }
}
