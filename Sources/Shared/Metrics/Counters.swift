// The numbers that a worker publishes and that are no family of reasons (CounterFamily.swift). The order is the order
// in shared memory (SharedMemory.swift), so a change of it raises that memory's version. What a counter is called on
// /metrics stands in the supervisor's Metrics.swift.

/// What a worker process holds now.
package enum Gauge: Int, CaseIterable, Sendable {
    /// Sockets of clients, in whatever state.
    case connections
    /// Connections that are in a room.
    case clients
    case rooms
    /// Nanoseconds of the longest turn of the loop in the last whole second.
    case loopLag
    /// Bytes of memory that are kept for connections.
    case heldBytes
    /// Nanoseconds of the longest time that a room was quiet which has moved here.
    case movePauseMax
    /// Bytes of RELAY_MAX_MEMORY that are this worker's at the moment.
    case memoryGranted

    /// The most that a worker's page is believed to say: whatever stands there, sums over all pages don't overflow.
    package var most: UInt64 {
        switch self {
        case .connections, .clients: UInt64(Limits.connectionsRange.upperBound)
        case .rooms: UInt64(Limits.roomsRange.upperBound)
        // A petabyte, or 13 days.
        default: 1 << 50
        }
    }
}

/// What has happened in a worker's place since the relay started, over all processes that filled it.
package enum Counter: Int, CaseIterable, Sendable {
    // Connections and requests
    case accepted
    case acceptFailed
    case requests
    case requestRefused
    /// Those of them that were more than the address's rate.
    case requestRateLimited
    case bytesReceived
    case bytesSent

    // Requests of a trusted proxy that count for the proxy, because its headers don't say whose they are
    case clientAddressDisagreement
    case clientAddressRepeated
    case clientAddressMalformed

    // TLS handshakes
    case tlsHandshakeFull
    case tlsHandshakeResumed
    case tlsHandshakePutOff

    // Handoffs
    case handoffSent
    case handoffReceived
    case handoffMalformed
    case handoffRetried

    // Messages by class; their bytes are counted with the header of the frame that passes each on.
    case voiceReceived
    case dataReceived
    case voiceBytesReceived
    case dataBytesReceived
    case voiceDelivered
    case dataDelivered
    case voiceBytesDelivered
    case dataBytesDelivered
    /// Data that a busy worker held back for more to come: batches, each of one room.
    case batchesHeld
    /// Parts of batches that wait once for several members.
    case blocksShared
    case leaveNotices
    /// Times that a member was not read for a while because it sent more than it may in a second.
    case readsPaused

    // Rooms
    case roomsOpened
    case roomsClosed
    case hostKeysRestored
    case hostKeysExpired

    // Rooms that move to other workers
    case roomsMovedOut
    case roomsMovedIn
    case membersMovedOut
    case membersMovedIn
    case bytesMoved
    case joinAwaitedRoom
}
