// RELAY_MAX_CONNECTIONS_PER_IP and RELAY_MAX_ROOMS_PER_IP: how many connections and rooms an address has, over all
// workers (Shared/AddressTable.swift). Where neither limit has ever been on there is no ledger, and none of this does
// anything. Where a reload has turned one off, what is counted is still given back; where one has turned it on, members
// of rooms are not counted that were there before.
//
// A connection is counted as soon as it is known whose it is (ClientNaming.swift): when it is accepted, by its socket's
// peer. Only a trusted proxy's is not: it stands for many clients. With the PROXY protocol that one is counted when its
// header has named a client, else when it joins, by the worker that owns the room; a proxy's questions to `/health` are
// never refused for their number of connections.
//
// A room is counted at the address whose host opens it, from there on until it closes, wherever it moves.

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
        guard !isTrustedProxy(peer) else { return true }
        guard let charge = takeAddress(peer) else { return false }
        connection.addressCharge = charge
        return true
    }

    /// Counts a connection that came through a trusted proxy, once it is known whose it is.
    ///
    /// - Returns: false if the address has as many as it may.
    mutating func countClient(_ slot: UInt32) -> Bool {
        guard countsAddresses, connections[slot].addressCharge == .none else { return true }
        guard let charge = takeAddress(connections[slot].client) else { return false }
        connections[slot].addressCharge = charge
        holdAddress(slot)
        return true
    }

    private var countsAddresses: Bool { addresses != nil && configuration.connectionsPerAddressMax > 0 }

    private func takeAddress(_ address: Address) -> AddressCharge? {
        addresses?.take(.connection, address.keys, max: configuration.connectionsPerAddressMax)
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
        let charge = connections[slot].addressCharge
        guard charge != .none else { return }
        addresses?.hold(.connection, charge, slot: slot)
    }

    /// The connection in this slot ends here.
    mutating func releaseAddress(_ slot: UInt32) {
        let charge = connections[slot].addressCharge
        guard charge != .none else { return }
        connections[slot].addressCharge = .none
        addresses?.release(.connection, charge, slot: slot)
    }

    /// Another worker has been sent the connection in this slot, counted as it is.
    mutating func departAddress(_ slot: UInt32) {
        guard connections[slot].addressCharge != .none else { return }
        connections[slot].addressCharge = .none
        addresses?.handedOver(.connection, slot: slot)
    }

    /// Looks whether what is next in the inbox is counted, and writes it down before it is taken.
    ///
    /// - Returns: where the connection is counted, if it is one.
    func expectAddress() -> AddressCharge {
        guard addresses != nil else { return .none }
        // The message stays, and no descriptor comes without room for it.
        let received = unsafe recv(
            inbox.number, receiveBuffer.address, AddressCharge.messageBytes, Int32(MSG_PEEK | MSG_DONTWAIT))
        guard received == AddressCharge.messageBytes else { return .none }
        let head = unsafe receiveBuffer.prefix(received)
        let magic = unsafe UInt32(littleEndian: head.loadUnaligned(as: UInt32.self))
        let charge = AddressCharge(inMessage: unsafe head.bytes)
        if magic == MoveMessage.magic && charge != .none { addresses?.expect(.room, charge) }
        guard magic == ConnectionState.magic || magic == MemberState.magic else { return .none }
        if charge != .none { addresses?.expect(.connection, charge) }
        return charge
    }

    /// A new connection does not come about: it is counted no more.
    func abandonAddress(_ charge: AddressCharge) {
        if charge != .none { addresses?.abandon(.connection, charge) }
    }

    /// A connection in the inbox could not be taken: it is counted no more.
    func forgetHandoff(_ charge: AddressCharge) {
        memory.connections.give()
        abandonAddress(charge)
    }
}

// MARK: - Rooms

extension Worker {
    private var countsRooms: Bool { addresses != nil && configuration.roomsPerAddressMax > 0 }

    /// Counts a room that a host at this address opens.
    ///
    /// - Returns: nil if the address has as many as it may.
    func takeRoomAddress(_ address: Address) -> AddressCharge? {
        guard countsRooms else { return AddressCharge.none }
        return addresses?.take(.room, address.keys, max: configuration.roomsPerAddressMax)
    }

    /// The room's host is here: a room that a guest has opened with a key that outlived its worker, or that is older
    /// than the limit, counts from now on, if it may. It is there, so nobody is refused.
    mutating func countRoom(_ room: UInt32, of slot: UInt32) {
        guard countsRooms, rooms[room].addressCharge == .none else { return }
        if let charge = takeRoomAddress(connections[slot].client) { holdRoomAddress(room, charge) }
    }

    /// Writes down in the ledger where the room in this slot is counted.
    mutating func holdRoomAddress(_ room: UInt32, _ charge: AddressCharge) {
        guard charge != .none else { return }
        rooms[room].addressCharge = charge
        addresses?.hold(.room, charge, slot: room)
    }

    /// The room in this slot ends here.
    mutating func releaseRoomAddress(_ room: UInt32) {
        let charge = rooms[room].addressCharge
        guard charge != .none else { return }
        rooms[room].addressCharge = .none
        addresses?.release(.room, charge, slot: room)
    }

    /// Another worker has been sent the room in this slot, counted as it is.
    mutating func departRoomAddress(_ room: UInt32) {
        guard rooms[room].addressCharge != .none else { return }
        rooms[room].addressCharge = .none
        addresses?.handedOver(.room, slot: room)
    }

    /// A room does not come about: it is counted no more.
    func abandonRoomAddress(_ charge: AddressCharge) {
        if charge != .none { addresses?.abandon(.room, charge) }
    }

    /// A room that was expected with this charge has come.
    func forgetExpectedRoom(_ charge: AddressCharge) {
        if charge != .none { addresses?.expect(.room, .none) }
    }
}
