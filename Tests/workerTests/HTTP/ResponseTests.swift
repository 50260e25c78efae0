import COpenSSL
import Foundation
import Shared
import Testing

@testable import worker

@Suite struct `Responses` {
    let date: UInt64 = 784_111_777

    func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    @Test func `to errors are plain text and close the connection`() {
        let response = Response.error(.notFound, "room not found", unixSeconds: date)
        #expect(
            text(response) == """
                HTTP/1.1 404 Not Found\r
                Date: Sun, 06 Nov 1994 08:49:37 GMT\r
                Content-Type: text/plain; charset=utf-8\r
                X-Content-Type-Options: nosniff\r
                Content-Length: 14\r
                Connection: close\r
                \r
                room not found
                """)
    }

    @Test func `keep the connection as the request does`() throws {
        func connection(_ request: String) throws -> Bool {
            let response = text(Response.error(.notFound, "not found", request: try head(request), unixSeconds: date))
            #expect(
                response.contains("\r\nConnection: close\r\n") != response.contains("\r\nConnection: keep-alive\r\n"))
            return response.contains("\r\nConnection: keep-alive\r\n")
        }
        #expect(try connection(get("/x")))
        #expect(try !connection(get("/x", "Connection: close")))
        #expect(try !connection(get("/x", "Content-Length: 1")))
        #expect(try connection(get("/x", "Connection: keep-alive", version: "HTTP/1.0")))
        #expect(try !connection(get("/x", version: "HTTP/1.0")))
    }

    @Test(arguments: [
        (Health.ok, "200 OK", #"{"status":"ok"}"#), (.degraded, "200 OK", #"{"status":"degraded"}"#),
        (.unavailable, "503 Service Unavailable", #"{"status":"unavailable"}"#),
    ])
    func `tell the health`(health: Health, status: String, body: String) throws {
        let response = text(Response.health(health, request: try head(get("/health")), unixSeconds: date))
        #expect(
            response == """
                HTTP/1.1 \(status)\r
                Date: Sun, 06 Nov 1994 08:49:37 GMT\r
                Content-Type: application/json\r
                Cache-Control: no-store\r
                X-Content-Type-Options: nosniff\r
                Content-Length: \(body.utf8.count)\r
                Connection: keep-alive\r
                \r
                \(body)
                """)
    }

    @Test func `to HEAD are those to GET without content`() throws {
        let request = try head(get("/health"))
        var headRequest = request
        headRequest.method = .head
        let answers: [(Request) -> [UInt8]] = [
            { Response.health(.ok, request: $0, unixSeconds: date) },
            { Response.statusPage(request: $0, unixSeconds: date) },
            { Response.error(.notFound, "not found", request: $0, unixSeconds: date) },
            { Response.refusal(.malformed("x"), request: $0, unixSeconds: date) },
        ]
        for answer in answers {
            let full = text(answer(request))
            let end = try #require(full.range(of: "\r\n\r\n"))
            #expect(text(answer(headRequest)) == full[..<end.upperBound])
            #expect(full[end.upperBound...].utf8.count > 0)
        }
    }

    @Test func `to refusals carry what their status asks for, and close`() throws {
        func refusal(_ status: Status, retryAfter: UInt64? = nil) throws -> String {
            let error = RequestError(status: status, text: "x")
            return text(Response.refusal(error, retryAfter: retryAfter, request: try head(get()), unixSeconds: date))
        }
        #expect(try refusal(.methodNotAllowed).contains("\r\nAllow: GET\r\n"))
        let upgrade = try refusal(.upgradeRequired)
        #expect(upgrade.hasPrefix("HTTP/1.1 426 Upgrade Required\r\n"))
        #expect(upgrade.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"))
        #expect(upgrade.contains("\r\nConnection: Upgrade, close\r\n"))
        #expect(try refusal(.tooManyRequests, retryAfter: 7).contains("\r\nRetry-After: 7\r\n"))
        #expect(try refusal(.unauthorized).contains("\r\nWWW-Authenticate: Bearer\r\n"))
        #expect(try refusal(.badRequest).contains("\r\nConnection: close\r\n"))
    }

    @Test func `to good handshakes are RFC 6455's`() {
        #expect(
            text(Response.switchingProtocols(accept: Array("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".utf8))) == """
                HTTP/1.1 101 Switching Protocols\r
                Upgrade: websocket\r
                Connection: Upgrade\r
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r
                \r

                """)
    }

    @Test func `with the status page allow its style sheet and nothing else`() throws {
        let page = text(Response.statusPage(request: try head(get()), unixSeconds: date))
        let start = try #require(page.range(of: "<style>")).upperBound
        let end = try #require(page.range(of: "</style>")).lowerBound
        let style = Array(page[start..<end].utf8)
        var digest = [UInt8](repeating: 0, count: 32)
        _ = SHA256(style, style.count, &digest)
        let hash = String(decoding: encodeBase64(digest), as: UTF8.self)
        #expect(page.contains("default-src 'none'; style-src 'sha256-\(hash)';"))
        #expect(page.contains("\r\nCache-Control: no-store\r\n"))
        for part in ["<script", "style=", "src=", "url(", "http:", "https:", "@import", "<link", "<img"] {
            #expect(!page[end...].contains(part) && !String(decoding: style, as: UTF8.self).contains(part))
        }
        #expect(page.contains(#"href="/health""#))
    }

    @Test(
        arguments: [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"), (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"), (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_735_689_600, "Wed, 01 Jan 2025 00:00:00 GMT"), (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        ] as [(UInt64, String)])
    func `date themselves by RFC 9110`(seconds: UInt64, text: String) {
        #expect(httpDate(unixSeconds: seconds) == text)
    }
}
