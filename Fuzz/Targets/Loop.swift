// A whole loop: workers of two generations in one process, and plain and TLS clients of theirs. The input is a script;
// the clients hold the relay to its promises while it runs (Loop/Client.swift), and at the end every count must be 0.
//
//     4 bytes   settings: which limits are tight, how many workers, how it ends
//     then steps of 4 bytes, operation and three arguments: `Operation`
//
// max_len: 644
// smoke: 400

import COpenSSL
import Glibc

@testable import Shared
@testable import worker

private enum Operation: UInt8, CaseIterable {
    /// a: room, signer, whether it is a host, what is wrong with its token; b: TLS or plain, address, how it behaves;
    /// c: which worker
    case join
    /// a: client; b: length and form; c: how often
    case data, voice
    /// a: client; b: length and form; the rest of the message comes with the next one. c: a ping in between
    case half
    /// a: client; b: how many bytes it may send; c: whether it reads
    case exchange
    /// a: worker, or all; b: how many turns; c: whether the supervisor goes on with a change meanwhile
    case turn
    /// a: how long
    case pass
    /// a: client; b: length; c: how often
    case ping
    /// a: client
    case close, hangUp, endWriting
    /// a: client; b: what is wrong
    case bad
    /// a: client; b: whether it asks for one; c: how often
    case updateKey
    /// a: client; b: what is done to its bytes; c: where
    case breakTLS
    /// a: client; b: whether it reads from now on
    case read
    /// a: how many workers, or which is replaced
    case change
    /// a: worker
    case kill
    /// a: client, or a new one; b: which page; c: how often
    case page
    /// a: what a piece of work takes
    case stride
    /// a, b: only where both are as they should be, for after it not much happens
    case drain
    /// a: client: says a message without a byte
    case nothing
}

private let clientsMax = 14
private let stepsMax = 160
private let bytesMax = 3 << 20

private nonisolated(unsafe) let tlsContext: TLSContext = {
    guard let made = DevCertificate.make() else { fatalError("no certificate") }
    let ring = (0..<Limits.ticketKeyBytes).map { UInt8($0) }
    // Array.withUnsafeBytes carries no typed error.
    let context = made.certificate.withUnsafeBytes { certificate in
        made.privateKey.withUnsafeBytes { key in
            ring.withUnsafeBytes { ring in
                Result { () throws(TLSSetupError) in
                    try TLSContext(certificates: certificate, key: key, ticketKeys: ring)
                }
            }
        }
    }
    do { return try context.get() } catch { fatalError("no TLS: \(error)") }
}()

// MARK: - What clients ask for

private nonisolated(unsafe) var heads: [Int: [UInt8]] = [:]

private let roomNames = ["r0", "r1", "r2", "r3"]

/// A join's request: `flaw` 0 for a good one.
private func joinHead(client: Int, room: Int, signer: Int, isHost: Bool, flaw: Int) -> [UInt8] {
    let key = client | room << 8 | signer << 12 | (isHost ? 1 : 0) << 16 | flaw << 20
    if let head = heads[key] { return head }
    let name = roomNames[room]
    var members = [
        "\"room_id\":\"\(flaw == 3 ? roomNames[(room + 1) % 4] : name)\"",
        "\"peer_id\":\"t\(client / 10)\(client % 10)\"",
        "\"role\":\"\(isHost && flaw != 6 ? "host" : "guest")\"",
    ]
    switch flaw {
    case 4: members.append("\"exp\":1")
    case 5: members.remove(at: 1)
    case 7: members.append("\"name\":\"\(String(repeating: "n", count: 3000))\"")
    default: break
    }
    let claims = Array(("{" + members.joined(separator: ",") + "}").utf8)
    var token = Signer.all[flaw == 2 ? 2 : signer].token(claims)
    if flaw == 1 { token[token.count - 10] = token[token.count - 10] == 65 ? 66 : 65 }
    if flaw == 6 && !isHost { token = Array("a.b.c".utf8) }
    if flaw == 8 { token = Array("eyJhbGciOiJub25lIn0".utf8) + token[36...] }
    var head = Array("GET /ws?room=\(name)&token=".utf8) + token
    if isHost { head += Array("&pubkey=".utf8) + Signer.base64(Signer.all[signer].publicKey) }
    head += Array(
        (" HTTP/1.1\r\nHost: relay.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").utf8)
    heads[key] = head
    return head
}

