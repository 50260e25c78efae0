// What connections hold in memory, and who gives way when it is too much. Every byte that a client can make the worker
// keep is charged to a share (MemoryShares) and lies within what the worker has been granted of RELAY_MAX_MEMORY
// (MemoryBudget): `reserve` is asked before bytes are kept. If no more is to be had, memory kept for speed goes first,
// then connections of the largest share.
//
// A connection that gives way frees what it holds at once: it is condemned, and closed when the turn ends, for nothing
// may leave a room while the room is being sent to. It is sent 1013 where no frame and no record has begun to leave;
// else it is reset.

import CLinux
import Glibc
import Logging
import Shared

/// What the worker holds.
struct HeldMemory: ~Copyable {
    var shares = MemoryShares()
    var blocks = SharedBlocks()
    var budget: MemoryBudget
    /// Memory that batches keep between turns, which is nobody's.
    var batchBytes = 0
    /// The most that was held since the heap was last trimmed, and when that was; CLOCK_MONOTONIC nanoseconds.
    var peak = 0
    var trimmedAt: UInt64 = 0
    var logRate = LogRate(perSecond: 1, burst: 5)

    init(_ budget: MemoryBudget) {
        self.budget = budget
    }
}

extension Worker {
    /// Memory of everything that is kept for connections.
    var heldBytes: Int { held.shares.bytes + held.batchBytes + spareQueues.bytes }

    // MARK: - Accounting

    /// Brings the sums up to date with a connection whose queues have changed.
    mutating func account(_ slot: UInt32) {
        let bytes = memoryBytes(slot)
        if bytes != connections[slot].heldBytes {
            held.shares.charge(bytes - connections[slot].heldBytes, to: connections[slot].memoryShare.share)
            connections[slot].heldBytes = bytes
        }
        if held.blocks.hasFreed { accountFreedBlocks() }
    }

    /// Memory that is this connection's alone.
    private func memoryBytes(_ slot: UInt32) -> Int {
        var bytes = Limits.connectionHeldBytes + connections[slot].queueCapacity
        let session = connections[slot].session
        if session != Connection.noSession {
            bytes += sessions[session].heldBytes
        } else if connections[slot].phase == .handshake && handshakes[slot] != nil {
            bytes += Limits.tlsHandshakeHeldBytes
        }
        return bytes
    }

    /// The same where only records that wait to be decrypted may have changed.
    mutating func accountRecords(_ slot: UInt32) {
        let session = connections[slot].session
        guard connections[slot].isServed, session != Connection.noSession, sessions[session].hasGrown else { return }
        sessions[session].hasGrown = false
        account(slot)
    }

    mutating func accountFreedBlocks() {
        while let (share, bytes) = held.blocks.takeFreed() {
            held.shares.charge(-bytes, to: share)
            held.shares.release(share)
        }
    }

    // MARK: - Shares

    /// Puts a connection into a share, whose reference the caller has taken, and out of the one that it was in.
    mutating func enterShare(_ slot: UInt32, _ share: UInt32) {
        let bytes = connections[slot].heldBytes
        leaveShare(slot)
        let first = held.shares.firstConnection(of: share)
        connections[slot].memoryShare = ShareLinks(share: share, next: first, previous: MemoryShares.none)
        if first != MemoryShares.none { connections[first].memoryShare.previous = slot }
        held.shares.setFirstConnection(slot, of: share)
        held.shares.charge(bytes, to: share)
        connections[slot].heldBytes = bytes
    }

    /// Takes a connection, and what it is charged with, out of its share.
    mutating func leaveShare(_ slot: UInt32) {
        let links = connections[slot].memoryShare
        guard links.share != MemoryShares.none else { return }
        if links.previous == MemoryShares.none {
            held.shares.setFirstConnection(links.next, of: links.share)
        } else {
            connections[links.previous].memoryShare.next = links.next
        }
        if links.next != MemoryShares.none { connections[links.next].memoryShare.previous = links.previous }
        held.shares.charge(-connections[slot].heldBytes, to: links.share)
        held.shares.release(links.share)
        connections[slot].memoryShare = ShareLinks()
        connections[slot].heldBytes = 0
    }

