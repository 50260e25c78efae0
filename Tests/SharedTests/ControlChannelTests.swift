import CLinux
import Glibc
import Shared
import Testing

/// What came out of a channel, as a value that can be compared.
private enum Outcome: Equatable {
    case message(ControlMessage, descriptors: Int)
    case nothing
    case closed
    case malformed(ByteCodingError)
    case failed(SystemError)
}

/// One end of a channel, as a reference: what is noncopyable can't stand in an expectation.
private final class End {
    private var channel: ControlChannel

    init(_ number: Int32) {
        channel = ControlChannel(Descriptor(owning: number))
    }

    var isBlocked: Bool { channel.isBlocked }

    func send(_ message: ControlMessage) throws -> Bool {
        try channel.send(message)
    }

    func sendAlways(_ message: ControlMessage, descriptors: [Int32] = []) throws {
        try channel.sendAlways(message, descriptors: descriptors)
    }

    /// Sends bytes past the channel's own code.
    func send(raw bytes: [UInt8], descriptors: [Int32] = []) -> Bool {
        clinux_send_message(channel.number, bytes, bytes.count, descriptors, descriptors.count) == 0
    }

    func flush() throws {
        try channel.flush()
    }

    /// The message and descriptors that are next; their owner is the caller.
    func take() -> (ControlMessage, [Int32])? {
        guard case .message(let message, let descriptors) = channel.receive() else { return nil }
        return (message, descriptors)
    }

    /// What is next; descriptors are counted and closed.
    func receive() -> Outcome {
        switch channel.receive() {
        case .message(let message, let descriptors):
            for descriptor in descriptors { _ = close(descriptor) }
            return .message(message, descriptors: descriptors.count)
        case .nothing: return .nothing
        case .closed: return .closed
        case .malformed(let error): return .malformed(error)
        case .failed(let error): return .failed(error)
        }
    }
}

/// Both ends of a channel.
private struct Channels {
    let near: End
    let far: End

    init(bufferBytes: Int32 = Int32(Limits.controlBufferBytes)) throws {
        let (near, far) = try MessagePair(bufferBytes: bufferBytes).split()
        self.near = End(near)
        self.far = End(far)
    }
}

