// Whose address is this? `Connection.client` says it: the address that limits and logs go by. It is the socket's peer
// until a trusted proxy names another, and what may name one is RELAY_CLIENT_ADDRESS:
//
// - a header in the request's head (HTTP/ClientAddress.swift). It holds for that request, so each one settles it anew,
//   at the worker that read the request first; a connection that is handed over takes its client along;
// - the PROXY protocol (ProxyHeader.swift): a header in front of everything, TLS as well. It holds for the connection.
//   Only trusted proxies may connect then, and each must send it.
//
// The PROXY header is looked at while it lies in the socket, and only its own bytes are taken out: what follows is read
// as if nothing had been in front of it, by libssl or as a request.

import CLinux
import Glibc
import Logging
import Shared

/// Log rates for what concerns clients' addresses.
struct ClientNamingLog {
    var conflicts = LogRate(perSecond: 1, burst: 5)
    var headers = LogRate(perSecond: 1, burst: 5)
    var strangers = LogRate(perSecond: 1, burst: 5)
    /// Whether the log has said that headers from loopback are believed: once a process.
    var hasToldOfLoopback = false
}

extension Worker {
    /// Whether each connection begins with a PROXY header.
    var awaitsProxyHeaders: Bool { configuration.clientAddress == .proxyProtocol }

    // MARK: - Headers of a request

    /// Settles whose a request is.
    mutating func nameClient(_ slot: UInt32, _ request: Request) {
        guard !connections[slot].isAnnounced else { return }
        let peer = connections[slot].peer
        let client = request.client(peer: peer, configuration.clientAddress, trusted: configuration.trustedProxies)
        connections[slot].client = client.address
        if let conflict = client.conflict { tell(of: conflict, from: peer) }
        tellOfLoopback(request, from: peer)
    }

    private mutating func tell(of conflict: ClientAddressConflict, from proxy: Address) {
        page.add(1, to: conflict.counter)
        guard let suppressed = clientNamingLog.conflicts.admit(nowNanoseconds: now) else { return }
        logger.warning(
            "a proxy's headers don't say who the client is: the request counts for the proxy",
            metadata: [
                "reason": "\(conflict)", "proxy": "\(proxy)", "suppressed": "\(suppressed)",
                "hint": "set RELAY_CLIENT_ADDRESS to the header that the proxy sets itself",
            ])
    }

    /// The first time that a header from this machine is believed only because nobody has said which one counts.
    private mutating func tellOfLoopback(_ request: Request, from peer: Address) {
        guard !clientNamingLog.hasToldOfLoopback, request.hasForwardingHeader, configuration.clientAddress == .auto,
            peer.isLoopback, isTrustedProxy(peer)
        else { return }
        clientNamingLog.hasToldOfLoopback = true
        logger.notice(
            "headers from loopback are believed to name the client",
            metadata: [
                "hint": """
                right where a proxy on this machine writes them; where it passes TCP on (HAProxy mode tcp, stunnel, ssh -L) \
                clients write them, and RELAY_CLIENT_ADDRESS should be proxy-protocol or peer
                """,
                "silence": "RELAY_CLIENT_ADDRESS=x-forwarded-for or x-real-ip says which header counts",
            ])
    }

    // MARK: - PROXY protocol

    /// Whether somebody may connect at all.
    func mayConnect(_ peer: Address) -> Bool { !awaitsProxyHeaders || isTrustedProxy(peer) }

    /// A stranger connects where only proxies may: says so as far as one write does. The caller closes.
    mutating func refuseStranger(_ socket: borrowing Descriptor, _ peer: Address) {
        page.count(.connectionRefusal(.noProxy))
        // TLS has nothing to say before its handshake.
        if tlsContext == nil {
            let answer = Response.error(.forbidden, "this relay takes connections from its proxies only")
            _ = unsafe send(socket.number, answer, answer.count, Int32(MSG_NOSIGNAL))
        }
        logger.debug("connection refused", metadata: ["address": "\(peer)"])
        if let suppressed = clientNamingLog.strangers.admit(nowNanoseconds: now) {
            logger.warning(
                "connection refused: it comes from no trusted proxy",
                metadata: [
                    "suppressed": "\(suppressed)",
                    "hint": "with RELAY_CLIENT_ADDRESS=proxy-protocol only RELAY_TRUSTED_PROXIES may connect",
                ])
        }
    }

