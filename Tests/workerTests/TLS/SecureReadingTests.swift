import Glibc
import Shared
import Testing

@testable import worker

@Suite struct `A client that breaks a rule of TLS` {
    @Test func `is counted by the rule, and closed for it`() throws {
        let file = try SharedMemory.makeFile()
        var options = WorkerFixture.Options()
        options.tlsContext = try makeContext()
        var fixture = try WorkerFixture(options, try SharedMemory.create(in: file))
        let client = Client(isSecure: true)
        let (socket, far) = try StreamPair().split()
        client.socket = far
        let slot = try fixture.adopt(socket, isSecure: true)
        for _ in 0..<10 where fixture.worker.connections[slot].phase != .request {
            client.exchange()
            fixture.worker.turn(waiting: 0)
        }
        let phase = fixture.worker.connections[slot].phase
        #expect(phase == .request)

        // A handshake record that is not protected.
        let sent = [UInt8](arrayLiteral: 22).withUnsafeBytes { send(far, $0.baseAddress, $0.count, 0) }
        #expect(sent == 1)
        fixture.worker.turn(waiting: 0)
        let page = fixture.worker.page
        let counts = CounterFamily.tlsViolations.labels.indices.map { page[.tlsViolations, $0] }
        #expect(page[.tlsViolation(.unprotectedRecord)] == 1 && counts.reduce(0, +) == 1)
        #expect(page[.close(.tlsViolation)] == 1)
    }
}
