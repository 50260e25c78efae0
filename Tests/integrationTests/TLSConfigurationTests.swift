import Foundation
import Glibc
import Testing

@Suite struct `TLS configuration` {
    /// Both ways to be told what is wrong: `relay`, and `relay check-config`.
    private static let commands = [[], ["check-config"]]

    /// Whether the relay refuses to start with these variables, and says so in these words.
    private func refuses(_ variables: [String: String], _ words: String..., command: [String]) async throws {
        // Not the default port: should it start after all, it is in nobody's way.
        let all = variables.merging(["RELAY_ADDR": "127.0.0.1:0", "RELAY_WORKERS": "1"]) { $1 }
        let result = try await run(try program("relay"), command, environment: all)
        #expect(result.end == .status(78), "\(result.errors)")
        #expect(result.output.isEmpty)
        for word in words { #expect(result.errors.contains(word), "\(word), in: \(result.errors)") }
        #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        // No line of any PEM file.
        #expect(!result.errors.contains(/[A-Za-z0-9+\/=]{50}/), "\(result.errors)")
    }

    @Test(arguments: commands)
    func `of one half is refused, and the other half is named`(command: [String]) async throws {
        try await withTemporaryFolder { folder in
            let good = try await Certificate.of(.ecdsa).variables(in: folder)
            for name in good.keys {
                let missing = name == "RELAY_TLS_CERT" ? "RELAY_TLS_KEY" : "RELAY_TLS_CERT"
                try await refuses([name: good[name] ?? ""], missing, command: command)
                try await refuses([name: good[name] ?? "", missing: ""], missing, command: command)
            }
        }
    }

    @Test(arguments: commands)
    func `that names no file that could be read is refused`(command: [String]) async throws {
        try await withTemporaryFolder { folder in
            let good = try await Certificate.of(.ecdsa).variables(in: folder)
            mkfifo("\(folder)/fifo", 0o600)
            try write("", to: "\(folder)/empty")
            try write(String(repeating: "x", count: 2 << 20), to: "\(folder)/huge")
            for name in ["RELAY_TLS_CERT", "RELAY_TLS_KEY"] {
                for (path, word) in [
                    ("/nowhere/at all", "no such file"), (folder, "not a regular file"),
                    ("\(folder)/fifo", "not a regular file"), ("/dev/null", "not a regular file"),
                    ("\(folder)/cert.pem/x", "open"), ("\(folder)/empty", "empty"), ("\(folder)/huge", "1048576"),
                ] {
                    try await refuses(good.merging([name: path]) { $1 }, name, word, command: command)
                }
            }
        }
    }

    @Test(arguments: commands)
    func `whose files hold something else is refused`(command: [String]) async throws {
        try await withTemporaryFolder { folder in
            let (mine, other) = (try await Certificate.of(.ecdsa), try await Certificate.of(.chain))
            let (certificate, key) = ("RELAY_TLS_CERT", "RELAY_TLS_KEY")
            var index = 0
            func check(_ files: Certificate, _ words: String...) async throws {
                index += 1
                let own = "\(folder)/\(index)"
                try FileManager.default.createDirectory(atPath: own, withIntermediateDirectories: false)
                let variables = try files.variables(in: own)
                for word in words { try await refuses(variables, word, command: command) }
            }
            func with(chain: String? = nil, key: String? = nil) -> Certificate {
                Certificate(chain: chain ?? mine.chain, key: key ?? mine.key, root: mine.root)
            }
            try await check(with(chain: "nonsense\n"), certificate, "certificate")
            try await check(with(key: "nonsense\n"), key, "key")
            try await check(with(chain: cut(mine.chain)), certificate)
            try await check(with(chain: mine.chain + cut(mine.root)), certificate, "2")
            try await check(with(key: cut(mine.key)), key)
            // Swapped.
            try await check(with(chain: mine.key, key: mine.chain), certificate)
            try await check(with(key: mine.chain), key)
            // Another certificate's key.
            try await check(with(key: other.key), key, "belong")
            // The issuer in front of the leaf.
            let issuerFirst = other.chain.components(separatedBy: "-----BEGIN").filter { !$0.isEmpty }.reversed()
            try await check(
                Certificate(chain: issuerFirst.map { "-----BEGIN" + $0 }.joined(), key: other.key, root: other.root),
                key)
            let encrypted = try await encrypt(mine.key, in: folder)
            try await check(with(key: encrypted), key, "encrypted", "openssl")
        }
    }

    @Test(arguments: commands)
    func `of OpenSSL that keeps the relay from its key schedule is refused`(command: [String]) async throws {
        try await withTemporaryFolder { folder in
            let variables = try await Certificate.of(.ecdsa).variables(in: folder)
            let path = "\(folder)/openssl.cnf"
            try write(
                "openssl_conf = all\n[all]\nalg_section = algorithms\n[algorithms]\ndefault_properties = fips=yes\n",
                to: path)
            try await refuses(
                variables.merging(["OPENSSL_CONF": path]) { $1 }, "openssl.cnf", "fips=yes", command: command)
        }
    }

    /// PEM with a part of its body missing.
    private func cut(_ pem: String) -> String {
        var lines = pem.split(separator: "\n")
        lines.remove(at: lines.count / 2)
        return lines.joined(separator: "\n") + "\n"
    }

    private func encrypt(_ key: String, in folder: String) async throws -> String {
        try write(key, to: "\(folder)/plain")
        let arguments = ["pkey", "-in", "\(folder)/plain", "-aes256", "-passout", "pass:secret"]
        let result = try await run("openssl", arguments)
        #expect(result.output.contains("ENCRYPTED"))
        return result.output
    }

    @Test func `with an expired certificate is served, with a warning`() async throws {
        try await Relay.runTLS(.expired, workers: 1) { relay in
            let warnings = relay.process.errors.split(separator: "\n").filter { $0.contains("expired") }
            #expect(warnings.count == 1 && warnings[0].contains("\(relay.folder)/cert.pem"), "\(relay.process.errors)")
            let result = try await SClient.run(relay)
            #expect(result.output.contains(SClient.answer))
            #expect(result.output.contains("certificate has expired"))
            let variables = ["RELAY_TLS_CERT": "\(relay.folder)/cert.pem", "RELAY_TLS_KEY": "\(relay.folder)/key.pem"]
            let check = try await run(try program("relay"), ["check-config"], environment: variables)
            #expect(check.end == .status(0))
            #expect(check.errors.contains("warning") && check.errors.contains("expired"))
            #expect(check.output.contains("RELAY_TLS_CERT=\(relay.folder)/cert.pem\n"))
        }
    }

    @Test func `may have text around its blocks, and a chain in any number of them`() async throws {
        let certificate = try await Certificate.of(.chain)
        try await withTemporaryFolder { folder in
            let noted = Certificate(
                chain: "# The chain\r\n" + certificate.chain.replacingOccurrences(of: "\n", with: "\r\n")
                    + "\nand the root\n" + certificate.root,
                key: "Bag Attributes\n" + certificate.key + "\n\n", root: certificate.root)
            let check = try await run(
                try program("relay"), ["check-config"], environment: try noted.variables(in: folder))
            #expect(check.end == .status(0) && check.errors.isEmpty, "\(check.errors)")
        }
    }

    @Test func `can be tried out with relay dev-cert`() async throws {
        try await withTemporaryFolder { parent in
            let folder = "\(parent)/new"
            let made = try await run(try program("relay"), ["dev-cert", "--out", folder])
            #expect(made.end == .status(0) && made.errors.isEmpty, "\(made.errors)")
            let (chain, key) = ("\(folder)/cert.pem", "\(folder)/key.pem")
            #expect(made.output.contains("RELAY_TLS_CERT=\(chain) RELAY_TLS_KEY=\(key) relay"))
            var status = stat()
            #expect(stat(key, &status) == 0 && status.st_mode & 0o777 == 0o600)
            // For the names of this machine, a version 3 certificate of a key that openssl understands.
            let text = try await run("openssl", ["x509", "-in", chain, "-noout", "-text"]).output
            for part in ["DNS:localhost", "IP Address:127.0.0.1", "Version: 3", "NIST CURVE: P-256"] {
                #expect(text.contains(part), "\(part)")
            }
            let check = try await run("openssl", ["pkey", "-in", key, "-noout", "-check"])
            #expect(check.output.contains("valid"))

            let variables = ["RELAY_TLS_CERT": chain, "RELAY_TLS_KEY": key]
            try await Relay.run(workers: 1, variables) { relay in
                #expect(!relay.process.errors.contains("warning"))
                for host in ["127.0.0.1", "localhost"] {
                    let url = "https://\(host):\(relay.port)/health"
                    let answer = try await curl("-4", "--cacert", chain, url)
                    #expect(answer == SClient.answer, "\(host)")
                }
            }

            // What is there stays: whole, or half.
            let before = try String(contentsOfFile: key, encoding: .utf8)
            for missing in [nil, chain] {
                if let missing { try FileManager.default.removeItem(atPath: missing) }
                let again = try await run(try program("relay"), ["dev-cert", "--out", folder])
                #expect(again.end != .status(0))
                #expect(again.errors.contains("\(key) is there already") && again.output.isEmpty)
                #expect(try String(contentsOfFile: key, encoding: .utf8) == before)
            }
            #expect(!FileManager.default.fileExists(atPath: chain))
            let nowhere = try await run(try program("relay"), ["dev-cert", "--out", "/dev/null/x"])
            #expect(nowhere.end != .status(0) && nowhere.errors.contains("/dev/null/x"))
            #expect(try await run(try program("relay"), ["dev-cert"]).end == .status(64))
        }
    }
}
