// The admin listeners: HTTP by the supervisor, so that it answers while workers hang. One on RELAY_METRICS_ADDR, if that is set,
// for whoever reaches it; one always, on the abstract Unix socket "relay-admin-PID", for processes of the relay's own user and
// root, which may do more.
//
// It turns within the supervisor's loop and must never hold it up: nothing here blocks, and everything is bounded by a number of
// Limits: connections, bytes, seconds, and accepts, events and answers a turn. What is left makes the next turn.

import CLinux
import Glibc
import Logging
import Shared

/// A request of an admin listener.
struct AdminRequest {
    var request: Request
    /// The host that the request names; nil if it names none.
    var host: [UInt8]?
    /// Came by the Unix socket.
    var isLocal: Bool
    /// Names the connection, for an answer that comes later.
    var connection: UInt64
}

/// What becomes of a request.
enum AdminReply {
    case now(AdminAnswer)
    case refused(AdminRefusal)
    /// `AdminServer.answer` is called when there is something to say. The connection waits as long as it takes.
    case later
}

struct AdminAnswer: Equatable {
    var status: Status
    var contentType: String
    var body: String
    /// For 405: the Allow field.
    var allow: String?

    static func text(_ status: Status, _ body: String) -> AdminAnswer {
        AdminAnswer(status: status, contentType: "text/plain; charset=utf-8", body: body)
    }

    func bytes(_ request: Request?) -> [UInt8] {
        var fields: [Response.Field] = [("Content-Type", contentType), Response.noStore, Response.noSniff]
        if let allow { fields.append(("Allow", allow)) }
        return Response.build(status, fields, Array(body.utf8), request)
    }
}

/// What has happened at the admin listeners.
struct AdminCounts: Equatable {
    /// Why a connection was ended that might have gone on.
    enum Close: String, CaseIterable {
        /// No whole request, or its answer did not leave, in time.
        case timeout
        /// A newer connection took its place.
        case replaced
        /// Of another user's, at the Unix socket.
        case forbidden
        /// It sent what is no HTTP request.
        case badRequest = "bad_request"
        case socketError = "socket_error"
    }

    var requests: UInt64 = 0
    private var closes = [UInt64](repeating: 0, count: Close.allCases.count)
    private var refusals = [UInt64](repeating: 0, count: AdminRefusal.allCases.count)

    subscript(reason: Close) -> UInt64 {
        get { closes[Close.allCases.firstIndex(of: reason) ?? 0] }
        set { closes[Close.allCases.firstIndex(of: reason) ?? 0] = newValue }
    }

    subscript(refusal: AdminRefusal) -> UInt64 {
        get { refusals[AdminRefusal.allCases.firstIndex(of: refusal) ?? 0] }
        set { refusals[AdminRefusal.allCases.firstIndex(of: refusal) ?? 0] = newValue }
    }
}

final class AdminServer {
    /// The port that RELAY_METRICS_ADDR came to.
    let address: ListenAddress?
    private(set) var counts = AdminCounts()
    /// Unix time at CLOCK_MONOTONIC's 0, seconds. Read once: a wall clock that is set must not move the relay's start.
    let bootedAt = seconds(Clock.unixNanoseconds()) - seconds(Clock.monotonicNanoseconds())

    private let logger: Logger
    private let poller: AdminPoller
    private let listener: Int32?
    private let local: Int32?
    private var connections: [UInt64: AdminConnection] = [:]
    private var nextID: UInt64 = 2
    /// Answers that this turn may still give.
    private var answersLeft = 0
    /// While the process is out of descriptors the listeners are not watched; when to try again, 0 if they are.
    private var acceptAgainAt: UInt64 = 0
    private var acceptLogRate = LogRate(perSecond: 1, burst: 2)
    private var forbiddenLogRate = LogRate(perSecond: 1, burst: 2)
    private var refusalLogRate = LogRate(perSecond: 1, burst: 2)

    private static let listenerID: UInt64 = 0
    private static let localID: UInt64 = 1

    init(_ address: ListenAddress?, logger: Logger) throws(ListenError) {
        self.logger = logger
        var listener: Int32?
        var bound: ListenAddress?
        if let address {
            let listeners = try Listeners(address, count: 1, variable: "RELAY_METRICS_ADDR")
            listener = listeners.descriptors.first
            bound = listeners.address
        }
        do throws(SystemError) {
            poller = try AdminPoller()
        } catch {
            throw ListenError(address: address ?? ListenAddress(host: .any, port: 0), cause: error)
        }
        let name = AdminSocket.name(pid: getpid())
        let number = unsafe clinux_abstract_listen(name, Int32(Limits.adminBacklog))
        if number < 0 {
            // Names are anybody's to take. The relay serves all the same.
            logger.warning(
                "relay status and relay health won't find this relay",
                metadata: ["reason": "\(SystemError("bind @\(name)"))"])
        }
        local = number < 0 ? nil : number
        self.listener = listener
        self.address = bound
        watchListeners(adding: true)
        if let bound { logger.info("admin listener", metadata: ["address": "\(bound)"]) }
    }

