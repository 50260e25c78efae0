// What all handshakes of a worker share: libssl's SSL_CTX with certificate, key and rules, and the ring of ticket keys.
//
// TLS 1.3 and nothing older: only its connections can be taken out of libssl by their traffic secrets. Suites, groups and their
// order are ours; 0-RTT is off, because what it carries can be replayed; the session cache is off, tickets carry the state.

import COpenSSL
import CTLSKeys
import Shared

/// An SSL_CTX. Belongs to one thread, as the ring in it does. A new certificate is a new context; handshakes that have begun
/// keep theirs.
@safe
final class TLSContext {
    /// An SSL_CTX.
    let pointer: OpaquePointer
    private(set) var ticketKeys: TicketKeys
    /// Where a handshake gets what libssl has derived.
    var takeSecret: (TrafficSecrets.Side) -> Secret? = TrafficSecrets.take
    /// Seconds since 1970 between which the certificate is valid; nil for a date that can't be read.
    let validity: (from: Int64?, until: Int64?)

    /// Must be called before anything else of libcrypto: from then on memory that libcrypto frees is wiped first.
    ///
    /// OpenSSL 3.0 leaves traffic secrets in the heap when it frees an SSL.
    static func bootstrap() throws(TLSSetupError) {
        guard copenssl_wipe_freed_memory() == 1 else {
            throw .library("memory was allocated before it could be made to be wiped")
        }
        // Reads OpenSSL's configuration, which in the sandbox could not be opened any more.
        _ = OPENSSL_init_ssl(0, nil)
    }

    /// - Parameters:
    ///   - certificates: PEM, leaf first.
    ///   - key: PEM. The caller wipes it.
    ///   - ticketKeys: a ring (TicketKeys).
    init(
        certificates: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer, ticketKeys ring: UnsafeRawBufferPointer
    ) throws(TLSSetupError) {
        let credentials = try unsafe Credentials(certificates: certificates, key: key)
        let ticketKeys = try unsafe TicketKeys(copying: ring)
        guard TLSHandshake.index >= 0 else { throw .library("no place for a handshake in an SSL") }
        guard TrafficSecrets.areTold else { throw .keyScheduleRefused }
        let context = unsafe SSL_CTX_new_ex(nil, CTLSKEYS_PROPERTIES, TLS_server_method())
        guard let pointer = unsafe context else { throw .library("no SSL_CTX") }
        do throws(TLSSetupError) {
            try unsafe credentials.install(in: pointer)
            try unsafe Self.configure(pointer)
        } catch {
            unsafe SSL_CTX_free(pointer)
            throw error
        }
        unsafe self.pointer = unsafe pointer
        self.ticketKeys = ticketKeys
        validity = credentials.validity
    }

    deinit {
        unsafe SSL_CTX_free(pointer)
    }

    /// Another ring, from the next handshake message on.
    func replaceTicketKeys(_ ring: UnsafeRawBufferPointer) throws(TLSSetupError) {
        ticketKeys = try unsafe TicketKeys(copying: ring)
    }

    private static func configure(_ context: OpaquePointer) throws(TLSSetupError) {
        ERR_clear_error()
        guard unsafe copenssl_configure(context) == 1 else { throw .library("no TLS 1.3") }
        // AES-128 first: it is the cheapest where AES is in hardware and no weaker against any attack known. A client without
        // such hardware puts ChaCha20 first, and gets it (SSL_OP_PRIORITIZE_CHACHA).
        guard
            unsafe SSL_CTX_set_ciphersuites(
                context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1
        else { throw .library("a cipher suite is missing") }
        guard unsafe copenssl_set_groups(context, "X25519:P-256:P-384") == 1 else {
            throw .library("a group is missing")
        }
        guard unsafe SSL_CTX_set_num_tickets(context, Limits.tlsTickets) == 1,
            unsafe SSL_CTX_set_max_early_data(context, 0) == 1
        else { throw .library("tickets can't be configured") }
        unsafe SSL_CTX_set_timeout(context, Limits.tlsTicketSeconds)
        unsafe SSL_CTX_set_msg_callback(context, TLSHandshake.messagePassed)
        unsafe SSL_CTX_set_alpn_select_cb(context, selectProtocol, nil)
        guard unsafe SSL_CTX_set_tlsext_ticket_key_evp_cb(context, TLSHandshake.ticketKeyWanted) == 1 else {
            throw .library("ticket keys can't be set")
        }
    }

    /// ALPN (RFC 7301): http/1.1, in which a WebSocket begins (RFC 6455, 4.1). A client that offers protocols, and not this one,
    /// is refused with no_application_protocol, as 3.2 demands: going on would mean to speak HTTP to a client that has just
    /// said that it does not, which is how one protocol is passed off as another. A client without ALPN is served.
    private static let selectProtocol:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?, UnsafeMutablePointer<UInt8>?,
            UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
        ) -> Int32 = { _, selected, selectedCount, offered, count, _ in
            let list = unsafe UnsafeBufferPointer(start: offered, count: Int(count))
            var offset = 0
            while offset < list.count {
                // libssl has checked the list; the bounds are checked again all the same.
                let length = Int(unsafe list[offset])
                let name = (offset + 1)..<min(offset + 1 + length, list.count)
                if unsafe list[name].elementsEqual("http/1.1".utf8) {
                    // libssl copies the name before the list is gone.
                    unsafe selected?.pointee = list.baseAddress.map { unsafe $0 + name.lowerBound }
                    unsafe selectedCount?.pointee = UInt8(name.count)
                    return SSL_TLSEXT_ERR_OK
                }
                offset = name.upperBound
            }
            return SSL_TLSEXT_ERR_ALERT_FATAL
        }
}
