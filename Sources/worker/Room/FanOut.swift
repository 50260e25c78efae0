// Fan-out: what a member says is encoded once into its room's batch; when the turn ends each member is sent, in one call, the
// ranges that others said. One lane of bytes for the whole room, no queue per member unless its socket is full. While the worker
// is busy, data may wait for a later turn (HoldingBack).

import Shared

extension Worker {
    /// Puts a message of `slot` into its room's batch. `payload` is masked with `key`; 0 if it is not masked.
    ///
    /// - Returns: whether the batch has room for more; it is flushed before the next message if not.
    @discardableResult
    mutating func say(_ slot: UInt32, _ payload: RawSpan, key: UInt32, isText: Bool) -> Bool {
        let room = connections[slot].room
        let batch = rooms[room].batch ?? openBatch(of: room)
        let isVoice = Self.isVoice(payload, key: key)
        let size = payload.byteCount + Limits.frameHeaderBytesMax
        let growth =
            isVoice ? batches[batch].voice.bytes.growth(for: size) : batches[batch].data.bytes.growth(for: size)
        guard growth == 0 || reserve(growth, for: slot) else { return true }
        let capacity = batches[batch].capacity
        if isVoice {
            guard let bytes = batches[batch].voice.say(payload, key: key, isText: isText, sender: slot) else {
                close(slot, .invalidText)
                return true
            }
            tally.voiceReceived += 1
            tally.voiceBytesReceived += UInt64(bytes)
        } else {
            guard let bytes = batches[batch].data.say(payload, key: key, isText: isText, sender: slot) else {
                close(slot, .invalidText)
                return true
            }
            tally.dataReceived += 1
            tally.dataBytesReceived += UInt64(bytes)
            if !connections[slot].hasSaidData { learnPeerID(slot, batch, payload.byteCount) }
        }
        if batches[batch].capacity != capacity { chargeGrowth(of: batch, from: capacity) }
        rooms[room].activeAt = second
        // Bounds what is held for one room.
        return batches[batch].byteCount < Limits.batchBytesMax
    }

    /// Whether a room's batch must be flushed, or begun to be, before anything more is said.
    @inline(__always)
    func isBatchFull(_ room: UInt32) -> Bool {
        guard room != Room.none, let batch = rooms[room].batch else { return false }
        return batches[batch].byteCount >= Limits.batchBytesMax
    }

    /// Charges a room with what its batch has grown by.
    private mutating func chargeGrowth(of batch: UInt32, from before: Int) {
        let growth = batches[batch].capacity - before
        batches[batch].chargedBytes += growth
        held.shares.charge(growth, to: rooms[batches[batch].room].share)
    }

    /// The first data message may say who this is (many guests share one invite token). It is the last of its batch.
    private mutating func learnPeerID(_ slot: UInt32, _ batch: UInt32, _ count: Int) {
        connections[slot].hasSaidData = true
        let lane = unsafe RawSpan(_unsafeBytes: batches[batch].data.bytes.unsafeBytes)
        let id = unsafe lane.extracting(last: count).withUnsafeBytes { bytes in
            readSenderID(unsafe bytes.bindMemory(to: UInt8.self).span)
        }
        if let id { connections[slot].peerID = id }
    }

    /// Something that the relay itself says to a room, as data.
    mutating func announce(_ message: [UInt8], to room: UInt32) {
        let batch = rooms[room].batch ?? openBatch(of: room)
        let capacity = batches[batch].capacity
        ServerFrame.appendHeader(.binary, length: message.count, to: &batches[batch].data.bytes)
        batches[batch].data.bytes.append(message)
        batches[batch].data.commit(sender: Lane.noSender)
        if batches[batch].capacity != capacity { chargeGrowth(of: batch, from: capacity) }
    }

    /// Whether a payload begins with the bytes of voice, 4B 56.
    private static func isVoice(_ payload: RawSpan, key: UInt32) -> Bool {
        payload.byteCount >= 2
            && payload.byte(0) ^ UInt8(truncatingIfNeeded: key) == 0x4B
            && payload.byte(1) ^ UInt8(truncatingIfNeeded: key >> 8) == 0x56
    }

