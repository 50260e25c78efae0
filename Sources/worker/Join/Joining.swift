// The checks of a join, in the order of the wire protocol; the first that fails answers.
//
// Those that need no room are made by the worker that accepted the connection. Then the connection goes to the room's
// owner, which parses the head again and makes the rest: a head is small, and one description of a request that is
// still bytes is less to get wrong than a second one that is not.

import Logging
import Shared

/// What a join asks for.
private struct JoinRequest {
    var room: [UInt8]
    var token: [UInt8]
    /// A host's; its presence makes the join a host's.
    var publicKey: [UInt8]?
    /// Sec-WebSocket-Accept.
    var accept: [UInt8]
    var headBytes: Int
}

/// A join that is refused: `throw JoinRefusal(.roomFull)`.
struct JoinRefusal: Error {
    let result: JoinResult
    let answer: RequestError
    /// Seconds.
    let retryAfter: UInt64?

    /// - Parameters:
    ///   - answer: where it varies; else the result's row has it.
    ///   - retryAfter: seconds, where they vary.
    init(_ result: JoinResult, _ answer: RequestError? = nil, retryAfter: UInt64? = nil) {
        guard let refusal = answer ?? result.refusal else {
            preconditionFailure("a join that is let in is not refused")
        }
        self.result = result
        self.answer = refusal
        self.retryAfter = retryAfter ?? result.retryAfter
    }
}

extension Worker {
    /// Lets a connection into its room, sends it to the room's owner, or refuses it.
    ///
    /// - Returns: a room in which something has been said that is not for the one who comes: it must be flushed before
    ///   the request is looked at again. Nil if the request is done with.
    mutating func join(_ slot: UInt32, _ request: Request) -> UInt32? {
        do throws(JoinRefusal) {
            if connections[slot].hops == 0 { try limitJoins(slot) }
            let join = try check(request)
            guard drainDeadline == nil else { throw JoinRefusal(.shuttingDown) }
            let owner = placement.owner(of: join.room)
            guard leaving == nil && owner == index else {
                handOver(slot, to: owner)
                return nil
            }
            guard !isOnItsWay(join.room) else {
                awaitRoom(slot, join.room)
                return nil
            }
            if let room = roomsByID[RoomID(bytes: join.room)], rooms[room].batch != nil {
                // Who would be refused in any case does not stand in front of those who wait.
                if mustJoinLater(room) { _ = try claims(of: join) }
                // Its checks are not made, nor counted, again.
                connections[slot].hops = max(1, connections[slot].hops)
                return room
            }
            guard countClient(slot) else { throw JoinRefusal(.addressFull) }
            try admit(slot, join)
        } catch {
            refuse(slot, error, request: request)
        }
        return nil
    }

    /// Refuses a join and lets the connection end with it.
    mutating func refuse(_ slot: UInt32, _ refusal: JoinRefusal, request: Request?) {
        page.count(.join(refusal.result))
        logger.debug(
            "join refused",
            metadata: [
                "reason": "\(refusal.result)", "answer": "\(refusal.answer.text)",
                "address": "\(connections[slot].client)",
            ])
        refuse(slot, refusal.answer, request: request, retryAfter: refusal.retryAfter)
    }

    private func limitJoins(_ slot: UInt32) throws(JoinRefusal) {
        let rate = configuration.joinsPerSecondPerAddress
        guard rate > 0 else { return }
        if let wait = memory.admit(connections[slot].client.keys, to: .joins, rate: rate, now: now) {
            throw JoinRefusal(.rateLimited, retryAfter: retryAfter(wait))
        }
    }

