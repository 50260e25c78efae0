import Glibc
import Testing

@testable import Shared

@Suite struct `The ring of ticket keys` {
    private func ring(_ memory: TicketMemory) throws -> (generation: UInt64, keys: [[UInt8]]) {
        var bytes: [UInt8] = []
        let generation = try #require(memory.read { bytes = Array($0) })
        try #require(bytes.count.isMultiple(of: Limits.ticketKeyBytes))
        return (
            generation,
            stride(from: 0, to: bytes.count, by: Limits.ticketKeyBytes).map {
                Array(bytes[$0..<($0 + Limits.ticketKeyBytes)])
            }
        )
    }

    @Test func `begins with one key that nobody could guess`() throws {
        let memory = try TicketMemory.create(in: try TicketMemory.makeFile())
        let (generation, keys) = try ring(memory)
        #expect(generation == 2 && memory.generation == 2)
        #expect(keys.count == 1)
        let other = try ring(try TicketMemory.create(in: try TicketMemory.makeFile()))
        #expect(keys != other.keys)
        for key in keys {
            // No word of it is 0, which a random one is once in 2^64.
            for start in stride(from: 0, to: key.count, by: 8) {
                #expect(key[start..<(start + 8)].contains { $0 != 0 })
            }
        }
    }

    @Test func `keeps the newest keys in their order, and is the same for every process that maps it`() throws {
        let file = try TicketMemory.makeFile()
        let memory = try TicketMemory.create(in: file)
        let reader = try TicketMemory(mapping: file)
        var history = try ring(memory).keys
        for turn in 1...10 {
            let before = reader.generation
            memory.rotate()
            #expect(reader.generation == before + 2)
            let (_, keys) = try ring(reader)
            let newest = try #require(keys.first)
            #expect(!history.contains(newest))
            history.insert(newest, at: 0)
            #expect(keys == Array(history.prefix(Limits.ticketKeys)), "turn \(turn)")
            #expect(keys.count == min(turn + 1, Limits.ticketKeys))
        }
    }

    @Test func `is not read while it is being written`() throws {
        let file = try TicketMemory.makeFile()
        let memory = try TicketMemory.create(in: file)
        // An odd generation, as a writer that died in the middle would leave it.
        var odd: UInt64 = 3
        #expect(pwrite(file.number, &odd, 8, 0) == 8)
        var calls = 0
        #expect(memory.read { _ in calls += 1 } == nil)
        #expect(calls == 0)
    }

    @Test func `refuses a file that is too short`() throws {
        let file = try TicketMemory.makeFile()
        #expect(throws: SystemError("mmap", EINVAL)) { _ = try TicketMemory(mapping: file) }
    }

    @Test func `never takes more keys than there is room for, whatever the count says`() throws {
        let file = try TicketMemory.makeFile()
        let memory = try TicketMemory.create(in: file)
        var count = UInt64(1000)
        #expect(pwrite(file.number, &count, 8, 8) == 8)
        #expect(try ring(memory).keys.count == Limits.ticketKeys)
    }
}
