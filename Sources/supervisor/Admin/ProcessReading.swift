// What /proc tells of a process. Workers let nobody look into them (PR_SET_DUMPABLE), but these two files are for everybody to
// read, unless /proc is mounted with hidepid.

import Glibc
import Shared

/// Memory and CPU time of a process; nil where /proc does not say.
struct ProcessReading: Equatable {
    /// Resident.
    var memoryBytes: UInt64?
    /// In user and system mode.
    var cpuSeconds: Double?
    /// "R" for one that runs or could, "S" for one that waits, and so on (proc(5)).
    var state: Character?

    init(memoryBytes: UInt64? = nil, cpuSeconds: Double? = nil, state: Character? = nil) {
        self.memoryBytes = memoryBytes
        self.cpuSeconds = cpuSeconds
        self.state = state
    }

    init(pid: pid_t) {
        self.init(
            statm: Self.read("/proc/\(pid)/statm"), stat: Self.read("/proc/\(pid)/stat"),
            pageBytes: UInt64(max(1, sysconf(Int32(_SC_PAGESIZE)))),
            ticksPerSecond: Double(max(1, sysconf(Int32(_SC_CLK_TCK)))))
    }

    /// By the texts of the two files (proc(5)).
    init(statm: String?, stat: String?, pageBytes: UInt64, ticksPerSecond: Double) {
        // size resident shared ..., in pages.
        let pages = statm?.split(separator: " ").dropFirst().first.flatMap { UInt64($0) }
        memoryBytes = pages.map { $0 &* pageBytes }
        // pid (comm) state ...: the name may hold blanks and parentheses. utime and stime are fields 14 and 15.
        guard let stat, let end = stat.lastIndex(of: ")") else { return }
        let fields = stat[stat.index(after: end)...].split { $0 == " " || $0 == "\n" }
        guard fields.count > 12, let user = UInt64(fields[11]), let system = UInt64(fields[12]) else { return }
        cpuSeconds = Double(user &+ system) / ticksPerSecond
        state = fields[0].first
    }

    /// What the kernel holds for TCP sockets, sent and not acknowledged or received and not read, over the whole
    /// network namespace.
    static func kernelTCPBytes() -> UInt64? {
        kernelTCPBytes(sockstat: read("/proc/net/sockstat"), pageBytes: UInt64(max(1, sysconf(Int32(_SC_PAGESIZE)))))
    }

    /// By the text of /proc/net/sockstat: "TCP: inuse 5 orphan 0 tw 0 alloc 8 mem 2", the last in pages.
    static func kernelTCPBytes(sockstat: String?, pageBytes: UInt64) -> UInt64? {
        for line in (sockstat ?? "").split(separator: "\n") where line.hasPrefix("TCP:") {
            let words = line.split(separator: " ")
            guard let place = words.firstIndex(of: "mem"), place + 1 < words.count else { return nil }
            return UInt64(words[place + 1]).map { $0 &* pageBytes }
        }
        return nil
    }

    /// One read(2): these files are shorter than a page.
    private static func read(_ path: String) -> String? {
        let number = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { return nil }
        let file = Descriptor(owning: number)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe Glibc.read(file.number, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
