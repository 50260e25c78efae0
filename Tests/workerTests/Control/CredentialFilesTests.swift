import CLinux
import Foundation
import Shared
import Testing

@testable import worker

@Suite struct `Certificate and key as files` {
    /// A file without a name that holds these bytes.
    private func file(_ bytes: [UInt8]) throws -> Descriptor {
        let number = clinux_memfd("test")
        try #require(number >= 0)
        let file = Descriptor(owning: number)
        try #require(bytes.isEmpty || pwrite(number, bytes, bytes.count, 0) == bytes.count)
        return file
    }

    private func check(_ certificate: [UInt8], _ key: [UInt8]) throws -> (from: Int64, until: Int64)? {
        let files = CredentialFiles(certificate: try file(certificate), privateKey: try file(key))
        do throws(CredentialError) {
            return try files.check()
        } catch {
            throw error
        }
    }

    private func reason(_ certificate: [UInt8], _ key: [UInt8]) throws -> String? {
        do {
            _ = try check(certificate, key)
            return nil
        } catch let error as CredentialError {
            return error.description
        }
    }

    @Test(arguments: TestCertificate.Kind.allCases) func `are good together`(kind: TestCertificate.Kind) throws {
        let made = TestCertificate.of(kind)
        let validity = try #require(try check(made.chainPEM, made.keyPEM))
        let now = Int64(Date().timeIntervalSince1970)
        #expect(validity.from < now && validity.until > now)
        // Read without moving a position that processes share: twice is the same.
        let files = CredentialFiles(certificate: try file(made.chainPEM), privateKey: try file(made.keyPEM))
        for _ in 0..<2 { #expect(try files.check().until == validity.until) }
    }

    @Test func `that are wrong say which variable is, and why`() throws {
        let (made, other) = (TestCertificate.of(.p256), TestCertificate.of(.rsa))
        #expect(try reason([], made.keyPEM) == "RELAY_TLS_CERT: the file is empty")
        #expect(try reason(made.chainPEM, []) == "RELAY_TLS_KEY: the file is empty")
        #expect(try #require(try reason(made.keyPEM, made.keyPEM)).hasPrefix("RELAY_TLS_CERT: holds no certificate"))
        #expect(try #require(try reason(made.chainPEM, made.chainPEM)).hasPrefix("RELAY_TLS_KEY: holds no private key"))
        #expect(
            try reason(made.chainPEM, other.keyPEM)
                == "RELAY_TLS_KEY: the private key does not belong to the first certificate in the certificate file")
        let large = [UInt8](repeating: 10, count: Limits.credentialBytesMax + 1)
        #expect(
            try reason(large, made.keyPEM)
                == "RELAY_TLS_CERT: the file has \(large.count) bytes, more than \(Limits.credentialBytesMax)")
        // As large as allowed, and still a good one: PEM ignores what stands around its blocks.
        let padded = made.chainPEM + [UInt8](repeating: 10, count: Limits.credentialBytesMax - made.chainPEM.count)
        #expect(try reason(padded, made.keyPEM) == nil)
    }

    @Test func `made for development are good together, under this machine's own names`() throws {
        let made = try #require(DevCertificate.make())
        let validity = try #require(try check(made.certificate, made.privateKey))
        let now = Int64(Date().timeIntervalSince1970)
        #expect(validity.from < now)
        #expect((89 * 86_400...91 * 86_400).contains(Int(validity.until - now)))
        let other = try #require(DevCertificate.make())
        #expect(other.privateKey != made.privateKey)
    }
}
