// A self-signed certificate for trying TLS out (`relay dev-cert`): ECDSA over P-256, which is the cheapest kind for a server.

import COpenSSL
import Shared

enum DevCertificate {
    private static let secondsMax = 90 * 86_400
    /// Clocks differ a little.
    private static let secondsBefore = -3600

    /// A certificate for this machine under its own names, and its key, both in PEM. Nil if libcrypto fails.
    static func make() -> (certificate: [UInt8], privateKey: [UInt8])? {
        guard let key = unsafe makeKey() else { return nil }
        defer { unsafe EVP_PKEY_free(key) }
        guard let certificate = unsafe X509_new() else { return nil }
        defer { unsafe X509_free(certificate) }
        guard unsafe fill(certificate, key) else { return nil }
        let certificatePEM = unsafe pem { bio in unsafe PEM_write_bio_X509(bio, certificate) }
        let keyPEM = unsafe pem { bio in unsafe PEM_write_bio_PrivateKey(bio, key, nil, nil, 0, nil, nil) }
        guard let certificatePEM, let keyPEM else { return nil }
        return (certificatePEM, keyPEM)
    }

    private static func makeKey() -> OpaquePointer? {
        guard let context = unsafe EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { return nil }
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard unsafe EVP_PKEY_keygen_init(context) == 1,
            unsafe EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            unsafe EVP_PKEY_generate(context, &key) == 1
        else { return nil }
        return unsafe key
    }

    /// RFC 5280, 4.1: version 3, a random serial number, names, dates; signed by itself.
    private static func fill(_ certificate: OpaquePointer, _ key: OpaquePointer) -> Bool {
        let serial = Int.random(in: 1...Int.max)
        let name = unsafe X509_get_subject_name(certificate)
        return unsafe X509_set_version(certificate, 2) == 1
            && ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial) == 1
            && X509_gmtime_adj(X509_getm_notBefore(certificate), secondsBefore) != nil
            && X509_gmtime_adj(X509_getm_notAfter(certificate), secondsMax) != nil
            && X509_NAME_add_entry_by_txt(name, "CN", 0x1000, "relay dev certificate", -1, -1, 0) == 1
            && X509_set_issuer_name(certificate, name) == 1
            && X509_set_pubkey(certificate, key) == 1
            // Clients look at these names and not at the subject (RFC 9525, 2).
            && extend(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1")
            && extend(certificate, NID_basic_constraints, "critical,CA:TRUE")
            && X509_sign(certificate, key, EVP_sha256()) > 0
    }

    private static func extend(_ certificate: OpaquePointer, _ kind: Int32, _ value: String) -> Bool {
        guard let made = unsafe X509V3_EXT_conf_nid(nil, nil, kind, value) else { return false }
        defer { unsafe X509_EXTENSION_free(made) }
        return unsafe X509_add_ext(certificate, made, -1) == 1
    }

    private static func pem(_ write: (OpaquePointer) -> Int32) -> [UInt8]? {
        guard let bio = unsafe BIO_new(BIO_s_mem()) else { return nil }
        defer { unsafe BIO_free(bio) }
        guard unsafe write(bio) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: unsafe BIO_ctrl_pending(bio))
        // Writes bytes.count bytes at the most.
        let count = unsafe BIO_read(bio, &bytes, Int32(bytes.count))
        return count == bytes.count ? bytes : nil
    }
}
