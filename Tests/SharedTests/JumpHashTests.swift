import Shared
import Testing

@Suite struct `Jump hashes` {
    /// Vectors that other implementations share (ClickHouse's test 00580, rust-jumphash and others), and from the
    /// paper's code run elsewhere.
    @Test(
        arguments: [
            (1, 1, 0), (42, 57, 43), (0xDEAD_10CC, 1, 0), (0xDEAD_10CC, 666, 361), (256, 1024, 520), (0, 60, 0),
            (1, 60, 55), (2, 60, 46), (.max, 256, 248), (0x726F_DB47_DD0E_0E31, 256, 5),
            (0xA129_CA61_49BE_45E5, 256, 183),
        ] as [(UInt64, Int, Int)])
    func `are those of other implementations`(key: UInt64, buckets: Int, bucket: Int) {
        #expect(jumpHash(key, buckets: buckets) == bucket)
    }

    @Test func `stay or go to the new bucket when one is added`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let key = random.next()
            var bucket = jumpHash(key, buckets: 1)
            #expect(bucket == 0)
            for buckets in 2...256 {
                let next = jumpHash(key, buckets: buckets)
                #expect(next == bucket || next == buckets - 1, "seed \(seed), key \(key), \(buckets) buckets")
                bucket = next
            }
        }
    }

    @Test(arguments: [2, 3, 7, 16]) func `are even`(buckets: Int) {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var counts = [Int](repeating: 0, count: buckets)
        for _ in 0..<(2000 * buckets) { counts[jumpHash(random.next(), buckets: buckets)] += 1 }
        // 2000 each, with a deviation below 45: six of them.
        #expect(counts.allSatisfy { (1730...2270).contains($0) }, "seed \(seed): \(counts)")
    }
}
