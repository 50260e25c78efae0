// A WebSocket client of SwiftNIO: handshake, framing and masking are NIO's, so that no mistake of the relay's authors is
// made here again.

import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOWebSocket
import Synchronization

/// The relay did not let a client in.
struct Refusal: Error, Equatable, CustomStringConvertible {
    var response: HTTPResponse

    var description: String { "refused: \(response)" }
}

/// How a connection ended.
enum Ending: Equatable, Sendable {
    /// With a close frame; nil: without a code.
    case closed(code: Int?)
    /// Without a close frame.
    case cut
}

/// A client in a room.
final class WebSocketClient: Sendable {
    /// A message as it came: always one frame, or `oddities` says so.
    struct Message: Equatable, Sendable {
        var isBinary: Bool
        var bytes: [UInt8]

        var isVoice: Bool { bytes.starts(with: [0x4B, 0x56]) }
    }

    /// What has come, written on NIO's thread and read by tests.
    fileprivate final class Inbox: Sendable {
        struct State {
            var response: HTTPResponse?
            var isResponseWhole = false
            var isOpen = false
            var messages: [Message] = []
            var pongs: [[UInt8]] = []
            var ending: Ending?
            var isGone = false
            /// What a relay must not do: fragments, masked frames, errors of the protocol.
            var oddities: [String] = []
            /// Of TLS: the end came without close_notify.
            var isTruncated = false
        }

        let state = Mutex(State())
    }

    private let channel: any Channel
    private let inbox: Inbox

    private init(_ channel: any Channel, _ inbox: Inbox) {
        self.channel = channel
        self.inbox = inbox
    }

    deinit {
        channel.close(promise: nil)
    }

    // MARK: - Received

    var messages: [Message] { inbox.state.withLock { $0.messages } }
    var pongs: [[UInt8]] { inbox.state.withLock { $0.pongs } }
    var oddities: [String] { inbox.state.withLock { $0.oddities } }
    var ending: Ending? { inbox.state.withLock { $0.ending } }
    /// Over TLS: whether the connection ended without close_notify (RFC 8446, 6.1).
    var isTruncated: Bool { inbox.state.withLock { $0.isTruncated } }
    var isOpen: Bool { inbox.state.withLock { $0.ending == nil && !$0.isGone } }

    /// Voice messages.
    var voice: [[UInt8]] { messages.filter(\.isVoice).map(\.bytes) }
    /// Data messages as a client reads them: those that were joined taken apart again.
    var data: [String] {
        messages.filter { !$0.isVoice }.flatMap { message in
            message.bytes.split(separator: 0x0A, omittingEmptySubsequences: false).map {
                String(decoding: $0, as: UTF8.self)
            }
        }
    }

    /// Waits until as many data messages have come, and takes those there are.
    func data(_ count: Int) async throws -> [String] {
        try await awaited("\(count) data messages; \(data.count) came, the connection: \(String(describing: ending))") {
            let data = data
            return data.count >= count ? data : nil
        }
    }

    /// Waits for the connection's end: the close frame, and the socket's end behind it.
    func ended(seconds: Double = patienceSeconds) async throws -> Ending {
        try await awaited("a connection's end", seconds: seconds) {
            inbox.state.withLock { $0.isGone ? $0.ending ?? .cut : nil }
        }
    }

    // MARK: - Sent

    func send(_ text: String) {
        write(.text, Array(text.utf8))
    }

    func send(binary bytes: [UInt8]) {
        write(.binary, bytes)
    }

    func ping(_ payload: [UInt8]) {
        write(.ping, payload)
    }

