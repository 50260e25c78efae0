import Glibc
import Shared
import Testing

@testable import worker

@Suite struct `The memory that connections hold` {
    /// A worker that may hold its floor and so many bytes more.
    private func fixture(more: Int = 4 << 20, backlog: Int = 20 << 20) throws -> WorkerFixture {
        var options = WorkerFixture.Options()
        options.configuration.memoryBytesMax = Limits.memoryFloorBytes(options.configuration) + more
        options.configuration.backlogBytesMax = backlog
        return try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
    }

    private func isOpen(_ slot: UInt32, _ fixture: borrowing WorkerFixture) -> Bool {
        fixture.worker.connections.isOccupied(slot) && fixture.worker.connections[slot].phase == .open
    }

    /// Memory that is asked for and never touched costs nothing.
    private func hold(_ bytes: Int, _ slot: UInt32, _ fixture: inout WorkerFixture) {
        guard fixture.worker.reserve(bytes, for: slot) else { return }
        fixture.worker.connections[slot].message.reserve(bytes)
        fixture.worker.account(slot)
    }

    @Test func `is the sum of what each takes, and nothing once they are gone`() throws {
        var fixture = try WorkerFixture()
        let before = fixture.worker.heldBytes
        #expect(before == 0)
        let (one, _) = try fixture.open()
        let (other, _) = try fixture.open()
        let idle = fixture.worker.heldBytes
        #expect(idle == 2 * Limits.connectionHeldBytes)
        hold(1000, one, &fixture)
        hold(5000, other, &fixture)
        let held = fixture.worker.heldBytes - idle
        #expect(held == 6000)
        fixture.worker.connections[one].message.release()
        fixture.worker.account(one)
        let left = fixture.worker.heldBytes - idle
        #expect(left == 5000)
        for slot in [one, other] { fixture.worker.doom(slot, .socketError) }
        fixture.worker.settle()
        let (nothing, shares, sources) = (
            fixture.worker.heldBytes, fixture.worker.held.shares.count, fixture.worker.held.shares.sourceCount
        )
        #expect((nothing, shares, sources) == (0, 0, 0))
    }

