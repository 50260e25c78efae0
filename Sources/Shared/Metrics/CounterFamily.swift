// Families of counters: of things that differ in one word, the reason or the result. Each value of a family is one row:
// a case of its enumeration with its label, which is its one spelling in the log, in shared memory and on /metrics. A
// family has a block of its own in a worker's page (SharedMemory.swift), so a new value moves nothing.
//
// A new family is a case of `CounterFamily`, a case of `LabelledCounter` and a row in the supervisor's Metrics.swift.

/// A value of a family. Raw values are places in the family's block: from 0 on, without a gap.
package protocol CounterLabel: CaseIterable, RawRepresentable<UInt8>, CustomStringConvertible, Sendable {
    /// Lower case and underscores: a value of Prometheus's labels.
    var label: StaticString { get }
}

extension CounterLabel {
    package var description: String { "\(label)" }
}

package enum CounterFamily: Int, CaseIterable, Sendable {
    case closes
    case joins
    case connectionRefusals
    case tlsHandshakeFailures
    case tlsViolations
    case drops

    /// Words of a family's block: as many values as it can have.
    package static let labelsMax = 64

    /// In the order of the block.
    package var labels: [String] {
        switch self {
        case .closes: CloseReason.allCases.map(\.description)
        case .joins: JoinResult.allCases.map(\.description)
        case .connectionRefusals: ConnectionRefusal.allCases.map(\.description)
        case .tlsHandshakeFailures: TLSHandshakeFailureReason.allCases.map(\.description)
        case .tlsViolations: TLSViolation.allCases.map(\.description)
        case .drops: DropReason.allCases.map(\.description)
        }
    }
}

/// One counter of a family.
package enum LabelledCounter: Equatable, Sendable {
    case close(CloseReason)
    case join(JoinResult)
    case connectionRefusal(ConnectionRefusal)
    case tlsHandshakeFailure(TLSHandshakeFailureReason)
    case tlsViolation(TLSViolation)
    case drop(DropReason)

    package var family: CounterFamily {
        switch self {
        case .close: .closes
        case .join: .joins
        case .connectionRefusal: .connectionRefusals
        case .tlsHandshakeFailure: .tlsHandshakeFailures
        case .tlsViolation: .tlsViolations
        case .drop: .drops
        }
    }

    /// Its place in the family's block.
    package var index: Int {
        switch self {
        case .close(let reason): Int(reason.rawValue)
        case .join(let result): Int(result.rawValue)
        case .connectionRefusal(let refusal): Int(refusal.rawValue)
        case .tlsHandshakeFailure(let reason): Int(reason.rawValue)
        case .tlsViolation(let violation): Int(violation.rawValue)
        case .drop(let reason): Int(reason.rawValue)
        }
    }
}

/// Why a connection was refused before its first byte was read.
package enum ConnectionRefusal: UInt8, CounterLabel {
    /// The relay has RELAY_MAX_CONNECTIONS.
    case full
    /// The address has RELAY_MAX_CONNECTIONS_PER_IP.
    case addressFull
    /// It comes from no trusted proxy, and RELAY_CLIENT_ADDRESS=proxy-protocol lets nobody else connect.
    case noProxy

    package var label: StaticString {
        switch self {
        case .full: "full"
        case .noProxy: "no_proxy"
        case .addressFull: "address_full"
        }
    }
}

/// What was dropped and not sent.
package enum DropReason: UInt8, CounterLabel {
    /// Voice for a client that is slow, or that is being closed.
    case voice
    /// An answer to a ping while one waits.
    case pong
    /// A message to the supervisor, whose queue is full.
    case controlMessage

    package var label: StaticString {
        switch self {
        case .voice: "voice"
        case .pong: "pong"
        case .controlMessage: "control_message"
        }
    }
}
