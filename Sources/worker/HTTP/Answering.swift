// Requests of a connection, in order: `/` and `/health` are answered here, `/ws` goes on to Join/Joining.swift.

import Shared

extension Worker {
    /// Answers the requests that have come whole, as many as one service answers; the others wait for the next, unread.
    /// What was said before in a room that somebody joins is not for the one who comes.
    mutating func serveRequests(_ slot: UInt32) {
        while let room = answerRequests(slot) {
            guard !mustJoinLater(room) else {
                joinLater(slot, room)
                return
            }
            closeBatch(of: room)
        }
    }

    /// Lets a connection's requests wait for a later service.
    mutating func answerLater(_ slot: UInt32) {
        guard !connections[slot].isUnanswered, !connections[slot].input.isEmpty else { return }
        connections[slot].isUnanswered = true
        unanswered.append(connections.id(slot))
    }

    /// Answers requests until one needs a room flushed. While too many answers wait the connection is not read.
    ///
    /// - Returns: the room; nil if none is to be flushed.
    private mutating func answerRequests(_ slot: UInt32) -> UInt32? {
        var answered = 0
        while connections[slot].phase == .request && !connections[slot].input.isEmpty {
            guard answered < Limits.requestsPerServiceMax else {
                answerLater(slot)
                return nil
            }
            answered += 1
            if connections[slot].outbox.count > Limits.answersWaitingMax {
                flush(slot)
                // The socket may turn out to be broken.
                guard connections[slot].phase == .request else { return nil }
                if connections[slot].outbox.isBlocked {
                    setInterest(slot, connections[slot].interest.subtracting(.read))
                    return nil
                }
            }
            let bytes = unsafe connections[slot].input.unsafeBytes
            let parse = parseRequest(
                unsafe bytes.bindMemory(to: UInt8.self).span, searched: connections[slot].searched)
            switch parse {
            case .incomplete:
                connections[slot].searched = bytes.count
                return nil
            case .refused(let error):
                page.add(1, to: .requests)
                guard admitsUnreadable(slot) else { return nil }
                refuse(slot, error, request: nil)
            case .head(let request):
                connections[slot].searched = 0
                if let room = route(slot, request) { return room }
            }
        }
        return nil
    }

    /// - Returns: a room that must be flushed before the request is looked at again.
    private mutating func route(_ slot: UInt32, _ request: Request) -> UInt32? {
        // A request that was handed over has been counted by the worker that took it.
        if connections[slot].hops == 0 {
            page.add(1, to: .requests)
            nameClient(slot, request)
        }
        if request.path == "/ws" { return join(slot, request) }
        guard admits(slot, request) else { return nil }
        var request = request
        connections[slot].requests = min(connections[slot].requests, .max - 1) + 1
        if connections[slot].hasAskedEnough(second) { request.keepAlive = false }
        answerPage(slot, request)
        return nil
    }

    /// `/` and `/health`, and what is no path of the relay's.
    private mutating func answerPage(_ slot: UInt32, _ request: Request) {
        guard request.path == "/" || request.path == "/health" else {
            answer(slot, request, Response.error(.notFound, "not found", request: request))
            return
        }
        switch request.method {
        case .get, .head:
            if request.path == "/" {
                answer(slot, request, Response.statusPage(request: request))
            } else {
                let health = memory.health(now: now, silenceMax: Limits.heartbeatSilenceNanoseconds)
                answer(slot, request, Response.health(health, request: request))
            }
        case .other:
            let methods = [("Allow", "GET, HEAD")]
            answer(
                slot, request, Response.error(.methodNotAllowed, "method not allowed", extra: methods, request: request)
            )
        }
    }

    /// Sends an answer and goes on to the next request, or lets the connection end with it.
    private mutating func answer(_ slot: UInt32, _ request: Request, _ response: [UInt8]) {
        connections[slot].outbox.appendControl(response)
        connections[slot].input.removeFirst(request.headBytes)
        if request.keepAlive && !request.hasBody && drainDeadline == nil {
            connections[slot].input.releaseIfIdle(above: 0)
            let due = min(second + UInt32(Limits.requestSeconds), connections[slot].endsUnjoined)
            connectionTimers.set(slot, in: &connections, due: due)
            touch(slot)
        } else {
            finish(slot)
        }
    }

    /// Sends a refusal and lets the connection end with it. `request`, where there is one: the answer to HEAD has no body.
    mutating func refuse(
        _ slot: UInt32, _ error: RequestError, request: Request?, retryAfter seconds: UInt64? = nil
    ) {
        page.add(1, to: .requestRefused)
        let answer = Response.refusal(error, retryAfter: seconds, request: request)
        connections[slot].outbox.appendControl(answer)
        finish(slot)
    }
}
