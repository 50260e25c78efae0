import Shared
import Testing

@testable import worker

@Suite struct `What has begun to come` {
    private let begun = UInt32(Limits.begunSeconds)

    /// A reader that has taken these bytes, and how much of a message has come.
    private func reader(_ bytes: [UInt8], _ reader: FrameReader = FrameReader()) -> FrameReader {
        var (reader, offset) = (reader, 0)
        while reader.next(bytes.span.bytes, &offset, messageBytesMax: 1 << 20) != .needMore {}
        return reader
    }

    private func frame(_ opcode: UInt8, _ count: Int, isFinal: Bool = true) -> [UInt8] {
        Frame(isFinal: isFinal, opcode: opcode, payload: [UInt8](repeating: 1, count: count)).masked([1, 2, 3, 4])
    }

    @Test func `must end in 30 seconds, from its first byte`() {
        let whole = frame(Frame.binary, 20)
        for cut in 1..<whole.count {
            var input = BegunInput()
            input.updateMessage(reader(Array(whole[..<cut])), at: 100)
            #expect(input.deadline(messageBytes: 0) == 100 + begun, "\(cut) bytes")
            input.updateMessage(reader(whole), at: 101)
            #expect(input.deadline(messageBytes: 0) == nil)
        }
    }

    @Test func `has a second more for each 8 KiB that have come`() {
        var input = BegunInput()
        let reader = reader(Array(frame(Frame.binary, 1 << 20).dropLast()))
        input.updateMessage(reader, at: 100)
        #expect(input.deadline(messageBytes: 8191) == 100 + begun)
        #expect(input.deadline(messageBytes: 8192) == 100 + begun + 1)
        #expect(input.deadline(messageBytes: reader.messageBytesTaken) == 100 + begun + 127)
    }

    @Test func `is another message's when the one before has ended, but not for a ping in its middle`() {
        var input = BegunInput()
        var reader = reader(frame(Frame.binary, 20, isFinal: false))
        input.updateMessage(reader, at: 100)
        reader = self.reader(frame(Frame.ping, 5), reader)
        input.updateMessage(reader, at: 110)
        #expect(input.deadline(messageBytes: 0) == 100 + begun)
        reader = self.reader(frame(Frame.continuation, 5) + [0x82], reader)
        input.updateMessage(reader, at: 120)
        #expect(input.deadline(messageBytes: 0) == 120 + begun)
    }

    @Test func `may be a record, which is done when it is whole`() {
        var input = BegunInput()
        input.updateRecord(isHalf: true, hasEnded: false, at: 100)
        input.updateRecord(isHalf: true, hasEnded: false, at: 120)
        #expect(input.deadline(messageBytes: 1 << 20) == 100 + begun)
        input.updateRecord(isHalf: true, hasEnded: true, at: 125)
        #expect(input.deadline(messageBytes: 0) == 125 + begun)
        input.restart(at: 200)
        #expect(input.deadline(messageBytes: 0) == 200 + begun)
        input.updateRecord(isHalf: false, hasEnded: true, at: 201)
        #expect(input.deadline(messageBytes: 0) == nil)
    }

    @Test func `ends the connection with 1008 when its time is up`() throws {
        for isSlow in [false, true] {
            var fixture = try WorkerFixture()
            let (slot, client) = try fixture.open()
            let message = frame(Frame.binary, 100_000)
            fixture.receive(slot, Array(message[..<(isSlow ? 90_000 : 1000)]))
            let seconds = begun + (isSlow ? 10 : 0)
            fixture.pass(seconds: seconds - 1)
            let isOpen = fixture.worker.connections[slot].phase == .open
            #expect(isOpen)
            fixture.pass(seconds: 1)
            let wire = StreamPair.receive(from: client)
            #expect(wire.suffix(4) == [0x88, 2, 0x03, 0xF0])
            let closed = fixture.worker.page[.close(.messageTimeout)]
            #expect(closed == 1)
        }
    }

    @Test func `leaves a connection alone that ended it, or that the relay does not read`() throws {
        // Pings have a jitter that goes by the second, and each that is due looks at this as well.
        for start in 0..<UInt32(30) {
            var fixture = try WorkerFixture()
            fixture.worker.second += start
            let room = fixture.openRoom("room")
            let (whole, _) = try fixture.enter(room)
            let (unread, client) = try fixture.open()
            let message = frame(Frame.binary, 1000)
            fixture.receive(whole, message)
            fixture.receive(unread, Array(message[..<500]))
            fixture.worker.setInterest(unread, [])
            fixture.pass(seconds: begun + 10)
            let areOpen =
                fixture.worker.connections[whole].phase == .open && fixture.worker.connections[unread].phase == .open
            #expect(areOpen)
            fixture.worker.setInterest(unread, .read)
            // Or its silence would end it.
            fixture.worker.connections[unread].heardAt = fixture.worker.second
            fixture.pass(seconds: begun)
            let wire = StreamPair.receive(from: client)
            #expect(wire.suffix(4) == [0x88, 2, 0x03, 0xF0], "\(start) s on")
        }
    }
}
