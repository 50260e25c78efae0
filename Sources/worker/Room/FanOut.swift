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
        if Self.isVoice(payload, key: key) {
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
        rooms[room].activeAt = second
        // Bounds what is held for one room.
        return batches[batch].byteCount < Limits.batchBytesMax
    }

    /// Whether a room's batch must be flushed before anything more is said.
    @inline(__always)
    func isBatchFull(_ room: UInt32) -> Bool {
        guard room != Room.none, let batch = rooms[room].batch else { return false }
        return batches[batch].byteCount >= Limits.batchBytesMax
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
        ServerFrame.appendHeader(.binary, length: message.count, to: &batches[batch].data.bytes)
        batches[batch].data.bytes.append(message)
        batches[batch].data.commit(sender: Lane.noSender)
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

    /// Sends a room's batch now, if it has one: before somebody joins, so that what was said before is not for them, and
    /// when the batch is large.
    mutating func flushRoom(_ room: UInt32) {
        guard let batch = rooms[room].batch else { return }
        let before = tally.delivered
        for place in 0..<rooms[room].members.count {
            deliver(batch, to: rooms[room].members[place])
        }
        chargeSenders(of: batch, lookAtClock())
        // Memory stays with a few batches, so that the steady state allocates nothing.
        let kept = batch < Limits.batchesRetained ? Limits.batchBytesRetainedMax : Limits.batchBytesKeptMax
        batches[batch].voice.removeAll(keeping: kept)
        batches[batch].data.removeAll(keeping: kept)
        batches[batch].room = Room.none
        rooms[room].batch = nil
        rooms[room].pace.addSend(at: now)
        let wasHeld = batches[batch].isHeld
        batches[batch].isHeld = false
        if batches[batch].openedAt != now {
            if wasHeld { page.add(1, to: .batchesHeld) }
            guard tally.delivered > before else { return }
            tally.heldDelivered += tally.delivered - before
            tally.heldSince = min(tally.heldSince, batches[batch].openedAt)
        }
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

    /// Sends one member what the others said.
    private mutating func deliver(_ batch: UInt32, to member: UInt32) {
        guard connections[member].phase == .open else { return }
        let voice = batches[batch].voice.size(notFrom: member)
        let data = batches[batch].data.size(notFrom: member)
        guard voice.frames + data.frames > 0 else { return }
        tally.voiceDelivered += UInt64(voice.frames)
        tally.voiceBytesDelivered += UInt64(voice.bytes)
        tally.dataDelivered += UInt64(data.frames)
        tally.dataBytesDelivered += UInt64(data.bytes)
        guard connections[member].outbox.isClearForRoom, connections[member].sealed.count <= Limits.tlsJoinedBytesMax,
            gatherBatch(batch, for: member)
        else {
            queue(batch, for: member, sent: 0)
            return
        }
        let control = connections[member].outbox.control.count
        switch transmit(member) {
        case .bytes(let sent):
            let total = gather.bytes
            if control > 0 {
                connections[member].outbox.consume(min(sent, control))
                connections[member].outbox.giveBack(to: &spareQueues)
            }
            if sent < total {
                queue(batch, for: member, sent: max(0, sent - control))
                block(member)
            } else if !connections[member].sealed.isEmpty {
                account(member)
                block(member)
            }
        case .wouldBlock:
            queue(batch, for: member, sent: 0)
            block(member)
        case .failed:
            doom(member, .socketError)
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
        connections[member].outbox.gather(into: &gather)
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

    /// Copies what of the batch has not left into the member's outbox. The first `sent` bytes of its ranges have.
    private mutating func queue(_ batch: UInt32, for member: UInt32, sent: Int) {
        connections[member].outbox.borrow(from: &spareQueues)
        var sent = sent
        var run = 0
        var dropped = 0
        let voice = unsafe RawSpan(_unsafeBytes: batches[batch].voice.bytes.unsafeBytes)
        while let range = batches[batch].voice.nextRange(notFrom: member, &run) {
            if sent >= range.count {
                sent -= range.count
                continue
            }
            connections[member].outbox.appendVoice(voice.extracting(range), sent: sent)
            sent = 0
            dropped += connections[member].outbox.dropOldVoice(bytesMax: configuration.backlogBytesMax)
        }
        if dropped > 0 { page.count(.drop(.voice), UInt64(dropped)) }
        let data = unsafe RawSpan(_unsafeBytes: batches[batch].data.bytes.unsafeBytes)
        run = 0
        while let range = batches[batch].data.nextRange(notFrom: member, &run) {
            if sent >= range.count {
                sent -= range.count
                continue
            }
            connections[member].outbox.appendData(data.extracting(range), sent: sent)
            sent = 0
        }
        account(member)
        if connections[member].outbox.isTooLong(configuration.backlogBytesMax) {
            doom(member, .slow)
        } else if !connections[member].outbox.isBlocked {
            touch(member)
        }
    }
}
