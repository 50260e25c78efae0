// New connections: taken from the worker's own listener, a bounded number a turn, so that a storm of them does not hold up
// calls that are running.

import CLinux
import Glibc
import Logging
import Shared

extension Worker {
    /// Takes new connections from one of this worker's listeners.
    mutating func acceptConnections(_ listener: Int) {
        var gaveWay = 0
        for _ in 0..<Limits.acceptsPerTurnMax where !clock.isOver && gaveWay < Limits.gaveWayPerTurnMax {
            defer { lookAtClock() }
            var storage = sockaddr_storage()
            let number = unsafe clinux_accept(listeners[listener], &storage)
            guard number >= 0 else {
                let code = errno
                if isAcceptTransient(code) { continue }
                acceptFailed(code)
                return
            }
            let socket = Descriptor(owning: number)
            page.add(1, to: .accepted)
            guard let peer = Address(storage) else { continue }
            if take(socket, from: peer, isSecure: tlsContext != nil) { gaveWay += 1 }
        }
    }

    /// Takes a connection in that has been accepted, or refuses it.
    ///
    /// - Returns: whether another has given its place to it.
    mutating func take(_ socket: consuming Descriptor, from peer: Address, isSecure: Bool) -> Bool {
        guard mayConnect(peer) else {
            refuseStranger(socket, peer)
            return false
        }
        guard reserve(Limits.connectionHeldBytes) else {
            refuse(socket)
            return false
        }
        var connection = Connection(socket: socket, peer: peer, isSecure: isSecure, now: second)
        if awaitsProxyHeaders { connection.phase = .proxyHeader }
        guard countAddress(&connection) else {
            refuseAddress(connection.socket, peer)
            return false
        }
        let place = takePlace(for: peer)
        guard place != .none else {
            abandonAddress(connection.addressCharge)
            refuse(connection.socket)
            return false
        }
        adopt(connection)
        return place == .another
    }

    /// Takes a connection in: from the listener or from another worker. Its place in the relay's quota is already taken, and so
    /// is its address's, if that is counted.
    ///
    /// - Returns: its slot, or nil if it could not be watched and was dropped.
    @discardableResult
    mutating func adopt(_ connection: consuming Connection) -> UInt32? {
        let id = connections.insert(connection)
        holdAddress(id.slot)
        enterShare(id.slot, held.shares.connecting(source: connections[id.slot].client.memoryKey))
        do throws(SystemError) {
            let (socket, interest) = (connections[id.slot].socket.number, connections[id.slot].interest)
            if connections[id.slot].isMember {
                try poller.add(socket, interest, .connection(id))
            } else {
                try strangers.add(socket, interest, .connection(id))
            }
        } catch {
            complainOfWatching(error)
            page.count(.close(.socketError))
            drop(id.slot)
            memory.connections.give()
            return nil
        }
        countConnections()
        account(id.slot)
        if connections[id.slot].phase != .open { unjoined.insert(id.slot, of: connections[id.slot].client.keys.party) }
        let seconds =
            connections[id.slot].phase == .handshake ? Limits.tlsHelloSeconds : Limits.requestSeconds
        // Of many that came in one second not all end in one.
        let due = connections[id.slot].acceptedAt + UInt32(seconds) + id.slot % 2
        connectionTimers.set(id.slot, in: &connections, due: due)
        return id.slot
    }

    /// epoll has no room for a connection.
    mutating func complainOfWatching(_ error: SystemError) {
        guard let suppressed = acceptLogRate.admit(nowNanoseconds: now) else { return }
        logger.error(
            "a connection can't be watched", metadata: ["reason": "\(error)", "suppressed": "\(suppressed)"])
    }

    /// Publishes how many connections are this worker's: what the quota gets back if it dies.
    mutating func countConnections() {
        page[.connections] = UInt64(connections.count - departing)
    }

