import Foundation
import Glibc
import NIOWebSocket
import Testing

@Suite struct `Messages over TLS` {
    @Test func `of every kind pass unchanged and in order, whoever accepted their sender`() async throws {
        var random = SplitMix64()
        let seed = random.seed
        // 6 rooms of 3: that all 18 connections reach their room's owner at once is beyond chance.
        try await Relay.runTLS(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            var rooms: [[WebSocketClient]] = []
            for _ in 0..<6 {
                let session = Session()
                var members = [try await relay.join(session.host())]
                for index in 0..<2 { members.append(try await relay.join(session.guest("\(index)"))) }
                rooms.append(members)
            }
            // Longer than one record, and as long as a record holds exactly, with and without a frame's header.
            let lengths = [1, 100, 16_380, 16_384, 16_385, 70_000]
            var sent: [[[[UInt8]]]] = []
            for members in rooms {
                sent.append([])
                for (index, member) in members.enumerated() {
                    var payloads: [[UInt8]] = []
                    for length in lengths {
                        // No byte that separates; the sender, so that it can be told from others.
                        let block = random.bytes(997).map { $0 == 0x0A ? 0x0B : $0 }
                        var bytes = [0x23, UInt8(index + 1)]
                        while bytes.count < length { bytes += block }
                        bytes.removeLast(max(0, bytes.count - length - 2))
                        if length % 2 == 1 || length < 1000 {
                            member.send(binary: bytes)
                        } else {
                            // In fragments with a ping between.
                            let cut = Int.random(in: 0...bytes.count, using: &random)
                            member.write(.binary, Array(bytes[..<cut]), isFinal: false)
                            member.ping([UInt8(index)])
                            member.write(.continuation, Array(bytes[cut...]))
                        }
                        payloads.append(bytes)
                        member.send(binary: [0x4B, 0x56, UInt8(index), UInt8(payloads.count)])
                        member.send("text \(index) \(payloads.count)")
                        payloads.append(Array("text \(index) \(payloads.count)".utf8))
                    }
                    sent[sent.count - 1].append(payloads)
                }
            }
            for (room, members) in rooms.enumerated() {
                for (receiver, member) in members.enumerated() {
                    let count = 2 * 2 * lengths.count
                    try await eventually("all messages, seed \(seed)") { Self.pieces(member).count >= count }
                    let pieces = Self.pieces(member)
                    #expect(pieces.count == count, "seed \(seed)")
                    for sender in members.indices where sender != receiver {
                        let heard = pieces.filter {
                            $0.starts(with: [0x23, UInt8(sender + 1)]) || $0.starts(with: Array("text \(sender)".utf8))
                        }
                        #expect(heard == sent[room][sender], "seed \(seed)")
                        try await eventually("voice") { member.voice.count == 2 * lengths.count }
                        let voice = member.voice.filter { $0[2] == sender }.map { $0[3] }
                        #expect(voice == lengths.indices.map { UInt8(2 * $0 + 1) }, "seed \(seed)")
                    }
                    try await eventually("pongs") { member.pongs.allSatisfy { $0 == [UInt8(receiver)] } }
                    #expect(member.oddities == [] && member.messages.allSatisfy(\.isBinary), "seed \(seed)")
                }
            }
        }
    }

    /// Data messages, those that were joined taken apart.
    private static func pieces(_ client: WebSocketClient) -> [[UInt8]] {
        var pieces: [[UInt8]] = []
        for message in client.messages where !message.isVoice {
            var start = 0
            while let end = newline(message.bytes, from: start) {
                pieces.append(Array(message.bytes[start..<end]))
                start = end + 1
            }
            pieces.append(Array(message.bytes[start...]))
        }
        return pieces
    }

    /// By memchr(3), because there is a lot of it.
    private static func newline(_ bytes: [UInt8], from start: Int) -> Int? {
        bytes.withUnsafeBytes { bytes -> Int? in
            guard let base = bytes.baseAddress, let found = memchr(base + start, 0x0A, bytes.count - start) else {
                return nil
            }
            return UnsafeRawPointer(found) - base
        }
    }

