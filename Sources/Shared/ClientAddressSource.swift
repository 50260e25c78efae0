// RELAY_CLIENT_ADDRESS: what names the client of a connection that comes from RELAY_TRUSTED_PROXIES.

/// Where the address stands that limits and logs go by. From anybody else than a trusted proxy it is the socket's peer,
/// whatever the setting.
package enum ClientAddressSource: String, CaseIterable, Sendable {
    /// X-Forwarded-For or X-Real-IP, whichever is there; where both are and disagree, neither counts.
    case auto
    /// The socket's peer, always.
    case peer
    case xForwardedFor = "x-forwarded-for"
    case xRealIP = "x-real-ip"
    case cfConnectingIP = "cf-connecting-ip"
    /// The PROXY protocol's header at the connection's beginning, which a trusted proxy must send. Nobody else may
    /// connect.
    case proxyProtocol = "proxy-protocol"
}
