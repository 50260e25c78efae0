// A connection on its way to another worker: one SOCK_SEQPACKET message with the socket beside it (SCM_RIGHTS).
//
//     offset  bytes
//     0       4      magic "RLYC"
//     4       2      version of this format
//     6       1      phase: 0 request: its bytes hold the whole request head and what came behind it, or, when the sender leaves
//                    (Moving.swift), what has come of it; 1 proxyHeader: its bytes hold what has come of the PROXY header;
//                    2 handshake: TLS, with what has come of its ClientHello
//     7       1      hops: how often the connection has been handed over to its room's owner, at most
//                    Limits.handoffHopsMax
//     8       16     where its address is counted (AddressCharge); 0: nowhere
//     24      16     the socket's peer, network order
//     40      4      accepted: CLOCK_MONOTONIC seconds, the same clock in every process
//     44      4      i: count of input bytes
//     48      4      o: count of output bytes
//     52      4      s: count of session bytes; 0 for a connection without TLS
//     56      8      when the handoff was wished for: CLOCK_MONOTONIC nanoseconds
//     64      16     the client's address that limits and logs go by, network order
//     80      1      flags: 1 the address comes of a PROXY header, 2 speaks TLS, or will
//     81      i      input, decrypted and not yet taken
//     81+i    o      output, TLS records that the socket has not taken
//     81+i+o  s      the TLS session (TLS/TLSSessionState.swift): keys, sequence numbers, records not yet decrypted
//
// Order of a handoff: the state is taken -> sent -> the sender stops watching the socket (a descriptor that is open elsewhere keeps
// firing) and forgets the connection. Nothing is read or sealed in between, because the loop does not turn. On failure nothing was
// queued, and the sender makes its session again of the same bytes: there is no moment with two owners of a write sequence, and
// none without. A message with a session is secret: both sides wipe it.

import CLinux
import Glibc
import Shared

/// Why a message is not a connection.
enum ConnectionStateError: Error, Equatable {
    case truncated
    case unknownFormat
    case version(UInt16)
    case phase(UInt8)
    case flags(UInt8)
    /// It needs a handshake, and this worker has no certificate.
    case withoutTLS
    case hops(UInt8)
    case inputTooLong(Int)
    case outputTooLong(Int)
    /// Output without a session: only TLS leaves any.
    case outputWithoutSession
    case session(TLSStateError)
    case trailing(Int)
}

enum ConnectionState {
    static let version: UInt16 = 6
    static let magic: UInt32 = 0x4359_4C52  // "RLYC", little-endian
    static let headBytes = 81

    /// Writes a connection that is still a request down, but for its session, which its caller appends: `sessionBytes` of it.
    /// Room is made for all of it first, so that growing leaves no copy of a secret.
    ///
    /// - Parameter counts: whether this is a hop, to its room's owner.
    static func encode(
        _ connection: borrowing Connection, sessionBytes: Int, counts: Bool = true, into message: inout ByteQueue
    ) {
        message.reserve(headBytes + connection.input.count + connection.sealed.count + sessionBytes)
        append(magic, to: &message)
        append(version, to: &message)
        message.append(phase(connection))
        message.append(connection.hops + (counts ? 1 : 0))
        append(connection.addressCharge.narrow.bits, to: &message)
        append(connection.addressCharge.wide.bits, to: &message)
        append(connection.peer, to: &message)
        append(connection.acceptedAt, to: &message)
        append(UInt32(connection.input.count), to: &message)
        append(UInt32(connection.sealed.count), to: &message)
        append(UInt32(sessionBytes), to: &message)
        append(connection.handoffAt, to: &message)
        append(connection.client, to: &message)
        message.append((connection.isAnnounced ? 1 : 0) | (connection.isSecure ? 2 : 0))
        unsafe message.append(connection.input.unsafeBytes)
        unsafe message.append(connection.sealed.unsafeBytes)
    }

