// Asks a running relay's admin listener: for `relay status` and `relay health`. One request, one answer, bounded in time and
// bytes.

import CLinux
import Glibc
import Shared

/// Why there is no answer, in words for whoever typed the command.
struct AdminClientError: Error, CustomStringConvertible {
    var description: String
}

/// Where a relay is asked.
enum AdminTarget: Equatable {
    /// The Unix socket of the supervisor with this id; nil: of the one relay of this user that runs.
    case relay(pid_t?)
    /// A RELAY_METRICS_ADDR.
    case address(ListenAddress)
}

enum AdminClient {
    struct Answer: Equatable {
        var status: Int
        var body: String
    }

    /// The corresponding request is `GET path`.
    static func get(_ path: String, from target: AdminTarget) throws(AdminClientError) -> Answer {
        let answer = try request("GET", path, from: target, milliseconds: Limits.adminClientMilliseconds)
        guard let answer else { throw AdminClientError(description: "the relay closed the connection") }
        return answer
    }

    /// The process id of the one relay that runs.
    static func theRelay() throws(AdminClientError) -> pid_t {
        let pids = try runningRelays()
        guard let pid = pids.first, pids.count == 1 else { throw notOne(pids) }
        return pid
    }

    /// nil: the connection ended without an answer.
    static func request(
        _ method: String, _ path: String, from target: AdminTarget, milliseconds: Int
    ) throws(AdminClientError) -> Answer? {
        let deadline = Clock.monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        let socket: Descriptor
        switch target {
        case .address(let address): socket = try connect(to: address, deadline)
        case .relay(let pid?):
            guard let found = try connect(toRelay: pid) else {
                throw AdminClientError(description: "no relay with pid \(pid) is running")
            }
            socket = found
        case .relay(nil): socket = try connectToTheRelay()
        }
        let request = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        try send(Array(request.utf8), to: socket, deadline)
        let bytes = try receive(from: socket, deadline)
        return bytes.isEmpty ? nil : try parse(bytes)
    }

    // MARK: - Finding a relay

    /// The one relay that runs, of those whose sockets can be seen and that are this user's; for root of all.
    private static func connectToTheRelay() throws(AdminClientError) -> Descriptor {
        guard let socket = try connect(toRelay: try theRelay()) else { throw notOne([]) }
        return socket
    }

    private static func runningRelays() throws(AdminClientError) -> [pid_t] {
        var pids: [pid_t] = []
        for pid in AdminSocket.relays() where try connect(toRelay: pid) != nil { pids.append(pid) }
        return pids
    }

    private static func notOne(_ pids: [pid_t]) -> AdminClientError {
        guard pids.count > 1 else { return AdminClientError(description: "no relay is running") }
        let list = pids.map { "--pid \($0)" }.joined(separator: ", ")
        return AdminClientError(description: "several relays are running; say which: \(list)")
    }

    /// nil if nobody listens there, or somebody whose word is not to be taken: names are anybody's to take.
    private static func connect(toRelay pid: pid_t) throws(AdminClientError) -> Descriptor? {
        let number = unsafe clinux_abstract_connect(AdminSocket.name(pid: pid))
        guard number >= 0 else {
            // EAGAIN: its backlog is full, which takes somebody who fills it.
            guard errno == ECONNREFUSED else {
                throw AdminClientError(description: "relay \(pid): \(SystemError("connect"))")
            }
            return nil
        }
        let socket = Descriptor(owning: number)
        var user: UInt32 = 0
        var peer: pid_t = 0
        guard unsafe clinux_peer(number, &user, &peer) == 0 else { return nil }
        let asker = Asker(user: geteuid(), program: WorkerProgram.path(of: "self"))
        if let reason = asker.mistrusts(
            Listener(user: user, pid: peer, named: pid), program: { WorkerProgram.path(of: "\($0)") })
        {
            // Root sees every account's listeners, so root gets a warning; others see that there is none of theirs.
            if asker.user == 0 { standardError("relay: warning: the socket of relay \(pid) is ignored: \(reason)") }
            return nil
        }
        return socket
    }

    /// Who listens at a relay's socket.
    struct Listener: Equatable {
        var user: UInt32
        /// Its process when it began to listen; 0 for one of another PID namespace.
        var pid: pid_t
        /// The process in the socket's name.
        var named: pid_t
    }

    /// Who asks.
    struct Asker: Equatable {
        var user: UInt32
        /// The path of its own program; nil where that can't be seen.
        var program: String?

