import COpenSSL
import Testing

@testable import worker

/// A leaf certificate of a root of its own, made with libcrypto.
final class TestCertificate: @unchecked Sendable {
    enum Kind: String, CaseIterable {
        case rsa = "RSA"
        case p256 = "EC"
        case ed25519 = "ED25519"
    }

    /// Leaf and root.
    let chainPEM: [UInt8]
    let leafPEM: [UInt8]
    let keyPEM: [UInt8]
    /// An X509 that clients trust.
    let root: OpaquePointer
    let key: OpaquePointer

    private static let made: [Kind: TestCertificate] = {
        var made: [Kind: TestCertificate] = [:]
        for kind in Kind.allCases { made[kind] = TestCertificate(kind) }
        return made
    }()

    static func of(_ kind: Kind) -> TestCertificate {
        guard let certificate = made[kind] else { fatalError("all kinds are made") }
        return certificate
    }

    init(_ kind: Kind, validFor seconds: Int = 86_400, rsaBits: Int32 = 2048) {
        let rootKey = Self.makeKey(.p256)
        let root = Self.makeCertificate(
            "root of \(kind)", rootKey, issuer: nil, issuerKey: rootKey, from: -3600, for: 86_400)
        let key = Self.makeKey(kind, rsaBits: rsaBits)
        let leaf = Self.makeCertificate("relay.example", key, issuer: root, issuerKey: rootKey, from: -60, for: seconds)
        leafPEM = Self.pem { PEM_write_bio_X509($0, leaf) }
        chainPEM = leafPEM + Self.pem { PEM_write_bio_X509($0, root) }
        keyPEM = Self.pem { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) }
        self.root = root
        self.key = key
        X509_free(leaf)
        EVP_PKEY_free(rootKey)
    }

    deinit {
        X509_free(root)
        EVP_PKEY_free(key)
    }

    static func makeKey(_ kind: Kind, rsaBits: Int32 = 2048) -> OpaquePointer {
        let context = EVP_PKEY_CTX_new_from_name(nil, kind.rawValue, nil)
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        EVP_PKEY_keygen_init(context)
        if kind == .p256 { EVP_PKEY_CTX_set_group_name(context, "P-256") }
        if kind == .rsa { EVP_PKEY_CTX_set_rsa_keygen_bits(context, rsaBits) }
        EVP_PKEY_generate(context, &key)
        guard let key else { fatalError("no \(kind) key") }
        return key
    }

    private static func makeCertificate(
        _ name: String, _ key: OpaquePointer, issuer: OpaquePointer?, issuerKey: OpaquePointer, from: Int,
        for seconds: Int
    ) -> OpaquePointer {
        guard let certificate = X509_new() else { fatalError("no certificate") }
        // A root of version 1 needs no extensions to be one.
        X509_set_version(certificate, issuer == nil ? 0 : 2)
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), issuer == nil ? 1 : 2)
        X509_gmtime_adj(X509_getm_notBefore(certificate), from)
        X509_gmtime_adj(X509_getm_notAfter(certificate), seconds)
        X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", 0x1000, name, -1, -1, 0)
        X509_set_issuer_name(certificate, X509_get_subject_name(issuer ?? certificate))
        X509_set_pubkey(certificate, key)
        X509_sign(certificate, issuerKey, EVP_sha256())
        return certificate
    }

    static func pem(_ write: (OpaquePointer?) -> Int32) -> [UInt8] {
        let bio = BIO_new(BIO_s_mem())
        defer { BIO_free(bio) }
        #expect(write(bio) == 1)
        return bytes(of: bio)
    }

    static func bytes(of bio: OpaquePointer?) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BIO_ctrl_pending(bio))
        let count = BIO_read(bio, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(count, 0))))
    }
}

/// A ring of ticket keys from their first bytes.
func ticketRing(_ keys: UInt8...) -> [UInt8] {
    keys.flatMap { key in (0..<80).map { UInt8(truncatingIfNeeded: $0) &* 7 &+ key } }
}

func makeContext(
    _ certificate: TestCertificate = .of(.p256), chain: [UInt8]? = nil, key: [UInt8]? = nil,
    ring: [UInt8] = ticketRing(1)
) throws(TLSSetupError) -> TLSContext {
    let (chain, key) = (chain ?? certificate.chainPEM, key ?? certificate.keyPEM)
    // Closures of the standard library don't carry a typed error of an object: a result does.
    let made = chain.withUnsafeBytes { chain in
        key.withUnsafeBytes { key in
            ring.withUnsafeBytes { ring in
                Result { () throws(TLSSetupError) in
                    try TLSContext(certificates: chain, key: key, ticketKeys: ring)
                }
            }
        }
    }
    return try made.get()
}