private let pages: [[UInt8]] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "POST /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "GET /hea",
].map { Array($0.utf8) }

private let badBytes: [[UInt8]] = [
    // No mask, a reserved bit, an opcode, a fragment of nothing, a fragmented ping, a ping of 126 bytes
    [0x82, 1, 65], [0xC2, 0x80, 0, 0, 0, 0], [0x83, 0x80, 0, 0, 0, 0], [0x80, 0x80, 0, 0, 0, 0],
    [0x09, 0x80, 0, 0, 0, 0], [0x89, 0xFE, 0, 126, 0, 0, 0, 0],
    // Lengths that are too long, or have their highest bit, or are not in their shortest form
    [0x82, 0xFF, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0], [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x82, 0xFE, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5],
    // Text that is none, a close payload of one byte, a code that is none, a reason that is no text
    [0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], [0x88, 0x81, 0, 0, 0, 0, 3], [0x88, 0x82, 0, 0, 0, 0, 3, 0xED],
    [0x88, 0x83, 0, 0, 0, 0, 3, 0xE8, 0xFF],
    // Half a head, half a payload
    [0x82], [0x82, 0xFE, 1, 0, 0, 0, 0, 0, 1, 2, 3],
]

private let lengths = [0, 1, 90, 112, 113, 130, 1000, 1024, 4000, 5000, 16_384, 33_000, 60_000]
private let nanoseconds: [UInt64] = [
    1_000_000, 2_000_000, 20_000_000, 300_000_000, 1_000_000_000, 3_000_000_000, 6_000_000_000, 11_000_000_000,
    26_000_000_000, 31_000_000_000, 62_000_000_000, 130_000_000_000,
]

// MARK: - An execution

private final class Execution {
    private let relay: Relay
    private let others = Others()
    private let settings: [UInt8]
    private let dropsBefore: UInt64
    private var bytesSaid = 0
    private var session: OpaquePointer?

    init(_ settings: [UInt8]) {
        self.settings = settings
        var configuration = Configuration()
        configuration.workers = 2
        configuration.messageBytesMax = 65_536
        configuration.backlogBytesMax = settings[1] & 1 != 0 ? 66_000 : 1 << 20
        configuration.roomsMax = settings[1] & 2 != 0 ? 1 : 1000
        configuration.clientsPerRoomMax = settings[1] & 4 != 0 ? 2 : 20
        configuration.connectionsMax = settings[1] & 8 != 0 ? 5 : 1000
        configuration.connectionsPerAddressMax = settings[1] & 16 != 0 ? 2 : 100
        configuration.messagesPerSecondMax = settings[1] & 32 != 0 ? 10 : 0
        configuration.bytesPerSecondMax = settings[1] & 64 != 0 ? 20_000 : 0
        configuration.roomIdleSeconds = settings[1] & 128 != 0 ? 20 : 3600
        configuration.joinsPerSecondPerAddress = 0
        configuration.roomsPerAddressMax = settings[2] & 4 != 0 ? 1 : 100
        if settings[0] & 4 != 0 {
            configuration.clientAddress = .proxyProtocol
            configuration.trustedProxies = ["2001:db8::/32"].compactMap { AddressRange($0) }
        }
        relay = Relay(
            configuration, workers: 1 + Int(settings[0] & 1), isBusy: settings[0] & 2 != 0,
            memoryBytes: settings[2] & 8 != 0 ? 300_000 : nil,
            flushPieceMembers: settings[2] & 16 != 0 ? 1 : Limits.flushPieceMembers, tlsContext: tlsContext)
        dropsBefore = Self.drops
    }

    deinit { SSL_SESSION_free(session) }

    private static var drops: UInt64 { (0..<16).reduce(0) { $0 &+ Ground.shared.memory.page($1)[.drop(.voice)] } }

    private var clients: [Client] { others.all }

    private func client(_ number: UInt8) -> Client? {
        clients.isEmpty ? nil : clients[Int(number) % clients.count]
    }

    private func member(_ number: UInt8) -> Client? {
        guard let client = client(number), client.hasAskedToJoin else { return nil }
        return client
    }

    // MARK: Steps

