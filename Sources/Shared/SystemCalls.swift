// System calls that more than one process makes. Each retries EINTR, gives would-block back as a value, and throws
// every other failure as a `SystemError` that names the call.

import CLinux
import Glibc

/// A system call that failed: which one, and its errno.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package var call: String
    package var code: Int32

    package init(_ call: String, _ code: Int32 = errno) {
        self.call = call
        self.code = code
    }

    /// "bind: Address already in use".
    package var description: String {
        "\(call): \(unsafe String(cString: strerror(code)))"
    }
}

/// Whether accept(2) failed for what has become of the one connection that was next, and may be called again at once:
/// errors of the network that were waiting at the new socket come out of it, and are to be treated like EAGAIN
/// (accept(2), "Error handling").
package func isAcceptTransient(_ code: Int32) -> Bool {
    switch code {
    case EINTR, ECONNABORTED, ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH:
        true
    default: false
    }
}

/// A file descriptor with one owner, closed when the owner lets go of it.
///
/// The corresponding C function of `deinit` is close(2).
package struct Descriptor: ~Copyable {
    package let number: Int32

    /// Takes ownership of `number`.
    package init(owning number: Int32) {
        precondition(number >= 0, "a descriptor is not negative")
        self.number = number
    }

    /// Another descriptor of what a number stands for; nil for want of one. The corresponding C function is fcntl(2) with F_DUPFD_CLOEXEC.
    package init?(copying number: Int32) {
        let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { return nil }
        self.init(owning: copy)
    }

    /// Gives the descriptor away without closing it.
    package consuming func release() -> Int32 {
        let number = number
        discard self
        return number
    }

    deinit {
        _ = close(number)
    }
}

/// The clocks of the relay.
package enum Clock {
    /// CLOCK_MONOTONIC in nanoseconds: the same in every process of the machine.
    package static func monotonicNanoseconds() -> UInt64 {
        read(CLOCK_MONOTONIC)
    }

    /// CLOCK_REALTIME in nanoseconds since 1970.
    package static func unixNanoseconds() -> UInt64 {
        read(CLOCK_REALTIME)
    }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        let result = unsafe clock_gettime(clock, &time)
        precondition(result == 0, "clock_gettime can't fail for a clock that Linux always has")
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// One AF_UNIX SOCK_SEQPACKET pair: what is written to one end is read, message by message, at the other.
package struct MessagePair: ~Copyable {
    package let near: Descriptor
    package let far: Descriptor

    /// `bufferBytes`: what SO_SNDBUF and SO_RCVBUF of both ends are asked to be.
    package init(bufferBytes: Int32) throws(SystemError) {
        var pair: (Int32, Int32) = (-1, -1)
        let result = unsafe withUnsafeMutableBytes(of: &pair) { raw in
            guard let ends = unsafe raw.baseAddress?.assumingMemoryBound(to: Int32.self) else { return Int32(-1) }
            return unsafe clinux_seqpacket_pair(ends, bufferBytes)
        }
        guard result == 0 else { throw SystemError("socketpair") }
        near = Descriptor(owning: pair.0)
        far = Descriptor(owning: pair.1)
    }

    /// Both ends, to be owned apart.
    package consuming func split() -> (near: Int32, far: Int32) {
        (near.release(), far.release())
    }
}
