import Shared
import Testing

@testable import supervisor

@Suite struct `Relays that run` {
    @Test func `are found by the names of their sockets, once each`() {
        let table = """
            Num       RefCount Protocol Flags    Type St Inode Path
            0000000000000000: 00000002 00000000 00010000 0001 01 54661 @relay-admin-20
            0000000000000000: 00000003 00000000 00000000 0001 03 54662 @relay-admin-20
            0000000000000000: 00000002 00000000 00010000 0001 01 54663 @relay-admin-7
            0000000000000000: 00000003 00000000 00000000 0001 03 54664 @relay-admin-8
            0000000000000000: 00000002 00000000 00010000 0001 01 54665 /run/relay-admin-9
            0000000000000000: 00000002 00000000 00010000 0001 01 54666 @relay-admin-
            0000000000000000: 00000002 00000000 00010000 0001 01 54667 @relay-admin-x
            0000000000000000: 00000002 00000000 00010000 0001 01 54668 @relay-admin--1
            0000000000000000: 00000002 00000000 00010000 0001 01 54669 @relay-admin-99999999999
            0000000000000000: 00000002 00000000 00010000 0001 01 54670 @relay-admin-5 6
            0000000000000000: 00000003 00000000 00000000 0001 03 54671

            """
        #expect(AdminSocket.relays(table: table) == [7, 20])
        #expect(AdminSocket.relays(table: "") == [])
        #expect(AdminSocket.name(pid: 20) == "relay-admin-20")
    }
}

@Suite struct `An answer of a relay` {
    @Test func `is taken apart into status and body`() throws {
        let answer = try AdminClient.parse(Array("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nx\r\n\r\ny".utf8))
        #expect(answer == AdminClient.Answer(status: 503, body: "x\r\n\r\ny"))
        #expect(try AdminClient.parse(Array("HTTP/1.1 200 OK\r\n\r\n".utf8)).body == "")
    }

    @Test(arguments: [
        "", "\r\n\r\n", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n",
    ])
    func `is none otherwise`(text: String) {
        #expect(throws: AdminClientError.self) { try AdminClient.parse(Array(text.utf8)) }
    }

    @Test func `is shown without what would act on a terminal`() {
        #expect(printable("a\u{1B}[2Jb\tc\r\nü\u{7F}") == "a?[2Jb?c?\nü?")
    }
}

@Suite struct `The routes of the admin listeners` {
    private func answer(_ method: String, _ path: String, _ report: RelayReport = .example()) throws -> AdminAnswer {
        let text = "\(method) \(path) HTTP/1.1\r\nHost: x\r\n\r\n"
        guard case .head(let request) = parseRequest(Array(text.utf8).span) else {
            throw AdminClientError(description: text)
        }
        let reply = AdminRoutes.reply(to: AdminRequest(request: request, isLocal: false, connection: 2), names: []) {
            report
        }
        guard case .now(let answer) = reply else { throw AdminClientError(description: "no answer") }
        return answer
    }

    @Test func `answer with 503 where the relay is unavailable, but alive it is always`() throws {
        var report = RelayReport.example()
        for path in ["/health", "/status", "/livez", "/readyz", "/metrics", "/"] {
            #expect(try answer("GET", path, report).status == .ok, "\(path)")
            #expect(try answer("HEAD", path, report).status == .ok, "\(path)")
        }
        report.health = .unavailable
        report.phase = .draining
        for (path, status) in [
            ("/health", .serviceUnavailable), ("/status", .serviceUnavailable), ("/readyz", .serviceUnavailable),
            ("/livez", .ok), ("/metrics", .ok),
        ] as [(String, Status)] {
            #expect(try answer("GET", path, report).status == status, "\(path)")
        }
        #expect(try answer("GET", "/readyz", report).body == "draining\n")
    }

    @Test func `know no other path and no other method`() throws {
        for path in ["/healthz", "/metrics/", "/Metrics", "//", "/ws"] {
            #expect(try answer("GET", path).status == .notFound, "\(path)")
        }
        let refused = try answer("POST", "/health")
        #expect(refused.status == .methodNotAllowed)
        #expect(refused.allow == "GET, HEAD")
    }
}

@Suite struct `Who listens at a relay's socket` {
    typealias Listener = AdminClient.Listener

    private func mistrust(_ user: UInt32, _ listener: Listener, program: String? = "/usr/bin/relay") -> String? {
        AdminClient.Asker(user: user, program: "/usr/bin/relay").mistrusts(listener) { _ in program }
    }

    @Test func `is believed if it is root, or who asks`() {
        for user in [0, 7] as [UInt32] {
            #expect(mistrust(user, Listener(user: 0, pid: 3, named: 3)) == nil)
            #expect(mistrust(user, Listener(user: 0, pid: 0, named: 3), program: nil) == nil)
        }
        #expect(mistrust(7, Listener(user: 7, pid: 3, named: 3), program: nil) == nil)
        #expect(mistrust(7, Listener(user: 8, pid: 3, named: 3)) == "it is another user's")
    }

    @Test func `is believed by root if it is the process in the name and runs the same program`() {
        let listener = Listener(user: 8, pid: 77_777, named: 77_777)
        #expect(mistrust(0, listener) == nil)
        #expect(mistrust(0, listener, program: "/tmp/relay") == "/tmp/relay of user 8 has taken it")
        #expect(mistrust(0, listener, program: nil)?.hasPrefix("user 8 has it, and it can't be seen") == true)
        #expect(mistrust(0, Listener(user: 8, pid: 3, named: 77_777)) == "process 3 of user 8 has taken it")
        #expect(mistrust(0, Listener(user: 8, pid: 0, named: 77_777)) != nil)
    }

    @Test func `is the same program where that was replaced meanwhile`() {
        #expect(WorkerProgram.installed("/usr/bin/relay (deleted)") == "/usr/bin/relay")
        #expect(WorkerProgram.installed("/usr/bin/relay") == "/usr/bin/relay")
    }
}