        /// Why a listener's word is not to be taken; nil if it is: its own user's, root's, and for root also that of
        /// another user, if it is the process that it says, and runs this program.
        func mistrusts(_ listener: Listener, program path: (pid_t) -> String?) -> String? {
            if listener.user == 0 || listener.user == user && user != 0 { return nil }
            guard user == 0 else { return "it is another user's" }
            guard listener.pid == listener.named else {
                return "process \(listener.pid) of user \(listener.user) has taken it"
            }
            guard let other = path(listener.pid) else {
                return "user \(listener.user) has it, and it can't be seen what runs there; ask as that user"
            }
            guard let program, other == program else {
                return "\(LogText.shown(other, bytesMax: 200)) of user \(listener.user) has taken it"
            }
            return nil
        }
    }

    private static func connect(to address: ListenAddress, _ deadline: UInt64) throws(AdminClientError) -> Descriptor {
        let host =
            switch address.host {
            // What listens on every address listens on this one.
            case .any: Address(ipv4: 0x7F00_0001)
            case .address(let host): host
            }
        let family = host.isIPv4 ? AF_INET : AF_INET6
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let number = socket(family, type, 0)
        guard number >= 0 else { throw AdminClientError(description: "\(SystemError("socket"))") }
        let descriptor = Descriptor(owning: number)
        let result = unsafe withSocketAddress(family, host, address.port) { name, length in
            unsafe Glibc.connect(number, name, length)
        }
        if result != 0 {
            guard errno == EINPROGRESS else { throw failure(address, errno) }
            try wait(for: Int16(POLLOUT), on: number, deadline)
            var code: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            guard unsafe getsockopt(number, SOL_SOCKET, SO_ERROR, &code, &length) == 0, code == 0 else {
                throw failure(address, code)
            }
        }
        return descriptor
    }

    private static func failure(_ address: ListenAddress, _ code: Int32) -> AdminClientError {
        let advice = code == ECONNREFUSED ? ": no relay has it as RELAY_METRICS_ADDR" : ""
        return AdminClientError(description: "\(address): \(SystemError("connect", code))\(advice)")
    }

    // MARK: - One request

    private static func wait(for events: Int16, on socket: Int32, _ deadline: UInt64) throws(AdminClientError) {
        while true {
            let now = Clock.monotonicNanoseconds()
            var polled = pollfd(fd: socket, events: events, revents: 0)
            let patience = now < deadline ? Int32((deadline - now + 999_999) / 1_000_000) : 0
            let ready = unsafe poll(&polled, 1, patience)
            if ready > 0 { return }
            guard ready < 0 && errno == EINTR else {
                throw AdminClientError(
                    description: "the relay does not answer in time")
            }
        }
    }

    private static func send(
        _ bytes: [UInt8], to socket: borrowing Descriptor, _ deadline: UInt64
    ) throws(AdminClientError) {
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes[sent...].withUnsafeBytes { rest in
                unsafe Glibc.send(socket.number, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                sent += count
            } else if errno == EAGAIN {
                try wait(for: Int16(POLLOUT), on: socket.number, deadline)
            } else if errno != EINTR {
                // Refused before it was asked; the answer says why.
                return
            }
        }
    }

    /// Everything up to the end of the connection.
    private static func receive(
        from socket: borrowing Descriptor, _ deadline: UInt64
    ) throws(AdminClientError) -> [UInt8] {
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while answer.count <= Limits.adminResponseBytesMax {
            let count = unsafe recv(socket.number, &buffer, buffer.count, 0)
            if count > 0 {
                answer += buffer[..<count]
            } else if count < 0 && errno == EAGAIN {
                try wait(for: Int16(POLLIN), on: socket.number, deadline)
            } else if count == 0 || errno != EINTR {
                return answer
            }
        }
        throw AdminClientError(description: "the answer is longer than a relay's can be")
    }

    /// Takes a response apart that the end of the connection ends: status line, fields, body.
    static func parse(_ bytes: [UInt8]) throws(AdminClientError) -> Answer {
        let text = String(decoding: bytes, as: UTF8.self)
        let line = text.prefix { $0 != "\r\n" }.split(separator: " ", maxSplits: 2)
        guard let end = text.firstRange(of: "\r\n\r\n"), line.count >= 2, line[0] == "HTTP/1.1",
            line[1].utf8.count == 3, let status = UInt16(line[1]), line[1].utf8.allSatisfy({ isDigit($0) })
        else {
            throw AdminClientError(
                description: bytes.isEmpty ? "the relay closed the connection" : "what answers is no relay")
        }
        return Answer(status: Int(status), body: String(text[end.upperBound...]))
    }
}

/// Text of another process as it may be shown at a terminal: line ends are kept, other control characters are not.
func printable(_ text: String) -> String {
    var shown = ""
    for scalar in text.unicodeScalars {
        let isControl = scalar.properties.generalCategory == .control && scalar != "\n"
        shown.unicodeScalars.append(isControl ? "?" : scalar)
    }
    return shown
}
