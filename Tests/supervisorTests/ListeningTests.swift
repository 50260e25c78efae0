import Glibc
import Shared
import Testing

@testable import supervisor

@Suite struct `Listening` {
    private let loopback = ListenAddress(host: .address(Address(ipv4: 0x7F00_0001)), port: 0)

    @Test(
        arguments: [
            (EADDRINUSE, "another program listens there; stop it, or set RELAY_ADDR to another port"),
            (EACCES, "a port below 1024 needs a privilege; choose another with RELAY_ADDR"),
            (EADDRNOTAVAIL, "no interface of this machine has that address; see RELAY_ADDR"),
        ])
    func `that fails says what to do about it`(code: Int32, advice: String) {
        let address = ListenAddress(host: .any, port: 443)
        let error = ListenError(address: address, cause: SystemError("bind", code))
        #expect(error.description == "can't listen on :443: bind: \(String(cString: strerror(code))): \(advice)")
    }

    @Test func `that fails in any other way says how`() {
        let error = ListenError(address: loopback, cause: SystemError("listen", ENOMEM))
        #expect(error.description == "can't listen on 127.0.0.1:0: listen: Cannot allocate memory")
    }

    @Test func `is done by a socket for each worker, all on the port that the kernel chose`() throws {
        let listeners = try Listeners(loopback, count: 3)
        defer { for descriptor in listeners.descriptors { _ = close(descriptor) } }
        #expect(Set(listeners.descriptors).count == 3)
        #expect(listeners.address.port != 0)
        #expect(listeners.address.host == loopback.host)
        for descriptor in listeners.descriptors {
            var value: Int32 = 0
            var size = socklen_t(MemoryLayout<Int32>.size)
            #expect(getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0)
            #expect(value == 1)
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
        }
    }

    @Test func `grows on the same port, keeps what there was, and never shrinks`() throws {
        var listeners = try Listeners(loopback, count: 1)
        defer { for descriptor in listeners.descriptors { _ = close(descriptor) } }
        let first = listeners.descriptors
        let address = listeners.address
        try listeners.grow(to: 3)
        #expect(listeners.descriptors.count == 3 && listeners.descriptors.starts(with: first))
        try listeners.grow(to: 1)
        #expect(listeners.descriptors.count == 3 && listeners.address == address)
    }

    @Test func `where another relay listens is refused, though the port could be shared`() throws {
        let listeners = try Listeners(loopback, count: 1)
        defer { for descriptor in listeners.descriptors { _ = close(descriptor) } }
        let address = listeners.address
        do throws(ListenError) {
            _ = try Listeners(address, count: 1)
            Issue.record("two relays share a port")
        } catch {
            #expect(error.cause.code == EADDRINUSE)
            #expect(error.address == address)
        }
    }

    @Test func `at an address that is not this machine's is refused`() throws {
        // 192.0.2.0/24 is for documentation (RFC 5737).
        let elsewhere = ListenAddress(host: .address(Address(ipv4: 0xC000_0201)), port: 0)
        do throws(ListenError) {
            _ = try Listeners(elsewhere, count: 1)
            Issue.record("this machine has an address of a book")
        } catch {
            #expect(error.cause.code == EADDRNOTAVAIL)
        }
    }
}
