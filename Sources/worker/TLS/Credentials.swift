// A certificate chain and its key, from PEM in memory: the supervisor opens the files, a worker has no file system.

import COpenSSL
import Glibc

/// A chain, leaf first, and the leaf's private key.
@safe
struct Credentials: ~Copyable {
    /// X509 objects; at least one.
    private let chain: [OpaquePointer]
    private let key: OpaquePointer

    /// - Parameters:
    ///   - certificates: PEM; anything else between the blocks is ignored.
    ///   - key: PEM, unencrypted. The caller wipes it.
    init(certificates: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer) throws(TLSSetupError) {
        let chain = try unsafe Self.readChain(certificates)
        let read: OpaquePointer
        do throws(TLSSetupError) {
            unsafe read = try Self.readKey(key, of: chain[0])
        } catch {
            unsafe Self.free(chain)
            throw error
        }
        unsafe self.chain = unsafe chain
        unsafe self.key = unsafe read
    }

    deinit {
        unsafe Self.free(chain)
        unsafe EVP_PKEY_free(key)
    }

    private static func free(_ chain: [OpaquePointer]) {
        for index in unsafe chain.indices { unsafe X509_free(chain[index]) }
    }

    /// Seconds since 1970 between which the leaf is valid; nil for a date that can't be read.
    var validity: (from: Int64?, until: Int64?) {
        // Both belong to the certificate.
        unsafe (Self.seconds(X509_get0_notBefore(chain[0])), Self.seconds(X509_get0_notAfter(chain[0])))
    }

    private static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
        var parts = unsafe tm()
        guard let time = unsafe time, unsafe ASN1_TIME_to_tm(time, &parts) == 1 else { return nil }
        return unsafe Int64(timegm(&parts))
    }

    /// Makes a context use them.
    func install(in context: OpaquePointer) throws(TLSSetupError) {
        ERR_clear_error()
        guard unsafe SSL_CTX_use_certificate(context, chain[0]) == 1, unsafe SSL_CTX_use_PrivateKey(context, key) == 1
        else {
            throw .refusedCertificate(Self.reason())
        }
        for index in unsafe chain.indices.dropFirst() {
            // The context owns what is added: a reference of its own.
            guard unsafe X509_up_ref(chain[index]) == 1 else { throw .refusedCertificate(Self.reason()) }
            guard unsafe copenssl_add_chain_certificate(context, chain[index]) == 1 else {
                unsafe X509_free(chain[index])
                throw .refusedCertificate(Self.reason())
            }
        }
    }

    /// What the error queue says last, as libssl words it: no secret is in it.
    static func reason() -> String {
        let code = ERR_peek_last_error()
        ERR_clear_error()
        guard let text = unsafe ERR_reason_error_string(code) else { return "no reason given" }
        return unsafe String(cString: text)
    }

    // MARK: - PEM

    /// At least one certificate.
    private static func readChain(_ pem: UnsafeRawBufferPointer) throws(TLSSetupError) -> [OpaquePointer] {
        ERR_clear_error()
        guard let bio = unsafe memory(pem) else { throw .noCertificate }
        defer { unsafe BIO_free(bio) }
        var chain = unsafe [OpaquePointer]()
        while let certificate = unsafe PEM_read_bio_X509(bio, nil, nil, nil) { unsafe chain.append(certificate) }
        // The end of the file is one block that is not there.
        let code = ERR_peek_last_error()
        let isEnd = copenssl_library(code) == ERR_LIB_PEM && copenssl_reason(code) == PEM_R_NO_START_LINE
        ERR_clear_error()
        let count = unsafe chain.count
        if isEnd && count > 0 { return unsafe chain }
        unsafe Self.free(chain)
        throw isEnd ? .noCertificate : .unreadableCertificate(place: count + 1)
    }

    private static func readKey(
        _ pem: UnsafeRawBufferPointer, of certificate: OpaquePointer
    ) throws(TLSSetupError) -> OpaquePointer {
        ERR_clear_error()
        guard let bio = unsafe memory(pem) else { throw .noKey }
        defer { unsafe BIO_free(bio) }
        // The callback is asked for a password exactly if the key is encrypted: it notes that and has none.
        var wasAsked = false
        let key = unsafe withUnsafeMutablePointer(to: &wasAsked) { flag in
            unsafe PEM_read_bio_PrivateKey(
                bio, nil,
                { _, _, _, flag in
                    // `flag` is the pointer given below, alive during the call.
                    unsafe flag?.assumingMemoryBound(to: Bool.self).pointee = true
                    return -1
                }, flag)
        }
        ERR_clear_error()
        if let key = unsafe key {
            if unsafe X509_check_private_key(certificate, key) == 1 { return unsafe key }
            unsafe EVP_PKEY_free(key)
            ERR_clear_error()
            throw .keyMismatch
        }
        if wasAsked { throw .encryptedKey }
        // What the error queue says of a file without a key depends on the version.
        throw unsafe contains(pem, "PRIVATE KEY-----") ? .unreadableKey : .noKey
    }

    private static func contains(_ text: UnsafeRawBufferPointer, _ part: StaticString) -> Bool {
        let count = part.utf8CodeUnitCount
        guard let base = text.baseAddress else { return false }
        return text.indices.dropLast(count - 1).contains { start in
            // `count` bytes from `start` lie in the text.
            unsafe memcmp(base + start, part.utf8Start, count) == 0
        }
    }

    /// A BIO that reads these bytes, which must outlive it.
    private static func memory(_ bytes: UnsafeRawBufferPointer) -> OpaquePointer? {
        guard bytes.count > 0, bytes.count <= Int(Int32.max) else { return nil }
        return unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count))
    }
}
