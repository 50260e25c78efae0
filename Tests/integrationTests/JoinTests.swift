import Testing

@Suite struct `Joining` {
    @Test func `a host and its guests are let in, without extension or subprotocol`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let raw = try await RawClient(relay.port)
            try await raw.send(
                session.host().with("Sec-WebSocket-Extensions", "permessage-deflate")
                    .with("Sec-WebSocket-Protocol", "chat").head)
            let response = try await raw.response()
            #expect(response.status == 101)
            // RFC 6455, 1.3: the example's key and its answer.
            #expect(response["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            #expect(response["upgrade"]?.lowercased() == "websocket")
            #expect(response["connection"]?.lowercased() == "upgrade")
            #expect(response["sec-websocket-extensions"] == nil)
            #expect(response["sec-websocket-protocol"] == nil)
            _ = try await relay.join(session.guest("a"))
            _ = try await relay.join(session.guest("b"))
        }
    }

    @Test func `the first check that fails answers a host`() async throws {
        try await Relay.run(
            workers: 2, ["RELAY_RATE_LIMIT_PER_IP": "1", "RELAY_MAX_CLIENTS_PER_ROOM": "1", "RELAY_MAX_ROOMS": "1"]
        ) { relay in
            // Each request from an address of its own, so that the limit counts only where it is meant to.
            var last = 1
            func answer(_ join: Join) async throws -> String {
                last += 1
                return try await relay.answer(join.with("X-Forwarded-For", "192.0.2.\(last)")).answer
            }
            let session = Session()
            var members: [WebSocketClient] = []
            for index in 0..<5 {
                let address = [("X-Forwarded-For", "198.51.100.\(index)")]
                members.append(try await relay.join(session.host("h\(index)"), extra: address))
            }

            // Everything is wrong with this one; then one thing after the other is put right.
            let intruder = HostKey()
            var join = Join(room: session.room, publicKey: "AAAA").with("Sec-WebSocket-Version", "12")
            let limited = try await awaited("the rate limit") {
                let answer = try await relay.answer(join.with("X-Forwarded-For", "192.0.2.1"))
                return answer.status == 429 ? answer : nil
            }
            #expect(limited.answer == "429 rate limit exceeded")
            #expect(limited["retry-after"].flatMap { Int($0) } ?? 0 >= 1)

            #expect(try await answer(join) == "400 missing room or token")
            join.token = HostKey().token(room: "other", peer: "p")
            join.room = String(repeating: "r", count: 257)
            #expect(try await answer(join) == "400 invalid room")
            join.room = session.room
            #expect(try await answer(join).hasPrefix("426 "))
            join = join.with("Sec-WebSocket-Version", "13")
            #expect(try await answer(join) == "400 invalid pubkey")
            join.publicKey = intruder.parameter
            #expect(try await answer(join) == "401 invalid token: invalid signature")
            join.token = intruder.token(room: "other", peer: "p")
            #expect(try await answer(join) == "403 room mismatch")
            join.token = intruder.token(room: session.room, peer: "p")
            #expect(try await answer(join) == "403 host role required")
            join.token = intruder.token(room: session.room, peer: "p", role: "host")
            #expect(try await answer(join) == "403 room held by another host")
            #expect(try await answer(session.host("h6")) == "503 room full")
            // The room that there is does not count as a new one; another would.
            #expect(try await answer(Session().host()) == "503 max rooms reached")
            for member in members { #expect(member.isOpen) }
        }
    }

    @Test func `the first check that fails answers a guest`() async throws {
        try await Relay.run(["RELAY_MAX_CLIENTS_PER_ROOM": "1"]) { relay in
            let session = Session()
            var join = Join(room: session.room, token: "x")
            #expect(try await relay.answer(join).answer == "404 room not found")
            let host = try await relay.join(session.host())
            #expect(try await relay.answer(join).answer == "401 invalid token: malformed JWT")
            join.token = session.key.token(room: "other", peer: "p")
            #expect(try await relay.answer(join).answer == "403 room mismatch")
            #expect(try await relay.answer(session.guest()).answer == "503 room full")
            #expect(host.isOpen)
        }
    }

    @Test func `parameters are percent-decoded and the first of a repeated one counts`() async throws {
        try await Relay.run { relay in
            let session = Session("a b+c&d=ü😀%/")
            let host = try await relay.join(session.host())
            var guest = session.guest()
            guest.path = "/ws?room=a+b%2bc%26d%3D%C3%BC%F0%9F%98%80%25%2F&token=\(guest.token ?? "")&room=other&token="
            guest.room = nil
            guest.token = nil
            let raw = try await relay.rawJoin(guest)
            host.send("hello")
            #expect(try await raw.frame().payload == Array("hello".utf8))
        }
    }

    @Test func `a room id is 1 to 256 bytes of UTF-8 without control characters`() async throws {
        try await Relay.run { relay in
            let key = HostKey()
            for good in [String(repeating: "r", count: 256), "x", " ", String(repeating: "ü", count: 128)] {
                let join = Join(
                    room: good, token: key.token(room: good, peer: "p", role: "host"), publicKey: key.parameter)
                _ = try await relay.join(join)
            }
            for bad in ["a%0Ab", "%00", "a%7F", "%C2%85", "%FF", "%C3", String(repeating: "%C3%BC", count: 129)] {
                let answer = try await relay.answer(Join(path: "/ws?room=\(bad)&token=x").head)
                #expect(answer.answer == "400 invalid room", "\(bad)")
            }
            for missing in ["", "?room=r", "?token=t", "?room=&token=t", "?room=r&token="] {
                let answer = try await relay.answer(Join(path: "/ws\(missing)").head)
                #expect(answer.answer == "400 missing room or token", "\(missing)")
            }
        }
    }

    @Test func `a handshake that is none is 400 or 426`() async throws {
        try await Relay.run { relay in
            let join = Session().host()
            let cases: [(Join, Int)] = [
                (join.with("Upgrade", nil), 426), (join.with("Upgrade", "h2c"), 426),
                (join.with("Connection", "keep-alive"), 426), (join.with("Sec-WebSocket-Version", "8"), 426),
                (join.with("Sec-WebSocket-Version", nil), 426), (join.with("Sec-WebSocket-Key", nil), 400),
                (join.with("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="), 400),
                (join.with("Sec-WebSocket-Key", "no base64 at all!"), 400), (join.with("Content-Length", "1"), 400),
            ]
            for (join, status) in cases {
                let answer = try await relay.answer(join)
                #expect(answer.status == status, "\(join.fields)")
                if status == 426 { #expect(answer["sec-websocket-version"] == "13") }
            }
            // None of them has opened the room.
            #expect(try await relay.answer(Session(join.room ?? "").guest()).answer == "404 room not found")
        }
    }

    @Test func `a bad token is 401 with its reason`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let (room, key) = (session.room, session.key)
            let host = try await relay.join(session.host())
            let good = key.token(room: room, peer: "p")
            let segments = good.split(separator: ".").map(String.init)
            func claims(_ text: String) -> String { key.token(claims: text) }
            let cases: [(String, String)] = [
                ("a.b", "malformed JWT"), (good + ".", "malformed JWT"),
                (String(repeating: "x", count: 4097), "malformed JWT"),
                (key.sign(base64URL(Array(#"{"alg":"none"}"#.utf8)), segments[1]), "unsupported JWT algorithm"),
                (
                    key.sign(base64URL(Array(#"{"typ":"JWT","alg":"EdDSA"}"#.utf8)), segments[1]),
                    "unsupported JWT algorithm"
                ),
                ("\(segments[0]).\(segments[1]).\(segments[2])==", "invalid signature encoding"),
                ("\(segments[0]).\(segments[1]).a!b", "invalid signature encoding"),
                (HostKey().token(room: room, peer: "p"), "invalid signature"),
                ("\(segments[0]).\(segments[1]).", "invalid signature"),
                // The signature comes before the claims: these are no JSON, and signed by another.
                (HostKey().token(claims: "no JSON"), "invalid signature"),
                (key.sign(HostKey.header, "e30="), "invalid claims encoding"),
                (claims("no JSON"), "invalid claims JSON"), (claims("[]"), "invalid claims JSON"),
                (claims(#"{"room_id":1,"peer_id":"p","role":"guest"}"#), "invalid claims JSON"),
                (claims(#"{"room_id":"r","peer_id":"p","role":"guest","exp":"1"}"#), "invalid claims JSON"),
                (claims(#"{"room_id":"r","peer_id":"p","role":"guest","exp":1.5}"#), "invalid claims JSON"),
                (claims(#"{"peer_id":"p","role":"guest"}"#), "missing room_id"),
                (claims(#"{"Room_ID":"r","peer_id":"p","role":"guest"}"#), "missing room_id"),
                (claims(#"{"room_id":"r","role":"guest"}"#), "missing peer_id"),
                (claims(#"{"room_id":"r","peer_id":"p"}"#), "invalid role"),
                (claims(#"{"room_id":"r","peer_id":"p","role":"admin"}"#), "invalid role"),
                (key.token(room: room, peer: String(repeating: "p", count: 257)), "invalid peer_id"),
                (key.token(room: room, peer: "p", expiry: 1_000_000_000), "token expired"),
            ]
            for (token, reason) in cases {
                let answer = try await relay.answer(Join(room: room, token: token))
                #expect(answer.answer == "401 invalid token: \(reason)", "\(token)")
            }
            #expect(host.isOpen)
        }
    }

    @Test func `a token without expiry, with claims unknown or a host's role lets a guest in`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let room = json(session.room)
            let peer = String(repeating: "p", count: 256)
            for claims in [
                #"{"room_id":\#(room),"peer_id":"p","role":"guest"}"#,
                #"{"room_id":\#(room),"peer_id":"p","role":"guest","exp":0,"new":[{"a":1}],"peer":"q"}"#,
                #"{"room_id":\#(room),"peer_id":"\#(peer)","role":"host","name":"N"}"#,
            ] {
                let guest = try await relay.join(Join(room: session.room, token: session.key.token(claims: claims)))
                guest.send("here")
            }
            #expect(try await host.data(3).contains("here"))
        }
    }

    @Test func `nobody takes over a room that is held`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let thief = Session(session.room)
            #expect(try await relay.answer(thief.host()).answer == "403 room held by another host")
            // Nor with a request that is no handshake.
            #expect(try await relay.answer(thief.host().with("Upgrade", nil)).status == 426)
            #expect(try await relay.answer(thief.guest()).answer == "401 invalid token: invalid signature")
            let guest = try await relay.join(session.guest())
            guest.send("still ours")
            #expect(try await host.data(1) == ["still ours"])

            // While anybody is there the key holds; then the room is free.
            host.abort()
            _ = try await guest.data(1)
            #expect(try await relay.answer(thief.host()).answer == "403 room held by another host")
            let returned = try await relay.join(session.host())
            returned.abort()
            guest.abort()
            try await eventually("a room without members to be free") {
                do {
                    _ = try await relay.join(thief.host())
                    return true
                } catch is Refusal {
                    return false
                }
            }
        }
    }

    @Test func `guests stay, and join, while the host is away`() async throws {
        try await Relay.run { relay in
            let session = Session()
            let host = try await relay.join(session.host())
            let one = try await relay.join(session.guest("one"))
            host.close(code: 1000)
            #expect(try await host.ended() == .closed(code: 1000))
            let two = try await relay.join(session.guest("two"))
            two.send("hello")
            #expect(try await one.data(2).last == "hello")
            one.abort()
            two.abort()
            try await eventually("the room's end") {
                try await relay.answer(session.guest()).answer == "404 room not found"
            }
        }
    }
}