    deinit {
        if let listener { _ = close(listener) }
        if let local { _ = close(local) }
    }

    /// Readable while there is something to do: for the supervisor's poll(2). `turn` is called at least once a second besides.
    var number: Int32 { poller.number }

    /// Does what there is to do, a bounded part of it.
    ///
    /// - Parameter hasEvents: whether `number` is readable; if not, only time has passed.
    func turn(
        hasEvents: Bool, now: UInt64 = Clock.monotonicNanoseconds(), _ reply: (AdminRequest) -> AdminReply
    ) {
        answersLeft = Limits.adminAnswersPerTurnMax
        for event in hasEvents ? poller.events() : [] {
            switch event.id {
            case Self.listenerID: if let listener { accept(listener, isLocal: false, now) }
            case Self.localID: if let local { accept(local, isLocal: true, now) }
            default:
                // It may have been replaced by a connection of this turn.
                if let connection = connections[event.id] { serve(connection, event, now, reply) }
            }
        }
        expire(now)
        if acceptAgainAt != 0, now >= acceptAgainAt {
            acceptAgainAt = 0
            watchListeners(adding: false)
        }
    }

    /// Sends the answer that a connection has been waiting for; nothing happens if the connection is gone.
    func answer(_ connection: UInt64, _ answer: AdminAnswer, now: UInt64 = Clock.monotonicNanoseconds()) {
        guard let connection = connections[connection], connection.phase == .waiting else { return }
        send(connection, answer, now)
        flush(connection, now)
    }

    // MARK: - Listeners

    private func watchListeners(adding: Bool) {
        for (number, id) in [(listener, Self.listenerID), (local, Self.localID)] {
            guard let number else { continue }
            if adding {
                _ = poller.add(number, id)
            } else {
                poller.watch(number, reads: acceptAgainAt == 0, writes: false, id)
            }
        }
    }

    private func accept(_ listener: Int32, isLocal: Bool, _ now: UInt64) {
        for _ in 0..<Limits.adminAcceptsPerTurnMax {
            var storage = sockaddr_storage()
            let socket = unsafe clinux_accept(listener, &storage)
            guard socket >= 0 else {
                acceptFailed(errno, now)
                return
            }
            let id = nextID
            nextID += 1
            let kind = isLocal ? kind(socket) : .metrics
            let connection = AdminConnection(id: id, kind, owning: socket, now: now)
            makeRoom(kind)
            guard poller.add(socket, id) else {
                counts[.socketError] += 1
                continue
            }
            connections[id] = connection
            if kind == .forbidden { refuse(connection, now) }
        }
    }

    private func kind(_ socket: Int32) -> AdminConnection.Kind {
        var user: UInt32 = 0
        guard unsafe clinux_peer(socket, &user, nil) == 0 else { return .forbidden }
        return user == 0 || user == geteuid() ? .local : .forbidden
    }

    /// Tells another user so, whatever it asks for.
    private func refuse(_ connection: AdminConnection, _ now: UInt64) {
        counts[.forbidden] += 1
        if let suppressed = forbiddenLogRate.admit(nowNanoseconds: now) {
            logger.warning("admin socket: another user is refused", metadata: ["suppressed": "\(suppressed)"])
        }
        let answer = AdminAnswer.text(.forbidden, "this relay is another user's\n")
        connection.answer(answer.bytes(nil), closes: true, now: now)
        flush(connection, now)
    }

    /// Where there are as many connections as may be, ends the one that has done nothing for longest.
    private func makeRoom(_ kind: AdminConnection.Kind) {
        let others = connections.values.filter { $0.kind == kind }
        guard others.count >= kind.connectionsMax else { return }
        // One that waits for its answer is replaced only by want of any other.
        let idle = others.filter { $0.phase != .waiting }
        let oldest = (idle.isEmpty ? others : idle).min { ($0.activeAt, $0.id) < ($1.activeAt, $1.id) }
        if let oldest { drop(oldest, .replaced) }
    }

    private func acceptFailed(_ code: Int32, _ now: UInt64) {
        guard code != EAGAIN && !isAcceptTransient(code) else { return }
        acceptAgainAt = now + Limits.adminAcceptPauseNanoseconds
        watchListeners(adding: false)
        if let suppressed = acceptLogRate.admit(nowNanoseconds: now) {
            logger.error(
                "can't accept admin connections",
                metadata: ["reason": "\(SystemError("accept4", code))", "suppressed": "\(suppressed)"])
        }
    }

    // MARK: - Connections