    func step(_ operation: Operation, _ a: UInt8, _ b: UInt8, _ c: UInt8) {
        switch operation {
        case .join: join(a, b, c)
        case .data: say(a, b, c, isVoice: false)
        case .voice: say(a, b, c, isVoice: true)
        case .half:
            guard let client = member(a), bytesSaid < bytesMax else { return }
            bytesSaid += lengths[Int(b & 15) % lengths.count]
            client.say(
                fillerCount: lengths[Int(b & 15) % lengths.count], isVoice: false, saysFrom: b & 16 != 0,
                isText: b & 32 != 0, fragments: 2 + Int(b >> 6), leavesHalf: true)
            if c & 1 != 0 { client.ping([c]) }
        case .exchange:
            let most = b == 0 ? Int.max : Int(b) * Int(b)
            if a == 255 {
                for client in clients { client.exchange(most, reads: c & 1 == 0) }
            } else {
                client(a)?.exchange(most, reads: c & 1 == 0)
            }
        case .turn: turn(a, b, c)
        case .pass: relay.pass(nanoseconds[Int(a) % nanoseconds.count])
        case .ping:
            guard let client = member(a) else { return }
            for number in 0...(c % 100) { client.ping([UInt8](repeating: number, count: Int(b) % 126)) }
        case .close: member(a)?.close()
        case .hangUp: client(a)?.hangUp()
        case .endWriting: client(a)?.endWriting()
        case .bad:
            var bytes = badBytes[Int(b) % badBytes.count]
            if c != 0 { bytes.append(c) }
            member(a)?.sayBad(bytes)
        case .updateKey:
            guard let client = client(a), client.tls != nil else { return }
            // What a client may do in a moment is less than its budget; more is its own fault.
            if c % 80 > 2 { client.isRude = true }
            for _ in 0...(c % 80) { client.updateKey(requested: b & 1 != 0) }
        case .breakTLS: breakTLS(a, b, c)
        case .read: client(a)?.isReading = b & 1 == 0
        case .change:
            relay.beginChange(workers: 1 + Int(a & 1), recycled: a & 2 != 0 ? Int(a >> 2) : nil)
        case .kill:
            let places = relay.everyPlace
            relay.kill(places[Int(a) % places.count])
            if b & 1 != 0 { relay.launchMissing() }
        case .page: page(a, b, c)
        case .stride:
            relay.stride = [0, 0, 20_000, 100_000, 500_000, 1_000_000, 5_000_000, 1_300_000][Int(a) % 8]
        case .drain: if a == 0xDD && b == 0xDD { relay.drain(seconds: UInt64(c % 8)) }
        case .nothing: member(a)?.sayNothing()
        }
    }

    private func join(_ a: UInt8, _ b: UInt8, _ c: UInt8) {
        let (room, signer, isHost) = (Int(a & 3), Int(a >> 2 & 1), a & 8 != 0)
        let flaw = a >> 4 < 8 ? 0 : Int(a >> 4) - 7
        guard let client = connect(b, c, room: room, signer: signer, mayJoin: flaw == 0) else { return }
        let name = client.index
        client.ask(joinHead(client: name, room: room, signer: signer, isHost: isHost, flaw: flaw), joins: true)
        if b & 128 != 0 {
            client.say(
                fillerCount: 5, isVoice: false, saysFrom: c & 2 != 0, isText: false, fragments: 1, leavesHalf: false)
        }
        guard b & 64 == 0 else { return }
        // All of it at once, as most clients do; it takes more turns than one.
        for _ in 0..<(client.tls == nil ? 2 : 5) where !client.isMember {
            client.exchange()
            turn(255, 0, 0)
            client.exchange()
        }
    }

