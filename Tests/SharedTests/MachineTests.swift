import Testing

@testable import Shared

@Suite struct `Machines` {
    @Test(
        arguments: [
            (1, nil, 1), (8, nil, 8), (8, 1.5, 2), (8, 0.01, 1), (2, 8, 2), (8, 8, 8), (8, 7.01, 8), (300, nil, 256),
            (300, 1e300, 256), (0, nil, 1), (400, 255.5, 256),
        ] as [(Int, Double?, Int)])
    func `get a worker for each CPU that affinity and quota grant`(cpus: Int, quota: Double?, workers: Int) {
        #expect(Machine(cpusByAffinity: cpus, cpuQuota: quota, descriptorsMax: 1 << 20).workersAuto == workers)
    }

    @Test(arguments: [(0, 1), (64, 1), (72, 1), (79, 1), (80, 2), (1024, 120), (2112, 256), (1 << 30, 256)])
    func `get no more workers than descriptors suffice for`(descriptors: Int, workers: Int) {
        let machine = Machine(cpusByAffinity: 256, cpuQuota: nil, descriptorsMax: descriptors)
        #expect(machine.workersMax == workers)
        #expect(machine.workersAuto == workers)
    }

    @Test func `hold the connections that one worker's descriptors suffice for`() {
        let machine = Machine(cpusByAffinity: 2, cpuQuota: nil, descriptorsMax: 1024)
        #expect(machine.connectionsMax(workers: 2) == 1024 - 2 - 64)
        let unlimited = Machine(cpusByAffinity: 2, cpuQuota: nil, descriptorsMax: .max)
        #expect(unlimited.connectionsMax(workers: 2) == 1_000_000)
        #expect(Machine(cpusByAffinity: 2, cpuQuota: nil, descriptorsMax: 66).connectionsMax(workers: 2) == 0)
    }

    @Test func `describe this one`() {
        let machine = Machine.current()
        #expect(machine.cpusByAffinity >= 1)
        #expect(machine.descriptorsMax >= 64)
        #expect((machine.cpuQuota ?? 1) > 0)
        #expect(machine.memoryBytes > 1 << 20 && machine.memoryBytes < 1 << 50)
    }
}

@Suite struct `The machine's memory` {
    private func limit(_ membership: String, _ files: [String: String]) -> Int? {
        ControlGroups.memoryLimit(membership: membership, readFile: { files[$0] })
    }

    @Test func `is what /proc/meminfo says`() {
        #expect(Machine.physicalMemory(meminfo: "MemTotal:       16303428 kB\nMemFree: 5 kB\n") == 16_303_428 * 1024)
        for text in [
            "", "MemFree: 5 kB", "MemTotal: 5", "MemTotal: x kB", "MemTotal: 5 MB", "MemTotal: 0 kB", "MemTotal: -1 kB",
            "MemTotal: 9223372036854775807 kB",
        ] {
            #expect(Machine.physicalMemory(meminfo: text) == nil)
        }
    }

    @Test func `is limited by the groups around, in version 2 by memory.high as well`() {
        let files = [
            "/sys/fs/cgroup/memory.max": "900000000\n", "/sys/fs/cgroup/a/memory.max": "max\n",
            "/sys/fs/cgroup/a/memory.high": "500000000\n", "/sys/fs/cgroup/a/b/memory.max": "600000000\n",
            "/sys/fs/cgroup/other/memory.max": "1\n",
        ]
        #expect(limit("0::/a/b\n", files) == 500_000_000)
        #expect(limit("0::/a/b\n", [:]) == nil)
        #expect(limit("0::/\n", files) == 900_000_000)
        #expect(limit("0::/../other\n", files) == 900_000_000)
        #expect(limit("0::/a\n", ["/sys/fs/cgroup/a/memory.max": "max\n"]) == nil)
    }