@Suite struct `A control channel` {
    @Test func `brings messages in order, each whole, in both directions`() throws {
        let channels = try Channels()
        #expect(try channels.near.send(.start))
        #expect(try channels.near.send(.drain(deadline: 5)))
        #expect(try channels.far.send(.ready(.all)))
        let outcomes = [channels.far.receive(), channels.far.receive(), channels.far.receive()]
        #expect(
            outcomes == [.message(.start, descriptors: 0), .message(.drain(deadline: 5), descriptors: 0), .nothing])
        let back = [channels.near.receive(), channels.near.receive()]
        #expect(back == [.message(.ready(.all), descriptors: 0), .nothing])
        #expect(!channels.near.isBlocked)
    }

    @Test func `brings descriptors that lead to the same file and are closed on exec`() throws {
        let channels = try Channels()
        let (near, far) = try MessagePair(bufferBytes: 4096).split()
        defer {
            _ = close(near)
            _ = close(far)
        }
        try channels.near.sendAlways(.inboxes(first: 0), descriptors: [near, near])
        let (message, descriptors) = try #require(channels.far.take())
        #expect(message == .inboxes(first: 0))
        try #require(descriptors.count == 2)
        for descriptor in descriptors {
            #expect(descriptor != near)
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
            #expect(write(descriptor, "x", 1) == 1)
            var byte: UInt8 = 0
            #expect(read(far, &byte, 1) == 1)
            #expect(byte == UInt8(ascii: "x"))
            _ = close(descriptor)
        }
    }

    @Test func `brings as many descriptors as the kernel lets through, and no more`() throws {
        let channels = try Channels()
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        try #require(null >= 0)
        defer { _ = close(null) }
        let most = [Int32](repeating: null, count: Int(CLINUX_DESCRIPTORS_MAX))
        #expect(most.count == 253)
        try channels.near.sendAlways(.inboxes(first: 0), descriptors: most)
        #expect(channels.far.receive() == .message(.inboxes(first: 0), descriptors: 253))
        #expect(throws: SystemError("sendmsg", EINVAL)) {
            try channels.near.sendAlways(.inboxes(first: 0), descriptors: most + [null])
        }
    }

    @Test func `tells that the other side is gone, after what it said last`() throws {
        let (near, far) = try MessagePair(bufferBytes: 65_536).split()
        let channel = End(near)
        do {
            let other = End(far)
            #expect(try other.send(.failed(reason: "farewell")))
        }
        let outcomes = [channel.receive(), channel.receive(), channel.receive()]
        #expect(outcomes == [.message(.failed(reason: "farewell"), descriptors: 0), .closed, .closed])
        #expect(throws: SystemError("sendmsg", EPIPE)) { _ = try channel.send(.start) }
    }

    @Test func `hears what a process said before it died with something unread`() throws {
        let (near, far) = try MessagePair(bufferBytes: 65_536).split()
        let channel = End(near)
        #expect(try channel.send(.start))
        do {
            let other = End(far)
            #expect(try other.send(.ready(.all)))
        }
        #expect([channel.receive(), channel.receive()] == [.message(.ready(.all), descriptors: 0), .closed])
    }

    @Test func `takes a launch of any length, though no more of anything else`() throws {
        let channels = try Channels(bufferBytes: 4096)
        let count = Limits.controlQueueMessagesMax + 1000
        for number in 0..<count { try channels.near.sendAlways(.inboxes(first: number)) }
        #expect(try !channels.near.send(.ready(.all)))
        for number in 0..<count {
            while true {
                if let (message, _) = channels.far.take() {
                    #expect(message == .inboxes(first: number))
                    break
                }
                try channels.near.flush()
            }
        }
    }

    @Test func `tells that the other side is gone when it has left something unread`() throws {
        let (near, far) = try MessagePair(bufferBytes: 65_536).split()
        let channel = End(near)
        #expect(try channel.send(.start))
        _ = close(far)
        #expect(channel.receive() == .closed)
    }

    @Test func `tells what is no message, closes what came with it and goes on`() throws {
        let channels = try Channels()
        let (near, far) = try MessagePair(bufferBytes: 4096).split()
        defer { _ = close(far) }
        #expect(channels.near.send(raw: [1]))
        #expect(channels.near.send(raw: [99, 0, 5, 0], descriptors: [near, near]))
        _ = close(near)
        #expect(channels.near.send(raw: ControlMessage.start.bytes + [9]))
        #expect(try channels.near.send(.start))
        let outcomes = (0..<4).map { _ in channels.far.receive() }
        #expect(
            outcomes == [
                .malformed(.truncated), .malformed(.invalid(field: "version")), .malformed(.trailing(count: 1)),
                .message(.start, descriptors: 0),
            ])
        var byte: UInt8 = 0
        #expect(read(far, &byte, 1) == 0, "nobody has the other end any more")
    }

    @Test func `refuses a message that is longer than any may be, and goes on`() throws {
        let channels = try Channels()
        let longest = ControlMessage.failed(reason: String(repeating: "x", count: Limits.controlMessageBytesMax - 8))
        #expect(longest.bytes.count == Limits.controlMessageBytesMax)
        #expect(try channels.near.send(longest))
        #expect(channels.near.send(raw: longest.bytes + [0]))
        #expect(try channels.near.send(.start))
        let outcomes = (0..<3).map { _ in channels.far.receive() }
        let tooLong = Outcome.malformed(.invalid(field: "size"))
        #expect(outcomes == [.message(longest, descriptors: 0), tooLong, .message(.start, descriptors: 0)])
    }

    @Test func `keeps what the kernel does not take, in order and up to a bound`() throws {
        let channels = try Channels(bufferBytes: 4096)
        var sent: UInt64 = 0
        // The queue fills when the kernel's is full.
        while try channels.near.send(.drain(deadline: sent)) {
            sent += 1
            try #require(sent < 1_000_000)
        }
        #expect(channels.near.isBlocked)
        #expect(sent > UInt64(Limits.controlQueueMessagesMax))
        #expect(try !channels.near.send(.start))
        // What the kernel had taken makes room for as many.
        var received: UInt64 = 0
        while received < sent {
            while case .message(let message, _) = channels.far.receive() {
                #expect(message == .drain(deadline: received))
                received += 1
            }
            try channels.near.flush()
        }
        #expect(!channels.near.isBlocked)
        #expect(channels.far.receive() == .nothing)
        #expect(try channels.near.send(.start))
    }

    @Test func `keeps its order and its bound while it is never empty`() throws {
        let channels = try Channels(bufferBytes: 4096)
        var sent: UInt64 = 0
        var received: UInt64 = 0
        for _ in 0..<2000 {
            #expect(try channels.near.send(.drain(deadline: sent)))
            sent += 1
        }
        for _ in 0..<20_000 {
            #expect(channels.far.receive() == .message(.drain(deadline: received), descriptors: 0))
            received += 1
            #expect(try channels.near.send(.drain(deadline: sent)))
            sent += 1
            #expect(channels.near.isBlocked)
        }
        while received < sent {
            while case .message(let message, _) = channels.far.receive() {
                #expect(message == .drain(deadline: received))
                received += 1
            }
            try channels.near.flush()
        }
        #expect(!channels.near.isBlocked)
    }

    @Test func `sends descriptors that had to wait`() throws {
        let channels = try Channels(bufferBytes: 4096)
        let (near, far) = try MessagePair(bufferBytes: 4096).split()
        defer {
            _ = close(near)
            _ = close(far)
        }
        var sent = 0
        while !channels.near.isBlocked {
            #expect(try channels.near.send(.start))
            sent += 1
        }
        try channels.near.sendAlways(.inboxes(first: 3), descriptors: [near])
        for _ in 0..<sent {
            #expect(channels.far.receive() == .message(.start, descriptors: 0))
            try channels.near.flush()
        }
        #expect(channels.far.receive() == .message(.inboxes(first: 3), descriptors: 1))
    }
}