    private func connect(_ b: UInt8, _ c: UInt8, room: Int, signer: Int, mayJoin: Bool) -> Client? {
        guard clients.count < clientsMax else { return nil }
        let accepting = relay.everyPlace.filter { $0.process?.worker.isAccepting ?? false }
        guard !accepting.isEmpty else { return nil }
        let process = accepting[Int(c) % accepting.count].process
        let (near, far) = streamPair()
        if b & 16 != 0 {
            var bytes: Int32 = 2048
            setsockopt(near, SOL_SOCKET, SO_SNDBUF, &bytes, 4)
        }
        var tls: TLSEnd?
        if b & 3 == 1 || b & 3 == 2 {
            tls = TLSEnd(suite: Int(c >> 3), paddingBytes: b & 3 == 2 ? 200 : 0, session: c & 4 != 0 ? session : nil)
        }
        // Of both versions, where proxies speak in front of their clients.
        var header: [UInt8] = []
        if settings[0] & 4 != 0 {
            header = Array("PROXY TCP4 192.0.2.\(b >> 2 & 3) 192.0.2.9 1 2\r\n".utf8)
            if c & 32 != 0 {
                header = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, 0x21, 0x11, 0, 12]
                header += [192, 0, 2, b >> 2 & 3, 192, 0, 2, 9, 0, 1, 0, 2]
            }
        }
        let client = Client(
            clients.count, room: room, signer: signer, mayJoin: mayJoin, socket: far, tls: tls, header: header)
        // Of its address the client is told by the lower half, which no limit goes by.
        let peer = Address(high: 0x2001_0DB8_0000_0000 | UInt64(b >> 2 & 3) << 16, low: UInt64(client.index + 1))
        client.answersPings = b & 32 == 0
        client.others = others
        if b & 3 == 3 { client.isRude = true }
        for other in clients where other.room == room {
            for (sender, next) in other.nextData where next > client.notForIt[sender]?.data ?? 0 {
                client.notForIt[sender, default: (0, 0)].data = next
            }
            for (sender, next) in other.nextVoice where next > client.notForIt[sender]?.voice ?? 0 {
                client.notForIt[sender, default: (0, 0)].voice = next
            }
        }
        others.all.append(client)
        if b & 16 != 0 { client.makeBuffersSmall() }
        process?.worker.accept(near, peer: peer, isSecure: b & 3 != 0, at: relay.time)
        return client
    }

    private func say(_ a: UInt8, _ b: UInt8, _ c: UInt8, isVoice: Bool) {
        guard let client = member(a) else { return }
        let length = lengths[Int(b & 15) % lengths.count]
        for _ in 0...(c % 80) where bytesSaid < bytesMax {
            bytesSaid += length + 100
            client.say(
                fillerCount: length, isVoice: isVoice, saysFrom: b & 16 != 0, isText: b & 32 != 0,
                fragments: 1 + Int(b >> 6), leavesHalf: false)
        }
    }

    private func turn(_ a: UInt8, _ b: UInt8, _ c: UInt8) {
        for _ in 0...(b & 7) {
            if a != 255 {
                let places = relay.everyPlace
                relay.turn(places[Int(a) % places.count], advancing: c & 1 == 0)
            } else {
                relay.launchMissing()
                for place in relay.everyPlace { relay.turn(place, advancing: c & 1 == 0) }
            }
            check()
        }
    }

    private func breakTLS(_ a: UInt8, _ b: UInt8, _ c: UInt8) {
        guard let client = client(a), let tls = client.tls else { return }
        switch b % 5 {
        case 0: client.flip(Int(c))
        // A record of no key, an alert in the clear, a record that is too long, what is cut
        case 1: client.appendToWire([23, 3, 3, 0, 20] + [UInt8](repeating: c, count: 20))
        case 2:
            client.appendToWire(
                [[21, 3, 3, 0, 2, 2, c], [23, 3, 3, 0x50, 0, c], [23, 3, 3], [20, 3, 3, 0, 1, 1]][Int(c) % 4])
        case 3: client.sendCloseNotify()
        default:
            SSL_SESSION_free(session)
            session = tls.session()
        }
    }

    private func page(_ a: UInt8, _ b: UInt8, _ c: UInt8) {
        guard let client = a & 128 != 0 ? connect(a, b, room: 0, signer: 0, mayJoin: true) : client(a) else { return }
        guard !client.isMember else { return }
        let bytes = pages[Int(b) % pages.count]
        // The last ones end the connection, or are no whole request.
        if Int(b) % pages.count > 3 { client.isRude = true }
        for _ in 0...(c % 40) { client.ask(bytes, joins: false, pages: 1) }
    }

    // MARK: What always holds

    /// That whoever is in a room may be, and is nowhere else, and that what is counted is there.
    private func check() {
        var seen = Set<Int>()
        for place in relay.everyPlace {
            guard let process = place.process else { continue }
            check(place, process, &seen)
        }
    }

    private func check(_ place: Place, _ process: Process, _ seen: inout Set<Int>) {
        var members = 0
        for room in process.worker.rooms.slots where process.worker.rooms.isOccupied(room) {
            let id = process.worker.rooms[room].id
            let hostKey = process.worker.rooms[room].hostKey
            for slot in process.worker.rooms[room].members {
                members += 1
                let client = clients[Int(process.worker.connections[slot].peer.low) - 1]
                claim(seen.insert(client.index).inserted, "a client in two rooms")
                claim(client.mayJoin, "a client in a room that may not be in any")
                claim(Array(roomNames[client.room].utf8) == id, "a client in another room")
                claim(Signer.all[client.signer].publicKey == hostKey, "a client in a room of another host's")
                claim(process.worker.connections[slot].room == room, "a member that does not know it")
            }
        }
        if let transit = process.worker.leaving?.transit { members += transit.members.count - transit.next }
        claim(place.page[.clients] == UInt64(members), "another number of clients")
        claim(place.page[.rooms] == UInt64(process.worker.rooms.count), "another number of rooms")
        let connections = process.worker.connections.count - process.worker.departing
        claim(place.page[.connections] == UInt64(connections), "another number of connections")
        claim(process.worker.heldFits, "another amount of memory: \(process.worker.heldDescription)")
    }

    // MARK: The end

    func finish() {
        relay.stride = 0
        for client in clients {
            client.isReading = true
            client.answersPings = true
            client.finishMessage()
        }
        settle()
        checkDelivery()
        end()
        // What the supervisor is told of late.
        for _ in 0..<2 {
            relay.pass(1_000_000_000)
            turn(255, 0, 0)
        }
        checkCounts()
    }

    /// Lets everything go on until nothing does.
    private func settle() {
        var (quiet, rounds) = (0, 0)
        while quiet < 3 {
            let before = clients.reduce(0) { $0 + $1.movedBytes }
            for client in clients { client.exchange() }
            turn(255, 0, 0)
            for client in clients { client.exchange() }
            var moves = clients.reduce(0) { $0 + $1.movedBytes } != before
            var due = relay.time + 5_000_000
            for place in relay.everyPlace {
                guard let worker = place.process.map({ $0 }) else { continue }
                if worker.worker.patience == 0 || worker.worker.heldBatches > 0 || !worker.worker.handovers.isEmpty {
                    moves = true
                }
                if worker.worker.pauses.count > 0 {
                    moves = true
                    due = max(due, worker.worker.pauses.due)
                }
            }
            // Who has cost much is passed over for some rounds.
            let waits = { self.relay.everyPlace.contains { $0.process?.worker.hasUnread ?? false } }
            quiet = moves || relay.isChanging || waits() ? 0 : quiet + 1
            rounds += 1
            claim(rounds < 5000, "it does not come to rest")
            if due > relay.time { relay.pass(due - relay.time) }
        }
    }

    /// That who is in has heard all that it should.
    private func checkDelivery() {
        guard !relay.isDraining else { return }
        var (connections, rooms) = (0, 0)
        for place in relay.everyPlace {
            guard let process = place.process else { continue }
            connections += process.worker.connections.count
            rooms += process.worker.rooms.count
        }
        let memory = Ground.shared.memory
        claim(memory.connections.count == UInt64(connections), "the quota of connections is another")
        // A worker that dies while it sends a room may leave it counted once too little.
        claim(relay.hasKilled || memory.rooms.count == UInt64(rooms), "the quota of rooms is another")
        let hasDropped = Self.drops != dropsBefore
        for hearer in clients where hearer.isIn {
            claim(!hearer.hasToSend, "the relay does not read a client")
            for sender in clients where sender !== hearer && sender.room == hearer.room && sender.mayJoin {
                guard sender.isSound else { continue }
                // Not there: it has come later.
                let owed = hearer.owed[sender.index]
                if owed ?? 0 < sender.dataSaid {
                    let next = hearer.nextData[sender.index]
                    claim(
                        next == sender.dataSaid,
                        "data lost: \(hearer.index) has heard \(sender.index) up to \(next ?? -1) of \(sender.dataSaid)"
                    )
                }
                guard owed == nil else { continue }
                if sender.voiceSaid > 0 && !hasDropped {
                    claim(hearer.nextVoice[sender.index] == sender.voiceSaid, "voice lost")
                }
                if sender.hasHeardEcho {
                    claim(hearer.departed.contains(sender.index), "a notice lost")
                }
            }
        }
    }

    private func end() {
        switch settings[2] & 3 {
        case 0: for client in clients { client.hangUp() }
        case 1: for client in clients { if client.isMember { client.close() } else { client.hangUp() } }
        case 2: relay.drain(seconds: 2)
        default: for client in clients { client.answersPings = false }
        }
        // Whatever is left goes by its timers.
        for round in 0..<400 {
            if round == 300 { for client in clients { client.hangUp() } }
            for client in clients { client.exchange() }
            relay.pass(round < 20 ? 20_000_000 : 1_000_000_000)
            turn(255, 0, 0)
            if relay.isDraining && relay.everyPlace.allSatisfy({ $0.process == nil }) {
                relay.end()
                return
            }
            let left = relay.everyPlace.reduce(0) { $0 + ($1.process?.worker.connections.count ?? 0) }
            let keys = relay.everyPlace.reduce(0) { $0 + ($1.process?.worker.survivingKeys.count ?? 0) }
            if round > 25 && left == 0 && keys == 0 && !relay.isChanging && !relay.isDraining && relay.leavers.isEmpty {
                return
            }
        }
        fatalError("somebody is left, or something")
    }

    private func checkCounts() {
        let memory = Ground.shared.memory
        var granted = 0
        claim(memory.connections.count == 0, "connections are left in the quota: \(memory.connections.count)")
        claim(memory.rooms.count == 0, "rooms are left in the quota: \(memory.rooms.count)")
        claim(Ground.shared.table.count == 0, "addresses are left: \(Ground.shared.table.count)")
        for place in relay.everyPlace {
            guard let process = place.process else { continue }
            process.worker.checkIsEmpty()
            for gauge in [Gauge.connections, .clients, .rooms] {
                claim(place.page[gauge] == 0, "\(gauge) is not 0")
            }
            granted += Int(place.page[.memoryGranted])
            claim(place.hostKeys.isEmpty, "the supervisor keeps a host key")
        }
        claim(memory.memoryPool.taken == granted, "another amount of memory is granted")
        memory.memoryPool.give(granted)
    }
}

