// What a request's head says, as far as the relay cares: a small value with next to nothing left to parse. Workers read their
// clients' requests so, the supervisor those of its admin listeners.

/// The status codes that the relay answers with (RFC 9110, 15; RFC 6585).
package enum Status: Int {
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

    package var reason: StaticString {
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
package struct RequestError: Error, Equatable {
    package var status: Status
    package var text: StaticString

    package init(status: Status, text: StaticString) {
        self.status = status
        self.text = text
    }

    /// A request that is no HTTP/1.1.
    package static func malformed(_ text: StaticString) -> RequestError {
        RequestError(status: .badRequest, text: text)
    }

    package static func == (one: RequestError, other: RequestError) -> Bool {
        one.status == other.status && one.text.description == other.text.description
    }
}

/// What the bytes at the start of a connection, or behind the request before, are so far.
package enum RequestParse: Equatable {
    /// The head has not ended, and may still be a good one.
    case incomplete
    case head(Request)
    /// No request: to be answered, and the connection closed.
    case refused(RequestError)
}

/// Methods are case-sensitive (RFC 9110, 9.1).
package enum Method: Equatable {
    case get
    case head
    /// A token of 32 bytes at most.
    case other(String)
}

/// A request's head.
package struct Request: Equatable {
    package var method: Method
    /// As it was sent, without the query: an escape stays one. "*" for `OPTIONS *`.
    ///
    /// A proxy's rule for a path may look at the bytes alone. So "/%77s" is not "/ws" here, though a URI's reader may
    /// take it for that (RFC 3986, 6.2.2.2): no path that the relay knows holds an escape.
    package var path: String
    /// What stands behind the "?", raw.
    package var query: [UInt8]
    package var isHTTP10: Bool
    /// Bytes of the head with its empty line, and with the empty line before it if there was one.
    package var headBytes: Int
    /// Whether content follows. It is never read: the connection ends with the answer.
    package var hasBody: Bool
    /// Whether the client means to send another request on this connection (RFC 9112, 9.3).
    package var keepAlive: Bool
    /// What it says about a WebSocket handshake.
    package var handshake: HandshakeFields
    /// Where in the bytes it says whom it is for: in the target where that has an authority (RFC 9112, 3.2.2), else in
    /// Host; nil where neither is there, as HTTP/1.0 allows.
    package var host: Range<Int>?
    package var origin: LoneField
    /// The values of all X-Forwarded-For lines, joined by commas in their order (RFC 9110, 5.3).
    package var forwardedFor: [UInt8]?
    package var realIP: LoneField
    package var cfConnectingIP: LoneField

    /// Whether the connection stays open behind the answer.
    package var keepsConnection: Bool { keepAlive && !hasBody }
}

/// What a field says that has one value.
package enum LoneField: Equatable {
    case absent
    case value([UInt8])
    /// It stands in the head more than once: which of the lines counts, nobody can say.
    case repeated
}

/// What the lines that a WebSocket handshake is made of say. Only a request for one is read as one.
package struct HandshakeFields: Equatable {
    /// Whether Connection lists "upgrade".
    package var asksForUpgrade = false
    /// Whether Upgrade lists "websocket".
    package var asksForWebSocket = false
    /// Lines of Sec-WebSocket-Key, and what the first says.
    package var keyCount = 0
    package var key: [UInt8] = []
    /// Lines of Sec-WebSocket-Version, and whether the first says "13".
    package var versionCount = 0
    package var isVersion13 = false
}
