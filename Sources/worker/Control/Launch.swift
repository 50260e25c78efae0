// How a worker begins: on descriptor 3 it is told what it is and given every descriptor it needs; then it gives up every
// privilege, goes into its sandbox and serves.

import CLinux
import CSandbox
import CSodium
import Glibc
import Logging
import Shared

/// What the supervisor's launch messages amount to.
struct Launched: ~Copyable {
    var index: Int
    var page: Int
    var standsBy: Bool
    var awaited: ControlMessage.Awaited
    var configuration: Configuration
    var placementKey: [UInt8]
    var memory: SharedMemory
    /// Where RELAY_MAX_CONNECTIONS_PER_IP or RELAY_MAX_ROOMS_PER_IP is on, or was.
    var addresses: AddressLedger?
    var logger: Logger
    var listeners: [Int32]
    var inbox: Descriptor
    var outboxes: [Int32]
    var control: ControlChannel
    var survivingKeys: [RoomID: SurvivingKey]
    var ciphers: RecordCiphers
    /// With TLS.
    var tlsContext: TLSContext?
    var tickets: TicketMemory?
    var ticketGeneration: UInt64
}

/// Why a worker could not begin.
struct LaunchError: Error, CustomStringConvertible {
    var description: String
    /// With `launchFailed` the supervisor tries again; with others it does not if no worker has ever served.
    var exitStatus = ExitStatus.launchFailed
}

enum Launch {
    /// The descriptor that a worker is born with.
    private static let controlDescriptor: Int32 = 3

    /// Runs a worker from launch to end; the process's exit status (Shared/ExitStatus.swift).
    static func main() -> Int32 {
        guard fcntl(controlDescriptor, F_GETFD) >= 0, isSocket(controlDescriptor) else {
            var line = "relay-worker is started by relay, not by hand: run `relay`.\n"
            line.withUTF8 { text in _ = unsafe write(2, text.baseAddress, text.count) }
            return ExitStatus.usage
        }
        _ = fcntl(controlDescriptor, F_SETFD, FD_CLOEXEC)
        // This program itself, by which it was started.
        _ = Glibc.close(controlDescriptor + 1)
        unsafe clinux_set_name("relay-worker")
        // A terminal's Ctrl-C and systemd's SIGTERM reach every process of the relay: the supervisor's word alone ends a
        // worker, and so does the end of its control channel.
        for number in [SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2] { _ = signal(number, SIG_IGN) }
        // Before there is a secret in this process; to become another user undoes a part of it, so it is done again
        // after that.
        guard clinux_harden() == 0, sodium_init() >= 0 else { return ExitStatus.internalError }
        clinux_tune_heap(Int32(Limits.heapMappedBytesMin), Int32(Limits.heapMappingsMax))
        // The control channel is gone when it turns out that the worker can't begin: by this one the supervisor hears why.
        var lastWords: Descriptor? = Descriptor(copying: controlDescriptor)
        do throws(LaunchError) {
            // Before anything else of libcrypto.
            do throws(TLSSetupError) { try TLSContext.bootstrap() } catch { throw LaunchError(description: "\(error)") }
            var control = ControlChannel(Descriptor(owning: controlDescriptor))
            let (message, descriptors) = try awaitMessage(&control)
            switch message {
            case .checkCredentials(let sandbox):
                try become(sandbox)
                _ = try enter(sandbox, fileBytesMax: 0)
                return try checkCredentials(descriptors, &control)
            case .makeCertificate(let sandbox):
                try become(sandbox)
                _ = try enter(sandbox, fileBytesMax: 0)
                return try makeCertificate(&control)
            case .launch(let launch):
                var worker = try begin(try receive(launch, descriptors, control))
                let fileBytesMax = Limits.workerFileBytesMax(launch.configuration)
                let parts = try enter(launch.sandbox, fileBytesMax: fileBytesMax, violation: worker.page)
                lastWords = nil
                worker.run(parts)
                return worker.hasFailed ? ExitStatus.unavailable : ExitStatus.success
            default:
                throw LaunchError(
                    description: "control message out of place: \(message.name)", exitStatus: ExitStatus.unavailable)
            }
        } catch {
            if let number = lastWords.take() {
                var channel = ControlChannel(number)
                do throws(SystemError) {
                    try channel.sendAlways(.failed(reason: error.description))
                    return error.exitStatus
                } catch {}
            }
            var line = "relay-worker: \(error.description)\n"
            line.withUTF8 { text in _ = unsafe write(2, text.baseAddress, text.count) }
            return error.exitStatus
        }
    }

