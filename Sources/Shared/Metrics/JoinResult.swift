// What became of joins: those that were let in, and those that were refused, each with its answer
// (docs/wire-protocol.md).

/// The result of a join.
package enum JoinResult: UInt8, CounterLabel {
    // Let in
    case host
    case guest

    // Refused, in the order of the checks
    case rateLimited
    case missingParameter
    case invalidRoom
    /// No good opening handshake; the text says what is wrong with it.
    case badHandshake
    /// RELAY_ALLOWED_ORIGINS does not name the page that the request comes from.
    case originNotAllowed
    case invalidPublicKey
    case shuttingDown
    case addressFull
    case roomNotFound
    /// The text says what is wrong with the token.
    case invalidToken
    case roomMismatch
    case hostRoleRequired
    case roomHeld
    case roomFull
    case addressRoomsFull
    case maxRooms
    /// The worker of its room could not take it in time.
    case handoffFailed

    private typealias Row = (label: StaticString, status: Status?, text: StaticString, retryAfter: UInt64?)

    /// The row of a result: its label; of a refusal the status, the body and, in seconds, Retry-After. A refusal whose
    /// text varies has an empty one here.
    private var row: Row {
        switch self {
        case .host: ("host", nil, "", nil)
        case .guest: ("guest", nil, "", nil)
        case .rateLimited: ("rate_limited", .tooManyRequests, "rate limit exceeded", 1)
        case .missingParameter: ("missing_parameter", .badRequest, "missing room or token", nil)
        case .invalidRoom: ("invalid_room", .badRequest, "invalid room", nil)
        case .badHandshake: ("bad_handshake", .badRequest, "", nil)
        case .originNotAllowed: ("origin_not_allowed", .forbidden, "origin not allowed", nil)
        case .invalidPublicKey: ("invalid_public_key", .badRequest, "invalid pubkey", nil)
        case .shuttingDown: ("shutting_down", .serviceUnavailable, "shutting down", 1)
        case .addressFull: ("address_full", .tooManyRequests, "too many connections", 1)
        case .roomNotFound: ("room_not_found", .notFound, "room not found", nil)
        case .invalidToken: ("invalid_token", .unauthorized, "", nil)
        case .roomMismatch: ("room_mismatch", .forbidden, "room mismatch", nil)
        case .hostRoleRequired: ("host_role_required", .forbidden, "host role required", nil)
        case .roomHeld: ("room_held", .forbidden, "room held by another host", nil)
        case .roomFull: ("room_full", .serviceUnavailable, "room full", nil)
        case .addressRoomsFull: ("address_rooms_full", .tooManyRequests, "too many rooms", 1)
        case .maxRooms: ("max_rooms", .serviceUnavailable, "max rooms reached", nil)
        case .handoffFailed: ("handoff_failed", .serviceUnavailable, "relay busy", 1)
        }
    }

    package var label: StaticString { row.label }

    /// The answer to a join that is refused; nil for one that is let in.
    package var refusal: RequestError? {
        let row = row
        return row.status.map { RequestError(status: $0, text: row.text) }
    }

    /// Seconds of Retry-After; nil where trying again is of no use.
    package var retryAfter: UInt64? { row.retryAfter }
}
