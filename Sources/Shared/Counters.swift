// Every number that a worker publishes. The order is the order in shared memory (SharedMemory.swift): append, never reorder,
// within one version of the memory.

/// What a worker process holds now.
package enum Gauge: Int, CaseIterable, Sendable {
    /// Sockets of clients, in whatever state.
    case connections
    /// Connections that are in a room.
    case clients
    case rooms
    /// Nanoseconds of the longest turn of the loop in the last whole second.
    case loopLag
    /// Bytes of memory that queues take for clients which are slow.
    case heldBytes
    /// Nanoseconds of the longest time that a room was quiet which has moved here.
    case movePauseMax
}

/// What has happened in a worker's place since the relay started, over all processes that filled it.
package enum Counter: Int, CaseIterable, Sendable {
    // Connections
    case accepted
    case acceptFailed
    case connectionRefusedFull

    // Requests
    case requests
    case requestRefused

    // TLS handshakes, by result
    case tlsHandshakeFull
    case tlsHandshakeResumed
    case tlsHandshakePutOff
    case tlsPlainHTTP
    case tlsFailedProtocolVersion
    case tlsFailedNothingInCommon
    case tlsFailedApplicationProtocol
    case tlsFailedMalformed
    case tlsFailedRefusedByClient
    case tlsFailedTooLong
    case tlsFailedInternal
    case tlsFailedLibraryChanged

    // Joins, by result
    case joinHost
    case joinGuest
    case joinRateLimited
    case joinMissingParameter
    case joinInvalidRoom
    case joinBadHandshake
    case joinInvalidPublicKey
    case joinRoomNotFound
    case joinInvalidToken
    case joinRoomMismatch
    case joinHostRoleRequired
    case joinRoomHeld
    case joinMaxRooms
    case joinRoomFull
    case joinHandoffFailed
    case joinShuttingDown

    // Handoffs
    case handoffSent
    case handoffReceived
    case handoffRetried
    case handoffMalformed

    // Messages
    case voiceReceived
    case dataReceived
    case bytesReceived
    case voiceDelivered
    case dataDelivered
    case bytesSent
    case voiceDropped
    case pongSkipped
    case leaveNotices

    // Closes, by reason
    case closedByPeer
    case closedPeerGone
    case closedProtocolError
    case closedInvalidText
    case closedMessageTooBig
    case closedSlow
    case closedMemory
    case closedIdleRoom
    case closedTimeout
    case closedRequestTimeout
    case closedShutdown
    case closedSocketError
    case closedFlushTimeout
    case closedTLSViolation
    case closedTLSAlert

    // Rooms
    case roomsOpened
    case roomsClosed
    case hostKeysRestored
    case hostKeysExpired
    case hostKeyReportsLost

    // Changes of generations
    case roomsMovedOut
    case roomsMovedIn
    case membersMovedOut
    case membersMovedIn
    case bytesMoved
    case joinAwaitedRoom
    case closedRestart

    // Bytes of messages by class, with the header of the frame that passes each on
    case voiceBytesReceived
    case dataBytesReceived
    case voiceBytesDelivered
    case dataBytesDelivered

    // Connections of one address, at the accept and at the join
    case connectionRefusedAddress
    case joinAddressFull

    // Data that a busy worker held back for more to come: batches, each of one room
    case batchesHeld
}
