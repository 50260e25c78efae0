// How a message between two processes is laid out: integers little-endian and fixed in width, texts and byte
// strings behind a 32-bit count. Reading is bounded by what is there and never traps: whatever bytes arrive, the
// answer is a value or a `ByteCodingError`.

/// Why bytes could not be read as the message they should be.
package enum ByteCodingError: Error, Equatable {
    /// The bytes end before the value does.
    case truncated
    /// Bytes are left over behind the last value.
    case trailing(count: Int)
    /// A value lies outside what its field allows.
    case invalid(field: StaticString)

    package static func == (left: Self, right: Self) -> Bool {
        switch (left, right) {
        case (.truncated, .truncated): true
        case (.trailing(let a), .trailing(let b)): a == b
        case (.invalid(let a), .invalid(let b)): a.description == b.description
        default: false
        }
    }
}

/// Appends values to a growing array of bytes.
package struct ByteWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func write(_ value: some FixedWidthInteger) {
        var rest = value
        for _ in 0..<(value.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }

    /// A 32-bit count, then the bytes.
    package mutating func write(_ value: some Collection<UInt8>) {
        write(UInt32(value.count))
        bytes.append(contentsOf: value)
    }

    /// A 32-bit count of bytes, then the text as UTF-8.
    package mutating func write(_ value: String) {
        write(Array(value.utf8))
    }
}

/// Takes values from the front of an array of bytes.
package struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    package init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Bytes not yet read.
    package var count: Int { bytes.count - position }

    package mutating func read<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(ByteCodingError) -> Value {
        let width = Value.bitWidth / 8
        guard count >= width else { throw .truncated }
        var value: Value = 0
        for index in 0..<width {
            value |= Value(truncatingIfNeeded: bytes[position + index]) << (8 * index)
        }
        position += width
        return value
    }

    /// A 32-bit count and as many bytes, at most `max`.
    package mutating func readBytes(max: Int, field: StaticString) throws(ByteCodingError) -> [UInt8] {
        let length = Int(try read(UInt32.self))
        guard length <= max else { throw .invalid(field: field) }
        guard length <= count else { throw .truncated }
        defer { position += length }
        return Array(bytes[position..<(position + length)])
    }

    /// A 32-bit count and as many bytes of UTF-8, at most `max`.
    package mutating func readText(max: Int, field: StaticString) throws(ByteCodingError) -> String {
        guard let text = String(validating: try readBytes(max: max, field: field), as: UTF8.self) else {
            throw .invalid(field: field)
        }
        return text
    }

    /// Everything that is left.
    package mutating func readRest() -> [UInt8] {
        defer { position = bytes.count }
        return Array(bytes[position...])
    }

    /// Requires that nothing is left.
    package func finish() throws(ByteCodingError) {
        guard count == 0 else { throw .trailing(count: count) }
    }
}
