import Glibc
import Testing

@testable import supervisor

@Suite struct `What /proc tells of a process` {
    private func reading(statm: String?, stat: String?) -> ProcessReading {
        ProcessReading(statm: statm, stat: stat, pageBytes: 4096, ticksPerSecond: 100)
    }

    private let stat = "4711 (relay-worker/0) S 1 4711 4711 0 -1 4194560 512 0 0 0 1234 66 0 0 20 0 1 0 99 0 3 0\n"

    @Test func `is its resident memory and its CPU time`() {
        #expect(
            reading(statm: "5000 3958 2000 100 0 900 0\n", stat: stat)
                == ProcessReading(memoryBytes: 3958 * 4096, cpuSeconds: 13, state: "S"))
    }

    @Test func `is not led astray by a name`() {
        let odd = stat.replacing("relay-worker/0", with: "a) S 9 9 (b) c")
        #expect(reading(statm: nil, stat: odd) == ProcessReading(cpuSeconds: 13, state: "S"))
    }

    @Test(arguments: [
        nil, "", "x", "4711", "4711 (", "4711 (a)", "4711 (a) S 1 2 3", "4711 (a) S 1 1 1 1 1 1 1 1 1 1 x y",
    ])
    func `is nothing where it says nothing`(text: String?) {
        #expect(reading(statm: text.map { $0.isEmpty ? "" : "1 x" }, stat: text) == ProcessReading())
    }

    @Test func `is so for this process, and nothing for one that is not`() throws {
        let own = ProcessReading(pid: getpid())
        #expect(try #require(own.memoryBytes) > 1 << 20)
        #expect(try #require(own.cpuSeconds) >= 0)
        #expect(ProcessReading(pid: 0x7FFF_FFFF) == ProcessReading())
    }

    @Test func `tells what the kernel holds for TCP, if it says`() {
        let text = "sockets: used 290\nTCP: inuse 5 orphan 0 tw 0 alloc 8 mem 21\nUDP: inuse 0 mem 7\n"
        // Of one type on both sides: else Swift 6.3 compares two AnyHashables, and reads a byte too much.
        let bytes: UInt64? = 21 * 4096
        #expect(ProcessReading.kernelTCPBytes(sockstat: text, pageBytes: 4096) == bytes)
        let none: UInt64? = nil
        for text in [nil, "", "UDP: inuse 0 mem 7\n", "TCP: inuse 5\n", "TCP: mem\n", "TCP: mem x\n"] {
            #expect(ProcessReading.kernelTCPBytes(sockstat: text, pageBytes: 4096) == none)
        }
    }
}
