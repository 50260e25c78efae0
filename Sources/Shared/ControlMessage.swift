// The channel between the supervisor and one worker: an AF_UNIX SOCK_SEQPACKET pair, one message a packet.
//
//     offset  bytes
//     0       2      version of this format (ControlMessage.version)
//     2       2      kind
//     4       ...    body, by kind:
//
//     kind                to      body                                              descriptors beside it
//     1  launch           worker  index u32, workers u32, page u32, stands by u8,   memory, the same for reading, inbox,
//                                 placement key (count u32, 16 bytes), workers      with TLS also certificate,
//                                 that rooms come from u32 and the indices of       private key, ticket keys
//                                 those (count u32, u32 each), sandbox,
//                                 configuration (Configuration.encode)
//     2  inboxes          worker  first index u32                                   send ends from that index on
//     3  hostKeys         both    count u32, then each: room (count u32, bytes),    -
//                                 public key (count u32, 32 bytes), expiry u64:
//                                 CLOCK_MONOTONIC ns; 0: with the room; to the
//                                 supervisor also one that is past: with it ends
//                                 what was said of the room before
//     5  start            worker  -                                                 -
//     6  ready            superv. parts of the sandbox that hold (SandboxParts) u32 -
//     7  drain            worker  deadline u64: CLOCK_MONOTONIC ns, restart u8      -
//     8  failed           superv. reason (count u32, UTF-8)                         -
//     9  checkCredentials worker  sandbox                                           certificate, private key
//    10  credentials      superv. valid from, until: i64 Unix seconds               -
//
//    11  makeCertificate  worker  sandbox                                           -
//    12  certificate      superv. certificate, private key: count u32, PEM each     -
//
//    13  listeners        worker  -                                                 listeners
//    14  serve            worker  -                                                 -
//    15  route            worker  workers u32, leaves u8                            -
//    16  routed           superv. -                                                 -
//    17  lastCall         worker  -                                                 -
//    18  moved            superv. rooms, clients, bytes, longest pause ns: u64      -
//    19  sourceGone       worker  index u32                                         -
//
// A sandbox is its mode u8, user u32 and group u32 (Sandbox.encode).
//
// A process that is sent checkCredentials or makeCertificate in place of launch answers, with failed if it can't, and ends.
//
// A launch is: launch, listeners and inboxes (as many messages as they need: one carries 253 descriptors at most), hostKeys
// with the keys that outlived the predecessor, start. The worker answers ready or failed. One that stands by accepts nobody
// until it is told to serve.
//
// A change of generations (ARCHITECTURE.md): the new workers are launched to stand by; when all are ready they are told to
// serve, and each old one gets inboxes and route: from then on whoever joins there is handed to the new inboxes. It answers
// routed. When all have, nobody sends to an old inbox any more: lastCall. Rooms move from worker to worker (MoveMessage),
// and a worker that has none left says moved and ends when its last connection has gone. Of one that dies before that the
// new ones are sent hostKeys and sourceGone.

import CLinux
import Glibc