    /// Reads a connection whose PROXY header has not come whole.
    mutating func readProxyHeader(_ slot: UInt32) {
        let known = connections[slot].input.count
        let socket = connections[slot].socket.number
        switch receiveBuffer.peek(from: socket, bytesMax: Limits.proxyHeaderBytesMax - known) {
        case .bytes(let count):
            unsafe connections[slot].input.append(receiveBuffer.prefix(count))
            do throws(ProxyHeaderError) {
                let bytes = unsafe connections[slot].input.unsafeBytes
                let header = try parseProxyHeader(unsafe bytes.bindMemory(to: UInt8.self).span)
                // Without a header all that has come belongs to it. With one its end is new, unless another worker has
                // sent more.
                let taken = header.map { max(0, $0.byteCount - known) } ?? count
                guard receiveBuffer.discard(from: socket, count: taken) else {
                    doom(slot, .socketError)
                    return
                }
                tally.bytesReceived += UInt64(taken)
                if let header { announce(slot, header) }
            } catch {
                refuseProxyHeader(slot, error)
            }
        case .end where connections[slot].input.isEmpty:
            // Somebody looks whether the port is open.
            doom(slot, .ended)
        case .end:
            refuseProxyHeader(slot, .cutShort)
        case .wouldBlock:
            break
        case .failed(let code):
            doom(slot, socketError: code)
        }
    }

    /// The header has come whole: the connection begins.
    private mutating func announce(_ slot: UInt32, _ header: ProxyHeader) {
        connections[slot].input.release()
        connections[slot].client = header.client ?? connections[slot].peer
        connections[slot].isAnnounced = true
        unjoined.remove(slot)
        unjoined.insert(slot, of: connections[slot].client.keys.party)
        connections[slot].phase = connections[slot].isSecure ? .handshake : .request
        if connections[slot].isSecure {
            let due = min(
                connections[slot].acceptedAt + UInt32(Limits.requestSeconds), second + UInt32(Limits.tlsHelloSeconds))
            connectionTimers.set(slot, in: &connections, due: due)
        }
        // One that is the proxy's own is counted with its join, as ever.
        guard header.client != nil, !countClient(slot) else { return }
        addressRefused(connections[slot].client)
        let refusal = JoinRefusal(.addressFull)
        refuseUnread(slot, refusal.answer, retryAfter: refusal.retryAfter, .ended)
    }

    private mutating func refuseProxyHeader(_ slot: UInt32, _ error: ProxyHeaderError) {
        if let suppressed = clientNamingLog.headers.admit(nowNanoseconds: now) {
            logger.warning(
                "connection closed: a trusted proxy sent no good PROXY header",
                metadata: [
                    "reason": "\(error.description)", "proxy": "\(connections[slot].peer)",
                    "suppressed": "\(suppressed)",
                    "hint":
                        "RELAY_CLIENT_ADDRESS=proxy-protocol needs send-proxy, send-proxy-v2 or the like in the proxy",
                ])
        }
        refuseUnread(slot, .malformed("a PROXY header is missing here, or malformed"), .proxyHeader)
    }

    /// Ends a connection before its first request is read. TLS has nothing to say before its handshake.
    private mutating func refuseUnread(
        _ slot: UInt32, _ error: RequestError, retryAfter: UInt64? = nil, _ reason: CloseReason?
    ) {
        guard !connections[slot].isSecure else {
            doom(slot, reason)
            return
        }
        count(reason)
        connections[slot].outbox.appendControl(Response.refusal(error, retryAfter: retryAfter, request: nil))
        finish(slot)
    }
}
