import Shared
import Testing

@testable import supervisor

@Suite struct `What a supervisor leaves to its successor` {
    private static func place(_ index: Int, pid: Int32 = 77) -> Inheritance.PlaceState {
        let key = WorkerPlace.HostKey(publicKey: [UInt8](repeating: 1, count: 32), expiry: 9)
        return Inheritance.PlaceState(
            index: index, generation: 3, pageIndex: index + 5, listeners: [10, 11], inboxReceiver: 12,
            inboxSender: 13, pid: pid, control: pid == 0 ? 0 : 14, isReady: true, hasMoved: index > 0,
            sandbox: [.seccomp, .landlock], launchedAt: 8,
            restartDue: 4, restartCount: 5, cpuMilliseconds: 6, hostKeys: [[1, 2]: key])
    }

    private static func estate(tls: Bool) -> Inheritance.Estate {
        var configuration = Configuration()
        if tls { configuration.tls = .init(certificate: "/c", privateKey: "/k") }
        return Inheritance.Estate(
            memory: 20, credentials: tls ? Credentials(certificate: 21, privateKey: 22, validity: (-5, 6)) : nil,
            ticketFile: tls ? 23 : nil, generation: 3, startedAt: 44, hasServed: true,
            placementKey: [UInt8](0..<16), configuration: configuration, places: [place(0)],
            leavers: [place(1), place(2, pid: 0)])
    }

    private static let address = ListenAddress(host: .any, port: 8443)
    private static let every = [
        Inheritance(address: address, listeners: [], estate: nil),
        Inheritance(address: address, listeners: [3, 4, 5], estate: nil),
        Inheritance(address: address, listeners: [3], estate: estate(tls: false)),
        Inheritance(address: address, listeners: [3], estate: estate(tls: true)),
    ]

    private func error(_ bytes: [UInt8]) -> ByteCodingError? {
        do throws(ByteCodingError) {
            _ = try Inheritance(bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test func `is the same on the other side`() throws {
        for inheritance in Self.every {
            let read = try Inheritance(inheritance.bytes)
            #expect(read.bytes == inheritance.bytes)
            #expect(read.descriptors == inheritance.descriptors)
            #expect(read.listeners == inheritance.listeners && read.address == Self.address)
        }
        let estate = try #require(try Inheritance(Self.every[3].bytes).estate)
        #expect(estate.places[0].hostKeys[[1, 2]]?.expiry == 9 && estate.leavers[0].hasMoved)
        #expect(estate.places[0].sandbox == [.seccomp, .landlock])
        #expect(estate.credentials?.validity.from == -5 && estate.generation == 3 && estate.startedAt == 44)
        #expect(estate.configuration.tls?.privateKey == "/k" && estate.hasServed)
    }

    @Test func `names each descriptor that goes along`() {
        #expect(Self.every[1].descriptors == [3, 4, 5])
        // Without a process there is no control channel.
        #expect(Self.every[2].descriptors == [3, 20, 12, 13, 14, 12, 13, 14, 12, 13])
        #expect(Self.every[3].descriptors == [3, 20, 23, 21, 22, 12, 13, 14, 12, 13, 14, 12, 13])
    }

    @Test func `is refused at every truncation and with anything behind it`() {
        for inheritance in Self.every {
            let bytes = inheritance.bytes
            for end in 0..<bytes.count { #expect(error(Array(bytes[..<end])) != nil, "\(end) of \(bytes.count)") }
            #expect(error(bytes + [0]) == .trailing(count: 1))
        }
    }

    @Test func `of another format is refused`() {
        for format in [0, Compatibility.format + 1, .max - 1] as [UInt32] {
            let word = (0..<4).map { UInt8(truncatingIfNeeded: format >> (8 * $0)) }
            #expect(error(word + Self.every[2].bytes.dropFirst(4)) == .invalid(field: "format"))
        }
    }

    @Test func `never makes its successor trap`() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var state = seed
        func random(_ below: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % below
        }
        for round in 0..<10_000 {
            var bytes = Self.every[round % 4].bytes
            for _ in 0...random(3) { bytes[random(bytes.count)] = UInt8(random(256)) }
            do throws(ByteCodingError) {
                let read = try Inheritance(bytes)
                #expect(read.descriptors.allSatisfy { $0 >= 0 }, "seed \(seed)")
                #expect(read.bytes.count == bytes.count || read.estate != nil, "seed \(seed)")
            } catch {
                continue
            }
        }
    }
}