    // MARK: - Before memory is taken

    /// Makes sure that `bytes` more may be kept. Connections may give way, the one that they are for among them: the
    /// caller looks at its phase, and touches nothing of it that was there before.
    ///
    /// - Parameter share: the share that the bytes are for. Sources that hold less do not give way to it.
    /// - Returns: false if nothing is left that could give way.
    mutating func reserve(_ bytes: Int, share: UInt32? = nil) -> Bool {
        if heldBytes + bytes <= held.budget.granted { return true }
        return makeRoom(for: bytes, share)
    }

    /// The same for an open connection's next bytes, which are its own to lose.
    ///
    /// - Returns: false if the connection has given way.
    mutating func reserve(_ bytes: Int, for slot: UInt32) -> Bool {
        let phase = connections[slot].phase
        if !reserve(bytes, share: connections[slot].memoryShare.share) { condemn(slot, .memory) }
        return connections[slot].phase == phase
    }

    private mutating func makeRoom(for bytes: Int, _ share: UInt32? = nil) -> Bool {
        held.peak = max(held.peak, heldBytes + bytes)
        if growBudget(for: bytes) { return true }
        releaseSpare()
        if growBudget(for: bytes) { return true }
        defer { held.shares.forgetSpared() }
        let most = held.shares.largest().map { held.shares.bytesOfSource(of: $0) } ?? 0
        while heldBytes + bytes > held.budget.granted {
            // What is nobody's yet is no reason to close a source that holds far less than another.
            let least = share.map { held.shares.bytesOfSource(of: $0) } ?? most / 2
            let victim = largestConnection(least)
            if share != nil && least < most {
                // Those that hold most are on their way out already, or their connections were not found in bounded
                // time: a source that holds less does not pay for that.
                let hasLarger = victim.map {
                    held.shares.bytesOfSource(of: connections[$0].memoryShare.share) > least
                }
                if hasLarger != true { return mayOverdraw(bytes) }
            }
            guard let victim else { return false }
            complain(victim)
            condemn(victim, .memory)
        }
        return true
    }

    /// Whether so much may be kept beyond what is granted, for moments: `settle` sees to it.
    private func mayOverdraw(_ bytes: Int) -> Bool {
        heldBytes + bytes <= held.budget.granted + Limits.memoryOverdraftBytes
    }

    private mutating func growBudget(for bytes: Int) -> Bool {
        guard held.budget.grow(toHold: heldBytes + bytes) else { return false }
        page[.memoryGranted] = UInt64(held.budget.granted)
        return true
    }

    /// Closes connections until what is held lies within what is granted.
    mutating func relieveMemory() {
        held.peak = max(held.peak, heldBytes)
        if heldBytes > held.budget.granted { _ = makeRoom(for: 0) }
    }

    /// Gives back memory that is kept for speed.
    private mutating func releaseSpare() {
        spareQueues.release()
        for batch in batches.slots where batches.isOccupied(batch) && batches[batch].room == Room.none {
            held.batchBytes -= batches[batch].release()
        }
    }

    // MARK: - Who gives way

    /// The connection that holds most in the share that holds most, if the share's source holds no less than `least`.
    private mutating func largestConnection(_ least: Int) -> UInt32? {
        for _ in 0..<Limits.memorySharesTriedMax {
            guard let share = held.shares.largest(), held.shares.bytesOfSource(of: share) >= least else { return nil }
            var (largest, most) = (UInt32?.none, 0)
            var slot = held.shares.firstConnection(of: share)
            var looked = 0
            while slot != MemoryShares.none && looked < Limits.memorySharesLookedAtMax {
                looked += 1
                if connections[slot].canGiveWay {
                    // With what it shares: the slowest reader of a block holds it longest. One that holds nothing has
                    // nothing to give.
                    let bytes = connections[slot].heldBytes - idleBytes(slot) + connections[slot].outbox.count
                    if bytes > most { (largest, most) = (slot, bytes) }
                }
                slot = connections[slot].memoryShare.next
            }
            if let largest { return largest }
            held.shares.spare(share)
        }
        return nil
    }

