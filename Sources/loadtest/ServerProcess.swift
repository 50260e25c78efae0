// What the server costs, as /proc tells it: CPU time and memory of processes and all their descendants.

import Glibc

struct ServerProcesses {
    /// As given by the user.
    let roots: [Int32]

    init(_ pids: [Int32]) throws(UsageError) {
        for pid in pids where File.read("/proc/\(pid)/stat") == nil {
            throw UsageError("--server-pid \(pid): no such process on this machine")
        }
        roots = pids
    }

    /// The roots and their descendants as they are now.
    func all() -> [Int32] {
        var children: [Int32: [Int32]] = [:]
        for pid in File.numbers(in: "/proc") {
            if let parent = Self.parent(of: pid) { children[parent, default: []].append(pid) }
        }
        var found: [Int32] = []
        var queue = roots
        while let pid = queue.popLast() {
            guard !found.contains(pid) else { continue }
            found.append(pid)
            queue += children[pid] ?? []
        }
        return found.sorted()
    }

    /// The fourth field of /proc/PID/stat. The second, the name, is in parentheses and may hold anything.
    private static func parent(of pid: Int32) -> Int32? {
        guard let stat = File.read("/proc/\(pid)/stat"), let end = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        return fields.count > 1 ? Int32(fields[1]) : nil
    }

    /// Nanoseconds of CPU time so far, by thread.
    func cpuTime() -> [Int32: UInt64] {
        var times: [Int32: UInt64] = [:]
        for pid in all() {
            for thread in File.numbers(in: "/proc/\(pid)/task") {
                guard let text = File.read("/proc/\(pid)/task/\(thread)/schedstat"),
                    let first = text.split(separator: " ").first, let time = UInt64(first)
                else { continue }
                times[thread] = time
            }
        }
        return times
    }

    /// Nanoseconds between two readings; a thread that was not there at the first began in between.
    static func difference(_ before: [Int32: UInt64], _ after: [Int32: UInt64]) -> UInt64 {
        after.reduce(0) { sum, entry in
            let start = before[entry.key] ?? 0
            return sum + (entry.value > start ? entry.value - start : 0)
        }
    }

    /// Resident bytes by process: VmRSS, which is readable for every process.
    func residentBytes() -> [(pid: Int32, bytes: UInt64)] {
        all().compactMap { pid in
            guard let status = File.read("/proc/\(pid)/status"),
                let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
                let number = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first,
                let kibibytes = UInt64(number)
            else { return nil }
            return (pid, kibibytes * 1024)
        }
    }
}

/// The machine's CPU time, for the share that a hypervisor took.
struct MachineTime {
    private var total: UInt64 = 0
    private var stolen: UInt64 = 0

    /// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    static func now() -> MachineTime {
        var time = MachineTime()
        guard let line = File.read("/proc/stat")?.split(separator: "\n").first else { return time }
        let fields = line.split(separator: " ").dropFirst().prefix(8).compactMap { UInt64($0) }
        time.total = fields.reduce(0, +)
        if fields.count == 8 { time.stolen = fields[7] }
        return time
    }

    func stealPercent(since before: MachineTime) -> Double {
        let elapsed = total - before.total
        return elapsed == 0 ? 0 : Double(stolen - before.stolen) * 100 / Double(elapsed)
    }
}

/// Reading of /proc.
private enum File {
    /// A whole small file, or nil when it can't be read.
    static func read(_ path: String) -> String? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            guard count >= 0 else { return nil }
            if count == 0 { return String(decoding: content, as: UTF8.self) }
            content += buffer[..<count]
        }
    }

    /// The entries of a directory that are numbers.
    static func numbers(in path: String) -> [Int32] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { _ = unsafe closedir(directory) }
        var numbers: [Int32] = []
        while let entry = unsafe readdir(directory) {
            // d_name is a C string within the entry, valid until the next readdir.
            let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { raw in
                unsafe String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let number = Int32(name) { numbers.append(number) }
        }
        return numbers
    }
}
