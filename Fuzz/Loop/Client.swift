// A client of the target Loop, and what it holds the relay to: each message that comes is of its room, whole, in its
// sender's order and once; none is missing but voice. TLS is libssl's, so each record of the relay's is opened by
// another implementation.

import COpenSSL
import CSodium
import Glibc

// MARK: - What is said

/// A message: who says it, where, as which of its kind, and how long it is. Printable, so that it may go as text.
///
///     core      R room sender sequence length: 1 + 1 + 2 + 4 + 5 characters
///     voice     KV core filler
///     data      core filler, or {"from":"cSS","m":" core filler "}
struct Message {
    var room: Int
    var sender: Int
    var sequence: Int
    var fillerCount: Int

    static let coreBytes = 13
    /// What stands in front of the core where a sender says its name.
    static let fromBytes = #"{"from":"cSS","m":""#.utf8.count
    static let fillerMax = 90_000
    private static let filler = (0..<(fillerMax + 26)).map { UInt8(97 + $0 % 26) }

    private static func hex(_ value: Int, _ digits: Int) -> [UInt8] {
        (0..<digits).reversed().map { Array("0123456789abcdef".utf8)[value >> (4 * $0) & 15] }
    }

    /// - Parameter from: what the sender calls itself, if it does.
    func bytes(isVoice: Bool, from: String?) -> [UInt8] {
        var bytes: [UInt8] = isVoice ? [0x4B, 0x56] : []
        if let from { bytes += #"{"from":"\#(from)","m":""#.utf8 }
        bytes.append(UInt8(ascii: "R"))
        bytes += Self.hex(room, 1) + Self.hex(sender, 2) + Self.hex(sequence, 4) + Self.hex(fillerCount, 5)
        bytes += Self.filler[(sequence % 26)..<(sequence % 26 + fillerCount)]
        if from != nil { bytes += #""}"#.utf8 }
        return bytes
    }

    /// Reads core and filler, all of the bytes.
    init(_ bytes: ArraySlice<UInt8>) {
        claim(bytes.count >= Self.coreBytes && bytes.first == UInt8(ascii: "R"), "something nobody has said")
        var values: [Int] = []
        var index = bytes.startIndex + 1
        for digits in [1, 2, 4, 5] {
            var value = 0
            for _ in 0..<digits {
                let octet = bytes[index]
                value = value << 4 | Int(octet < 97 ? octet &- 48 : octet &- 87)
                index += 1
            }
            values.append(value)
        }
        (room, sender, sequence, fillerCount) = (values[0], values[1], values[2], values[3])
        claim(bytes.count == Self.coreBytes + fillerCount, "a message of another length")
        let expected = Self.filler[(sequence % 26)..<(sequence % 26 + fillerCount)]
        let isWhole = bytes[index...].withUnsafeBytes { said in
            expected.withUnsafeBytes { expected in
                guard let said = said.baseAddress, let expected = expected.baseAddress else { return true }
                return memcmp(said, expected, fillerCount) == 0
            }
        }
        claim(isWhole, "a message of other bytes")
    }

    init(room: Int, sender: Int, sequence: Int, fillerCount: Int) {
        (self.room, self.sender, self.sequence, self.fillerCount) = (room, sender, sequence, fillerCount)
    }
}

// MARK: - Tokens

/// Somebody who can sign tokens.
struct Signer: Sendable {
    private(set) var publicKey = [UInt8](repeating: 0, count: 32)
    private var secretKey = [UInt8](repeating: 0, count: 64)

    static let all = (0..<3).map { Signer(seed: UInt8($0)) }

    init(seed: UInt8) {
        crypto_sign_seed_keypair(&publicKey, &secretKey, [UInt8](repeating: seed &+ 7, count: 32))
    }

    static func base64(_ bytes: [UInt8]) -> [UInt8] {
        var text = [CChar](repeating: 0, count: bytes.count / 3 * 4 + 8)
        sodium_bin2base64(&text, text.count, bytes, bytes.count, sodium_base64_VARIANT_URLSAFE_NO_PADDING)
        return text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    }

    func sign(_ signed: [UInt8]) -> [UInt8] {
        var signature = [UInt8](repeating: 0, count: 64)
        crypto_sign_detached(&signature, nil, signed, UInt64(signed.count), secretKey)
        return signed + [UInt8(ascii: ".")] + Self.base64(signature)
    }

    func token(_ claims: [UInt8]) -> [UInt8] {
        sign(Array("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.".utf8) + Self.base64(claims))
    }
}

// MARK: - TLS

private nonisolated(unsafe) let clientContext: OpaquePointer = {
    guard let context = SSL_CTX_new(TLS_client_method()) else { fatalError("no client") }
    SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, nil)
    return context
}()

/// libssl's half of a connection.
final class TLSEnd {
    private let ssl: OpaquePointer
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer
    private(set) var isConnected = false
    /// By an alert of the server's, or an end that is none.
    private(set) var hasFailed = false
    private(set) var isClosed = false

