// The four loads that `relay-load bench` puts on a relay.

import ArgumentParser

enum WorkloadName: String, ExpressibleByArgument, CaseIterable {
    case voice
    case chat
    case flood
    case bulk
}

/// Who sends what, how often.
struct Workload {
    enum Pace {
        /// Each speaker sends so many messages a second, whatever happens to them.
        case perSecond(Double)
        /// Each speaker keeps so many messages under way; one has arrived when the next member of the room has it.
        case window(Int)
    }

    let name: String
    let rooms: Int
    let members: Int
    /// Members of each room that speak: the first ones.
    let speakers: Int
    let payloadBytes: Int
    /// Voice is never joined with anything by the relay; data may be.
    let isVoice: Bool
    let pace: Pace

    init(_ name: WorkloadName, rooms: Int?, members: Int?) {
        let defaults: (rooms: Int, members: Int) =
            switch name {
            case .voice: (100, 5)
            case .chat: (10, 20)
            case .flood: (4, 20)
            case .bulk: (10, 5)
            }
        let members = members ?? defaults.members
        self.name = name.rawValue
        self.rooms = rooms ?? defaults.rooms
        self.members = members
        isVoice = name == .voice
        speakers = name == .voice ? 1 : members
        payloadBytes =
            switch name {
            case .voice, .flood: 120
            case .chat: 200
            case .bulk: 16384
            }
        pace =
            switch name {
            case .voice: .perSecond(50)
            case .chat: .perSecond(20)
            case .flood: .window(32)
            case .bulk: .window(8)
            }
    }

    /// Connections that only stay open.
    init(idle rooms: Int, members: Int) {
        name = "idle"
        self.rooms = rooms
        self.members = members
        speakers = 0
        payloadBytes = Stamp.byteCount
        isVoice = false
        pace = .window(0)
    }

    /// Most messages of one speaker that may wait to be written.
    var unsentMax: Int {
        switch pace {
        case .perSecond: 64
        case .window(let count): max(1, count)
        }
    }

    /// The payload before it is stamped: no line feed in it, on which joined messages are split.
    func payload(room: Int, member: Int) -> [UInt8] {
        var payload = Array(isVoice ? "KV".utf8 : "DM".utf8)
        payload += Stamp.digits(UInt64(room), count: 3) + Stamp.digits(UInt64(member), count: 2)
        payload += [UInt8](repeating: UInt8(ascii: "p"), count: payloadBytes - payload.count)
        return payload
    }
}

/// Where a payload says whose it is, which, and when it was sent. Numbers are written as 7 bits a byte with the
/// highest bit set, so that none of their bytes is a line feed.
///
///     0   2  "KV" or "DM"
///     2   3  room
///     5   2  member of the room
///     7   5  sequence number of the member, from 0
///     12  9  CLOCK_MONOTONIC in ns
enum Stamp {
    static let room = 2
    static let member = 5
    static let sequence = 7
    static let time = 12
    static let byteCount = 21

    static func digits(_ value: UInt64, count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(7 * $0)) | 0x80 }
    }
}
