import Shared
import Testing

@testable import supervisor

@Suite struct `Admin commands` {
    @Test func `are named by their paths, and nothing else is`() {
        for (path, command) in [
            ("/reload", .reload), ("/upgrade", .upgrade), ("/recycle/0", .recycle(0)), ("/recycle/255", .recycle(255)),
        ] as [(String, AdminCommand)] {
            #expect(AdminCommand(path: path) == command)
            #expect(command.path == path)
        }
        for path in [
            "", "/", "reload", "/reload/", "//reload", "/recycle", "/recycle/", "/recycle/-1", "/recycle/x",
            "/recycle/1/2", "/recycle/12345", "/Reload", "/recycle/\u{0661}",
        ] {
            #expect(AdminCommand(path: path) == nil, "\(path)")
        }
    }

    private func reply(
        _ path: String, _ method: Method = .other("POST"), isLocal: Bool = true, outcome: ChangeOutcome? = nil,
        isChanging: Bool = false
    ) throws -> (answer: AdminAnswer?, asked: AdminCommand?) {
        let text = "\(method == .get ? "GET" : "POST") \(path) HTTP/1.1\r\nHost: x\r\n\r\n"
        guard case .head(let request) = parseRequest(Array(text.utf8).span, searched: 0) else {
            throw AdminClientError(description: text)
        }
        var asked: AdminCommand?
        let reply = AdminRoutes.reply(
            to: AdminRequest(request: request, isLocal: isLocal, connection: 1), names: [], report: { RelayReport() },
            outcome: outcome, isChanging: isChanging,
            perform: { command in
                asked = command
                return .later
            })
        guard case .now(let answer) = reply else { return (nil, asked) }
        return (answer, asked)
    }

    @Test func `are taken from the relay's own user alone, and only as POST`() throws {
        for path in ["/reload", "/upgrade", "/recycle/3"] {
            let taken = try reply(path)
            #expect(taken.answer == nil && taken.asked?.path == path)
            let wrong = try reply(path, .get)
            #expect(wrong.answer?.status == .methodNotAllowed && wrong.answer?.allow == "POST" && wrong.asked == nil)
            // To others there is no such thing.
            let foreign = try reply(path, isLocal: false)
            #expect(foreign.answer?.status == .notFound && foreign.asked == nil)
        }
    }

    @Test func `are over when /change says so`() throws {
        #expect(try reply("/change", .get).answer?.status == .notFound)
        #expect(try reply("/change", .get, isLocal: false).answer?.status == .notFound)
        let good = ChangeOutcome(isSuccess: true, text: "reloaded")
        #expect(try reply("/change", .get, outcome: good).answer == .text(.ok, "reloaded\n"))
        let bad = ChangeOutcome(isSuccess: false, text: "no")
        #expect(try reply("/change", .get, outcome: bad).answer == .text(.internalServerError, "no\n"))
        #expect(try reply("/change", .get, outcome: good, isChanging: true).answer?.status == .serviceUnavailable)
    }
}
