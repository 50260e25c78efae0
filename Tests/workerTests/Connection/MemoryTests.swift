import Glibc
import Shared
import Testing

@testable import worker

@Suite struct `The memory that connections hold` {
    /// Memory that is asked for and never touched costs nothing.
    private func hold(_ bytes: Int, _ slot: UInt32, _ worker: inout Worker) {
        worker.connections[slot].message.reserve(bytes)
        worker.account(slot)
    }

    @Test func `is the sum of their queues, and nothing once they are gone`() throws {
        var fixture = try WorkerFixture()
        let (one, _) = try fixture.open()
        let (other, _) = try fixture.open()
        hold(1000, one, &fixture.worker)
        hold(5000, other, &fixture.worker)
        let held = fixture.worker.heldBytes
        #expect(held == 6000)
        fixture.worker.connections[one].message.release()
        fixture.worker.account(one)
        let left = fixture.worker.heldBytes
        #expect(left == 5000)
        fixture.worker.doom(other, .socketError)
        fixture.worker.settle()
        let nothing = fixture.worker.heldBytes
        #expect(nothing == 0)
    }

    @Test func `beyond its bound is taken from those that hold most, with 1013`() throws {
        var fixture = try WorkerFixture()
        let part = Limits.heldBytesMax(Configuration()) / 4
        var clients: [(slot: UInt32, client: Int32, bytes: Int)] = []
        for bytes in [part, 2 * part, part / 2, part + 1] {
            let (slot, client) = try fixture.open()
            clients.append((slot, client, bytes))
            hold(bytes, slot, &fixture.worker)
        }
        fixture.worker.settle()
        let (held, max) = (fixture.worker.heldBytes, Limits.heldBytesMax(Configuration()))
        #expect(held <= max)
        for (slot, client, bytes) in clients {
            let isOpen = fixture.worker.connections[slot].phase == .open
            // Without the one that held half of the bound the others fit.
            #expect(isOpen == (bytes != 2 * part))
            var frame = [UInt8](repeating: 0, count: 100)
            let count = recv(client, &frame, frame.count, 0)
            if isOpen { #expect(count < 0) } else { #expect(Array(frame.prefix(4)) == [0x88, 2, 0x03, 0xF5]) }
        }
        let closed = fixture.worker.page[.close(.memory)]
        #expect(closed == 1)
    }
}
