// Which client a request is from, where proxies name it in the head. A header is only what somebody wrote: it counts as
// far back as those who wrote it are trusted, and no further. A proxy may write one of these headers and pass on
// another as its client has made it up. So headers that disagree count for nothing: the request is the proxy's own
// then, and nobody leaves a limit, or uses up another's, by a header of their own.

import Shared

/// X-Forwarded-For entries looked at, from the right. Longer chains of trusted proxies than this don't exist; a client
/// can write thousands of entries into one head.
private let forwardedEntriesMax = 32

/// Why a trusted proxy's headers do not count, or not as far as they should.
enum ClientAddressConflict: Equatable {
    /// X-Forwarded-For and X-Real-IP name two clients.
    case disagreement
    /// A header that names one client stands in the head more than once.
    case repeated
    /// What should be an address is none.
    case malformed

    var counter: Counter {
        switch self {
        case .disagreement: .clientAddressDisagreement
        case .repeated: .clientAddressRepeated
        case .malformed: .clientAddressMalformed
        }
    }
}

/// The address that a request counts for.
struct ClientAddress: Equatable {
    var address: Address
    var conflict: ClientAddressConflict?
}

extension Request {
    /// Whose the request is, where `peer` has sent it.
    ///
    /// The peer's own, unless the peer is a trusted proxy and the source a header that is there.
    func client(peer: Address, _ source: ClientAddressSource, trusted: [AddressRange]) -> ClientAddress {
        guard source != .peer, source != .proxyProtocol, trusted.contains(where: { $0.contains(peer) }) else {
            return ClientAddress(address: peer)
        }
        let client: ClientAddress?
        switch source {
        case .peer, .proxyProtocol: client = nil
        case .xForwardedFor: client = forwardedClient(peer: peer, trusted)
        case .xRealIP: client = Self.client(in: realIP, peer: peer)
        case .cfConnectingIP: client = Self.client(in: cfConnectingIP, peer: peer)
        case .auto: client = anyClient(peer: peer, trusted)
        }
        return client ?? ClientAddress(address: peer)
    }

    /// Whether a header that `auto` believes is there.
    var hasForwardingHeader: Bool { realIP != .absent || forwardedFor != nil }

    /// By X-Forwarded-For and X-Real-IP, where only one of them is there, or both agree.
    private func anyClient(peer: Address, _ trusted: [AddressRange]) -> ClientAddress? {
        guard let forwarded = forwardedClient(peer: peer, trusted) else { return Self.client(in: realIP, peer: peer) }
        guard let real = Self.client(in: realIP, peer: peer) else { return forwarded }
        if let conflict = real.conflict ?? forwarded.conflict {
            return ClientAddress(address: peer, conflict: conflict)
        }
        return forwarded == real ? real : ClientAddress(address: peer, conflict: .disagreement)
    }

    /// By X-Forwarded-For, read from the right, where each proxy adds the address that it heard from: the first entry
    /// that is no trusted proxy itself is the client. Where all are, it is the left-most one; where one is no address,
    /// the one read before it.
    ///
    /// - Returns: nil if nothing is in the header.
    private func forwardedClient(peer: Address, _ trusted: [AddressRange]) -> ClientAddress? {
        guard let forwardedFor, forwardedFor.contains(where: { !isListFiller($0) }) else { return nil }
        var client = ClientAddress(address: peer)
        var end = forwardedFor.count
        for _ in 0..<forwardedEntriesMax {
            // Empty list members are nothing (RFC 9110, 5.6.1.2), however many.
            while end > 0, isListFiller(forwardedFor[end - 1]) { end -= 1 }
            guard end > 0 else { break }
            var start = end
            while start > 0, forwardedFor[start - 1] != Octet.comma { start -= 1 }
            guard let address = Address.forwarded(utf8: forwardedFor.span.extracting(start..<end)) else {
                client.conflict = .malformed
                break
            }
            client.address = address
            guard trusted.contains(where: { $0.contains(address) }) else { break }
            end = start
        }
        return client
    }

    /// By a header that holds one address.
    ///
    /// - Returns: nil if the header is not there.
    private static func client(in field: LoneField, peer: Address) -> ClientAddress? {
        switch field {
        case .absent: return nil
        case .repeated: return ClientAddress(address: peer, conflict: .repeated)
        case .value(let text):
            guard let address = Address.forwarded(utf8: text.span) else {
                return ClientAddress(address: peer, conflict: .malformed)
            }
            return ClientAddress(address: address)
        }
    }
}

private func isListFiller(_ octet: UInt8) -> Bool {
    octet == Octet.comma || octet == Octet.space || octet == Octet.tab
}
