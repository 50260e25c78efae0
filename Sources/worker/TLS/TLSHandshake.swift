// A TLS 1.3 handshake: libssl makes it on two memory BIOs, and tells what a session needs to go on without libssl.
//
//     bytes ──▶ advance ──▶ needInput      send what is in `output`, come again with more
//                       ├─▶ established    send what is in `output` (tickets); the session has the bytes behind Finished
//                       └─▶ failed         send what is in `output` (the alert), then close
//
// What is needed of libssl, and in which order it comes (checked in each handshake):
//
//     the server's Finished is written   behind it our first traffic secret is derived: records under it begin with number 0
//     headers written after that         one a record: our sequence number when the handshake is over
//     the client's Finished is read      with its first traffic secret: its records begin with number 0
//     headers read after that            none: every byte behind Finished is still in the BIO
//
// The secrets come from the key schedule that libssl is given (TrafficSecrets). That a libssl still does what this relies on is
// not taken for granted: the records just written are opened with the keys derived here, at the numbers counted here, before the
// session exists. If a libssl changes, handshakes fail; no nonce is used twice.
//
// The message callback lets nothing out: it sees handshake messages in the clear.

import COpenSSL
import Shared

/// What a handshake agreed on.
struct TLSParameters: Equatable {
    var suite: Suite
    /// Whether a ticket took the place of the certificate.
    var isResumed: Bool
    /// Whether ALPN agreed on http/1.1; otherwise the client offered nothing.
    var hasALPN: Bool
}

/// One handshake. A class, because libssl's callbacks need an address that stays. To be dropped as soon as it is over.
@safe
final class TLSHandshake {
    enum Step: ~Copyable {
        case needInput
        case established(TLSSession, TLSParameters)
        case failed(TLSHandshakeFailure)
    }