    /// How what belongs to a join is cut into records and segments.
    enum Cut: CaseIterable {
        /// Head and frames in one record.
        case oneRecord
        /// A record for the head, records for frames, all in one segment.
        case oneSegment
        /// The client's Finished in the same segment as well.
        case withTheHandshake
        /// The head's segment ends inside the next record.
        case cutRecord
        /// The head's segment ends inside the next record's header.
        case cutHeader
        /// A record for each 7 bytes.
        case manyRecords
        /// The head's record itself in two segments.
        case cutHead
    }

    @Test(arguments: Cut.allCases)
    func `that come with the join are not lost on the way to its owner`(cut: Cut) async throws {
        try await Relay.runTLS(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            for room in 0..<12 {
                let session = Session()
                let host = try await relay.join(session.host())
                let guest = try await relay.tlsClient(sendsFlight: cut != .withTheHandshake)
                let head = Array(session.guest("g").head.utf8)
                let frames = (0..<4).map { RawFrame.client(text: "\(room) \($0)") } + [RawFrame.client(0x89, [7])]
                for segment in try await segments(guest, cut, head, frames) { try await guest.socket.send(segment) }
                #expect(try await guest.response().status == 101)
                #expect(try await guest.frame() == RawFrame(first: 0x8A, isMasked: false, payload: [7]))
                #expect(try await host.data(4) == (0..<4).map { "\(room) \($0)" })
                // And so it goes on.
                try await guest.send(RawFrame.client(text: "later"))
                #expect(try await host.data(5).last == "later")
                host.send("to the guest")
                #expect(try await guest.frame().payload == Array("to the guest".utf8))
            }
        }
    }

    private func segments(
        _ client: TLSClient, _ cut: Cut, _ head: [UInt8], _ frames: [[UInt8]]
    ) async throws -> [[UInt8]] {
        switch cut {
        case .oneRecord: return [try await client.seal(head + frames.joined())]
        case .manyRecords:
            var records: [UInt8] = []
            let bytes = head + frames.joined()
            for start in stride(from: 0, to: bytes.count, by: 7) {
                records += try await client.seal(Array(bytes[start..<min(start + 7, bytes.count)]))
            }
            return [records]
        case .oneSegment, .withTheHandshake, .cutRecord, .cutHeader, .cutHead:
            let first = try await client.seal(head)
            var records = first
            for frame in frames { records += try await client.seal(frame) }
            let place =
                switch cut {
                case .cutRecord: first.count + 11
                case .cutHeader: first.count + 3
                case .cutHead: first.count / 2
                default: records.count
                }
            return [client.flight + Array(records[..<place]), Array(records[place...])].filter { !$0.isEmpty }
        }
    }

    @Test func `of 200,000 bytes that come with the join are not lost`() async throws {
        try await Relay.runTLS(workers: 4) { relay in
            for _ in 0..<8 {
                let session = Session()
                let host = try await relay.join(session.host())
                let guest = try await relay.tlsClient(sendsFlight: false)
                let large = String(repeating: "large ", count: 33_333)
                let bytes =
                    Array(session.guest("g").head.utf8) + RawFrame.client(text: large) + RawFrame.client(text: "next")
                try await guest.socket.send(guest.flight + (try await guest.seal(bytes)))
                #expect(try await guest.response().status == 101)
                #expect(try await host.data(2) == [large, "next"])
            }
        }
    }