    /// What a connection is charged with that holds no bytes.
    private func idleBytes(_ slot: UInt32) -> Int {
        let isTLS = connections[slot].session != Connection.noSession
        return Limits.connectionHeldBytes + (isTLS ? Limits.tlsSessionHeldBytes : 0)
    }

    private mutating func complain(_ victim: UInt32) {
        guard let suppressed = held.logRate.admit(nowNanoseconds: now) else { return }
        let share = held.shares.bytes(of: connections[victim].memoryShare.share)
        logger.warning(
            "memory is short: closing who holds most",
            metadata: [
                "bytes": "\(heldBytes)", "granted": "\(held.budget.granted)",
                "max": "\(configuration.memoryBytesMax)", "share": "\(share)",
                "connection": "\(connections[victim].heldBytes)", "suppressed": "\(suppressed)",
            ])
    }

    /// Ends a connection that holds too much, at the end of this turn; what it holds is freed now.
    mutating func condemn(_ slot: UInt32, _ reason: CloseReason) {
        let phase = connections[slot].phase
        guard connections[slot].isServed, phase != .condemned else { return }
        let isCut = connections[slot].outbox.isCut || connections[slot].sealed.count > Limits.tlsJoinedBytesMax
        let isReset = phase != .open || isCut
        logger.debug(
            "client holds too much",
            metadata: [
                "reason": "\(reason)", "waiting": "\(connections[slot].outbox.count)",
                "bytes": "\(connections[slot].heldBytes)", "reset": "\(isReset)",
            ])
        // A pong may have begun to leave, or the answer to a join: both are short, and go before the close frame.
        let dropped =
            isReset
            ? connections[slot].outbox.dropAll(&held.blocks) : connections[slot].outbox.dropBacklog(&held.blocks)
        page.count(.drop(.voice), UInt64(dropped))
        connections[slot].message.release()
        connections[slot].input.release()
        if isReset {
            connections[slot].sealed.release()
            resetOnClose(connections[slot].socket)
            if phase == .handshake { endHandshake(slot) }
        }
        if connections[slot].session != Connection.noSession { sessions[connections[slot].session].forgetInput() }
        // One that was closed for another reason keeps that one.
        let isEnding = phase == .closing || phase == .lingering
        doomed.append((connections.id(slot), isEnding ? .ended : reason))
        connections[slot].phase = isReset ? .doomed : .condemned
        account(slot)
    }

    /// Has the kernel drop what it holds for the socket when that is closed (SO_LINGER, socket(7)).
    func resetOnClose(_ socket: borrowing Descriptor) {
        var option = Glibc.linger(l_onoff: 1, l_linger: 0)
        // Where it fails, the socket closes as any other.
        _ = unsafe setsockopt(
            socket.number, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<Glibc.linger>.size))
    }

    // MARK: - After a peak

    /// Once a second: gives back what is no longer needed, to the other workers and, at a quiet moment after a peak, to
    /// the kernel.
    mutating func returnMemory() {
        let page = page
        held.budget.shrink(toHold: heldBytes) { page[.memoryGranted] = UInt64($0) }
        guard held.peak - heldBytes >= Limits.heapTrimmedBytesMin, !load.isBusy,
            now - held.trimmedAt >= Limits.heapTrimNanoseconds
        else { return }
        releaseSpare()
        clinux_trim_heap()
        (held.peak, held.trimmedAt) = (heldBytes, now)
    }
}

extension Connection {
    /// Memory of its queues that is its alone.
    var queueCapacity: Int { outbox.capacity + message.capacity + sealed.capacity + input.capacity }

    /// Whether it may be closed to get its memory back.
    var canGiveWay: Bool {
        switch phase {
        case .doomed, .departed, .condemned: false
        case .proxyHeader, .handshake, .request, .handingOver, .open, .closing, .lingering: !isFrozen
        }
    }
}
