import ArgumentParser
import Shared
import Testing

@testable import supervisor

@Suite struct `The command line` {
    @Test func `runs the relay unless told otherwise`() throws {
        #expect(try RelayCommand.parseAsRoot([]) is RunCommand)
        #expect(try RelayCommand.parseAsRoot(["run"]) is RunCommand)
        #expect(try RelayCommand.parseAsRoot(["check-config"]) is CheckConfigCommand)
    }

    @Test(arguments: [["--port", "1"], ["start"], ["run", "now"], ["check-config", "-v"], ["-x"], [""]])
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
