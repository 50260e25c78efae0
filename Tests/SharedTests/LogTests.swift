import Glibc
import Logging
import Testing

@testable import Shared

/// 2026-11-24T14:42:03.123Z
private let noon: UInt64 = 1_795_531_323_123_456_789

private func line(
    _ message: String, _ metadata: Logger.Metadata = [:], level: Logger.Level = .info, process: String = "worker/1",
    _ format: LogFormat = .text
) -> String {
    let line = LogLine(
        nanoseconds: noon, level: level, process: process, message: message, fields: LogLine.flatten(metadata))
    return String(decoding: line.bytes(format), as: UTF8.self)
}

@Suite struct `Log lines` {
    @Test func `as text read like a sentence`() {
        #expect(
            line("message", ["key": "value", "other": "quoted value"])
                == "2026-11-24T14:42:03.123Z INFO  worker/1   message key=value other=\"quoted value\"\n")
        #expect(line("m", level: .error, process: "supervisor") == "2026-11-24T14:42:03.123Z ERROR supervisor m\n")
        #expect(line("m", process: "worker/255") == "2026-11-24T14:42:03.123Z INFO  worker/255 m\n")
        #expect(
            line("m", process: "a process of long name") == "2026-11-24T14:42:03.123Z INFO  a process of long name m\n")
    }

    @Test func `as JSON are one object`() {
        #expect(
            line("a \"message\"", ["key": "value", "level": "mine"], level: .warning, .json)
                == #"{"time":"2026-11-24T14:42:03.123Z","level":"warning","source":"worker/1","message":"a \"message\"","#
                + #""key":"value","metadata.level":"mine"}"# + "\n")
    }

    @Test func `flatten nested metadata in the order of the keys`() {
        let metadata: Logger.Metadata = ["b": ["x", ["y": "z"]], "a": .stringConvertible(7), "c": [:], "d": []]
        #expect(line("m", metadata) == "2026-11-24T14:42:03.123Z INFO  worker/1   m a=7 b.0=x b.1.y=z\n")
    }

    @Test(arguments: [
        ("plain", "plain"), ("", #""""#), ("a b", #""a b""#), ("a=b", #""a=b""#), (#"a"b"#, #""a\"b""#),
        (#"a\b"#, #""a\\b""#),
        ("a\nb", #""a\nb""#), ("a\rb", #""a\rb""#), ("a\tb", #""a\tb""#), ("\r\n", #""\r\n""#), ("\0", #""\u{0}""#),
        ("\u{1B}[2J", #""\u{1B}[2J""#), ("\u{7F}", #""\u{7F}""#), ("\u{9B}2J", #""\u{9B}2J""#),
        ("\u{85}", #""\u{85}""#),
        ("\u{2028}", #""\u{2028}""#), ("\u{2029}", #""\u{2029}""#), ("\u{202E}", #""\u{202E}""#),
        ("\u{200B}", #""\u{200B}""#),
        ("\u{FEFF}", #""\u{FEFF}""#), ("\u{E000}", #""\u{E000}""#), ("é", #""é""#), ("日本", #""日本""#),
        ("[x]{y}", "[x]{y}"),
    ])
    func `escape what could forge a line or act on a terminal`(value: String, escaped: String) {
        #expect(line("m", ["k": "\(value)"]) == "2026-11-24T14:42:03.123Z INFO  worker/1   m k=\(escaped)\n")
    }

    @Test(arguments: [
        ("a b", "a b"), (#"a"b"#, #"a\"b"#), (#"a\b"#, #"a\\b"#), ("a\nb", #"a\nb"#), ("\0", #"\u0000"#),
        ("\u{1B}", #"\u001B"#),
        ("\u{7F}", #"\u007F"#), ("\u{9B}", #"\u009B"#), ("\u{2028}", #"\u2028"#), ("\u{202E}", #"\u202E"#),
        ("\u{E0001}", #"\uDB40\uDC01"#), ("é/", "é/"),
    ])
    func `escape for JSON`(value: String, escaped: String) {
        #expect(line("m", ["k": "\(value)"], .json).hasSuffix(#","k":"\#(escaped)"}"# + "\n"))
        #expect(line(value, [:], .json).hasSuffix(#","message":"\#(escaped)"}"# + "\n"))
    }

    @Test(arguments: LogFormat.allCases)
    func `are one line whatever scalar stands in message, key, value or process`(format: LogFormat) {
        for value in (0...0x2FFF).compactMap(Unicode.Scalar.init(_:)) {
            let text = "a\(Character(value))b"
            let bytes = Array(line(text, [text: "\(text)"], process: text, format).utf8)
            #expect(bytes.filter { $0 < 0x20 || $0 == 0x7F } == [0x0A])
            #expect(bytes.last == 0x0A)
        }
    }

    @Test func `in text keep keys to one word`() {
        #expect(line("m", ["a b=\"\n": "v", "": "w"]) == "2026-11-24T14:42:03.123Z INFO  worker/1   m _=w a_b___=v\n")
    }

    @Test(arguments: LogFormat.allCases, ["x", "\n", "é", "\u{1}", "\u{E0001}", "\"", "😀"])
    func `are never longer than their maximum`(format: LogFormat, unit: String) {
        let max = Limits.logLineBytesMax
        for count in [1, 10, 100, 1000, 100_000] {
            let long = String(repeating: unit, count: count)
            var metadata: Logger.Metadata = [long: "\(long)"]
            for index in 0..<20 { metadata["key\(index)"] = "\(long)" }
            let text = line(long, metadata, process: long, format)
            #expect(text.utf8.count <= max)
            #expect(text.hasSuffix(format == .json ? "}\n" : "\n"))
            #expect(!text.contains("\u{FFFD}"), "no scalar was cut in two")
        }
    }

    @Test(arguments: ["x", "\n", "é", "\u{1}", "\u{E0001}", "\"", "😀", " "], 8..<40)
    func `cut each part to its own maximum, the sign of it included`(unit: String, max: Int) {
        let long = String(repeating: unit, count: 100)
        for part in [
            LogText.escaped(long, bytesMax: max), LogText.bareOrQuoted(long, bytesMax: max),
            LogText.json(long, bytesMax: max), LogText.key(long, bytesMax: max),
            Array(LogText.quoted(long, bytesMax: max).utf8),
        ] {
            #expect(part.count <= max)
            #expect(String(validating: part, as: UTF8.self)?.contains("…") == true)
        }
    }

    @Test func `show that something was cut`() {
        let long = String(repeating: "x", count: 513)
        #expect(line("m", ["k": "\(long)"]).hasSuffix("x…\"\n"))
        #expect(line("m", ["k": "\(long.dropLast())"]).hasSuffix("k=\(long.dropLast())\n"))
        #expect(line("m", ["k": "\(long.dropLast(3))"], .json).hasSuffix("x\"}\n"))
        #expect(line("m", ["k": "\(long.dropLast(2))"], .json).hasSuffix("x…\"}\n"))
        let many = Dictionary(uniqueKeysWithValues: (0..<20).map { ("k\($0)", Logger.MetadataValue("\(long)")) })
        #expect(line("m", many).hasSuffix(" …\n"))
        #expect(line("m", many, .json).hasSuffix(",\"cut\":true}\n"))
    }

    @Test func `fill the line up to its last byte`() {
        for length in 400...512 {
            let value = String(repeating: "x", count: length)
            let metadata = Dictionary(
                uniqueKeysWithValues: (0..<9).map { ("k\($0)", Logger.MetadataValue("\(value)")) })
            for format in LogFormat.allCases {
                #expect(line("m", metadata, format).utf8.count <= Limits.logLineBytesMax)
            }
        }
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000_000_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_001_000_000, "2024-02-29T00:00:00.001Z"),
            (1_767_225_599_000_000_000, "2025-12-31T23:59:59.000Z"),
            (1_767_225_600_000_000_000, "2026-01-01T00:00:00.000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
            (UInt64.max, "2554-07-21T23:34:33.709Z"),
        ] as [(UInt64, String)])
    func `carry the time in UTC`(nanoseconds: UInt64, text: String) {
        #expect(LogText.utc(nanoseconds: nanoseconds) == text)
    }

    @Test func `carry the same date as libc's for every day of two centuries`() {
        for day in 0..<73_049 {
            var time = time_t(day * 86_400)
            var parts = tm()
            gmtime_r(&time, &parts)
            let text = LogText.utc(nanoseconds: UInt64(day) * 86_400_000_000_000).prefix(10).split(separator: "-")
                .compactMap { Int($0) }
            #expect(text == [Int(parts.tm_year) + 1900, Int(parts.tm_mon) + 1, Int(parts.tm_mday)])
        }
    }
}

@Suite struct `The log handler` {
    /// What arrives at the other end of a pipe.
    private func written(_ body: (Int32) -> Void) -> [UInt8] {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        body(ends[1])
        close(ends[1])
        defer { close(ends[0]) }
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(ends[0], &buffer, buffer.count)
            if count <= 0 { return all }
            all += buffer[..<count]
        }
    }

    @Test func `writes a line an event, merges metadata, and obeys its level`() {
        let bytes = written { descriptor in
            var logger = Logger(label: "worker/2") { _ in
                LineLogHandler(logLevel: .info, format: .text, process: "worker/2", descriptor: descriptor)
            }
            logger[metadataKey: "room"] = "a"
            logger[metadataKey: "own"] = "b"
            logger.info("first", metadata: ["room": "c"])
            logger.debug("hidden")
            logger.error("second")
        }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { $0.dropFirst(25) }
        #expect(lines == ["INFO  worker/2   first own=b room=c", "ERROR worker/2   second own=b room=a"])
    }

    @Test func `drops lines that a full pipe does not take, and does not wait`() {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let handler = LineLogHandler(logLevel: .info, format: .text, process: "worker/2", descriptor: ends[1])
        let logger = Logger(label: "worker/2") { _ in handler }
        let long = String(repeating: "x", count: 500)
        // A pipe takes 64 KiB; a blocking write would never return.
        for _ in 0..<1000 { logger.info("\(long)") }
        var buffer = [UInt8](repeating: 0, count: 1 << 17)
        let count = read(ends[0], &buffer, buffer.count)
        #expect(count > 10_000)
        #expect(buffer[count - 1] == 0x0A)
        logger.info("again")
        #expect(read(ends[0], &buffer, buffer.count) > 0)
    }

    @Test func `survives a descriptor that is not open`() {
        Logger(label: "worker/2") { _ in
            LineLogHandler(logLevel: .info, format: .json, process: "worker/2", descriptor: 1_000_000)
        }.info("nobody hears")
    }

    @Test func `survives a pipe without a reader`() {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        close(ends[0])
        defer { close(ends[1]) }
        let descriptor = ends[1]
        // Were it written, SIGPIPE would end this process.
        Logger(label: "worker/2") { _ in
            LineLogHandler(logLevel: .info, format: .json, process: "worker/2", descriptor: descriptor)
        }.info("nobody hears")
    }

    @Test func `is what makeLogger gives`() {
        let logger = makeLogger(level: .critical, format: .json, process: "supervisor")
        #expect(logger.logLevel == .critical)
        #expect(logger.label == "supervisor")
    }
}

@Suite struct `Log rates` {
    @Test func `admit a burst, hold back and count, and admit again`() {
        var rate = LogRate(perSecond: 2, burst: 3)
        let start: UInt64 = 1_000_000_000_000
        for _ in 0..<3 { #expect(rate.admit(nowNanoseconds: start) == 0) }
        for _ in 0..<4 { #expect(rate.admit(nowNanoseconds: start) == nil) }
        #expect(rate.admit(nowNanoseconds: start + 499_999_999) == nil)
        #expect(rate.admit(nowNanoseconds: start + 500_000_000) == 5)
        #expect(rate.admit(nowNanoseconds: start + 500_000_000) == nil)
        #expect(rate.admit(nowNanoseconds: start + 100_000_000_000) == 1)
        for _ in 0..<2 { #expect(rate.admit(nowNanoseconds: start + 100_000_000_000) == 0) }
        #expect(rate.admit(nowNanoseconds: start + 100_000_000_000) == nil)
    }

    @Test func `admit the first line at time zero`() {
        var rate = LogRate(perSecond: 1, burst: 1)
        #expect(rate.admit(nowNanoseconds: 0) == 0)
        #expect(rate.admit(nowNanoseconds: 0) == nil)
    }
}
