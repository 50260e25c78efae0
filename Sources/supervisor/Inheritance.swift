// What a supervisor leaves to the program that it becomes: execve(2) keeps the process, its children and the descriptors that are not
// close-on-exec; everything else stands in a memfd, whose number the program is given with --inherit.
//
//     format u32       Compatibility.format: all of what follows; or `listenersOnly`, in whose form every version can read it:
//     address          of the listeners: u32 count, text
//     listeners        u32 count, u32 each
//                      ---- the end of a file of the form `listenersOnly` ----
//     memory u32, with TLS ticket file, certificate, private key u32 each, valid from and until i64; 0 u32 where there is none
//     generation u64, started at u64, has served u8, placement key (u32 count, 16 bytes)
//     configuration in force (u32 count, Configuration.encode)
//     places, leavers  u32 count, each: PlaceState.write
//
// Descriptors keep their numbers.

import Glibc
import Shared

/// A supervisor's state on its way over execve.
struct Inheritance {
    static let listenersOnly: UInt32 = .max

    var address: ListenAddress
    var listeners: [Int32]
    /// Nil if the predecessor's workers have all ended, because this program can't read the rest.
    var estate: Estate?

    /// What lives on: workers, and what they share.
    struct Estate {
        var memory: Int32
        var credentials: Credentials?
        var ticketFile: Int32?
        var generation: UInt64
        var startedAt: UInt64
        var hasServed: Bool
        var placementKey: [UInt8]
        var configuration: Configuration
        var places: [PlaceState]
        var leavers: [PlaceState]
    }

    /// A place and its process.
    struct PlaceState {
        var index: Int
        var generation: UInt64
        var pageIndex: Int
        var listeners: [Int32]
        var inboxReceiver: Int32
        var inboxSender: Int32
        /// 0 without a process.
        var pid: pid_t
        var control: Int32
        var isReady: Bool
        var hasMoved: Bool
        var sandbox: SandboxParts
        var launchedAt: UInt64
        var restartDue: UInt64
        var restartCount: UInt64
        /// Of the processes before.
        var cpuMilliseconds: UInt64
        var hostKeys: [[UInt8]: WorkerPlace.HostKey]
    }

    // MARK: - Writing

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.write(estate == nil ? Self.listenersOnly : Compatibility.format)
        writer.write(address.description)
        Self.write(listeners, &writer)
        guard let estate else { return writer.bytes }
        writer.write(UInt32(estate.memory))
        for descriptor in [estate.ticketFile, estate.credentials?.certificate, estate.credentials?.privateKey] {
            writer.write(UInt32(descriptor ?? 0))
        }
        writer.write(estate.credentials?.validity.from ?? 0)
        writer.write(estate.credentials?.validity.until ?? 0)
        writer.write(estate.generation)
        writer.write(estate.startedAt)
        writer.write(UInt8(estate.hasServed ? 1 : 0))
        writer.write(estate.placementKey)
        var configuration = ByteWriter()
        estate.configuration.encode(into: &configuration)
        writer.write(configuration.bytes)
        for places in [estate.places, estate.leavers] {
            writer.write(UInt32(places.count))
            for place in places { place.write(&writer) }
        }
        return writer.bytes
    }

    fileprivate static func write(_ descriptors: [Int32], _ writer: inout ByteWriter) {
        writer.write(UInt32(descriptors.count))
        for descriptor in descriptors { writer.write(UInt32(descriptor)) }
    }

    /// Every descriptor that the program needs.
    var descriptors: [Int32] {
        guard let estate else { return listeners }
        let places = (estate.places + estate.leavers).flatMap { place in
            [place.inboxReceiver, place.inboxSender] + (place.pid == 0 ? [] : [place.control])
        }
        let tls = [estate.ticketFile, estate.credentials?.certificate, estate.credentials?.privateKey]
        return listeners + [estate.memory] + tls.compactMap(\.self) + places
    }

    // MARK: - Reading

    init(address: ListenAddress, listeners: [Int32], estate: Estate?) {
        self.address = address
        self.listeners = listeners
        self.estate = estate
    }

    init(_ bytes: [UInt8]) throws(ByteCodingError) {
        var reader = ByteReader(bytes)
        let format = try reader.read(UInt32.self)
        guard format == Compatibility.format || format == Self.listenersOnly else { throw .invalid(field: "format") }
        guard let address = ListenAddress(try reader.readText(max: 256, field: "address")) else {
            throw .invalid(field: "address")
        }
        self.address = address
        listeners = try Self.readDescriptors(&reader)
        guard format == Compatibility.format else {
            try reader.finish()
            return
        }
        estate = try Estate(from: &reader)
        try reader.finish()
    }

    fileprivate static func readDescriptors(_ reader: inout ByteReader) throws(ByteCodingError) -> [Int32] {
        let count = Int(try reader.read(UInt32.self))
        guard count <= Limits.workersMax else { throw .invalid(field: "descriptors") }
        var descriptors: [Int32] = []
        for _ in 0..<count { descriptors.append(try readDescriptor(&reader)) }
        return descriptors
    }

    fileprivate static func readDescriptor(_ reader: inout ByteReader) throws(ByteCodingError) -> Int32 {
        guard let number = Int32(exactly: try reader.read(UInt32.self)) else { throw .invalid(field: "descriptor") }
        return number
    }
}

