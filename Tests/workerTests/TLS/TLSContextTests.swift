import COpenSSL
import Foundation
import Shared
import Testing

@testable import worker

@Suite struct `A TLS context` {
    let certificate = TestCertificate.of(.p256)

    func error(chain: [UInt8]? = nil, key: [UInt8]? = nil, ring: [UInt8] = ticketRing(1)) -> TLSSetupError? {
        do throws(TLSSetupError) {
            _ = try makeContext(certificate, chain: chain, key: key, ring: ring)
            return nil
        } catch {
            // A text for an operator: it names what is wrong, and holds no byte of a file.
            #expect(error.description.count > 10)
            return error
        }
    }

    @Test func `is made of what PEM files hold`() {
        #expect(error() == nil)
        #expect(error(chain: certificate.leafPEM) == nil)
        #expect(error(chain: Array("Some text\n\n".utf8) + certificate.chainPEM + Array("\nmore text".utf8)) == nil)
        let lines = String(decoding: certificate.chainPEM, as: UTF8.self).replacingOccurrences(of: "\n", with: "\r\n")
        #expect(error(chain: Array(lines.utf8)) == nil)
        // Both in one file, as some tools write them.
        let both = certificate.keyPEM + certificate.chainPEM
        #expect(error(chain: both, key: both) == nil)
        let parameters = Array("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".utf8)
        #expect(error(key: parameters + certificate.keyPEM) == nil)
    }

    @Test func `is made of traditional keys too`() {
        let ec = TestCertificate.pem {
            PEM_write_bio_PrivateKey_traditional($0, certificate.key, nil, nil, 0, nil, nil)
        }
        #expect(String(decoding: ec, as: UTF8.self).hasPrefix("-----BEGIN EC PRIVATE KEY"))
        #expect(error(key: ec) == nil)
    }

    @Test func `says when there is no certificate, or one that can't be read`() {
        for chain in [[], Array("\n".utf8), Array("no PEM".utf8), certificate.keyPEM] {
            #expect(error(chain: chain) == .noCertificate)
        }
        var damaged = certificate.leafPEM
        damaged[60] = UInt8(ascii: "!")
        #expect(error(chain: damaged) == .unreadableCertificate(place: 1))
        #expect(error(chain: certificate.leafPEM + damaged) == .unreadableCertificate(place: 2))
        #expect(error(chain: Array(certificate.leafPEM.prefix(200))) == .unreadableCertificate(place: 1))
        let noX509 = Array("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".utf8)
        #expect(error(chain: noX509) == .unreadableCertificate(place: 1))
    }

