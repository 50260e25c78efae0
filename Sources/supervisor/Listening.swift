// Listening sockets: one a worker, all on the same address with SO_REUSEPORT, so that the kernel spreads new connections over
// the workers. The supervisor keeps them all; a worker gets its own alone, because a copy elsewhere would keep a dead
// worker's listener in the group and connections would hang in it.

import CLinux
import Glibc
import Shared

/// Why the relay can't listen, in words for the operator.
struct ListenError: Error, CustomStringConvertible {
    var address: ListenAddress
    var cause: SystemError
    /// What sets the address.
    var variable = "RELAY_ADDR"

    var description: String {
        let advice =
            switch cause.code {
            case EADDRINUSE: ": another program listens there; stop it, or set \(variable) to another port"
            case EACCES: ": a port below 1024 needs a privilege; choose another with \(variable)"
            case EADDRNOTAVAIL: ": no interface of this machine has that address; see \(variable)"
            default: ""
            }
        return "can't listen on \(address): \(cause)\(advice)"
    }
}

/// The relay's listeners and where they listen.
struct Listeners {
    /// One a worker, or more: none is ever closed, because what waits in it would be refused.
    private(set) var descriptors: [Int32] = []
    /// With the port that the kernel chose, if it was asked to.
    let address: ListenAddress
    /// What sets the address.
    private let variable: String

    init(_ address: ListenAddress, count: Int, variable: String = "RELAY_ADDR") throws(ListenError) {
        self.variable = variable
        do throws(SystemError) {
            // SO_REUSEPORT would let two relays share a port without either knowing: so one socket without it comes first.
            let probe = try Self.bind(address, sharesPort: false)
            var address = address
            if address.port == 0 { address.port = try Self.port(of: probe.number) }
            _ = consume probe
            self.address = address
        } catch {
            throw ListenError(address: address, cause: error, variable: variable)
        }
        try grow(to: count)
    }

    /// Listeners that another program of this relay has opened.
    init(_ address: ListenAddress, descriptors: [Int32]) {
        self.address = address
        self.descriptors = descriptors
        variable = "RELAY_ADDR"
    }

    /// Opens listeners until there is one for each of `count` workers.
    mutating func grow(to count: Int) throws(ListenError) {
        do throws(SystemError) {
            while descriptors.count < count {
                let listener = try Self.bind(address, sharesPort: true)
                guard
                    clinux_tune_listener(
                        listener.number, Int32(Limits.unsentBytesMax), UInt32(Limits.silenceSeconds) * 1000) == 0
                else {
                    throw SystemError("setsockopt")
                }
                guard listen(listener.number, Int32(Limits.listenBacklog)) == 0 else { throw SystemError("listen") }
                descriptors.append(listener.release())
            }
        } catch {
            throw ListenError(address: address, cause: error, variable: variable)
        }
    }

    /// The listeners of worker `index` of `workers`: every one is some worker's.
    func share(of index: Int, workers: Int) -> [Int32] {
        stride(from: index, to: descriptors.count, by: workers).map { descriptors[$0] }
    }

    /// A bound socket. "Any" is an IPv6 socket that takes IPv4 as well, or an IPv4 one where there is no IPv6.
    private static func bind(_ address: ListenAddress, sharesPort: Bool) throws(SystemError) -> Descriptor {
        switch address.host {
        case .any:
            do throws(SystemError) {
                return try bind(family: AF_INET6, Address(high: 0, low: 0), address.port, sharesPort)
            } catch  where error.code == EAFNOSUPPORT || error.code == EADDRNOTAVAIL {
                return try bind(family: AF_INET, Address(high: 0, low: 0xFFFF_0000_0000), address.port, sharesPort)
            }
        case .address(let host):
            return try bind(family: host.isIPv4 ? AF_INET : AF_INET6, host, address.port, sharesPort)
        }
    }

    private static func bind(
        family: Int32, _ host: Address, _ port: UInt16, _ sharesPort: Bool
    ) throws(SystemError) -> Descriptor {
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let number = socket(family, type, 0)
        guard number >= 0 else { throw SystemError("socket") }
        let descriptor = Descriptor(owning: number)
        try set(number, SOL_SOCKET, SO_REUSEADDR, 1)
        if sharesPort { try set(number, SOL_SOCKET, SO_REUSEPORT, 1) }
        if family == AF_INET6 { try set(number, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        let result = unsafe withSocketAddress(family, host, port) { name, length in
            unsafe Glibc.bind(number, name, length)
        }
        guard result == 0 else { throw SystemError("bind") }
        return descriptor
    }

    private static func set(_ socket: Int32, _ level: Int32, _ option: Int32, _ value: Int32) throws(SystemError) {
        var value = value
        guard unsafe setsockopt(socket, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0 else {
            throw SystemError("setsockopt")
        }
    }

    /// The corresponding C function is getsockname(2).
    private static func port(of socket: Int32) throws(SystemError) -> UInt16 {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = unsafe withUnsafeMutableBytes(of: &storage) { bytes in
            unsafe getsockname(socket, bytes.assumingMemoryBound(to: sockaddr.self).baseAddress, &length)
        }
        guard result == 0 else { throw SystemError("getsockname") }
        // The port stands at the same place for both families.
        return unsafe withUnsafeBytes(of: &storage) { bytes in
            unsafe UInt16(bigEndian: bytes.load(as: sockaddr_in.self).sin_port)
        }
    }
}

/// Calls `body` with an address as bind(2) and connect(2) take it: AF_INET6, or AF_INET for an IPv4 address.
func withSocketAddress(
    _ family: Int32, _ host: Address, _ port: UInt16, _ body: (UnsafePointer<sockaddr>?, socklen_t) -> Int32
) -> Int32 {
    if family == AF_INET6 {
        var name = sockaddr_in6()
        name.sin6_family = sa_family_t(AF_INET6)
        name.sin6_port = port.bigEndian
        unsafe withUnsafeMutableBytes(of: &name.sin6_addr) { bytes in
            unsafe bytes.storeBytes(of: host.high.bigEndian, as: UInt64.self)
            unsafe bytes.storeBytes(of: host.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        return unsafe withUnsafeBytes(of: &name) { bytes in
            unsafe body(bytes.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t(bytes.count))
        }
    }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    name.sin_addr.s_addr = UInt32(truncatingIfNeeded: host.low).bigEndian
    return unsafe withUnsafeBytes(of: &name) { bytes in
        unsafe body(bytes.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t(bytes.count))
    }
}
