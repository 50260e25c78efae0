// One client's connection: everything that is needed to go on with it, and nothing that refers to this process but the
// socket, so that it can be written down and sent to another process (Handoff).
//
// Phases:
//
//     (proxyHeader ──▶) (handshake ──▶) request ──▶ open ──▶ closing ──▶ lingering ──▶ gone
//                                          │  └────────────────▲
//                                          └▶ handingOver ──▶ departed (another worker has it) or closing with 503
//
//     proxyHeader  with RELAY_CLIENT_ADDRESS=proxy-protocol only: the proxy's header has not come whole
//     handshake    TLS only: gathers its ClientHello, waits, or libssl is at work (TLS/Handshaking.swift)
//     request      reads request heads; answers `/` and `/health`; a `/ws` request leads to `open` or to `handingOver`
//     handingOver  its room is another worker's, whose inbox is full, or is on its way here: nothing is read until the one takes it
//                  or the other has come, or the time is up
//     open         in a room
//     closing      the last bytes (an answer, a close frame) are on their way; input is read and thrown away
//     lingering    the write side is shut; waits for the client's end, so that a reset does not overtake the last bytes
//     condemned    to be closed at the end of this turn, because it held too much; it holds nothing any more
//     doomed       to be removed at the end of this turn; nothing is read or written
//     departed     another worker's by now: what is left here is removed at the end of this turn

import Shared

struct Connection: ~Copyable, Timed {
    enum Phase: UInt8 {
        case proxyHeader
        case handshake
        case request
        case handingOver
        case open
        case closing
        case lingering
        case condemned
        case doomed
        case departed
    }

    // Who
    let socket: Descriptor
    /// The socket's peer.
    let peer: Address
    /// The address that limits and logs go by: the peer's own, unless a trusted proxy has named another, in its PROXY
    /// header or in the head of the request that is being answered.
    var client: Address
    /// Whether `client` comes of a PROXY header, which holds for all requests: what a head says does not count.
    var isAnnounced = false
    /// Second of the accept: a request must be whole `Limits.requestSeconds` later.
    let acceptedAt: UInt32

    // Where it stands
    var phase = Phase.request
    var timer = TimerLinks()
    var interest = Interest.read
    /// Whether its room is frozen: it is neither read nor written, and does not end.
    var isFrozen = false
    /// Whether it is on this turn's list of connections to flush.
    var isTouched = false
    /// Whether it is, or was, in a room: it is watched with the members, who come before strangers.
    var isMember = false
    /// Whether it is set aside (SettingAside.swift): in a queue, and not watched for reading.
    var isAside = false
    /// What it has cost beyond its share of the worker's time.
    var debt = Debt()
    /// What it has sent beyond what it may in a second, and whether it is not read for that.
    var pace = SendingPace()
    var isPaused = false

    /// Where its address is counted (RELAY_MAX_CONNECTIONS_PER_IP); none where it is not.
    var addressCharge = AddressCharge.none

    // Input
    /// Of the PROXY header in `proxyHeader`, of a ClientHello in `handshake`; request bytes in `request` and
    /// `handingOver`; payload of a control frame that came in parts in `open`.
    var input = ByteQueue()
    /// Requests that have been answered, up to as many as there may be.
    var requests: UInt8 = 0
    /// Bytes of `input` in which the end of the head has been searched in vain.
    var searched = 0
    /// Whether `input` has requests that wait for their answer: nothing more is read meanwhile.
    var isUnanswered = false
    var frames = FrameReader()
    /// The unmasked part of a message that is not complete.
    var message = ByteQueue()
    /// Since when its input has been in the middle of a message or a record.
    var begunInput = BegunInput()

    // Output
    var outbox = Outbox()
    /// Memory that its share is charged with for it (Connection/Memory.swift).
    var heldBytes = 0
    var memoryShare = ShareLinks()

    // TLS
    /// The slot of its TLSSession, from the end of the handshake on; `noSession` for plain HTTP.
    var session = Connection.noSession
    /// Whether it speaks TLS, or is about to.
    var isSecure = false
    /// Whether it waits for a step of its handshake.
    var awaitsStep = false
    /// TLS records that the socket has not taken. They leave as they are, before anything else.
    var sealed = ByteQueue()

    static let noSession = UInt32.max

    // Room, in `open`
    var room = Room.none
    /// Its place in the room's members.
    var place: UInt32 = 0
    var peerID: [UInt8] = []
    var hasSaidData = false

    // Liveness, in `open`; seconds
    var pingDue: UInt32 = 0
    /// When something came last, whatever it was.
    var heardAt: UInt32 = 0

    // Handoff
    /// The worker it goes to, in `handingOver`.
    var owner = 0
    /// How often it has been handed over before it was let in.
    var hops: UInt8 = 0
    /// When the last one was wished for, CLOCK_MONOTONIC nanoseconds; 0 if none was.
    var handoffAt: UInt64 = 0

    /// Second in which it ends if it has not joined.
    var endsUnjoined: UInt32 { acceptedAt + UInt32(Limits.unjoinedSeconds) }

    /// Whether the request that is being answered is its last.
    func hasAskedEnough(_ second: UInt32) -> Bool {
        requests >= Limits.requestsPerConnectionMax || second >= endsUnjoined
    }

    /// Whether anything may still be read or written.
    @inline(__always)
    var isServed: Bool { phase != .doomed && phase != .departed }

    init(socket: consuming Descriptor, peer: Address, isSecure: Bool, now: UInt32) {
        self.socket = socket
        self.peer = peer
        client = peer
        acceptedAt = now
        self.isSecure = isSecure
        phase = isSecure ? .handshake : .request
    }
}
