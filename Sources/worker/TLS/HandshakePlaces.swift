// Places for handshakes that libssl is at work on, each some 25 to 50 KiB: how many there are, who has them, and who
// gets the next.
//
//     an address (IPv4, or a /64) has a sixteenth at the most, and a /48 half: beyond it its next ones wait
//     when all are taken, the oldest of the party that has most gives way to a party that has fewer
//
// So whoever is at another address always gets one. (OpenSSH: PerSourceMaxStartups, MaxStartups.)

import Shared

struct HandshakePlaces {
    /// Whether a connection may begin its handshake.
    enum Verdict: Equatable {
        case begins
        /// It begins in the place of another.
        case replaces(UInt32)
        case waits
    }

    /// By party, in the order in which they began.
    private var shares = SourceShares()
    private var byAddress: [UInt64: Int] = [:]

    var count: Int { shares.count }

    func verdict(_ keys: AddressKeys) -> Verdict {
        let own = shares.count(of: keys.party)
        let ownMax = Limits.tlsHandshakesPerAddressMax * (keys.wide == nil ? 1 : Limits.wideCountFactor)
        guard own < ownMax, byAddress[keys.narrow, default: 0] < Limits.tlsHandshakesPerAddressMax else {
            return .waits
        }
        guard count >= Limits.tlsHandshakesMax else { return .begins }
        guard let greediest = shares.greediest, greediest.count > own + 1,
            let oldest = shares.oldest(of: greediest.key)
        else { return .waits }
        return .replaces(oldest)
    }

    /// The handshake of the connection in a slot begins.
    mutating func begin(_ slot: UInt32, _ keys: AddressKeys) {
        shares.insert(slot, of: keys.party)
        byAddress[keys.narrow, default: 0] += 1
    }

    /// It is over, if it has begun.
    mutating func end(_ slot: UInt32, _ keys: AddressKeys) {
        guard shares.contains(slot) else { return }
        shares.remove(slot)
        let left = byAddress[keys.narrow, default: 1] - 1
        byAddress[keys.narrow] = left > 0 ? left : nil
    }
}
