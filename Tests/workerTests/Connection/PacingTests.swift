import Glibc
import Shared
import Testing

@testable import worker

private let second: UInt64 = 1_000_000_000

@Suite struct `The pace of sending` {
    @Test func `lets a second's worth pass in a moment, and one more wait for its share of a second`() {
        var pace = SendingPace()
        let now = 100 * second
        var resumed: [UInt64?] = []
        for _ in 0..<10 {
            resumed.append(pace.add(messages: 1, messagesPerSecond: 10, bytes: 0, bytesPerSecond: 0, at: now))
        }
        #expect(resumed == [UInt64?](repeating: nil, count: 10))
        let late = pace.add(messages: 1, messagesPerSecond: 10, bytes: 0, bytesPerSecond: 0, at: now)
        #expect(late == now + second / 10)
        // What has waited long enough passes, and no more.
        let then = pace.add(messages: 1, messagesPerSecond: 10, bytes: 0, bytesPerSecond: 0, at: now + second / 5)
        #expect(then == nil)
    }

    @Test func `goes by whichever is exceeded, messages or bytes, and by neither that is off`() {
        var pace = SendingPace()
        let bytes = pace.add(messages: 1, messagesPerSecond: 1000, bytes: 3000, bytesPerSecond: 1000, at: second)
        #expect(bytes == 3 * second)
        var off = SendingPace()
        let none = off.add(messages: .max / 2, messagesPerSecond: 0, bytes: .max / 2, bytesPerSecond: 0, at: second)
        #expect(none == nil)
    }

    @Test func `leaves a member unread for a while, loses nothing, and does not take it for silent`() throws {
        var options = WorkerFixture.Options()
        options.configuration.messagesPerSecondMax = 50
        var fixture = try WorkerFixture(options, try SharedMemory.create(in: try SharedMemory.makeFile()))
        _ = fixture.worker.memory.rooms.take(max: .max)
        let room = fixture.worker.openRoom(
            Array("room".utf8), hostKey: [UInt8](repeating: 1, count: Limits.publicKeyBytes), source: 1)
        let (speaker, client) = try fixture.open()
        let (listener, ear) = try fixture.open()
        for slot in [speaker, listener] {
            fixture.worker.enter(slot, room)
            fixture.worker.watchAsMember(slot)
        }
        let frames = (0..<60).map { Frame(opcode: Frame.binary, payload: [UInt8($0)]).masked([1, 2, 3, 4]) }
        for frame in frames {
            _ = send(client, frame, frame.count, Int32(MSG_NOSIGNAL))
            fixture.worker.turn(waiting: 0)
        }
        let (isPaused, paused) = (fixture.worker.connections[speaker].isPaused, fixture.worker.page[.readsPaused])
        #expect(isPaused && paused >= 1)
        // A ping goes unanswered meanwhile, for its answer is not read.
        fixture.worker.connections[speaker].heardAt = fixture.worker.second - 1000
        fixture.worker.connections[speaker].pingDue = fixture.worker.second
        fixture.worker.connectionDue(speaker)
        fixture.worker.settle()
        let isOpen = fixture.worker.connections[speaker].phase == .open
        #expect(isOpen)
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        for _ in 0..<10_000 where received.count < 3 * frames.count {
            fixture.worker.turn(waiting: fixture.worker.patience)
            let count = recv(ear, &buffer, buffer.count, 0)
            if count > 0 { received += buffer[..<count] }
        }
        let parsed = try #require(Frame.parse(received))
        #expect(parsed.map(\.payload) == (0..<60).map { [UInt8($0)] })
    }
}
