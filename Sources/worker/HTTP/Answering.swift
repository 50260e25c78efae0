// Requests of a connection, in order: `/` and `/health` are answered here, `/ws` goes on to Join/Joining.swift.

import Shared

extension Worker {
    /// Answers the requests that have come whole. Pipelined ones are answered one behind the other; while too many answers
    /// wait the connection is not read.
    mutating func answerRequests(_ slot: UInt32) {
        while connections[slot].phase == .request && !connections[slot].input.isEmpty {
            if connections[slot].outbox.count > Limits.answersWaitingMax {
                flush(slot)
                if connections[slot].outbox.isBlocked {
                    setInterest(slot, connections[slot].interest.subtracting(.read))
                    return
                }
            }
            let bytes = unsafe connections[slot].input.unsafeBytes
            let parse = parseRequest(
                unsafe bytes.bindMemory(to: UInt8.self).span, searched: connections[slot].searched)
            switch parse {
            case .incomplete:
                connections[slot].searched = bytes.count
                return
            case .refused(let error):
                page.add(1, to: .requests)
                refuse(slot, error)
            case .head(let request):
                connections[slot].searched = 0
                route(slot, request)
            }
        }
    }

    private mutating func route(_ slot: UInt32, _ request: Request) {
        // A request that was handed over has been counted by the worker that took it.
        if connections[slot].hops == 0 { page.add(1, to: .requests) }
        if request.path == "/ws" {
            join(slot, request)
            return
        }
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
            connectionTimers.set(slot, in: &connections, due: second + UInt32(Limits.requestSeconds))
            touch(slot)
        } else {
            finish(slot)
        }
    }

    /// Sends a refusal and lets the connection end with it. `request` where there is one: to a HEAD no content is sent.
    mutating func refuse(
        _ slot: UInt32, _ error: RequestError, retryAfter seconds: UInt64? = nil, request: Request? = nil
    ) {
        page.add(1, to: .requestRefused)
        connections[slot].outbox.appendControl(Response.refusal(error, retryAfter: seconds, request: request))
        finish(slot)
    }
}
