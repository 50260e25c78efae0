import Shared
import Testing

@testable import supervisor

@Suite struct `The audit of memory` {
    private let piece = Int64(Limits.memoryPieceBytes)
    private let configuration = Configuration()
    private let memory: SharedMemory
    private let pages: [WorkerPage]

    init() throws {
        let memory = try SharedMemory.create(in: try SharedMemory.makeFile())
        self.memory = memory
        pages = (0..<3).map { memory.page($0) }
        for page in pages { take(Limits.memoryFloorBytes(configuration), page) }
    }

    private func take(_ bytes: Int, _ page: WorkerPage) {
        memory.memoryPool.takeAnyhow(bytes)
        page[.memoryGranted] += UInt64(bytes)
    }

    /// So many looks, and what they put right.
    private func audit(_ looks: Int, _ audit: inout MemoryAudit, then: () -> Void = {}) -> [Int64] {
        (0..<looks).map { _ in
            let excess = audit.look(memory.memoryPool, pages, configuration)
            memory.memoryPool.correct(by: excess)
            then()
            return excess
        }
    }

    private var isRight: Bool { memory.memoryPool.taken == MemoryAudit.held(pages, configuration) }

    @Test func `finds right what workers take and give back`() {
        var looks = MemoryAudit()
        let corrections = audit(5 * Limits.quotaLooksMax, &looks) { take(Int(piece), pages[1]) }
        #expect(corrections.allSatisfy { $0 == 0 } && isRight)
    }

    @Test func `gives back what a worker had taken and not said when it died`() {
        var looks = MemoryAudit()
        take(Int(piece), pages[0])
        memory.memoryPool.takeAnyhow(2 * Int(piece))
        // It is given back what its page says, which is then empty.
        memory.memoryPool.give(Int(pages[0][.memoryGranted]))
        pages[0].zeroGauges()
        #expect(!isRight)
        let corrections = audit(Limits.quotaLooksMax, &looks)
        #expect(corrections == Array(repeating: 0, count: Limits.quotaLooksMax - 1) + [2 * piece])
        #expect(isRight)
    }

    @Test func `takes again what somebody has given back that was not his`() {
        var looks = MemoryAudit()
        memory.memoryPool.give(Int(piece))
        #expect(audit(Limits.quotaLooksMax, &looks).last == -piece)
        #expect(isRight)
        memory.memoryPool.give(.max)
        #expect(audit(Limits.quotaLooksMax, &looks).last ?? 0 < 0)
        #expect(isRight)
    }

    @Test func `waits for a worker that stands between the two`() {
        var looks = MemoryAudit()
        memory.memoryPool.takeAnyhow(Int(piece))
        #expect(audit(Limits.quotaLooksMax - 1, &looks).allSatisfy { $0 == 0 })
        pages[2][.memoryGranted] += UInt64(piece)
        #expect(audit(2 * Limits.quotaLooksMax, &looks).allSatisfy { $0 == 0 })
        #expect(isRight)
    }

    @Test func `takes no more than that while others take and give`() {
        var looks = MemoryAudit()
        memory.memoryPool.takeAnyhow(Int(piece))
        var isTaken = false
        let corrections = audit(Limits.quotaLooksMax, &looks) {
            isTaken.toggle()
            if isTaken {
                take(Int(piece), pages[0])
            } else {
                pages[0][.memoryGranted] -= UInt64(piece)
                memory.memoryPool.give(Int(piece))
            }
        }
        #expect(corrections.reduce(0, +) == piece)
        #expect(isRight)
    }

    @Test(arguments: [1 << 30, 1 << 49, .max] as [UInt64])
    func `believes no page more than there is`(said: UInt64) {
        var looks = MemoryAudit()
        pages[0][.memoryGranted] = said
        _ = audit(2 * Limits.quotaLooksMax, &looks)
        let most = configuration.memoryBytesMax + 3 * Limits.memoryFloorBytes(configuration)
        #expect(memory.memoryPool.taken <= most)
        // And is right again when that worker is gone.
        memory.memoryPool.give(min(Int(clamping: pages[0][.memoryGranted]), memory.memoryPool.taken))
        pages[0].zeroGauges()
        _ = audit(2 * Limits.quotaLooksMax, &looks)
        #expect(memory.memoryPool.taken == 2 * Limits.memoryFloorBytes(configuration))
    }

    @Test func `does not trap, whatever the words hold`() {
        var looks = MemoryAudit()
        for taken in [0, 1, .max, 1 << 62] {
            for held in [0, 1, .max, 1 << 62] {
                for _ in 0..<2 * Limits.quotaLooksMax { _ = looks.look(taken: taken, held: held) }
            }
        }
    }
}