    /// The relay is full: says so as far as one write does, and closes.
    private mutating func refuse(_ socket: borrowing Descriptor) {
        page.count(.connectionRefusal(.full))
        // TLS has nothing to say before its handshake.
        if tlsContext == nil {
            let answer = Response.error(.serviceUnavailable, "relay full", extra: [("Retry-After", "1")])
            _ = unsafe send(socket.number, answer, answer.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
        if let suppressed = acceptLogRate.admit(nowNanoseconds: now) {
            logger.warning(
                "connection refused: the relay is full",
                metadata: ["max": "\(configuration.connectionsMax)", "suppressed": "\(suppressed)"])
        }
    }

    /// accept4(2) failed. Out of descriptors or memory: the listener is left alone for a while, or it would fire without end.
    private mutating func acceptFailed(_ code: Int32) {
        guard code != EAGAIN else { return }
        page.add(1, to: .acceptFailed)
        pauseAccepting(Limits.acceptPauseNanoseconds)
        if let suppressed = acceptLogRate.admit(nowNanoseconds: now) {
            logger.error(
                "can't accept connections",
                metadata: ["reason": "\(SystemError("accept4", code))", "suppressed": "\(suppressed)"])
        }
    }

    /// Leaves the listener alone for some nanoseconds.
    private mutating func pauseAccepting(_ pause: UInt64) {
        for place in listeners.indices { strangers.change(listeners[place], to: [], .listener(place)) }
        acceptAgainAt = now + pause
    }

    /// Watches the listener again when its pause is over.
    mutating func retryAccept() {
        guard acceptAgainAt != 0, now >= acceptAgainAt else { return }
        acceptAgainAt = 0
        for place in listeners.indices { strangers.change(listeners[place], to: .read, .listener(place)) }
    }

    /// Watches the listeners: from now on this worker serves.
    mutating func startAccepting() {
        guard !isAccepting, leaving == nil, drainDeadline == nil else { return }
        startReadingInbox()
        do throws(SystemError) {
            for place in listeners.indices { try strangers.add(listeners[place], .read, .listener(place)) }
            isAccepting = true
        } catch {
            // It ends, and the supervisor starts another.
            logger.error("a listener can't be watched", metadata: ["reason": "\(error)"])
            hasFailed = true
        }
    }

    /// Watches the inbox, if it is not watched yet.
    mutating func startReadingInbox() {
        guard !isReadingInbox else { return }
        do throws(SystemError) {
            try poller.add(inbox.number, .read, .inbox)
            isReadingInbox = true
        } catch {
            logger.error("the inbox can't be watched", metadata: ["reason": "\(error)"])
            hasFailed = true
        }
    }

    /// Leaves the listeners to whoever comes behind. What waits in them is theirs.
    mutating func stopAccepting() {
        if isAccepting {
            for listener in listeners { strangers.remove(listener) }
        }
        // A copy elsewhere would keep a listener open that is closed.
        for listener in listeners { _ = Glibc.close(listener) }
        listeners.removeAll()
        isAccepting = false
        acceptAgainAt = 0
    }
}

extension Address {
    /// The address of an IPv4 or IPv6 socket; nil for any other family.
    init?(_ storage: sockaddr_storage) {
        var storage = storage
        switch Int32(storage.ss_family) {
        case AF_INET:
            let word = unsafe withUnsafeBytes(of: &storage) { raw in
                unsafe raw.load(as: sockaddr_in.self).sin_addr.s_addr
            }
            self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(UInt32(bigEndian: word)))
        case AF_INET6:
            let (high, low) = unsafe withUnsafeBytes(of: &storage) { raw in
                let address = unsafe raw.load(as: sockaddr_in6.self).sin6_addr
                return unsafe withUnsafeBytes(of: address) { bytes in
                    unsafe (
                        bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                    )
                }
            }
            self.init(high: UInt64(bigEndian: high), low: UInt64(bigEndian: low))
        default:
            return nil
        }
    }
}
