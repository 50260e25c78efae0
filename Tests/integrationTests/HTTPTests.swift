import Foundation
import Testing

@Suite struct `HTTP` {
    static let ok = #"{"status":"ok"}"#

    @Test func `health is exactly what monitors compare with`() async throws {
        try await Relay.run { relay in
            let answer = try await curl("-i", relay.url("/health"))
            #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(answer.lowercased().contains("\r\ncontent-type: application/json\r\n"))
            #expect(answer.hasSuffix("\r\n\r\n" + Self.ok))
        }
    }

    @Test func `the status page is HTML and comes whole`() async throws {
        try await Relay.run { relay in
            let answer = try await curl("-i", relay.url("/"))
            #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(answer.lowercased().contains("\r\ncontent-type: text/html"))
            #expect(answer.contains("</html>"))
        }
    }

    @Test func `HEAD is answered without content where GET is`() async throws {
        try await Relay.run { relay in
            for path in ["/", "/health"] {
                let get = try await relay.answer("GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n")
                let client = try await RawClient(relay.port)
                try await client.send(
                    "HEAD \(path) HTTP/1.1\r\nHost: x\r\n\r\nHEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
                        + "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                let head = try await client.response(hasBody: false)
                #expect(head.status == 200)
                #expect(head["content-length"] == "\(get.body.utf8.count)")
                #expect(try await client.response(hasBody: false).status == 404)
                // Were there content, it would stand here.
                #expect(try await client.response().body == Self.ok)
            }
        }
    }

    @Test func `other paths are 404 and other methods 405 with Allow`() async throws {
        try await Relay.run { relay in
            for path in ["/x", "/health/", "/ws/", "/index.html", "/WS", "/..%2fhealth", "//"] {
                #expect(try await curl("-o", "/dev/null", "-w", "%{http_code}", relay.url(path)) == "404", "\(path)")
            }
            for escaped in ["/%77s?room=a&token=b", "/%68ealth", "/healt%68", "/%2F"] {
                let answer = try await relay.answer("GET \(escaped) HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(answer.status == 404, "\(escaped)")
            }
            for (method, path) in [("POST", "/"), ("DELETE", "/health"), ("OPTIONS", "/health"), ("get", "/")] {
                let answer = try await relay.answer("\(method) \(path) HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(answer.status == 405, "\(method) \(path)")
                #expect(answer["allow"] == "GET, HEAD")
            }
            let session = Session()
            for method in ["POST", "HEAD", "PUT"] {
                var join = session.host()
                join.method = method
                let client = try await RawClient(relay.port)
                try await client.send(join.head)
                let answer = try await client.response(hasBody: method != "HEAD")
                #expect(answer.status == 405, "\(method)")
                #expect(answer["allow"] == "GET")
                // Nothing behind it: of HEAD no content above all.
                #expect(try await client.rest() == [])
            }
        }
    }

    @Test func `pipelined requests are answered in their order`() async throws {
        try await Relay.run(workers: 1) { relay in
            let paths = (0..<100).map { ["/health", "/", "/nowhere"][$0 % 3] }
            let client = try await RawClient(relay.port)
            try await client.send(paths.map { "GET \($0) HTTP/1.1\r\nHost: x\r\n\r\n" }.joined())
            for (index, path) in paths.enumerated() {
                let answer = try await client.response()
                #expect(answer.status == (path == "/nowhere" ? 404 : 200))
                #expect((answer.body == Self.ok) == (path == "/health"))
                #expect(answer["connection"] == (index == 99 ? "close" : "keep-alive"))
            }
            // As many as a connection that does not join may ask.
            #expect(try await client.rest() == [])
        }
    }

    @Test func `a client that resets amid answers to pipelined requests harms nobody`() async throws {
        try await Relay.run(workers: 1) { relay in
            let workers = relay.workerPIDs
            // Few and many answers waiting, and whatever kind of request is the one that finds the socket broken.
            let lasts = [
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /\r\n\r\n",
                "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", "GET /ws?room=a&token=b HTTP/1.1\r\nHost: x\r\n\r\n",
            ]
            for last in lasts {
                for count in [1, 7, 8, 9, 40] {
                    let client = try await RawClient(relay.port)
                    let requests = String(repeating: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", count: count)
                    try await client.send(requests + last)
                    client.reset()
                }
            }
            try await relay.healthy()
            #expect(relay.workerPIDs == workers)
        }
    }

    @Test func `requests may come in any pieces`() async throws {
        try await Relay.run(workers: 1) { relay in
            let client = try await RawClient(relay.port)
            for byte in "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: y\r\n\r\n".utf8 {
                try await client.send([byte])
            }
            for _ in 0..<2 { #expect(try await client.response().body == Self.ok) }
        }
    }

    @Test func `a join may follow other requests on its connection`() async throws {
        try await Relay.run(workers: 4) { relay in
            // Each room on a worker of its own: most of these are handed over with answers in front of them.
            for _ in 0..<12 {
                let session = Session()
                let client = try await RawClient(relay.port)
                let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
                try await client.send(health + health + session.host().head)
                for _ in 0..<2 { #expect(try await client.response().body == Self.ok) }
                #expect(try await client.response().status == 101)
                let guest = try await relay.join(session.guest())
                guest.send("hello")
                #expect(try await client.frame().payload == Array("hello".utf8))
            }
        }
    }

    @Test func `HTTP 1.0 is served on the pages alone`() async throws {
        try await Relay.run(workers: 1) { relay in
            #expect(try await curl("--http1.0", relay.url("/health")) == Self.ok)
            for path in ["/", "/health"] {
                let client = try await RawClient(relay.port)
                try await client.send("GET \(path) HTTP/1.0\r\n\r\n")
                #expect(try await client.response().status == 200)
                #expect(try await client.rest() == [])
            }
            let head = Session().host().head.replacingOccurrences(of: "HTTP/1.1", with: "HTTP/1.0")
            #expect(try await relay.answer(head).status == 400)
            #expect(try await relay.answer("GET / HTTP/2.0\r\nHost: x\r\n\r\n").status == 505)
        }
    }

    @Test func `a request with content is answered and the connection closed`() async throws {
        try await Relay.run(workers: 1) { relay in
            for fields in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
                let client = try await RawClient(relay.port)
                // The content looks like a request: it must not be taken for one.
                try await client.send(
                    "GET /health HTTP/1.1\r\nHost: x\r\n\(fields)\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(try await client.response().body == Self.ok)
                #expect(try await client.rest() == [])
            }
        }
    }

    @Test(arguments: [
        ("Content-Length with Transfer-Encoding", "Host: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("bare LF", "Host: x\nA: b\r\n\r\n"), ("bare LF at the end", "Host: x\n\n"),
        ("folding", "Host: x\r\nA: b\r\n c\r\n\r\n"), ("NUL", "Host: x\r\nA: b\0c\r\n\r\n"),
        ("no Host", "A: b\r\n\r\n"),
        ("two Hosts", "Host: x\r\nHost: x\r\n\r\n"), ("a blank before the colon", "Host : x\r\n\r\n"),
        ("no colon", "Host: x\r\nAccept\r\n\r\n"), ("contradicting lengths", "Host: x\r\nContent-Length: 1, 2\r\n\r\n"),
    ])
    func `a malformed head is 400 and ends the connection`(name: String, rest: String) async throws {
        try await Relay.run(workers: 1) { relay in
            let client = try await RawClient(relay.port)
            try await client.send("GET /health HTTP/1.1\r\n\(rest)GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(try await client.response().status == 400, "\(name)")
            #expect(try await client.rest() == [], "\(name)")
        }
    }

    @Test func `a head is 16 KiB at most`() async throws {
        try await Relay.run(workers: 1) { relay in
            func request(_ bytes: Int) -> String {
                let start = "GET /health HTTP/1.1\r\nHost: x\r\nA: "
                return start + String(repeating: "a", count: bytes - start.utf8.count - 4) + "\r\n\r\n"
            }
            for (head, status) in [
                (request(16_384), 200), (request(16_385), 431), (String(request(40_000).dropLast(4)), 431),
            ] {
                let answer = try await relay.answer(head)
                #expect(answer.status == status)
            }
        }
    }

    @Test func `a request that does not end is given up`() async throws {
        try await Relay.run(workers: 1) { relay in
            let silent = try await RawClient(relay.port)
            let slow = try await RawClient(relay.port)
            try await slow.send("GET /health HTTP/1.1\r\nHost:")
            #expect(try await silent.rest(seconds: 40) == [])
            #expect(try await slow.rest(seconds: 40) == [])
        }
    }
}
