import Glibc
import Shared
import Testing

@Suite struct `Errors of accept(2)` {
    @Test func `are the connection's where the network made them, and the listener's else`() {
        // accept(2), "Error handling".
        for code in [
            ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ECONNABORTED,
            EINTR,
        ] {
            #expect(isAcceptTransient(code), "\(code)")
        }
        for code in [0, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, EBADF, EINVAL, ENOTSOCK, EPERM, EFAULT] {
            #expect(!isAcceptTransient(code), "\(code)")
        }
    }
}
