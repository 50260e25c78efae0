// A TLS client whose bytes on the wire a test arranges: NIOSSL (BoringSSL) in a channel without a socket, whose records are
// written to a plain socket in whatever pieces are of interest.

import NIOCore
import NIOEmbedded
import NIOSSL
import NIOTLS
import Synchronization

/// A TLS connection of loopback. Closed when it is let go of. For one task at a time.
final class TLSClient: ByteClient {
    /// What the channel says of the connection.
    private final class Inbox: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer

        struct State {
            var received: [UInt8] = []
            var isEstablished = false
            var negotiated: String?
            /// close_notify came: NIOSSL closes its channel for nothing else that is no error.
            var isClosed = false
            var errors: [String] = []
        }

        let state = Mutex(State())

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            state.withLock { $0.received += buffer.readableBytesView }
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case .handshakeCompleted(let negotiated) = event as? TLSUserEvent {
                state.withLock { ($0.isEstablished, $0.negotiated) = (true, negotiated) }
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            state.withLock { $0.isClosed = true }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            state.withLock { $0.errors.append("\(error)") }
        }
    }

    let socket: RawClient
    private let channel: NIOAsyncTestingChannel
    private let inbox = Inbox()
    /// The end of the handshake where it was not sent yet.
    let flight: [UInt8]

    /// - Parameters:
    ///   - prefix: what is sent with the ClientHello, in front of it.
    ///   - sendsFlight: whether the client's last records of the handshake are sent, or left in `flight`.
    init(
        _ port: Int, _ context: NIOSSLContext, prefix: [UInt8] = [], receiveBuffer: Int32? = nil,
        sendsFlight: Bool = true
    ) async throws {
        socket = try await RawClient(port, receiveBuffer: receiveBuffer)
        let (inbox, socket) = (inbox, socket)
        let channel = try await NIOAsyncTestingChannel { channel in
            let tls = try NIOSSLClientHandler(context: context, serverHostname: "localhost")
            try channel.pipeline.syncOperations.addHandlers([tls, inbox])
        }
        self.channel = channel
        try await channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: port)).get()
        if !prefix.isEmpty { try await socket.send(prefix + Self.output(channel)) }
        flight = try await awaited("a TLS handshake; \(inbox.state.withLock { $0.errors })") {
            socket.take()
            let bytes = socket.received
            if !bytes.isEmpty {
                socket.consume(bytes.count)
                try await channel.writeInbound(ByteBuffer(bytes: bytes))
            }
            let (isEstablished, errors) = inbox.state.withLock { ($0.isEstablished, $0.errors) }
            guard errors.isEmpty else { throw SpawnError(description: "no TLS: \(errors)") }
            let output = try await Self.output(channel)
            if isEstablished && !sendsFlight { return output }
            try await socket.send(output)
            return isEstablished ? [] : nil
        }
    }

    /// The protocol that was agreed on (ALPN).
    var negotiated: String? { inbox.state.withLock { $0.negotiated } }
    /// Whether close_notify has come.
    var isClosed: Bool { inbox.state.withLock { $0.isClosed } }
    var errors: [String] { inbox.state.withLock { $0.errors } }

    // MARK: - Sent

    /// The records of this data; one if it is not longer than 16,384 bytes. They must be sent in this order.
    func seal(_ bytes: [UInt8]) async throws -> [UInt8] {
        try await channel.writeOutbound(ByteBuffer(bytes: bytes))
        return try await Self.output(channel)
    }

    func send(_ bytes: [UInt8]) async throws {
        try await socket.send(try await seal(bytes))
    }

    func send(_ text: String) async throws {
        try await send(Array(text.utf8))
    }

    /// Says close_notify; the socket stays as it is.
    func close() async throws {
        channel.close(promise: nil)
        try await channel.testingEventLoop.executeInContext {}
        try await socket.send(try await Self.output(channel))
    }

    private static func output(_ channel: NIOAsyncTestingChannel) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        while let buffer = try await channel.readOutbound(as: ByteBuffer.self) { bytes += buffer.readableBytesView }
        return bytes
    }

    // MARK: - Received

    var received: [UInt8] { inbox.state.withLock { $0.received } }
    var isFinished: Bool { socket.isFinished && socket.received.isEmpty }

    func consume(_ count: Int) {
        inbox.state.withLock { $0.received.removeFirst(count) }
    }

    func take() async throws {
        socket.take()
        let bytes = socket.received
        guard !bytes.isEmpty else { return }
        // What comes behind close_notify is of no interest, and an error in NIO.
        if !isClosed {
            try await channel.writeInbound(ByteBuffer(bytes: bytes))
            try await socket.send(try await Self.output(channel))
        }
        socket.consume(bytes.count)
    }
}

extension Relay {
    /// A TLS client that has been let in.
    func tlsJoin(_ join: Join, receiveBuffer: Int32? = nil) async throws -> TLSClient {
        let client = try await tlsClient(receiveBuffer: receiveBuffer)
        try await client.send(join.head)
        let response = try await client.response()
        guard response.status == 101 else { throw Refusal(response: response) }
        return client
    }

    func tlsClient(receiveBuffer: Int32? = nil, sendsFlight: Bool = true) async throws -> TLSClient {
        guard let tls else { throw SpawnError(description: "this relay serves no TLS") }
        return try await TLSClient(port, tls, receiveBuffer: receiveBuffer, sendsFlight: sendsFlight)
    }
}
