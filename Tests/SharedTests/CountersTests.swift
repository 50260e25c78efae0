import Shared
import Testing

/// The order is the order in shared memory, where an old process may have filled it: it changes only together with the
/// memory's version.
@Suite struct `Counters and gauges` {
    @Test func `stand in the order that they had`() {
        let gauges = Gauge.allCases.map { "\($0)" }
        #expect(gauges == ["connections", "clients", "rooms", "loopLag", "heldBytes", "movePauseMax"])
        let counters = Counter.allCases.map { "\($0)" }
        #expect(
            counters == [
                "accepted", "acceptFailed", "connectionRefusedFull",
                "requests", "requestRefused",
                "tlsHandshakeFull", "tlsHandshakeResumed", "tlsHandshakePutOff", "tlsPlainHTTP",
                "tlsFailedProtocolVersion", "tlsFailedNothingInCommon", "tlsFailedApplicationProtocol",
                "tlsFailedMalformed", "tlsFailedRefusedByClient", "tlsFailedTooLong", "tlsFailedInternal",
                "tlsFailedLibraryChanged",
                "joinHost", "joinGuest", "joinRateLimited", "joinMissingParameter", "joinInvalidRoom",
                "joinBadHandshake", "joinInvalidPublicKey", "joinRoomNotFound", "joinInvalidToken", "joinRoomMismatch",
                "joinHostRoleRequired", "joinRoomHeld", "joinMaxRooms", "joinRoomFull", "joinHandoffFailed",
                "joinShuttingDown",
                "handoffSent", "handoffReceived", "handoffRetried", "handoffMalformed",
                "voiceReceived", "dataReceived", "bytesReceived", "voiceDelivered", "dataDelivered", "bytesSent",
                "voiceDropped", "pongSkipped", "leaveNotices",
                "closedByPeer", "closedPeerGone", "closedProtocolError", "closedInvalidText", "closedMessageTooBig",
                "closedSlow", "closedMemory", "closedIdleRoom", "closedTimeout", "closedRequestTimeout",
                "closedShutdown",
                "closedSocketError", "closedFlushTimeout", "closedTLSViolation", "closedTLSAlert",
                "roomsOpened", "roomsClosed", "hostKeysRestored", "hostKeysExpired", "hostKeyReportsLost",
                "roomsMovedOut", "roomsMovedIn", "membersMovedOut", "membersMovedIn", "bytesMoved", "joinAwaitedRoom",
                "closedRestart",
                "voiceBytesReceived", "dataBytesReceived", "voiceBytesDelivered", "dataBytesDelivered",
                "connectionRefusedAddress", "joinAddressFull",
                "batchesHeld",
            ])
    }

    @Test func `are numbered from 0 without a gap, so that each has a place of its own`() {
        #expect(Gauge.allCases.map(\.rawValue) == Array(Gauge.allCases.indices))
        #expect(Counter.allCases.map(\.rawValue) == Array(Counter.allCases.indices))
    }
}
