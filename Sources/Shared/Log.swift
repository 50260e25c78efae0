// The log: a swift-log handler that writes a line an event to stderr, as text or as JSON. Its promises:
//
// - one event is one line and one write(2) of at most PIPE_BUF bytes, so lines of several processes never mix in a
// pipe;
// - whatever a client sent that ends in a line, it can't forge one: control characters are escaped (LogText.swift);
// - logging never fails, ends or stops a process: a line that can't be written now is dropped.

import CLinux
import Glibc
package import Logging

/// A logger that writes to stderr.
///
/// - Parameter process: who writes: "supervisor" or "worker/3".
package func makeLogger(level: LogLevel, format: LogFormat, process: String) -> Logger {
    Logger(label: process) { _ in LineLogHandler(logLevel: level, format: format, process: process) }
}

/// Writes each event as a line to a descriptor.
struct LineLogHandler: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    let format: LogFormat
    let process: String
    let descriptor: Int32

    init(logLevel: Logger.Level, format: LogFormat, process: String, descriptor: Int32 = 2) {
        self.logLevel = logLevel
        self.format = format
        self.process = process
        self.descriptor = descriptor
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        if let error = event.error { all["error"] = "\(error)" }
        let line = LogLine(
            nanoseconds: Clock.unixNanoseconds(), level: event.level, process: process, message: "\(event.message)",
            fields: LogLine.flatten(all))
        write(line.bytes(format))
    }

    /// One write, if the descriptor takes it now: a pipe takes at most PIPE_BUF bytes whole or not at all, and nobody
    /// is waited for, neither the reader nor another process that fills the pipe.
    private func write(_ line: [UInt8]) {
        // Whatever goes wrong, there is nobody to tell. A part of a line at most is lost when the disk is full.
        _ = unsafe line.withUnsafeBytes { line in unsafe clinux_write_now(descriptor, line.baseAddress, line.count) }
    }
}

/// An event, ready to be laid out. At most `Limits.logLineBytesMax` bytes long, whatever is in it.
struct LogLine {
    typealias Field = (key: String, value: String)

    var nanoseconds: UInt64
    var level: Logger.Level
    var process: String
    var message: String
    var fields: [Field]

    func bytes(_ format: LogFormat) -> [UInt8] {
        switch format {
        case .text: text()
        case .json: json()
        }
    }

    /// `2026-11-24T14:42:03.123Z INFO  worker/1   message key=value other="quoted value"`
    private func text() -> [UInt8] {
        var line = Array("\(LogText.utc(nanoseconds: nanoseconds)) \(Self.abbreviation(level)) ".utf8)
        let name = LogText.escaped(process, bytesMax: Limits.logKeyBytesMax)
        line += name
        // "worker/255" is as long as "supervisor".
        line += [UInt8](repeating: UInt8(ascii: " "), count: max(1, 11 - name.count))
        line += LogText.escaped(message, bytesMax: Limits.logMessageBytesMax)
        return Self.filled(line, fields, end: "\n", endIfCut: " …\n") { key, value in
            [UInt8(ascii: " ")] + LogText.key(key, bytesMax: Limits.logKeyBytesMax) + [UInt8(ascii: "=")]
                + LogText.bareOrQuoted(value, bytesMax: Limits.logValueBytesMax)
        }
    }

    /// `{"time":"…","level":"info","source":"worker/1","message":"…","key":"value"}`
    private func json() -> [UInt8] {
        var line = Array("{\"time\":\"\(LogText.utc(nanoseconds: nanoseconds))\",\"level\":\"\(level.rawValue)\"".utf8)
        line += Array(",\"source\":".utf8) + LogText.json(process, bytesMax: Limits.logKeyBytesMax)
        line += Array(",\"message\":".utf8) + LogText.json(message, bytesMax: Limits.logMessageBytesMax)
        // A name that stands for itself twice would be lost, or hide the true one.
        let taken: Set<String> = ["time", "level", "source", "message", "cut"]
        return Self.filled(line, fields, end: "}\n", endIfCut: ",\"cut\":true}\n") { key, value in
            [UInt8(ascii: ",")]
                + LogText.json(taken.contains(key) ? "metadata.\(key)" : key, bytesMax: Limits.logKeyBytesMax)
                + [UInt8(ascii: ":")] + LogText.json(value, bytesMax: Limits.logValueBytesMax)
        }
    }

    /// The line with as many fields as fit, and its end, which tells whether all did.
    private static func filled(
        _ start: [UInt8], _ fields: [Field], end: String, endIfCut: String, layOut: (String, String) -> [UInt8]
    ) -> [UInt8] {
        var line = start
        for field in fields {
            let next = layOut(field.key, field.value)
            guard line.count + next.count + endIfCut.utf8.count <= Limits.logLineBytesMax else {
                return line + Array(endIfCut.utf8)
            }
            line += next
        }
        return line + Array(end.utf8)
    }

    /// Five letters, so that lines align.
    static func abbreviation(_ level: Logger.Level) -> String {
        switch level {
        case .trace: "TRACE"
        case .debug: "DEBUG"
        case .info: "INFO "
        case .notice: "NOTE "
        case .warning: "WARN "
        case .error: "ERROR"
        case .critical: "CRIT "
        }
    }

    /// Metadata as keys and texts in the order of the keys; what is nested as `key.key` and `key.0`.
    static func flatten(_ metadata: Logger.Metadata) -> [Field] {
        metadata.sorted { $0.key < $1.key }.flatMap { flatten($0.value, $0.key) }
    }

    private static func flatten(_ value: Logger.MetadataValue, _ key: String) -> [Field] {
        switch value {
        case .dictionary(let nested):
            flatten(nested).map { ("\(key).\($0.key)", $0.value) }
        case .array(let values):
            values.enumerated().flatMap { flatten($0.element, "\(key).\($0.offset)") }
        case .string, .stringConvertible:
            [(key, "\(value)")]
        }
    }
}

/// Lets a place in the code log so often at most, and counts what it holds back. For one thread.
package struct LogRate {
    private let interval: UInt64
    private let tolerance: UInt64
    /// When the bucket is full again: GCRA's theoretical arrival time.
    private var fullAt: UInt64 = 0
    private var suppressed = 0

    /// `burst` lines at once, and then `perSecond` a second.
    package init(perSecond: Int, burst: Int) {
        precondition(perSecond > 0 && burst > 0)
        interval = 1_000_000_000 / UInt64(perSecond)
        tolerance = interval * UInt64(burst)
    }

    /// Whether to log now.
    ///
    /// - Returns: how many lines were held back since the last one that was not; nil: hold this one back.
    package mutating func admit(nowNanoseconds now: UInt64) -> Int? {
        let next = max(fullAt, now) + interval
        guard next - now <= tolerance else {
            suppressed += 1
            return nil
        }
        fullAt = next
        defer { suppressed = 0 }
        return suppressed
    }
}
