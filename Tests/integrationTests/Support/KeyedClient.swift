// A TLS client with its own record layer, for records that no library would send: `openssl s_client` makes the handshake through
// this process, which then goes on in its place with the secrets of its key log. Records are sealed and opened by libsodium
// (TLS_CHACHA20_POLY1305_SHA256), so that no line of the relay's own record layer is its own judge.

import CSodium
import Foundation
import Glibc
import Synchronization

/// One direction's keys (RFC 8446, 7.3).
struct TrafficKeys: Sendable {
    private(set) var secret: [UInt8]
    private var key: [UInt8]
    private var iv: [UInt8]
    private(set) var sequence: UInt64 = 0

    init(secret: [UInt8]) {
        self.secret = secret
        key = Self.expand(secret, "key", 32)
        iv = Self.expand(secret, "iv", 12)
    }

    /// The next generation (RFC 8446, 7.2).
    mutating func renew() {
        self = TrafficKeys(secret: Self.expand(secret, "traffic upd", 32))
    }

    /// HKDF-Expand-Label without context, for up to 32 bytes (RFC 8446, 7.1): one HMAC.
    static func expand(_ secret: [UInt8], _ label: String, _ count: Int) -> [UInt8] {
        let name = Array("tls13 \(label)".utf8)
        let info = [0, UInt8(count), UInt8(name.count)] + name + [0, 1]
        var state = crypto_auth_hmacsha256_state()
        var output = [UInt8](repeating: 0, count: 32)
        crypto_auth_hmacsha256_init(&state, secret, secret.count)
        crypto_auth_hmacsha256_update(&state, info, UInt64(info.count))
        crypto_auth_hmacsha256_final(&state, &output)
        return Array(output[..<count])
    }

    private mutating func nonce() -> [UInt8] {
        defer { sequence += 1 }
        return iv.indices.map { $0 < 4 ? iv[$0] : iv[$0] ^ UInt8(sequence >> (8 * (11 - UInt64($0))) & 0xFF) }
    }

    /// A record around an inner plaintext: content, type and padding (RFC 8446, 5.2).
    mutating func seal(inner: [UInt8]) -> [UInt8] {
        let length = inner.count + 16
        let header = [0x17, 3, 3, UInt8(length >> 8), UInt8(length & 0xFF)]
        var output = [UInt8](repeating: 0, count: length)
        crypto_aead_chacha20poly1305_ietf_encrypt(
            &output, nil, inner, UInt64(inner.count), header, UInt64(header.count), nil, nonce(), key)
        return header + output
    }

    /// Type and content of a record; nil if it is not authentic.
    mutating func open(_ record: [UInt8]) -> (type: UInt8, content: [UInt8])? {
        guard record.count >= 5 + 16 else { return nil }
        var inner = [UInt8](repeating: 0, count: record.count - 5 - 16)
        let sealed = Array(record[5...])
        let result = crypto_aead_chacha20poly1305_ietf_decrypt(
            &inner, nil, nil, sealed, UInt64(sealed.count), record, 5, nonce(), key)
        guard result == 0, let end = inner.lastIndex(where: { $0 != 0 }) else { return nil }
        return (inner[end], Array(inner[..<end]))
    }
}

/// A TLS connection of loopback whose records a test makes. For one task at a time.
final class KeyedClient: ByteClient {
    struct State {
        var reading: TrafficKeys
        var writing: TrafficKeys
        var received: [UInt8] = []
        /// Levels and descriptions.
        var alerts: [[UInt8]] = []
        /// Tickets and KeyUpdates, whole.
        var handshakes: [[UInt8]] = []
        /// Records that could not be opened.
        var oddities = 0
    }

    let socket: RawClient
    private let state: Mutex<State>

    static func connect(_ relay: Relay) async throws -> KeyedClient {
        let listener = try Listener()
        let path = "\(relay.folder)/keys-\(UUID().uuidString)"
        let client = try ChildProcess(
            "openssl",
            [
                "s_client", "-connect", "127.0.0.1:\(listener.port)", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256",
                "-keylogfile", path, "-brief",
            ], takesInput: true)
        defer { client.signal(SIGKILL) }
        let near = try await awaited("s_client") { listener.accept() }
        let far = try await RawClient(relay.port)
        // ClientHello there, the server's flight back, and the client's back again: what follows is under the secrets below.
        func pass(_ from: RawClient, _ to: RawClient) async throws -> Bool {
            let bytes = from.unread()
            guard !bytes.isEmpty else { return false }
            from.consume(bytes.count)
            try await to.send(bytes)
            return true
        }
        try await eventually("a ClientHello") { try await pass(near, far) }
        var flight: [UInt8] = []
        try await eventually("the client's Finished") {
            _ = try await pass(far, near)
            flight += near.unread()
            near.consume(near.received.count)
            return Self.isFlight(flight)
        }
        let log = try await awaited("secrets") { () -> String? in
            let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            return text.contains("CLIENT_TRAFFIC_SECRET_0") && text.hasSuffix("\n") ? text : nil
        }
        guard let server = Self.secret("SERVER_TRAFFIC_SECRET_0", log),
            let own = Self.secret("CLIENT_TRAFFIC_SECRET_0", log)
        else { throw SpawnError(description: "no secrets in: \(log)") }
        try await far.send(flight)
        return KeyedClient(far, reading: TrafficKeys(secret: server), writing: TrafficKeys(secret: own))
    }

