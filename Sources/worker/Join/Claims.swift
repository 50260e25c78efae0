// What a token says, and what a client's first data message says: who somebody is.

import Shared

/// The claims of a token that matter to the relay.
struct Claims: Equatable {
    var roomID: [UInt8]
    var peerID: [UInt8]
    /// Informative in a guest's token: what makes a join a host's is its public key.
    var isHost: Bool

    init(roomID: [UInt8], peerID: [UInt8], isHost: Bool) {
        self.roomID = roomID
        self.peerID = peerID
        self.isHost = isHost
    }

    /// Reads claims whose signature has been checked.
    init(json: Span<UInt8>, nowUnixSeconds: Int64) throws(TokenError) {
        guard let members = readJSONMembers(json, "room_id", "peer_id", "role", "name", "iat", "exp") else {
            throw .claimsJSON
        }
        // Types first: a claim of the wrong type is an error of the JSON, whichever else is missing.
        let roomID = try Self.text(members[0], json)
        let peerID = try Self.text(members[1], json)
        let role = try Self.place(members[2])
        _ = try Self.place(members[3])
        _ = try Self.integer(members[4], json)
        let expiry = try Self.integer(members[5], json)

        guard !roomID.isEmpty else { throw .missingRoomID }
        guard !peerID.isEmpty else { throw .missingPeerID }
        guard peerID.count <= Limits.peerIDBytesMax else { throw .invalidPeerID }
        isHost = isJSONText(json, role, "host")
        guard isHost || isJSONText(json, role, "guest") else { throw .invalidRole }
        // 0 and none: never.
        guard expiry == 0 || expiry >= nowUnixSeconds else { throw .expired }
        self.roomID = roomID
        self.peerID = peerID
    }

    /// Empty if absent.
    private static func text(_ value: JSONValue?, _ json: Span<UInt8>) throws(TokenError) -> [UInt8] {
        unescapeJSON(json, try place(value))
    }

    /// Where a text stands; nowhere if absent.
    private static func place(_ value: JSONValue?) throws(TokenError) -> Range<Int> {
        switch value {
        case nil: return 0..<0
        case .string(let range): return range
        case .number, .other: throw .claimsJSON
        }
    }

    /// 0 if absent.
    private static func integer(_ value: JSONValue?, _ json: Span<UInt8>) throws(TokenError) -> Int64 {
        switch value {
        case nil: return 0
        case .number(let range):
            guard let number = readJSONInteger(json, range) else { throw .claimsJSON }
            return number
        case .string, .other: throw .claimsJSON
        }
    }
}

/// The sender's id in its first data message: the text field `from` of a JSON object, 1 to 256 bytes. nil for whatever
/// else the message is. Of a message over `Limits.senderSearchBytesMax` the beginning alone is read.
func readSenderID(_ message: Span<UInt8>) -> [UInt8]? {
    let value: JSONValue?
    if message.count <= Limits.senderSearchBytesMax {
        value = readJSONMembers(message, "from")?[0]
    } else {
        value = readJSONMember(inBeginning: message.extracting(first: Limits.senderSearchBytesMax), "from")
    }
    // An escape takes 6 characters for a byte at most: a longer one need not be read.
    guard case .string(let range) = value, range.count <= 6 * Limits.peerIDBytesMax else { return nil }
    let id = unescapeJSON(message, range)
    // Of a long message nothing has checked that it is UTF-8.
    return (1...Limits.peerIDBytesMax).contains(id.count) && isUTF8(id.span) ? id : nil
}