    @Test func `on a connection that has asked for pages before pass as well`() async throws {
        try await Relay.runTLS(workers: 4) { relay in
            for index in 0..<8 {
                let session = Session()
                let host = try await relay.join(session.host())
                let guest = try await relay.tlsClient()
                let page = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
                try await guest.send(page)
                #expect(try await guest.response().body == SClient.answer)
                // Two more, pipelined in front of the join.
                let requests = page + page + session.guest("g").head
                try await guest.send(Array(requests.utf8) + RawFrame.client(text: "\(index)"))
                for _ in 0..<2 { #expect(try await guest.response().body == SClient.answer) }
                #expect(try await guest.response().status == 101)
                #expect(try await host.data(1) == ["\(index)"])
                host.send("hello \(index)")
                #expect(try await guest.frame().payload == Array("hello \(index)".utf8))
            }
        }
    }

    // MARK: - Keys

    @Test func `pass under new keys of either side, before and after a handoff`() async throws {
        try await Relay.runTLS(workers: 4, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
                for round in 0..<4 {
                    let session = Session()
                    let host = try await relay.join(session.host())
                    let client = try SClient.start(relay, ["-brief", "-ciphersuites", suite])
                    defer { client.signal(SIGKILL) }
                    try await eventually("a handshake") { client.errors.contains("CONNECTION ESTABLISHED") }
                    var renewals = 0
                    // `k` renews the client's key, `K` the relay's as well.
                    func renew(_ commands: String) async throws {
                        for command in commands {
                            renewals += 1
                            client.write("\(command)\n")
                            try await eventually("a command") {
                                client.errors.components(separatedBy: "KEYUPDATE\n").count - 1 == renewals
                            }
                        }
                    }
                    func output(_ text: String, times: Int) async throws {
                        try await eventually("\(text); there is \(client.output) \(client.errors)") {
                            client.output.components(separatedBy: text).count - 1 == times
                        }
                    }
                    try await renew("kK")
                    client.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    try await output(SClient.answer, times: 1)
                    // From here on the owner of the room has the connection; at times with a key just renewed.
                    try await renew(round % 2 == 0 ? "Kk" : "K")
                    client.write(session.guest("g").head)
                    try await output("HTTP/1.1 101 ", times: 1)
                    for index in 0..<6 {
                        try await renew(index % 2 == 0 ? "K" : "kK")
                        client.write(RawFrame.client(text: "up \(index)"))
                        #expect(try await host.data(index + 1).last == "up \(index)")
                        host.send("down \(index)")
                        try await output("down \(index)", times: 1)
                    }
                    client.write(RawFrame.client(0x88, []))
                    #expect(try await client.finished() == .status(0))
                    #expect(try await host.data(7).last?.contains("session:leave") == true)
                    #expect(!client.errors.contains("error"), "\(client.errors)")
                }
            }
        }
    }

    // MARK: - Slow readers

