// What the machine gives this process: CPUs and descriptors. Only `current()` looks at the system.

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

    package init(cpusByAffinity: Int, cpuQuota: Double?, descriptorsMax: Int) {
        self.cpusByAffinity = cpusByAffinity
        self.cpuQuota = cpuQuota
        self.descriptorsMax = descriptorsMax
    }

    package static func current() -> Machine {
        Machine(
            cpusByAffinity: max(1, Int(clinux_cpu_count())),
            cpuQuota: ControlGroups.cpuQuota(membership: readFile("/proc/self/cgroup") ?? "", readFile: readFile),
            descriptorsMax: currentDescriptorsMax())
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

/// The CPU limits of control groups, version 1 and 2, as a pure function of the files that tell them.
enum ControlGroups {
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
