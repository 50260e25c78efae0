import Shared
import Testing

@Suite struct `Counters and gauges` {
    @Test func `are numbered from 0 without a gap, so that each has a place of its own`() {
        #expect(Gauge.allCases.map(\.rawValue) == Array(Gauge.allCases.indices))
        #expect(Counter.allCases.map(\.rawValue) == Array(Counter.allCases.indices))
    }
}

@Suite struct `Families of counters` {
    private func check<Label: CounterLabel>(
        _: Label.Type, _ family: CounterFamily, _ counter: (Label) -> LabelledCounter
    ) {
        let values = Array(Label.allCases)
        #expect(values.map { Int($0.rawValue) } == Array(values.indices), "\(family)")
        #expect(values.map { counter($0).index } == Array(values.indices), "\(family)")
        #expect(values.allSatisfy { counter($0).family == family })
        #expect(values.map { "\($0.label)" } == family.labels)
    }

    @Test func `number their values from 0 without a gap, so that each has a place of its own`() {
        check(CloseReason.self, .closes) { .close($0) }
        check(JoinResult.self, .joins) { .join($0) }
        check(ConnectionRefusal.self, .connectionRefusals) { .connectionRefusal($0) }
        check(TLSHandshakeFailureReason.self, .tlsHandshakeFailures) { .tlsHandshakeFailure($0) }
        check(TLSViolation.self, .tlsViolations) { .tlsViolation($0) }
        check(DropReason.self, .drops) { .drop($0) }
    }

    @Test(arguments: CounterFamily.allCases)
    func `fit their block, and spell each value once, in lower case`(family: CounterFamily) {
        let labels = family.labels
        #expect(!labels.isEmpty && labels.count <= CounterFamily.labelsMax)
        #expect(Set(labels).count == labels.count)
        #expect(labels.allSatisfy { $0.wholeMatch(of: #/[a-z]+(_[a-z]+)*/#) != nil }, "\(labels)")
    }

    @Test func `are said in the log as they are counted`() {
        #expect("\(CloseReason.messageTooBig)" == "message_too_big")
        #expect("\(TLSViolation.keyUpdateLength)" == "key_update_length")
    }
}

@Suite struct `Results of joins` {
    /// docs/wire-protocol.md, in the order of the checks.
    @Test func `have the answers of the wire protocol`() {
        let answers = JoinResult.allCases.map { result in
            "\(result): " + (result.refusal.map { "\($0.status.rawValue) \($0.text)" } ?? "let in")
                + (result.retryAfter.map { ", again in \($0)" } ?? "")
        }
        #expect(
            answers == [
                "host: let in", "guest: let in", "rate_limited: 429 rate limit exceeded, again in 1",
                "missing_parameter: 400 missing room or token", "invalid_room: 400 invalid room",
                "bad_handshake: 400 ", "origin_not_allowed: 403 origin not allowed",
                "invalid_public_key: 400 invalid pubkey",
                "shutting_down: 503 shutting down, again in 1", "address_full: 429 too many connections, again in 1",
                "room_not_found: 404 room not found", "invalid_token: 401 ", "room_mismatch: 403 room mismatch",
                "host_role_required: 403 host role required", "room_held: 403 room held by another host",
                "room_full: 503 room full", "address_rooms_full: 429 too many rooms, again in 1",
                "max_rooms: 503 max rooms reached",
                "handoff_failed: 503 relay busy, again in 1",
            ])
    }
}