    /// A batch for a room that has none.
    private mutating func openBatch(of room: UInt32) -> UInt32 {
        let batch = spareBatches.popLast() ?? batches.insert(RoomBatch()).slot
        batches[batch].room = room
        batches[batch].openedAt = now
        rooms[room].batch = batch
        activeBatches.append(batch)
        return batch
    }

    /// Sends a room's batch now, if it has one, after the rest of the previous one: when the batch is large, and before a
    /// member joins, for whom earlier messages are not.
    mutating func flushRoom(_ room: UInt32) {
        finishFlush(room)
        guard let batch = takeBatch(of: room) else { return }
        let kept = bytesKept(batch)
        send(batch, of: room, to: 0..<rooms[room].members.count, kept: kept)
        endFlush(of: batch, room, kept: kept)
    }

    /// Memory that a batch keeps: it stays with a few batches, so that the steady state allocates nothing.
    private func bytesKept(_ batch: UInt32) -> Int {
        batch < Limits.batchesRetained ? Limits.batchBytesRetainedMax : Limits.batchBytesKeptMax
    }

    /// Sends the rest of the batch that is being sent, if there is one.
    mutating func finishFlush(_ room: UInt32) {
        if rooms[room].flush != nil { flushPiece(of: room, membersMax: rooms[room].members.count) }
    }

    /// Sends so many more members what is being sent in a room.
    ///
    /// - Parameter isSent: false to put it into their outboxes unsent.
    mutating func flushPiece(of room: UInt32, membersMax: Int, isSent: Bool = true) {
        guard let part = rooms[room].flush else { return }
        let stop = min(part.end, part.next + membersMax)
        let isLast = stop == part.end
        let kept = bytesKept(part.batch)
        // The bytes stay with the batch as long as others are to be sent them.
        send(part.batch, of: room, to: part.next..<stop, kept: isLast ? kept : .max, isSent: isSent)
        guard isLast else {
            rooms[room].flush?.next = stop
            return
        }
        rooms[room].flush = nil
        endFlush(of: part.batch, room, kept: kept)
    }

    /// Sends a batch to the members at these places.
    private mutating func send(
        _ batch: UInt32, of room: UInt32, to places: Range<Int>, kept: Int, isSent: Bool = true
    ) {
        let delivered = tally.delivered
        for place in places {
            if isSent {
                deliver(batch, to: rooms[room].members[place])
            } else if let waiter = owe(batch, to: rooms[room].members[place]) {
                waiters.append(waiter)
            }
        }
        chargeSenders(of: batch, lookAtClock())
        if !waiters.isEmpty { queue(batch, share: rooms[room].share, kept: kept) }
        if batches[batch].openedAt != now && tally.delivered > delivered {
            tally.heldDelivered += tally.delivered - delivered
            tally.heldSince = min(tally.heldSince, batches[batch].openedAt)
        }
    }

    /// All members have been sent it: the batch is spare.
    private mutating func endFlush(of batch: UInt32, _ room: UInt32, kept: Int) {
        if batches[batch].waitedVoice + batches[batch].waitedData > 0 { releaseBlocks(of: batch) }
        batches[batch].voice.removeAll(keeping: kept)
        batches[batch].data.removeAll(keeping: kept)
        settleCharge(of: batch, rooms[room].share)
        batches[batch].room = Room.none
        rooms[room].pace.addSend(at: now)
        if batches[batch].isHeld && batches[batch].openedAt != now { page.add(1, to: .batchesHeld) }
        batches[batch].isHeld = false
    }

