// What a worker that leaves says to its successors' inboxes beside the members of its rooms (MemberState.swift): messages without
// a descriptor. One inbox is one queue, so that each is read behind everything its sender sent before.
//
//     bytes
//     4      magic "RLYR"
//     2      version of this format
//     1      kind
//     1      0
//     16     complete: where the room is counted (AddressCharge), to be given back if the room does not come about;
//            else 0
//     ...    by kind:
//
//     1  complete   every member of the room has been sent: it goes on. room (u32 count, bytes), active at: u32 seconds, quiet
//                   since: u64, CLOCK_MONOTONIC ns
//     2  hostKey    a key that outlived its room's worker: room, key (u32 count, 32 bytes), expiry u64, CLOCK_MONOTONIC ns
//     3  done       no more comes from this worker: its index in its generation, u32

import Shared

enum MoveMessage: Equatable {
    case complete(room: [UInt8], charge: AddressCharge, activeAt: UInt32, quietSince: UInt64)
    case hostKey(room: [UInt8], publicKey: [UInt8], expiry: UInt64)
    case done(source: Int)

    static let version: UInt16 = 2
    static let magic: UInt32 = 0x5259_4C52  // "RLYR", little-endian

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.write(Self.magic)
        writer.write(Self.version)
        switch self {
        case .complete(let room, let charge, let activeAt, let quietSince):
            writer.write(UInt16(1))
            writer.write(charge)
            writer.write(room)
            writer.write(activeAt)
            writer.write(quietSince)
        case .hostKey(let room, let publicKey, let expiry):
            writer.write(UInt16(2))
            writer.write(AddressCharge.none)
            writer.write(room)
            writer.write(publicKey)
            writer.write(expiry)
        case .done(let source):
            writer.write(UInt16(3))
            writer.write(AddressCharge.none)
            writer.write(UInt32(source))
        }
        return writer.bytes
    }

    init(_ bytes: [UInt8]) throws(ByteCodingError) {
        var reader = ByteReader(bytes)
        guard try reader.read(UInt32.self) == Self.magic else { throw .invalid(field: "format") }
        guard try reader.read(UInt16.self) == Self.version else { throw .invalid(field: "version") }
        let kind = try reader.read(UInt16.self)
        let charge = try reader.readCharge()
        guard kind == 1 || charge == .none else { throw .invalid(field: "charge") }
        switch kind {
        case 1:
            self = .complete(
                room: try Self.readRoom(&reader), charge: charge, activeAt: try reader.read(),
                quietSince: try reader.read())
        case 2:
            let room = try Self.readRoom(&reader)
            let key = try reader.readBytes(max: Limits.publicKeyBytes, field: "host key")
            guard key.count == Limits.publicKeyBytes else { throw .invalid(field: "host key") }
            self = .hostKey(room: room, publicKey: key, expiry: try reader.read())
        case 3:
            let source = Int(try reader.read(UInt32.self))
            guard source < Limits.workersMax else { throw .invalid(field: "source") }
            self = .done(source: source)
        default:
            throw .invalid(field: "kind")
        }
        try reader.finish()
    }

    private static func readRoom(_ reader: inout ByteReader) throws(ByteCodingError) -> [UInt8] {
        let room = try reader.readBytes(max: Limits.roomIDBytesMax, field: "room")
        guard !room.isEmpty else { throw .invalid(field: "room") }
        return room
    }
}
