// What the machine gives this process: CPUs, descriptors and memory. Only `current()` looks at the system.

import CLinux
import Glibc

/// What the machine gives this process.
package struct Machine: Sendable, Equatable {
    /// CPUs that the scheduler may put this process on.
    package var cpusByAffinity: Int
    /// CPUs' worth of time that the control groups grant, as in `docker run --cpus 1.5`; nil if unlimited.
    package var cpuQuota: Double?
    /// Descriptors that this process may have open (RLIMIT_NOFILE); workers inherit it.
    package var descriptorsMax: Int
    /// The smallest of the machine's memory and the control groups' limits.
    package var memoryBytes: Int

    package init(cpusByAffinity: Int, cpuQuota: Double?, descriptorsMax: Int, memoryBytes: Int = 1 << 30) {
        self.cpusByAffinity = cpusByAffinity
        self.cpuQuota = cpuQuota
        self.descriptorsMax = descriptorsMax
        self.memoryBytes = memoryBytes
    }

    package static func current() -> Machine {
        let membership = readFile("/proc/self/cgroup") ?? ""
        let memory = [
            physicalMemory(meminfo: readFile("/proc/meminfo") ?? ""),
            ControlGroups.memoryLimit(membership: membership, readFile: readFile),
        ].compactMap(\.self).min()
        return Machine(
            cpusByAffinity: max(1, Int(clinux_cpu_count())),
            cpuQuota: ControlGroups.cpuQuota(membership: membership, readFile: readFile),
            descriptorsMax: currentDescriptorsMax(),
            // Without /proc nothing is known: as much as a small machine has.
            memoryBytes: memory ?? 1 << 30)
    }

    /// MemTotal of /proc/meminfo, in bytes: "MemTotal:       16303428 kB".
    static func physicalMemory(meminfo: String) -> Int? {
        for line in meminfo.split(separator: "\n") where line.hasPrefix("MemTotal:") {
            let parts = line.split(separator: " ")
            guard parts.count == 3, parts[2] == "kB", let kibibytes = Int(parts[1]), kibibytes > 0 else { return nil }
            let (bytes, overflow) = kibibytes.multipliedReportingOverflow(by: 1024)
            return overflow ? nil : bytes
        }
        return nil
    }

    /// RELAY_MAX_MEMORY when nobody says how much: half. The other half is for the processes themselves, for what the
    /// kernel holds for sockets, and for what the allocator loses.
    package var memoryAuto: Int { memoryBytes / 2 }

    /// Workers when nobody says how many: no more than half of the relay's memory suffices for, for each has a floor.
    package func workersAuto(for configuration: Configuration) -> Int {
        max(1, min(workersAuto, configuration.memoryBytesMax / (2 * Limits.memoryFloorBytes(configuration))))
    }

    /// Workers when nobody says how many: one a CPU, where a part of a CPU counts as one, so that the quota can be
    /// used up.
    package var workersAuto: Int {
        var workers = min(cpusByAffinity, workersMax)
        // A quota far beyond Int's range is as good as none.
        if let cpuQuota, cpuQuota < Double(Limits.workersMax) { workers = min(workers, Int(cpuQuota.rounded(.up))) }
        return max(1, workers)
    }

    /// As many workers as the supervisor has descriptors for.
    package var workersMax: Int {
        max(1, min(Limits.workersMax, (descriptorsMax - Limits.descriptorsReserved) / Limits.descriptorsPerWorker))
    }

    /// Connections that a relay of so many workers can hold, 0 or less if it can't run at all.
    ///
    /// The kernel spreads connections, rooms gather them: in the worst case all of them end in one worker. That one
    /// holds a descriptor for each, one for the inbox of each other worker, and `Limits.descriptorsReserved`.
    package func connectionsMax(workers: Int) -> Int {
        min(Limits.connectionsRange.upperBound, descriptorsMax - workers - Limits.descriptorsReserved)
    }

    /// How an operator has it allow more workers and connections.
    var descriptorAdvice: String {
        "the limit of open files is \(descriptorsMax); "
            + "raise it with ulimit -n, LimitNOFILE= of systemd or --ulimit nofile= of Docker"
    }

    private static func currentDescriptorsMax() -> Int {
        var limit = rlimit()
        // 1024 is what Linux gives when nobody says otherwise.
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// A small file of the kernel's; nil if there is none. The corresponding C functions are open(2) and read(2).
    private static func readFile(_ path: String) -> String? {
        let number = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { return nil }
        let file = Descriptor(owning: number)
        // These files are made in one piece at the first read; more than this is none of those we look for.
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 16_384) { buffer, count in
            count = unsafe max(0, Glibc.read(file.number, buffer.baseAddress, buffer.count))
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// The limits of control groups, version 1 and 2, as pure functions of the files that tell them.
enum ControlGroups {
    /// The tightest limit on a process's memory, in bytes, over its group and all groups around it; nil if there is
    /// none.
    ///
    /// - Parameters: as of `cpuQuota`.
    static func memoryLimit(membership: String, readFile: (String) -> String?) -> Int? {
        var limits: [Int] = []
        for line in membership.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            if parts[0] == "0" && parts[1].isEmpty {
                for directory in directories("/sys/fs/cgroup", parts[2]) {
                    // Beyond memory.high processes are throttled, beyond memory.max killed.
                    limits += ["/memory.max", "/memory.high"].compactMap { memory(readFile(directory + $0)) }
                }
            } else if parts[1].split(separator: ",").contains("memory") {
                for mount in Set(["/sys/fs/cgroup/memory", "/sys/fs/cgroup/\(parts[1])"]) {
                    limits += directories(mount, parts[2]).compactMap {
                        memory(readFile($0 + "/memory.limit_in_bytes"))
                    }
                }
            }
        }
        return limits.min()
    }

    /// A number of bytes, or "max". Version 1 writes none as the largest number of whole pages.
    static func memory(_ text: String?) -> Int? {
        guard let bytes = (text?.split(separator: "\n").first).flatMap({ Int($0) }), bytes > 0 else { return nil }
        return bytes
    }

    /// The tightest limit on a process, in CPUs, over its group and all groups around it.
    ///
    /// - Parameters:
    ///   - membership: /proc/self/cgroup.
    ///   - readFile: what is in the file at a path, nil if there is none.
    static func cpuQuota(membership: String, readFile: (String) -> String?) -> Double? {
        var quotas: [Double] = []
        for line in membership.split(separator: "\n") {
            // hierarchy:controllers:path; the path may hold colons. Version 2 is hierarchy 0, without controllers.
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            if parts[0] == "0" && parts[1].isEmpty {
                quotas += directories("/sys/fs/cgroup", parts[2]).compactMap { version2(readFile($0 + "/cpu.max")) }
            } else if parts[1].split(separator: ",").contains("cpu") {
                for mount in Set(["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/\(parts[1])"]) {
                    quotas += directories(mount, parts[2]).compactMap { directory in
                        version1(
                            quota: readFile(directory + "/cpu.cfs_quota_us"),
                            period: readFile(directory + "/cpu.cfs_period_us"))
                    }
                }
            }
        }
        return quotas.min()
    }

    /// The directory of a group and of all around it, up to the mount itself.
    ///
    /// In a container the mount is often the group itself while the path is the host's: then only the mount exists.
    private static func directories(_ mount: String, _ path: Substring) -> [String] {
        var directories = [mount]
        // A group outside this namespace shows as "/..": its limits can't be seen from here.
        guard !path.split(separator: "/").contains("..") else { return directories }
        for part in path.split(separator: "/") {
            directories.append("\(directories[directories.count - 1])/\(part)")
        }
        return directories
    }

    /// cpu.max: "QUOTA PERIOD" in microseconds, or "max PERIOD".
    static func version2(_ text: String?) -> Double? {
        let parts = (text ?? "").split { $0 == " " || $0 == "\n" }
        guard parts.count == 2 else { return nil }
        return ratio(parts[0], parts[1])
    }

    /// cpu.cfs_quota_us and cpu.cfs_period_us; a quota of -1 is none.
    static func version1(quota: String?, period: String?) -> Double? {
        guard let quota = quota?.split(separator: "\n").first, let period = period?.split(separator: "\n").first else {
            return nil
        }
        return ratio(quota, period)
    }

    private static func ratio(_ quota: Substring, _ period: Substring) -> Double? {
        guard let quota = Int(quota), let period = Int(period), quota > 0, period > 0 else { return nil }
        return Double(quota) / Double(period)
    }
}