    init(suite: Int, paddingBytes: Int, session: OpaquePointer?) {
        guard let ssl = SSL_new(clientContext), let incoming = BIO_new(BIO_s_mem()), let outgoing = BIO_new(BIO_s_mem())
        else { fatalError("no client") }
        (self.ssl, self.incoming, self.outgoing) = (ssl, incoming, outgoing)
        copenssl_bio_waits(incoming)
        SSL_set_bio(ssl, incoming, outgoing)
        SSL_set_connect_state(ssl)
        let suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
        SSL_set_ciphersuites(ssl, suites[suite % 3])
        if paddingBytes > 1 { SSL_set_block_padding(ssl, paddingBytes) }
        if let session { SSL_set_session(ssl, session) }
    }

    deinit { SSL_free(ssl) }

    /// Takes bytes from the server.
    ///
    /// - Returns: data that has come.
    func receive(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        if !bytes.isEmpty {
            bytes.withUnsafeBytes { _ = BIO_write(incoming, $0.baseAddress, Int32($0.count)) }
        }
        guard !hasFailed, !isClosed else { return [] }
        if !isConnected {
            ERR_clear_error()
            let result = SSL_do_handshake(ssl)
            guard result == 1 else {
                if SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ { hasFailed = true }
                return []
            }
            isConnected = true
        }
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            ERR_clear_error()
            let count = SSL_read(ssl, &buffer, Int32(buffer.count))
            if count > 0 {
                all += buffer.prefix(Int(count))
                continue
            }
            switch SSL_get_error(ssl, count) {
            case SSL_ERROR_WANT_READ: break
            case SSL_ERROR_ZERO_RETURN: isClosed = true
            default:
                // Above 1000 stand the server's alerts. Whatever a client does to its own records, the server's are
                // whole.
                let reason = copenssl_reason(ERR_peek_error())
                claim(reason > 1000, "a record that can't be opened: \(reason)")
                hasFailed = true
            }
            return all
        }
    }

    func write(_ bytes: [UInt8]) {
        ERR_clear_error()
        guard isConnected, !hasFailed, !bytes.isEmpty else { return }
        _ = SSL_write(ssl, bytes, Int32(bytes.count))
    }

    func output() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BIO_ctrl_pending(outgoing))
        guard !bytes.isEmpty else { return [] }
        let count = BIO_read(outgoing, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(count, 0))))
    }

    func updateKey(requested: Bool) {
        guard isConnected, !hasFailed else { return }
        _ = SSL_key_update(ssl, requested ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED)
        _ = SSL_do_handshake(ssl)
    }

    func sendCloseNotify() { SSL_shutdown(ssl) }

    /// To resume with; the caller frees it.
    func session() -> OpaquePointer? { isConnected ? SSL_get1_session(ssl) : nil }
}

// MARK: - The client

private nonisolated(unsafe) let receiveBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 8)

final class Client {
    let index: Int
    let room: Int
    /// Whose signature its token has.
    let signer: Int
    /// Whether the relay may let it in.
    let mayJoin: Bool
    let tls: TLSEnd?
    private var socket: Int32
    /// What is to be sent: data, and bytes as they leave.
    private var data: [UInt8] = []
    private var wire: [UInt8] = []
    private(set) var pagesAsked = 0
    private(set) var hasAskedToJoin = false
    var isReading = true
    var answersPings = true

