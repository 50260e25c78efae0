// One client of an admin listener.
//
//     reading ──▶ answering ──▶ reading          a request in, its answer out, and the next
//        │            └────────▶ lingering        the last answer has left: waits for the client's end
//        └──────▶ waiting ──▶ answering           its answer comes later (AdminServer.answer)

import Glibc
import Shared

final class AdminConnection {
    /// Whose it is. Each kind has a maximum of its own, so that none keeps out another.
    enum Kind {
        /// Anybody's who reaches RELAY_METRICS_ADDR.
        case metrics
        /// Of the Unix socket: the relay's own user's or root's.
        case local
        /// Of the Unix socket: another user's. It is told so, and nothing else.
        case forbidden

        var connectionsMax: Int {
            switch self {
            case .metrics: Limits.adminConnectionsMax
            case .local: Limits.adminLocalConnectionsMax
            case .forbidden: Limits.adminForbiddenConnectionsMax
            }
        }
    }

    enum Phase {
        case reading
        case waiting
        case answering
        case lingering
    }

    let id: UInt64
    let kind: Kind
    let socket: Int32
    var phase = Phase.reading
    /// When it is given up, CLOCK_MONOTONIC nanoseconds.
    var deadline: UInt64
    /// When it last began or ended an exchange.
    var activeAt: UInt64
    /// Bytes not yet answered: a head at the most, and a read.
    var input: [UInt8] = []
    /// Bytes of `input` in which the end of the head has been searched in vain.
    var searched = 0
    private var output: [UInt8] = []
    private var sent = 0
    /// The request that waits for its answer.
    var request: Request?
    /// The connection ends behind the answer that is on its way.
    var closes = false

    init(id: UInt64, _ kind: Kind, owning socket: Int32, now: UInt64) {
        self.id = id
        self.kind = kind
        self.socket = socket
        activeAt = now
        deadline = now + Limits.adminRequestNanoseconds
    }

    deinit {
        _ = close(socket)
    }

    enum Read {
        case bytes
        case nothing
        case end
    }

    /// Takes what has come, one read; while the connection lingers it is thrown away.
    func read() -> Read {
        var bytes = [UInt8](repeating: 0, count: Limits.adminReadBytesMax)
        let count = unsafe recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { return count < 0 && (errno == EAGAIN || errno == EINTR) ? .nothing : .end }
        if phase != .lingering { input += bytes[..<count] }
        return .bytes
    }

    /// Begins to send an answer.
    func answer(_ response: [UInt8], closes: Bool, now: UInt64) {
        phase = .answering
        (output, sent) = (response, 0)
        self.closes = self.closes || closes
        activeAt = now
        deadline = now + Limits.adminFlushNanoseconds
    }

    enum Flush {
        case done
        case blocked
        case failed
    }

    /// Sends what the socket takes of the answer.
    func flush() -> Flush {
        while sent < output.count {
            let count = unsafe output[sent...].withUnsafeBytes { rest in
                unsafe send(
                    socket, rest.baseAddress, rest.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            }
            guard count >= 0 else {
                if errno == EINTR { continue }
                return errno == EAGAIN ? .blocked : .failed
            }
            sent += count
        }
        (output, sent) = ([], 0)
        return .done
    }
}
