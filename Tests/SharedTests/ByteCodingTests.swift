import Shared
import Testing

@Suite struct `Byte coding` {
    @Test func `writes integers little-endian and reads them back`() throws {
        var writer = ByteWriter()
        writer.write(UInt8(0x01))
        writer.write(UInt16(0x0203))
        writer.write(UInt32(0x0405_0607))
        writer.write(UInt64(0x0809_0A0B_0C0D_0E0F))
        writer.write(Int16(-2))
        let expected: [UInt8] = [1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8, 0xFE, 0xFF]
        #expect(writer.bytes == expected)
        var reader = ByteReader(writer.bytes)
        #expect(try reader.read(UInt8.self) == 1)
        #expect(try reader.read(UInt16.self) == 0x0203)
        #expect(try reader.read(UInt32.self) == 0x0405_0607)
        #expect(try reader.read(UInt64.self) == 0x0809_0A0B_0C0D_0E0F)
        #expect(try reader.read(Int16.self) == -2)
        try reader.finish()
    }

    @Test func `keeps the extremes of every width`() throws {
        func roundTrip<Value: FixedWidthInteger>(_ value: Value) throws {
            var writer = ByteWriter()
            writer.write(value)
            #expect(writer.bytes.count == Value.bitWidth / 8)
            var reader = ByteReader(writer.bytes)
            #expect(try reader.read(Value.self) == value)
        }
        for value in [UInt64.min, 1, .max] { try roundTrip(value) }
        for value in [Int64.min, -1, .max] { try roundTrip(value) }
        for value in [Int8.min, -1, .max] { try roundTrip(value) }
        for value in [UInt16.min, 0x8000, .max] { try roundTrip(value) }
    }

    @Test func `puts a count before bytes and texts`() throws {
        var writer = ByteWriter()
        writer.write([9, 8] as [UInt8])
        writer.write("é")
        #expect(writer.bytes == [2, 0, 0, 0, 9, 8, 2, 0, 0, 0, 0xC3, 0xA9])
        var reader = ByteReader(writer.bytes)
        #expect(try reader.readBytes(max: 2, field: "bytes") == [9, 8])
        #expect(try reader.readText(max: 2, field: "text") == "é")
        try reader.finish()
    }

    @Test func `says truncated at every point where the bytes end too early`() {
        var writer = ByteWriter()
        writer.write(UInt32(1))
        writer.write("text")
        for count in 0..<writer.bytes.count {
            #expect(throws: ByteCodingError.truncated) {
                var reader = ByteReader(Array(writer.bytes.prefix(count)))
                _ = try reader.read(UInt32.self)
                _ = try reader.readText(max: 4, field: "text")
            }
        }
    }

    @Test func `refuses a count over the maximum before it looks for the bytes`() {
        #expect(throws: ByteCodingError.invalid(field: "bytes")) {
            var reader = ByteReader([0xFF, 0xFF, 0xFF, 0xFF])
            _ = try reader.readBytes(max: 1 << 20, field: "bytes")
        }
        #expect(throws: ByteCodingError.invalid(field: "bytes")) {
            var reader = ByteReader([3, 0, 0, 0, 1, 2, 3])
            _ = try reader.readBytes(max: 2, field: "bytes")
        }
    }

    @Test(arguments: [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82]] as [[UInt8]])
    func `refuses a text that is not UTF-8`(bytes: [UInt8]) {
        #expect(throws: ByteCodingError.invalid(field: "text")) {
            var writer = ByteWriter()
            writer.write(bytes)
            var reader = ByteReader(writer.bytes)
            _ = try reader.readText(max: 10, field: "text")
        }
    }

    @Test func `tells what is left over`() throws {
        var reader = ByteReader([1, 2, 3])
        _ = try reader.read(UInt8.self)
        #expect(reader.count == 2)
        #expect(throws: ByteCodingError.trailing(count: 2)) { try reader.finish() }
        #expect(reader.readRest() == [2, 3])
        try reader.finish()
    }
}
