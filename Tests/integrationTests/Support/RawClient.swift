// A plain socket: for bytes that no library would send, and for clients that do not read.

import Foundation
import Glibc
import Synchronization

/// An HTTP response.
struct HTTPResponse: Equatable, Sendable, CustomStringConvertible {
    var status: Int
    /// Names in lower case, in order.
    var fields: [(name: String, value: String)] = []
    var body = ""

    subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    /// What the wire protocol's tables say of it.
    var answer: String { "\(status) \(body)" }

    var description: String { "\(status) \(fields) \(body)" }

    static func == (one: HTTPResponse, other: HTTPResponse) -> Bool {
        one.status == other.status && one.body == other.body && one.fields.elementsEqual(other.fields, by: ==)
    }
}

/// A WebSocket frame as it stood on the wire (RFC 6455, 5.2).
struct RawFrame: Equatable, Sendable {
    var first: UInt8
    var isMasked: Bool
    var payload: [UInt8]

    var opcode: UInt8 { first & 0x0F }
    /// Of a close frame: its code, 0 if it has none.
    var closeCode: Int { payload.count < 2 ? 0 : Int(payload[0]) << 8 | Int(payload[1]) }

    /// A client's frame. `first` is FIN, reserved bits and opcode; `lengthBytes` 0, 2 or 8 forces a form of the length.
    static func client(_ first: UInt8, _ payload: [UInt8], key: [UInt8] = [1, 2, 3, 4], lengthBytes: Int? = nil)
        -> [UInt8]
    {
        let form = lengthBytes ?? (payload.count <= 125 ? 0 : payload.count <= 0xFFFF ? 2 : 8)
        var bytes = [first, 0x80 | (form == 0 ? UInt8(payload.count) : form == 2 ? 126 : 127)]
        for shift in (0..<form).reversed() { bytes.append(UInt8(payload.count >> (8 * shift) & 0xFF)) }
        return bytes + key + payload.indices.map { payload[$0] ^ key[$0 % 4] }
    }

    static func client(text: String) -> [UInt8] { client(0x81, Array(text.utf8)) }
}

/// A connection whose bytes are taken apart as they came.
protocol ByteClient: AnyObject, Sendable {
    /// What came and was not consumed, as far as it was taken.
    var received: [UInt8] { get }
    /// Whether that is all there will ever be.
    var isFinished: Bool { get }
    /// Takes what has come so far.
    func take() async throws
    func consume(_ count: Int)
}

extension ByteClient {
    /// Whatever comes up to the end of the connection.
    func rest(seconds: Double = patienceSeconds) async throws -> [UInt8] {
        try await eventually("the connection's end", seconds: seconds) {
            try await take()
            return isFinished
        }
        return received
    }

    /// Takes the next piece of what came, as soon as `parse` finds it whole.
    private func next<Value>(_ what: String, _ parse: ([UInt8]) throws -> (Value, Int)?) async throws -> Value {
        try await awaited(what) {
            try await take()
            // Read before the bytes: what came before the end is all there.
            let isFinished = isFinished
            let received = received
            if let (value, bytes) = try parse(received) {
                consume(bytes)
                return value
            }
            guard !isFinished else {
                throw SpawnError(description: "end of connection in place of \(what), behind \(received.prefix(200))")
            }
            return nil
        }
    }

    /// The next response, by its Content-Length. One without (101) ends with its head; so does the answer to HEAD.
    func response(hasBody: Bool = true) async throws -> HTTPResponse {
        try await next("a response") { bytes in
            guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
            let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
            let start = lines[0].split(separator: " ")
            guard start.count >= 2, start[0] == "HTTP/1.1", let status = Int(start[1]) else {
                throw SpawnError(description: "no status line: \(lines[0])")
            }
            var response = HTTPResponse(status: status)
            for line in lines.dropFirst() {
                let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
                response.fields.append((parts[0].lowercased(), parts.count > 1 ? parts[1] : ""))
            }
            let length = hasBody ? response["content-length"].flatMap { Int($0) } ?? 0 : 0
            guard bytes.count >= end.upperBound + length else { return nil }
            response.body = String(decoding: bytes[end.upperBound..<(end.upperBound + length)], as: UTF8.self)
            return (response, end.upperBound + length)
        }
    }

    /// The next frame.
    func frame() async throws -> RawFrame {
        try await next("a frame") { bytes in
            guard bytes.count >= 2 else { return nil }
            var (length, offset) = (Int(bytes[1] & 0x7F), 2)
            let wide = length == 126 ? 2 : length == 127 ? 8 : 0
            if wide > 0 {
                guard bytes.count >= 2 + wide else { return nil }
                length = bytes[2..<(2 + wide)].reduce(0) { $0 << 8 | Int($1) }
                offset += wide
            }
            guard bytes.count >= offset + length else { return nil }
            let payload = Array(bytes[offset..<(offset + length)])
            return (RawFrame(first: bytes[0], isMasked: bytes[1] & 0x80 != 0, payload: payload), offset + length)
        }
    }