    // How it stands
    private(set) var isMember = false
    private(set) var statuses: [Int] = []
    private(set) var isEnded = false
    private(set) var hasHungUp = false
    private(set) var hasEndedWriting = false
    private(set) var hasSaidClose = false
    private(set) var hasHeardClose = false
    /// Whether that was the echo of its own.
    private(set) var hasHeardEcho = false
    /// It broke a rule, so that what it says may be lost.
    var isRude = false

    // What it has said
    private(set) var dataSaid = 0
    private(set) var voiceSaid = 0
    private(set) var emptiesSaid = 0
    private(set) var firstSaysFrom: Bool?
    private var pingsSaid: [[UInt8]] = []
    private var isInMessage = false
    private var rest: [UInt8] = []

    // What it has heard
    private var received: [UInt8] = []
    private var receivedOffset = 0
    /// By sender: the next message of its data, and its voice.
    private(set) var nextData: [Int: Int] = [:]
    private(set) var nextVoice: [Int: Int] = [:]
    /// By sender: whose leaving it was told of.
    private(set) var departed: Set<Int> = []
    /// By sender: what it had said when this one saw that it was in: from there on everything is owed.
    private(set) var owed: [Int: Int] = [:]
    /// By sender: what others had heard before this one asked to be let in: that is not for it.
    var notForIt: [Int: (data: Int, voice: Int)] = [:]
    private(set) var movedBytes = 0

    /// - Parameter header: what a proxy sends in front.
    init(_ index: Int, room: Int, signer: Int, mayJoin: Bool, socket: Int32, tls: TLSEnd?, header: [UInt8]) {
        wire = header
        (self.index, self.room, self.signer, self.mayJoin) = (index, room, signer, mayJoin)
        (self.socket, self.tls) = (socket, tls)
        if let tls { _ = tls.receive([]) }
    }

    deinit { hangUp() }

    // MARK: - Saying

    /// Nothing more may be said.
    private var isSilent: Bool { hasSaidClose || hasHungUp || hasEndedWriting || hasSaidBad }
    /// Bytes that are no frame were said: with what came behind them they might be one.
    private var hasSaidBad = false

    func ask(_ head: [UInt8], joins: Bool, pages: Int = 0) {
        guard !isSilent, !hasAskedToJoin else { return }
        hasAskedToJoin = joins
        pagesAsked += pages
        data += head
    }

    private func say(frame opcode: UInt8, isFinal: Bool = true, _ payload: [UInt8]) {
        let key: [UInt8] = [UInt8(truncatingIfNeeded: data.count), 0x5A, UInt8(truncatingIfNeeded: payload.count), 1]
        data.append((isFinal ? 0x80 : 0) | opcode)
        if payload.count < 126 {
            data.append(0x80 | UInt8(payload.count))
        } else if payload.count < 65_536 {
            data += [0x80 | 126, UInt8(payload.count >> 8), UInt8(payload.count & 255)]
        } else {
            data.append(0x80 | 127)
            for index in 0..<8 { data.append(UInt8(truncatingIfNeeded: payload.count >> (56 - 8 * index))) }
        }
        data += key
        let start = data.count
        data += payload
        // Word by word, for instrumented code is slow.
        data.withUnsafeMutableBytes { bytes in
            let masked = UnsafeMutableRawBufferPointer(rebasing: bytes[start...])
            let word = (0..<8).reduce(UInt64(0)) { $0 | UInt64(key[$1 % 4]) << (8 * UInt64($1)) }
            var offset = 0
            while offset + 8 <= masked.count {
                let value = masked.loadUnaligned(fromByteOffset: offset, as: UInt64.self) ^ word
                masked.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
                offset += 8
            }
            for index in offset..<masked.count { masked[index] ^= key[index % 4] }
        }
    }