    /// Says whether the relay could serve with these files, and ends.
    private static func checkCredentials(
        _ descriptors: [Int32], _ control: inout ControlChannel
    ) throws(LaunchError) -> Int32 {
        guard descriptors.count == 2 else { throw LaunchError(description: "two files are checked together") }
        let files = CredentialFiles(
            certificate: Descriptor(owning: descriptors[0]), privateKey: Descriptor(owning: descriptors[1]))
        let answer: ControlMessage
        do throws(CredentialError) {
            let (from, until) = try files.check()
            answer = .credentials(from: from, until: until)
        } catch {
            answer = .failed(reason: error.description)
        }
        return try answerAndEnd(answer, &control)
    }

    /// Makes a certificate for development, and ends.
    private static func makeCertificate(_ control: inout ControlChannel) throws(LaunchError) -> Int32 {
        guard let made = DevCertificate.make() else {
            return try answerAndEnd(.failed(reason: "libcrypto made no certificate"), &control)
        }
        return try answerAndEnd(.certificate(made.certificate, privateKey: made.privateKey), &control)
    }

    // MARK: - The sandbox

    /// Becomes the user that the sandbox names, if this process is root, and gives up what it takes privilege to give
    /// up.
    private static func become(_ sandbox: Sandbox) throws(LaunchError) {
        guard csandbox_become(sandbox.user, sandbox.group) == 0 else {
            throw LaunchError(description: "\(SystemError("setresuid"))")
        }
        guard clinux_harden() == 0 else { throw LaunchError(description: "\(SystemError("prctl"))") }
    }

    /// Goes into the sandbox: from here on there are the descriptors and the memory that there are.
    ///
    /// - Parameters:
    ///   - fileBytesMax: a file without a name that the process may write.
    ///   - page: where the number of a system call that ends the process is written.
    /// - Returns: the parts that hold.
    private static func enter(
        _ sandbox: Sandbox, fileBytesMax: UInt64, violation page: WorkerPage? = nil
    ) throws(LaunchError) -> SandboxParts {
        // The page, where there is one, is mapped as long as the process lives.
        var wanted = unsafe csandbox(
            parts: sandbox.mode == .off ? SandboxParts([.capabilities, .noNewPrivileges]).rawValue : .max,
            // A log that is a file may be longer than any message: each line would be refused.
            file_bytes_max: clinux_is_regular(2) != 0 ? .max : fileBytesMax, violation: page?.violationWord)
        var result = csandbox_result()
        unsafe csandbox_enter(&wanted, &result)
        let parts = SandboxParts(rawValue: result.parts).intersection(.all)
        guard sandbox.mode == .required, parts != .all else { return parts }
        let missing = SandboxParts.all.subtracting(parts).names.joined(separator: ", ")
        throw LaunchError(
            description: "RELAY_SANDBOX=required: this system does not give \(missing)",
            exitStatus: ExitStatus.configuration)
    }

    private static func answerAndEnd(
        _ answer: ControlMessage, _ control: inout ControlChannel
    ) throws(LaunchError) -> Int32 {
        do throws(SystemError) { try control.sendAlways(answer) } catch { throw LaunchError(description: "\(error)") }
        return ExitStatus.success
    }

    private static func isSocket(_ descriptor: Int32) -> Bool {
        var status = stat()
        return unsafe fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }

    private static func begin(_ launched: consuming Launched) throws(LaunchError) -> Worker {
        do throws(SystemError) {
            return try Worker(launched)
        } catch {
            throw LaunchError(description: "\(error)")
        }
    }