    /// Frames up to the first close frame, and its code (0 for none).
    func closeCode() async throws -> Int {
        while true {
            let frame = try await frame()
            if frame.opcode == 8 { return frame.closeCode }
        }
    }
}

/// A connected socket of loopback. Closed when it is let go of.
final class RawClient: ByteClient {
    private struct State {
        var socket: Int32
        var received: [UInt8] = []
        var isAtEnd = false
    }

    private let state: Mutex<State>

    /// - Parameter receiveBuffer: bytes that the kernel may hold for this side, for a client that reads slowly.
    /// - Parameter source: the last byte of the address in 127.0.0.0/24 that it comes from.
    init(_ port: Int, receiveBuffer: Int32? = nil, source: UInt8? = nil) async throws {
        let socket = Glibc.socket(
            AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard socket >= 0 else { throw SpawnError(description: "socket: errno \(errno)") }
        state = Mutex(State(socket: socket))
        if var bytes = receiveBuffer { setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &bytes, 4) }
        var one: Int32 = 1
        setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        if let source {
            name.sin_addr.s_addr = (0x7F00_0000 | UInt32(source)).bigEndian
            let bound = withUnsafeBytes(of: &name) { bytes in
                Glibc.bind(
                    socket, bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
                    socklen_t(MemoryLayout<sockaddr_in>.size))
            }
            guard bound == 0 else { throw SpawnError(description: "bind: errno \(errno)") }
        }
        name.sin_port = UInt16(port).bigEndian
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafeBytes(of: &name) { bytes in
            Glibc.connect(
                socket, bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
                socklen_t(MemoryLayout<sockaddr_in>.size))
        }
        guard result == 0 || errno == EINPROGRESS else { throw SpawnError(description: "connect: errno \(errno)") }
        try await eventually("a connection") {
            var poll = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
            return Glibc.poll(&poll, 1, 0) > 0
        }
    }

    /// A socket that this process has accepted.
    init(accepted socket: Int32) {
        _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
        _ = fcntl(socket, F_SETFL, O_NONBLOCK)
        state = Mutex(State(socket: socket))
    }

    deinit {
        close()
    }

    func close() {
        state.withLock {
            if $0.socket >= 0 { Glibc.close($0.socket) }
            $0.socket = -1
        }
    }

    /// Shuts the side that sends.
    func finish() {
        state.withLock { _ = shutdown($0.socket, Int32(SHUT_WR)) }
    }

    /// Ends with a reset, as a client does whose process is killed with input unread.
    func reset() {
        state.withLock {
            var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
            setsockopt($0.socket, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        }
        close()
    }

    func send(_ text: String) async throws {
        try await send(Array(text.utf8))
    }

    /// Sends all, or as much as the other side takes before it closes.
    func send(_ bytes: [UInt8]) async throws {
        var sent = 0
        try await eventually("\(bytes.count) bytes to leave") {
            while sent < bytes.count {
                let count = state.withLock { state in
                    bytes[sent...].withUnsafeBytes {
                        Glibc.send(state.socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                }
                if count < 0 { return errno != EAGAIN }
                sent += count
            }
            return true
        }
    }

    func take() {
        state.withLock { state in
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while !state.isAtEnd {
                let count = recv(state.socket, &buffer, buffer.count, 0)
                if count > 0 {
                    state.received += buffer[..<count]
                } else {
                    // A reset is an end as well.
                    state.isAtEnd = count == 0 || errno != EAGAIN
                    return
                }
            }
        }
    }

    /// Whether the other side has closed, as far as is known by now.
    func isAtEnd() -> Bool {
        take()
        return state.withLock { $0.isAtEnd }
    }

    var received: [UInt8] { state.withLock { $0.received } }
    var isFinished: Bool { state.withLock { $0.isAtEnd } }

    func consume(_ count: Int) {
        state.withLock { $0.received.removeFirst(count) }
    }

    /// What has come and was not taken yet.
    func unread() -> [UInt8] {
        take()
        return state.withLock { $0.received }
    }
}

extension Relay {
    /// Sends a request on a connection of its own and takes the answer.
    func answer(_ request: String) async throws -> HTTPResponse {
        let client = try await RawClient(port)
        try await client.send(request)
        return try await client.response()
    }

    func answer(_ join: Join) async throws -> HTTPResponse {
        try await answer(join.head)
    }

    /// A plain socket that has been let in.
    func rawJoin(_ join: Join, receiveBuffer: Int32? = nil) async throws -> RawClient {
        let client = try await RawClient(port, receiveBuffer: receiveBuffer)
        try await client.send(join.head)
        let response = try await client.response()
        guard response.status == 101 else { throw Refusal(response: response) }
        return client
    }
}
