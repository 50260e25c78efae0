import Testing

@testable import worker

/// Makes the server's half of a handshake, one chunk of bytes at a time.
final class HandshakeLoop {
    let handshake: TLSHandshake
    let ciphers: RecordCiphers
    private var established: TLSSession?
    private(set) var parameters: TLSParameters?
    private(set) var failure: TLSHandshakeFailure?

    init(_ context: TLSContext) throws {
        handshake = try TLSHandshake(context)
        ciphers = try RecordCiphers()
    }

    var isOver: Bool { parameters != nil || failure != nil }

    /// - Returns: what is to be sent.
    func run(_ bytes: [UInt8]) -> [UInt8] {
        var output = ByteQueue()
        // What an earlier flight left unsent stays in front.
        output.append([1, 2, 3])
        bytes.withUnsafeBytes { bytes in
            switch handshake.advance(bytes, output: &output, ciphers) {
            case .needInput: break
            case .established(let session, let parameters):
                established = consume session
                self.parameters = parameters
            case .failed(let failure): self.failure = failure
            }
        }
        #expect(output.array.starts(with: [1, 2, 3]))
        return Array(output.array.dropFirst(3))
    }

    func session() throws -> SessionLoop {
        guard let session = established.take() else {
            Issue.record("no session: \(String(describing: failure))")
            throw TestFailure()
        }
        return try SessionLoop(session)
    }
}

/// A whole handshake; the server's flights reach the client whole, the client's come in chunks of `chunkBytes`.
@discardableResult
func shakeHands(_ client: TLSClient, _ server: HandshakeLoop, chunkBytes: Int = .max, request: [UInt8] = []) -> [UInt8]
{
    var toClient: [UInt8] = []
    var rest: [UInt8] = []
    for _ in 0..<10 {
        client.receive(toClient)
        toClient = []
        if client.isConnected && !request.isEmpty && !server.isOver { client.write(request) }
        var flight = client.output()[...]
        while !flight.isEmpty {
            let chunk = Array(flight.prefix(chunkBytes))
            flight = flight.dropFirst(chunk.count)
            if server.isOver { rest += chunk } else { toClient += server.run(chunk) }
        }
        if server.isOver { break }
    }
    client.receive(toClient)
    return rest
}

/// A client and its session, connected.
func connect(
    _ options: TLSClient.Options = TLSClient.Options(), context: TLSContext? = nil
) throws -> (client: TLSClient, server: SessionLoop, parameters: TLSParameters) {
    let client = TLSClient(options)
    let handshake = try HandshakeLoop(context ?? makeContext())
    shakeHands(client, handshake)
    let parameters = try #require(handshake.parameters, "\(String(describing: handshake.failure))")
    return (client, try handshake.session(), parameters)
}
