import Glibc
import Shared
import Testing

@testable import supervisor

@Suite struct `A worker's place` {
    private let now: UInt64 = 1_000_000_000_000
    private let minute: UInt64 = 60_000_000_000

    /// A place without a listener: no test of it uses one.
    private func place() throws -> WorkerPlace {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        memory.assign(0, .current)
        return try WorkerPlace(index: 0, listeners: [], pageIndex: 0, page: memory.page(0))
    }

    /// The end of a control channel that a worker would have.
    private func launch(_ place: WorkerPlace) throws -> ControlChannel {
        let (near, far) = try MessagePair(bufferBytes: 65_536).split()
        place.launched(getpid(), ControlChannel(Descriptor(owning: near)), now: now)
        return ControlChannel(Descriptor(owning: far))
    }

    @Test func `keeps host keys for 60 s after its process has died`() throws {
        let place = try place()
        let control = try launch(place)
        _ = consume control
        let key = [UInt8](repeating: 1, count: 32)
        place.hostKeys[[1]] = WorkerPlace.HostKey(publicKey: key, expiry: 0)
        place.ended(now: now)
        #expect(place.hostKeys[[1]]?.expiry == now + minute)
        #expect(place.hostKeys[[1]]?.publicKey == key)
    }

    @Test func `keeps of host keys what its process has told last, and none that is over`() throws {
        let place = try place()
        let key = [UInt8](repeating: 1, count: 32)
        var isAll = place.take(
            [
                .init(room: [1], publicKey: key, expiry: 0), .init(room: [2], publicKey: key, expiry: now + 1),
                .init(room: [3], publicKey: key, expiry: 0),
            ], max: 3, now: now)
        #expect(isAll)
        #expect(place.hostKeys.mapValues(\.expiry) == [[1]: 0, [2]: now + 1, [3]: 0])
        isAll = place.take(
            [.over(room: [1]), .init(room: [3], publicKey: [2], expiry: 0), .over(room: [4])], max: 3, now: now)
        #expect(isAll)
        #expect(place.hostKeys.mapValues(\.publicKey) == [[2]: key, [3]: [2]])
        isAll = place.take([.init(room: [2], publicKey: key, expiry: now)], max: 3, now: now)
        #expect(isAll)
        #expect(place.hostKeys.keys.sorted { $0[0] < $1[0] } == [[3]])
    }

    @Test func `keeps no more host keys than it may have, and none for longer than a minute after its worker`() throws {
        let place = try place()
        let key = [UInt8](repeating: 1, count: 32)
        let keys = (0..<5).map { ControlMessage.HostKey(room: [$0], publicKey: key, expiry: .max) }
        var isAll = place.take(keys, max: 4, now: now)
        #expect(!isAll && place.hostKeys.count == 4)
        #expect(place.hostKeys.values.allSatisfy { $0.expiry == now + minute })
        // What is there already may change, and what has gone leaves room.
        isAll = place.take([.init(room: [3], publicKey: [2], expiry: 0)], max: 4, now: now)
        #expect(isAll && place.hostKeys[[3]]?.publicKey == [2])
        isAll = place.take([.over(room: [0]), keys[4]], max: 4, now: now)
        #expect(isAll && place.hostKeys.count == 4 && place.hostKeys[[4]] != nil)
    }

    @Test func `keeps a key no longer because the next process died as well`() throws {
        let place = try place()
        for (room, expiry) in [(1, now + 1), (2, now), (3, now - 1), (4, now + minute)] as [(UInt8, UInt64)] {
            place.hostKeys[[room]] = WorkerPlace.HostKey(publicKey: [], expiry: expiry)
        }
        place.ended(now: now)
        let expiries = place.hostKeys.mapValues(\.expiry)
        #expect(expiries == [[1]: now + 1, [4]: now + minute])
    }

    @Test func `is down and holds nothing when its process has ended, but keeps what it counted`() throws {
        let place = try place()
        let control = try launch(place)
        #expect(place.pid == getpid())
        #expect(place.launchedAt == now)
        #expect(place.becomeReady(.all))
        place.page.state = .serving
        for gauge in Gauge.allCases { place.page[gauge] = 3 }
        place.page.add(4, to: .accepted)
        place.ended(now: now + 1)
        #expect(place.pid == nil)
        #expect(!place.isReady)
        #expect(place.page.state == .down)
        for gauge in Gauge.allCases { #expect(place.page[gauge] == 0) }
        #expect(place.page[.accepted] == 4)
        _ = consume control
    }

    @Test func `is not ready, and due for nothing, when a process has been started in it`() throws {
        let place = try place()
        let first = try launch(place)
        #expect(place.becomeReady(.all))
        place.restartDue = 5
        let control = try launch(place)
        _ = consume first
        #expect(!place.isReady)
        #expect(place.restartDue == nil)
        _ = consume control
    }

    @Test func `sends to its process, and says when there is none or it is gone`() throws {
        let place = try place()
        #expect(!place.send(.start))
        var control = try launch(place)
        #expect(place.send(.start))
        guard case .message(.start, _) = control.receive() else {
            Issue.record("no message")
            return
        }
        control = try launch(try self.place())
        #expect(!place.send(.start), "the other end is closed")
    }

    @Test func `goes on in another program with its process and its keys`() throws {
        let place = try place()
        defer { place.close() }
        let control = try launch(place)
        #expect(place.becomeReady(.all))
        place.hostKeys[[1]] = WorkerPlace.HostKey(publicKey: [2], expiry: 3)
        let state = place.state
        // The other program has the descriptor to itself.
        var copied = state
        copied.control = fcntl(state.control, F_DUPFD_CLOEXEC, 3)
        let other = WorkerPlace(copied, page: place.page)
        #expect(other.pid == getpid() && other.isReady && !other.hasMoved && other.restartDue == nil)
        #expect(other.inboxReceiver == place.inboxReceiver && other.inboxSender == place.inboxSender)
        #expect(other.launchedAt == now && other.hostKeys[[1]]?.expiry == 3 && other.generation == 1)
        #expect(other.send(.start))
        _ = consume control
    }

    @Test func `without a process is due for one in another program`() throws {
        let place = try place()
        defer { place.close() }
        place.restartDue = 9
        #expect(WorkerPlace(place.state, page: place.page).restartDue == 9)
        place.restartDue = nil
        #expect(WorkerPlace(place.state, page: place.page).restartDue == 1)
    }
}