    /// What needs no room.
    private func check(_ request: Request) throws(JoinRefusal) -> JoinRequest {
        let query = QueryParameters(request.query)
        guard let room = query.first("room"), let token = query.first("token"), !room.isEmpty, !token.isEmpty else {
            throw JoinRefusal(.missingParameter)
        }
        guard isValidRoomID(room) else { throw JoinRefusal(.invalidRoom) }
        let accept: [UInt8]
        switch request.upgrade {
        case .valid(let value): accept = value
        case .refused(let error): throw JoinRefusal(.badHandshake, error)
        }
        guard request.isOriginAllowed(configuration.allowedOrigins) else {
            throw JoinRefusal(.originNotAllowed)
        }
        var publicKey: [UInt8]?
        if let text = query.first("pubkey") {
            publicKey = decodePublicKey(text)
            guard publicKey != nil else { throw JoinRefusal(.invalidPublicKey) }
        }
        return JoinRequest(
            room: room, token: token, publicKey: publicKey, accept: accept, headBytes: request.headBytes)
    }

    /// What a join's token says, and the key that it was checked with.
    private func claims(of join: JoinRequest) throws(JoinRefusal) -> (Claims, [UInt8]) {
        let id = RoomID(bytes: join.room)
        let heldKey = roomsByID[id].map { rooms[$0].hostKey } ?? survivingKeys[id]?.publicKey
        guard let key = join.publicKey ?? heldKey else { throw JoinRefusal(.roomNotFound) }
        let claims: Claims
        do throws(TokenError) {
            let seconds = Int64(Clock.unixNanoseconds() / 1_000_000_000)
            claims = try verifyToken(join.token, publicKey: key, nowUnixSeconds: seconds)
        } catch {
            throw JoinRefusal(.invalidToken, RequestError(status: .unauthorized, text: error.answer))
        }
        guard claims.roomID == join.room else { throw JoinRefusal(.roomMismatch) }
        if join.publicKey != nil {
            guard claims.isHost else { throw JoinRefusal(.hostRoleRequired) }
            guard heldKey == nil || heldKey == join.publicKey else { throw JoinRefusal(.roomHeld) }
        }
        return (claims, key)
    }

    /// What needs the room, and the entry into it.
    private mutating func admit(_ slot: UInt32, _ join: JoinRequest) throws(JoinRefusal) {
        let existing = roomsByID[RoomID(bytes: join.room)]
        let (claims, key) = try claims(of: join)
        let isHost = join.publicKey != nil
        let room: UInt32
        if let existing {
            let max = configuration.clientsPerRoomMax + (isHost ? Limits.hostOverRoomMax : 0)
            guard rooms[existing].members.count < max else { throw JoinRefusal(.roomFull) }
            room = existing
            if isHost { countRoom(room, of: slot) }
        } else {
            // A guest opens a room that had a host: what its address has of rooms is another matter.
            guard let charge = isHost ? takeRoomAddress(connections[slot].client) : AddressCharge.none else {
                throw JoinRefusal(.addressRoomsFull)
            }
            guard memory.rooms.take(max: configuration.roomsMax) else {
                abandonRoomAddress(charge)
                throw JoinRefusal(.maxRooms)
            }
            room = openRoom(
                join.room, hostKey: key, source: connections[slot].client.memoryKey, charge: charge)
        }
        page.count(.join(isHost ? .host : .guest))
        letIn(slot, room, join, claims)
    }

    /// The handshake's answer; from here on the connection speaks WebSocket. Frames that came with the head count.
    private mutating func letIn(_ slot: UInt32, _ room: UInt32, _ join: JoinRequest, _ claims: Claims) {
        connections[slot].outbox.appendControl(Response.switchingProtocols(accept: join.accept))
        connections[slot].phase = .open
        unjoined.remove(slot)
        connections[slot].peerID = claims.peerID
        enter(slot, room)
        // If memory is short it may have given way to the room that it enters.
        guard connections[slot].phase == .open else { return }
        watchAsMember(slot)
        startLiveness(slot)
        touch(slot)
        var early = ByteQueue()
        swap(&early, &connections[slot].input)
        account(slot)
        early.removeFirst(join.headBytes)
        guard !early.isEmpty else { return }
        let bytes = unsafe early.unsafeBytes
        takeFrames(slot, unsafe bytes.bytes)
        // The bytes are read in place: they must outlive the call.
        early.release()
    }
}
