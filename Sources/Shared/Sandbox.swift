// What workers are kept from, beyond what their user may not do: who is to be caged how, and how far it came
// (Sources/CSandbox). A worker goes into its sandbox before it reads a client's first byte.

/// RELAY_SANDBOX.
package enum SandboxMode: String, CaseIterable, Sendable {
    /// As much as the kernel, and who started the relay, allow.
    case auto
    /// All of it, or no worker begins.
    case required
    /// For systems on which it gets in the way: a user of their own, no capabilities and no new ones are left of it.
    case off
}

/// How a worker is to be caged: travels with what it is to do.
package struct Sandbox: Equatable, Sendable {
    package var mode: SandboxMode
    /// Who it becomes, if it is root.
    package var user: UInt32
    package var group: UInt32

    package init(mode: SandboxMode = .auto, user: UInt32 = Limits.nobody, group: UInt32 = Limits.nobody) {
        self.mode = mode
        self.user = user
        self.group = group
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(UInt8(SandboxMode.allCases.firstIndex(of: mode) ?? 0))
        writer.write(user)
        writer.write(group)
    }

    init(from reader: inout ByteReader) throws(ByteCodingError) {
        let place = Int(try reader.read(UInt8.self))
        guard place < SandboxMode.allCases.count else { throw .invalid(field: "sandbox") }
        mode = SandboxMode.allCases[place]
        user = try reader.read()
        group = try reader.read()
        guard user != 0, group != 0 else { throw .invalid(field: "sandbox") }
    }
}

/// The parts of a sandbox that hold. The numbers are those of `csandbox_part`.
package struct SandboxParts: OptionSet, Hashable, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    package static let capabilities = SandboxParts(rawValue: 1)
    package static let noNewPrivileges = SandboxParts(rawValue: 2)
    package static let limits = SandboxParts(rawValue: 4)
    package static let landlock = SandboxParts(rawValue: 8)
    package static let seccomp = SandboxParts(rawValue: 16)
    package static let all: SandboxParts = [.capabilities, .noNewPrivileges, .limits, .landlock, .seccomp]

    /// Each part by its name, as `relay status`, /health and /metrics tell them.
    package static let named: [(part: SandboxParts, name: String)] = [
        (.capabilities, "capabilities"), (.noNewPrivileges, "no_new_privileges"), (.limits, "limits"),
        (.landlock, "landlock"), (.seccomp, "seccomp"),
    ]

    package var names: [String] { Self.named.filter { contains($0.part) }.map(\.name) }
}
