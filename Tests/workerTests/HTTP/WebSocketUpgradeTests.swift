import Shared
import Testing

@testable import worker

@Suite struct `WebSocket handshakes` {
    func upgrade(_ text: String) throws -> WebSocketUpgrade { try head(text).upgrade }

    func refused(_ status: Status, _ text: StaticString) -> WebSocketUpgrade {
        .refused(RequestError(status: status, text: text))
    }

    func request(
        _ method: String = "GET", upgrade: String = "Upgrade: websocket", connection: String = "Connection: Upgrade",
        key: String = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", version: String = "Sec-WebSocket-Version: 13",
        http: String = "HTTP/1.1"
    ) -> String {
        let lines = ["\(method) /ws \(http)", "Host: a", upgrade, connection, key, version].filter { !$0.isEmpty }
        return lines.joined(separator: "\r\n") + "\r\n\r\n"
    }

    @Test func `get the accept value of RFC 6455's example`() throws {
        #expect(try upgrade(request()) == .valid(accept: Array("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".utf8)))
    }

    @Test func `are lenient where real clients need it`() throws {
        let accept = WebSocketUpgrade.valid(accept: Array("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".utf8))
        #expect(try upgrade(request(upgrade: "upgrade: WebSocket")) == accept)
        #expect(try upgrade(request(upgrade: "Upgrade: h2c, websocket")) == accept)
        #expect(try upgrade(request(connection: "CONNECTION: keep-alive,  UPGRADE")) == accept)
        #expect(try upgrade(request(connection: "Connection: keep-alive\r\nConnection: upgrade")) == accept)
        #expect(try upgrade(request(version: "Sec-WebSocket-Version: 13\r\nContent-Length: 0")) == accept)
        #expect(try upgrade(request(version: "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: x")) == accept)
    }

    @Test func `are refused for what is wrong`() throws {
        #expect(try upgrade(request("POST")) == refused(.methodNotAllowed, "method not allowed"))
        #expect(try upgrade(request("HEAD")) == refused(.methodNotAllowed, "method not allowed"))
        #expect(try upgrade(request(http: "HTTP/1.0")) == refused(.badRequest, "a WebSocket handshake needs HTTP/1.1"))
        for line in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
            let text = request(version: "Sec-WebSocket-Version: 13\r\n\(line)")
            #expect(try upgrade(text) == refused(.badRequest, "a WebSocket handshake has no content"))
        }
        for line in ["", "Upgrade: h2c", "Upgrade: websockets", "Upgrade:"] {
            #expect(try upgrade(request(upgrade: line)) == refused(.upgradeRequired, "Upgrade: websocket is missing"))
        }
        for line in ["", "Connection: keep-alive", "Connection: upgraded"] {
            #expect(
                try upgrade(request(connection: line)) == refused(.upgradeRequired, "Connection: Upgrade is missing"))
        }
        for version in ["", ": 8", ": 013", ": 13, 8", ":", ": 14"] {
            let line = version.isEmpty ? "" : "Sec-WebSocket-Version\(version)"
            #expect(try upgrade(request(version: line)) == refused(.upgradeRequired, "Sec-WebSocket-Version is not 13"))
        }
        let twice = request(version: "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13")
        #expect(try upgrade(twice) == refused(.badRequest, "repeated Sec-WebSocket-Version"))
        #expect(try upgrade(request(key: "")) == refused(.badRequest, "missing Sec-WebSocket-Key"))
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        #expect(try upgrade(request(key: "\(key)\r\n\(key)")) == refused(.badRequest, "repeated Sec-WebSocket-Key"))
    }

    @Test(arguments: [
        "", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWU=", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBs ZSBub25jZQ==", "-_hlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==x", "AAAA",
    ])
    func `are refused for a key that is not 16 bytes in canonical base64`(key: String) throws {
        let text = request(key: "Sec-WebSocket-Key: \(key)")
        #expect(try upgrade(text) == refused(.badRequest, "Sec-WebSocket-Key is not 16 bytes in base64"))
    }
}