    @Test func `is limited by version 1, whose none is a number beyond every machine`() {
        let unlimited = "9223372036854771712\n"
        let files = [
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": unlimited,
            "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "268435456\n",
            "/sys/fs/cgroup/memory,hugetlb/docker/x/memory.limit_in_bytes": "300000000\n",
        ]
        #expect(limit("4:memory:/docker/x\n3:cpu:/\n", files) == 268_435_456)
        #expect(limit("4:memory,hugetlb:/docker/x\n", files) == 268_435_456)
        #expect(limit("4:memory:/\n", files) == 9_223_372_036_854_771_712)
        #expect(limit("4:cpu:/docker/x\n", files) == nil)
        #expect(limit("nonsense\n:\n", files) == nil)
    }

    @Test(arguments: ["", "max\n", "-1\n", "0\n", "x\n", "12 34\n", "99999999999999999999\n"])
    func `is not limited by what is no number`(text: String) {
        #expect(ControlGroups.memory(text) == nil)
    }
}

@Suite struct `Control groups` {
    /// The quota with these files and no others.
    private func quota(_ membership: String, _ files: [String: String]) -> Double? {
        ControlGroups.cpuQuota(membership: membership, readFile: { files[$0] })
    }

    @Test func `of version 2 in a container of its own name space`() {
        #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "150000 100000\n"]) == 1.5)
        #expect(quota("0::/\n", ["/sys/fs/cgroup/cpu.max": "max 100000\n"]) == nil)
        #expect(quota("0::/\n", [:]) == nil)
    }

    @Test func `count with all groups around them`() {
        let files = [
            "/sys/fs/cgroup/relay.slice/cpu.max": "200000 100000\n",
            "/sys/fs/cgroup/relay.slice/a.service/cpu.max": "max 100000\n",
            "/sys/fs/cgroup/cpu.max": "900000 100000\n",
            "/sys/fs/cgroup/other/cpu.max": "1000 100000\n",
        ]
        #expect(quota("0::/relay.slice/a.service\n", files) == 2)
    }

    @Test func `whose path is the host's are looked for at the mount`() {
        let files = ["/sys/fs/cgroup/cpu.max": "50000 100000\n"]
        #expect(quota("0::/docker/0123abcd\n", files) == 0.5)
        #expect(quota("0::/../../elsewhere\n", files) == 0.5)
    }

    @Test(arguments: ["cpu,cpuacct", "cpuacct,cpu", "cpu"])
    func `of version 1 are found among the controllers`(controllers: String) {
        let membership = "12:memory:/a\n4:\(controllers):/docker/x:y\n1:name=systemd:/a\n0::/\n"
        let directory = "/sys/fs/cgroup/\(controllers)/docker/x:y"
        #expect(
            quota(
                membership, ["\(directory)/cpu.cfs_quota_us": "250000\n", "\(directory)/cpu.cfs_period_us": "100000\n"])
                == 2.5)
        #expect(
            quota(membership, ["\(directory)/cpu.cfs_quota_us": "-1\n", "\(directory)/cpu.cfs_period_us": "100000\n"])
                == nil)
        #expect(quota(membership, ["\(directory)/cpu.cfs_quota_us": "250000\n"]) == nil)
        let mount = "/sys/fs/cgroup/cpu"
        #expect(
            quota(membership, ["\(mount)/cpu.cfs_quota_us": "50000\n", "\(mount)/cpu.cfs_period_us": "50000\n"]) == 1)
    }

    @Test(arguments: ["", "\n", "0:", "0::", "::", "x", "0::/\n0::/\n", "3:cpuset:/", "1:cpu"])
    func `told in any other way grant everything`(membership: String) {
        #expect(quota(membership, [:]) == nil)
    }

    @Test(arguments: [
        "", "\n", "max", "max max", "100000", "0 100000", "-1 100000", "100000 0", "1 2 3", "a b", "1.5 1",
        "99999999999999999999 1",
    ])
    func `of version 2 in another form grant everything`(text: String) {
        #expect(ControlGroups.version2(text) == nil)
    }
}
