// Where the configuration comes from: this process's environment, and a file that can be changed while the relay runs. What stands in
// the file goes before the environment, or a change of the file would not be seen by a relay that was started with what was in it.

import Glibc
import Shared

/// The sources of the configuration.
struct Settings {
    /// `--env-file`; nil: the environment alone.
    var file: String?

    /// The configuration as they stand now, or every problem; and what is odd but no reason to stop.
    func read() -> (Configuration?, problems: [String], warnings: [String]) {
        var variables = environmentVariables()
        if let file {
            do throws(EnvironmentFileError) {
                for (name, value) in try EnvironmentFile.read(file) { variables[name] = value }
            } catch {
                return (nil, ["\(file): \(error.description)"], [])
            }
        }
        let (configuration, problems, warnings) = Configuration.read(
            environment: variables, machine: Machine.current())
        return (configuration, problems.map(\.description), warnings)
    }
}

/// Why a file of variables can't be read.
struct EnvironmentFileError: Error, Equatable, CustomStringConvertible {
    var description: String
}

/// A file of `NAME=value` lines, as systemd's EnvironmentFile= and Docker's --env-file take it: empty lines and those that begin
/// with # say nothing; a value may stand in a pair of quotes; nothing is expanded.
enum EnvironmentFile {
    static func read(_ path: String) throws(EnvironmentFileError) -> [String: String] {
        let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard number >= 0 else { throw EnvironmentFileError(description: "\(SystemError("open"))") }
        let file = Descriptor(owning: number)
        // It is read again at each reload: a pipe would have nothing more to say.
        var status = stat()
        guard unsafe fstat(number, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw EnvironmentFileError(description: "it is not a regular file")
        }
        var bytes = [UInt8](repeating: 0, count: Limits.environmentFileBytesMax + 1)
        var count = 0
        while count < bytes.count {
            let result = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe Glibc.read(file.number, buffer.baseAddress.map { unsafe $0 + count }, buffer.count - count)
            }
            if result < 0 && errno == EINTR { continue }
            guard result >= 0 else { throw EnvironmentFileError(description: "\(SystemError("read"))") }
            if result == 0 { break }
            count += result
        }
        guard count <= Limits.environmentFileBytesMax else {
            throw EnvironmentFileError(description: "more than \(Limits.environmentFileBytesMax) bytes")
        }
        guard let text = String(validating: bytes.prefix(count), as: UTF8.self) else {
            throw EnvironmentFileError(description: "not UTF-8")
        }
        return try parse(text)
    }

    static func parse(_ text: String) throws(EnvironmentFileError) -> [String: String] {
        var variables: [String: String] = [:]
        for (number, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let line = trimmed(line)
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard let equals = line.firstIndex(of: "="), isName(line[..<equals]) else {
                throw EnvironmentFileError(description: "line \(number + 1) is not NAME=value")
            }
            let name = String(line[..<equals])
            guard variables[name] == nil else {
                throw EnvironmentFileError(description: "line \(number + 1) sets \(name) again")
            }
            variables[name] = unquoted(trimmed(line[line.index(after: equals)...]))
        }
        return variables
    }

    private static func trimmed(_ text: Substring) -> Substring {
        let isBlank = { (character: Character) in character == " " || character == "\t" }
        guard let last = text.lastIndex(where: { !isBlank($0) }) else { return "" }
        return text[...last].drop(while: isBlank)
    }

    private static func isName(_ text: Substring) -> Bool {
        guard let first = text.utf8.first, !(UInt8(ascii: "0")...UInt8(ascii: "9") ~= first) else { return false }
        return text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
                true
            default: false
            }
        }
    }

    private static func unquoted(_ value: Substring) -> String {
        guard value.count >= 2, let quote = value.first, quote == "\"" || quote == "'", value.last == quote else {
            return String(value)
        }
        return String(value.dropFirst().dropLast())
    }
}
