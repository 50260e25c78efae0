// One connection of the load generator: a plain value in a slab, without references, so that nothing is counted or
// allocated while messages flow.

import CLoadTLS
import Glibc

/// `@safe`: its buffers are its own, and its methods stay within the capacities kept beside them. Its TLS is its
/// transport's, which outlives it.
@safe
struct BenchConnection {
    let descriptor: Int32
    private let tls: OpaquePointer?

    // Sending.

    /// The frame to send, masked, but for sequence number and time.
    private let frame: UnsafeMutablePointer<UInt8>
    private let frameCount: Int
    private let payloadStart: Int
    /// Messages queued so far: the next sequence number.
    var sent: UInt32 = 0
    /// Messages that have reached the recipient who counts for the window.
    var arrived: UInt32 = 0
    private let output: UnsafeMutablePointer<UInt8>
    private let outputCapacity: Int
    private var outputStart = 0
    private var outputEnd = 0
    var isDirty = false
    /// Whether epoll reports when the socket takes more.
    var awaitsRoom = false

    // Receiving: the beginning of an incomplete frame.

    var input: UnsafeMutablePointer<UInt8>?
    var inputCount = 0
    private var inputCapacity = 0

    init(transport: Transport, payload: [UInt8], unsentMax: Int) {
        descriptor = transport.descriptor
        unsafe tls = transport.secure?.connection
        let encoded = Frame(opcode: .binary, payload: payload).encoded
        frameCount = encoded.count
        payloadStart = encoded.count - payload.count
        unsafe frame = .allocate(capacity: encoded.count)
        unsafe frame.initialize(from: encoded, count: encoded.count)
        // Room for pongs too.
        outputCapacity = encoded.count * unsentMax + 1024
        unsafe output = .allocate(capacity: outputCapacity)
    }

    /// Frees the buffers. The descriptor is its transport's.
    func deallocate() {
        unsafe frame.deallocate()
        unsafe output.deallocate()
        unsafe input?.deallocate()
    }

    var hasOutput: Bool { outputEnd > outputStart }

    /// Queues the next message; false when there is no room for it.
    mutating func queueMessage(time: UInt64) -> Bool {
        guard makeRoom(frameCount) else { return false }
        put(UInt64(sent), at: Stamp.sequence, count: 5)
        put(time, at: Stamp.time, count: 9)
        // makeRoom has seen to the capacity.
        unsafe (output + outputEnd).update(from: frame, count: frameCount)
        outputEnd += frameCount
        sent &+= 1
        return true
    }

    /// A control frame: rare, so it may allocate.
    mutating func queueControl(_ frame: Frame) {
        let encoded = frame.encoded
        guard makeRoom(encoded.count) else { return }
        unsafe (output + outputEnd).update(from: encoded, count: encoded.count)
        outputEnd += encoded.count
    }

    private mutating func makeRoom(_ count: Int) -> Bool {
        if outputStart == outputEnd { (outputStart, outputEnd) = (0, 0) }
        if outputCapacity - outputEnd < count, outputStart > 0 {
            // The regions may overlap: memmove, both within the buffer.
            unsafe memmove(output, output + outputStart, outputEnd - outputStart)
            (outputStart, outputEnd) = (0, outputEnd - outputStart)
        }
        return outputCapacity - outputEnd >= count
    }

    /// Writes a number into the frame, masked with the frame's own key: the four bytes before the payload.
    private func put(_ value: UInt64, at offset: Int, count: Int) {
        var value = value
        for index in offset..<offset + count {
            // offset + count is at most Stamp.byteCount, and every payload is at least that long.
            let key = unsafe frame[payloadStart - 4 + (index & 3)]
            unsafe frame[payloadStart + index] = (UInt8(truncatingIfNeeded: value) | 0x80) ^ key
            value >>= 7
        }
    }

    /// Writes what the kernel takes. Nil, or what ended the connection.
    mutating func flush() -> String? {
        while outputStart < outputEnd {
            switch write() {
            case .bytes(let count): outputStart += count
            case .wouldBlock: return nil
            case .ended(let reason): return reason
            }
        }
        return nil
    }

    @inline(__always)
    private func write() -> Progress {
        if let tls = unsafe tls {
            return unsafe SecureStream.progress(
                of: tls, cloadtls_write(tls, output + outputStart, outputEnd - outputStart))
        }
        let count = unsafe send(descriptor, output + outputStart, outputEnd - outputStart, Int32(MSG_NOSIGNAL))
        if count >= 0 { return .bytes(count) }
        return errno == EAGAIN || errno == EINTR ? .wouldBlock : .ended(Transport.errorText(errno))
    }

    /// Reads what is there, at most `count` bytes: 16384 or more.
    @inline(__always)
    func read(into bytes: UnsafeMutablePointer<UInt8>, _ count: Int) -> Progress {
        if let tls = unsafe tls { return unsafe SecureStream.progress(of: tls, cloadtls_read(tls, bytes, count)) }
        let count = unsafe recv(descriptor, bytes, count, 0)
        if count > 0 { return .bytes(count) }
        if count == 0 { return .ended("closed by the relay") }
        return errno == EAGAIN || errno == EINTR ? .wouldBlock : .ended(Transport.errorText(errno))
    }

    /// Keeps the beginning of an incomplete frame.
    mutating func keep(_ bytes: UnsafePointer<UInt8>, _ count: Int) {
        if count > inputCapacity {
            unsafe input?.deallocate()
            inputCapacity = max(4096, count.nextPowerOfTwo)
            unsafe input = .allocate(capacity: inputCapacity)
        }
        if count > 0 { unsafe input?.update(from: bytes, count: count) }
        inputCount = count
    }
}

extension Int {
    fileprivate var nextPowerOfTwo: Int { 1 << (Int.bitWidth - (self - 1).leadingZeroBitCount) }
}