extension Worker {
    /// Whether what is held is the connections' and the blocks' that they share.
    fileprivate var heldFits: Bool {
        var bytes = 0
        for slot in connections.slots where connections.isOccupied(slot) { bytes += connections[slot].heldBytes }
        // What waits in a batch is charged as well.
        let hasBlocks = held.blocks.count > 0 || held.blocks.hasFreed || !activeBatches.isEmpty
        return hasBlocks ? bytes <= held.shares.bytes : bytes == held.shares.bytes
    }

    /// Whether something has come that would be read.
    fileprivate var hasUnread: Bool {
        connections.slots.contains { slot in
            guard connections.isOccupied(slot), connections[slot].interest.contains(.read) else { return false }
            var bytes: Int32 = 0
            return ioctl(connections[slot].socket.number, UInt(FIONREAD), &bytes) == 0 && bytes > 0
        }
    }

    fileprivate var heldDescription: String {
        var text = "\(held.shares.bytes) in shares, \(held.blocks.count) blocks"
        for slot in connections.slots where connections.isOccupied(slot) {
            text += "; \(slot): \(connections[slot].heldBytes) \(connections[slot].phase)"
            text += connections[slot].isPaused ? ", paused" : ""
            text += " \(connections[slot].interest.rawValue), waits \(connections[slot].outbox.count)"
        }
        return text
    }

