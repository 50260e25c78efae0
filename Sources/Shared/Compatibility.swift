/// Whether two builds of the relay understand each other: a supervisor takes over the workers of another only if this number is the
/// same. It is raised with every change of a format between processes: control messages, shared memory, handoffs and moves,
/// ticket keys, and what a supervisor leaves to its successor.
package enum Compatibility {
    package static let format: UInt32 = 5
}