    @Test func `is taken from the one that holds most, with 1013, before there is too much`() throws {
        var fixture = try fixture(more: 0)
        let part = Limits.memoryFloorBytes(Configuration()) / 4
        var clients: [(slot: UInt32, client: Int32, bytes: Int)] = []
        for bytes in [part, 2 * part, part / 2, part + 1] {
            let (slot, client) = try fixture.open()
            clients.append((slot, client, bytes))
            hold(bytes, slot, &fixture)
            let (held, granted) = (fixture.worker.heldBytes, fixture.worker.held.budget.granted)
            #expect(held <= granted)
        }
        fixture.worker.settle()
        for (slot, client, bytes) in clients {
            let isOpen = isOpen(slot, fixture)
            // Without the one that held half of the bound the others fit.
            #expect(isOpen == (bytes != 2 * part))
            var frame = [UInt8](repeating: 0, count: 100)
            let count = recv(client, &frame, frame.count, 0)
            if isOpen { #expect(count < 0) } else { #expect(Array(frame.prefix(4)) == [0x88, 2, 0x03, 0xF5]) }
        }
        let closed = fixture.worker.page[.close(.memory)]
        #expect(closed == 1)
    }

    @Test func `of many small ones from one address gives way to a large one from another`() throws {
        var fixture = try fixture(more: 4 << 20)
        var small: [UInt32] = []
        for _ in 0..<400 {
            let slot = try fixture.open(peer: "192.0.2.1").slot
            small.append(slot)
            hold(40_000, slot, &fixture)
        }
        let (large, _) = try fixture.open(peer: "198.51.100.7")
        for _ in 0..<8 { hold(131_072 + fixture.worker.connections[large].message.capacity, large, &fixture) }
        fixture.worker.settle()
        let isLargeOpen = isOpen(large, fixture)
        #expect(isLargeOpen)
        var open = 0
        for slot in small where isOpen(slot, fixture) { open += 1 }
        #expect(open < 400 && open > 200)
    }

    @Test func `of a closed connection is freed at once, whatever is cut`() throws {
        var fixture = try fixture()
        let room = fixture.openRoom("slow")
        let sender = try fixture.enter(room)
        let reader = try fixture.enter(room)
        let message = [UInt8](repeating: 7, count: 1 << 20)
        for _ in 0..<3 { fixture.say(sender.slot, message) }
        let waiting = fixture.worker.connections[reader.slot].outbox.count
        #expect(waiting > 2 << 20)
        let isCut = fixture.worker.connections[reader.slot].outbox.isCut
        #expect(isCut)
        fixture.worker.condemn(reader.slot, .slow)
        let (left, blocks) = (fixture.worker.connections[reader.slot].outbox.count, fixture.worker.held.blocks.count)
        #expect((left, blocks) == (0, 0))
        fixture.worker.settle()
        let isThere = fixture.worker.connections.isOccupied(reader.slot)
        #expect(!isThere)
        let closed = fixture.worker.page[.close(.slow)]
        #expect(closed == 1)
    }

    @Test func `for a message that many wait for is the message's, once`() throws {
        var fixture = try fixture()
        let room = fixture.openRoom("many")
        let sender = try fixture.enter(room)
        var readers: [(slot: UInt32, client: Int32)] = []
        for _ in 0..<19 { readers.append(try fixture.enter(room)) }
        // Fills the sockets.
        let filler = [UInt8](repeating: 1, count: 512 << 10)
        fixture.say(sender.slot, filler)
        let before = fixture.worker.heldBytes
        let message = [UInt8](repeating: 7, count: 1 << 20)
        fixture.say(sender.slot, message)
        let taken = fixture.worker.heldBytes - before
        #expect(taken < (1 << 20) + 100_000, "19 who wait for it")
        let blocks = fixture.worker.held.blocks.count
        #expect(blocks == 2)
        let expected =
            Frame(opcode: Frame.binary, payload: filler).unmasked
            + Frame(opcode: Frame.binary, payload: message).unmasked
        for (slot, client) in readers {
            var wire: [UInt8] = []
            while wire.count < expected.count {
                wire += StreamPair.receive(from: client)
                fixture.worker.resumeWriting(slot)
                fixture.worker.settle()
            }
            #expect(wire == expected)
        }
        let (left, after) = (fixture.worker.held.blocks.count, fixture.worker.held.shares.bytes)
        #expect(left == 0)
        #expect(after == 20 * Limits.connectionHeldBytes)
    }

    @Test func `is lent to a small holder while those that hold most are on their way out`() throws {
        var fixture = try fixture(more: 0)
        let quiet = fixture.openRoom("quiet", source: 99)
        let (host, _) = try fixture.enter(quiet)
        let (guest, _) = try fixture.enter(quiet)
        // A room that holds all there is, and of which nobody is left who could give way.
        let room = fixture.openRoom("attack", source: 7)
        let (share, all) = (fixture.worker.rooms[room].share, fixture.worker.held.budget.granted)
        fixture.worker.held.shares.charge(all, to: share)
        for _ in 0..<10 { fixture.say(host, [UInt8](repeating: 1, count: 2000)) }
        let areOpen = isOpen(host, fixture) && isOpen(guest, fixture)
        let closed = fixture.worker.page[.close(.memory)]
        #expect(areOpen && closed == 0)
        // Not without bound.
        fixture.say(host, [UInt8](repeating: 1, count: 2 * Limits.memoryOverdraftBytes))
        let isHostOpen = isOpen(host, fixture)
        #expect(!isHostOpen)
        fixture.worker.held.shares.charge(-all, to: share)
    }

    @Test func `is never beyond the bound, though many rooms' messages complete together, and innocents stay`() throws {
        var fixture = try fixture(more: 12 << 20)
        // Somebody else's room, whose one guest is a little slow.
        let quiet = fixture.openRoom("quiet", source: 99)
        let (host, _) = try fixture.enter(quiet)
        let (guest, _) = try fixture.enter(quiet)
        fixture.say(host, [UInt8](repeating: 1, count: 600 << 10))
        let waits = fixture.worker.connections[guest].outbox.count
        #expect(waits > 0)
        let message = [UInt8](repeating: 7, count: 1 << 20)
        var most = 0
        for number in 0..<30 {
            let room = fixture.openRoom("attack \(number)", source: 7)
            let sender = try fixture.enter(room)
            for _ in 0..<5 { _ = try fixture.enter(room) }
            // Two messages: the second waits in whole.
            for _ in 0..<2 where isOpen(sender.slot, fixture) {
                fixture.worker.sayUnsettled(sender.slot, message)
                most = max(most, fixture.worker.heldBytes)
            }
        }
        fixture.worker.settle()
        #expect(most <= fixture.worker.configuration.memoryBytesMax)
        #expect(most > fixture.worker.configuration.memoryBytesMax / 2)
        let areInnocentsOpen = isOpen(host, fixture) && isOpen(guest, fixture)
        #expect(areInnocentsOpen)
        let closed = fixture.worker.page[.close(.memory)]
        #expect(closed > 0)
        // All of it comes back.
        for slot in fixture.worker.connections.slots where fixture.worker.connections.isOccupied(slot) {
            fixture.worker.doom(slot, .socketError)
        }
        fixture.worker.settle()
        let (bytes, shares, blocks) = (
            fixture.worker.held.shares.bytes, fixture.worker.held.shares.count, fixture.worker.held.blocks.count
        )
        #expect((bytes, shares, blocks) == (0, 0, 0))
    }

    @Test func `is taken with a reset, and no close frame, from one that a frame has begun to leave for`() throws {
        for isCut in [false, true] {
            var fixture = try fixture(more: 64 << 20)
            let (slot, client) = try fixture.enter(fixture.openRoom("room"))
            // A send has taken some of a batch, and the rest has not been put into the outbox yet.
            fixture.worker.connections[slot].outbox.isBatchCut = isCut
            fixture.worker.condemn(slot, .memory)
            fixture.worker.settle()
            let wire = StreamPair.receive(from: client)
            #expect(wire.isEmpty == isCut)
        }
    }

    @Test func `goes back to the pool and to the kernel after a peak`() throws {
        var fixture = try fixture(more: 64 << 20)
        let floor = Limits.memoryFloorBytes(Configuration())
        let (slot, _) = try fixture.open()
        hold(40 << 20, slot, &fixture)
        let peak = fixture.worker.held.budget.granted
        #expect(peak > 40 << 20)
        fixture.worker.connections[slot].message.release()
        fixture.worker.account(slot)
        fixture.worker.now += Limits.heapTrimNanoseconds
        fixture.worker.relieveMemory()
        fixture.worker.returnMemory()
        let (granted, trimmedAt, now) = (
            fixture.worker.held.budget.granted, fixture.worker.held.trimmedAt, fixture.worker.now
        )
        #expect(granted == floor)
        #expect(trimmedAt == now)
    }
}
