// Who somebody is: tokens and their claims, a first message's `from`, notices of leaving, queries, Base64, and whose
// address a request counts for. Tokens are signed here, so that claims are reached. Each is held against a reading of
// its own that is as simple as can be.
//
//     1 byte    what the rest is
//     the rest  0 claims, to be signed; 1 a token's change: place, bits; 2 a first message; 3 a peer id; 4 a query;
//               5 Base64; 6 X-Forwarded-For and X-Real-IP, separated by a line feed; 7 a token as it is; 8 a first
//               message after 16 KiB of its own

import CSodium
import Glibc

@testable import Shared
@testable import worker

private let now: Int64 = 1_750_000_000

private struct Signer {
    private(set) var publicKey = [UInt8](repeating: 0, count: 32)
    private var secretKey = [UInt8](repeating: 0, count: 64)

    init() { crypto_sign_seed_keypair(&publicKey, &secretKey, [UInt8](repeating: 7, count: 32)) }

    func token(_ claims: [UInt8]) -> [UInt8] {
        let signed = Array("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.".utf8) + base64(claims, url: true)
        var signature = [UInt8](repeating: 0, count: 64)
        crypto_sign_detached(&signature, nil, signed, UInt64(signed.count), secretKey)
        return signed + [UInt8(ascii: ".")] + base64(signature, url: true)
    }
}

private let signer = Signer()

// MARK: - Simple readings

/// RFC 4648, 4 and 5.
private func base64(_ bytes: [UInt8], url: Bool) -> [UInt8] {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789\(url ? "-_" : "+/")".utf8)
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let part = bytes[start..<min(start + 3, bytes.count)]
        let word = part.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - part.count))
        for place in 0...part.count { text.append(alphabet[word >> (18 - 6 * place) & 63]) }
        if !url { text += [UInt8](repeating: 61, count: 3 - part.count) }
    }
    return text
}

/// A JSON value (RFC 8259), read by the grammar.
private indirect enum JSON {
    case null
    case other
    case number(String)
    case text([UInt8])
    case object([(name: [UInt8], value: JSON)])
}

private struct Grammar {
    let bytes: [UInt8]
    var index = 0

    /// The whole text as one value.
    static func read(_ bytes: [UInt8]) -> JSON? {
        guard String(validating: bytes, as: UTF8.self) != nil else { return nil }
        var grammar = Grammar(bytes: bytes)
        guard let value = grammar.value(depth: 0) else { return nil }
        grammar.space()
        return grammar.index == bytes.count ? value : nil
    }

    /// The members of an object that end in front of what is no JSON, or of the end: (name, value), as far as they go.
    static func readBeginning(_ bytes: [UInt8]) -> [(name: [UInt8], value: JSON)]? {
        var grammar = Grammar(bytes: bytes)
        grammar.space()
        guard grammar.take(123) else { return nil }
        return grammar.members(depth: 0).members
    }

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func space() { while let next, [32, 9, 10, 13].contains(next) { index += 1 } }

    private mutating func take(_ octet: UInt8) -> Bool {
        guard next == octet else { return false }
        index += 1
        return true
    }

    private mutating func word(_ word: String) -> Bool {
        for octet in word.utf8 { guard take(octet) else { return false } }
        return true
    }

    private mutating func value(depth: Int) -> JSON? {
        space()
        // The stack's depth; the relay takes more, which an input of a corpus hardly has.
        guard depth < 500 else { return nil }
        switch next {
        case 123:
            index += 1
            let (members, isWhole) = members(depth: depth)
            return isWhole ? .object(members) : nil
        case 91:
            index += 1
            space()
            if take(93) { return .other }
            repeat {
                guard value(depth: depth + 1) != nil else { return nil }
                space()
            } while take(44)
            return take(93) ? .other : nil
        case 34: return text().map { .text($0) }
        case UInt8(ascii: "t"): return word("true") ? .other : nil
        case UInt8(ascii: "f"): return word("false") ? .other : nil
        case UInt8(ascii: "n"): return word("null") ? .null : nil
        default: return number().map { .number($0) }
        }
    }

