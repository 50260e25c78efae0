import Shared
import Testing

@testable import worker

@Suite struct `A lane` {
    /// Everything that `member` is given, range by range.
    private func ranges(_ lane: borrowing Lane, notFrom member: UInt32) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        var run = 0
        while let range = lane.nextRange(notFrom: member, &run) { ranges.append(range) }
        var after = run
        if lane.nextRange(notFrom: member, &after) != nil { Issue.record("there is nothing behind the end") }
        return ranges
    }

    @Test func `gives nothing while nobody has said anything`() {
        let lane = Lane()
        let ranges = ranges(lane, notFrom: 1)
        #expect(ranges == [])
        let size = lane.size(notFrom: 1)
        #expect(size == (0, 0))
    }

    @Test func `gives a member everything but its own words, in one piece wherever that is possible`() {
        var lane = Lane()
        // 1 1 2 3 1, a byte each
        for sender in [1, 1, 2, 3, 1] as [UInt32] {
            lane.bytes.append(0)
            lane.commit(sender: sender)
        }
        let one = ranges(lane, notFrom: 1)
        let two = ranges(lane, notFrom: 2)
        let three = ranges(lane, notFrom: 3)
        let other = ranges(lane, notFrom: 4)
        #expect(one == [2..<4])
        #expect(two == [0..<2, 3..<5])
        #expect(three == [0..<3, 4..<5])
        #expect(other == [0..<5])
        let runs = lane.runs.count
        #expect(runs == 4)
    }

    @Test func `gives everybody what the relay says`() {
        var lane = Lane()
        for sender in [1, Lane.noSender, 2] {
            lane.bytes.append([0, 0])
            lane.commit(sender: sender)
        }
        let (one, two) = (ranges(lane, notFrom: 1), ranges(lane, notFrom: 2))
        #expect(one == [2..<6])
        #expect(two == [0..<4])
    }

    @Test func `gives each member the others' frames, whoever said what`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var lane = Lane()
        for round in 0..<1000 {
            let members = UInt32.random(in: 1...6, using: &random)
            var said: [(sender: UInt32, bytes: [UInt8])] = []
            for _ in 0..<Int.random(in: 0...30, using: &random) {
                let sender = UInt32.random(in: 0..<members, using: &random)
                let bytes = (0..<Int.random(in: 2...9, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                said.append((sender, bytes))
                lane.bytes.append(bytes)
                lane.commit(sender: sender)
            }
            let all = lane.bytes.array
            let frames = lane.frames
            #expect(frames == said.count)
            // The last is nobody who has said anything.
            for member in 0...members {
                let ranges = ranges(lane, notFrom: member)
                let heard = Array(ranges.map { all[$0] }.joined())
                let expected = Array(said.filter { $0.sender != member }.map(\.bytes).joined())
                #expect(heard == expected, "seed \(seed), round \(round)")
                #expect(ranges.allSatisfy { !$0.isEmpty }, "seed \(seed), round \(round)")
                // As few pieces as there can be: between two stands something of the member's own.
                let gaps = zip(ranges, ranges.dropFirst()).map { $1.lowerBound - $0.upperBound }
                #expect(gaps.allSatisfy { $0 > 0 }, "seed \(seed), round \(round)")
                let size = lane.size(notFrom: member)
                #expect(size.frames == said.count { $0.sender != member }, "seed \(seed), round \(round)")
                #expect(size.bytes == heard.count, "seed \(seed), round \(round)")
            }
            lane.removeAll(keeping: 64)
            let (count, runs, capacity) = (lane.frames, lane.runs.count, lane.bytes.capacity)
            #expect(count == 0 && runs == 0 && capacity <= 64)
        }
    }

    @Test func `leaves out a frame that was taken back before anybody said it`() {
        var lane = Lane()
        lane.bytes.append([1, 2])
        lane.commit(sender: 1)
        lane.bytes.append([3, 4, 5])
        lane.bytes.truncate(to: 2)
        lane.bytes.append([6])
        lane.commit(sender: 2)
        let other = ranges(lane, notFrom: 9)
        let bytes = lane.bytes.array
        #expect(other == [0..<3])
        #expect(bytes == [1, 2, 6])
    }

    @Test func `keeps its memory for the next turn up to the size told`() {
        var lane = Lane()
        lane.bytes.append([UInt8](repeating: 0, count: 1000))
        lane.commit(sender: 1)
        let full = lane.bytes.capacity
        lane.removeAll(keeping: full)
        let kept = lane.bytes.capacity
        #expect(kept == full)
        lane.bytes.append(1)
        lane.removeAll(keeping: full - 1)
        let (released, isEmpty) = (lane.bytes.capacity, lane.bytes.isEmpty)
        #expect(released == 0)
        #expect(isEmpty)
    }

    @Test func `counts with its sister what a room has said`() {
        var batch = RoomBatch()
        let isSpare = batch.room == Room.none
        #expect(isSpare)
        batch.voice.bytes.append([1, 2])
        batch.data.bytes.append([3])
        let bytes = batch.byteCount
        #expect(bytes == 3)
    }
}
