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