    private mutating func members(depth: Int) -> (members: [(name: [UInt8], value: JSON)], isWhole: Bool) {
        var members: [(name: [UInt8], value: JSON)] = []
        space()
        if take(125) { return (members, true) }
        repeat {
            space()
            guard let name = text() else { return (members, false) }
            space()
            guard take(58), let value = value(depth: depth + 1) else { return (members, false) }
            members.append((name, value))
            space()
        } while take(44)
        return (members, take(125))
    }

    private mutating func text() -> [UInt8]? {
        guard take(34) else { return nil }
        var units: [UInt16] = []
        while let next {
            index += 1
            switch next {
            case 34: return Array(String(decoding: units, as: UTF16.self).utf8)
            case 0..<32: return nil
            case 92:
                guard let escaped = self.next else { return nil }
                index += 1
                switch escaped {
                case UInt8(ascii: "b"): units.append(8)
                case UInt8(ascii: "f"): units.append(12)
                case UInt8(ascii: "n"): units.append(10)
                case UInt8(ascii: "r"): units.append(13)
                case UInt8(ascii: "t"): units.append(9)
                case 34, 92, 47: units.append(UInt16(escaped))
                case UInt8(ascii: "u"):
                    guard bytes.count - index >= 4,
                        bytes[index..<(index + 4)].allSatisfy({ "0123456789abcdefABCDEF".utf8.contains($0) }),
                        let unit = UInt16(String(decoding: bytes[index..<(index + 4)], as: UTF8.self), radix: 16)
                    else { return nil }
                    units.append(unit)
                    index += 4
                default: return nil
                }
            case 0..<128: units.append(UInt16(next))
            default:
                // A scalar in UTF-8, or what is none.
                let length = next >= 0xF0 ? 4 : next >= 0xE0 ? 3 : 2
                let piece = bytes[(index - 1)..<min(index - 1 + length, bytes.count)]
                guard let scalar = String(validating: piece, as: UTF8.self), scalar.unicodeScalars.count == 1 else {
                    // Only in a beginning, which nobody has looked at as a whole: the byte stands for something.
                    units.append(0xFFFD)
                    isOdd = true
                    continue
                }
                units += scalar.utf16
                index += piece.count - 1
            }
        }
        return nil
    }

    /// Whether a text has bytes that are no UTF-8.
    private(set) var isOdd = false

    private mutating func number() -> String? {
        let start = index
        _ = take(45)
        func digit(_ octet: UInt8?) -> Bool { octet.map { (48...57).contains($0) } ?? false }
        guard digit(next) else { return nil }
        if !take(48) { while digit(next) { index += 1 } }
        if take(46) {
            guard digit(next) else { return nil }
            while digit(next) { index += 1 }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(43) { _ = take(45) }
            guard digit(next) else { return nil }
            while digit(next) { index += 1 }
        }
        return String(decoding: bytes[start..<index], as: UTF8.self)
    }
}

/// The last member of a name that is not null.
private func member(_ members: [(name: [UInt8], value: JSON)], _ name: String) -> JSON? {
    for member in members.reversed() where member.name.elementsEqual(name.utf8) {
        if case .null = member.value { continue }
        return member.value
    }
    return nil
}

/// What a token with these claims should come to: a reason, or the claims.
private func verdict(_ json: [UInt8]) -> Result<Claims, TokenError> {
    guard case .object(let members) = Grammar.read(json) else { return .failure(.claimsJSON) }
    var texts: [String: [UInt8]] = [:]
    for name in ["room_id", "peer_id", "role", "name"] {
        switch member(members, name) {
        case nil: break
        case .text(let text): texts[name] = text
        default: return .failure(.claimsJSON)
        }
    }
    var expiry: Int64 = 0
    for name in ["iat", "exp"] {
        switch member(members, name) {
        case nil: break
        case .number(let text):
            guard let number = Int64(text) else { return .failure(.claimsJSON) }
            if name == "exp" { expiry = number }
        default: return .failure(.claimsJSON)
        }
    }
    guard let room = texts["room_id"], !room.isEmpty else { return .failure(.missingRoomID) }
    guard let peer = texts["peer_id"], !peer.isEmpty else { return .failure(.missingPeerID) }
    guard peer.count <= 256 else { return .failure(.invalidPeerID) }
    let isHost = texts["role"]?.elementsEqual("host".utf8) ?? false
    guard isHost || texts["role"]?.elementsEqual("guest".utf8) ?? false else { return .failure(.invalidRole) }
    guard expiry == 0 || expiry >= now else { return .failure(.expired) }
    return .success(Claims(roomID: room, peerID: peer, isHost: isHost))
}

