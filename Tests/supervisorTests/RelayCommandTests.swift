import ArgumentParser
import Shared
import Testing

@testable import supervisor

@Suite struct `The command line` {
    @Test func `runs the relay unless told otherwise`() throws {
        #expect(try RelayCommand.parseAsRoot([]) is RunCommand)
        #expect(try RelayCommand.parseAsRoot(["run"]) is RunCommand)
        #expect(try RelayCommand.parseAsRoot(["check-config"]) is CheckConfigCommand)
        #expect(try RelayCommand.parseAsRoot(["status", "--watch", "--pid", "7"]) is StatusCommand)
        #expect(try RelayCommand.parseAsRoot(["health"]) is HealthCommand)
    }

    @Test(
        arguments: [
            ([], .relay(nil)), (["--pid", "7"], .relay(7)),
            (
                ["--address", "localhost:9"],
                .address(ListenAddress(host: .address(Address(ipv4: 0x7F00_0001)), port: 9))
            ),
            (["--address", ":9"], .address(ListenAddress(host: .any, port: 9))),
        ] as [([String], AdminTarget)])
    func `tells which relay to ask`(arguments: [String], target: AdminTarget) throws {
        let status = try #require(try RelayCommand.parseAsRoot(["status"] + arguments) as? StatusCommand)
        #expect(try status.options.target == target)
        let health = try #require(try RelayCommand.parseAsRoot(["health"] + arguments) as? HealthCommand)
        #expect(try health.options.target == target)
    }

    @Test(arguments: [
        ["--port", "1"], ["start"], ["run", "now"], ["check-config", "-v"], ["-x"], [""], ["status", "--pid", "x"],
        ["status", "--pid", "1", "--address", ":9"], ["health", "--address", "9"], ["health", "--address", "host:9"],
        ["health", "--address", ":0"], ["health", "--watch"],
    ])
    func `that is wrong ends with the status for that`(arguments: [String]) {
        do {
            _ = try RelayCommand.parseAsRoot(arguments)
            Issue.record("\(arguments) were taken")
        } catch {
            #expect(RelayCommand.exitCode(for: error).rawValue == ExitStatus.usage)
        }
    }

    @Test(arguments: [["--help"], ["-h"], ["help"], ["--version"], ["run", "--help"], ["check-config", "--help"]])
    func `that asks for help or the version is right`(arguments: [String]) {
        do {
            var command = try RelayCommand.parseAsRoot(arguments)
            // `help` is a command like any other; its words come as the error that it ends with.
            if !(command is RunCommand || command is CheckConfigCommand) { try command.run() }
            Issue.record("\(arguments) did nothing")
        } catch {
            #expect(RelayCommand.exitCode(for: error) == .success)
            let message = RelayCommand.fullMessage(for: error)
            #expect(message.contains(arguments == ["--version"] ? Version.text : "relay"))
        }
    }
}
