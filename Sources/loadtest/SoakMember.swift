// One connection of a soak: what it is doing, what it is writing, and what it must still get.

import Glibc

/// What a member writes, step by step. Each begins when the one before is with the kernel.
enum SoakStep {
    /// Of a frame, or several. `endsFrame`: a control frame may follow.
    case bytes([UInt8], endsFrame: Bool)
    /// A whole frame as one TLS record that is cut; the rest of it follows after a while.
    case cutRecord([UInt8], atPercent: Int, pause: UInt64)
    case recordRest
    case rest(UInt64)
    /// With a payload of its own, unless an earlier one is not answered yet.
    case ping
    case keyUpdate(asking: Bool)
    /// The next data message, or voice frame, is with the kernel as a whole.
    case sent(isVoice: Bool)
    case close
}

/// What a receiver has of one sender.
struct SoakStream {
    let sender: SoakMember
    var data: SoakSequence
    var voice: SoakSequence
    /// When the sender said goodbye; from then on the notice is due, unless this receiver came later.
    var goodbye: UInt64?
    var isNoticeOptional = false
    /// Tiny messages that came before the first with a number: which they were shows when that has come.
    var unplaced: [[UInt8]] = []
}

final class SoakMember {
    enum State {
        case handshaking
        case requesting
        case open
        /// A close frame is sent, or will be once the message being written is.
        case leaving
        case ended
    }

    let sender: SoakSender
    let room: SoakRoom
    /// The host's is 0.
    let place: Int
    let isSpeaker: Bool
    /// Nil once the connection has ended.
    private(set) var transport: Transport?
    var state = State.handshaking
    /// When the state began.
    var since: UInt64
    /// When it asked to join.
    let began: UInt64

    var id: UInt32 { sender.id }
    var name: String { "room \(room.index) \(place == 0 ? "host" : "guest \(place)") (connection \(id))" }

    // Sending.

    private var steps: [SoakStep] = []
    private var nextStep = 0
    /// What follows a cut record's first part.
    var recordRest: [UInt8] = []
    private(set) var output: [UInt8] = []
    private(set) var outputStart = 0
    /// The output is sealed already.
    var isOutputRaw = false
    /// The last bytes written were the beginning of a frame, or of a record.
    var isMidFrame = false
    /// When writing goes on.
    var restUntil: UInt64 = 0
    /// Payloads of pings that are not answered yet.
    var pongsOwed: [[UInt8]] = []
    var awaitsRoom = false
    /// Data messages begun, and those that are with the kernel as a whole; the same of voice.
    var dataBegun: UInt32 = 0
    var dataSent: UInt32 = 0
    var voiceSent: UInt32 = 0
    var lastVoiceAt: UInt64 = 0
    var hasSentClose = false
    /// When somebody was told that this member had left, though it had not said so.
    var saidGoneAt: UInt64?
    /// The connection ended though nobody wished it to: what it has sent is not known.
    var isBroken = false
    var keyUpdatesAsked = 0

    // Receiving.

    var input: [UInt8] = []
    var streams: [SoakStream] = []
    /// Bytes of data messages that others have begun to send and that have not come.
    var outstanding = 0
    var ping: (payload: [UInt8], at: UInt64)?
    var pings: UInt32 = 0
    var isPaused = false
    /// Of voice sent before this moment some may be dropped: the receiver was not reading, or had just begun to again.
    var lagsUntil: UInt64 = 0
    var closeCode: UInt16?
    var gotClose = false
    /// What others' streams had come to when this member asked to join.
    var floors: [(id: UInt32, data: UInt32, voice: UInt32)] = []

    init(
        sender: SoakSender, room: SoakRoom, place: Int, isSpeaker: Bool, transport: Transport, now: UInt64
    ) {
        self.sender = sender
        self.room = room
        self.place = place
        self.isSpeaker = isSpeaker
        self.transport = transport
        since = now
        began = now
    }

    func enter(_ state: State, _ now: UInt64) {
        self.state = state
        since = now
    }

    // MARK: Sending

    /// Nothing is being written: what comes next begins a frame.
    var isIdle: Bool { nextStep == steps.count && !hasOutput && !isMidFrame }
    var hasOutput: Bool { outputStart < output.count }

    func add(_ steps: [SoakStep]) {
        if nextStep == self.steps.count {
            self.steps.removeAll(keepingCapacity: true)
            nextStep = 0
        }
        self.steps += steps
    }

    func takeStep() -> SoakStep? {
        guard nextStep < steps.count else { return nil }
        defer { nextStep += 1 }
        return steps[nextStep]
    }

    /// Before all others that are left.
    func insert(_ steps: [SoakStep]) { self.steps.insert(contentsOf: steps, at: nextStep) }

    /// The socket takes nothing any more: what has come is still to be read.
    func dropOutput() {
        output = []
        outputStart = 0
        steps = []
        nextStep = 0
        pongsOwed = []
    }

    /// What is to be written after all that is being written.
    func put(_ bytes: [UInt8], raw: Bool = false) {
        if !hasOutput {
            output.removeAll(keepingCapacity: output.capacity < 65_536)
            outputStart = 0
        }
        output += bytes
        isOutputRaw = raw
    }

    /// Writes what the kernel takes. Nil, or why the connection has ended.
    func flush() -> String? {
        while hasOutput {
            guard let transport else { return nil }
            let progress =
                isOutputRaw
                ? transport.writeTCP(output, from: outputStart) : transport.write(output, from: outputStart)
            switch progress {
            case .bytes(let count): outputStart += count
            case .wouldBlock: return nil
            case .ended(let reason): return reason
            }
        }
        return nil
    }

    /// Nothing more is written or waited for.
    func end(_ now: UInt64) {
        enter(.ended, now)
        transport = nil
        steps = []
        nextStep = 0
        output = []
        outputStart = 0
        input = []
        streams = []
        pongsOwed = []
        ping = nil
    }

    // MARK: Receiving

    /// It must still be told that somebody has left.
    var isOwedNotice: Bool { streams.contains { $0.goodbye != nil && !$0.isNoticeOptional } }

    func streamIndex(of id: UInt32) -> Int? {
        var index = 0
        while index < streams.count {
            if streams[index].sender.id == id { return index }
            index += 1
        }
        return nil
    }
}

/// A place where rooms follow one another: when one has ended, the next begins with a new id and a new host's key.
final class SoakRoom {
    let index: Int
    private(set) var session: Session
    /// Whoever is there, or on the way in or out, by place.
    var places: [SoakMember?]
    /// Those who have gone of late: somebody whose join was under way may still hear of them.
    var departed: [SoakMember] = []
    /// Everybody leaves, and the next room begins.
    var isEnding = false

    init(index: Int, places: Int) {
        self.index = index
        session = Session(room: SoakRoom.newID())
        self.places = Array(repeating: nil, count: places)
    }

    private static func newID() -> String { "soak-" + Encoding.hex(Encoding.randomBytes(12)) }

    func renew() {
        session = Session(room: Self.newID())
        isEnding = false
        departed = []
    }

    /// Those to whom what is said goes, the speaker among them.
    var open: [SoakMember] { places.compactMap { $0?.state == .open ? $0 : nil } }
    /// Those and whoever is on the way out.
    var present: [SoakMember] { places.compactMap { $0?.state == .open || $0?.state == .leaving ? $0 : nil } }
    var isEmpty: Bool { places.allSatisfy { $0 == nil } }
}
