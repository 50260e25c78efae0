// HTTP/1.1 requests and answers, and the WebSocket opening handshake (RFC 6455, section 4.1).

import Glibc

/// An answer to a request.
struct Answer {
    var status: Int
    /// Names in lower case.
    var fields: [(name: String, value: String)]
    var body: [UInt8]

    subscript(name: String) -> String? {
        fields.first { $0.name == name }?.value
    }

    /// The body as text, without the line end that some servers add to an error's text.
    var text: String {
        let text = String(decoding: body, as: UTF8.self)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    /// "404 room not found".
    var summary: String { "\(status) \(text.prefix(80))" }

    /// The head that ends at `bytes[..<end]` (blank line included).
    static func parseHead(_ bytes: ArraySlice<UInt8>) -> Answer? {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\r\n", omittingEmptySubsequences: true)
        guard let first = lines.first, first.hasPrefix("HTTP/1.1 "), let status = Int(first.dropFirst(9).prefix(3))
        else { return nil }
        let fields = lines.dropFirst().compactMap { line -> (name: String, value: String)? in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            return (line[..<colon].lowercased(), String(value))
        }
        return Answer(status: status, fields: fields, body: [])
    }
}

/// A request head. The defaults are a correct WebSocket handshake.
struct Request {
    var method = "GET"
    var target: String
    var upgrade = true
    var version = "13"
    var key = Encoding.base64(Encoding.randomBytes(16))

    /// `/ws` with these parameters, each percent-encoded.
    static func join(room: String?, token: String?, hostKey: String? = nil) -> Request {
        var parameters: [String] = []
        if let room { parameters.append("room=" + Encoding.percent(room)) }
        if let token { parameters.append("token=" + Encoding.percent(token)) }
        if let hostKey { parameters.append("pubkey=" + Encoding.percent(hostKey)) }
        return Request(target: "/ws?" + parameters.joined(separator: "&"))
    }

    static func plain(_ target: String, method: String = "GET") -> Request {
        Request(method: method, target: target, upgrade: false)
    }

    func encoded(authority: String) -> [UInt8] {
        var text = "\(method) \(target) HTTP/1.1\r\nHost: \(authority)\r\nUser-Agent: relay-load\r\n"
        if upgrade {
            text += "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            text += "Sec-WebSocket-Key: \(key)\r\nSec-WebSocket-Version: \(version)\r\n"
        } else {
            text += "Connection: close\r\n"
        }
        return Array((text + "\r\n").utf8)
    }

    /// RFC 6455, section 4.2.2, step 5.4.
    var expectedAccept: String {
        Encoding.base64(Encoding.sha1(Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8)))
    }
}

/// What a request came to.
enum Exchange {
    /// 101: the transport is a WebSocket connection now, and these bytes have come behind the answer's head.
    case switched(Transport, rest: [UInt8], Answer)
    case answered(Answer)
    /// No complete HTTP answer came.
    case failed(String)

    /// "101", "404 room not found", or what went wrong.
    var summary: String {
        switch self {
        case .switched: "101"
        case .answered(let answer): answer.summary
        case .failed(let reason): reason
        }
    }
}

/// How a request's bytes are cut up on their way. The relay must not care.
enum Cut {
    /// One write; over TLS one record, or as few as hold it.
    case none
    /// Two packets, each a record of its own.
    case packets(at: Int)
    /// One packet; over TLS two records in it. What follows the cut takes as many as it needs.
    case records(at: Int)
    /// Two packets; over TLS one record that is cut, so that neither can be understood alone.
    case record(at: Int)
}

extension Request {
    /// Sends the bytes (the request among them) and reads the answer.
    func exchange(_ transport: Transport, _ bytes: [UInt8], cut: Cut = .none, deadline: Deadline) -> Exchange {
        if let problem = Self.send(bytes, cut, to: transport, deadline: deadline) { return .failed(problem) }
        return Self.answer(from: transport, deadline: deadline)
    }

