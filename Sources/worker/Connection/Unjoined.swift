// Connections that have not joined a room: anybody can open them, without any credential. They have a share of
// RELAY_MAX_CONNECTIONS (Limits.unjoinedMax); the rest is for members. When their share, or the relay, is full, the
// oldest of the party that has most in this worker gives its place to the newcomer: so a client at another address gets
// in, and a client that has many open loses one. Under one party's load, be it an attacker's or a proxy's, the oldest
// goes: it has most likely been forgotten.
//
// Each worker closes its own. The kernel spreads connections over the workers, so a party that has most in the relay
// has most in each.

import Logging
import Shared

extension Worker {
    /// A place in the relay's quota of connections.
    enum Place {
        case free
        /// That of a connection which has gone for it.
        case another
        case none
    }

    /// Takes a place for a connection of this peer.
    mutating func takePlace(for peer: Address) -> Place {
        if hasUnjoinedPlace && memory.connections.take(max: configuration.connectionsMax) { return .free }
        guard let slot = whoGivesWay(to: peer.keys.party) else { return .none }
        giveWay(slot)
        return .another
    }

    /// Whether those that have not joined have less than their share, over the whole relay. Where it has fewer
    /// connections than that there is nothing to add up.
    private var hasUnjoinedPlace: Bool {
        let max = UInt64(Limits.unjoinedMax(connectionsMax: configuration.connectionsMax))
        guard memory.connections.count >= max else { return true }
        var joined: UInt64 = 0
        for page in memory.pages { joined &+= min(page[.clients], page[.connections]) }
        let connections = memory.connections.count
        return connections - min(joined, connections) < max
    }

    private func whoGivesWay(to party: UInt64) -> UInt32? {
        guard let greediest = unjoined.greediest else { return nil }
        guard greediest.count <= unjoined.count(of: party) else { return unjoined.oldest(of: greediest.key) }
        guard let own = unjoined.oldest(of: party), second >= connections[own].acceptedAt + Limits.ownPlaceSeconds
        else {
            return nil
        }
        return own
    }

    /// Ends a connection whose place another has from now on: it is removed when the turn ends, as if it had departed.
    private mutating func giveWay(_ slot: UInt32) {
        count(.gaveWay)
        departing += 1
        countConnections()
        unwatch(slot)
        depart(slot)
        if let suppressed = addressLogRate.admit(nowNanoseconds: now) {
            logger.warning(
                "connections that have not joined are many: the oldest give way",
                metadata: ["max": "\(configuration.connectionsMax)", "suppressed": "\(suppressed)"])
        }
    }
}
