// What a request's head says, as far as the relay cares: a small value with nothing left to parse and no reference to
// the bytes that it came from.

/// The status codes that the relay answers with (RFC 9110, 15; RFC 6585).
enum Status: Int {
    case switchingProtocols = 101
    case ok = 200
    case badRequest = 400
    case unauthorized = 401
    case forbidden = 403
    case notFound = 404
    case methodNotAllowed = 405
    case upgradeRequired = 426
    case tooManyRequests = 429
    case requestHeadTooLarge = 431
    case internalServerError = 500
    case notImplemented = 501
    case serviceUnavailable = 503
    case versionNotSupported = 505

    var reason: StaticString {
        switch self {
        case .switchingProtocols: "Switching Protocols"
        case .ok: "OK"
        case .badRequest: "Bad Request"
        case .unauthorized: "Unauthorized"
        case .forbidden: "Forbidden"
        case .notFound: "Not Found"
        case .methodNotAllowed: "Method Not Allowed"
        case .upgradeRequired: "Upgrade Required"
        case .tooManyRequests: "Too Many Requests"
        case .requestHeadTooLarge: "Request Header Fields Too Large"
        case .internalServerError: "Internal Server Error"
        case .notImplemented: "Not Implemented"
        case .serviceUnavailable: "Service Unavailable"
        case .versionNotSupported: "HTTP Version Not Supported"
        }
    }
}

/// A request that is refused: its status and its text/plain body, which says what is wrong with it.
struct RequestError: Error, Equatable {
    var status: Status
    var text: StaticString

    /// A request that is no HTTP/1.1.
    static func malformed(_ text: StaticString) -> RequestError {
        RequestError(status: .badRequest, text: text)
    }

    static func == (one: RequestError, other: RequestError) -> Bool {
        one.status == other.status && one.text.description == other.text.description
    }
}

/// What the bytes at the start of a connection, or behind the request before, are so far.
enum RequestParse: Equatable {
    /// The head has not ended, and may still be a good one.
    case incomplete
    case head(Request)
    /// No request: to be answered, and the connection closed.
    case refused(RequestError)
}

/// Methods are case-sensitive (RFC 9110, 9.1).
enum Method: Equatable {
    case get
    case head
    /// A token of 32 bytes at most.
    case other(String)
}

/// A request's head.
struct Request: Equatable {
    var method: Method
    /// Percent-decoded, without the query. "*" for `OPTIONS *`.
    var path: String
    /// What stands behind the "?", raw.
    var query: [UInt8]
    var isHTTP10: Bool
    /// Bytes of the head with its empty line, and with the empty line before it if there was one.
    var headBytes: Int
    /// Whether content follows. It is never read: the connection ends with the answer.
    var hasBody: Bool
    /// Whether the client means to send another request on this connection (RFC 9112, 9.3).
    var keepAlive: Bool
    /// Whether the request, taken as a WebSocket handshake, is a good one.
    var upgrade: WebSocketUpgrade
    /// The values of all X-Forwarded-For lines, joined by commas in their order (RFC 9110, 5.3).
    var forwardedFor: [UInt8]?
    /// X-Real-IP. Of several the last, which the nearest proxy wrote.
    var realIP: [UInt8]?

    /// Whether the connection stays open behind the answer.
    var keepsConnection: Bool { keepAlive && !hasBody }
}
