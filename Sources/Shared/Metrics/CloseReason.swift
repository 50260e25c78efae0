// Why the relay closes connections. What goes to the client with each reason stands in the worker's Closing.swift.

/// Why a connection is closed. An ordinary end (an answered request, a finished linger, a handoff) has no reason and no
/// counter.
package enum CloseReason: UInt8, CounterLabel {
    /// The client sent a close frame.
    case byPeer
    /// The client's side ended without a close frame.
    case peerGone
    /// Frames against the rules of RFC 6455.
    case protocolError
    case invalidText
    case messageTooBig
    /// A message or a TLS record had begun and did not end in time.
    case messageTimeout
    /// It read too slowly: its backlog passed RELAY_MAX_BACKLOG.
    case slow
    /// It held most of the memory when the worker had to give some back.
    case memory
    case idleRoom
    /// Nothing came for 60 s after a ping.
    case timeout
    /// No whole request in time.
    case requestTimeout
    /// A trusted proxy sent no PROXY header, or a malformed one.
    case proxyHeader
    case shutdown
    /// The relay changes to a version that can't go on with the connection.
    case restart
    case socketError
    /// The last bytes did not leave in time.
    case flushTimeout
    /// Records against the rules of TLS: the client was sent an alert.
    case tlsViolation
    /// The client sent a fatal TLS alert.
    case tlsAlert
    /// It had not joined, and its place was needed: its address had more such connections than others.
    case gaveWay

    package var label: StaticString {
        switch self {
        case .byPeer: "by_peer"
        case .peerGone: "peer_gone"
        case .protocolError: "protocol_error"
        case .invalidText: "invalid_text"
        case .messageTooBig: "message_too_big"
        case .messageTimeout: "message_timeout"
        case .slow: "slow"
        case .memory: "memory"
        case .idleRoom: "idle_room"
        case .timeout: "timeout"
        case .requestTimeout: "request_timeout"
        case .proxyHeader: "proxy_header"
        case .shutdown: "shutdown"
        case .restart: "restart"
        case .socketError: "socket_error"
        case .flushTimeout: "flush_timeout"
        case .tlsViolation: "tls_violation"
        case .tlsAlert: "tls_alert"
        case .gaveWay: "gave_way"
        }
    }
}
