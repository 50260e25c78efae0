// The loop's own buffers: one that every read goes into, so that only what is incomplete is copied to its connection, and one in which
// TLS records are sealed before they are sent. Connections take turns with them; nothing in them outlives a step of the turn.

import CLinux
import Glibc
import Shared

/// A fixed run of raw bytes.
@safe
struct LoopBuffer {
    private let base: UnsafeMutableRawPointer
    let capacity: Int

    /// Lives as long as the process.
    init(bytes: Int) {
        unsafe base = .allocate(byteCount: bytes, alignment: 64)
        capacity = bytes
    }

    var address: UnsafeMutableRawPointer { unsafe base }
    var whole: UnsafeMutableRawBufferPointer { unsafe UnsafeMutableRawBufferPointer(start: base, count: capacity) }

    /// The first `count` bytes; valid until the buffer is next used.
    func prefix(_ count: Int) -> UnsafeRawBufferPointer {
        precondition(count <= capacity, "more bytes than the buffer holds")
        return unsafe UnsafeRawBufferPointer(start: base, count: count)
    }

    /// What one receive did.
    enum Received {
        case bytes(Int)
        case end
        case wouldBlock
        /// The connection is broken: errno.
        case failed(Int32)
    }

    /// Reads at most `bytesMax` bytes into the buffer, after its first `kept` ones. The corresponding C function is
    /// recv(2) with MSG_DONTWAIT: O_NONBLOCK belongs to the open socket, and so also to the process that handed it
    /// over.
    func receive(from socket: Int32, behind kept: Int = 0, bytesMax: Int = Limits.receiveBytesMax) -> Received {
        receive(from: socket, behind: kept, bytesMax: bytesMax, flags: 0)
    }

    /// Looks at what has come, at most `bytesMax` bytes of it, and leaves it in the socket. The corresponding C
    /// function is recv(2).
    func peek(from socket: Int32, bytesMax: Int) -> Received {
        receive(from: socket, behind: 0, bytesMax: bytesMax, flags: Int32(MSG_PEEK))
    }

    /// Whether so many bytes wait in a socket. Of TCP none of them is copied (MSG_TRUNC, tcp(7)). The corresponding C
    /// function is recv(2).
    func hasWaiting(_ count: Int, in socket: Int32) -> Bool {
        let flags = Int32(MSG_PEEK | MSG_TRUNC)
        guard case .bytes(count) = receive(from: socket, behind: 0, bytesMax: count, flags: flags) else { return false }
        return true
    }

    /// Takes so many bytes out of the socket that a `peek` has shown.
    ///
    /// - Returns: false if the connection is broken.
    func discard(from socket: Int32, count: Int) -> Bool {
        guard count > 0 else { return true }
        // Nobody else reads the socket, so what was there is there.
        guard case .bytes(count) = receive(from: socket, bytesMax: count) else { return false }
        return true
    }

    @inline(__always)
    private func receive(from socket: Int32, behind kept: Int, bytesMax: Int, flags: Int32) -> Received {
        precondition(bytesMax > 0 && kept + bytesMax <= capacity, "a read fits after what was kept")
        while true {
            let result = unsafe recv(socket, base + kept, bytesMax, Int32(MSG_DONTWAIT) | flags)
            if result > 0 { return .bytes(result) }
            if result == 0 { return .end }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .wouldBlock
            case let code: return .failed(code)
            }
        }
    }
}
