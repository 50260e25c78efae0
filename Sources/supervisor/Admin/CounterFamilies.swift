// Which counter of shared memory is which sample: every counter is exactly one (a test compares).

import Shared

extension Metrics {
    struct CounterFamily {
        var name: String
        var help: String
        var samples: [(labels: [MetricsText.Label], counter: Counter)]

        init(_ name: String, _ help: String, _ counter: Counter) {
            self.name = name
            self.help = help
            samples = [([], counter)]
        }

        /// One sample a value of a label.
        init(_ name: String, _ help: String, _ label: String, _ values: KeyValuePairs<String, Counter>) {
            self.name = name
            self.help = help
            samples = values.map { ([(label, $0.key)], $0.value) }
        }
    }

    static let counterFamilies: [CounterFamily] = [
        // Connections and requests
        CounterFamily("relay_connections_accepted_total", "Connections accepted.", .accepted),
        CounterFamily(
            "relay_accept_failures_total", "Times that accepting failed for want of descriptors or memory.",
            .acceptFailed),
        CounterFamily(
            "relay_connections_refused_total", "Connections refused, by reason.", "reason",
            ["full": .connectionRefusedFull, "address_full": .connectionRefusedAddress]),
        CounterFamily("relay_requests_total", "HTTP requests, joins among them.", .requests),
        CounterFamily(
            "relay_requests_refused_total", "HTTP requests refused, joins that failed among them.", .requestRefused),

        // TLS
        CounterFamily(
            "relay_tls_handshakes_total", "TLS handshakes completed, by whether a session was resumed.", "resumed",
            ["false": .tlsHandshakeFull, "true": .tlsHandshakeResumed]),
        CounterFamily(
            "relay_tls_handshake_failures_total", "TLS handshakes failed, by reason.", "reason",
            [
                "plain_http": .tlsPlainHTTP, "protocol_version": .tlsFailedProtocolVersion,
                "nothing_in_common": .tlsFailedNothingInCommon,
                "application_protocol": .tlsFailedApplicationProtocol, "malformed": .tlsFailedMalformed,
                "refused_by_client": .tlsFailedRefusedByClient, "too_long": .tlsFailedTooLong,
                "internal": .tlsFailedInternal, "library_changed": .tlsFailedLibraryChanged,
            ]),
        CounterFamily(
            "relay_tls_handshakes_put_off_total",
            "Times that a TLS handshake had to wait because many others were under way.", .tlsHandshakePutOff),

        // Joins and handoffs
        CounterFamily(
            "relay_joins_total", "Joins by result: host and guest were let in.", "result",
            [
                "host": .joinHost, "guest": .joinGuest, "rate_limited": .joinRateLimited,
                "missing_parameter": .joinMissingParameter, "invalid_room": .joinInvalidRoom,
                "bad_handshake": .joinBadHandshake, "invalid_public_key": .joinInvalidPublicKey,
                "room_not_found": .joinRoomNotFound, "invalid_token": .joinInvalidToken,
                "room_mismatch": .joinRoomMismatch, "host_role_required": .joinHostRoleRequired,
                "room_held": .joinRoomHeld, "max_rooms": .joinMaxRooms, "room_full": .joinRoomFull,
                "handoff_failed": .joinHandoffFailed, "shutting_down": .joinShuttingDown,
                "address_full": .joinAddressFull,
            ]),
        CounterFamily(
            "relay_handoffs_total", "Connections handed to the worker of their room, by result.", "result",
            ["sent": .handoffSent, "received": .handoffReceived, "malformed": .handoffMalformed]),
        CounterFamily(
            "relay_handoff_retries_total", "Attempts to hand over a connection whose owner had been busy.",
            .handoffRetried),

        // Messages
        CounterFamily(
            "relay_messages_received_total", "Messages of clients, by class.", "class",
            ["voice": .voiceReceived, "data": .dataReceived]),
        CounterFamily(
            "relay_message_received_bytes_total", "Bytes of clients' messages, by class.", "class",
            ["voice": .voiceBytesReceived, "data": .dataBytesReceived]),
        CounterFamily(
            "relay_messages_delivered_total", "Messages passed on, once a recipient, by class.", "class",
            ["voice": .voiceDelivered, "data": .dataDelivered]),
        CounterFamily(
            "relay_message_delivered_bytes_total", "Bytes of messages passed on, once a recipient, by class.", "class",
            ["voice": .voiceBytesDelivered, "data": .dataBytesDelivered]),
        CounterFamily(
            "relay_held_batches_total",
            "Batches of a room's data that a busy worker held back for some 2 ms, to send more at once.", .batchesHeld),
        CounterFamily("relay_leave_notices_total", "Leave notices, once a recipient.", .leaveNotices),
        CounterFamily("relay_network_received_bytes_total", "Bytes read from clients' sockets.", .bytesReceived),
        CounterFamily("relay_network_sent_bytes_total", "Bytes written to clients' sockets.", .bytesSent),
        CounterFamily(
            "relay_drops_total", "What was dropped and not sent, by what it was.", "reason",
            ["voice": .voiceDropped, "pong": .pongSkipped, "host_key_report": .hostKeyReportsLost]),

        // Ends
        CounterFamily(
            "relay_closes_total", "Connections closed, by reason.", "reason",
            [
                "by_peer": .closedByPeer, "peer_gone": .closedPeerGone, "protocol_error": .closedProtocolError,
                "invalid_text": .closedInvalidText, "message_too_big": .closedMessageTooBig, "slow": .closedSlow,
                "memory": .closedMemory, "idle_room": .closedIdleRoom, "timeout": .closedTimeout,
                "request_timeout": .closedRequestTimeout, "shutdown": .closedShutdown, "restart": .closedRestart,
                "socket_error": .closedSocketError, "flush_timeout": .closedFlushTimeout,
                "tls_violation": .closedTLSViolation, "tls_alert": .closedTLSAlert,
            ]),

        // Rooms
        CounterFamily("relay_rooms_opened_total", "Rooms opened.", .roomsOpened),
        CounterFamily("relay_rooms_closed_total", "Rooms closed; not those that a worker's death ended.", .roomsClosed),
        CounterFamily(
            "relay_rooms_moved_total", "Rooms that moved between workers at a reload or the like.", "direction",
            ["out": .roomsMovedOut, "in": .roomsMovedIn]),
        CounterFamily(
            "relay_clients_moved_total", "Clients that moved with their rooms.", "direction",
            ["out": .membersMovedOut, "in": .membersMovedIn]),
        CounterFamily(
            "relay_moved_bytes_total", "Bytes that waited for or from clients which moved.", .bytesMoved),
        CounterFamily(
            "relay_joins_awaiting_room_total", "Joins that waited for a room which was on its way.", .joinAwaitedRoom),
        CounterFamily(
            "relay_host_keys_total", "Host keys that outlived their worker, by what became of them.", "event",
            ["restored": .hostKeysRestored, "expired": .hostKeysExpired]),
    ]
}