    /// Where an SSL keeps its handshake; negative if there is no place.
    static let index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, nil, nil, nil, nil)

    private let context: TLSContext
    /// An SSL, which owns both BIOs.
    private let ssl: OpaquePointer
    private let received: OpaquePointer
    private let written: OpaquePointer
    private var receivedBytes = 0

    private var clientSecret: Secret?
    private var serverSecret: Secret?

    // What the callback says
    /// Whether the Finished of that side has passed, and records written, and read, since then.
    private var isFinishedWritten = false
    private var isFinishedRead = false
    private var recordsWritten: UInt64 = 0
    private var recordsRead: UInt64 = 0
    private var alertSent: UInt8?
    private var alertReceived: UInt8?

    init(_ context: TLSContext) throws(TLSSetupError) {
        ERR_clear_error()
        guard let ssl = unsafe SSL_new(context.pointer) else { throw .library("no SSL") }
        guard let received = unsafe BIO_new(BIO_s_mem()) else {
            unsafe SSL_free(ssl)
            throw .library("no BIO")
        }
        guard let written = unsafe BIO_new(BIO_s_mem()) else {
            unsafe BIO_free(received)
            unsafe SSL_free(ssl)
            throw .library("no BIO")
        }
        unsafe copenssl_bio_waits(received)
        unsafe SSL_set_bio(ssl, received, written)
        unsafe SSL_set_accept_state(ssl)
        self.context = context
        unsafe self.ssl = unsafe ssl
        unsafe self.received = unsafe received
        unsafe self.written = unsafe written
        // Not retained: the SSL lives as long as this object and no longer.
        guard unsafe SSL_set_ex_data(ssl, Self.index, Unmanaged.passUnretained(self).toOpaque()) == 1 else {
            throw .library("no place for a handshake in an SSL")
        }
    }

    deinit {
        // No SSL_shutdown: the connection goes on.
        unsafe SSL_free(ssl)
    }

    /// Takes the bytes of one read from the client and goes as far as they lead. What is to be sent is appended to `output`,
    /// whatever the step.
    func advance(
        _ bytes: UnsafeRawBufferPointer, output: inout ByteQueue, _ ciphers: borrowing RecordCiphers
    ) -> Step {
        // So that what is left at the end fits the session.
        precondition(bytes.count <= Limits.receiveBytesMax, "one read at a time")
        // libssl's error queue is the thread's: nothing may be left in it from before, and nothing comes between.
        ERR_clear_error()
        // A read's bytes; a memory BIO takes them all.
        if bytes.count > 0 {
            guard unsafe BIO_write(received, bytes.baseAddress, Int32(truncatingIfNeeded: bytes.count)) == bytes.count
            else {
                return .failed(TLSHandshakeFailure(.internalError, "out of memory"))
            }
        }
        receivedBytes += bytes.count
        let result = unsafe SSL_do_handshake(ssl)
        let error = unsafe SSL_get_error(ssl, result)
        takeSecrets()
        if result == 1 { return finish(&output, ciphers) }
        drain(into: &output)
        guard error == SSL_ERROR_WANT_READ else { return .failed(failure()) }
        let waiting = unsafe BIO_ctrl_pending(received)
        let taken = receivedBytes - waiting
        guard taken <= Limits.tlsHandshakeBytesMax else {
            return .failed(TLSHandshakeFailure(.tooLong, "more than \(Limits.tlsHandshakeBytesMax) bytes"))
        }
        return .needInput
    }

    /// The step may have derived one: the next step is another handshake's.
    private func takeSecrets() {
        if let secret = context.takeSecret(.server) { serverSecret = consume secret }
        if let secret = context.takeSecret(.client) { clientSecret = consume secret }
    }

    /// Moves what libssl has written to the queue.
    private func drain(into output: inout ByteQueue) {
        unsafe withWritten { bytes in unsafe output.append(bytes) }
        unsafe copenssl_bio_reset(written)
    }

    private func withWritten<Result: ~Copyable>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        var start: UnsafeMutablePointer<CChar>?
        let count = unsafe copenssl_bio_bytes(written, &start)
        // The BIO says where its bytes are and how many, until it is next changed.
        return unsafe body(UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : count))
    }

    // MARK: - The end

    private func finish(_ output: inout ByteQueue, _ ciphers: borrowing RecordCiphers) -> Step {
        let number = unsafe SSL_get_current_cipher(ssl).map { unsafe SSL_CIPHER_get_protocol_id($0) }
        guard unsafe SSL_version(ssl) == TLS1_3_VERSION, let suite = number.flatMap(Suite.init),
            let clientSecret = clientSecret.take(), clientSecret.count == suite.hashBytes,
            let serverSecret = serverSecret.take(), serverSecret.count == suite.hashBytes
        else { return .failed(.changed("no TLS 1.3 traffic secrets")) }
        guard recordsRead == 0, unsafe SSL_has_pending(ssl) == 0 else {
            return .failed(.changed("it has read beyond Finished"))
        }
        var session = unsafe TLSSession(
            suite, clientSecret: UnsafeRawBufferPointer(clientSecret.unsafeBytes),
            serverSecret: UnsafeRawBufferPointer(serverSecret.unsafeBytes), writeSequence: recordsWritten)
        guard areTickets(of: session, ciphers) else {
            return .failed(.changed("its last records are not under the key and numbers expected"))
        }
        drain(into: &output)
        handOverRest(to: &session)
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &name, &length)
        let parameters = unsafe TLSParameters(
            suite: suite, isResumed: SSL_session_reused(ssl) == 1, hasALPN: length > 0)
        return .established(session, parameters)
    }

    /// Whether what has been written is exactly the records counted, each a handshake message under the keys and numbers that
    /// the session will go on with.
    private func areTickets(of session: borrowing TLSSession, _ ciphers: borrowing RecordCiphers) -> Bool {
        let count = unsafe withWritten { $0.count }
        guard count > 0 else { return recordsWritten == 0 }
        // Tickets are secret while they are in the clear: opened in a copy that is wiped.
        let copy = unsafe withWritten { unsafe Secret(copying: $0) }
        let bytes = unsafe copy.unsafeBytes
        var offset = 0
        var number: UInt64 = 0
        while offset < count {
            guard count - offset >= Record.headerBytes + Record.tagBytes else { return false }
            let length = Int(unsafe bytes[offset + 3]) << 8 | Int(unsafe bytes[offset + 4])
            let end = offset + Record.headerBytes + length
            // The record's bytes lie in the copy.
            guard length > Record.tagBytes, end <= count,
                unsafe session.writing.isOwn(copy.address + offset, length - Record.tagBytes, number: number, ciphers),
                unsafe bytes[end - Record.tagBytes - 1] == ContentType.handshake.rawValue
            else { return false }
            offset = end
            number += 1
        }
        return number == recordsWritten
    }

    /// Gives the session the bytes behind the client's Finished. They are the rule: most clients send their request with it.
    private func handOverRest(to session: inout TLSSession) {
        var start: UnsafeMutablePointer<CChar>?
        let count = unsafe copenssl_bio_bytes(received, &start)
        // At most the last read: whole records before it have been taken.
        unsafe session.keep(UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : count))
        unsafe copenssl_bio_reset(received)
    }

    /// Why libssl gave up.
    private func failure() -> TLSHandshakeFailure {
        let detail = Credentials.reason()
        if let alertReceived { return TLSHandshakeFailure(peerAlert: alertReceived) }
        // libssl has no alert for what does not even look like TLS.
        guard let alertSent else { return TLSHandshakeFailure(.malformed, detail) }
        return TLSHandshakeFailure(alertSent: alertSent, detail)
    }

    // MARK: - Callbacks

    /// The handshake that an SSL belongs to: alive, because it owns the SSL.
    private static func of(_ ssl: OpaquePointer?) -> TLSHandshake? {
        guard let object = unsafe SSL_get_ex_data(ssl, index) else { return nil }
        return unsafe Unmanaged<TLSHandshake>.fromOpaque(object).takeUnretainedValue()
    }

    /// SSL_CTX_set_msg_callback(3): each record's header, each alert, and messages, of which one is waited for.
    static let messagePassed:
        @convention(c) (
            Int32, Int32, Int32, UnsafeRawPointer?, Int, OpaquePointer?, UnsafeMutableRawPointer?
        ) -> Void = { isWritten, _, type, bytes, count, ssl, _ in
            guard let handshake = unsafe of(ssl) else { return }
            if type == SSL3_RT_HEADER {
                if isWritten == 1 {
                    if handshake.isFinishedWritten { handshake.recordsWritten += 1 }
                } else if handshake.isFinishedRead {
                    handshake.recordsRead += 1
                }
            } else if type == SSL3_RT_HANDSHAKE, count > 0, let bytes = unsafe bytes {
                // The message's type (RFC 8446, 4): finished. It is told behind its record's header.
                guard unsafe bytes.load(as: UInt8.self) == 20 else { return }
                if isWritten == 1 { handshake.isFinishedWritten = true } else { handshake.isFinishedRead = true }
            } else if type == SSL3_RT_ALERT, count == 2, let bytes = unsafe bytes {
                // Two bytes, as just checked.
                let description = unsafe bytes.load(fromByteOffset: 1, as: UInt8.self)
                if isWritten == 1 { handshake.alertSent = description } else { handshake.alertReceived = description }
            }
        }

    /// SSL_CTX_set_tlsext_ticket_key_evp_cb(3).
    static let ticketKeyWanted:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt8>?, OpaquePointer?, OpaquePointer?,
            Int32
        ) -> Int32 = { ssl, name, iv, cipher, mac, seals in
            guard let handshake = unsafe of(ssl), let name = unsafe name, let iv = unsafe iv,
                let cipher = unsafe cipher,
                let mac = unsafe mac
            else { return -1 }
            // libssl's arguments: 16 bytes of name and of IV, and contexts that live during the call.
            return seals == 1
                ? unsafe handshake.context.ticketKeys.seal(name: name, iv: iv, cipher: cipher, mac: mac)
                : unsafe handshake.context.ticketKeys.open(name: name, iv: iv, cipher: cipher, mac: mac)
        }
}
