// Certificate and private key: opened here, where there is a file system and perhaps the right to read them, and copied, so that a
// worker which is restarted gets exactly what was checked, whatever has become of the files. A worker process checks them, for it
// links the library that can. The supervisor reads no byte of either: the kernel copies.

import CLinux
import Glibc
import Logging
import Shared

/// What tells a file that has changed from one that has not: both files' identity, size and time of change.
struct CredentialStamp: Equatable {
    private var words: [Int64] = []

    /// Of the files that stand at these paths now; all zero where there is none.
    init(_ files: Configuration.TLSFiles) {
        for path in [files.certificate, files.privateKey] {
            var status = stat()
            guard unsafe stat(path, &status) == 0 else {
                words += [0, 0, 0, 0, 0, 0, 0]
                continue
            }
            words += [
                Int64(bitPattern: UInt64(status.st_dev)), Int64(bitPattern: UInt64(status.st_ino)),
                Int64(status.st_size), Int64(status.st_mtim.tv_sec), Int64(status.st_mtim.tv_nsec),
                // A copy that keeps the time of the last change has one of its own here.
                Int64(status.st_ctim.tv_sec), Int64(status.st_ctim.tv_nsec),
            ]
        }
    }
}

/// Keeps a file without a name out of the swap, as long as this lives. The corresponding C functions are mmap(2) and
/// mlock(2); nobody reads what is mapped.
@safe
private final class LockedFile: @unchecked Sendable {
    private let start: UnsafeMutableRawPointer
    private let count: Int

    /// Nil where the limit of locked memory (RLIMIT_MEMLOCK) is too low: then it may be swapped, as the heap that the
    /// key is read into.
    init?(_ file: Int32) {
        let bytes = Int(clinux_file_bytes(file))
        guard bytes > 0 else { return nil }
        let mapping = unsafe mmap(nil, bytes, PROT_READ, MAP_PRIVATE, file, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { return nil }
        unsafe start = mapping
        count = bytes
        // What can't be locked is not kept from being swapped: there is nobody to tell.
        _ = unsafe madvise(mapping, bytes, MADV_DONTDUMP)
        _ = unsafe mlock(mapping, bytes)
    }

    deinit {
        unsafe munmap(start, count)
    }
}

/// Copies of the files of RELAY_TLS_CERT and RELAY_TLS_KEY, found to be good.
struct Credentials {
    let certificate: Int32
    let privateKey: Int32
    /// When the certificate is valid, Unix seconds.
    let validity: (from: Int64, until: Int64)
    /// Of the files when they were read; nil where that is not known.
    private(set) var stamp: CredentialStamp?
    private let locked: LockedFile?

    init(certificate: Int32, privateKey: Int32, validity: (from: Int64, until: Int64)) {
        self.certificate = certificate
        self.privateKey = privateKey
        self.validity = validity
        locked = LockedFile(privateKey)
    }

    /// Opens the files, copies them and has the copies checked.
    init(
        _ files: Configuration.TLSFiles, _ program: WorkerProgram, _ sandbox: Sandbox
    ) throws(StartError) {
        // Before they are read: what changes behind it is seen as a change.
        stamp = CredentialStamp(files)
        let certificate = try Self.open(files.certificate, "RELAY_TLS_CERT")
        let privateKey = try Self.open(files.privateKey, "RELAY_TLS_KEY")
        let answer: ControlMessage
        do throws(SystemError) {
            answer = try program.ask(
                .checkCredentials(sandbox), sandbox.mode, descriptors: [certificate.number, privateKey.number])
        } catch {
            throw StartError(
                description: "can't have RELAY_TLS_CERT and RELAY_TLS_KEY checked: \(error)",
                exitStatus: ExitStatus.unavailable)
        }
        switch answer {
        case .credentials(let from, let until): validity = (from, until)
        case .failed(let reason): throw StartError(description: reason, exitStatus: ExitStatus.configuration)
        default:
            throw StartError(
                description: "relay-worker is of another version than relay", exitStatus: ExitStatus.unavailable)
        }
        self.certificate = certificate.release()
        self.privateKey = privateKey.release()
        locked = LockedFile(self.privateKey)
    }

    private static func open(_ path: String, _ variable: String) throws(StartError) -> Descriptor {
        func problem(_ text: String) -> StartError {
            StartError(
                description: "\(variable)=\(LogText.quoted(path, bytesMax: Limits.quotedValueBytesMax)): \(text)",
                exitStatus: ExitStatus.configuration)
        }
        // O_NONBLOCK: a pipe without a writer would be waited for.
        let number = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard number >= 0 else {
            switch errno {
            case ENOENT: throw problem("there is no such file")
            case EACCES: throw problem("permission denied: the user that relay runs as must be able to read it")
            case let code: throw problem("\(SystemError("open", code))")
            }
        }
        let file = Descriptor(owning: number)
        var status = stat()
        guard unsafe fstat(number, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw problem("it is not a regular file")
        }
        guard status.st_size <= Limits.credentialBytesMax else {
            throw problem("the file has \(status.st_size) bytes, more than \(Limits.credentialBytesMax)")
        }
        do throws(SystemError) {
            return try copy(file, bytes: Int(status.st_size))
        } catch {
            throw problem("\(error)")
        }
    }

    /// The corresponding C functions are memfd_create(2) and sendfile(2).
    static func copy(_ file: borrowing Descriptor, bytes: Int) throws(SystemError) -> Descriptor {
        let number = unsafe clinux_memfd("relay-credentials")
        guard number >= 0 else { throw SystemError("memfd_create") }
        let copy = Descriptor(owning: number)
        var copied = 0
        while copied < bytes {
            let count = sendfile(number, file.number, nil, bytes - copied)
            guard count > 0 else { throw SystemError("sendfile", count < 0 ? errno : EIO) }
            copied += count
        }
        guard clinux_seal(number, CLINUX_SEAL_ALL) == 0 else { throw SystemError("fcntl") }
        return copy
    }

    /// For credentials that others have taken the place of.
    func close() {
        _ = Glibc.close(certificate)
        _ = Glibc.close(privateKey)
    }

    /// What an operator should know about the certificate's dates; nil if all is well.
    func warning(nowUnixSeconds now: Int64) -> String? {
        if now < validity.from { return "the certificate is not valid before \(Self.date(validity.from))" }
        if now > validity.until {
            return "the certificate has expired on \(Self.date(validity.until)): clients will refuse it"
        }
        let days = (validity.until - now) / 86_400
        guard days < Limits.certificateWarningDays else { return nil }
        return "the certificate expires on \(Self.date(validity.until)), in \(days) days"
    }

    private static func date(_ seconds: Int64) -> String {
        // Nanoseconds end in the year 2554, certificates may go on to 9999.
        let latest = Int64(UInt64.max / 1_000_000_000)
        return LogText.utc(nanoseconds: UInt64(min(max(0, seconds), latest)) * 1_000_000_000)
    }
}