    /// Charges what a flush has cost to those who said what was flushed.
    private mutating func chargeSenders(of batch: UInt32, _ cost: UInt64) {
        let (voice, data) = (batches[batch].voice.runs.count, batches[batch].data.runs.count)
        // Mostly there is one.
        if voice + data == 1 {
            charge(voice == 1 ? batches[batch].voice.runs[0].sender : batches[batch].data.runs[0].sender, cost)
            return
        }
        let frames = UInt64(batches[batch].voice.frames + batches[batch].data.frames)
        guard frames > 0 else { return }
        for run in batches[batch].voice.runs { charge(run.sender, cost * UInt64(run.frames) / frames) }
        for run in batches[batch].data.runs { charge(run.sender, cost * UInt64(run.frames) / frames) }
    }

    private mutating func charge(_ sender: UInt32, _ cost: UInt64) {
        // The relay itself, or one that has gone meanwhile; should another have its slot, it pays for one message.
        guard sender != Lane.noSender, connections.isOccupied(sender) else { return }
        connections[sender].debt.charge(cost, share)
    }

    /// What a batch keeps is nobody's, and the room is charged with it no more.
    private mutating func settleCharge(of batch: UInt32, _ share: UInt32) {
        let charged = batches[batch].chargedBytes
        if charged != 0 {
            held.shares.charge(-charged, to: share)
            batches[batch].chargedBytes = 0
        }
        let kept = batches[batch].capacity
        held.batchBytes += kept - batches[batch].keptBytes
        batches[batch].keptBytes = kept
    }

    /// What a member is to get of a batch, counted as delivered; nil if there is nothing for it.
    @inline(__always)
    private mutating func owe(_ batch: UInt32, to member: UInt32) -> Waiter? {
        guard connections[member].phase == .open else { return nil }
        let voice = batches[batch].voice.size(notFrom: member)
        let data = batches[batch].data.size(notFrom: member)
        guard voice.frames + data.frames > 0 else { return nil }
        tally.voiceDelivered += UInt64(voice.frames)
        tally.voiceBytesDelivered += UInt64(voice.bytes)
        tally.dataDelivered += UInt64(data.frames)
        tally.dataBytesDelivered += UInt64(data.bytes)
        return Waiter(member: member, voice: voice.bytes, data: data.bytes)
    }

    /// Sends one member what the others said.
    private mutating func deliver(_ batch: UInt32, to member: UInt32) {
        guard let waiter = owe(batch, to: member) else { return }
        guard connections[member].outbox.isClearForRoom, connections[member].sealed.count <= Limits.tlsJoinedBytesMax,
            gatherBatch(batch, for: member)
        else {
            waiters.append(waiter)
            return
        }
        let control = connections[member].outbox.control.count
        switch transmit(member) {
        case .bytes(let sent):
            let total = gather.bytes
            if control > 0 {
                connections[member].outbox.consume(min(sent, control), &held.blocks)
                connections[member].outbox.giveBack(to: &spareQueues)
            }
            if sent < total {
                waiters.append(waiter.without(first: max(0, sent - control)))
                connections[member].outbox.isBatchCut = sent > control
                block(member)
            } else if !connections[member].sealed.isEmpty {
                account(member)
                block(member)
            }
        case .wouldBlock:
            waiters.append(waiter)
            block(member)
        case .failed(let code):
            doom(member, socketError: code)
        }
    }

    /// Sends what is in the gather list. Over TLS what is sealed counts as sent.
    private mutating func transmit(_ member: UInt32) -> GatherList.Sent {
        if connections[member].isSecure { return sealAndSend(member) }
        let result = gather.send(to: connections[member].socket.number)
        if case .bytes(let sent) = result { tally.bytesSent += UInt64(sent) }
        return result
    }

    private mutating func block(_ member: UInt32) {
        connections[member].outbox.isBlocked = true
        watchForWriting(member, true)
    }

    /// Fills the gather list for a member; false if the pieces are too many for one send.
    private mutating func gatherBatch(_ batch: UInt32, for member: UInt32) -> Bool {
        gather.removeAll()
        // Mostly nothing waits.
        if !connections[member].outbox.isEmpty {
            connections[member].outbox.gather(into: &gather, held.blocks)
        }
        let voice = unsafe batches[batch].voice.bytes.unsafeBytes
        var run = 0
        while let range = batches[batch].voice.nextRange(notFrom: member, &run) {
            guard !gather.isFull else { return false }
            unsafe gather.append(voice, range)
        }
        let data = unsafe batches[batch].data.bytes.unsafeBytes
        run = 0
        while let range = batches[batch].data.nextRange(notFrom: member, &run) {
            guard !gather.isFull else { return false }
            unsafe gather.append(data, range)
        }
        return true
    }

