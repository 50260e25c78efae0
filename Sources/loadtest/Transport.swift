// A connection as bytes in and bytes out: TCP, or TLS over it.

import CLinux
import Glibc

/// What a read or write came to. Failures are values: a relay that closes is an answer, not an accident.
enum Progress: Equatable {
    case bytes(Int)
    case wouldBlock
    case ended(String)
}

/// The connection could not be opened.
struct ConnectError: Error, CustomStringConvertible {
    var description: String
    /// TCP was there; what follows it was not.
    var isTLS = false

    /// For a command that can't even begin.
    var advice: String { isTLS ? "\(self)" : "\(self). Is the relay running, and is --url right?" }
}

/// A connected, non-blocking TCP socket with one owner, closed with it; and the TLS over it, if the URL says so.
final class Transport {
    let descriptor: Int32
    private(set) var secure: SecureStream?

    private init(owning descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        // Its close_notify is sent before the socket is closed.
        secure = nil
        _ = close(descriptor)
    }

    /// Connects to the first of the endpoint's addresses that answers; over TLS with the handshake done, and with the
    /// last ticket offered if `resume`.
    static func connect(
        to endpoint: Endpoint, from source: SocketAddress? = nil, resume: Bool = false, deadline: Deadline
    ) throws(ConnectError) -> Transport {
        let transport = try begin(to: endpoint, from: source, resume: resume, deadline: deadline)
        try transport.finishHandshake(deadline: deadline)
        return transport
    }

    /// The same up to the first message of the handshake, for the caller to finish.
    static func begin(
        to endpoint: Endpoint, from source: SocketAddress? = nil, resume: Bool = false, deadline: Deadline
    ) throws(ConnectError) -> Transport {
        let transport = try connectTCP(to: endpoint, from: source, deadline: deadline)
        guard let tls = endpoint.tls else { return transport }
        let stream = try SecureStream(
            tls, descriptor: transport.descriptor, host: endpoint.host, resume: resume)
        transport.secure = stream
        // What it comes to is seen again when the handshake goes on.
        _ = stream.handshake()
        return transport
    }

    func finishHandshake(deadline: Deadline) throws(ConnectError) {
        guard let secure else { return }
        while true {
            switch secure.handshake() {
            case .bytes: return
            case .ended(let reason): throw ConnectError(description: "no TLS: \(reason)", isTLS: true)
            case .wouldBlock:
                guard wait(for: secure.wantsToWrite ? POLLOUT : POLLIN, until: deadline) else {
                    throw ConnectError(description: "no TLS: no answer in time", isTLS: true)
                }
            }
        }
    }

    /// The same without TLS, whatever the URL says.
    static func connectTCP(
        to endpoint: Endpoint, from source: SocketAddress? = nil, deadline: Deadline
    ) throws(ConnectError) -> Transport {
        var problems: [String] = []
        for address in endpoint.addresses {
            do throws(ConnectError) {
                return try connect(to: address, from: source, deadline: deadline)
            } catch {
                problems.append(error.description)
            }
        }
        throw ConnectError(
            description: "can't connect to \(endpoint.authority): \(problems.joined(separator: "; "))")
    }

    private static func connect(
        to address: SocketAddress, from source: SocketAddress?, deadline: Deadline
    ) throws(ConnectError) -> Transport {
        let flags = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(address.family, flags, 0)
        guard descriptor >= 0 else { throw ConnectError(description: "socket: \(errorText(errno))") }
        let transport = Transport(owning: descriptor)
        transport.set(Int32(IPPROTO_TCP), TCP_NODELAY)
        if let source, source.family == address.family {
            // The port is chosen at connect(2), so that one source address serves as many ports as there are.
            transport.set(Int32(IPPROTO_IP), 24)  // IP_BIND_ADDRESS_NO_PORT
            let result = unsafe source.withPointer { unsafe bind(descriptor, $0, $1) }
            guard result == 0 else { throw ConnectError(description: "bind: \(errorText(errno))") }
        }
        let result = unsafe address.withPointer { unsafe Glibc.connect(descriptor, $0, $1) }
        if result != 0 {
            guard errno == EINPROGRESS else { throw ConnectError(description: errorText(errno)) }
            guard transport.wait(for: POLLOUT, until: deadline) else {
                throw ConnectError(description: "no answer in time")
            }
            let error = transport.pendingError()
            guard error == 0 else { throw ConnectError(description: errorText(error)) }
        }
        return transport
    }

    /// One read of at most `buffer.count` bytes into the front of `buffer`.
    func read(into buffer: inout [UInt8]) -> Progress {
        if let secure { return secure.read(into: &buffer) }
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
        if count > 0 { return .bytes(count) }
        if count == 0 { return .ended("closed by the relay") }
        return errno == EAGAIN || errno == EINTR ? .wouldBlock : .ended(Self.errorText(errno))
    }

    /// One write of what follows `start`; over TLS of one record. What was refused with `.wouldBlock` must come again.
    func write(_ bytes: [UInt8], from start: Int) -> Progress {
        secure?.write(bytes, from: start) ?? writeTCP(bytes, from: start)
    }

    /// The same without TLS: of records that are already sealed.
    func writeTCP(_ bytes: [UInt8], from start: Int = 0) -> Progress {
        let count = unsafe bytes.withUnsafeBytes { raw in
            let rest = unsafe UnsafeRawBufferPointer(rebasing: raw[start...])
            return unsafe send(descriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
        }
        if count >= 0 { return .bytes(count) }
        return errno == EAGAIN || errno == EINTR ? .wouldBlock : .ended(Self.errorText(errno))
    }

    /// Ends both directions.
    func shutdown() {
        _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR))
    }

    /// Waits until the socket is ready; false if the deadline passes first.
    func wait(for events: Int32, until deadline: Deadline) -> Bool {
        while true {
            var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            let ready = unsafe poll(&entry, 1, deadline.pollMilliseconds)
            if ready > 0 { return true }
            if ready == 0 || errno != EINTR { return false }
        }
    }

    private func set(_ level: Int32, _ option: Int32) {
        var one: Int32 = 1
        // A convenience only: a kernel that refuses it changes nothing that is checked here.
        _ = unsafe setsockopt(descriptor, level, option, &one, socklen_t(MemoryLayout<Int32>.size))
    }

    private func pendingError() -> Int32 {
        var error: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        let result = unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length)
        return result == 0 ? error : errno
    }

    static func errorText(_ code: Int32) -> String {
        unsafe String(cString: strerror(code))
    }
}
