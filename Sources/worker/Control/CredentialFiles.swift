// Certificate, key and ticket keys as the supervisor hands them over: as descriptors, because workers have no file system.

import CLinux
import COpenSSL
import Glibc
import Shared

/// Why a worker can't serve TLS, with the variable that is to blame.
struct CredentialError: Error, CustomStringConvertible {
    var description: String

    init(_ error: TLSSetupError) {
        let variable =
            switch error {
            case .noCertificate, .unreadableCertificate, .refusedCertificate: "RELAY_TLS_CERT: "
            case .noKey, .encryptedKey, .unreadableKey, .keyMismatch: "RELAY_TLS_KEY: "
            case .ticketKeys, .cipherMissing, .keyScheduleRefused, .library: ""
            }
        description = variable + error.description
    }

    init(_ text: String) {
        description = text
    }
}

/// The descriptors of a certificate's and a key's file.
struct CredentialFiles: ~Copyable {
    let certificate: Descriptor
    let privateKey: Descriptor

    /// The whole of a file, to be wiped. Read from its beginning without moving its position, which all workers share.
    private static func read(_ file: borrowing Descriptor, _ variable: String) throws(CredentialError) -> Secret {
        let count = Int(clinux_file_bytes(file.number))
        guard count >= 0 else { throw CredentialError("\(variable): \(SystemError("fstat"))") }
        guard count > 0 else { throw CredentialError("\(variable): the file is empty") }
        guard count <= Limits.credentialBytesMax else {
            throw CredentialError("\(variable): the file has \(count) bytes, more than \(Limits.credentialBytesMax)")
        }
        let bytes = Secret(count: count)
        var done = 0
        while done < count {
            // Lies in the block of `count` bytes.
            let result = unsafe pread(file.number, bytes.address + done, count - done, done)
            guard result > 0 else { throw CredentialError("\(variable): \(SystemError("pread"))") }
            done += result
        }
        return bytes
    }

    /// Makes a context of the files and a ring of ticket keys.
    func makeContext(ticketKeys: UnsafeRawBufferPointer) throws(CredentialError) -> TLSContext {
        let certificates = try Self.read(certificate, "RELAY_TLS_CERT")
        let key = try Self.read(privateKey, "RELAY_TLS_KEY")
        do throws(TLSSetupError) {
            return try unsafe TLSContext(
                certificates: UnsafeRawBufferPointer(certificates.unsafeBytes),
                key: UnsafeRawBufferPointer(key.unsafeBytes), ticketKeys: ticketKeys)
        } catch {
            throw CredentialError(error)
        }
    }

    /// Whether the relay could serve with them.
    ///
    /// - Returns: when the certificate is valid, Unix seconds.
    func check() throws(CredentialError) -> (from: Int64, until: Int64) {
        let ring = Secret(count: Limits.ticketKeyBytes)
        let context = try unsafe makeContext(ticketKeys: UnsafeRawBufferPointer(ring.unsafeBytes))
        guard let from = context.validity.from, let until = context.validity.until else {
            throw CredentialError("RELAY_TLS_CERT: the certificate's dates can't be read")
        }
        return (from, until)
    }
}