    private func serve(
        _ connection: AdminConnection, _ event: AdminEvent, _ now: UInt64, _ reply: (AdminRequest) -> AdminReply
    ) {
        switch connection.phase {
        case .waiting:
            // Watched for nothing: this is the end of it.
            if event.isBroken { drop(connection, nil) }
        case .answering:
            if event.isWritable { flush(connection, now) }
        case .lingering:
            if event.isReadable, case .end = connection.read() { drop(connection, nil) }
            return
        case .reading:
            if event.isReadable {
                // With no answer left nothing is read: it comes again with the next turn's event.
                guard answersLeft > 0 else { return }
                if connection.input.isEmpty { connection.deadline = now + Limits.adminRequestNanoseconds }
                switch connection.read() {
                case .bytes: break
                case .nothing: return
                case .end:
                    drop(connection, nil)
                    return
                }
            }
        }
        answerRequests(connection, now, reply)
    }

    /// Answers the requests that have come whole, one after the other; while an answer is on its way the next waits.
    private func answerRequests(
        _ connection: AdminConnection, _ now: UInt64, _ reply: (AdminRequest) -> AdminReply
    ) {
        while connection.phase == .reading && !connection.input.isEmpty && connections[connection.id] != nil {
            guard answersLeft > 0 else {
                // A socket that takes bytes makes an event at once.
                poller.watch(connection.socket, reads: false, writes: true, connection.id)
                return
            }
            switch parseRequest(connection.input.span, searched: connection.searched) {
            case .incomplete:
                connection.searched = connection.input.count
                poller.watch(connection.socket, reads: true, writes: false, connection.id)
                return
            case .refused(let error):
                (counts.requests, answersLeft) = (counts.requests + 1, answersLeft - 1)
                counts[.badRequest] += 1
                connection.input = []
                connection.answer(Response.error(error.status, error.text), closes: true, now: now)
            case .head(let request):
                (counts.requests, answersLeft) = (counts.requests + 1, answersLeft - 1)
                let host = request.host.map { Array(connection.input[$0]) }
                connection.input.removeFirst(request.headBytes)
                connection.searched = 0
                connection.request = request
                connection.activeAt = now
                let admin = AdminRequest(
                    request: request, host: host, isLocal: connection.kind == .local, connection: connection.id)
                switch reply(admin) {
                case .now(let answer):
                    send(connection, answer, now)
                case .refused(let refusal):
                    refused(admin, refusal, now)
                    send(connection, refusal.answer, now)
                case .later:
                    connection.phase = .waiting
                    connection.deadline = .max
                    poller.watch(connection.socket, reads: false, writes: false, connection.id)
                    return
                }
            }
            flush(connection, now)
        }
    }

    /// A scraper that is refused shows only a status: the log says what to set.
    private func refused(_ admin: AdminRequest, _ refusal: AdminRefusal, _ now: UInt64) {
        counts[refusal] += 1
        guard let suppressed = refusalLogRate.admit(nowNanoseconds: now) else { return }
        logger.warning(
            "admin listener: a request is refused",
            metadata: [
                "reason": "\(refusal.rawValue)", "host": "\(String(decoding: admin.host ?? [], as: UTF8.self))",
                "suppressed": "\(suppressed)", "hint": "RELAY_METRICS_HOSTS lists the names that are answered",
            ])
    }

    private func send(_ connection: AdminConnection, _ answer: AdminAnswer, _ now: UInt64) {
        let request = connection.request
        connection.request = nil
        connection.answer(answer.bytes(request), closes: request?.keepsConnection != true, now: now)
    }

    private func flush(_ connection: AdminConnection, _ now: UInt64) {
        switch connection.flush() {
        case .blocked:
            poller.watch(connection.socket, reads: false, writes: true, connection.id)
        case .failed:
            drop(connection, .socketError)
        case .done where connection.closes:
            connection.phase = .lingering
            connection.deadline = now + Limits.adminLingerNanoseconds
            // A reset must not overtake the last bytes: the client ends first.
            _ = shutdown(connection.socket, Int32(SHUT_WR))
            poller.watch(connection.socket, reads: true, writes: false, connection.id)
        case .done:
            connection.phase = .reading
            connection.activeAt = now
            connection.deadline =
                now
                + (connection.input.isEmpty ? Limits.adminIdleNanoseconds : Limits.adminRequestNanoseconds)
            // What is left of the input is looked at with the event that this makes.
            poller.watch(
                connection.socket, reads: connection.input.isEmpty, writes: !connection.input.isEmpty, connection.id)
        }
    }

    private func expire(_ now: UInt64) {
        for connection in connections.values where now >= connection.deadline {
            drop(connection, connection.phase == .lingering ? nil : .timeout)
        }
    }

    /// Forgets a connection; its socket closes with it, and leaves the poller so.
    private func drop(_ connection: AdminConnection, _ reason: AdminCounts.Close?) {
        if let reason { counts[reason] += 1 }
        connections[connection.id] = nil
    }
}
