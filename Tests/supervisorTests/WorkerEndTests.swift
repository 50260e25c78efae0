import Glibc
import Shared
import Testing

@testable import supervisor

@Suite struct `A worker's end` {
    /// wait(2): the low seven bits are the signal, the next byte the status.
    private func end(status: Int32, reason: String? = nil) -> WorkerEnd {
        WorkerEnd(waitStatus: status << 8, reason: reason)
    }

    @Test func `is told by its signal, and a trap as one`() {
        #expect("\(WorkerEnd(waitStatus: SIGKILL, reason: nil))" == "signal 9 (Killed)")
        #expect("\(WorkerEnd(waitStatus: SIGSEGV | 0x80, reason: nil))" == "signal 11 (Segmentation fault)")
        #expect("\(WorkerEnd(waitStatus: SIGKILL, reason: "hung"))" == "signal 9 (Killed): hung")
        #expect("\(WorkerEnd(waitStatus: SIGILL, reason: nil))" == "trap, signal 4 (Illegal instruction)")
        #expect("\(WorkerEnd(waitStatus: SIGTRAP, reason: nil))" == "trap, signal 5 (Trace/breakpoint trap)")
    }

    @Test(
        arguments: [
            (0, nil, "exit 0"), (3, nil, "exit 3"), (64, nil, "exit 64 (not started by relay)"),
            (69, "x", "exit 69 (of another version than relay): x"), (70, nil, "exit 70 (internal error)"),
            (71, "no memory", "exit 71 (could not begin): no memory"), (78, nil, "exit 78 (wrong configuration)"),
            (127, nil, "exit 127 (could not be executed)"),
        ] as [(Int32, String?, String)])
    func `is told by its status and its last words`(status: Int32, reason: String?, text: String) {
        #expect("\(end(status: status, reason: reason))" == text)
    }

    @Test func `is hopeless where the next worker could do no better`() {
        for (status, hopeless) in [(64, 64), (69, 69), (78, 78), (127, 69)] as [(Int32, Int32)] {
            #expect(end(status: status).hopeless == hopeless)
        }
        for status in [0, 1, 70, 71] as [Int32] { #expect(end(status: status).hopeless == nil) }
        #expect(WorkerEnd(waitStatus: SIGKILL, reason: nil).hopeless == nil)
    }
}