    /// Says a message, in so many fragments, with a ping in between. `leavesHalf` leaves the last for later.
    func say(fillerCount: Int, isVoice: Bool, saysFrom: Bool, isText: Bool, fragments: Int, leavesHalf: Bool) {
        guard !isSilent else { return }
        finishMessage()
        let count = isVoice ? voiceSaid : dataSaid
        guard count < 0xFFFF else { return }
        var from: String?
        if saysFrom && !isVoice { from = "\(dataSaid == 0 ? "c" : "x")\(index / 10)\(index % 10)" }
        if !isVoice && firstSaysFrom == nil { firstSaysFrom = saysFrom }
        let message = Message(room: room, sender: index, sequence: count, fillerCount: fillerCount)
        say(message.bytes(isVoice: isVoice, from: from), isText, fragments, leavesHalf)
        if isVoice { voiceSaid += 1 } else { dataSaid += 1 }
    }

    /// Says a message without a byte.
    func sayNothing() {
        guard !isSilent else { return }
        finishMessage()
        emptiesSaid += 1
        if firstSaysFrom == nil { firstSaysFrom = false }
        say(frame: 2, [])
    }

    private func say(_ payload: [UInt8], _ isText: Bool, _ fragments: Int, _ leavesHalf: Bool) {
        let opcode: UInt8 = isText ? 1 : 2
        let parts = leavesHalf ? max(2, fragments) : max(1, fragments)
        var offset = 0
        for part in 0..<parts {
            let end = part == parts - 1 ? payload.count : min(payload.count, offset + payload.count / parts)
            let piece = Array(payload[offset..<end])
            offset = end
            if part == parts - 1 && leavesHalf {
                rest = piece
                isInMessage = true
                return
            }
            say(frame: part == 0 ? opcode : 0, isFinal: part == parts - 1, piece)
        }
    }

    /// Says what is left of a message that was left in its middle.
    func finishMessage() {
        guard isInMessage, !isSilent else { return }
        isInMessage = false
        say(frame: 0, rest)
        rest = []
    }

    func ping(_ payload: [UInt8]) {
        guard !isSilent else { return }
        pingsSaid.append(payload)
        say(frame: 9, payload)
    }

    /// With a code that nobody else says, so that its echo is known from the relay's own close.
    func close() {
        guard !isSilent else { return }
        finishMessage()
        say(frame: 8, closePayload)
        hasSaidClose = true
    }

    private var closePayload: [UInt8] { [UInt8(3000 >> 8), UInt8(3000 & 255) + UInt8(index)] }

    /// Bytes in the place of frames.
    func sayBad(_ bytes: [UInt8]) {
        guard !isSilent else { return }
        finishMessage()
        isRude = true
        hasSaidBad = true
        data += bytes
    }

    func updateKey(requested: Bool) {
        guard let tls, !hasHungUp else { return }
        flushData()
        tls.updateKey(requested: requested)
    }

    func sendCloseNotify() {
        guard let tls, tls.isConnected, !isSilent else { return }
        isRude = true
        hasEndedWriting = true
        flushData()
        tls.sendCloseNotify()
        wire += tls.output()
    }

    /// Breaks a byte of what waits to be sent.
    func flip(_ place: Int) {
        flushData()
        guard !wire.isEmpty else { return }
        isRude = true
        wire[place % wire.count] ^= 1 << (place % 8)
    }

    func appendToWire(_ bytes: [UInt8]) {
        guard !isSilent else { return }
        isRude = true
        flushData()
        wire += bytes
    }

    // MARK: - The socket

    private func flushData() {
        guard let tls else {
            wire += data
            data.removeAll(keepingCapacity: true)
            return
        }
        if tls.isConnected && !data.isEmpty {
            tls.write(data)
            data.removeAll(keepingCapacity: true)
        }
        wire += tls.output()
    }

    var hasToSend: Bool { !wire.isEmpty || !data.isEmpty }

    /// Gives the socket some of what is to be sent, and takes what has come.
    func exchange(_ most: Int = .max, reads: Bool = true) {
        guard !hasHungUp else { return }
        flushData()
        if !wire.isEmpty && !isEnded {
            let sent = send(socket, wire, min(most, wire.count), Int32(MSG_NOSIGNAL))
            if sent > 0 {
                wire.removeFirst(sent)
                movedBytes += sent
            } else if errno != EAGAIN {
                isEnded = true
            }
        }
        if reads && isReading { receiveAll() }
    }