    /// change_cipher_spec and Finished.
    private static func isFlight(_ bytes: [UInt8]) -> Bool {
        guard bytes.count > 6 + 5, bytes[0] == 0x14, bytes[6] == 0x17 else { return false }
        return bytes.count == 6 + 5 + (Int(bytes[9]) << 8 | Int(bytes[10]))
    }

    private static func secret(_ name: String, _ log: String) -> [UInt8]? {
        let line = log.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
        return line.flatMap { $0.split(separator: " ").last }.flatMap { hexDecoded(String($0)) }
            .flatMap { $0.count == 32 ? $0 : nil }
    }

    private init(_ socket: RawClient, reading: TrafficKeys, writing: TrafficKeys) {
        self.socket = socket
        state = Mutex(State(reading: reading, writing: writing))
    }

    // MARK: - Sent

    /// A record of this type and content, with padding.
    func record(_ type: UInt8, _ content: [UInt8], padding: Int = 0) -> [UInt8] {
        inner(content + [type] + [UInt8](repeating: 0, count: padding))
    }

    /// A record around anything.
    func inner(_ bytes: [UInt8]) -> [UInt8] {
        state.withLock { $0.writing.seal(inner: bytes) }
    }

    func data(_ bytes: [UInt8]) -> [UInt8] { record(0x17, bytes) }

    /// KeyUpdate, behind which the next key is used (RFC 8446, 4.6.3).
    func keyUpdate(requested: Bool) -> [UInt8] {
        defer { state.withLock { $0.writing.renew() } }
        return record(0x16, [24, 0, 0, 1, requested ? 1 : 0])
    }

    var readingSecret: [UInt8] { state.withLock { $0.reading.secret } }
    var writingSecret: [UInt8] { state.withLock { $0.writing.secret } }

    // MARK: - Received

    var received: [UInt8] { state.withLock { $0.received } }
    var alerts: [[UInt8]] { state.withLock { $0.alerts } }
    var oddities: Int { state.withLock { $0.oddities } }
    /// KeyUpdates of the relay's: 0, or 1 where it asks for one.
    var updates: [UInt8] { state.withLock { $0.handshakes.filter { $0.first == 24 }.map { $0[4] } } }
    var isFinished: Bool { socket.isFinished && socket.received.isEmpty }

    func consume(_ count: Int) {
        state.withLock { $0.received.removeFirst(count) }
    }

    func take() async throws {
        socket.take()
        let bytes = socket.received
        var offset = 0
        while bytes.count - offset >= 5 {
            let length = Int(bytes[offset + 3]) << 8 | Int(bytes[offset + 4])
            guard bytes.count - offset >= 5 + length else { break }
            take(record: Array(bytes[offset..<(offset + 5 + length)]))
            offset += 5 + length
        }
        // At the end of the connection there is no more of it to come.
        if socket.isFinished && offset < bytes.count {
            state.withLock { $0.oddities += 1 }
            offset = bytes.count
        }
        socket.consume(offset)
    }

    private func take(record: [UInt8]) {
        state.withLock { state in
            guard record[0] == 0x17, let (type, content) = state.reading.open(record) else {
                state.oddities += 1
                return
            }
            switch type {
            case 0x17: state.received += content
            case 0x15: state.alerts.append(content)
            case 0x16:
                state.handshakes.append(content)
                if content.first == 24 { state.reading.renew() }
            default: state.oddities += 1
            }
        }
    }
}

extension KeyedClient {
    /// A client that has been let in, as TLSClient's.
    static func join(_ relay: Relay, _ join: Join) async throws -> KeyedClient {
        let client = try await connect(relay)
        try await client.socket.send(client.data(Array(join.head.utf8)))
        let response = try await client.response()
        guard response.status == 101 else { throw Refusal(response: response) }
        return client
    }
}

func hexDecoded(_ text: String) -> [UInt8]? {
    let digits = text.compactMap(\.hexDigitValue)
    guard digits.count == text.count, digits.count % 2 == 0 else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// A listening socket of loopback.
private final class Listener: Sendable {
    private let socket: Int32
    let port: Int

    init() throws {
        socket = Glibc.socket(
            AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let (socket, length) = (socket, size)
        let isListening = withUnsafeMutableBytes(of: &name) { bytes in
            let address = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
            return bind(socket, address, length) == 0 && listen(socket, 1) == 0
                && getsockname(socket, address, &size) == 0
        }
        port = Int(UInt16(bigEndian: name.sin_port))
        guard isListening else {
            close(socket)
            throw SpawnError(description: "listen: errno \(errno)")
        }
    }

    deinit {
        close(socket)
    }

    /// A connection, if one is there.
    func accept() -> RawClient? {
        let accepted = Glibc.accept(socket, nil, nil)
        return accepted < 0 ? nil : RawClient(accepted: accepted)
    }
}