    fileprivate func checkIsEmpty() {
        claim(connections.count == 0 && rooms.count == 0 && roomsByID.isEmpty, "connections or rooms are left")
        claim(sessions.count == 0 && handshakes.isEmpty, "sessions or handshakes are left")
        claim(waitingHandshakes.count == 0, "handshakes wait")
        claim(held.shares.bytes == 0, "memory is held: \(held.shares.bytes)")
        claim(held.shares.count == 0 && held.shares.sourceCount == 0, "somebody has a share")
        claim(held.blocks.count == 0 && !held.blocks.hasFreed, "a block is left")
        claim(unjoined.isEmpty && handshakePlaces.count == 0, "places are taken")
        claim(activeBatches.isEmpty && spareBatches.count == batches.count, "a batch is not spare")
        claim(touched.isEmpty && doomed.isEmpty && departing == 0, "somebody is touched, doomed or departing")
        claim(unanswered.isEmpty && handovers.isEmpty && pauses.count == 0, "somebody waits")
        claim(laterJoins.isEmpty && joinsDue == 0, "a join waits")
        claim(aside.members.isEmpty && aside.strangers.isEmpty, "somebody is set aside")
        claim(arrivingRooms == 0 && survivingKeys.isEmpty && isInboxEmpty, "something is to come")
        claim(hostKeyReports.isEmpty, "something is to be told")
        claim(awaiting.roomsWaitedFor.isEmpty, "somebody waits for a room")
    }
}

