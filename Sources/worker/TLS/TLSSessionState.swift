// A session as bytes, to go on with in another process.
//
//     offset  bytes
//     0       2      version of this format
//     2       2      suite (RFC 8446, B.4)
//     4       1      flags: 1 read closed, 2 read dead, 4 write closed, 8 owes KeyUpdate, 16 owes close_notify,
//                    32 awaits KeyUpdate
//     5       1      alert owed; 0 none
//     6       1      records without data in a row
//     7       1      bytes of a KeyUpdate message that have come, 0 to 4
//     8       8      read sequence
//     16      8      write sequence
//     24      h      the client's traffic secret; h is 32, or 48 with SHA-384
//     24+h    h      ours
//     24+2h   4      count of record bytes not yet decrypted
//     28+2h   ...    those bytes
//
// Integers are little-endian. With nothing kept: 92 or 124 bytes. The bytes are secret: whoever has them can read and write
// the connection. They go through an inherited socket, once, and are wiped; sent twice, two processes would seal with the same
// nonces. If they could not be sent, the sender makes its session of the same bytes again.

import COpenSSL
import Shared

/// Why bytes are not a session.
enum TLSStateError: Error, Equatable {
    case truncated
    case version(UInt16)
    case suite(UInt16)
    case flags(UInt8)
    case alert(UInt8)
    case idleRecords(UInt8)
    case fragment(UInt8)
    case sequence(UInt64)
    case inputTooLong(Int)
    case trailing(Int)
}

extension TLSSession {
    static let stateVersion: UInt16 = 1
    private static let headBytes = 24

    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let readClosed = Flags(rawValue: 1)
        static let readDead = Flags(rawValue: 2)
        static let writeClosed = Flags(rawValue: 4)
        static let owesUpdate = Flags(rawValue: 8)
        static let owesClose = Flags(rawValue: 16)
        static let awaitsUpdate = Flags(rawValue: 32)
        static let all = Flags(rawValue: 63)
    }

    /// Bytes that `encode` appends.
    var encodedBytes: Int { Self.headBytes + 2 * suite.hashBytes + 4 + partial.count }

    /// Writes the session down. It is gone afterwards: its keys are wiped, and only the bytes can go on with the connection.
    ///
    /// The queue makes room for all of it before the first byte, so that growing leaves no copy of a secret; whoever appends
    /// more must have reserved that before, and `wipe` the queue in the end.
    consuming func encode(into message: inout ByteQueue) {
        message.reserve(encodedBytes)
        var flags = Flags()
        if readState == .closed { flags.insert(.readClosed) }
        if readState == .dead { flags.insert(.readDead) }
        if !isWriteOpen { flags.insert(.writeClosed) }
        if owesUpdate { flags.insert(.owesUpdate) }
        if owesClose { flags.insert(.owesClose) }
        if awaitsUpdate { flags.insert(.awaitsUpdate) }
        Self.append(Self.stateVersion, to: &message)
        Self.append(suite.rawValue, to: &message)
        message.append(flags.rawValue)
        message.append(owedAlert?.rawValue ?? 0)
        message.append(idleRecords)
        message.append(fragmentBytes)
        Self.append(reading.sequence, to: &message)
        Self.append(writing.sequence, to: &message)
        unsafe message.append(reading.secret)
        unsafe message.append(writing.secret)
        Self.append(UInt32(partial.count), to: &message)
        unsafe message.append(partial.unsafeBytes)
    }

    /// Makes a session of exactly these bytes.
    init(decoding bytes: UnsafeRawBufferPointer) throws(TLSStateError) {
        guard bytes.count >= Self.headBytes else { throw .truncated }
        // Every load below lies in bytes that a guard has found to be there.
        let version = unsafe Self.load(bytes, 0, as: UInt16.self)
        guard version == Self.stateVersion else { throw .version(version) }
        let number = unsafe Self.load(bytes, 2, as: UInt16.self)
        guard let suite = Suite(rawValue: number) else { throw .suite(number) }
        let flags = unsafe Flags(rawValue: bytes[4])
        guard flags.isSubset(of: .all), !flags.isSuperset(of: [.readClosed, .readDead]) else {
            throw .flags(flags.rawValue)
        }
        // Once writing is closed nothing is owed.
        guard !flags.contains(.writeClosed) || flags.isDisjoint(with: [.owesUpdate, .owesClose]) else {
            throw .flags(flags.rawValue)
        }
        let alert = unsafe bytes[5]
        guard
            alert == 0 || (Alert(rawValue: alert) != nil && flags.contains(.readDead) && !flags.contains(.writeClosed))
        else {
            throw .alert(alert)
        }
        let idle = unsafe bytes[6]
        guard idle <= Limits.tlsIdleRecordsMax else { throw .idleRecords(idle) }
        let fragment = unsafe bytes[7]
        guard fragment <= 4 else { throw .fragment(fragment) }
        let sequences = unsafe (Self.load(bytes, 8, as: UInt64.self), Self.load(bytes, 16, as: UInt64.self))
        // The write sequence may stand a few control records above.
        for sequence in [sequences.0, sequences.1] where sequence > Limits.tlsRecordsPerKeyMax + 4 {
            throw .sequence(sequence)
        }
        let secrets = Self.headBytes + 2 * suite.hashBytes
        guard bytes.count >= secrets + 4 else { throw .truncated }
        let count = Int(unsafe Self.load(bytes, secrets, as: UInt32.self))
        guard count <= Limits.tlsInputBytesMax else { throw .inputTooLong(count) }
        let rest = bytes.count - secrets - 4
        guard rest >= count else { throw .truncated }
        guard rest == count else { throw .trailing(rest - count) }

        let middle = Self.headBytes + suite.hashBytes
        unsafe self.init(
            suite, clientSecret: UnsafeRawBufferPointer(rebasing: bytes[Self.headBytes..<middle]),
            serverSecret: UnsafeRawBufferPointer(rebasing: bytes[middle..<secrets]), readSequence: sequences.0,
            writeSequence: sequences.1)
        unsafe keep(UnsafeRawBufferPointer(rebasing: bytes[(secrets + 4)...]))
        if flags.contains(.readClosed) { readState = .closed }
        if flags.contains(.readDead) { readState = .dead }
        isWriteOpen = !flags.contains(.writeClosed)
        owesUpdate = flags.contains(.owesUpdate)
        owesClose = flags.contains(.owesClose)
        awaitsUpdate = flags.contains(.awaitsUpdate)
        owedAlert = alert == 0 ? nil : Alert(rawValue: alert)
        idleRecords = idle
        fragmentBytes = fragment
    }

    private static func append(_ value: some FixedWidthInteger, to message: inout ByteQueue) {
        for index in 0..<(value.bitWidth / 8) { message.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    private static func load<Value: FixedWidthInteger>(
        _ bytes: UnsafeRawBufferPointer, _ offset: Int, as: Value.Type
    ) -> Value {
        unsafe Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}
