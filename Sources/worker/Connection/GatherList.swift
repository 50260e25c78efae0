// The pieces of one send: an iovec array that lives as long as the loop and is filled anew for each connection.

import CLinux
import Glibc
import Shared

/// What one send takes together.
@safe
struct GatherList: ~Copyable {
    /// 64: more pieces than a room's batch makes for anybody but in rare interleavings, which go by way of the outbox.
    static let capacity = 64

    private let vectors: UnsafeMutablePointer<iovec>
    private(set) var count = 0
    /// Bytes over all pieces.
    private(set) var bytes = 0

    init() {
        unsafe vectors = .allocate(capacity: Self.capacity)
        unsafe vectors.initialize(repeating: iovec(), count: Self.capacity)
    }

    deinit {
        unsafe vectors.deallocate()
    }

    var isFull: Bool { count == Self.capacity }

    mutating func removeAll() {
        count = 0
        bytes = 0
    }

    // MARK: - Copying, for records that are sealed

    /// Where `copy` goes on: a piece, and how much of it has been copied.
    private var piece = 0
    private var copied = 0

    /// Begins to copy from the front.
    mutating func rewind() {
        (piece, copied) = (0, 0)
    }

    /// Copies the next `count` bytes, as many as are left at the most, to `target`, which has room for them.
    mutating func copy(_ count: Int, to target: UnsafeMutableRawPointer) {
        var done = 0
        while done < count {
            precondition(piece < self.count, "no more is copied than there is")
            let vector = unsafe vectors[piece]
            let part = unsafe min(count - done, vector.iov_len - copied)
            if let base = unsafe vector.iov_base { unsafe memcpy(target + done, base + copied, part) }
            done += part
            copied += part
            if unsafe copied == vector.iov_len { (piece, copied) = (piece + 1, 0) }
        }
    }

    // MARK: - Sending

    /// Adds a piece, which must stay where it is until the send. An empty one adds nothing.
    mutating func append(_ buffer: UnsafeRawBufferPointer, _ range: Range<Int>) {
        guard !range.isEmpty, let base = buffer.baseAddress else { return }
        precondition(range.lowerBound >= 0 && range.upperBound <= buffer.count, "a piece lies within its buffer")
        precondition(!isFull, "the caller asks before it fills the last place")
        unsafe vectors[count] = iovec(
            iov_base: UnsafeMutableRawPointer(mutating: base + range.lowerBound), iov_len: range.count)
        count += 1
        bytes += range.count
    }

    /// What a send did.
    enum Sent: Equatable {
        case bytes(Int)
        case wouldBlock
        /// The connection is broken: errno.
        case failed(Int32)
    }

    /// Never waits and raises no signal. MSG_DONTWAIT as well, because O_NONBLOCK belongs to the open socket, and so
    /// also to the process that handed it over.
    private static let flags = Int32(MSG_NOSIGNAL | MSG_DONTWAIT)

    /// Sends everything in one call: send(2) for one piece, which is cheaper, else sendmsg(2).
    func send(to socket: Int32) -> Sent {
        precondition(count > 0, "nothing to send")
        if count == 1 { return unsafe Self.send(vectors[0].iov_base, vectors[0].iov_len, to: socket) }
        while true {
            var message = unsafe msghdr()
            unsafe message.msg_iov = unsafe vectors
            unsafe message.msg_iovlen = count
            if let sent = Self.sent(unsafe sendmsg(socket, &message, Self.flags)) { return sent }
        }
    }

    /// Sends one piece.
    static func send(_ start: UnsafeRawPointer?, _ count: Int, to socket: Int32) -> Sent {
        while true {
            if let sent = sent(unsafe Glibc.send(socket, start, count, flags)) { return sent }
        }
    }

    /// What a system call's result means; nil to try again.
    private static func sent(_ result: Int) -> Sent? {
        if result >= 0 { return .bytes(result) }
        switch errno {
        case EINTR: return nil
        case EAGAIN: return .wouldBlock
        case let code: return .failed(code)
        }
    }
}
