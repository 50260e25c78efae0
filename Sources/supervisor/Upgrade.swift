// A new program in this process: the supervisor executes the `relay` that stands at its own path by now, with the same pid, arguments
// and environment, and leaves it everything (Inheritance.swift). The new supervisor then changes generations as at a reload, with workers
// of its own version. Nothing is stopped in between, for workers do their work without a supervisor's help.
//
// Before that, the new program is asked whether it can: its configuration must be good, and it must know this one's formats. If it
// does not know them, the workers let their clients go with close code 1012, and it starts afresh with the listeners alone.

import CLinux
import Glibc
import Logging
import Shared

/// What the new program answers when it is asked (`relay take-over-check`).
enum TakeOver {
    /// EX_TEMPFAIL: the configuration is good, but the formats are others.
    static let otherFormat: Int32 = 75
}

extension Supervisor {
    /// Whether every worker has been told all that there was to tell, for what waits here would be lost, and none is about to be
    /// reaped.
    var isQuiet: Bool {
        everyPlace.allSatisfy { place in
            guard place.pid != nil else { return true }
            return place.control?.isBlocked == false
        }
    }

    /// Begins an upgrade, or remembers it until the change under way is over.
    func requestUpgrade() {
        guard drainDeadline == nil else {
            logger.warning("upgrade refused: the relay is stopping")
            ended(.upgrade, ChangeOutcome(isSuccess: false, text: "upgrade refused: the relay is stopping"))
            return
        }
        guard change == nil else {
            remember(.upgrade)
            return
        }
        guard isQuiet else {
            remember(.upgrade)
            return
        }
        logger.info("upgrade begins", metadata: ["program": "\(program.supervisorPath)", "from": "\(Version.text)"])
        forgetSuccessor()
        do throws(ChangeError) {
            switch try askSuccessor() {
            case ExitStatus.success:
                try become(inheriting: estate())
            case TakeOver.otherFormat:
                logger.warning("the new program can't go on with what is here: clients are closed with code 1012")
                restartAfterDrain()
            case ExitStatus.configuration:
                throw ChangeError(description: "the new program finds the configuration wrong; see above")
            case let status:
                throw ChangeError(description: "\(program.supervisorPath) can't take over (exit \(status))")
            }
        } catch {
            forgetSuccessor()
            failed(.upgrade, "\(error)")
        }
    }

    /// Asks the program that stands at this one's path. Its complaints go to the log's stream.
    private func askSuccessor() throws(ChangeError) -> Int32 {
        var arguments = ["take-over-check", "--format", "\(Compatibility.format)"]
        if let file = settings.file { arguments += ["--env-file", file] }
        do throws(SystemError) {
            let successor = try program.openSuccessor()
            let status = try program.run(successor, arguments)
            self.successor = successor.release()
            return status
        } catch {
            throw ChangeError(description: "\(error)")
        }
    }

    /// Everything that outlives this program.
    private func estate() -> Inheritance.Estate {
        Inheritance.Estate(
            memory: memoryFile, credentials: credentials, ticketFile: ticketFile, generation: generation,
            startedAt: startedAt, hasServed: hasServed, placementKey: placementKey, configuration: configuration,
            places: places.map(\.state), leavers: leavers.map(\.state))
    }

    /// The workers end, and then the new program begins with the listeners alone: whoever connects meanwhile waits in them.
    private func restartAfterDrain() {
        becomesSuccessor = true
        drain(isRestart: true)
    }

    /// Becomes the new program. Returns only if that fails.
    func become(inheriting estate: Inheritance.Estate?) throws(ChangeError) {
        let inheritance = Inheritance(
            address: listeners.address, listeners: listeners.descriptors, estate: estate)
        do throws(SystemError) {
            let number = unsafe clinux_memfd("relay-inheritance")
            guard number >= 0 else { throw SystemError("memfd_create") }
            let file = Descriptor(owning: number)
            try Self.write(inheritance.bytes, to: number)
            for descriptor in inheritance.descriptors + [number] { _ = fcntl(descriptor, F_SETFD, 0) }
            defer { for descriptor in inheritance.descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) } }
            logger.debug("becoming the new program", metadata: ["bytes": "\(inheritance.bytes.count)"])
            let program = try takeSuccessor()
            try self.program.become(program, inheriting: file.number)
        } catch {
            throw ChangeError(description: "\(error)")
        }
    }

    /// The program that was asked, or else the one that is installed.
    private func takeSuccessor() throws(SystemError) -> Descriptor {
        guard let number = successor else { return try program.openSuccessor() }
        successor = nil
        return Descriptor(owning: number)
    }

    /// Lets go of a program that was asked and does not take over.
    private func forgetSuccessor() {
        if let number = successor { _ = close(number) }
        successor = nil
    }

    private static func write(_ bytes: [UInt8], to file: Int32) throws(SystemError) {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(file, buffer.baseAddress.map { unsafe $0 + written }, bytes.count - written)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw SystemError("write") }
            written += count
        }
        guard lseek(file, 0, SEEK_SET) == 0 else { throw SystemError("lseek") }
    }
}

extension Inheritance {
    /// Takes what the predecessor has left in descriptor `number`, which is closed.
    static func take(from number: Int32) throws(StartError) -> Inheritance {
        func problem(_ text: String) -> StartError {
            StartError(description: "--inherit \(number): \(text)", exitStatus: ExitStatus.usage)
        }
        var status = stat()
        guard number > 2, unsafe fstat(number, &status) == 0 else {
            throw problem("this option is for `relay upgrade`, not for people")
        }
        let file = Descriptor(owning: number)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var count = 0
        while count < bytes.count {
            let result = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe read(file.number, buffer.baseAddress.map { unsafe $0 + count }, buffer.count - count)
            }
            if result < 0 && errno == EINTR { continue }
            guard result > 0 else { throw problem("\(SystemError("read"))") }
            count += result
        }
        do throws(ByteCodingError) {
            let inheritance = try Inheritance(bytes)
            for descriptor in inheritance.descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
            return inheritance
        } catch {
            throw problem("\(error)")
        }
    }
}
