import Shared
import Testing

@testable import worker

@Suite struct `Places for handshakes` {
    private let perAddress = Limits.tlsHandshakesPerAddressMax
    private let all = Limits.tlsHandshakesMax

    private func keys(_ text: String) throws -> AddressKeys { try #require(Address(text)).keys }

    @Test func `are a sixteenth for one address, and half for a /48`() throws {
        #expect(perAddress * 16 == all)
        var places = HandshakePlaces()
        var slot: UInt32 = 0
        for text in ["192.0.2.1", "2001:db8::1"] {
            for _ in 0..<perAddress {
                #expect(places.verdict(try keys(text)) == .begins)
                places.begin(slot, try keys(text))
                slot += 1
            }
            #expect(places.verdict(try keys(text)) == .waits)
        }
        // Another network of the same /48.
        for index in 1..<8 {
            let network = try keys("2001:db8:0:\(index)::1")
            for _ in 0..<perAddress {
                #expect(places.verdict(network) == .begins)
                places.begin(slot, network)
                slot += 1
            }
        }
        #expect(places.verdict(try keys("2001:db8:0:9::1")) == .waits)
        #expect(places.verdict(try keys("2001:db8:1:9::1")) == .begins)
        #expect(places.count == 9 * perAddress)
        // What is over makes room for one.
        places.end(0, try keys("192.0.2.1"))
        places.end(0, try keys("192.0.2.1"))
        #expect(places.verdict(try keys("192.0.2.1")) == .begins)
        #expect(places.count == 9 * perAddress - 1)
    }

    @Test func `go from the party that has most to one that has fewer, oldest first, where all are taken`() throws {
        var places = HandshakePlaces()
        // Sixteen addresses of attackers have all of them, the first of them one fewer, and a client one.
        var slot: UInt32 = 0
        for index in 1...16 {
            for _ in 0..<(index == 1 ? perAddress - 1 : perAddress) {
                places.begin(slot, try keys("192.0.2.\(index)"))
                slot += 1
            }
        }
        let client = try keys("198.51.100.1")
        #expect(places.verdict(client) == .begins)
        places.begin(slot, client)
        #expect(places.count == all)
        for round in 0..<20 {
            guard case .replaces(let victim) = places.verdict(try keys("198.51.100.2")) else {
                Issue.record("whoever is at another address gets one")
                return
            }
            let attacker = try keys("192.0.2.\(1 + (Int(victim) + 1) / perAddress)")
            #expect(victim >= UInt32(perAddress - 1), "not of the one that has fewer")
            places.end(victim, attacker)
            places.begin(100_000 + UInt32(round), try keys("198.51.100.2"))
            #expect(places.count == all)
        }
        // One that has as many as others have takes none from them.
        #expect(places.verdict(try keys("192.0.2.1")) == .waits)
    }
}