    /// Sends a close frame.
    func close(code: Int?) {
        write(.connectionClose, code.map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] } ?? [])
    }

    /// One frame, masked with a random key.
    func write(_ opcode: WebSocketOpcode, _ payload: [UInt8], isFinal: Bool = true) {
        let frame = WebSocketFrame(
            fin: isFinal, opcode: opcode, maskKey: .random(), data: channel.allocator.buffer(bytes: payload))
        channel.writeAndFlush(frame, promise: nil)
    }

    /// Closes the socket without a word.
    func abort() {
        channel.close(promise: nil)
    }

    /// Stops or goes on reading the socket.
    func reads(_ isReading: Bool) async throws {
        try await channel.setOption(.autoRead, value: isReading).get()
    }

    // MARK: - Joining

    /// - Parameter tls: for `wss`.
    static func join(
        port: Int, _ join: Join, extra: [(String, String)] = [], receiveBuffer: Int? = nil, tls: NIOSSLContext? = nil
    ) async throws -> WebSocketClient {
        let inbox = Inbox()
        var bootstrap = ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        let handler = try NIOSSLClientHandler(context: tls, serverHostname: "localhost")
                        try channel.pipeline.syncOperations.addHandler(handler)
                    }
                    try configure(channel, inbox, target: join.target, extra)
                }
            }
        if let receiveBuffer {
            bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveBuffer))
        }
        let channel = try await bootstrap.connect(host: "127.0.0.1", port: port).get()
        let client = WebSocketClient(channel, inbox)
        try await eventually("an answer to a handshake") {
            let state = inbox.state.withLock { $0 }
            if let response = state.response, state.isResponseWhole { throw Refusal(response: response) }
            if state.isGone && !state.isOpen { throw Refusal(response: HTTPResponse(status: 0)) }
            return state.isOpen
        }
        return client
    }

    private static func configure(
        _ channel: any Channel, _ inbox: Inbox, target: String, _ extra: [(String, String)]
    ) throws {
        let upgrader = NIOWebSocketClientUpgrader(
            maxFrameSize: 1 << 26, automaticErrorHandling: false,
            upgradePipelineHandler: { channel, _ in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(FrameHandler(inbox))
                    inbox.state.withLock { $0.isOpen = true }
                }
            })
        let upgrade: NIOHTTPClientUpgradeSendableConfiguration = (
            upgraders: [upgrader],
            completionHandler: { context in
                context.pipeline.syncOperations.removeHandler(name: "request", promise: nil)
            }
        )
        try channel.pipeline.syncOperations.addHTTPClientHandlers(
            leftOverBytesStrategy: .forwardBytes, withClientUpgrade: upgrade)
        try channel.pipeline.syncOperations.addHandler(RequestHandler(inbox, target: target, extra), name: "request")
    }

    /// Sends the request, and keeps an answer that is no 101.
    private final class RequestHandler: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = HTTPClientResponsePart
        typealias OutboundOut = HTTPClientRequestPart

        private let inbox: Inbox
        private let target: String
        private let extra: [(String, String)]

        init(_ inbox: Inbox, target: String, _ extra: [(String, String)]) {
            self.inbox = inbox
            self.target = target
            self.extra = extra
        }

        func channelActive(context: ChannelHandlerContext) {
            let fields = HTTPHeaders([("Host", "relay.test")] + extra)
            let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: target, headers: fields)
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let part = unwrapInboundIn(data)
            inbox.state.withLock { state in
                switch part {
                case .head(let head):
                    let fields = head.headers.map { (name: $0.name.lowercased(), value: $0.value) }
                    state.response = HTTPResponse(status: Int(head.status.code), fields: fields)
                case .body(let bytes):
                    state.response?.body += String(buffer: bytes)
                case .end:
                    state.isResponseWhole = true
                }
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            inbox.state.withLock { $0.isGone = true }
            context.fireChannelInactive()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            inbox.state.withLock { $0.oddities.append("\(error)") }
            context.close(promise: nil)
        }
    }

    /// Keeps what comes; answers a close frame.
    private final class FrameHandler: ChannelInboundHandler {
        typealias InboundIn = WebSocketFrame
        typealias OutboundOut = WebSocketFrame

        private let inbox: Inbox

        init(_ inbox: Inbox) {
            self.inbox = inbox
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let frame = unwrapInboundIn(data)
            let bytes = Array(frame.data.readableBytesView)
            inbox.state.withLock { state in
                if !frame.fin || frame.opcode == .continuation { state.oddities.append("a fragment") }
                if frame.maskKey != nil { state.oddities.append("a masked frame") }
                if state.ending != nil { state.oddities.append("a frame behind a close frame") }
                switch frame.opcode {
                case .text, .binary: state.messages.append(Message(isBinary: frame.opcode == .binary, bytes: bytes))
                case .pong: state.pongs.append(bytes)
                case .connectionClose:
                    let code = bytes.count < 2 ? nil : Int(bytes[0]) << 8 | Int(bytes[1])
                    state.ending = .closed(code: code)
                default: break
                }
            }
            if frame.opcode == .connectionClose {
                let echo = WebSocketFrame(
                    fin: true, opcode: .connectionClose, maskKey: .random(), data: frame.data)
                context.writeAndFlush(wrapOutboundOut(echo), promise: nil)
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            inbox.state.withLock { $0.isGone = true }
            context.fireChannelInactive()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            // A reset, where the relay has lost a process, is no oddity.
            if error is NIOWebSocketError { inbox.state.withLock { $0.oddities.append("\(error)") } }
            if let error = error as? NIOSSLError, case .uncleanShutdown = error {
                inbox.state.withLock { $0.isTruncated = true }
            }
            context.close(promise: nil)
        }
    }
}

extension Relay {
    /// A client that has been let in.
    func join(
        _ join: Join, extra: [(String, String)] = [], receiveBuffer: Int? = nil
    ) async throws -> WebSocketClient {
        try await WebSocketClient.join(
            port: port, join, extra: extra, receiveBuffer: receiveBuffer, tls: tls)
    }
}
