// Requests that the relay must answer with an exact refusal, and its pages.

extension CheckRun {
    func checkPages(_ property: inout Property, _ deadline: Deadline) throws(ConnectError) {
        if let health = try answer(.plain("/health"), "GET /health", &property, deadline) {
            property.expect("GET /health", health.summary, is: #"200 {"status":"ok"}"#)
            property.expect("GET /health Content-Type", health["content-type"] ?? "none", is: "application/json")
        }
        if let page = try answer(.plain("/"), "GET /", &property, deadline) {
            property.expect("GET /", page.status, is: 200)
            let type = page["content-type"] ?? "none"
            property.expect(type.hasPrefix("text/html"), "GET / Content-Type: expected text/html, got \(type)")
        }
        if let unknown = try answer(.plain("/unknown"), "GET /unknown", &property, deadline) {
            property.expect("GET /unknown", unknown.status, is: 404)
        }
        for target in ["/", "/health"] {
            guard let wrong = try answer(.plain(target, method: "DELETE"), "DELETE \(target)", &property, deadline)
            else {
                continue
            }
            property.expect("DELETE \(target)", wrong.status, is: 405)
            property.expect(wrong["allow"]?.contains("GET") == true, "DELETE \(target): expected Allow with GET")
        }
    }

    private func answer(
        _ request: Request, _ what: String, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) -> Answer? {
        let exchange = try request.perform(at: endpoint, deadline: deadline)
        if case .answered(let answer) = exchange { return answer }
        property.fail("\(what): expected an answer, got \(exchange.summary)")
        return nil
    }

    /// The request must be answered with exactly this.
    func refuse(
        _ request: Request, _ what: String, _ status: Int, _ text: String, _ property: inout Property,
        _ deadline: Deadline
    ) throws(ConnectError) {
        let exchange = try request.perform(at: endpoint, deadline: deadline)
        guard case .answered(let answer) = exchange else {
            property.fail("\(what): expected \(status) \(text), got \(exchange.summary)")
            return
        }
        property.expect(what, answer.summary, is: "\(status) \(text)")
        let type = answer["content-type"] ?? "none"
        property.expect(type.hasPrefix("text/plain"), "\(what): Content-Type: expected text/plain, got \(type)")
    }

    func checkRefusals() {
        let room = CheckRoom(index: rooms.count)
        property("refused: missing or invalid parameters (400)") { property, deadline throws(ConnectError) in
            try refuseParameters(room, &property, deadline)
        }
        property("refused: no WebSocket handshake (400, 405, 426)") { property, deadline throws(ConnectError) in
            try refuseHandshakes(room, &property, deadline)
        }
        property("refused: unknown room (404)") { property, deadline throws(ConnectError) in
            try refuse(room.guestRequest(peer: "g"), "guest before host", 404, "room not found", &property, deadline)
        }
        property("refused: invalid tokens, with the reason (401)") { property, deadline throws(ConnectError) in
            for (what, token, reason) in Self.invalidTokens(room) {
                let request = Request.join(room: room.id, token: token, hostKey: room.key.parameter)
                try refuse(request, what, 401, "invalid token: \(reason)", &property, deadline)
            }
        }
        property("refused: wrong room, guest as host, takeover (403)") { property, deadline throws(ConnectError) in
            try refuseOthers(room, &property, deadline)
        }
    }

    private func refuseParameters(
        _ room: CheckRoom, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        let token = room.key.token(Token(room: room.id, peer: "host", role: "host"))
        let missing = "missing room or token"
        try refuse(.join(room: nil, token: token), "no room", 400, missing, &property, deadline)
        try refuse(.join(room: room.id, token: nil), "no token", 400, missing, &property, deadline)
        try refuse(.join(room: "", token: token), "empty room", 400, missing, &property, deadline)
        try refuse(Request(target: "/ws"), "no query", 400, missing, &property, deadline)
        for (what, id) in [("257 bytes", String(repeating: "r", count: 257)), ("control character", "a\u{1}b")] {
            try refuse(.join(room: id, token: token), "room of \(what)", 400, "invalid room", &property, deadline)
        }
        try refuse(
            Request(target: "/ws?room=%ff&token=\(token)"), "room not UTF-8", 400, "invalid room", &property, deadline)
        let key = room.key.publicKey
        let wrongKeys = [
            ("31 bytes", Encoding.base64URL(Array(key.dropLast()))), ("33 bytes", Encoding.base64URL(key + [0])),
            ("padded", Encoding.base64URL(key) + "="), ("not base64url", "!" + Encoding.base64URL(key).dropFirst()),
        ]
        for (what, wrong) in wrongKeys {
            let request = Request.join(room: room.id, token: token, hostKey: wrong)
            try refuse(request, "pubkey \(what)", 400, "invalid pubkey", &property, deadline)
        }
    }

    /// The relay's words are its own here; statuses and fields are not.
    private func refuseHandshakes(
        _ room: CheckRoom, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        let good = room.hostRequest()
        var plain = good
        plain.upgrade = false
        var old = good
        old.version = "8"
        var shortKey = good
        shortKey.key = Encoding.base64([1, 2, 3])
        var post = good
        post.method = "POST"
        let cases: [(String, Request, [Int])] = [
            ("plain GET", plain, [400, 426]), ("version 8", old, [426]), ("key of 3 bytes", shortKey, [400]),
            ("POST", post, [405]),
        ]
        for (what, request, statuses) in cases {
            guard let answer = try answer(request, what, &property, deadline) else { continue }
            property.expect(statuses.contains(answer.status), "\(what): expected \(statuses), got \(answer.summary)")
            if answer.status == 426 {
                property.expect("\(what): Sec-WebSocket-Version", answer["sec-websocket-version"] ?? "none", is: "13")
            }
            if answer.status == 405 {
                property.expect("\(what): Allow", answer["allow"] ?? "none", is: "GET")
            }
        }
        // None of them has opened the room.
        try refuse(room.guestRequest(peer: "g"), "guest after these", 404, "room not found", &property, deadline)
    }

    private static func invalidTokens(_ room: CheckRoom) -> [(String, String, String)] {
        let good = Token(room: room.id, peer: "host", role: "host")
        let valid = room.key.token(good)
        let segments = valid.split(separator: ".").map { String($0) }
        let key = room.key
        let id = Encoding.json(room.id)
        func claims(_ text: String) -> String { key.token(claims: text) }
        let header = Encoding.base64URL(Array(#"{"typ":"JWT","alg":"EdDSA"}"#.utf8))
        let none = Encoding.base64URL(Array(#"{"alg":"none","typ":"JWT"}"#.utf8))
        // A signed second segment that is not base64url.
        let signed = Token.header + ".!" + segments[1]
        let badClaims = signed + "." + Encoding.base64URL(key.signature(of: signed))
        var expired = good
        expired.lifetimeSeconds = -3600
        let long = String(repeating: "p", count: 257)
        return [
            ("two segments", segments[0] + "." + segments[1], "malformed JWT"),
            ("four segments", valid + ".x", "malformed JWT"),
            ("other header", key.token(claims: good.claims, header: header), "unsupported JWT algorithm"),
            ("alg none", none + "." + segments[1] + ".", "unsupported JWT algorithm"),
            ("signature not base64url", segments[0] + "." + segments[1] + ".!!!!", "invalid signature encoding"),
            ("signature padded", valid + "==", "invalid signature encoding"),
            ("claims not base64url", badClaims, "invalid claims encoding"),
            ("signed by another key", HostKey().token(good), "invalid signature"),
            ("signature too short", segments[0] + "." + segments[1] + ".AAAA", "invalid signature"),
            ("claims no JSON", claims("room"), "invalid claims JSON"),
            ("claims an array", claims("[1]"), "invalid claims JSON"),
            (
                "claim of a wrong type", claims("{\"room_id\":\(id),\"peer_id\":7,\"role\":\"host\"}"),
                "invalid claims JSON"
            ),
            ("no room_id", claims(#"{"peer_id":"p","role":"host"}"#), "missing room_id"),
            ("no peer_id", claims("{\"room_id\":\(id),\"role\":\"host\"}"), "missing peer_id"),
            ("role admin", claims("{\"room_id\":\(id),\"peer_id\":\"p\",\"role\":\"admin\"}"), "invalid role"),
            ("peer_id of 257 bytes", key.token(Token(room: room.id, peer: long, role: "host")), "invalid peer_id"),
            ("expired", key.token(expired), "token expired"),
        ]
    }

    private func refuseOthers(
        _ room: CheckRoom, _ property: inout Property, _ deadline: Deadline
    ) throws(ConnectError) {
        let wrong = room.key.token(Token(room: room.id + "x", peer: "host", role: "host"))
        try refuse(
            .join(room: room.id, token: wrong, hostKey: room.key.parameter), "host's token for another room", 403,
            "room mismatch", &property, deadline)
        let guest = room.key.token(Token(room: room.id, peer: "guest", role: "guest"))
        try refuse(
            .join(room: room.id, token: guest, hostKey: room.key.parameter), "guest's token with a pubkey", 403,
            "host role required", &property, deadline)
        guard try join(room.hostRequest(), room, name: "host", &property, deadline) != nil else { return }
        try refuse(
            .join(room: room.id, token: wrong), "guest's token for another room", 403, "room mismatch", &property,
            deadline)
        let thief = CheckRoom(index: room.index, id: room.id)
        try refuse(thief.hostRequest(), "another host key", 403, "room held by another host", &property, deadline)
        var plain = thief.hostRequest()
        plain.upgrade = false
        _ = try answer(plain, "another host key, plain GET", &property, deadline)
        // The first key still holds.
        try refuse(
            .join(room: room.id, token: thief.key.token(Token(room: room.id, peer: "g", role: "guest"))),
            "guest of the other key", 401, "invalid token: invalid signature", &property, deadline)
        _ = try join(room.guestRequest(peer: "guest"), room, name: "guest after these", &property, deadline)
        let endless =
            "{\"room_id\":\(Encoding.json(room.id)),\"peer_id\":\"e\",\"role\":\"guest\",\"exp\":0,\"extra\":[]}"
        let request = Request.join(room: room.id, token: room.key.token(claims: endless))
        _ = try join(request, room, name: "guest with exp 0 and unknown claims", &property, deadline)
        // A host's token is a guest's too, without the public key.
        let asGuest = Request.join(room: room.id, token: room.key.token(Token(room: room.id, peer: "h2", role: "host")))
        _ = try join(asGuest, room, name: "guest with a host's token", &property, deadline)
    }
}