/// One message of the control channel. Descriptors travel beside it (`ControlChannel`).
package enum ControlMessage: Equatable, Sendable {
    case launch(Launch)
    case inboxes(first: Int)
    case hostKeys([HostKey])
    case start
    /// The worker serves, in a sandbox of which these parts hold.
    case ready(SandboxParts)
    case drain(deadline: UInt64, isRestart: Bool = false)
    case failed(reason: String)
    case checkCredentials(Sandbox)
    case credentials(from: Int64, until: Int64)
    case makeCertificate(Sandbox)
    /// For development: a key that is worth something never travels so.
    case certificate([UInt8], privateKey: [UInt8])
    case listeners
    case serve
    /// Takes the inboxes sent before into use: they are all of a generation of `workers`. Whoever leaves is no part of it.
    case route(workers: Int, leaves: Bool)
    case routed
    /// Nobody sends to this worker's inbox any more.
    case lastCall
    case moved(Moved)
    /// The worker with this index in the generation before has died: no more rooms come from it.
    case sourceGone(index: Int)

    /// What a worker has let go.
    package struct Moved: Equatable, Sendable {
        package var rooms: UInt64 = 0
        package var clients: UInt64 = 0
        /// Input and output that waited in the connections.
        package var bytes: UInt64 = 0
        /// From the first of a room's members to the last, nanoseconds.
        package var longestPause: UInt64 = 0

        package init() {}

        /// One more room, whose members took `pause` nanoseconds.
        package mutating func add(pause: UInt64) {
            rooms += 1
            longestPause = max(longestPause, pause)
        }
    }

    /// Rooms that are still on their way to a generation of workers.
    package struct Awaited: Equatable, Sendable {
        /// How many workers the generation before had.
        package var workers: Int
        /// Those of them that have rooms to move.
        package var pending: [Int]

        package init(workers: Int, pending: [Int]) {
            self.workers = workers
            self.pending = pending
        }
    }

    /// The key of a room's host.
    package struct HostKey: Equatable, Sendable {
        package var room: [UInt8]
        package var publicKey: [UInt8]
        /// CLOCK_MONOTONIC nanoseconds at which it lapses; 0: with the room.
        package var expiry: UInt64

        package init(room: [UInt8], publicKey: [UInt8], expiry: UInt64) {
            self.room = room
            self.publicKey = publicKey
            self.expiry = expiry
        }

        /// That a room's key holds no more: one whose time was up long ago.
        package static func over(room: [UInt8]) -> HostKey {
            HostKey(room: room, publicKey: [UInt8](repeating: 0, count: Limits.publicKeyBytes), expiry: 1)
        }
    }

    /// What a worker needs to know before it can begin.
    package struct Launch: Equatable, Sendable {
        package var index: Int
        package var workers: Int
        /// Its page of the shared memory.
        package var page: Int
        /// Whether it accepts nobody until it is told to serve.
        package var standsBy: Bool
        /// SipHash key that pins rooms to workers.
        package var placementKey: [UInt8]
        package var awaited: Awaited
        package var sandbox: Sandbox
        package var configuration: Configuration

        package init(
            index: Int, workers: Int, page: Int, standsBy: Bool = false, placementKey: [UInt8],
            awaited: Awaited = Awaited(workers: 1, pending: []), sandbox: Sandbox = Sandbox(),
            configuration: Configuration
        ) {
            self.index = index
            self.workers = workers
            self.page = page
            self.standsBy = standsBy
            self.placementKey = placementKey
            self.awaited = awaited
            self.sandbox = sandbox
            self.configuration = configuration
        }
    }

    /// Raised with every change of the format or of the configuration's.
    package static let version: UInt16 = 5

    package var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.write(Self.version)
        writer.write(kind)
        switch self {
        case .launch(let launch):
            writer.write(UInt32(launch.index))
            writer.write(UInt32(launch.workers))
            writer.write(UInt32(launch.page))
            writer.write(UInt8(launch.standsBy ? 1 : 0))
            writer.write(launch.placementKey)
            writer.write(UInt32(launch.awaited.workers))
            writer.write(UInt32(launch.awaited.pending.count))
            for index in launch.awaited.pending { writer.write(UInt32(index)) }
            launch.sandbox.encode(into: &writer)
            launch.configuration.encode(into: &writer)
        case .inboxes(let first):
            writer.write(UInt32(first))
        case .hostKeys(let keys):
            writer.write(UInt32(keys.count))
            for key in keys {
                writer.write(key.room)
                writer.write(key.publicKey)
                writer.write(key.expiry)
            }
        case .drain(let deadline, let isRestart):
            writer.write(deadline)
            writer.write(UInt8(isRestart ? 1 : 0))
        case .failed(let reason):
            writer.write(reason)
        case .credentials(let from, let until):
            writer.write(from)
            writer.write(until)
        case .certificate(let certificate, let privateKey):
            writer.write(certificate)
            writer.write(privateKey)
        case .route(let workers, let leaves):
            writer.write(UInt32(workers))
            writer.write(UInt8(leaves ? 1 : 0))
        case .moved(let moved):
            for number in [moved.rooms, moved.clients, moved.bytes, moved.longestPause] { writer.write(number) }
        case .sourceGone(let index):
            writer.write(UInt32(index))
        case .ready(let parts):
            writer.write(parts.rawValue)
        case .checkCredentials(let sandbox), .makeCertificate(let sandbox):
            sandbox.encode(into: &writer)
        case .start, .listeners, .serve, .routed, .lastCall:
            break
        }
        return writer.bytes
    }

    /// For logs: the kind alone, never the contents.
    package var name: StaticString {
        switch self {
        case .launch: "launch"
        case .inboxes: "inboxes"
        case .hostKeys: "hostKeys"
        case .start: "start"
        case .ready: "ready"
        case .drain: "drain"
        case .failed: "failed"
        case .checkCredentials: "checkCredentials"
        case .credentials: "credentials"
        case .makeCertificate: "makeCertificate"
        case .certificate: "certificate"
        case .listeners: "listeners"
        case .serve: "serve"
        case .route: "route"
        case .routed: "routed"
        case .lastCall: "lastCall"
        case .moved: "moved"
        case .sourceGone: "sourceGone"
        }
    }

    private var kind: UInt16 {
        switch self {
        case .launch: 1
        case .inboxes: 2
        case .hostKeys: 3
        case .start: 5
        case .ready: 6
        case .drain: 7
        case .failed: 8
        case .checkCredentials: 9
        case .credentials: 10
        case .makeCertificate: 11
        case .certificate: 12
        case .listeners: 13
        case .serve: 14
        case .route: 15
        case .routed: 16
        case .lastCall: 17
        case .moved: 18
        case .sourceGone: 19
        }
    }

    package init(_ bytes: [UInt8]) throws(ByteCodingError) {
        var reader = ByteReader(bytes)
        guard try reader.read(UInt16.self) == Self.version else { throw .invalid(field: "version") }
        switch try reader.read(UInt16.self) {
        case 1:
            self = .launch(try Self.readLaunch(&reader))
        case 2:
            self = .inboxes(first: Int(try reader.read(UInt32.self)))
        case 3:
            let count = Int(try reader.read(UInt32.self))
            guard count <= Limits.hostKeysPerMessageMax else { throw .invalid(field: "host keys") }
            var keys: [HostKey] = []
            for _ in 0..<count {
                let room = try reader.readBytes(max: Limits.roomIDBytesMax, field: "room")
                let key = try reader.readBytes(max: Limits.publicKeyBytes, field: "public key")
                guard key.count == Limits.publicKeyBytes else { throw .invalid(field: "public key") }
                keys.append(HostKey(room: room, publicKey: key, expiry: try reader.read()))
            }
            self = .hostKeys(keys)
        case 5:
            self = .start
        case 6:
            self = .ready(SandboxParts(rawValue: try reader.read()).intersection(.all))
        case 7:
            self = .drain(deadline: try reader.read(), isRestart: try Self.readFlag(&reader, "restart"))
        case 8:
            self = .failed(reason: try reader.readText(max: Limits.controlMessageBytesMax, field: "reason"))
        case 9:
            self = .checkCredentials(try Sandbox(from: &reader))
        case 10:
            self = .credentials(from: try reader.read(), until: try reader.read())
        case 11:
            self = .makeCertificate(try Sandbox(from: &reader))
        case 12:
            let certificate = try reader.readBytes(max: Limits.controlMessageBytesMax, field: "certificate")
            let privateKey = try reader.readBytes(max: Limits.controlMessageBytesMax, field: "private key")
            self = .certificate(certificate, privateKey: privateKey)
        case 13:
            self = .listeners
        case 14:
            self = .serve
        case 15:
            let workers = Int(try reader.read(UInt32.self))
            guard Limits.workersRange.contains(workers) else { throw .invalid(field: "workers") }
            self = .route(workers: workers, leaves: try Self.readFlag(&reader, "leaves"))
        case 16:
            self = .routed
        case 17:
            self = .lastCall
        case 18:
            var moved = Moved()
            moved.rooms = try reader.read()
            moved.clients = try reader.read()
            moved.bytes = try reader.read()
            moved.longestPause = try reader.read()
            self = .moved(moved)
        case 19:
            let index = Int(try reader.read(UInt32.self))
            guard index < Limits.workersMax else { throw .invalid(field: "source") }
            self = .sourceGone(index: index)
        default:
            throw .invalid(field: "kind")
        }
        try reader.finish()
    }

    private static func readFlag(_ reader: inout ByteReader, _ field: StaticString) throws(ByteCodingError) -> Bool {
        switch try reader.read(UInt8.self) {
        case 0: false
        case 1: true
        default: throw .invalid(field: field)
        }
    }

    private static func readLaunch(_ reader: inout ByteReader) throws(ByteCodingError) -> Launch {
        let index = Int(try reader.read(UInt32.self))
        let workers = Int(try reader.read(UInt32.self))
        // One that leaves may have a number that its successors don't have any more.
        guard Limits.workersRange.contains(workers), index < Limits.workersMax else {
            throw .invalid(field: "workers")
        }
        let page = Int(try reader.read(UInt32.self))
        guard page < Limits.workerPages else { throw .invalid(field: "page") }
        let standsBy = try readFlag(&reader, "stands by")
        let key = try reader.readBytes(max: Limits.placementKeyBytes, field: "placement key")
        guard key.count == Limits.placementKeyBytes else { throw .invalid(field: "placement key") }
        let sources = Int(try reader.read(UInt32.self))
        let count = Int(try reader.read(UInt32.self))
        guard Limits.workersRange.contains(sources), count <= sources else { throw .invalid(field: "sources") }
        var pending: [Int] = []
        for _ in 0..<count {
            let source = Int(try reader.read(UInt32.self))
            guard source < sources else { throw .invalid(field: "sources") }
            pending.append(source)
        }
        return Launch(
            index: index, workers: workers, page: page, standsBy: standsBy, placementKey: key,
            awaited: Awaited(workers: sources, pending: pending), sandbox: try Sandbox(from: &reader),
            configuration: try Configuration(from: &reader))
    }
}

