// One open connection of the check: what it has been promised and what it gets.

import Glibc

/// A message that a member waits for.
enum Expected: Equatable {
    /// These bytes and no others.
    case exactly([UInt8])
    /// The notice that this peer left. Its time is the relay's, so it is compared field by field.
    case leave(peer: String)

    var summary: String {
        switch self {
        case .exactly(let bytes): Describe.bytes(bytes, limit: 60)
        case .leave(let peer): "leave notice of \(Describe.bytes(peer.utf8, limit: 60))"
        }
    }
}

/// What one sender's messages to one recipient must be, in order: voice among voice, data among data.
struct ExpectedStream {
    let sender: String
    var voice: ArraySlice<Expected> = []
    var data: ArraySlice<Expected> = []
}

/// A close frame that has come.
struct CloseFrame: Equatable {
    /// Nil: without a code.
    var code: UInt16?
}

final class CheckMember {
    /// "room 3 guest 1".
    let name: String
    let transport: Transport
    private var output: [UInt8] = []
    private var outputStart = 0
    private var input: [UInt8]
    /// The streams of the others in the room, by their names.
    private var streams: [ExpectedStream] = []

    /// Messages that are still to come.
    private(set) var outstanding = 0
    /// Messages that came as promised, since last asked.
    private(set) var arrived = 0
    /// What came and should not have, or not so; since last asked.
    private(set) var problems: [String] = []
    private(set) var pongs: [[UInt8]] = []
    private(set) var closeFrame: CloseFrame?
    /// Why the connection has ended, once it has.
    private(set) var ended: String?

    init(name: String, transport: Transport, rest: [UInt8]) {
        self.name = name
        self.transport = transport
        input = rest
        parse()
    }

    // MARK: Sending

    func send(_ frame: Frame) { send(bytes: frame.encoded) }

    /// Queues bytes; they go out as far as the kernel takes them, and the rest when it takes more.
    func send(bytes: [UInt8]) {
        output += bytes
        flush()
    }

    /// Sends a KeyUpdate between what was sent and what will be. Only over TLS, and while nothing waits to be written.
    func updateKeys(asking: Bool) {
        if transport.secure?.updateKeys(asking: asking) != true { problems.append("libssl sent no KeyUpdate") }
    }

    /// KeyUpdates that have come so far.
    var keyUpdates: Int { transport.secure?.keyUpdates ?? 0 }

    /// How the connection must not end over TLS: without a close_notify, which RFC 8446, 6.1, demands of both sides.
    var isTruncated: Bool { transport.secure?.isTruncated ?? false }

    var wantsToWrite: Bool { outputStart < output.count && ended == nil }

    func flush() {
        while outputStart < output.count {
            switch transport.write(output, from: outputStart) {
            case .bytes(let count): outputStart += count
            case .wouldBlock: return
            // What came before the end is still to be read, so the end is left to reading.
            case .ended: outputStart = output.count
            }
        }
        output.removeAll(keepingCapacity: output.count < 65536)
        outputStart = 0
    }

    /// Ends the TCP connection without a word.
    func vanish() {
        transport.shutdown()
        ended = "ended by the check"
    }

    // MARK: Receiving

    /// Reads once; `buffer` is scratch space.
    func receive(_ buffer: inout [UInt8]) {
        switch transport.read(into: &buffer) {
        case .wouldBlock: return
        case .ended(let reason): ended = reason
        case .bytes(let count):
            input += buffer[..<count]
            parse()
        }
    }

    private func parse() {
        var start = 0
        while let (header, headerCount) = FrameHeader.parse(input.span, at: start) {
            let payloadStart = start + headerCount
            guard input.count - payloadStart >= header.payloadCount else { break }
            take(header, Array(input[payloadStart..<payloadStart + header.payloadCount]))
            start = payloadStart + header.payloadCount
        }
        if start > 0 { input.removeFirst(start) }
    }

