import Shared
import Testing

@testable import worker

@Suite struct `Placement of rooms` {
    /// The key of SipHash's own test vectors.
    private let key = [UInt8](0..<16)

    private func rooms(_ count: Int) -> [[UInt8]] {
        (0..<count).map { Array("room-\($0)".utf8) }
    }

    @Test(arguments: [0, 1, 8, 15, 63])
    func `is the jump hash of SipHash-2-4`(length: Int) {
        // The inputs 00, 00 01, 00 01 02, ... under the key 00 01 ... 0F, from the reference implementation by Aumasson
        // and Bernstein (vectors.h, vectors_sip64), their bytes read little-endian.
        let vectors: [Int: UInt64] = [
            0: 0x726F_DB47_DD0E_0E31, 1: 0x74F8_39C5_93DC_67FD, 8: 0x93F5_F579_9A93_2462, 15: 0xA129_CA61_49BE_45E5,
            63: 0x958A_324C_EB06_4572,
        ]
        let room = (0..<length).map { UInt8($0) }
        for workers in [1, 2, 3, 8, 100, 256] {
            #expect(
                Placement(key: key, workers: workers).owner(of: room)
                    == jumpHash(vectors[length] ?? 0, buckets: workers))
        }
    }

    @Test func `is the same in every process that has the key`() {
        for room in rooms(100) {
            let owner = Placement(key: key, workers: 8).owner(of: room)
            #expect(Placement(key: key, workers: 8).owner(of: room) == owner)
            #expect((0..<8).contains(owner))
        }
    }

    @Test func `differs under another key, so that nobody can aim at a worker`() {
        let other = Placement(key: [UInt8](1...16), workers: 8)
        let here = Placement(key: key, workers: 8)
        let same = rooms(8000).count { here.owner(of: $0) == other.owner(of: $0) }
        // One in eight, by chance: 1000, with a deviation of 30.
        #expect((800...1200).contains(same))
    }

    @Test func `spreads rooms evenly, also those whose ids are alike`() {
        let placement = Placement(key: key, workers: 8)
        var counts = [Int](repeating: 0, count: 8)
        for room in rooms(16_000) { counts[placement.owner(of: room)] += 1 }
        // 2000 each, with a deviation of 42.
        #expect(counts.allSatisfy { (1750...2250).contains($0) }, "\(counts)")
    }

    @Test func `moves only what must when a worker is added`() {
        for workers in [1, 2, 7] {
            let before = Placement(key: key, workers: workers)
            let after = Placement(key: key, workers: workers + 1)
            var moved = 0
            for room in rooms(8000) where before.owner(of: room) != after.owner(of: room) {
                moved += 1
                #expect(after.owner(of: room) == workers, "what moves goes to the new worker")
            }
            let share = 8000 / (workers + 1)
            #expect((share * 8 / 10...share * 12 / 10).contains(moved), "\(workers) workers: \(moved) moved")
        }
    }
}
