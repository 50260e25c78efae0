// What a soak has seen: faults by kind, how long voice took, and what was done to the relay.

import Glibc

/// What must not happen.
enum SoakFault: String, CaseIterable {
    case disconnect = "disconnects"
    case lost
    case repeated
    case reordered
    case corrupted
    /// A message came back to its sender, from another room, or to somebody who was not there when it was sent.
    case misdelivered
    /// A leave notice that did not come, came twice, or too early.
    case notices
    /// A connection attempt that was not let in.
    case refused
    /// A ping, KeyUpdate or close frame without its answer, or a frame that servers may not send.
    case wrongAnswers = "wrong_answers"
}

/// Figures of the whole run, or since the last mark.
struct SoakFigures {
    var faults: [SoakFault: Int] = [:]
    var dataSent = 0
    var voiceSent = 0
    var delivered = 0
    var bytesDelivered = 0
    /// Voice that the relay dropped for receivers that were not reading, which it may.
    var voiceDropped = 0
    var joins = 0
    var leaves = 0
    var roomsEnded = 0
    var pauses = 0
    var keyUpdates = 0
    var pings = 0
    var cutFrames = 0
    var cutRecords = 0
    var fragmented = 0
    /// From the moment before it was sent to its arrival; of receivers that were reading.
    var delay = Histogram()
    var worstDelay: (nanoseconds: UInt64, stream: String) = (0, "none")
    /// How long the soak was away from its sockets at the longest: a delay up to this may be its own.
    var turnMax: UInt64 = 0
    /// Seconds in which it sent less than it was asked to, because it did not keep up.
    var throttledSeconds = 0

    func count(_ fault: SoakFault) -> Int { faults[fault] ?? 0 }
    var isClean: Bool { faults.values.allSatisfy { $0 == 0 } }

    private func milliseconds(_ nanoseconds: UInt64) -> String { fixed(Double(nanoseconds) / 1e6, 2) }

    private var delays: [(name: String, value: String)] {
        [
            ("p50", milliseconds(delay.percentile(0.5))), ("p99", milliseconds(delay.percentile(0.99))),
            ("p99.9", milliseconds(delay.percentile(0.999))), ("max", milliseconds(delay.maximum)),
        ]
    }

    /// "disconnects 0, lost 0, ...".
    var faultLine: String {
        SoakFault.allCases.map { "\($0.rawValue) \(count($0))" }.joined(separator: ", ")
    }

    /// "voice delay ms p50 0.21, ...".
    var delayLine: String {
        "voice delay ms " + delays.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
            + " (\(worstDelay.stream)), own longest turn ms \(milliseconds(turnMax))"
    }

    func text(title: String) -> String {
        var lines = [title]
        for fault in SoakFault.allCases { lines.append(line(fault.rawValue, "\(count(fault))")) }
        lines.append(line("data messages sent", "\(dataSent)"))
        lines.append(line("voice frames sent", "\(voiceSent)"))
        lines.append(line("deliveries", "\(delivered)"))
        lines.append(line("delivered, MB", fixed(Double(bytesDelivered) / 1e6, 1)))
        lines.append(line("voice dropped (allowed)", "\(voiceDropped)"))
        lines.append(line("joins", "\(joins)"))
        lines.append(line("leaves", "\(leaves)"))
        lines.append(line("rooms ended", "\(roomsEnded)"))
        lines.append(line("slow readers", "\(pauses)"))
        lines.append(line("fragmented messages", "\(fragmented)"))
        lines.append(line("half-sent frames", "\(cutFrames)"))
        lines.append(line("half-sent records", "\(cutRecords)"))
        lines.append(line("pings", "\(pings)"))
        lines.append(line("KeyUpdates", "\(keyUpdates)"))
        for (name, value) in delays { lines.append(line("voice delay \(name), ms", value)) }
        lines.append(line("own longest turn, ms", milliseconds(turnMax)))
        lines.append(line("throttled, s", "\(throttledSeconds)"))
        lines.append("  worst voice stream: \(worstDelay.stream)")
        return lines.joined(separator: "\n")
    }

    func json(_ first: [String]) -> String {
        var fields = first
        for fault in SoakFault.allCases { fields.append("\"\(fault.rawValue)\":\(count(fault))") }
        let counts = [
            ("data_sent", dataSent), ("voice_sent", voiceSent), ("delivered", delivered),
            ("bytes_delivered", bytesDelivered), ("voice_dropped", voiceDropped), ("joins", joins), ("leaves", leaves),
            ("rooms_ended", roomsEnded), ("slow_readers", pauses), ("fragmented", fragmented),
            ("half_sent_frames", cutFrames), ("half_sent_records", cutRecords), ("pings", pings),
            ("key_updates", keyUpdates), ("throttled_seconds", throttledSeconds),
        ]
        fields += counts.map { "\"\($0.0)\":\($0.1)" }
        fields += delays.map { "\"voice_delay_\($0.name.replacing(".", with: "_"))_ms\":\($0.value)" }
        fields.append("\"own_turn_max_ms\":\(milliseconds(turnMax))")
        fields.append("\"worst_voice_stream\":\(Encoding.json(worstDelay.stream))")
        return "{" + fields.joined(separator: ",") + "}"
    }
}

struct SoakReport {
    let isJSON: Bool
    private(set) var whole = SoakFigures()
    private(set) var interval = SoakFigures()
    private var intervals = 0
    private let began = Clock.monotonic()
    private var intervalBegan: UInt64
    /// Faults told one by one; further ones are counted only.
    private var untold = 40

    init(isJSON: Bool) {
        self.isJSON = isJSON
        intervalBegan = began
    }

    private func seconds(since moment: UInt64) -> String { fixed(Double(Clock.monotonic() - moment) / 1e9, 3) }

    /// Changes the figures of the run and of the interval alike.
    @inline(__always)
    mutating func count(_ change: (inout SoakFigures) -> Void) {
        change(&whole)
        change(&interval)
    }

    mutating func fault(_ fault: SoakFault, count number: Int = 1, _ detail: @autoclosure () -> String) {
        count { $0.faults[fault, default: 0] += number }
        guard untold > 0 else { return }
        untold -= 1
        standardError("\(seconds(since: began)) s: \(fault.rawValue): \(detail())")
        if untold == 0 { standardError("further faults are counted only") }
    }

    /// Ends an interval: its figures in one line.
    mutating func mark() {
        intervals += 1
        let seconds = seconds(since: intervalBegan)
        show(
            isJSON
                ? interval.json(["\"interval\":\(intervals)", "\"seconds\":\(seconds)"])
                : "interval \(intervals): \(seconds) s, \(interval.delayLine), \(interval.faultLine)")
        interval = SoakFigures()
        intervalBegan = Clock.monotonic()
    }

    func status(_ who: String) {
        standardError(
            "\(seconds(since: began)) s: \(who), \(whole.delivered) deliveries, \(whole.delayLine), \(whole.faultLine)")
    }

    func summarize(seed: UInt64) {
        let seconds = seconds(since: began)
        show(
            isJSON
                ? whole.json(["\"soak\":\(whole.isClean)", "\"seed\":\(seed)", "\"seconds\":\(seconds)"])
                : whole.text(title: "\(whole.isClean ? "All ok" : "FAILED"): \(seconds) s, seed \(seed)"))
    }

    /// At once, also into a pipe.
    private func show(_ line: String) {
        print(line)
        _ = fflush(nil)
    }
}
