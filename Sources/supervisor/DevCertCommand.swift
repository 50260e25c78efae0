// `relay dev-cert`: a certificate to try TLS out with. A worker process makes it; this writes two files.

import ArgumentParser
import Glibc
import Shared

struct DevCertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev-cert",
        abstract: "Make a self-signed certificate to try TLS out with.",
        discussion: """
            Writes cert.pem and key.pem, for localhost, 127.0.0.1 and ::1, good for 90 days. Files that are there stay as \
            they are. No client trusts it by itself: `curl --cacert cert.pem`, `relay-load check --ca cert.pem`. For \
            real clients get a certificate that they trust.
            """)

    @Option(help: ArgumentHelp("The folder for cert.pem and key.pem; it is made if it is missing.", valueName: "dir"))
    var out: String

    func run() throws {
        do throws(StartError) {
            let program = try WorkerProgram(variables: environmentVariables())
            try makeFolder()
            // Both or neither, or they would not belong together.
            for name in ["key.pem", "cert.pem"] where unsafe access("\(out)/\(name)", F_OK) == 0 {
                throw StartError(
                    description: "\(out)/\(name) is there already and is left as it is",
                    exitStatus: ExitStatus.unavailable)
            }
            let answer: ControlMessage
            do throws(SystemError) {
                answer = try program.ask(.makeCertificate(Sandbox()), .auto)
            } catch {
                throw StartError(description: "no certificate: \(error)", exitStatus: ExitStatus.unavailable)
            }
            guard case .certificate(let certificate, let privateKey) = answer else {
                throw StartError(description: "no certificate: libcrypto failed", exitStatus: ExitStatus.internalError)
            }
            // The key first, readable by its owner alone: a certificate without one would look finished.
            try write(privateKey, "key.pem", mode: 0o600)
            try write(certificate, "cert.pem", mode: 0o644)
        } catch {
            standardError("relay: \(error.description)")
            throw ExitCode(error.exitStatus)
        }
        print(
            """
            Wrote \(out)/cert.pem and \(out)/key.pem. To serve with them:

              RELAY_TLS_CERT=\(out)/cert.pem RELAY_TLS_KEY=\(out)/key.pem relay
            """)
    }

    private func makeFolder() throws(StartError) {
        guard unsafe mkdir(out, 0o755) != 0, errno != EEXIST else { return }
        throw StartError(description: "\(out): \(SystemError("mkdir"))", exitStatus: ExitStatus.unavailable)
    }

    private func write(_ bytes: [UInt8], _ name: String, mode: mode_t) throws(StartError) {
        let path = "\(out)/\(name)"
        let number = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard number >= 0 else {
            throw StartError(description: "\(path): \(SystemError("open"))", exitStatus: ExitStatus.unavailable)
        }
        let file = Descriptor(owning: number)
        let written = unsafe bytes.withUnsafeBytes { bytes in
            unsafe Glibc.write(file.number, bytes.baseAddress, bytes.count)
        }
        guard written == bytes.count else {
            let code = written < 0 ? errno : ENOSPC
            _ = unsafe unlink(path)
            throw StartError(description: "\(path): \(SystemError("write", code))", exitStatus: ExitStatus.unavailable)
        }
    }
}