    private func take(_ header: FrameHeader, _ payload: [UInt8]) {
        if header.masked { problems.append("a masked frame (RFC 6455, section 5.1, forbids servers that)") }
        if header.reserved != 0 { problems.append("a frame with reserved bits set, without any extension agreed") }
        if !header.final { problems.append("a fragment: forwarded messages are one frame each") }
        if closeFrame != nil { problems.append("a frame behind the close frame") }
        switch Opcode(rawValue: header.opcode) {
        case .binary: take(message: payload)
        case .text: problems.append("a text frame: everything is forwarded as binary; \(Describe.bytes(payload))")
        case .ping: send(Frame(opcode: .pong, payload: payload))
        case .pong: pongs.append(payload)
        case .close:
            closeFrame = CloseFrame(code: payload.count >= 2 ? UInt16(payload[0]) << 8 | UInt16(payload[1]) : nil)
        case .continuation, nil: problems.append("a frame with opcode \(header.opcode)")
        }
    }

    // MARK: Expecting

    func expect(_ expected: Expected, from sender: String) {
        let index = stream(of: sender)
        if case .exactly(let bytes) = expected, Self.isVoice(bytes) {
            streams[index].voice.append(expected)
        } else {
            streams[index].data.append(expected)
        }
        outstanding += 1
    }

    private func stream(of sender: String) -> Int {
        if let index = streams.firstIndex(where: { $0.sender == sender }) { return index }
        streams.append(ExpectedStream(sender: sender))
        return streams.count - 1
    }

    static func isVoice(_ payload: [UInt8]) -> Bool { payload.starts(with: [0x4B, 0x56]) }

    /// A binary message: voice, one data message, or several joined with line feeds.
    private func take(message: [UInt8]) {
        if match(message) { return }
        if let problem = skip(to: message) {
            problems.append(problem)
            return
        }
        guard !Self.isVoice(message), message.contains(0x0A) else {
            problems.append(explain(message))
            return
        }
        for part in message.split(separator: 0x0A, omittingEmptySubsequences: false).map({ Array($0) })
        where !match(part) {
            problems.append(
                (skip(to: part) ?? explain(part)) + ", in a joined message of \(message.count) bytes")
        }
    }

    /// Takes the message off the sender's stream whose next one it is.
    private func match(_ message: [UInt8]) -> Bool {
        let voice = Self.isVoice(message)
        for index in streams.indices {
            guard let next = voice ? streams[index].voice.first : streams[index].data.first,
                Self.matches(message, next)
            else { continue }
            if voice { streams[index].voice.removeFirst() } else { streams[index].data.removeFirst() }
            outstanding -= 1
            arrived += 1
            return true
        }
        return false
    }

    private static func matches(_ message: [UInt8], _ expected: Expected) -> Bool {
        switch expected {
        case .exactly(let bytes): message == bytes
        case .leave(let peer): LeaveNotice.problem(message, peer: peer) == nil
        }
    }

    /// A message that is due later than now shows that those before it are lost: goes on behind it, so that one loss is
    /// one failure.
    private func skip(to message: [UInt8]) -> String? {
        for index in streams.indices {
            let queue = Self.isVoice(message) ? streams[index].voice : streams[index].data
            guard let later = queue.firstIndex(of: .exactly(message)) else { continue }
            let skipped = later - queue.startIndex
            outstanding -= skipped + 1
            if Self.isVoice(message) {
                streams[index].voice = queue[(later + 1)...]
            } else {
                streams[index].data = queue[(later + 1)...]
            }
            let first = queue.first?.summary ?? ""
            let got = Describe.bytes(message, limit: 60)
            return "\(skipped) message(s) from \(streams[index].sender) lost or late: expected \(first), got \(got)"
        }
        return nil
    }

    /// Why a message is not one that should come now.
    private func explain(_ message: [UInt8]) -> String {
        let got = Describe.bytes(message, limit: LeaveNotice.isOne(message) ? 200 : 60)
        if LeaveNotice.isOne(message) {
            for stream in streams {
                guard case .leave(let peer) = stream.data.first else { continue }
                let problem = LeaveNotice.problem(message, peer: peer) ?? "not due yet"
                return "leave notice: \(problem); got \(got)"
            }
            return "a leave notice that is not due; got \(got)"
        }
        let next = streams.compactMap { (Self.isVoice(message) ? $0.voice : $0.data).first }.first
        let expected = next.map { "expected for example \($0.summary)" } ?? "expected nothing"
        return "unknown, repeated or own message: \(expected), got \(got)"
    }