extension Inheritance.Estate {
    fileprivate init(from reader: inout ByteReader) throws(ByteCodingError) {
        memory = try Inheritance.readDescriptor(&reader)
        let tls = (
            try Inheritance.readDescriptor(&reader), try Inheritance.readDescriptor(&reader),
            try Inheritance.readDescriptor(&reader)
        )
        let validity = (try reader.read(Int64.self), try reader.read(Int64.self))
        ticketFile = tls.0 == 0 ? nil : tls.0
        credentials =
            tls.1 == 0 ? nil : Credentials(certificate: tls.1, privateKey: tls.2, validity: validity)
        generation = try reader.read()
        startedAt = try reader.read()
        hasServed = try reader.read(UInt8.self) != 0
        placementKey = try reader.readBytes(max: Limits.placementKeyBytes, field: "placement key")
        var nested = ByteReader(
            try reader.readBytes(max: Limits.controlMessageBytesMax, field: "configuration"))
        configuration = try Configuration(from: &nested)
        try nested.finish()
        places = try Self.readPlaces(&reader)
        leavers = try Self.readPlaces(&reader)
        guard placementKey.count == Limits.placementKeyBytes, (configuration.tls == nil) == (credentials == nil),
            (ticketFile == nil) == (credentials == nil), places.count == configuration.workers
        else { throw .invalid(field: "estate") }
    }

    private static func readPlaces(_ reader: inout ByteReader) throws(ByteCodingError) -> [Inheritance.PlaceState] {
        let count = Int(try reader.read(UInt32.self))
        guard count <= Limits.workerPages else { throw .invalid(field: "places") }
        var places: [Inheritance.PlaceState] = []
        for _ in 0..<count { places.append(try Inheritance.PlaceState(from: &reader)) }
        return places
    }
}

extension Inheritance.PlaceState {
    fileprivate func write(_ writer: inout ByteWriter) {
        writer.write(UInt32(index))
        writer.write(generation)
        writer.write(UInt32(pageIndex))
        Inheritance.write(listeners, &writer)
        for number in [inboxReceiver, inboxSender, pid, control] { writer.write(UInt32(max(0, number))) }
        writer.write(UInt8((isReady ? 1 : 0) | (hasMoved ? 2 : 0)))
        writer.write(sandbox.rawValue)
        writer.write(launchedAt)
        writer.write(restartDue)
        writer.write(restartCount)
        writer.write(cpuMilliseconds)
        writer.write(UInt32(hostKeys.count))
        for (room, key) in hostKeys {
            writer.write(room)
            writer.write(key.publicKey)
            writer.write(key.expiry)
        }
    }

    fileprivate init(from reader: inout ByteReader) throws(ByteCodingError) {
        index = Int(try reader.read(UInt32.self))
        generation = try reader.read()
        pageIndex = Int(try reader.read(UInt32.self))
        guard index < Limits.workersMax, pageIndex < Limits.workerPages else { throw .invalid(field: "place") }
        listeners = try Inheritance.readDescriptors(&reader)
        inboxReceiver = try Inheritance.readDescriptor(&reader)
        inboxSender = try Inheritance.readDescriptor(&reader)
        pid = try Inheritance.readDescriptor(&reader)
        control = try Inheritance.readDescriptor(&reader)
        let flags = try reader.read(UInt8.self)
        (isReady, hasMoved) = (flags & 1 != 0, flags & 2 != 0)
        sandbox = SandboxParts(rawValue: try reader.read()).intersection(.all)
        launchedAt = try reader.read()
        restartDue = try reader.read()
        restartCount = try reader.read()
        cpuMilliseconds = try reader.read()
        hostKeys = [:]
        // Each takes bytes of the message: the count is bounded by what is there.
        for _ in 0..<(try reader.read(UInt32.self)) {
            let room = try reader.readBytes(max: Limits.roomIDBytesMax, field: "room")
            let key = try reader.readBytes(max: Limits.publicKeyBytes, field: "host key")
            hostKeys[room] = WorkerPlace.HostKey(publicKey: key, expiry: try reader.read())
        }
    }
}
