// Bytes from a client: read into the loop's buffer and passed on by phase. A request is gathered until its head is whole;
// frames are taken apart where they lie (WebSocket/Frames.swift).

import Glibc
import Shared

extension Worker {
    /// Reads a connection's socket once; what is left there makes the next turn's event. With more than one read a turn, those who
    /// send much would make turns long, and those who read slowly are sent to once a turn.
    mutating func read(_ slot: UInt32) {
        guard connections[slot].interest.contains(.read), !connections[slot].isUnanswered else { return }
        if connections[slot].isSecure { return readSecure(slot) }
        guard connections[slot].isServed else { return }
        if connections[slot].phase == .proxyHeader { return readProxyHeader(slot) }
        let bytesMax = readBytesMax(slot)
        switch receiveBuffer.receive(from: connections[slot].socket.number, bytesMax: bytesMax) {
        case .bytes(let count):
            hasReadItsShare = count == bytesMax
            connections[slot].debt.hasRead(count)
            tally.bytesReceived += UInt64(count)
            connections[slot].heardAt = second
            take(slot, unsafe receiveBuffer.prefix(count).bytes)
        case .end: ended(slot)
        case .wouldBlock: break
        case .failed(let code): doom(slot, socketError: code)
        }
    }

    /// Bytes that one read of a connection takes: its share, and of a request little more than a head.
    @inline(__always)
    func readBytesMax(_ slot: UInt32) -> Int {
        let bytes = connections[slot].debt.readBytesMax(share)
        return connections[slot].phase == .request ? min(bytes, Limits.requestReadBytesMax) : bytes
    }

    private mutating func readSecure(_ slot: UInt32) {
        switch connections[slot].phase {
        case .proxyHeader: readProxyHeader(slot)
        case .handshake: readHandshake(slot)
        case .request, .open: readRecords(slot)
        case .closing, .lingering: discard(slot)
        case .handingOver, .condemned, .doomed, .departed: break
        }
    }

    /// Reads and throws away: the client's last bytes mean nothing any more.
    private mutating func discard(_ slot: UInt32) {
        switch receiveBuffer.receive(from: connections[slot].socket.number, bytesMax: share.bytes) {
        case .bytes(let count): hasReadItsShare = count == share.bytes
        case .wouldBlock: break
        case .end: ended(slot)
        case .failed(let code): doom(slot, socketError: code)
        }
    }

    /// Takes what came on a connection, decrypted.
    mutating func take(_ slot: UInt32, _ bytes: RawSpan) {
        switch connections[slot].phase {
        case .request:
            guard reserve(connections[slot].input.growth(for: bytes.byteCount), for: slot) else { return }
            connections[slot].input.append(bytes)
            account(slot)
            serveRequests(slot)
        case .open:
            takeFrames(slot, bytes)
        case .proxyHeader, .handingOver, .handshake:
            preconditionFailure("what comes in these phases is not taken here")
        case .closing, .lingering, .condemned, .doomed, .departed:
            break
        }
    }

    /// The client has shut its side.
    mutating func ended(_ slot: UInt32) {
        switch connections[slot].phase {
        case .open:
            endOpen(slot)
        case .request:
            // Answers that are still on their way are let out; a request cut short is not one.
            if connections[slot].outbox.isEmpty && !connections[slot].isSecure {
                doom(slot, .ended)
            } else {
                finish(slot)
            }
        case .closing:
            // Its last bytes may still be taken: a half-closed client can read. It fires no more events for reading.
            setInterest(slot, [.write])
        case .lingering, .proxyHeader, .handshake, .handingOver, .condemned, .doomed, .departed:
            doom(slot, .ended)
        }
    }

    /// The client has gone without a close frame. Over TLS it is still owed a close_notify (RFC 8446, 6.1).
    private mutating func endOpen(_ slot: UInt32) {
        guard connections[slot].isSecure else {
            doom(slot, .peerGone)
            return
        }
        leave(slot)
        count(.peerGone)
        page.count(.drop(.voice), UInt64(connections[slot].outbox.dropAll(&held.blocks)))
        finish(slot)
    }

    /// Watches a connection for something else.
    mutating func setInterest(_ slot: UInt32, _ interest: Interest) {
        guard connections[slot].interest != interest else { return }
        let before = connections[slot].watched
        connections[slot].interest = interest
        watch(slot, before)
    }

    /// Tells epoll what a connection is to be watched for, if that is not what it was before.
    mutating func watch(_ slot: UInt32, _ before: Interest) {
        let watched = connections[slot].watched
        guard watched != before else { return }
        let source = EventSource.connection(connections.id(slot))
        if connections[slot].isMember {
            poller.change(connections[slot].socket.number, to: watched, source)
        } else {
            strangers.change(connections[slot].socket.number, to: watched, source)
        }
    }

    /// Watches a connection no more: before its descriptor is given away or closed.
    mutating func unwatch(_ slot: UInt32) {
        if connections[slot].isMember {
            poller.remove(connections[slot].socket.number)
        } else {
            strangers.remove(connections[slot].socket.number)
        }
    }

    /// A connection has been let into a room: from now on it is watched with the members.
    mutating func watchAsMember(_ slot: UInt32) {
        guard !connections[slot].isMember else { return }
        let socket = connections[slot].socket.number
        do throws(SystemError) {
            try poller.add(socket, connections[slot].watched, .connection(connections.id(slot)))
        } catch {
            // It stays a stranger, and is served like one.
            complainOfWatching(error)
            return
        }
        strangers.remove(socket)
        connections[slot].isMember = true
    }
}
