// A proxy between a client and the relay that makes one mistake: whoever checks the relay must find it. Of what it loses it loses a few,
// for nobody can miss what was said while he was leaving.

import Foundation
import Glibc
import Synchronization

/// Listens on a port of loopback that the kernel chose, and passes everything on but for one frame from the relay.
final class FaultyProxy: Sendable {
    enum Fault: String, CaseIterable {
        case loseData
        case loseVoice
        case repeatData
        case repeatVoice
        /// Two messages of one sender change places.
        case swapData
        case swapVoice
        case corruptData
        case corruptVoice
        case loseNotice
        case repeatNotice
        case cutConnection
        /// A connection is closed before it has begun.
        case refuse

        var isLoss: Bool { self == .loseData || self == .loseVoice || self == .loseNotice }
    }

    private struct State {
        var framesToSpare: Int
        var mistakes = 0
        /// The frame that is to come behind its successor, and its connection.
        var held: (frame: [UInt8], connection: Int32)?
        var descriptors: Set<Int32> = []
        var isOver = false
    }

    let port: Int
    private let fault: Fault
    private let framesSpared: Int
    private let mistakesMax: Int
    private let relayPort: Int
    private let listener: Int32
    private let state: Mutex<State>

    /// How many mistakes were made.
    var mistakes: Int { state.withLock { $0.mistakes } }

    /// A receiver need not get what was on its way when it joined: no mistake is made before so many frames.
    private static let framesBefore = 20

