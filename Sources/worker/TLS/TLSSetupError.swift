// What can be wrong with a certificate, a key or the library, found when a context is made: never while a client is served.

/// Why TLS can't be served. The texts follow the name of the file or variable that is meant, and say what to do.
enum TLSSetupError: Error, Equatable, CustomStringConvertible {
    /// The certificate's file.
    case noCertificate
    case unreadableCertificate(place: Int)
    /// libssl does not want it, for example because its key is too short; libssl's reason.
    case refusedCertificate(String)
    /// The key's file.
    case noKey
    case encryptedKey
    case unreadableKey
    case keyMismatch
    /// What the supervisor sent is no ring of ticket keys.
    case ticketKeys(bytes: Int)
    /// libcrypto lacks an AEAD: a build without it, or a configuration that forbids it.
    case cipherMissing(StaticString)
    /// libssl would not get its key schedule from the relay: a configuration that demands another provider's algorithms.
    case keyScheduleRefused
    case library(StaticString)

    var description: String {
        switch self {
        case .noCertificate:
            "holds no certificate: a PEM file is needed, with a `-----BEGIN CERTIFICATE-----` block for the server's "
                + "certificate first and those of its issuers behind it"
        case .unreadableCertificate(let place):
            "certificate \(place) of the file can't be read: its PEM block is damaged or is no X.509 certificate"
        case .refusedCertificate(let reason):
            "the certificate can't be used: \(reason)"
        case .noKey:
            "holds no private key: a PEM file is needed, with a `-----BEGIN PRIVATE KEY-----` block"
        case .encryptedKey:
            "the private key is encrypted; the relay asks for no password: decrypt it with "
                + "`openssl pkey -in KEY -out NEWKEY`"
        case .unreadableKey:
            "the private key can't be read: its PEM block is damaged or of an unknown kind"
        case .keyMismatch:
            "the private key does not belong to the first certificate in the certificate file"
        case .ticketKeys(let bytes):
            "\(bytes) bytes are no ring of ticket keys"
        case .cipherMissing(let name):
            "this libcrypto offers no \(name)"
        case .keyScheduleRefused:
            "OpenSSL's configuration (openssl.cnf, or what OPENSSL_CONF names) keeps libssl from the relay's key schedule: "
                + "default_properties such as fips=yes can't be met"
        case .library(let problem):
            "libssl: \(problem)"
        }
    }

    static func == (left: Self, right: Self) -> Bool {
        // The texts tell all cases and their values apart.
        left.description == right.description
    }
}
