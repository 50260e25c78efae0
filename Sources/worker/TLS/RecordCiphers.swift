// The AEADs of the three suites, fetched once a worker (fetching costs more than sealing a record), and for each suite two
// contexts that any connection may use for one record, keyed anew each time: so a connection that says little needs none of
// its own. The last user's key stays in them: whoever's key is gone, or another, has it forgotten.

import COpenSSL

/// What the sessions of one worker share. Not for two threads.
@safe
struct RecordCiphers: ~Copyable {
    private let aes128: SuiteCipher
    private let aes256: SuiteCipher
    private let chacha20: SuiteCipher

    init() throws(TLSSetupError) {
        let aes128 = try SuiteCipher("AES-128-GCM")
        let aes256 = try SuiteCipher("AES-256-GCM")
        let chacha20 = try SuiteCipher("ChaCha20-Poly1305")
        self.aes128 = aes128
        self.aes256 = aes256
        self.chacha20 = chacha20
    }

    /// A context that seals or opens, without a key: the next user gives it another.
    func sharedContext(_ suite: Suite, seals: Bool) -> OpaquePointer {
        switch suite {
        case .aes128GCM: unsafe seals ? aes128.sealing : aes128.opening
        case .aes256GCM: unsafe seals ? aes256.sealing : aes256.opening
        case .chacha20Poly1305: unsafe seals ? chacha20.sealing : chacha20.opening
        }
    }

    /// Makes both shared contexts of a suite forget the key of a session that is gone from here.
    func forget(_ suite: Suite) {
        forget(suite, seals: true)
        forget(suite, seals: false)
    }

    /// The same for one direction, whose key is another now. Costs 0.3 us.
    func forget(_ suite: Suite, seals: Bool) {
        let result = unsafe copenssl_record_forget(sharedContext(suite, seals: seals), cipher(suite), seals ? 1 : 0)
        guard result == 1 else { fatalError("out of memory: cipher context") }
    }

    private func cipher(_ suite: Suite) -> OpaquePointer {
        switch suite {
        case .aes128GCM: unsafe aes128.cipher
        case .aes256GCM: unsafe aes256.cipher
        case .chacha20Poly1305: unsafe chacha20.cipher
        }
    }

    /// A context for one direction of one connection, its owner's to free. Nil if memory is short.
    func makeContext(_ suite: Suite, key: UnsafeRawPointer, seals: Bool) -> OpaquePointer? {
        guard let context = unsafe copenssl_record_context(cipher(suite), seals ? 1 : 0) else { return nil }
        // Reads as many bytes of the key as the cipher wants: the suite's keyBytes.
        guard unsafe copenssl_record_key(context, key.assumingMemoryBound(to: UInt8.self), seals ? 1 : 0) == 1 else {
            unsafe EVP_CIPHER_CTX_free(context)
            return nil
        }
        return unsafe context
    }
}

/// One AEAD and its two shared contexts.
@safe
private struct SuiteCipher: ~Copyable {
    let cipher: OpaquePointer
    let sealing: OpaquePointer
    let opening: OpaquePointer

    init(_ name: StaticString) throws(TLSSetupError) {
        let fetched = name.withUTF8Buffer { text in
            // A StaticString ends with a NUL.
            unsafe text.withMemoryRebound(to: CChar.self) { unsafe EVP_CIPHER_fetch(nil, $0.baseAddress, nil) }
        }
        guard let cipher = unsafe fetched else { throw .cipherMissing(name) }
        guard let sealing = unsafe copenssl_record_context(cipher, 1) else {
            unsafe EVP_CIPHER_free(cipher)
            throw .cipherMissing(name)
        }
        guard let opening = unsafe copenssl_record_context(cipher, 0) else {
            unsafe EVP_CIPHER_CTX_free(sealing)
            unsafe EVP_CIPHER_free(cipher)
            throw .cipherMissing(name)
        }
        unsafe self.cipher = cipher
        unsafe self.sealing = sealing
        unsafe self.opening = opening
    }

    deinit {
        // Each wipes what it holds.
        unsafe EVP_CIPHER_CTX_free(sealing)
        unsafe EVP_CIPHER_CTX_free(opening)
        unsafe EVP_CIPHER_free(cipher)
    }
}