/// One end of a control channel. Sending never blocks: what the kernel does not take at once waits here, in order and bounded.
package struct ControlChannel: ~Copyable {
    /// What came out of the channel.
    package enum Received: ~Copyable {
        case message(ControlMessage, descriptors: [Int32])
        case nothing
        /// The other process is gone.
        case closed
        /// Not a message of this version: a programming error or a mixed installation.
        case malformed(ByteCodingError)
        case failed(SystemError)
    }

    private let socket: Descriptor
    private var waiting: [(bytes: [UInt8], descriptors: [Int32])] = []
    /// Messages at the front of `waiting` that have been sent.
    private var sent = 0
    private var buffer = [UInt8](repeating: 0, count: Limits.controlMessageBytesMax)
    private var descriptors = [Int32](repeating: -1, count: Int(CLINUX_DESCRIPTORS_MAX))

    package init(_ socket: consuming Descriptor) {
        self.socket = socket
    }

    /// For epoll.
    package var number: Int32 { socket.number }

    /// Whether messages wait for the socket to become writable.
    package var isBlocked: Bool { !waiting.isEmpty }

    /// Sends a message, or queues it behind those that wait. The descriptors stay the caller's and must stay open until they are sent.
    ///
    /// - Returns: false if the queue is full (`Limits.controlQueueMessagesMax`): the message is not sent.
    package mutating func send(_ message: ControlMessage) throws(SystemError) -> Bool {
        guard waiting.count - sent < Limits.controlQueueMessagesMax else { return false }
        try sendAlways(message)
        return true
    }

    /// The same for the messages of a launch, which are as many as they are and of no use without the last.
    package mutating func sendAlways(_ message: ControlMessage, descriptors: [Int32] = []) throws(SystemError) {
        waiting.append((message.bytes, descriptors))
        try flush()
    }

    /// Sends what waits, as far as the kernel takes it.
    package mutating func flush() throws(SystemError) {
        while sent < waiting.count {
            let (bytes, descriptors) = waiting[sent]
            let result = unsafe bytes.withUnsafeBytes { bytes in
                unsafe descriptors.withUnsafeBufferPointer { descriptors in
                    unsafe clinux_send_message(
                        socket.number, bytes.baseAddress, bytes.count, descriptors.baseAddress, descriptors.count)
                }
            }
            if result != 0 {
                switch errno {
                // ETOOMANYREFS: descriptors of ours in flight; they drain as workers take them. The others pass as well.
                case EAGAIN, ETOOMANYREFS, ENOBUFS, ENOMEM: break
                case let code: throw SystemError("sendmsg", code)
                }
                // A queue that is never empty must not keep what has left it.
                if sent >= Limits.controlQueueMessagesMax {
                    waiting.removeFirst(sent)
                    sent = 0
                }
                return
            }
            sent += 1
        }
        waiting.removeAll()
        sent = 0
    }

    /// Takes one message. The descriptors that came with it are the caller's.
    package mutating func receive() -> Received {
        var count = 0
        var received = receiveOnce(&count)
        // A process that dies with messages of ours unread makes this error, once, in front of what it said itself.
        if received < 0 && errno == ECONNRESET { received = receiveOnce(&count) }
        guard received >= 0 else {
            return switch errno {
            case EAGAIN, ENOBUFS, ENOMEM: .nothing
            // The message is gone, and what came with it is closed.
            case EMSGSIZE: .malformed(.invalid(field: "size"))
            case ECONNRESET: .closed
            case let code: .failed(SystemError("recvmsg", code))
            }
        }
        if received == 0 { return .closed }
        let descriptors = Array(descriptors.prefix(count))
        do throws(ByteCodingError) {
            return .message(try ControlMessage(Array(buffer.prefix(received))), descriptors: descriptors)
        } catch {
            for descriptor in descriptors { _ = close(descriptor) }
            return .malformed(error)
        }
    }

    private mutating func receiveOnce(_ descriptorCount: inout Int) -> Int {
        unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe descriptors.withUnsafeMutableBufferPointer { descriptors in
                unsafe clinux_receive_message(
                    socket.number, buffer.baseAddress, buffer.count, descriptors.baseAddress, descriptors.count,
                    &descriptorCount)
            }
        }
    }
}
