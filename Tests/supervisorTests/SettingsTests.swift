import Glibc
import Shared
import Testing

@testable import supervisor

/// A file that is gone with the value.
final class TemporaryFile {
    let path: String

    init(_ bytes: [UInt8]) throws {
        // mkstemp(3) puts letters of its own in place of the last six.
        var template = Array("/tmp/relay-test-\(String(repeating: "X", count: 6))".utf8CString)
        let number = mkstemp(&template)
        try #require(number >= 0)
        defer { _ = close(number) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try #require(Glibc.write(number, bytes, bytes.count) == bytes.count)
    }

    func write(_ bytes: [UInt8]) {
        let number = open(path, O_WRONLY | O_TRUNC)
        #expect(Glibc.write(number, bytes, bytes.count) == bytes.count)
        _ = close(number)
    }

    deinit { _ = unlink(path) }
}

@Suite struct `A file of variables` {
    private func error(_ text: String) -> String? {
        do throws(EnvironmentFileError) {
            _ = try EnvironmentFile.parse(text)
            return nil
        } catch {
            return error.description
        }
    }

    private func readError(_ path: String) -> String? {
        do throws(EnvironmentFileError) {
            _ = try EnvironmentFile.read(path)
            return nil
        } catch {
            return error.description
        }
    }

    @Test(
        arguments: [
            ("", [:]), ("\n\n  \t\n", [:]), ("# A=1\n  # B=2", [:]), ("A=1", ["A": "1"]), ("A=1\n", ["A": "1"]),
            ("A=1\r\nB=2\r\n", ["A": "1", "B": "2"]), (" A=1 \n\tB=2\t", ["A": "1", "B": "2"]), ("A=", ["A": ""]),
            ("A= 1 2 ", ["A": "1 2"]), ("A=1=2", ["A": "1=2"]), ("A=#1", ["A": "#1"]), ("A=1 # no", ["A": "1 # no"]),
            ("A=\"1 \"", ["A": "1 "]), ("A=' 1'", ["A": " 1"]), ("A=\"\"", ["A": ""]), ("A=\"", ["A": "\""]),
            ("A='1\"", ["A": "'1\""]), ("A=\"1\" 2", ["A": "\"1\" 2"]), ("A=\"'1'\"", ["A": "'1'"]),
            ("A=$B\\n", ["A": "$B\\n"]), ("_a9=ü", ["_a9": "ü"]), ("A=1\nB=1", ["A": "1", "B": "1"]),
        ] as [(String, [String: String])])
    func `is lines of NAME=value, taken as they stand`(text: String, expected: [String: String]) throws {
        #expect(try EnvironmentFile.parse(text) == expected)
    }

    @Test(arguments: ["A", "=1", "9A=1", "A B=1", "A =1", "export A=1", "A-B=1", "Ä=1", "\"A\"=1", "\u{FEFF}A=1"])
    func `says which line is none`(line: String) {
        #expect(error(line) == "line 1 is not NAME=value")
        #expect(error("# a\r\n\r\nB=1\r\n\(line)\r\n") == "line 4 is not NAME=value")
    }

    @Test func `sets a variable once`() {
        #expect(error("A=1\nB=2\nA=1") == "line 3 sets A again")
        #expect(error("A=1\na=2") == nil)
    }

    @Test func `is read from a file`() throws {
        let file = try TemporaryFile(Array("A=1\n".utf8))
        #expect(try EnvironmentFile.read(file.path) == ["A": "1"])
        file.write(Array("A=2".utf8))
        #expect(try EnvironmentFile.read(file.path) == ["A": "2"])
        file.write([UInt8(ascii: "A"), UInt8(ascii: "="), 0xFF])
        #expect(readError(file.path) == "not UTF-8")
    }

    @Test func `has 64 KiB at most`() throws {
        let max = 65_536
        let file = try TemporaryFile([UInt8](repeating: UInt8(ascii: "#"), count: max))
        #expect(try EnvironmentFile.read(file.path).isEmpty)
        file.write([UInt8](repeating: UInt8(ascii: "#"), count: max + 1))
        #expect(readError(file.path) == "more than 65536 bytes")
    }

    @Test func `that is none is an error`() throws {
        #expect(readError("/nonexistent/relay.env") == "open: No such file or directory")
        for path in ["/tmp", "/dev/null"] { #expect(readError(path) == "it is not a regular file") }
    }

    @Test func `goes before the environment`() throws {
        let file = try TemporaryFile(Array("RELAY_MAX_ROOMS=7\nRELAY_WORKERS=3".utf8))
        let (configuration, problems, _) = Settings(file: file.path).read()
        #expect(configuration?.roomsMax == 7 && configuration?.workers == 3 && problems.isEmpty)
        file.write(Array("RELAY_MAX_ROOMS=0".utf8))
        let (none, wrong, _) = Settings(file: file.path).read()
        #expect(none == nil && wrong.count == 1 && wrong[0].contains("RELAY_MAX_ROOMS"))
        file.write(Array("RELAY".utf8))
        #expect(Settings(file: file.path).read().problems == ["\(file.path): line 1 is not NAME=value"])
    }
}

@Suite struct `The stamp of certificate and key` {
    @Test func `changes with a file that is new, put in place or written anew, and not by reading`() throws {
        let certificate = try TemporaryFile(Array("A=1".utf8))
        let key = try TemporaryFile([2])
        let files = Configuration.TLSFiles(certificate: certificate.path, privateKey: key.path)
        let first = CredentialStamp(files)
        _ = try EnvironmentFile.read(certificate.path)
        #expect(CredentialStamp(files) == first)
        key.write([2, 3])
        let written = CredentialStamp(files)
        #expect(written != first)
        let other = try TemporaryFile([2, 3])
        #expect(rename(other.path, key.path) == 0)
        let renamed = CredentialStamp(files)
        #expect(renamed != written)
        #expect(unlink(certificate.path) == 0)
        let gone = CredentialStamp(files)
        #expect(gone != renamed && gone == CredentialStamp(files))
    }
}
