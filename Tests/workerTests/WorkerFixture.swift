import Glibc
import Logging
import Shared
import Testing

@testable import worker

/// A worker that is never run, with connections whose clients are the test.
struct WorkerFixture: ~Copyable {
    var worker: Worker
    /// Keep open what the worker is told of.
    private var ends: [Int32]

    init() throws {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        memory.assign(0, .current)
        let (control, supervisor) = try MessagePair(bufferBytes: 65_536).split()
        let (inbox, outbox) = try MessagePair(bufferBytes: 65_536).split()
        let (listener, nobody) = try StreamPair().split()
        worker = try Worker(
            Launched(
                index: 0, page: 0, generation: 1, standsBy: false, awaited: .init(workers: 1, pending: []),
                configuration: Configuration(), placementKey: [UInt8](0..<16), memory: memory,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, listeners: [listener],
                inbox: Descriptor(owning: inbox), outboxes: [outbox],
                control: ControlChannel(Descriptor(owning: control)),
                survivingKeys: [:], ciphers: try RecordCiphers(), tlsContext: nil, tickets: nil, ticketGeneration: 0))
        ends = [supervisor, outbox, nobody]
    }

    deinit {
        for descriptor in ends { _ = close(descriptor) }
    }

    /// An open connection that is in no room, and its client's end, which stays open as long as the fixture.
    mutating func open() throws -> (slot: UInt32, client: Int32) {
        let (socket, client) = try StreamPair().split()
        ends.append(client)
        let peer = try #require(Address("192.0.2.1"))
        let adopted = worker.adopt(
            Connection(socket: Descriptor(owning: socket), peer: peer, isSecure: false, now: worker.second))
        let slot = try #require(adopted)
        worker.connections[slot].phase = .open
        worker.startLiveness(slot)
        return (slot, client)
    }
}
