// What the supervisor and this worker tell each other while the worker serves (Shared/ControlMessage.swift).

import Glibc
import Logging
import Shared

extension Worker {
    /// Tells the supervisor something, behind what there is to be told of host keys. Where the channel is full, these stay behind,
    /// which is no harm: what is said here means the same without them.
    mutating func report(_ message: ControlMessage) {
        tellHostKeys()
        tell(message)
    }

    /// Never blocks. A message is lost, and counted, only if thousands wait, and a worker never leaves so many.
    mutating func tell(_ message: ControlMessage) {
        guard !isSupervisorGone else { return }
        do throws(SystemError) {
            if try !control.send(message) { page.count(.drop(.controlMessage)) }
            watchControl()
        } catch {
            supervisorGone("\(error)")
        }
    }

    /// Watches the channel for room while messages wait in it.
    private mutating func watchControl() {
        guard control.isBlocked != isControlBlocked else { return }
        isControlBlocked = control.isBlocked
        poller.change(control.number, to: isControlBlocked ? [.read, .write] : .read, .control)
    }

    mutating func receiveControl() {
        guard !isSupervisorGone else { return }
        do throws(SystemError) {
            try control.flush()
        } catch {
            supervisorGone("\(error)")
            return
        }
        while !isSupervisorGone {
            switch control.receive() {
            case .nothing:
                watchControl()
                return
            case .message(let message, let descriptors):
                obey(message, descriptors)
            case .closed:
                supervisorGone("control channel closed")
            case .malformed(let error):
                logger.error("control message not understood", metadata: ["reason": "\(error)"])
            case .failed(let error):
                supervisorGone("\(error)")
            }
        }
    }

    private mutating func obey(_ message: ControlMessage, _ descriptors: [Int32]) {
        if case .inboxes(let first) = message {
            guard first == nextOutboxes.count, first + descriptors.count <= Limits.workersMax else {
                logger.error("inboxes out of order")
                for descriptor in descriptors { _ = Glibc.close(descriptor) }
                return
            }
            nextOutboxes += descriptors
            return
        }
        for descriptor in descriptors { _ = Glibc.close(descriptor) }
        switch message {
        case .drain(let deadline, let isRestart):
            startDraining(deadline, isRestart ? .restart : .shutdown)
        case .serve:
            startAccepting()
        case .route(let workers, let leaves):
            take(route: workers, leaves: leaves)
        case .lastCall:
            leaving?.hasHeardLastCall = true
        case .hostKeys(let keys):
            // Of a worker that died before its rooms had moved: to all, because only a worker knows whose they are.
            for key in keys where placement.owner(of: key.room) == index {
                takeKey(key.room, key.publicKey, key.expiry)
            }
        case .sourceGone(let source):
            awaiting.gone(source)
        case .launch, .inboxes, .listeners, .start, .ready, .failed, .checkCredentials, .credentials,
            .makeCertificate, .certificate, .routed, .moved:
            logger.error("control message out of place", metadata: ["message": "\(message.name)"])
        }
    }

    /// Without a supervisor nobody would replace this worker or stop it: it lets its clients go and ends.
    private mutating func supervisorGone(_ reason: String) {
        guard !isSupervisorGone else { return }
        isSupervisorGone = true
        hostKeyReports = HostKeyReports()
        poller.remove(control.number)
        logger.warning("the supervisor is gone: draining", metadata: ["reason": "\(reason)"])
        startDraining(now + UInt64(configuration.shutdownGraceSeconds) * 1_000_000_000, .shutdown)
    }

    /// Lets everybody go by `deadline`, CLOCK_MONOTONIC nanoseconds: no new joins, rooms closed a few at a time.
    mutating func startDraining(_ deadline: UInt64, _ reason: CloseReason) {
        guard drainDeadline == nil else {
            drainDeadline = min(drainDeadline ?? deadline, deadline)
            return
        }
        drainDeadline = deadline
        drainReason = reason
        drainBegan = now
        page.state = .draining
        stopLeaving()
        // Whoever comes now is for the program that comes next.
        if case .restart = reason { stopAccepting() }
        // Their rooms may not come any more; they are told so now.
        for room in awaiting.roomsWaitedFor { admitWaiting(for: room) }
        for slot in connections.slots where connections.isOccupied(slot) {
            switch connections[slot].phase {
            case .request where connections[slot].input.isEmpty && connections[slot].outbox.isEmpty:
                // Kept open for a next request that has not begun.
                end(slot, .ended)
            case .handshake where handshakes[slot] == nil, .proxyHeader:
                // Has not said a word.
                doom(slot, .ended)
            default:
                break
            }
        }
    }

    /// Closes some rooms, so that a large relay's close frames don't all leave in one burst: as many a turn as let
    /// everybody hear of it in half of the time that is left.
    mutating func drainSome() {
        let left = drainDeadline.map { $0 > now ? $0 - now : 0 } ?? 0
        let turns = max(1, left / (2 * UInt64(Limits.busyTurnMilliseconds) * 1_000_000))
        let closesMax = max(Limits.drainClosesPerTurnMin, Int(page[.clients] / turns))
        var closed = 0
        while drainNext < rooms.slots.upperBound && closed < closesMax {
            if rooms.isOccupied(drainNext) {
                closed += rooms[drainNext].members.count
                disband(drainNext, drainReason)
            }
            drainNext += 1
        }
    }

    /// The time is over: whoever is left gets a close frame as far as one send does, and the process ends.
    mutating func sayGoodbye() {
        for slot in rooms.slots where rooms.isOccupied(slot) { disband(slot, drainReason) }
        settleEverything()
        tellHostKeys()
        publish()
    }
}
