import COpenSSL
import Testing

@testable import worker

/// A client of libssl's, on memory BIOs: the independent other side.
final class TLSClient {
    struct Options {
        var suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
        var groups = "X25519:P-256:P-384"
        var alpn: [String] = ["http/1.1"]
        var serverName: String? = "relay.example"
        var versionMax = Int(TLS1_3_VERSION)
        /// An SSL_SESSION to resume.
        var session: OpaquePointer?
        /// Early data to try, against whatever the ticket says.
        var earlyData: [UInt8]?
        var trusted: OpaquePointer? = TestCertificate.of(.p256).root
    }

    private let context: OpaquePointer
    let ssl: OpaquePointer
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer
    /// Tickets that came, SSL_SESSIONs.
    var tickets: [OpaquePointer] = []
    private let earlyData: [UInt8]?
    private(set) var alertReceived: UInt8?
    private(set) var keyUpdatesReceived = 0
    private(set) var hellosSent = 0
    private(set) var isConnected = false
    private(set) var hasFailed = false
    private static let index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, nil, nil, nil, nil)

    init(_ options: Options = Options()) {
        guard let context = SSL_CTX_new(TLS_client_method()), let ssl = Self.makeSSL(context, options),
            let incoming = BIO_new(BIO_s_mem()), let outgoing = BIO_new(BIO_s_mem())
        else { fatalError("no client") }
        self.context = context
        self.ssl = ssl
        self.incoming = incoming
        self.outgoing = outgoing
        earlyData = options.earlyData
        copenssl_bio_waits(incoming)
        SSL_set_bio(ssl, incoming, outgoing)
        SSL_set_connect_state(ssl)
        SSL_set_ex_data(ssl, Self.index, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        for ticket in tickets { SSL_SESSION_free(ticket) }
        SSL_free(ssl)
        SSL_CTX_free(context)
    }

    private static func makeSSL(_ context: OpaquePointer, _ options: Options) -> OpaquePointer? {
        #expect(SSL_CTX_set_ciphersuites(context, options.suites) == 1)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, options.versionMax, nil)
        #expect(copenssl_set_groups(context, options.groups) == 1)
        // SSL_SESS_CACHE_CLIENT, without which no ticket is told of.
        SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, 1, nil)
        SSL_CTX_sess_set_new_cb(context) { ssl, session in
            guard let object = SSL_get_ex_data(ssl, TLSClient.index), let session else { return 0 }
            Unmanaged<TLSClient>.fromOpaque(object).takeUnretainedValue().tickets.append(session)
            return 1
        }
        SSL_CTX_set_msg_callback(context) { isWritten, _, type, bytes, count, ssl, _ in
            guard let object = SSL_get_ex_data(ssl, TLSClient.index), let bytes else { return }
            let client = Unmanaged<TLSClient>.fromOpaque(object).takeUnretainedValue()
            if isWritten == 1 {
                if type == SSL3_RT_HANDSHAKE, bytes.load(as: UInt8.self) == SSL3_MT_CLIENT_HELLO {
                    client.hellosSent += 1
                }
                return
            }
            if type == SSL3_RT_ALERT { client.alertReceived = bytes.load(fromByteOffset: 1, as: UInt8.self) }
            if type == SSL3_RT_HANDSHAKE, count == 5, bytes.load(as: UInt8.self) == 24 {
                client.keyUpdatesReceived += 1
            }
        }
        if let trusted = options.trusted {
            X509_STORE_add_cert(SSL_CTX_get_cert_store(context), trusted)
            SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        }
        let protocols = options.alpn.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        if !protocols.isEmpty { SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count)) }
        let ssl = SSL_new(context)
        if var name = options.serverName.map({ $0.utf8CString }) {
            name.withUnsafeMutableBytes { bytes in
                _ = SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), bytes.baseAddress)
            }
        }
        if let session = options.session {
            // A copy: SSL_free spoils the session of a connection that was not shut down.
            let copy = SSL_SESSION_dup(session)
            #expect(SSL_set_session(ssl, copy) == 1)
            SSL_SESSION_free(copy)
        }
        return ssl
    }

    /// Takes bytes from the server, and goes on with the handshake if it is not over.
    func receive(_ bytes: [UInt8]) {
        if !bytes.isEmpty { #expect(BIO_write(incoming, bytes, Int32(bytes.count)) == bytes.count) }
        guard !isConnected, !hasFailed else { return }
        ERR_clear_error()
        if let earlyData, SSL_get_state(ssl) == TLS_ST_BEFORE {
            var count = 0
            _ = SSL_write_early_data(ssl, earlyData, earlyData.count, &count)
        }
        let result = SSL_do_handshake(ssl)
        if result == 1 {
            isConnected = true
        } else if SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ {
            hasFailed = true
        }
    }

    /// What has been written since the last call.
    func output() -> [UInt8] { TestCertificate.bytes(of: outgoing) }

    func write(_ bytes: [UInt8]) {
        ERR_clear_error()
        guard !bytes.isEmpty else { return }
        #expect(SSL_write(ssl, bytes, Int32(bytes.count)) == bytes.count)
    }

    /// All data that has come. A ticket or a KeyUpdate may be all there is; a KeyUpdate's answer is then in `output`.
    func read() -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            ERR_clear_error()
            let count = SSL_read(ssl, &buffer, Int32(buffer.count))
            guard count > 0 else {
                let error = SSL_get_error(ssl, count)
                if error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN { hasFailed = true }
                return all
            }
            all += buffer.prefix(Int(count))
        }
    }

    /// Sends a KeyUpdate.
    func updateKey(requested: Bool) {
        #expect(SSL_key_update(ssl, requested ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
        #expect(SSL_do_handshake(ssl) == 1)
    }

    func sendCloseNotify() { SSL_shutdown(ssl) }

    /// Whether the server has said close_notify.
    var isClosedByServer: Bool { SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN != 0 }

    /// A copy of the last ticket, which SSL_free of this client does not spoil. The caller frees it.
    func ticket() throws -> OpaquePointer {
        _ = read()
        let last = try #require(tickets.last)
        return try #require(SSL_SESSION_dup(last))
    }
}
