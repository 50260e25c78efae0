// RELAY_MAX_CONNECTIONS_PER_IP: how many connections an address has, over all workers (Shared/AddressTable.swift). Where the limit
// has never been on there is no ledger, and none of this does anything. Where a reload has turned it off, connections that are counted
// are still given back; where one has turned it on, members of rooms are not counted that were there before.
//
// A connection is counted as soon as it is known whose it is (ClientNaming.swift): when it is accepted, by its socket's peer. Only a trusted
// proxy's is not: it stands for many clients. With the PROXY protocol that one is counted when its header has named a client, else
// when it joins, by the worker that owns the room; a proxy's questions to `/health` are never refused.

import CLinux
import Glibc
import Logging
import Shared

extension Worker {
    /// Counts a new connection, if its peer says whose it is.
    ///
    /// - Returns: false if the address has as many as it may.
    mutating func countAddress(_ connection: inout Connection) -> Bool {
        guard countsAddresses else { return true }
        let peer = connection.peer
        guard !configuration.trustedProxies.contains(where: { $0.contains(peer) }) else { return true }
        connection.addressToken = takeAddress(peer)
        return connection.addressToken != .none
    }

    /// Counts a connection that came through a trusted proxy, once it is known whose it is.
    ///
    /// - Returns: false if the address has as many as it may.
    mutating func countClient(_ slot: UInt32) -> Bool {
        guard countsAddresses, connections[slot].addressToken == .none else { return true }
        connections[slot].addressToken = takeAddress(connections[slot].client)
        holdAddress(slot)
        return connections[slot].addressToken != .none
    }

    private var countsAddresses: Bool { addresses != nil && configuration.connectionsPerAddressMax > 0 }

    private func takeAddress(_ address: Address) -> AddressToken {
        addresses?.take(key: address.limiterKey, max: configuration.connectionsPerAddressMax) ?? .none
    }

    /// A new connection's address has as many as it may: says so as far as one write does. The caller closes.
    mutating func refuseAddress(_ socket: borrowing Descriptor, _ peer: Address) {
        addressRefused(peer)
        // TLS has nothing to say before its handshake.
        if tlsContext == nil, let refusal = JoinResult.addressFull.refusal {
            let answer = Response.error(refusal.status, refusal.text, extra: [("Retry-After", "1")])
            _ = unsafe send(socket.number, answer, answer.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
    }

    /// Counts and logs that a connection is refused because its address has too many.
    mutating func addressRefused(_ address: Address) {
        page.count(.connectionRefusal(.addressFull))
        logger.debug("connection refused", metadata: ["address": "\(address)"])
        if let suppressed = addressLogRate.admit(nowNanoseconds: now) {
            logger.warning(
                "connection refused: its address has too many",
                metadata: ["max": "\(configuration.connectionsPerAddressMax)", "suppressed": "\(suppressed)"])
        }
    }

    /// Writes down in the ledger that the connection in this slot is counted.
    mutating func holdAddress(_ slot: UInt32) {
        let token = connections[slot].addressToken
        guard token != .none else { return }
        addresses?.hold(token, slot: slot)
    }

    /// The connection in this slot ends here.
    mutating func releaseAddress(_ slot: UInt32) {
        let token = connections[slot].addressToken
        guard token != .none else { return }
        connections[slot].addressToken = .none
        addresses?.release(token, slot: slot)
    }

    /// Another worker has been sent the connection in this slot, counted as it is.
    mutating func departAddress(_ slot: UInt32) {
        guard connections[slot].addressToken != .none else { return }
        connections[slot].addressToken = .none
        addresses?.handedOver(slot: slot)
    }

    /// Looks whether the connection that is next in the inbox is counted, and writes it down before it is taken.
    func expectAddress() -> AddressToken {
        guard addresses != nil else { return .none }
        // The message stays, and no descriptor comes without room for it.
        let received = unsafe recv(inbox.number, receiveBuffer.address, 16, Int32(MSG_PEEK | MSG_DONTWAIT))
        guard received == 16 else { return .none }
        let head = unsafe receiveBuffer.prefix(16)
        let magic = unsafe UInt32(littleEndian: head.loadUnaligned(as: UInt32.self))
        guard magic == ConnectionState.magic || magic == MemberState.magic else { return .none }
        let token = AddressToken(inMessage: unsafe head.bytes)
        if token != .none { addresses?.expect(token) }
        return token
    }

    /// A connection in the inbox could not be taken: it is counted no more.
    func forgetHandoff(_ token: AddressToken) {
        memory.connections.give()
        if token != .none { addresses?.abandon(token) }
    }
}
