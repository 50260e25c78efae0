// What the targets share.

import Glibc

/// An input's bytes in a block of exactly their length, so that AddressSanitizer sees a read beyond them.
func withCopy(_ bytes: UnsafePointer<UInt8>?, _ count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
    defer { copy.deallocate() }
    if let bytes, count > 0 { copy.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: count)) }
    body(copy)
}

/// What must be so. Unlike a precondition's, its text is printed in an optimised build too.
@inline(__always)
func claim(_ isSo: @autoclosure () -> Bool, _ text: @autoclosure () -> String) {
    if !isSo() { fatalError(text()) }
}

/// Writes valid inputs into FUZZ_SEEDS (Fuzz/run sets it) before the first input is made up.
func plantSeeds(_ seeds: [[UInt8]]) {
    guard let folder = getenv("FUZZ_SEEDS") else { return }
    for (index, seed) in seeds.enumerated() {
        guard let file = fopen(String(cString: folder) + "/seed-\(index)", "wb") else { continue }
        fwrite(seed, 1, seed.count, file)
        fclose(file)
    }
}

func integer(_ value: some FixedWidthInteger) -> [UInt8] {
    (0..<(value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// A session's bytes (TLSSessionState.swift), of a suite and with records that wait.
func sessionBytes(suite: UInt16, flags: UInt8 = 0, alert: UInt8 = 0, fragment: UInt8 = 0, waiting: [UInt8] = [])
    -> [UInt8]
{
    let secrets = [UInt8](repeating: 7, count: suite == 0x1302 ? 96 : 64)
    var bytes = integer(UInt16(1)) + integer(suite) + [flags, alert, 0, fragment]
    bytes += integer(UInt64(0)) + integer(UInt64(2)) + secrets + integer(UInt32(waiting.count)) + waiting
    return bytes
}
