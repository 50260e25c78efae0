import CLinux
import Glibc
import Shared
import Testing

@testable import supervisor

@Suite struct `A change of generations` {
    @Test func `are joined where one waits for another: what was asked for is done, and once`() {
        let kinds: [Change.Kind] = [.reload, .upgrade, .recycle(0), .recycle(1)]
        for kind in kinds { #expect(kind.joined(with: kind) == kind) }
        #expect(Change.Kind.reload.joined(with: .recycle(0)) == .reload)
        #expect(Change.Kind.recycle(0).joined(with: .reload) == .reload)
        // An upgrade reads the settings as well; no reload brings a new program.
        for kind in kinds {
            #expect(kind.joined(with: .upgrade) == .upgrade && Change.Kind.upgrade.joined(with: kind) == .upgrade)
        }
        #expect(Change.Kind.recycle(0).joined(with: .recycle(1)) == .reload)
    }

    private func place(_ index: Int) throws -> WorkerPlace {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        return try WorkerPlace(index: index, generation: 2, listeners: [7], pageIndex: index, page: memory.page(index))
    }

    @Test func `adds up what was moved, and waits for those who have not`() throws {
        let places = try (0..<3).map { try place($0) }
        defer { for place in places { place.close() } }
        var change = Change(
            kind: .reload, configuration: Configuration(), credentials: nil, successors: [places[2]],
            leavers: [places[0], places[1]], workersBefore: 5)
        #expect(change.awaited == .init(workers: 5, pending: [0, 1]))
        places[0].hasMoved = true
        #expect(change.awaited == .init(workers: 5, pending: [1]))
        #expect(places[2].isNew(in: change) && !places[0].isNew(in: change))
        var part = ControlMessage.Moved()
        part.add(pause: 5)
        (part.clients, part.bytes) = (2, 3)
        change.add(part)
        part.longestPause = 4
        change.add(part)
        #expect(change.moved.rooms == 2 && change.moved.clients == 4 && change.moved.bytes == 6)
        #expect(change.moved.longestPause == 5)
        // Whatever a worker says, and however often.
        (part.rooms, part.clients, part.bytes, part.longestPause) = (.max, .max, .max, .max)
        for _ in 0..<1000 { change.add(part) }
        #expect(change.moved.rooms == 2 + 1000 * Gauge.rooms.most)
        #expect(change.moved.longestPause == Gauge.movePauseMax.most)
    }

    @Test func `gives every listener to exactly one worker, whatever the counts`() {
        for listeners in 1...8 {
            let all = Listeners(
                ListenAddress(host: .any, port: 1), descriptors: (100..<Int32(100 + listeners)).map { $0 })
            for workers in 1...listeners {
                let shares = (0..<workers).map { all.share(of: $0, workers: workers) }
                #expect(shares.flatMap(\.self).sorted() == all.descriptors)
                #expect(shares.allSatisfy { !$0.isEmpty })
            }
        }
    }

    @Test func `throws an inbox away with every descriptor in it, and counts the connections`() throws {
        let place = try place(0)
        defer { place.close() }
        var fars: [Int32] = []
        for count in [1, 2, 0, 1] {
            let pairs = try (0..<count).map { _ in try MessagePair(bufferBytes: 4096).split() }
            let nears = pairs.map(\.near)
            let bytes: [UInt8] = [1, 2, 3]
            #expect(clinux_send_message(place.inboxSender, bytes, 3, nears, count) == 0)
            for near in nears { _ = close(near) }
            fars += pairs.map(\.far)
        }
        // And messages that say where something is counted: a connection, and a room whose members have all been sent.
        let charge = AddressCharge(narrow: AddressToken(bits: 0x0102), wide: AddressToken(bits: 0x0304))
        let message: [UInt8] = Array(repeating: 9, count: 8) + [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 7]
        let (near, far) = try MessagePair(bufferBytes: 4096).split()
        #expect(clinux_send_message(place.inboxSender, message, message.count, [near], 1) == 0)
        #expect(clinux_send_message(place.inboxSender, message, message.count, nil, 0) == 0)
        _ = close(near)
        fars.append(far)
        let lost = place.discardInbox()
        #expect(lost.connections == 4)
        #expect(lost.charges.filter { $0 != .none } == [charge, charge])
        var byte: UInt8 = 0
        for far in fars {
            #expect(read(far, &byte, 1) == 0)
            _ = close(far)
        }
        let rest = place.discardInbox()
        #expect(rest.connections == 0 && rest.charges.isEmpty)
    }
}