    // MARK: - Who can't take it now

    /// Lets what of the batch has not left wait for those who can't take it now: once for all of them where that takes
    /// less memory than a copy for each.
    private mutating func queue(_ batch: UInt32, share: UInt32, kept: Int) {
        var (voice, data) = (0, 0)
        for waiter in waiters {
            voice += waiter.voiceLeft
            data += waiter.dataLeft
        }
        batches[batch].waitedVoice += voice
        batches[batch].waitedData += data
        if batches[batch].voiceBlock == nil {
            let needed = batches[batch].waitedVoice
            batches[batch].voiceBlock = shareVoice(of: batch, needed: needed, share: share, kept: kept)
        }
        if batches[batch].dataBlock == nil {
            let needed = batches[batch].waitedData
            batches[batch].dataBlock = shareData(of: batch, needed: needed, share: share, kept: kept)
        }
        let (voiceBlock, dataBlock) = (batches[batch].voiceBlock, batches[batch].dataBlock)
        for waiter in waiters { queue(batch, for: waiter, voiceBlock, dataBlock) }
        waiters.removeAll(keepingCapacity: true)
    }

    /// The batch has been sent: it gives up its own references to the blocks.
    private mutating func releaseBlocks(of batch: UInt32) {
        (batches[batch].waitedVoice, batches[batch].waitedData) = (0, 0)
        if let block = batches[batch].voiceBlock.take() { held.blocks.release(block) }
        if let block = batches[batch].dataBlock.take() { held.blocks.release(block) }
        if held.blocks.hasFreed { accountFreedBlocks() }
    }

    /// Makes a block of the batch's voice, with one reference, if members who wait need more of it than there is.
    private mutating func shareVoice(of batch: UInt32, needed: Int, share: UInt32, kept: Int) -> UInt32? {
        guard batches[batch].voice.isWorthSharing(needed: needed),
            batches[batch].voice.isTaken(kept: kept) || reserve(batches[batch].voice.bytes.count, share: share)
        else { return nil }
        return addBlock(batches[batch].voice.share(kept: kept), share: share)
    }

    /// The same of its data.
    private mutating func shareData(of batch: UInt32, needed: Int, share: UInt32, kept: Int) -> UInt32? {
        guard batches[batch].data.isWorthSharing(needed: needed),
            batches[batch].data.isTaken(kept: kept) || reserve(batches[batch].data.bytes.count, share: share)
        else { return nil }
        return addBlock(batches[batch].data.share(kept: kept), share: share)
    }

    private mutating func addBlock(_ bytes: consuming ByteQueue, share: UInt32) -> UInt32 {
        held.shares.charge(bytes.capacity, to: share)
        held.shares.retain(share)
        page.add(1, to: .blocksShared)
        return held.blocks.add(bytes, share: share)
    }

