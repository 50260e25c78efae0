// A folder with a `relay` of its own, in which `relay-worker` is what a test wants it to be.

import Foundation
import Glibc

struct Programs {
    let folder: String

    var relay: String { "\(folder)/relay" }

    /// Runs `body` with such a folder.
    static func run<Value>(_ body: (Programs) async throws -> Value) async throws -> Value {
        try await withTemporaryFolder { folder in
            let relay = try program("relay")
            let copy = "\(folder)/relay"
            // A name of its own is enough, where it lies on the same file system: the relay looks beside what it runs as.
            if link(relay, copy) != 0 { try FileManager.default.copyItem(atPath: relay, toPath: copy) }
            // Workers of a relay that root starts are nobody.
            guard chmod(folder, 0o755) == 0 else { throw SpawnError(description: "chmod: errno \(errno)") }
            return try await body(Programs(folder: folder))
        }
    }

    /// Makes `relay-worker` a file with this in it, in one step.
    func setWorker(_ text: String) throws {
        let new = "\(folder)/new"
        try write(text, to: new)
        guard chmod(new, 0o755) == 0, rename(new, "\(folder)/relay-worker") == 0 else {
            throw SpawnError(description: "relay-worker: errno \(errno)")
        }
    }

    /// Makes it the real one, started behind some commands of a shell.
    func setWorker(behind commands: String) throws {
        try setWorker("#!/bin/sh\n\(commands)\nexec '\(try program("relay-worker"))' \"$@\"\n")
    }
}
