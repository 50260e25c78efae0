// The name of a relay's Unix socket, and the relays that there are: by their names in /proc/net/unix, which shows those of this
// network namespace.

import Glibc
import Shared

enum AdminSocket {
    private static let prefix = "relay-admin-"

    /// In the abstract namespace (unix(7)).
    static func name(pid: pid_t) -> String { "\(prefix)\(pid)" }

    /// The process ids in the names of sockets that are listened at, in order.
    ///
    /// - Parameter table: /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path. Flag 0x10000 is a listener's.
    static func relays(table: String) -> [pid_t] {
        var pids: Set<pid_t> = []
        for line in table.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            guard fields.count == 8, let flags = UInt32(fields[3], radix: 16), flags & 0x10000 != 0,
                fields[7].hasPrefix("@\(prefix)"), let pid = pid_t(fields[7].dropFirst(prefix.count + 1)), pid > 0
            else { continue }
            pids.insert(pid)
        }
        return pids.sorted()
    }

    static func relays() -> [pid_t] {
        let number = unsafe open("/proc/net/unix", O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { return [] }
        let file = Descriptor(owning: number)
        var table: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = unsafe read(file.number, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { break }
            table += buffer[..<count]
        }
        return relays(table: String(decoding: table, as: UTF8.self))
    }
}
