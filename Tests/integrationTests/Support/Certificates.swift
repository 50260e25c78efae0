// Certificates as an operator has them, made with the `openssl` command: once for all tests, in memory; whoever needs files
// has them in a folder of its own.

import Foundation
import NIOCore
import NIOSSL

/// A folder for as long as `body` needs it.
func withTemporaryFolder<Value>(_ body: (String) async throws -> Value) async throws -> Value {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("relay-tests-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    return try await body(folder)
}

func write(_ text: String, to path: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
}

/// What RELAY_TLS_CERT and RELAY_TLS_KEY name, and who vouches for it. All PEM.
struct Certificate: Sendable {
    /// Leaf first.
    var chain: String
    var key: String
    var root: String

    /// NIOSSL's side: it trusts the root and nobody else.
    ///
    /// - Parameter keyLog: is given lines of the key log.
    func clientContext(
        protocols: [String] = [], keyLog: (@Sendable (String) -> Void)? = nil
    ) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates([try NIOSSLCertificate(bytes: Array(root.utf8), format: .pem)])
        configuration.applicationProtocols = protocols
        if let keyLog { configuration.keyLogCallback = { keyLog(String(buffer: $0)) } }
        return try NIOSSLContext(configuration: configuration)
    }

    /// The variables, with files in a folder.
    func variables(in folder: String) throws -> [String: String] {
        try write(chain, to: "\(folder)/cert.pem")
        try write(key, to: "\(folder)/key.pem")
        try write(root, to: "\(folder)/ca.pem")
        return ["RELAY_TLS_CERT": "\(folder)/cert.pem", "RELAY_TLS_KEY": "\(folder)/key.pem"]
    }
}

extension Certificate {
    enum Kind: String, CaseIterable {
        case ecdsa
        case rsa
        case ed25519
        /// ECDSA with an intermediate certificate that clients do not have.
        case chain
        case expired
    }

    static func of(_ kind: Kind) async throws -> Certificate {
        guard let certificate = try await all.value[kind] else { throw SpawnError(description: "no \(kind)") }
        return certificate
    }

    private static let all = Task {
        try await withTemporaryFolder { folder in
            try await Issuer(folder: folder).all()
        }
    }

    /// The `openssl` command in a folder.
    private struct Issuer {
        var folder: String

        private static let ecdsa = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        private static let keys: [Kind: [String]] = [
            .ecdsa: ecdsa, .chain: ecdsa, .expired: ecdsa, .rsa: ["-newkey", "rsa:2048"],
            .ed25519: ["-newkey", "ed25519"],
        ]

        func all() async throws -> [Kind: Certificate] {
            try write(
                "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n", to: "\(folder)/leaf.ext")
            try write("basicConstraints=critical,CA:TRUE\n", to: "\(folder)/ca.ext")
            try await openssl(
                ["req", "-x509", "-nodes", "-subj", "/CN=Test root", "-days", "30", "-keyout", "root.key"]
                    + ["-out", "root.pem"] + Self.ecdsa)
            try await issue("middle", by: "root", Self.ecdsa, extensions: "ca.ext")
            let root = try text("root.pem")
            var all: [Kind: Certificate] = [:]
            for kind in Kind.allCases {
                let name = kind.rawValue
                try await issue(
                    name, by: kind == .chain ? "middle" : "root", Self.keys[kind] ?? [], extensions: "leaf.ext",
                    days: kind == .expired ? -1 : 30)
                let chain = try text("\(name).pem") + (kind == .chain ? try text("middle.pem") : "")
                all[kind] = Certificate(chain: chain, key: try text("\(name).key"), root: root)
            }
            return all
        }

        private func issue(
            _ name: String, by issuer: String, _ key: [String], extensions: String, days: Int = 30
        ) async throws {
            try await openssl(
                ["req", "-new", "-nodes", "-subj", "/CN=Test \(name)", "-keyout", "\(name).key", "-out", "\(name).csr"]
                    + key)
            try await openssl([
                "x509", "-req", "-in", "\(name).csr", "-CA", "\(issuer).pem", "-CAkey", "\(issuer).key", "-set_serial",
                "\(UInt32.random(in: 1...UInt32.max))", "-days", "\(days)", "-extfile", extensions, "-out",
                "\(name).pem",
            ])
        }

        private func openssl(_ arguments: [String]) async throws {
            // The files are named without their folder.
            let result = try await run("/bin/sh", ["-c", "cd \"$0\" && exec openssl \"$@\"", folder] + arguments)
            guard result.end == .status(0) else {
                throw SpawnError(description: "openssl \(arguments): \(result.errors)")
            }
        }

        private func text(_ name: String) throws -> String {
            try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
        }
    }
}

/// `openssl s_client`, which shares nothing with the relay but its library: a client of another process, with a command line.
enum SClient {
    /// Starts it, with its input open.
    static func start(_ relay: Relay, _ arguments: [String]) throws -> ChildProcess {
        try ChildProcess(
            "openssl",
            ["s_client", "-connect", "127.0.0.1:\(relay.port)", "-CAfile", "\(relay.folder)/ca.pem"] + arguments,
            takesInput: true)
    }

    /// Its output up to its end: the relay's when it has answered a request, or a failed handshake.
    static func run(
        _ relay: Relay, _ arguments: [String] = [], request: String = lastRequest
    ) async throws -> (end: ChildProcess.End, output: String, errors: String) {
        let process = try start(relay, arguments)
        defer { process.signal(SIGKILL) }
        process.write(request)
        let end = try await process.finished()
        return (end, process.output, process.errors)
    }

    static let lastRequest = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    static let answer = #"{"status":"ok"}"#
}