    private func receiveAll() {
        while true {
            let count = recv(socket, receiveBuffer.baseAddress, receiveBuffer.count, 0)
            guard count > 0 else {
                if count == 0 || errno != EAGAIN { isEnded = true }
                break
            }
            movedBytes += count
            let bytes = Array(receiveBuffer[..<count])
            if let tls { received += tls.receive(bytes[...]) } else { received += bytes }
        }
        parse()
    }

    func hangUp() {
        guard !hasHungUp else { return }
        hasHungUp = true
        _ = Glibc.close(socket)
        socket = -1
    }

    /// Ends the sending side: the relay sees the end behind what was sent.
    func endWriting() {
        guard !isSilent else { return }
        isRude = true
        hasEndedWriting = true
        shutdown(socket, Int32(SHUT_WR))
    }

    func makeBuffersSmall() {
        var bytes: Int32 = 2048
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, 4)
    }

    // MARK: - Hearing

    /// The others, whom it may hear.
    weak var others: Others?

    private func parse() {
        if !isMember { parseAnswers() }
        while isMember, parseFrame() {}
        if receivedOffset > 65_536 || receivedOffset == received.count {
            received.removeFirst(receivedOffset)
            receivedOffset = 0
        }
    }

    private func parseAnswers() {
        while !isMember {
            let bytes = received[receivedOffset...]
            guard
                let end = bytes.indices.dropLast(3).first(where: {
                    bytes[$0] == 13 && bytes[$0...].starts(with: [13, 10, 13, 10])
                })
            else { return }
            let head = String(decoding: bytes[..<end], as: UTF8.self)
            guard head.hasPrefix("HTTP/1.1 "), let status = Int(head.dropFirst(9).prefix(3)) else {
                fatalError("no answer: \(head)")
            }
            statuses.append(status)
            claim(isRude || statuses.count <= pagesAsked + (hasAskedToJoin ? 1 : 0) + 1, "an answer to nothing")
            if status == 101 {
                claim(mayJoin, "somebody is let in who may not")
                claim(hasAskedToJoin, "somebody is let in who has not asked")
                claim(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "another accept")
                isMember = true
                receivedOffset = end + 4
                for other in others?.all ?? [] where other !== self { owed[other.index] = other.dataSaid }
                return
            }
            let length = head.split(separator: "\r\n").first { $0.hasPrefix("Content-Length: ") }
            guard let length, let count = Int(length.dropFirst(16)) else { fatalError("an answer without an end") }
            guard bytes.count >= end + 4 - bytes.startIndex + count else {
                statuses.removeLast()
                return
            }
            receivedOffset = end + 4 + count
        }
    }

    private func parseFrame() -> Bool {
        let left = received.count - receivedOffset
        guard left >= 2 else { return false }
        let (first, short) = (received[receivedOffset], Int(received[receivedOffset + 1]))
        claim(first & 0xF0 == 0x80 && short < 128, "no frame of a server's")
        let wide = short == 126 ? 2 : short == 127 ? 8 : 0
        guard left >= 2 + wide else { return false }
        var count = short
        if wide > 0 {
            count = received[(receivedOffset + 2)..<(receivedOffset + 2 + wide)].reduce(0) { $0 << 8 | Int($1) }
            claim(count > (wide == 2 ? 125 : 65_535), "a length that is not in its shortest form")
        }
        guard left >= 2 + wide + count else { return false }
        let start = receivedOffset + 2 + wide
        receivedOffset = start + count
        claim(!hasHeardClose, "something behind a close frame")
        hear(first & 15, received[start..<(start + count)])
        return true
    }

    private func hear(_ opcode: UInt8, _ payload: ArraySlice<UInt8>) {
        switch opcode {
        case 2: hear(payload)
        case 8:
            hasHeardClose = true
            hasHeardEcho = hasSaidClose && payload.elementsEqual(closePayload)
            claim(payload.isEmpty || payload.count >= 2, "a close frame of one byte")
        case 9:
            if answersPings && !isSilent { say(frame: 10, Array(payload)) }
        case 10:
            // Some may have been left out, none is made up.
            guard let place = pingsSaid.firstIndex(of: Array(payload)) else { fatalError("a pong to nothing") }
            pingsSaid.removeFirst(place + 1)
        default: fatalError("opcode \(opcode)")
        }
    }

    private func hear(_ payload: ArraySlice<UInt8>) {
        guard let first = payload.first else {
            claim(others?.all.contains { $0.emptiesSaid > 0 && $0.room == room } ?? false, "nobody said nothing")
            return
        }
        if first == 0x4B {
            hearVoice(Message(payload.dropFirst(2)))
        } else if first == UInt8(ascii: "R") {
            hearData(Message(payload))
        } else if payload.starts(with: #"{"id":"","type":"session:leave","from":""#.utf8) {
            hearLeaving(payload)
        } else {
            claim(payload.starts(with: #"{"from":""#.utf8), "something nobody has said")
            hearData(Message(payload.dropFirst(Message.fromBytes).dropLast(2)))
        }
    }

    private func sender(_ message: Message) -> Client {
        guard let others, others.all.indices.contains(message.sender) else { fatalError("a message of nobody's") }
        let sender = others.all[message.sender]
        claim(message.room == room, "another room's message")
        claim(sender !== self, "its own message")
        claim(sender.mayJoin && sender.room == room, "a message of one who may not be here")
        claim(!departed.contains(sender.index), "a message of one who has left")
        return sender
    }

    private func hearData(_ message: Message) {
        let sender = sender(message)
        claim(message.sequence < sender.dataSaid, "a message that was not said")
        if let next = nextData[sender.index] {
            claim(message.sequence == next, "data out of order, twice or lost")
        } else {
            claim(message.sequence >= notForIt[sender.index]?.data ?? 0, "what was said before it came")
            claim(message.sequence <= owed[sender.index] ?? .max, "data lost in front of the first")
        }
        nextData[sender.index] = message.sequence + 1
    }

    private func hearVoice(_ message: Message) {
        let sender = sender(message)
        claim(message.sequence < sender.voiceSaid, "voice that was not said")
        claim(message.sequence >= nextVoice[sender.index] ?? 0, "voice out of order or twice")
        claim(message.sequence >= notForIt[sender.index]?.voice ?? 0, "voice from before it came")
        nextVoice[sender.index] = message.sequence + 1
    }

    private func hearLeaving(_ payload: ArraySlice<UInt8>) {
        let text = String(decoding: payload.dropFirst(40), as: UTF8.self)
        let parts = text.split(separator: "\"", maxSplits: 1)
        guard parts.count == 2, parts[1].hasPrefix(#","ts":"#),
            parts[1].hasSuffix(#","nonce":0,"payload":null,"sig":null}"#), let kind = parts[0].first,
            let index = Int(parts[0].dropFirst()), let leaver = others?.all[index]
        else { fatalError("no notice of a leaving: \(text)") }
        claim(leaver.room == room && leaver.mayJoin && leaver !== self, "somebody leaves who was not here")
        claim(departed.insert(index).inserted, "somebody leaves twice")
        // By the token, or by what its first message said.
        claim(kind == "t" || kind == "c" && leaver.firstSaysFrom == true, "somebody leaves by another's name")
        if leaver.isSound && leaver.hasHeardEcho {
            claim(kind == (leaver.firstSaysFrom == true ? "c" : "t"), "another name")
        }
    }

    /// Whether nothing may be lost of what it has said: it is in, or has left as one should.
    var isSound: Bool {
        guard isMember, !isRude, !hasHungUp else { return false }
        return hasSaidClose ? hasHeardEcho : !hasHeardClose && !isEnded
    }

    /// Whether it is in its room.
    var isIn: Bool {
        isMember && !isEnded && !hasHeardClose && !hasSaidClose && !hasHungUp && !hasEndedWriting && !isRude
    }
}

/// All clients of an execution.
final class Others {
    var all: [Client] = []
}
