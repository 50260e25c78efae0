import Glibc
import Shared
import Testing

@testable import worker

/// A member of a room that reads when it likes, and what it must hear.
private struct Reader {
    let slot: UInt32
    let client: Int32
    /// Decrypts what comes, where the member speaks TLS.
    var session: SessionLoop?
    var wire: [UInt8] = []
    /// Numbers of what the others said.
    var voice: [UInt32] = []
    var data: [UInt32] = []

    /// Reads a part of what has come.
    mutating func read(_ bytesMax: Int) {
        var buffer = [UInt8](repeating: 0, count: bytesMax)
        let count = recv(client, &buffer, buffer.count, 0)
        guard count > 0 else { return }
        guard let session else {
            wire += buffer[..<count]
            return
        }
        session.run(Array(buffer[..<count]))
    }

    var heard: [UInt8] { session?.received ?? wire }
}

@Suite struct `Slow readers of a room` {
    private func payload(_ mark: [UInt8], _ number: UInt32, _ count: Int) -> [UInt8] {
        let head = mark + (0..<4).map { UInt8(number >> (8 * $0) & 0xFF) }
        return head + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: max(0, count - head.count))
    }

    private func number(_ payload: [UInt8]) -> UInt32 { payload[2..<6].reversed().reduce(0) { $0 << 8 | UInt32($1) } }

    private func join(_ room: UInt32, isSecure: Bool, _ fixture: inout WorkerFixture) throws -> Reader {
        guard isSecure else {
            let member = try fixture.enter(room)
            return Reader(slot: member.slot, client: member.client)
        }
        let (slot, client) = try fixture.open()
        let (theirs, ours) = ([UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32))
        let session = try makeSession(.aes128GCM, clientSecret: theirs, serverSecret: ours)
        fixture.worker.connections[slot].isSecure = true
        fixture.worker.connections[slot].session = fixture.worker.sessions.insert(session).slot
        fixture.worker.account(slot)
        fixture.worker.enter(slot, room)
        let opposite = try makeSession(.aes128GCM, clientSecret: ours, serverSecret: theirs)
        return Reader(slot: slot, client: client, session: try SessionLoop(opposite))
    }

    @Test func `do not have all that waits for them moved when a little more comes`() throws {
        var fixture = try WorkerFixture()
        let room = fixture.openRoom("room")
        let (speaker, reader) = (try fixture.enter(room), try fixture.enter(room))
        fixture.say(speaker.slot, payload([1, 2], 1, 1 << 20))
        let before = (fixture.worker.heldBytes, fixture.worker.connections[reader.slot].outbox.data.count)
        fixture.say(speaker.slot, payload([1, 2], 2, 100))
        let after = (fixture.worker.heldBytes, fixture.worker.connections[reader.slot].outbox.data.count)
        #expect(after.1 - before.1 == 102)
        // To grow by copying would be to grow by a quarter.
        #expect(after.0 - before.0 < 4096)
        var heard = Reader(slot: reader.slot, client: reader.client)
        for _ in 0..<100 {
            heard.read(1 << 20)
            fixture.worker.resumeWriting(reader.slot)
            fixture.worker.settle()
        }
        let frames = try #require(Frame.parse(heard.heard))
        #expect(frames.map(\.payload) == [payload([1, 2], 1, 1 << 20), payload([1, 2], 2, 100)])
        let blocks = fixture.worker.held.blocks.count
        #expect(blocks == 0)
    }

    @Test(arguments: [false, true])
    func `hear all data in order and voice but for the oldest, whatever they read when`(isSecure: Bool) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        for round in 0..<3 as Range<UInt64> {
            var random = SplitMix64(seed: seed &+ round)
            let context = "seed \(seed), round \(round)"
            var options = WorkerFixture.Options()
            options.configuration.memoryBytesMax = 256 << 20
            options.configuration.backlogBytesMax = 64 << 20
            var fixture = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
            // Whatever pieces the room is sent to in.
            fixture.worker.flushPieceMembers = round == 0 ? 64 : Int(round)
            let room = fixture.openRoom("room")
            var readers: [Reader] = []
            for _ in 0..<6 { readers.append(try join(room, isSecure: isSecure, &fixture)) }
            var said: UInt32 = 0
            for _ in 0..<30 {
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    let speaker = Int.random(in: 0..<3, using: &random)
                    let isVoice = Int.random(in: 0..<3, using: &random) == 0
                    let count = [6, 130, 3000, 20_000, 70_000].randomElement(using: &random) ?? 6
                    said += 1
                    fixture.worker.sayUnsettled(
                        readers[speaker].slot, payload(isVoice ? [0x4B, 0x56] : [1, 2], said, count))
                    for index in readers.indices where index != speaker {
                        if isVoice { readers[index].voice.append(said) } else { readers[index].data.append(said) }
                    }
                }
                fixture.worker.settle()
                for index in readers.indices where Bool.random(using: &random) {
                    readers[index].read(Int.random(in: 1...200_000, using: &random))
                    fixture.worker.resumeWriting(readers[index].slot)
                }
                fixture.worker.settle()
            }
            let shared = fixture.worker.page[.blocksShared]
            #expect(shared > 0, "\(context)")
            for index in readers.indices {
                let slot = readers[index].slot
                for _ in 0..<5000 {
                    let before = readers[index].heard.count
                    readers[index].read(1 << 20)
                    fixture.worker.resumeWriting(slot)
                    fixture.worker.settle()
                    let isEmpty =
                        fixture.worker.connections[slot].outbox.isEmpty
                        && fixture.worker.connections[slot].sealed.isEmpty
                    if isEmpty && readers[index].heard.count == before { break }
                }
                let frames = try #require(Frame.parse(readers[index].heard), "\(context), reader \(index)")
                let data = frames.filter { $0.payload[0] == 1 }.map { number($0.payload) }
                let voice = frames.filter { $0.payload[0] == 0x4B }.map { number($0.payload) }
                #expect(data == readers[index].data, "\(context), reader \(index)")
                #expect(zip(voice, voice.dropFirst()).allSatisfy { $0 < $1 }, "\(context), reader \(index)")
                #expect(Set(voice).isSubset(of: readers[index].voice), "\(context), reader \(index)")
                let areWhole = frames.allSatisfy {
                    $0.payload == payload(Array($0.payload[..<2]), number($0.payload), $0.payload.count)
                }
                #expect(areWhole, "\(context), reader \(index)")
                readers[index].voice = voice
            }
            let left = (fixture.worker.held.blocks.count, fixture.worker.heldBytes - fixture.worker.held.batchBytes)
            let idle = 6 * (Limits.connectionHeldBytes + (isSecure ? Limits.tlsSessionHeldBytes : 0))
            let spare = fixture.worker.spareQueues.bytes
            #expect(left == (0, idle + spare), "\(context)")
        }
    }
}