    @Test func `says when there is no key, or one that can't be used`() {
        for key in [[], Array("no PEM".utf8), certificate.chainPEM] { #expect(error(key: key) == .noKey) }
        #expect(error(key: Array(certificate.keyPEM.prefix(100))) == .unreadableKey)
        var damaged = certificate.keyPEM
        damaged[40] = UInt8(ascii: "!")
        #expect(error(key: damaged) == .unreadableKey)
        let encrypted = TestCertificate.pem {
            PEM_write_bio_PKCS8PrivateKey($0, certificate.key, EVP_aes_128_cbc(), "password", 8, nil, nil)
        }
        #expect(error(key: encrypted) == .encryptedKey)
        let traditional = TestCertificate.pem {
            PEM_write_bio_PrivateKey_traditional(
                $0, certificate.key, EVP_aes_128_cbc(), Array("password".utf8), 8, nil, nil)
        }
        #expect(error(key: traditional) == .encryptedKey)
    }

    @Test func `says when the key is another certificate's`() {
        #expect(error(key: TestCertificate(.p256).keyPEM) == .keyMismatch)
        for kind in [TestCertificate.Kind.rsa, .ed25519] {
            #expect(error(key: TestCertificate.of(kind).keyPEM) == .keyMismatch)
        }
        // The chain begins with the wrong certificate.
        let reversed = Array(certificate.chainPEM.dropFirst(certificate.leafPEM.count)) + certificate.leafPEM
        #expect(error(chain: reversed) == .keyMismatch)
    }

    @Test func `says when libssl does not want the certificate`() throws {
        let weak = TestCertificate(.rsa, rsaBits: 512)
        do throws(TLSSetupError) {
            _ = try makeContext(weak)
            Issue.record("512 bits of RSA were accepted")
        } catch {
            #expect(error == .refusedCertificate("ee key too small"))
            #expect(error.description == "the certificate can't be used: ee key too small")
        }
    }

    @Test func `tells how long the certificate is valid`() throws {
        let now = Int64(Date().timeIntervalSince1970)
        let validity = try makeContext(certificate).validity
        let (from, until) = (try #require(validity.from), try #require(validity.until))
        #expect(until - from == 86_460)
        #expect(abs(now - from - 60) < 600)
        // An expired one is served all the same: clients say what they think of it.
        let expired = TestCertificate(.p256, validFor: -10)
        #expect(try #require(makeContext(expired).validity.until) < now)
    }

    @Test func `wants whole ticket keys, one at least and not too many`() throws {
        let key = ticketRing(1)
        for bytes in [[], Array(key.dropLast()), key + [0], (0...Limits.ticketKeys).flatMap { _ in key }] {
            #expect(error(ring: bytes) == .ticketKeys(bytes: bytes.count))
        }
        #expect(error(ring: (0..<Limits.ticketKeys).flatMap { _ in key }) == nil)
        // A ring that can't be read leaves the last one in force.
        let context = try makeContext()
        #expect(throws: TLSSetupError.ticketKeys(bytes: 3)) {
            try ([1, 2, 3] as [UInt8]).withUnsafeBytes { try context.replaceTicketKeys($0) }
        }
        let (client, server, _) = try connect(context: context)
        client.receive(server.send([1]))
        #expect(client.read() == [1] && client.tickets.count == Limits.tlsTickets)
    }

    @Test func `leaves nothing in libssl's error queue`() {
        _ = error(chain: Array("no PEM".utf8))
        _ = error(key: TestCertificate(.p256).keyPEM)
        _ = error(key: Array(certificate.keyPEM.prefix(100)))
        _ = error()
        #expect(ERR_peek_error() == 0)
    }

    // MARK: - Memory

    @Test func `has libcrypto wipe what it frees, if it is asked in time`() async {
        await #expect(processExitsWith: .success) {
            try TLSContext.bootstrap()
            let (client, server, _) = try connect()
            client.receive(server.send([1, 2, 3]))
            #expect(client.read() == [1, 2, 3])
        }
        await #expect(processExitsWith: .success) {
            _ = try RecordCiphers()
            #expect(throws: TLSSetupError.self) { try TLSContext.bootstrap() }
        }
    }

    @Test func `leaves no traffic secret behind once a session has gone`() async {
        await #expect(processExitsWith: .success) {
            try TLSContext.bootstrap()
            // The needle is kept inverted, so that looking for it does not find itself.
            func serve() throws -> [UInt8] {
                let (client, server, _) = try connect(.init(suites: "TLS_AES_256_GCM_SHA384"))
                client.write([1])
                server.run(client.output())
                client.receive(server.send([1, 2, 3]))
                #expect(client.read() == [1, 2, 3])
                var message = ByteQueue()
                server.take().encode(into: &message)
                let inverted = message.withBytes { bytes in bytes[24..<120].map { ~$0 } }
                // It is there as long as the message is.
                #expect(occurrences(of: Array(inverted.prefix(48))) > 0)
                message.wipe()
                return inverted
            }
            let inverted = try serve()
            #expect(inverted.count == 96)
            // The client's and the server's secret, wherever they may lie: heap, stack, libraries' data.
            #expect(occurrences(of: Array(inverted[..<48])) == 0)
            #expect(occurrences(of: Array(inverted[48...])) == 0)
        }
    }
}

/// How often the complement of `inverted` stands in this process's writable memory.
func occurrences(of inverted: [UInt8]) -> Int {
    guard let maps = try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8) else { return -1 }
    let memory = open("/proc/self/mem", O_RDONLY)
    defer { close(memory) }
    var found = 0
    // Out of the way of what is searched: its own pages are left out.
    let size = 1 << 20
    guard let buffer = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) else { return -1 }
    defer { munmap(buffer, size) }
    let own = UInt64(UInt(bitPattern: buffer))
    for line in maps.split(separator: "\n") {
        let fields = line.split(separator: " ")
        guard fields.count >= 2, fields[1].hasPrefix("rw") else { continue }
        let bounds = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
        // A sanitizer's shadow is no memory of the program's, and takes days to read.
        guard bounds[1] - bounds[0] < 1 << 30 else { continue }
        var address = bounds[0]
        while address < bounds[1] {
            // Pieces overlap, so that nothing hides on a border.
            let count = pread(memory, buffer, min(size, Int(bounds[1] - address)), off_t(truncatingIfNeeded: address))
            guard count > inverted.count else { break }
            if address < own || address >= own + UInt64(size) {
                let bytes = UnsafeRawBufferPointer(start: buffer, count: count)
                var place = 0
                while let hit = memchr(buffer + place, Int32(~inverted[0]), count - place) {
                    place = hit - buffer
                    if place + inverted.count > count { break }
                    if inverted.indices.allSatisfy({ bytes[place + $0] == ~inverted[$0] }) { found += 1 }
                    place += 1
                }
            }
            if address + UInt64(count) >= bounds[1] { break }
            address += UInt64(count - inverted.count)
        }
    }
    return found
}