    /// Takes the launch messages up to `start`.
    private static func receive(
        _ launch: ControlMessage.Launch, _ descriptors: [Int32], _ control: consuming ControlChannel
    ) throws(LaunchError) -> Launched {
        let count = launch.configuration.tls == nil ? 3 : 6
        guard descriptors.count == count else {
            throw LaunchError(
                description: "launch with \(descriptors.count) descriptors in place of \(count)",
                exitStatus: ExitStatus.unavailable)
        }
        let memoryFile = Descriptor(owning: descriptors[0])
        let memoryReader = Descriptor(owning: descriptors[1])
        let inbox = Descriptor(owning: descriptors[2])
        let memory: SharedMemory
        var addresses: AddressLedger?
        do throws(SystemError) {
            memory = try SharedMemory.map(memoryReader, writable: memoryFile, page: launch.page)
            if let table = try AddressTable.map(memoryFile.number) {
                addresses = try AddressLedger(table, page: launch.page, file: memoryFile.number)
            }
        } catch {
            throw LaunchError(description: "shared memory: \(error)")
        }
        let page = memory.page(launch.page)
        page.state = .starting
        page.pid = getpid()
        unsafe clinux_set_name("relay-worker/\(launch.index)")
        let logger = makeLogger(
            level: launch.configuration.logLevel, format: launch.configuration.logFormat,
            process: "worker/\(launch.index)")

        var tls: (context: TLSContext, tickets: TicketMemory, generation: UInt64)?
        if count == 6 { tls = try prepareTLS(Array(descriptors[3...])) }
        var outboxes = [Int32](repeating: -1, count: launch.workers)
        var listeners: [Int32] = []
        var keys: [RoomID: SurvivingKey] = [:]
        receiving: while true {
            let (message, descriptors) = try awaitMessage(&control)
            switch message {
            case .inboxes(let first):
                guard first >= 0, first + descriptors.count <= outboxes.count else {
                    throw LaunchError(description: "inboxes of workers that do not exist")
                }
                for (offset, descriptor) in descriptors.enumerated() { outboxes[first + offset] = descriptor }
            case .listeners:
                listeners += descriptors
            case .hostKeys(let restored):
                for key in restored {
                    keys[RoomID(bytes: key.room)] = SurvivingKey(publicKey: key.publicKey, expiry: key.expiry)
                }
                page.add(UInt64(restored.count), to: .hostKeysRestored)
            case .start:
                break receiving
            default:
                throw LaunchError(
                    description: "control message out of place: \(message.name)", exitStatus: ExitStatus.unavailable)
            }
        }
        guard !listeners.isEmpty else { throw LaunchError(description: "without a listener") }
        guard !outboxes.contains(-1) else { throw LaunchError(description: "an inbox is missing") }
        try become(launch.sandbox)
        let ciphers: RecordCiphers
        do throws(TLSSetupError) { ciphers = try RecordCiphers() } catch { throw LaunchError(description: "\(error)") }
        return Launched(
            index: launch.index, page: launch.page, standsBy: launch.standsBy,
            awaited: launch.awaited, configuration: launch.configuration, placementKey: launch.placementKey,
            memory: memory, addresses: addresses, logger: logger, listeners: listeners, inbox: inbox,
            outboxes: outboxes, control: control, survivingKeys: keys, ciphers: ciphers, tlsContext: tls?.context,
            tickets: tls?.tickets, ticketGeneration: tls?.generation ?? 0)
    }

    /// Certificate, private key and ticket keys, in this order.
    private static func prepareTLS(
        _ descriptors: [Int32]
    ) throws(LaunchError) -> (TLSContext, TicketMemory, UInt64) {
        let files = CredentialFiles(
            certificate: Descriptor(owning: descriptors[0]), privateKey: Descriptor(owning: descriptors[1]))
        let ticketFile = Descriptor(owning: descriptors[2])
        let tickets: TicketMemory
        do throws(SystemError) {
            tickets = try TicketMemory(mapping: ticketFile)
        } catch {
            throw LaunchError(description: "ticket keys: \(error)")
        }
        var made: TLSContext?
        var failure: CredentialError?
        let generation = unsafe tickets.read { ring in
            do throws(CredentialError) { made = try unsafe files.makeContext(ticketKeys: ring) } catch {
                failure = error
            }
        }
        if let failure {
            throw LaunchError(description: failure.description, exitStatus: ExitStatus.configuration)
        }
        guard let made, let generation else { throw LaunchError(description: "ticket keys can't be read") }
        return (made, tickets, generation)
    }

    /// The next message, waited for without bound: a supervisor that dies closes the channel.
    private static func awaitMessage(_ control: inout ControlChannel) throws(LaunchError) -> (ControlMessage, [Int32]) {
        while true {
            switch control.receive() {
            case .message(let message, let descriptors): return (message, descriptors)
            case .nothing:
                var poll = pollfd(fd: control.number, events: Int16(POLLIN), revents: 0)
                _ = unsafe Glibc.poll(&poll, 1, -1)
            case .closed: throw LaunchError(description: "the supervisor is gone")
            case .malformed(let error):
                throw LaunchError(
                    description: "control message not understood: \(error)", exitStatus: ExitStatus.unavailable)
            case .failed(let error): throw LaunchError(description: "control channel: \(error)")
            }
        }
    }
}