/// Descriptors that are open: the same number in front of an execution and behind it.
private func openDescriptors() -> Int {
    (3..<250).count { fcntl(Int32($0), F_GETFD) >= 0 }
}

@_silgen_name("__lsan_disable") private func stopLookingForLeaks()
@_silgen_name("__lsan_enable") private func lookForLeaks()

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let script = Array(UnsafeBufferPointer(start: bytes, count: count))
    guard script.count >= 8 else { return 0 }
    let open = openDescriptors()
    do {
        let execution = Execution(Array(script[..<4]))
        for step in 1..<min(script.count / 4, 1 + stepsMax) {
            let operation = Operation.allCases[Int(script[4 * step]) % Operation.allCases.count]
            execution.step(operation, script[4 * step + 1], script[4 * step + 2], script[4 * step + 3])
        }
        execution.finish()
    }
    claim(openDescriptors() == open, "descriptors are left open")
    return 0
}

// MARK: - Seeds

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    _ = (Ground.shared.memory, Signer.all)
    // libcrypto forgets what it allocates for a provider, once a process.
    stopLookingForLeaks()
    _ = tlsContext
    lookForLeaks()
    func script(_ settings: [UInt8], _ steps: [(Operation, UInt8, UInt8, UInt8)]) -> [UInt8] {
        settings + steps.flatMap { [Operation.allCases.firstIndex(of: $0.0).map { UInt8($0) } ?? 0, $0.1, $0.2, $0.3] }
    }
    let host: UInt8 = 8
    /// Three in room 0, of whom the first is the host: plain or TLS.
    func room(_ kinds: [UInt8], _ number: UInt8 = 0) -> [(Operation, UInt8, UInt8, UInt8)] {
        kinds.enumerated().map { (.join, number | ($0.offset == 0 ? host : 0), $0.element, UInt8($0.offset)) }
    }
    let talk: [(Operation, UInt8, UInt8, UInt8)] = [
        (.data, 0, 0x12, 0), (.data, 1, 6, 2), (.voice, 2, 2, 5), (.exchange, 255, 0, 0), (.turn, 255, 0, 0),
        (.data, 0, 9, 1), (.data, 2, 0xE6, 1), (.half, 1, 0x28, 1), (.exchange, 255, 9, 0), (.turn, 255, 1, 0),
        (.exchange, 255, 0, 0), (.turn, 255, 1, 0),
    ]
    let change: [(Operation, UInt8, UInt8, UInt8)] = [
        (.change, 1, 0, 0), (.turn, 255, 0, 1), (.data, 0, 8, 1), (.turn, 255, 0, 0), (.exchange, 255, 0, 0),
        (.turn, 0, 0, 0), (.data, 1, 8, 1), (.exchange, 255, 0, 0), (.turn, 255, 2, 0),
    ]
    let mixed = room([0, 1, 2]) + room([1, 0], 1)
    plantSeeds([
        script([0, 0, 0, 0], room([0, 0, 0]) + talk),
        script([0, 0, 1, 0], room([1, 1, 2]) + talk + [(.updateKey, 1, 1, 1), (.exchange, 255, 0, 0)] + talk),
        script([1, 0, 2, 0], mixed + talk + change + talk),
        script([1, 0, 1, 0], mixed + talk + change + [(.kill, 0, 1, 0)] + talk + room([0, 0])),
        script([3, 0, 1, 0], mixed + talk + [(.stride, 5, 0, 0)] + talk + change + talk),
        // Rooms that are sent to in pieces, while some come and go, read slowly, or move.
        script(
            [3, 0, 17, 0],
            room([0, 1, 0, 0, 0, 0]) + [(.stride, 5, 0, 0)] + talk + [(.data, 0, 9, 1), (.exchange, 255, 0, 0)]
                + [(.turn, 255, 0, 0), (.data, 3, 9, 1), (.hangUp, 1, 0, 0), (.exchange, 255, 0, 0)]
                + [(.turn, 255, 0, 0)] + room([0, 0]).dropFirst() + talk + change + talk),
        script(
            [1, 0, 16, 0],
            room([0, 16, 17, 0, 0]) + [(.stride, 5, 0, 0), (.read, 1, 1, 0), (.data, 0, 12, 60), (.voice, 0, 6, 70)]
                + talk + [(.exchange, 255, 0, 0), (.turn, 255, 0, 0), (.close, 3, 0, 0), (.data, 4, 12, 60)] + change
                + talk),
        // Slow readers: they are closed, or their voice is dropped.
        script(
            [0, 1, 1, 0],
            room([0, 16, 17]) + [(.read, 1, 1, 0), (.read, 2, 1, 0)] + talk
                + [(.voice, 0, 6, 70), (.exchange, 255, 0, 0), (.turn, 255, 1, 0), (.data, 0, 12, 1)] + talk + change),
        script(
            [0, 0, 1, 0],
            room([0, 16, 17]) + [(.read, 1, 1, 0), (.read, 2, 1, 0), (.voice, 0, 6, 70), (.data, 0, 9, 20)] + talk
                + change + talk + [(.read, 1, 0, 0), (.exchange, 255, 0, 0), (.turn, 255, 3, 0)]),
        // Bad frames, broken records, ends of all kinds.
        script(
            [0, 0, 0, 0],
            room([0, 1, 2]) + room([0, 1, 0, 1], 1)
                + [(.bad, 0, 5, 0), (.breakTLS, 1, 1, 3), (.endWriting, 2, 0, 0), (.breakTLS, 4, 3, 0)]
                + [(.hangUp, 3, 0, 0), (.close, 5, 0, 0), (.data, 4, 3, 0), (.data, 6, 3, 0), (.breakTLS, 6, 0, 9)]
                + talk),
        script(
            [1, 0, 3, 0],
            [(.page, 128, 0, 2), (.page, 129, 1, 9), (.page, 0, 2, 0), (.page, 131, 7, 0)] + room([0, 1])
                + [(.exchange, 255, 0, 0), (.turn, 255, 4, 0), (.pass, 7, 0, 0), (.turn, 255, 4, 0)]),
        // Joins that are refused, rooms that are full, held by another, or too many.
        script(
            [0, 6, 1, 0],
            (8..<16).map { (.join, UInt8($0) << 4 | 8, 0, 0) } + room([0, 0, 0])
                + [(.join, 4 | host, 0, 0), (.join, 1 | host, 1, 0)] + talk),
        script([4, 0, 1, 0], room([0, 1, 4]) + room([5, 32], 1) + talk),
        script([1, 0, 5, 0], mixed + room([4], 2) + talk + change + talk),
        script(
            [0, 0, 9, 0],
            room([0, 16, 17]) + room([4, 20], 1) + [(.read, 1, 1, 0), (.data, 0, 12, 10)] + talk + [(.data, 4, 12, 9)]
                + talk),
        script([0, 8 + 16, 1, 0], room([0, 4, 8]) + room([12, 12, 12, 0], 1) + talk),
        // Paces, and rooms that idle.
        script([0, 32 + 64, 1, 0], room([0, 1, 0]) + talk + [(.data, 0, 2, 40)] + talk + change + talk),
        script(
            [0, 128, 1, 0],
            room([0, 1, 2]) + talk + [(.pass, 8, 0, 0), (.turn, 255, 1, 0), (.exchange, 255, 0, 0)] + talk),
        // Silence: pings, and who does not answer them.
        script(
            [0, 0, 3, 0],
            room([32, 33, 0]) + talk + [(.pass, 10, 0, 0), (.turn, 255, 0, 0), (.exchange, 255, 0, 0)]
                + [(.pass, 10, 0, 0), (.turn, 255, 0, 0), (.exchange, 255, 0, 0)] + talk),
        // Deaths in the middle of a change, and in front of one.
        script(
            [1, 0, 1, 0],
            mixed + talk + [(.change, 0, 0, 0), (.turn, 255, 0, 0), (.kill, 2, 0, 0), (.turn, 255, 1, 0)]
                + room([0, 1]) + talk + [(.kill, 0, 0, 0), (.turn, 255, 3, 0)] + room([0, 0]) + talk),
        script(
            [1, 0, 0, 0],
            mixed + [(.change, 3, 0, 0), (.turn, 0, 0, 1), (.kill, 1, 1, 0), (.turn, 255, 2, 0)] + talk + change
                + [(.kill, 3, 1, 0), (.kill, 2, 1, 0)] + talk + change + talk),
        script([1, 0, 1, 0], mixed + talk + [(.change, 1, 0, 0), (.turn, 255, 1, 0), (.drain, 0xDD, 0xDD, 3)] + talk),
    ])
    return 0
}