    @Test func `to a slow reader lose voice and no data`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let session = Session()
            let sender = try await relay.join(session.host())
            let quick = try await relay.join(session.guest("quick"))
            let slow = try await relay.tlsJoin(session.guest("slow"), receiveBuffer: 8192)
            let blocking = (0..<32).map { "\($0) " + String(repeating: "x", count: 16_384) }
            for text in blocking { sender.send(text) }
            _ = try await quick.data(blocking.count)
            let frames = 1000
            for index in 0..<frames {
                sender.send(binary: [0x4B, 0x56] + Array("\(index)".utf8) + [UInt8](repeating: 0, count: 60))
                if index % 50 == 49 { try await eventually("voice") { quick.voice.count == index + 1 } }
            }
            sender.send("the end")
            _ = try await quick.data(blocking.count + 1)
            var data: [String] = []
            var voice: [Int] = []
            while data.last != "the end" {
                let frame = try await slow.frame()
                #expect(frame.first == 0x82)
                if frame.payload.starts(with: [0x4B, 0x56]) {
                    voice.append(
                        try #require(Int(String(decoding: frame.payload[2...].prefix { $0 != 0 }, as: UTF8.self))))
                } else {
                    data += frame.payload.split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
                }
            }
            #expect(data == blocking + ["the end"])
            #expect(Array(voice.suffix(64)) == Array((frames - 64)..<frames))
            #expect(voice == voice.sorted() && voice.count < 64 + frames / 2)
            #expect(slow.errors == [])
        }
    }

    @Test func `that are too many for a slow reader close it with 1013, or in the middle of a frame`() async throws {
        try await Relay.runTLS(
            workers: 2, ["RELAY_MAX_BACKLOG": "200000", "RELAY_MAX_MESSAGE_SIZE": "100000"]
        ) { relay in
            let session = Session()
            let sender = try await relay.join(session.host())
            let quick = try await relay.join(session.guest("quick"))
            let slow = try await relay.tlsJoin(session.guest("slow"), receiveBuffer: 8192)
            var sent: [String] = []
            while !quick.data.contains(where: { $0.contains("session:leave") }) {
                try #require(sent.count < 1000)
                sent.append("\(sent.count) " + String(repeating: "y", count: 25_000))
                sender.send(sent[sent.count - 1])
                _ = try await quick.data(sent.count)
            }
            sender.send("after")
            try await eventually("what is said afterwards") { quick.data.last == "after" }
            #expect(quick.data.filter { !$0.contains("session:leave") } == sent + ["after"])
            var data: [String] = []
            var isCut = true
            while let frame = try? await slow.frame() {
                if frame.opcode == 8 {
                    #expect(frame.closeCode == 1013)
                    isCut = false
                    break
                }
                data += frame.payload.split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
            }
            #expect(data == Array(sent.prefix(data.count)) && data.count < sent.count)
            _ = try await slow.rest()
            #expect(isCut || (slow.isClosed && slow.errors == []))
        }
    }

    // MARK: - The end

    @Test func `end with close_notify, whoever ends the connection and for whatever reason`() async throws {
        try await Relay.runTLS(workers: 2, ["RELAY_MAX_MESSAGE_SIZE": "2000"]) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            var left = 0
            for (name, bytes, code) in [
                ("a close frame", RawFrame.client(0x88, [0x03, 0xE8]), 1000),
                ("a frame too long", RawFrame.client(0x82, [UInt8](repeating: 1, count: 2001)), 1009),
                ("a reserved opcode", RawFrame.client(0x83, []), 1002),
                ("text that is none", RawFrame.client(0x81, [0xFF]), 1007),
            ] {
                let guest = try await relay.tlsJoin(session.guest())
                try await guest.send(bytes)
                #expect(try await guest.closeCode() == code, "\(name)")
                #expect(try await guest.rest() == [], "\(name)")
                #expect(guest.isClosed && guest.errors == [], "\(name)")
                left += 1
                _ = try await host.data(left)
            }
            // The client's own close_notify, without a close frame, is answered by one.
            let silent = try await relay.tlsJoin(session.guest("silent"))
            try await silent.close()
            #expect(try await silent.rest() == [])
            #expect(silent.isClosed && silent.errors == [])
            #expect(try await host.data(left + 1).last?.contains(#""from":"silent""#) == true)
            // So is one between requests, and an answer that ends a connection.
            let page = try await relay.tlsClient()
            try await page.close()
            #expect(try await page.rest() == [])
            #expect(page.isClosed && page.errors == [])
            let answered = try await relay.tlsClient()
            try await answered.send("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(try await answered.response().status == 404)
            #expect(try await answered.rest() == [])
            #expect(answered.isClosed && answered.errors == [])
            // And the relay's own end.
            relay.process.signal(SIGTERM)
            #expect(try await host.ended() == .closed(code: 1001))
            #expect(!host.isTruncated)
            #expect(try await relay.process.ended() == .status(0))
        }
    }

    @Test func `go on where a client shuts its socket alone`() async throws {
        try await Relay.runTLS(workers: 2) { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let guest = try await relay.tlsJoin(session.guest("cut"))
            // A FIN without close_notify: an end all the same, and the others hear of it.
            guest.socket.finish()
            #expect(try await host.data(1).last?.contains(#""from":"cut""#) == true)
            #expect(try await guest.rest() == [])
            let other = try await relay.tlsJoin(session.guest("reset"))
            other.socket.reset()
            #expect(try await host.data(2).last?.contains(#""from":"reset""#) == true)
            host.send("still there")
            let last = try await relay.join(session.guest())
            host.send("and on")
            try await eventually("what is said") { last.data.contains("and on") }
        }
    }

    // MARK: - A storm

    @Test func `of a call are not lost while 300 clients come at once`() async throws {
        try await Relay.runTLS(workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "0"]) { relay in
            let session = Session()
            let speaker = try await relay.join(session.host())
            let listener = try await relay.join(session.guest())
            let sessions = (0..<300).map { _ in Session() }
            let storm = Task {
                try await withThrowingTaskGroup(of: WebSocketClient.self) { group in
                    for session in sessions { group.addTask { try await relay.join(session.host()) } }
                    var clients: [WebSocketClient] = []
                    for try await client in group { clients.append(client) }
                    return clients
                }
            }
            let finished = Flag()
            Task {
                _ = await storm.result
                finished.set()
            }
            // One frame behind the other, heard before the next is said: none may be lost, storm or not.
            var frames = 0
            while !finished.isSet || frames < 50 {
                speaker.send(binary: [0x4B, 0x56] + Array("\(frames)".utf8))
                frames += 1
                try await eventually("frame \(frames)", seconds: 60) { listener.voice.count == frames }
            }
            let clients = try await storm.value
            #expect(clients.count == 300 && clients.allSatisfy(\.isOpen))
            #expect(listener.voice == (0..<frames).map { [0x4B, 0x56] + Array("\($0)".utf8) })
            #expect(listener.messages.count == frames)
        }
    }
}
