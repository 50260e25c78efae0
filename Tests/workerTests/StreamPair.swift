import Glibc
import Shared
import Testing

/// What a test needs did not come about.
struct TestFailure: Error {}

/// Two connected stream sockets without a network: what is sent at one end is read at the other. Neither blocks.
struct StreamPair: ~Copyable {
    let near: Descriptor
    let far: Descriptor

    init() throws {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, type, 0, &ends) == 0)
        near = Descriptor(owning: ends[0])
        far = Descriptor(owning: ends[1])
    }

    /// Everything that has come to the far end so far.
    func receive() -> [UInt8] { Self.receive(from: far.number) }

    /// Everything that has come to a socket so far.
    static func receive(from socket: Int32) -> [UInt8] {
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(socket, &buffer, buffer.count)
            guard count > 0 else { return received }
            received += buffer[..<count]
        }
    }

    /// Whether the near end has been closed by everybody who had it.
    var isNearClosed: Bool {
        var byte: UInt8 = 0
        return read(far.number, &byte, 1) == 0
    }

    /// The near end to somebody else; the far end stays.
    consuming func split() -> (near: Int32, far: Int32) {
        (near.release(), far.release())
    }
}
