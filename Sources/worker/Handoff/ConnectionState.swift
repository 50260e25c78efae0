// A connection on its way to another worker: one SOCK_SEQPACKET message with the socket beside it (SCM_RIGHTS).
//
//     offset  bytes
//     0       4      magic "RLYC"
//     4       2      version of this format
//     6       1      phase: 0 request (the only one so far: its bytes hold the whole request head and what came behind it)
//     7       1      hops: how often the connection has been handed over
//     8       16     the socket's peer, network order
//     24      4      accepted: CLOCK_MONOTONIC seconds, the same clock in every process
//     28      4      count of input bytes
//     32      ...    input, as read and not yet taken
//
// Order of a handoff: the sender stops watching the socket (a descriptor that is open elsewhere keeps firing) -> writes the
// state -> sends. On success the descriptor is the receiver's and the sender drops its own; on failure nothing was
// queued and the sender goes on as the owner. There is no moment with two owners, and none without.

import CLinux
import Glibc
import Shared

/// Why a message is not a connection.
enum ConnectionStateError: Error, Equatable {
    case truncated
    case unknownFormat
    case version(UInt16)
    case phase(UInt8)
    case inputTooLong(Int)
    case trailing(Int)
}

enum ConnectionState {
    static let version: UInt16 = 1
    private static let magic: UInt32 = 0x4359_4C52  // "RLYC", little-endian
    static let headBytes = 32

    /// Writes a connection that is still a request down.
    static func encode(_ connection: borrowing Connection, into message: inout ByteQueue) {
        append(magic, to: &message)
        append(version, to: &message)
        message.append(0)
        message.append(connection.hops + 1)
        append(connection.peer.high.byteSwapped, to: &message)
        append(connection.peer.low.byteSwapped, to: &message)
        append(connection.acceptedAt, to: &message)
        append(UInt32(connection.input.count), to: &message)
        unsafe message.append(unsafe connection.input.unsafeBytes)
    }

    private static func append(_ value: some FixedWidthInteger, to message: inout ByteQueue) {
        for index in 0..<(value.bitWidth / 8) { message.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    /// Makes a connection of a message and the socket that came with it.
    static func decode(
        _ bytes: RawSpan, socket: consuming Descriptor, now: UInt32
    ) throws(ConnectionStateError) -> Connection {
        guard bytes.byteCount >= headBytes else { throw .truncated }
        guard load(bytes, 0, as: UInt32.self) == magic else { throw .unknownFormat }
        let version = load(bytes, 4, as: UInt16.self)
        guard version == Self.version else { throw .version(version) }
        guard bytes.byte(6) == 0 else { throw .phase(bytes.byte(6)) }
        let count = Int(load(bytes, 28, as: UInt32.self))
        guard count <= Limits.handoffInputBytesMax else { throw .inputTooLong(count) }
        guard bytes.byteCount - headBytes >= count else { throw .truncated }
        guard bytes.byteCount - headBytes == count else { throw .trailing(bytes.byteCount - headBytes - count) }
        let peer = Address(
            high: load(bytes, 8, as: UInt64.self).byteSwapped, low: load(bytes, 16, as: UInt64.self).byteSwapped)
        var connection = Connection(socket: socket, peer: peer, now: min(now, load(bytes, 24, as: UInt32.self)))
        connection.hops = bytes.byte(7)
        connection.input.append(bytes.extracting(headBytes..<bytes.byteCount))
        return connection
    }

    private static func load<Value: FixedWidthInteger>(_ bytes: RawSpan, _ offset: Int, as: Value.Type) -> Value {
        var value: Value = 0
        for index in 0..<(Value.bitWidth / 8) {
            value |= Value(truncatingIfNeeded: bytes.byte(offset + index)) << (8 * index)
        }
        return value
    }
}