    /// Forgets what has not come, and says what that was.
    func giveUp() -> [String] {
        var missing: [String] = []
        for stream in streams where stream.voice.count + stream.data.count > 0 {
            let count = stream.voice.count + stream.data.count
            let next = (stream.data.first ?? stream.voice.first)?.summary ?? ""
            missing.append("\(name): \(count) message(s) from \(stream.sender) did not come, the next is \(next)")
        }
        streams.removeAll()
        outstanding = 0
        return missing
    }

    /// What has come since last asked.
    func takeArrived() -> Int {
        defer { arrived = 0 }
        return arrived
    }

    func takeProblems() -> [String] {
        defer { problems.removeAll() }
        return problems.map { "\(name): \($0)" }
    }

    func takePongs() -> [[UInt8]] {
        defer { pongs.removeAll() }
        return pongs
    }
}

/// The notice that a peer left:
/// `{"id":"","type":"session:leave","from":"PEER_ID","ts":UNIX_MILLISECONDS,"nonce":0,"payload":null,"sig":null}`.
enum LeaveNotice {
    private static let start = Array(#"{"id":"","type":"session:leave","from":"#.utf8)
    private static let end = Array(#","nonce":0,"payload":null,"sig":null}"#.utf8)

    static func isOne(_ message: [UInt8]) -> Bool { message.starts(with: start) }

    /// What is wrong with the notice, or nil.
    static func problem(_ message: [UInt8], peer: String) -> String? {
        guard message.starts(with: start), message.count > start.count + end.count,
            message.suffix(end.count).elementsEqual(end)
        else { return "expected \(String(decoding: start, as: UTF8.self))...\(String(decoding: end, as: UTF8.self))" }
        let middle = message[start.count..<message.count - end.count]
        guard let (from, after) = JSONString.parse(middle) else { return "`from` is not a JSON string" }
        guard from == peer else {
            return "expected from \(Encoding.json(peer)), got from \(Encoding.json(from))"
        }
        let rest = String(decoding: middle[after...], as: UTF8.self)
        guard rest.hasPrefix(",\"ts\":"), let time = UInt64(rest.dropFirst(6)) else { return "`ts` is not an integer" }
        // Two machines' clocks differ, but not seconds from milliseconds.
        let now = Clock.unix() / 1_000_000
        guard time > now - 3_600_000 * 24, time < now + 3_600_000 * 24 else { return "`ts` \(time) is not now in ms" }
        return nil
    }
}

/// JSON strings (RFC 8259, section 7), strictly.
enum JSONString {
    /// The string that starts at the slice's first byte, and the index behind its closing quote.
    static func parse(_ bytes: ArraySlice<UInt8>) -> (text: String, end: Int)? {
        guard bytes.first == UInt8(ascii: "\"") else { return nil }
        var units: [UInt16] = []
        var index = bytes.startIndex + 1
        while index < bytes.endIndex {
            switch bytes[index] {
            case UInt8(ascii: "\""): return (String(decoding: units, as: UTF16.self), index + 1)
            case UInt8(ascii: "\\"):
                guard let (unit, next) = escape(bytes, at: index + 1) else { return nil }
                units.append(unit)
                index = next
            case 0..<0x20: return nil
            default:
                var end = index + 1
                while end < bytes.endIndex, bytes[end] >= 0x20, bytes[end] != UInt8(ascii: "\""),
                    bytes[end] != UInt8(ascii: "\\")
                { end += 1 }
                guard let text = String(validating: bytes[index..<end], as: UTF8.self) else { return nil }
                units += text.utf16
                index = end
            }
        }
        return nil
    }

    private static func escape(_ bytes: ArraySlice<UInt8>, at index: Int) -> (unit: UInt16, next: Int)? {
        guard index < bytes.endIndex else { return nil }
        switch bytes[index] {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return (UInt16(bytes[index]), index + 1)
        case UInt8(ascii: "b"): return (8, index + 1)
        case UInt8(ascii: "f"): return (12, index + 1)
        case UInt8(ascii: "n"): return (10, index + 1)
        case UInt8(ascii: "r"): return (13, index + 1)
        case UInt8(ascii: "t"): return (9, index + 1)
        case UInt8(ascii: "u"):
            guard index + 5 <= bytes.endIndex else { return nil }
            let digits = String(decoding: bytes[index + 1..<index + 5], as: UTF8.self)
            return UInt16(digits, radix: 16).map { ($0, index + 5) }
        default: return nil
        }
    }
}
