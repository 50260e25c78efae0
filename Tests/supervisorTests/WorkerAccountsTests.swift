import Shared
import Testing

@testable import supervisor

@Suite struct `Who workers run as` {
    private func lookUp(_ name: String) -> (user: UInt32, group: UInt32)? {
        ["relay-worker": (101, 102), "voice": (7, 8), "root": (0, 0), "rooted": (9, 0)][name]
    }

    private func resolved(
        _ name: String?, isRoot: Bool = true, lookUp: (String) -> (user: UInt32, group: UInt32)?
    ) throws -> Sandbox {
        var configuration = Configuration()
        configuration.workerUser = name
        var accounts = WorkerAccounts(isRoot: isRoot)
        try accounts.resolve(configuration, lookUp: lookUp)
        return accounts.sandbox(configuration)
    }

    @Test func `is the user that is named, else the relay's own, else nobody`() throws {
        #expect(try resolved("voice", lookUp: lookUp) == Sandbox(user: 7, group: 8))
        #expect(try resolved(nil, lookUp: lookUp) == Sandbox(user: 101, group: 102))
        #expect(try resolved(nil, lookUp: { _ in nil }) == Sandbox(user: 65_534, group: 65_534))
    }

    @Test(arguments: ["nobody-knows", "root", "rooted"])
    func `is neither root nor somebody that there is not`(name: String) throws {
        let error = #expect(throws: StartError.self) { _ = try resolved(name, lookUp: lookUp) }
        #expect(error?.exitStatus == ExitStatus.configuration)
        #expect(error?.description.hasPrefix("RELAY_WORKER_USER=\(name): ") == true)
    }

    @Test func `is remarked where it is nobody, or has no effect`() throws {
        var configuration = Configuration()
        var accounts = WorkerAccounts(isRoot: true)
        try accounts.resolve(configuration, lookUp: lookUp)
        #expect(accounts.remark(configuration) == nil)
        try accounts.resolve(configuration, lookUp: { _ in nil })
        #expect(accounts.remark(configuration)?.hasPrefix("workers run as nobody") == true)
        #expect(WorkerAccounts(isRoot: false).remark(configuration) == nil)
        configuration.workerUser = "voice"
        #expect(WorkerAccounts(isRoot: false).remark(configuration)?.contains("has no effect") == true)
    }

    @Test func `is not looked up where the relay is not root`() throws {
        #expect(try resolved("nobody-knows", isRoot: false, lookUp: lookUp) == Sandbox())
    }

    @Test func `have of the environment what the loader, the allocator and libcrypto go by, and no more`() {
        for name in ["LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "OPENSSL_CONF", "ASAN_OPTIONS"] {
            #expect(WorkerProgram.isInherited(name))
        }
        for name in ["PATH", "HOME", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "RELAY_TLS_KEY", "LANG", "TZ", "MALLOC"] {
            #expect(!WorkerProgram.isInherited(name))
        }
    }
}