    private static func phase(_ connection: borrowing Connection) -> UInt8 {
        switch connection.phase {
        case .proxyHeader: 1
        case .handshake: 2
        default: 0
        }
    }

    private static func append(_ address: Address, to message: inout ByteQueue) {
        append(address.high.byteSwapped, to: &message)
        append(address.low.byteSwapped, to: &message)
    }

    private static func append(_ value: some FixedWidthInteger, to message: inout ByteQueue) {
        for index in 0..<(value.bitWidth / 8) { message.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    /// A connection, and where in the message its session lies: empty for one without TLS.
    struct Decoded: ~Copyable {
        var connection: Connection
        var session: Range<Int>
    }

    /// Makes a connection of a message and the socket that came with it. Its session is made by the caller.
    static func decode(
        _ bytes: RawSpan, socket: consuming Descriptor, now: UInt32
    ) throws(ConnectionStateError) -> Decoded {
        guard bytes.byteCount >= headBytes else { throw .truncated }
        guard load(bytes, 0, as: UInt32.self) == magic else { throw .unknownFormat }
        let version = load(bytes, 4, as: UInt16.self)
        guard version == Self.version else { throw .version(version) }
        let phase = bytes.byte(6)
        guard phase <= 2 else { throw .phase(phase) }
        guard bytes.byte(7) <= Limits.handoffHopsMax else { throw .hops(bytes.byte(7)) }
        let input = Int(load(bytes, 44, as: UInt32.self))
        guard input <= Limits.handoffInputBytesMax else { throw .inputTooLong(input) }
        let output = Int(load(bytes, 48, as: UInt32.self))
        guard output <= Limits.handoffOutputBytesMax else { throw .outputTooLong(output) }
        let session = Int(load(bytes, 52, as: UInt32.self))
        guard output == 0 || session > 0 else { throw .outputWithoutSession }
        let flags = bytes.byte(80)
        guard flags < 4 else { throw .flags(flags) }
        let isSecure = flags & 2 != 0
        switch phase {
        // Over TLS a request needs its session, and nothing else has one.
        case 0: guard isSecure == (session > 0) else { throw .flags(flags) }
        case 1: guard session == 0, input < Limits.proxyHeaderBytesMax else { throw .phase(phase) }
        default: guard session == 0, input <= Limits.tlsHelloBytesMax, isSecure else { throw .phase(phase) }
        }
        // Three 32-bit counts: no sum of them overflows.
        let total = headBytes + input + output + session
        guard bytes.byteCount >= total else { throw .truncated }
        guard bytes.byteCount == total else { throw .trailing(bytes.byteCount - total) }
        var connection = Connection(
            socket: socket, peer: address(bytes, 24), isSecure: isSecure,
            now: min(now, load(bytes, 40, as: UInt32.self)))
        connection.phase = [.request, .proxyHeader, .handshake][Int(phase)]
        connection.client = address(bytes, 64)
        connection.isAnnounced = flags & 1 != 0
        connection.hops = bytes.byte(7)
        connection.addressCharge = AddressCharge(inMessage: bytes)
        connection.handoffAt = load(bytes, 56, as: UInt64.self)
        connection.input.append(bytes.extracting(headBytes..<(headBytes + input)))
        connection.sealed.append(bytes.extracting((headBytes + input)..<(headBytes + input + output)))
        return Decoded(connection: connection, session: (total - session)..<total)
    }

    private static func address(_ bytes: RawSpan, _ offset: Int) -> Address {
        Address(
            high: load(bytes, offset, as: UInt64.self).byteSwapped,
            low: load(bytes, offset + 8, as: UInt64.self).byteSwapped)
    }

    private static func load<Value: FixedWidthInteger>(_ bytes: RawSpan, _ offset: Int, as: Value.Type) -> Value {
        var value: Value = 0
        for index in 0..<(Value.bitWidth / 8) {
            value |= Value(truncatingIfNeeded: bytes.byte(offset + index)) << (8 * index)
        }
        return value
    }
}
