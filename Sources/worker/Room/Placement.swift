// Which worker a room lives in: jump consistent hash over SipHash-2-4 of its id. The key is drawn by the supervisor when the
// relay starts, so nobody can choose ids that all land on one worker, and it stays the same while workers come and go.

import CSodium
import Shared

/// The rule that pins rooms to workers.
struct Placement {
    private let key: [UInt8]
    private let workers: Int

    init(key: [UInt8], workers: Int) {
        precondition(key.count == Int(crypto_shorthash_KEYBYTES), "SipHash takes a key of 16 bytes")
        self.key = key
        self.workers = workers
    }

    func owner(of room: [UInt8]) -> Int {
        var hash = [UInt8](repeating: 0, count: 8)
        let result = unsafe crypto_shorthash(&hash, room, UInt64(room.count), key)
        precondition(result == 0, "SipHash can't fail")
        var word: UInt64 = 0
        for byte in hash.reversed() { word = word << 8 | UInt64(byte) }
        return jumpHash(word, buckets: workers)
    }
}
