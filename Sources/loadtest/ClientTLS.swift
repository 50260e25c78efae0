// TLS as a client speaks it: which certificates it trusts, and one connection's records. libssl does all of it, by way of
// CLoadTLS; the relay's own record layer is not here, so that what one writes the other reads by the standard alone.

import ArgumentParser
import CLoadTLS

/// The options of both commands that say whom to trust.
struct TrustOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "For wss://: trust the certificates in this PEM file, not the system's.", valueName: "file"))
    var ca: String?

    @Flag(help: "For wss://: trust any certificate.")
    var insecure = false

    func validate() throws {
        guard ca == nil || !insecure else { throw ValidationError("give either --ca or --insecure") }
    }
}

/// What connections to one relay have in common: whom they trust, and the last ticket for resumption.
///
/// `@safe`: the pointer is this object's own from `init` to `deinit`.
@safe
final class ClientTLS {
    fileprivate let context: OpaquePointer

    init(_ trust: TrustOptions) throws(UsageError) {
        var problem = [CChar](repeating: 0, count: 256)
        let context = unsafe cloadtls_context_new(trust.ca, trust.insecure ? 0 : 1, &problem, problem.count)
        guard let context = unsafe context else {
            throw UsageError("\(trust.ca.map { "--ca \($0)" } ?? "TLS"): \(Self.text(problem))")
        }
        unsafe self.context = context
    }

    deinit {
        unsafe cloadtls_context_free(context)
    }

    var hasTicket: Bool { unsafe cloadtls_context_has_ticket(context) != 0 }

    fileprivate static func text(_ characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// One connection's TLS.
///
/// `@safe`: the pointer is this object's own from `init` to `deinit`, and the context that it refers to is kept beside it.
@safe
final class SecureStream {
    private let context: ClientTLS
    let connection: OpaquePointer

    /// The descriptor stays the caller's, and open for as long as this lives.
    init(_ tls: ClientTLS, descriptor: Int32, host: String, resume: Bool) throws(ConnectError) {
        context = tls
        guard let connection = unsafe cloadtls_new(tls.context, descriptor, host, resume ? 1 : 0) else {
            throw ConnectError(description: "no TLS with \(host): not a host's name, or no memory left", isTLS: true)
        }
        unsafe self.connection = connection
    }

    deinit {
        // If the socket still takes it: the relay is then sure that nothing was cut off.
        unsafe cloadtls_close_notify(connection)
        unsafe cloadtls_free(connection)
    }

    /// Goes on with the handshake; `.bytes` when it is done.
    func handshake() -> Progress {
        unsafe Self.progress(of: connection, Int(cloadtls_handshake(connection)))
    }

    var wantsToWrite: Bool { unsafe cloadtls_wants_write(connection) != 0 }

    /// The buffer has room for a record at least (RFC 8446, 5.1).
    func read(into buffer: inout [UInt8]) -> Progress {
        let count = unsafe buffer.withUnsafeMutableBytes { raw in
            // An empty buffer has no address, and no capacity either: nothing is read into it.
            unsafe cloadtls_read(connection, raw.baseAddress, raw.count)
        }
        return unsafe Self.progress(of: connection, count)
    }

    func write(_ bytes: [UInt8], from start: Int) -> Progress {
        let count = unsafe bytes.withUnsafeBytes { raw in
            let rest = unsafe UnsafeRawBufferPointer(rebasing: raw[start...])
            return unsafe cloadtls_write(connection, rest.baseAddress, rest.count)
        }
        return unsafe Self.progress(of: connection, count)
    }

    /// A record of these bytes, at most 16384, to be sent before anything else. Nil: libssl has refused.
    func seal(_ bytes: [UInt8]) -> [UInt8]? {
        var record = [UInt8](repeating: 0, count: bytes.count + 256)
        let count = unsafe cloadtls_seal(connection, bytes, bytes.count, &record, record.count)
        return count > 0 ? Array(record[..<count]) : nil
    }

    /// What one of CLoadTLS's calls came to.
    static func progress(of connection: OpaquePointer, _ result: Int) -> Progress {
        if result >= 0 { return .bytes(result) }
        if result == CLOADTLS_LATER { return .wouldBlock }
        if result == CLOADTLS_ENDED { return .ended("closed by the relay") }
        return .ended(unsafe String(cString: cloadtls_problem(connection)))
    }

    /// Sends a KeyUpdate (RFC 8446, 4.6.3). False: libssl has refused, because a record is half written.
    func updateKeys(asking: Bool) -> Bool { unsafe cloadtls_update_keys(connection, asking ? 1 : 0) == 0 }

    /// Sends a close_notify (RFC 8446, 6.1).
    func closeNotify() { unsafe cloadtls_close_notify(connection) }

    /// Whether the connection's end came without a close_notify.
    var isTruncated: Bool { unsafe cloadtls_is_truncated(connection) != 0 }
    var isResumed: Bool { unsafe cloadtls_is_resumed(connection) != 0 }
    /// KeyUpdates that have come.
    var keyUpdates: Int { Int(unsafe cloadtls_key_updates(connection)) }
    /// "TLSv1.3".
    var version: String { unsafe String(cString: cloadtls_version(connection)) }

    /// Agreed by ALPN (RFC 7301); empty without.
    var applicationProtocol: String {
        var name = [CChar](repeating: 0, count: 256)
        unsafe cloadtls_protocol(connection, &name)
        return ClientTLS.text(name)
    }
}
