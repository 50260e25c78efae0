import CLinux
import Glibc
import Shared
import Testing

@testable import supervisor

@Suite struct `A certificate's dates` {
    private let day: Int64 = 86_400
    /// 2026-11-26T00:00:00Z to 2027-02-24T00:00:00Z.
    private let from: Int64 = 1_795_651_200
    private let until: Int64 = 1_803_427_200

    private func warning(_ now: Int64) -> String? {
        Credentials(certificate: -1, privateKey: -1, validity: (from, until)).warning(nowUnixSeconds: now)
    }

    @Test func `are worth no word while all is well`() {
        for now in [from, from + 1, until - 14 * day] { #expect(warning(now) == nil) }
    }

    @Test func `are warned about before they begin, when they end soon, and when they have ended`() {
        #expect(warning(from - 1) == "the certificate is not valid before 2026-11-26T00:00:00.000Z")
        #expect(warning(until - 14 * day + 1) == "the certificate expires on 2027-02-24T00:00:00.000Z, in 13 days")
        #expect(warning(until) == "the certificate expires on 2027-02-24T00:00:00.000Z, in 0 days")
        #expect(
            warning(until + 1)
                == "the certificate has expired on 2027-02-24T00:00:00.000Z: clients will refuse it")
    }
}

@Suite struct `A copy of a certificate or key` {
    @Test func `holds what the file holds, and nobody can change it any more`() throws {
        let file = Descriptor(owning: open("/etc/passwd", O_RDONLY | O_CLOEXEC))
        var status = stat()
        #expect(fstat(file.number, &status) == 0)
        let copy = try Credentials.copy(file, bytes: Int(status.st_size))
        #expect(clinux_file_bytes(copy.number) == Int64(status.st_size))
        #expect(pwrite(copy.number, "x", 1, 0) == -1 && errno == EPERM)
        #expect(ftruncate(copy.number, 0) == -1 && errno == EPERM)
        #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, copy.number, 0) == MAP_FAILED)
        let seals = fcntl(copy.number, 1034)
        // F_SEAL_SEAL, SHRINK, GROW and WRITE.
        #expect(seals & 15 == 15)
    }
}