    /// The mistake is made at the tenth occasion, or the second where there are few.
    init(_ fault: Fault, relayPort: Int) throws {
        self.fault = fault
        self.relayPort = relayPort
        framesSpared = fault == .loseNotice || fault == .repeatNotice ? 1 : 9
        mistakesMax = fault.isLoss ? 5 : 1
        state = Mutex(State(framesToSpare: framesSpared))
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 64) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        guard isBound else { throw SpawnError(description: "the proxy can't listen: errno \(errno)") }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { [self] in accept() }
    }

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    /// Ends every connection; the threads then end by themselves.
    func end() {
        state.withLock { state in
            state.isOver = true
            _ = shutdown(listener, Int32(SHUT_RDWR))
            for descriptor in state.descriptors { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }
        }
    }

    // MARK: Connections

    private func accept() {
        defer { close(listener) }
        while true {
            let client = Glibc.accept(listener, nil, nil)
            guard client >= 0 else { return }
            if fault == .refuse, isOccasion() {
                close(client)
                continue
            }
            let relay = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = Self.loopback(relayPort)
            let isConnected = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(relay, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                }
            }
            let isOver = state.withLock { state in
                if !state.isOver { state.descriptors.formUnion([client, relay]) }
                return state.isOver
            }
            guard isConnected, !isOver else {
                close(client)
                close(relay)
                return
            }
            var one: Int32 = 1
            for descriptor in [client, relay] {
                setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
            }
            let open = Counter(2)
            Thread.detachNewThread { [self] in
                pump(from: client, to: relay)
                finish(client, relay, open)
            }
            Thread.detachNewThread { [self] in
                pumpFrames(from: relay, to: client)
                finish(client, relay, open)
            }
        }
    }

    /// The second of a connection's threads closes it.
    private func finish(_ client: Int32, _ relay: Int32, _ open: Counter) {
        guard open.decrement() == 0 else { return }
        state.withLock { $0.descriptors.subtract([client, relay]) }
        close(client)
        close(relay)
    }

    private func pump(from source: Int32, to target: Int32) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(source, &buffer, buffer.count, 0)
            guard count > 0, Self.send(buffer[..<count], to: target) else { break }
        }
        _ = shutdown(target, Int32(SHUT_WR))
    }

    private static func send(_ bytes: ArraySlice<UInt8>, to target: Int32) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(target, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    // MARK: Frames

    /// The answer's head, then frame by frame.
    private func pumpFrames(from source: Int32, to target: Int32) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        var kept: [UInt8] = []
        var isHead = true
        var frames = 0
        reading: while true {
            let count = recv(source, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            kept += buffer[..<count]
            var start = 0
            while let length = isHead ? Self.headCount(kept[start...]) : Self.frameCount(kept[start...]) {
                let piece = Array(kept[start..<start + length])
                start += length
                let pieces = frames < Self.framesBefore ? [piece] : spoil(piece, target)
                if !isHead { frames += 1 }
                isHead = false
                guard let pieces else {
                    _ = shutdown(source, Int32(SHUT_RDWR))
                    _ = shutdown(target, Int32(SHUT_RDWR))
                    break reading
                }
                for piece in pieces where !Self.send(piece[...], to: target) { break reading }
            }
            kept.removeFirst(start)
        }
        _ = shutdown(target, Int32(SHUT_WR))
    }

    private static func headCount(_ bytes: ArraySlice<UInt8>) -> Int? {
        bytes.firstRange(of: Array("\r\n\r\n".utf8)).map { $0.upperBound - bytes.startIndex }
    }

    /// The length of a server's frame, if it is whole (RFC 6455, 5.2).
    private static func frameCount(_ bytes: ArraySlice<UInt8>) -> Int? {
        guard bytes.count >= 2 else { return nil }
        let short = Int(bytes[bytes.startIndex + 1])
        let extended = short < 126 ? 0 : short == 126 ? 2 : 8
        guard bytes.count >= 2 + extended else { return nil }
        let length = extended == 0 ? short : bytes.dropFirst(2).prefix(extended).reduce(0) { $0 << 8 | Int($1) }
        return bytes.count >= 2 + extended + length ? 2 + extended + length : nil
    }

    private static func payload(_ frame: [UInt8]) -> ArraySlice<UInt8> {
        frame.dropFirst(frame[1] < 126 ? 2 : frame[1] == 126 ? 4 : 10)
    }

    private func isOccasion() -> Bool {
        state.withLock { state in
            guard state.mistakes < mistakesMax else { return false }
            state.framesToSpare -= 1
            guard state.framesToSpare < 0 else { return false }
            state.framesToSpare = framesSpared
            state.mistakes += 1
            return true
        }
    }

    /// What goes on in place of a frame; nil: nothing ever.
    private func spoil(_ frame: [UInt8], _ connection: Int32) -> [[UInt8]]? {
        let payload = Self.payload(frame)
        let start: String
        switch fault {
        case .loseVoice, .repeatVoice, .corruptVoice, .swapVoice: start = "KV"
        case .loseNotice, .repeatNotice: start = "{\"id\":\"\",\"type\":\"session:leave\""
        default: start = "S"
        }
        guard frame[0] == 0x82, payload.starts(with: Array(start.utf8)) else { return [frame] }
        switch fault {
        case .loseData, .loseVoice, .loseNotice: return isOccasion() ? [] : [frame]
        case .repeatData, .repeatVoice, .repeatNotice: return isOccasion() ? [frame, frame] : [frame]
        case .swapData, .swapVoice: return swap(frame, payload, connection)
        case .corruptData, .corruptVoice:
            guard payload.count > 40, isOccasion() else { return [frame] }
            return [Array(frame.dropLast()) + [(frame.last ?? 0) ^ 1]]
        case .cutConnection: return isOccasion() ? nil : [frame]
        case .refuse: return [frame]
        }
    }

    /// Holds a frame back until the next one of its sender has gone.
    private func swap(_ frame: [UInt8], _ payload: ArraySlice<UInt8>, _ connection: Int32) -> [[UInt8]] {
        if let held = state.withLock({ $0.held }) {
            // Up to and including the sender.
            let first = Self.payload(held.frame).prefix(fault == .swapVoice ? 10 : 9)
            guard held.connection == connection, payload.starts(with: first) else { return [frame] }
            state.withLock { $0.held = nil }
            return [frame, held.frame]
        }
        guard isOccasion() else { return [frame] }
        state.withLock { $0.held = (frame, connection) }
        return []
    }
}

/// A number that threads count down together.
private final class Counter: Sendable {
    private let value: Mutex<Int>

    init(_ value: Int) { self.value = Mutex(value) }

    func decrement() -> Int {
        value.withLock {
            $0 -= 1
            return $0
        }
    }
}
