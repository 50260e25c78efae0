// Whom a request came from, behind proxies. A header is only what somebody wrote: it counts as far back as those who
// wrote it are trusted, and no further.

import Shared

/// X-Forwarded-For entries looked at, from the right. Longer chains of trusted proxies than this don't exist; a client
/// can write thousands of entries into one head.
private let forwardedEntriesMax = 32

/// The address that limits and logs go by.
///
/// `peer` itself, unless it is a trusted proxy. Then X-Forwarded-For is read from the right, where each proxy adds whom
/// it heard from: the first entry that is no trusted proxy itself is the client. Where all are, it is the left-most one;
/// where one is no address, the one read before it. Without X-Forwarded-For it is X-Real-IP.
func clientAddress(peer: Address, forwardedFor: [UInt8]?, realIP: [UInt8]?, trusted: [AddressRange]) -> Address {
    func isTrusted(_ address: Address) -> Bool { trusted.contains { $0.contains(address) } }
    guard isTrusted(peer) else { return peer }
    guard let forwardedFor, forwardedFor.contains(where: { !isListFiller($0) }) else {
        return realIP.flatMap { Address.forwarded(utf8: $0.span) } ?? peer
    }
    var client = peer
    var end = forwardedFor.count
    for _ in 0..<forwardedEntriesMax {
        // Empty list members are nothing (RFC 9110, 5.6.1.2), however many.
        while end > 0, isListFiller(forwardedFor[end - 1]) { end -= 1 }
        guard end > 0 else { break }
        var start = end
        while start > 0, forwardedFor[start - 1] != Octet.comma { start -= 1 }
        guard let address = Address.forwarded(utf8: forwardedFor.span.extracting(start..<end)) else { break }
        client = address
        guard isTrusted(address) else { break }
        end = start
    }
    return client
}

private func isListFiller(_ octet: UInt8) -> Bool {
    octet == Octet.comma || octet == Octet.space || octet == Octet.tab
}
