// Requests other than joins, and TLS handshakes, count against their address's own bucket (RateBucket.requests): pages,
// what is refused with 4xx, `/health`. A join takes from the bucket for joins alone (Join/Joining.swift), whatever
// becomes of it.

import Logging
import Shared

extension Worker {
    /// Takes a request's token. Over the rate it is refused, and the connection ends with that.
    mutating func admits(_ slot: UInt32, _ request: Request) -> Bool {
        guard configuration.joinsPerSecondPerAddress > 0, let wait = takeRequest(connections[slot].client) else {
            return true
        }
        refuseForRate(slot, wait, request)
        return false
    }

    /// The same for a request that can't be read. A trusted proxy's own bucket is not for what its clients send.
    mutating func admitsUnreadable(_ slot: UInt32) -> Bool {
        guard let wait = takeFromConnection(slot) else { return true }
        refuseForRate(slot, wait, nil)
        return false
    }

    /// Takes a handshake's token.
    func admitsHandshake(_ slot: UInt32) -> Bool { takeFromConnection(slot) == nil }

    /// By the client's address, if that is known without a request.
    private func takeFromConnection(_ slot: UInt32) -> UInt64? {
        let client = connections[slot].isAnnounced ? connections[slot].client : connections[slot].peer
        return isTrustedProxy(client) ? nil : takeRequest(client)
    }

    /// - Returns: nil if admitted, else nanoseconds until one would be.
    private func takeRequest(_ address: Address) -> UInt64? {
        let rate = configuration.joinsPerSecondPerAddress
        return rate > 0 ? memory.admit(address.keys, to: .requests, rate: rate, now: now) : nil
    }

    private mutating func refuseForRate(_ slot: UInt32, _ wait: UInt64, _ request: Request?) {
        page.add(1, to: .requestRateLimited)
        logger.debug("request refused", metadata: ["reason": "rate limit exceeded"])
        refuse(slot, .rateLimited, request: request, retryAfter: retryAfter(wait))
    }

    func isTrustedProxy(_ address: Address) -> Bool {
        configuration.trustedProxies.contains { $0.contains(address) }
    }

    /// Seconds for `Retry-After`, rounded up.
    func retryAfter(_ nanoseconds: UInt64) -> UInt64 { max(1, (nanoseconds + 999_999_999) / 1_000_000_000) }
}

extension RequestError {
    /// The address has used up its bucket.
    static let rateLimited = RequestError(status: .tooManyRequests, text: "rate limit exceeded")
}