    /// Reads the answer to what has been sent.
    static func answer(from transport: Transport, deadline: Deadline) -> Exchange {
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16384)
        var headEnd: Int?
        var head: Answer?
        while true {
            if headEnd == nil, let end = endOfHead(received) {
                guard let answer = Answer.parseHead(received[..<end]) else {
                    return .failed("not an HTTP/1.1 answer: \(Describe.bytes(received))")
                }
                if answer.status == 101 { return .switched(transport, rest: Array(received[end...]), answer) }
                (headEnd, head) = (end, answer)
            }
            if let headEnd, var answer = head {
                let length = answer["content-length"].flatMap { Int($0) }
                if let length, received.count - headEnd >= length {
                    answer.body = Array(received[headEnd..<headEnd + length])
                    return .answered(answer)
                }
            }
            guard transport.wait(for: POLLIN, until: deadline) else { return .failed("no answer in time") }
            switch transport.read(into: &buffer) {
            case .bytes(let count): received += buffer[..<count]
            case .wouldBlock: continue
            case .ended(let reason):
                if let headEnd, var answer = head, answer["content-length"] == nil {
                    answer.body = Array(received[headEnd...])
                    return .answered(answer)
                }
                return .failed("\(reason) after \(received.count) bytes of an answer")
            }
        }
    }

    /// Sends all of it. Nil, or why it did not go out.
    static func send(_ bytes: [UInt8], _ cut: Cut = .none, to transport: Transport, deadline: Deadline) -> String? {
        switch (cut, transport.secure) {
        case (.none, _), (.records, nil): return send([bytes], to: transport, deadline)
        case (.packets(let index), _), (.record(let index), nil):
            return send([Array(bytes[..<index]), Array(bytes[index...])], to: transport, deadline)
        case (.records(let index), let secure?):
            let rest = stride(from: index, to: bytes.count, by: recordBytesMax).map { start in
                Array(bytes[start..<min(start + recordBytesMax, bytes.count)])
            }
            let records = ([Array(bytes[..<index])] + rest).compactMap { secure.seal($0) }
            return send([records.flatMap { $0 }], to: transport, sealed: true, deadline)
        case (.record(let index), let secure?):
            guard let record = secure.seal(bytes) else { return "libssl made no record of \(bytes.count) bytes" }
            return send([Array(record[..<index]), Array(record[index...])], to: transport, sealed: true, deadline)
        }
    }

    /// RFC 8446, 5.1.
    private static let recordBytesMax = 16384

    private static func send(
        _ packets: [[UInt8]], to transport: Transport, sealed: Bool = false, _ deadline: Deadline
    ) -> String? {
        for (index, packet) in packets.enumerated() {
            // Long enough for the first to be read alone, most of the time.
            if index > 0 { Clock.sleep(nanoseconds: 2_000_000) }
            var sent = 0
            while sent < packet.count {
                switch sealed ? transport.writeTCP(packet, from: sent) : transport.write(packet, from: sent) {
                case .bytes(let count): sent += count
                case .wouldBlock:
                    guard transport.wait(for: POLLOUT, until: deadline) else { return "could not send in time" }
                // The answer may explain why the relay no longer reads.
                case .ended: return nil
                }
            }
        }
        return nil
    }

    private static func endOfHead(_ bytes: [UInt8]) -> Int? {
        guard bytes.count >= 4 else { return nil }
        for index in 0...(bytes.count - 4)
        where bytes[index] == 13 && bytes[index + 1] == 10 && bytes[index + 2] == 13 && bytes[index + 3] == 10 {
            return index + 4
        }
        return nil
    }

    /// A whole exchange on a connection of its own, repeated while the relay says 429: its limit is not what is checked.
    func perform(
        at endpoint: Endpoint, from source: SocketAddress? = nil, early: [UInt8] = [], cut: Cut = .none,
        resume: Bool = false, deadline: Deadline
    ) throws(ConnectError) -> Exchange {
        while true {
            let transport = try Transport.connect(to: endpoint, from: source, resume: resume, deadline: deadline)
            let bytes = encoded(authority: endpoint.authority) + early
            let exchange = exchange(transport, bytes, cut: cut, deadline: deadline)
            guard case .answered(let answer) = exchange, answer.status == 429, !deadline.hasPassed else {
                return exchange
            }
            // The limit is a rate: a short wait makes room for a few.
            Clock.sleep(nanoseconds: min(deadline.remaining, 100_000_000))
        }
    }
}