    /// Lets what of the batch has not left wait for one member: ranges of the blocks, or copies where there are none.
    private mutating func queue(
        _ batch: UInt32, for waiter: Waiter, _ voiceBlock: UInt32?, _ dataBlock: UInt32?
    ) {
        let member = waiter.member
        // It may have given way to one in front of it.
        guard connections[member].phase == .open else { return }
        var growth = 0
        if voiceBlock == nil && waiter.voiceLeft > 0 {
            shelve(member, voice: waiter.voiceLeft)
            connections[member].outbox.borrowForVoice(from: &spareQueues)
            growth += connections[member].outbox.voice.own.growth(for: waiter.voiceLeft)
        }
        if dataBlock == nil && waiter.dataLeft > 0 {
            shelve(member, data: waiter.dataLeft)
            connections[member].outbox.borrowForData(from: &spareQueues)
            growth += connections[member].outbox.data.own.growth(for: waiter.dataLeft)
        }
        guard reserve(growth, for: member) else { return }
        var sent = waiter.sent
        var run = 0
        var dropped = 0
        let voice = unsafe RawSpan(
            _unsafeBytes: voiceBlock.map { unsafe held.blocks.bytes($0) } ?? batches[batch].voice.bytes.unsafeBytes)
        while let range = batches[batch].voice.nextRange(notFrom: member, &run) {
            if sent >= range.count {
                sent -= range.count
                continue
            }
            connections[member].outbox.appendVoice(
                voice.extracting(range), sent: sent, in: voiceBlock, at: range.lowerBound, &held.blocks)
            sent = 0
            dropped += connections[member].outbox.dropOldVoice(
                bytesMax: configuration.backlogBytesMax, &held.blocks)
        }
        if dropped > 0 { page.count(.drop(.voice), UInt64(dropped)) }
        let data = unsafe RawSpan(
            _unsafeBytes: dataBlock.map { unsafe held.blocks.bytes($0) } ?? batches[batch].data.bytes.unsafeBytes)
        run = 0
        while let range = batches[batch].data.nextRange(notFrom: member, &run) {
            if sent >= range.count {
                sent -= range.count
                continue
            }
            connections[member].outbox.appendData(
                data.extracting(range), sent: sent, in: dataBlock, at: range.lowerBound, &held.blocks)
            sent = 0
        }
        connections[member].outbox.isBatchCut = false
        account(member)
        if connections[member].outbox.isTooLong(configuration.backlogBytesMax) {
            condemn(member, .slow)
        } else if !connections[member].outbox.isBlocked {
            touch(member)
        }
    }
}

extension Worker {
    /// Turns long waiting lanes into blocks before they grow by so many bytes, so that nothing long is copied.
    fileprivate mutating func shelve(_ member: UInt32, voice: Int = 0, data: Int = 0) {
        let share = connections[member].memoryShare.share
        guard share != MemoryShares.none else { return }
        var bytes = 0
        if voice > 0 { bytes += connections[member].outbox.shelveVoice(before: voice, &held.blocks, share: share) }
        if data > 0 { bytes += connections[member].outbox.shelveData(before: data, &held.blocks, share: share) }
        guard bytes > 0 else { return }
        // The same bytes, held by a block from now on.
        account(member)
        held.shares.charge(bytes, to: share)
        held.shares.retain(share)
    }
}

/// A member that can't take all of a batch now.
struct Waiter {
    var member: UInt32
    /// Bytes of each lane that others said.
    var voice: Int
    var data: Int
    /// How many of them have left, voice first.
    var sent = 0

    var voiceLeft: Int { max(0, voice - sent) }
    var dataLeft: Int { data - max(0, sent - voice) }

    func without(first sent: Int) -> Waiter {
        Waiter(member: member, voice: voice, data: data, sent: sent)
    }
}

extension Lane {
    /// Whether members who wait need more of the lane than there is, and its ranges are long enough to be named one by
    /// one.
    fileprivate func isWorthSharing(needed: Int) -> Bool {
        needed > bytes.count && bytes.count / max(1, runs.count) >= Limits.sharedRangeBytesMin
    }

    /// Whether the bytes fill memory that a lane, which keeps `kept` bytes of it, would free anyway.
    fileprivate func isTaken(kept: Int) -> Bool {
        bytes.capacity > kept && bytes.capacity - bytes.count <= bytes.count / 4
    }

    /// The bytes, for a block that all waiting members share: taken out of the lane, or copied. If they are taken out the
    /// lane keeps only the runs.
    fileprivate mutating func share(kept: Int) -> ByteQueue {
        var shared = ByteQueue()
        if isTaken(kept: kept) {
            swap(&shared, &bytes)
        } else {
            shared.reserve(bytes.count)
            unsafe shared.append(bytes.unsafeBytes)
        }
        return shared
    }
}