private func judge(_ token: [UInt8]) -> Result<Claims, TokenError> {
    do throws(TokenError) {
        return .success(try verifyToken(token, publicKey: signer.publicKey, nowUnixSeconds: now))
    } catch {
        return .failure(error)
    }
}

/// A text of JSON as short as can be.
private func quoted(_ text: [UInt8]) -> [UInt8] {
    var json: [UInt8] = []
    appendEscapedJSON(text, to: &json)
    return [34] + json + [34]
}

/// Nested deeper than this file's own reading goes.
private func isDeep(_ bytes: [UInt8]) -> Bool { bytes.count { $0 == 91 || $0 == 123 } >= 400 }

// MARK: - What is claimed

private func readClaims(_ json: [UInt8]) {
    guard !isDeep(json) else { return }
    let token = signer.token(json)
    let said = judge(token)
    guard token.count <= Limits.tokenBytesMax else {
        claim(said == .failure(.malformed), "a token that is too long")
        return
    }
    claim(said == verdict(json), "other claims: \(said), \(verdict(json))")
    // Written down again they are the same.
    guard case .success(let claims) = said else { return }
    let again =
        Array(#"{"room_id":"#.utf8) + quoted(claims.roomID) + Array(#","peer_id":"#.utf8) + quoted(claims.peerID)
        + Array(#","role":"\#(claims.isHost ? "host" : "guest")"}"#.utf8)
    let short = signer.token(again)
    if short.count <= Limits.tokenBytesMax { claim(judge(short) == said, "claims change when written down") }
    var other = signer.publicKey
    other[json.count % 32] ^= 1
    do throws(TokenError) {
        _ = try verifyToken(token, publicKey: other, nowUnixSeconds: now)
        fatalError("a token that somebody else has signed")
    } catch {
        claim(error == .signature, "\(error)")
    }
}

private let goodClaims = Array(#"{"room_id":"r","peer_id":"p","role":"guest"}"#.utf8)

private func changeToken(_ changes: ArraySlice<UInt8>) {
    let good = signer.token(goodClaims)
    var token = good
    var changes = changes
    while let place = changes.popFirst(), let change = changes.popFirst() {
        let index = Int(place) * token.count / 256
        switch change & 3 {
        case 0: token.insert(change, at: index)
        case 1: token.remove(at: min(index, token.count - 1))
        default: token[min(index, token.count - 1)] = change
        }
        guard !token.isEmpty else { return }
    }
    if token != good, case .success = judge(token) { fatalError("a token that was changed passes") }
}

private func readAnyToken(_ token: [UInt8]) {
    guard case .success(let claims) = judge(token) else { return }
    // Nobody but the key's owner can make one: the corpus has the one that stands among the seeds.
    claim(claims == Claims(roomID: [114], peerID: [112], isHost: false), "a token that nobody has signed")
}

private func readFirstMessage(_ message: [UInt8]) {
    guard !isDeep(message) else { return }
    let id = readSenderID(message.span)
    if message.count <= Limits.senderSearchBytesMax {
        var expected: [UInt8]?
        if case .object(let members) = Grammar.read(message), case .text(let from) = member(members, "from") {
            expected = (1...256).contains(from.count) ? from : nil
        }
        claim(id == expected, "another sender")
        return
    }
    guard let id else { return }
    claim((1...256).contains(id.count) && String(validating: id, as: UTF8.self) != nil, "no text")
    let beginning = Array(message[..<Limits.senderSearchBytesMax])
    guard let members = Grammar.readBeginning(beginning), case .text(let from) = member(members, "from") else {
        fatalError("a sender that is not there")
    }
    claim(from == id, "another sender in a beginning")
}

private func writeNotice(_ id: [UInt8]) {
    let notice = leaveNotice(peerID: id, unixMilliseconds: 1_234_567_890_123)
    claim(!notice.contains(10), "a notice is one line")
    guard case .object(let members) = Grammar.read(notice) else { fatalError("a notice that is no JSON") }
    claim(
        members.map { String(decoding: $0.name, as: UTF8.self) }
            == ["id", "type", "from", "ts", "nonce", "payload", "sig"], "other members")
    guard case .text(let from) = members[2].value, case .text(let type) = members[1].value,
        case .number("1234567890123") = members[3].value
    else { fatalError("other values") }
    claim(type.elementsEqual("session:leave".utf8), "another type")
    claim(from == Array(String(decoding: id, as: UTF8.self).utf8), "another sender leaves")
}

private func readQuery(_ query: [UInt8]) {
    func decoded(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        var rest = text
        while let octet = rest.popFirst() {
            guard octet == 37 else {
                bytes.append(octet == 43 ? 32 : octet)
                continue
            }
            let digits = rest.prefix(2)
            guard digits.count == 2, digits.allSatisfy({ "0123456789abcdefABCDEF".utf8.contains($0) }),
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return bytes
    }
    let parameters = QueryParameters(query)
    for (name, text) in [("room", "room"), ("token", "token"), ("pubkey", "pubkey")] as [(StaticString, String)] {
        var expected: [UInt8]?
        for pair in query.split(separator: 38, omittingEmptySubsequences: false) {
            let end = pair.firstIndex(of: 61) ?? pair.endIndex
            guard let key = decoded(pair[..<end]), key.elementsEqual(text.utf8),
                let value = decoded(pair[min(end + 1, pair.endIndex)...])
            else { continue }
            expected = value
            break
        }
        claim(parameters.first(name) == expected, "another parameter")
    }
    if let room = parameters.first("room") {
        let scalars = String(validating: room, as: UTF8.self)?.unicodeScalars
        let isGood = scalars?.allSatisfy { $0.properties.generalCategory != .control } ?? false
        claim(isValidRoomID(room) == (isGood && (1...256).contains(room.count)), "another room id")
    }
    if let key = parameters.first("pubkey").flatMap(decodePublicKey) { claim(key.count == 32, "a key's length") }
}

private func readBase64(_ text: [UInt8]) {
    for url in [true, false] {
        let variant: Base64Variant = url ? .urlWithoutPadding : .original
        if let bytes = decodeBase64(text[...], variant: variant) {
            claim(base64(bytes, url: url) == text, "two texts for the same bytes")
        }
        let written = base64(text, url: url)
        claim(decodeBase64(written[...], variant: variant) == text, "bytes that are not read again")
        if !url { claim(encodeBase64(text) == written, "another text") }
    }
}

private let trusted = ["10.0.0.0/8", "fd00::/8", "127.0.0.1"].compactMap { AddressRange($0) }

/// Whose a request with these headers is, by each source; nil if it is no request.
private func client(_ peer: Address, _ forwarded: [UInt8]?, _ real: [UInt8]?, _ source: ClientAddressSource)
    -> ClientAddress?
{
    var head = Array("GET / HTTP/1.1\r\nHost: a\r\n".utf8)
    if let forwarded { head += Array("X-Forwarded-For: ".utf8) + forwarded + [13, 10] }
    if let real { head += Array("X-Real-IP: ".utf8) + real + [13, 10] }
    guard case .head(let request) = parseRequest((head + [13, 10]).span) else { return nil }
    return request.client(peer: peer, source, trusted: trusted)
}

private func isTrusted(_ address: Address) -> Bool { trusted.contains { $0.contains(address) } }

private func readForwarded(_ bytes: [UInt8]) {
    let lines = bytes.split(separator: 10, maxSplits: 1, omittingEmptySubsequences: false)
    let forwarded = lines.first.map { Array($0) }
    let real = lines.count > 1 ? Array(lines[1]) : nil
    guard let proxy = Address("10.1.2.3"), let stranger = Address("192.0.2.7") else { fatalError("no addresses") }
    let addresses = (forwarded ?? []).split(separator: 44).map { Address.forwarded(utf8: Array($0).span) }
    let realAddress = real.flatMap { Address.forwarded(utf8: $0.span) }
    for source in ClientAddressSource.allCases {
        guard let found = client(proxy, forwarded, real, source) else { return }
        claim(client(stranger, forwarded, real, source)?.address == stranger, "a stranger's header counts")
        claim(Address(found.address.description) == found.address, "an address is written as another")
        switch source {
        case .peer, .proxyProtocol, .cfConnectingIP: claim(found.address == proxy, "another header counts")
        case .xRealIP: claim(found.address == realAddress ?? proxy, "another address")
        case .xForwardedFor, .auto:
            let named = addresses.contains(found.address) || found.address == proxy
            claim(named || source == .auto && found.address == realAddress, "an address that nobody has named")
            // What a client has written on the left of a stranger's address changes nothing.
            guard found.conflict == nil, !isTrusted(found.address), let forwarded, addresses.contains(found.address)
            else { continue }
            let longer = client(proxy, Array("203.0.113.9, ".utf8) + forwarded, real, source)
            claim(longer == found, "what stands on the left counts")
        }
    }
    // Two headers that name two clients name none.
    let (one, other) = (client(proxy, forwarded, nil, .auto), client(proxy, nil, real, .auto))
    if let one, let other, real != nil, !addresses.isEmpty, one.address != other.address, real?.isEmpty == false {
        claim(client(proxy, forwarded, real, .auto)?.address == proxy, "one of two headers counts")
    }
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    guard let kind = input.first else { return 0 }
    let rest = Array(input.dropFirst())
    switch kind % 9 {
    case 0: readClaims(rest)
    case 1: changeToken(rest[...])
    case 2: readFirstMessage(rest)
    case 3: writeNotice(rest)
    case 4: readQuery(rest)
    case 5: readBase64(rest)
    case 6: readForwarded(rest)
    case 7: readAnyToken(rest)
    default:
        let padding = Array(#"{"pad":""#.utf8) + [UInt8](repeating: 120, count: 16_300) + Array(#"","#.utf8)
        readFirstMessage(padding + rest)
        readFirstMessage(Array("{".utf8) + rest + padding)
    }
    return 0
}

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    func seed(_ kind: UInt8, _ text: String) -> [UInt8] { [kind] + Array(text.utf8) }
    let claims = [
        #"{"room_id":"r","peer_id":"p","role":"guest"}"#,
        #" {"room_id" : "\u0072\ud83d\ude00", "peer_id":"é\n\"","role":"h\u006fst","name":"n","iat":1,"exp":1750000001,"x":[1,{"a":null}]} "#,
        #"{"role":"host","role":null,"room_id":"a","peer_id":"b","exp":0}"#, #"{"exp":-1,"room_id":"a"}"#, "{}",
        #"{"room_id":"a","peer_id":"b","role":"guest","exp":1e3}"#, #"{"room_id":"\ud800","peer_id":1}"#,
        #"{"room_id":"a","peer_id":"b","role":"guest","exp":9223372036854775807}"#,
    ].map { seed(0, $0) }
    let messages = [
        #"{"from":"c1"}"#, #"{"type":"x","from":"\u0063","payload":{"a":[true,false,null,1.5e-3]}}"#, "[1]",
        #"{"from":null,"from":"b","from":2}"#,
    ]
    let forwarded = [
        "1.2.3.4, 10.0.0.1", "[2001:db8::1]:80,,10.0.0.1 ,", "x\n192.0.2.1", ",\n[::ffff:1.2.3.4]", "fd00::1, ::1",
        "1.2.3.4:5, 127.0.0.1\n1.2.3.4",
    ].map { seed(6, $0) }
    var seeds: [[UInt8]] = claims + forwarded
    seeds += messages.map { seed(2, $0) } + messages.map { seed(8, $0) }
    seeds += [[1, 0, 2, 255, 3], [1, 128, 4], [1, 200, 5], [3, 97], [3, 34, 92, 10, 0, 127, 195, 169, 255]]
    seeds += ["room=a%20b&token=x.y+z&pubkey=AAAA&%72oom=c&room", "room=%C2%85&to%6ben=%zz&token=2"].map { seed(4, $0) }
    seeds += ["QUJD", "QQ==", "_-8"].map { seed(5, $0) } + [[5, 0, 255, 128], [7] + signer.token(goodClaims)]
    plantSeeds(seeds)
    return 0
}
