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

    /// Sends everything in one call: send(2) for one piece, which is cheaper, else sendmsg(2).
    func send(to socket: Int32) -> Sent {
        precondition(count > 0, "nothing to send")
        while true {
            let result: Int
            if count == 1 {
                result = unsafe Glibc.send(socket, vectors[0].iov_base, vectors[0].iov_len, Int32(MSG_NOSIGNAL))
            } else {
                var message = unsafe msghdr()
                unsafe message.msg_iov = unsafe vectors
                unsafe message.msg_iovlen = count
                result = unsafe sendmsg(socket, &message, Int32(MSG_NOSIGNAL))
            }
            if result >= 0 { return .bytes(result) }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }
}
