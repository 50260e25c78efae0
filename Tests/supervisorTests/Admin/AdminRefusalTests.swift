import Shared
import Testing

@testable import supervisor

@Suite struct `Requests at the admin port` {
    private func refusal(_ head: String, isLocal: Bool = false, names: [String] = []) throws -> AdminRefusal? {
        let bytes = Array("\(head)\r\n\r\n".utf8)
        guard case .head(let request) = parseRequest(bytes.span) else { throw AdminClientError(description: head) }
        let admin = AdminRequest(
            request: request, host: request.host.map { Array(bytes[$0]) }, isLocal: isLocal, connection: 2)
        return AdminRefusal(admin, names: names.compactMap { HostName($0) })
    }

    @Test(arguments: [
        "127.0.0.1", "127.0.0.1:9090", "192.0.2.1", "[::1]", "[::1]:9090", "[2001:DB8::1]", "localhost", "LocalHost:80",
    ])
    func `are answered by address and by localhost`(host: String) throws {
        #expect(try refusal("GET /metrics HTTP/1.1\r\nHost: \(host)") == nil)
    }

    @Test(arguments: [
        "evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "",
        "relay",
        "0x7f.0.0.1", "2130706433", "127.1", "::1", "[::1", "[evil]", "127.0.0.1:port", "127.0.0.1:99999", "a:b:c",
    ])
    func `are refused for any other name`(host: String) throws {
        #expect(try refusal("GET /metrics HTTP/1.1\r\nHost: \(host)") == .host)
        #expect(try refusal("GET /metrics HTTP/1.1\r\nHost: \(host)", isLocal: true) == nil)
    }

    @Test func `are answered by names that are allowed, and by no others`() throws {
        let names = ["metrics.example", "relay"]
        for host in ["metrics.example", "METRICS.example:9090", "relay:1"] {
            #expect(try refusal("GET / HTTP/1.1\r\nHost: \(host)", names: names) == nil)
        }
        for host in ["x.metrics.example", "metrics.example.", "relay.example", "metrics"] {
            #expect(try refusal("GET / HTTP/1.1\r\nHost: \(host)", names: names) == .host)
        }
    }

    @Test(arguments: ["http://127.0.0.1:9090", "null", ""])
    func `are refused with any Origin`(origin: String) throws {
        #expect(try refusal("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: \(origin)") == .origin)
        #expect(try refusal("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: \(origin)\r\norigin: x") == .origin)
        #expect(try refusal("GET / HTTP/1.1\r\nHost: x\r\nOrigin: \(origin)", isLocal: true) == nil)
    }

    @Test func `go by the target where that names a host, and by nothing where HTTP/1.0 has none`() throws {
        #expect(try refusal("GET http://evil.example/metrics HTTP/1.1\r\nHost: 127.0.0.1") == .host)
        #expect(try refusal("GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: evil.example") == nil)
        #expect(try refusal("GET /metrics HTTP/1.0") == nil)
        #expect(try refusal("GET /metrics HTTP/1.0\r\nHost: evil.example") == .host)
    }

    @Test func `are told what to set when they are refused`() throws {
        for refusal in AdminRefusal.allCases { #expect(refusal.answer.status == .forbidden) }
        #expect(AdminRefusal.host.answer.body.contains("RELAY_METRICS_HOSTS"))
        let bytes = Array("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n".utf8)
        guard case .head(let request) = parseRequest(bytes.span) else { throw AdminClientError(description: "head") }
        let admin = AdminRequest(request: request, host: Array("evil.example".utf8), isLocal: false, connection: 2)
        let reply = AdminRoutes.reply(to: admin, names: []) { .example() }
        guard case .refused(.host) = reply else { throw AdminClientError(description: "\(reply)") }
    }
}
