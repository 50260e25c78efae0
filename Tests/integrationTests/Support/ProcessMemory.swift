// What lies in other processes' memory. The corresponding files are /proc/PID/maps and mem.

import Foundation
import Glibc

enum ProcessMemory {
    /// Whether this process may look: workers are not dumpable, so that even root needs CAP_SYS_PTRACE for it.
    static let isReadable: Bool = {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("CapEff:") }
        let mask = line.flatMap { UInt64($0.split(separator: "\t").last ?? "", radix: 16) } ?? 0
        // CAP_SYS_PTRACE (capabilities(7)).
        return mask >> 19 & 1 == 1
    }()

    /// The whole of a file of /proc: Foundation takes it to end where one read(2) does, which is after a page.
    private static func text(_ path: String) throws -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw SpawnError(description: "\(path): errno \(errno)") }
        defer { close(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(file, &buffer, buffer.count)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Which of these byte strings lie in a process's writable memory.
    static func found(_ needles: [String: [UInt8]], in pid: pid_t) throws -> Set<String> {
        let maps = try text("/proc/\(pid)/maps")
        let memory = open("/proc/\(pid)/mem", O_RDONLY | O_CLOEXEC)
        guard memory >= 0 else { throw SpawnError(description: "/proc/\(pid)/mem: errno \(errno)") }
        defer { close(memory) }
        let overlap = (needles.values.map(\.count).max() ?? 1) - 1
        var found: Set<String> = []
        var buffer = [UInt8](repeating: 0, count: (1 << 20) + overlap)
        for line in maps.split(separator: "\n") {
            let fields = line.split(separator: " ")
            let range = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            guard range.count == 2, fields[1].hasPrefix("rw") else { continue }
            var address = range[0]
            while address < range[1] {
                let count = pread(memory, &buffer, min(buffer.count, Int(range[1] - address)), off_t(address))
                // Pages that can't be read, of a device for example, hold no secrets.
                guard count > 0 else { break }
                for (name, needle) in needles where !found.contains(name) && contains(buffer, count, needle) {
                    found.insert(name)
                }
                guard count > overlap, address + UInt64(count) < range[1] else { break }
                address += UInt64(count - overlap)
            }
        }
        return found
    }

    /// Whether `needle` is within the first `count` bytes: memmem(3), which Glibc's module does not have.
    private static func contains(_ buffer: [UInt8], _ count: Int, _ needle: [UInt8]) -> Bool {
        // Looked for by a byte that is not found everywhere, as 0 is.
        guard let anchor = needle.firstIndex(where: { $0 != 0 && $0 != 0xFF }), count >= needle.count else {
            return false
        }
        return buffer.withUnsafeBytes { buffer in
            var place = anchor
            let end = count - (needle.count - anchor) + 1
            while place < end, let base = buffer.baseAddress,
                let found = memchr(base + place, Int32(needle[anchor]), end - place)
            {
                place = found - UnsafeMutableRawPointer(mutating: base)
                if memcmp(base + place - anchor, needle, needle.count) == 0 { return true }
                place += 1
            }
            return false
        }
    }
}
