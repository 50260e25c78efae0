// The ring of keys that session tickets are sealed with (RFC 8446, 4.6.1; the construction is RFC 5077's, section 4). The
// supervisor makes them and gives every worker the same ring, so that a client resumes on any of them. The newest key makes
// tickets; older ones still open theirs until they leave the ring.

import COpenSSL
import Shared

/// Ticket keys, newest first.
struct TicketKeys: ~Copyable {
    /// A name by which its tickets are known, the key of HMAC-SHA-256, the key of AES-256-CBC.
    static let nameBytes = 16
    static let macKeyBytes = 32
    static let cipherKeyBytes = 32
    static let keyBytes = nameBytes + macKeyBytes + cipherKeyBytes
    private static let ivBytes = 16

    private static let cipher = TicketCipher()

    private let ring: Secret

    /// - Parameter bytes: one key or more, newest first, `keyBytes` each.
    init(copying bytes: UnsafeRawBufferPointer) throws(TLSSetupError) {
        guard bytes.count > 0, bytes.count.isMultiple(of: Self.keyBytes),
            bytes.count / Self.keyBytes <= Limits.ticketKeys
        else { throw .ticketKeys(bytes: bytes.count) }
        unsafe ring = Secret(copying: bytes)
    }

    /// What SSL_CTX_set_tlsext_ticket_key_evp_cb(3) wants of its callback when a ticket is made: the newest key's name, a fresh
    /// IV, and both contexts keyed. 1, or -1 to end the handshake.
    ///
    /// - Parameters: as the callback gets them; `name` and `iv` have 16 bytes each.
    func seal(
        name: UnsafeMutablePointer<UInt8>, iv: UnsafeMutablePointer<UInt8>, cipher: OpaquePointer, mac: OpaquePointer
    ) -> Int32 {
        let key = unsafe bytes(0)
        guard unsafe RAND_bytes(iv, Int32(Self.ivBytes)) == 1 else { return -1 }
        unsafe name.update(from: key, count: Self.nameBytes)
        return unsafe prepare(key, iv, cipher, mac, seals: true) ? 1 : -1
    }

    /// The same for a ticket that a client shows: 2 if it is ours, 0 if the ring does not have its key (a full handshake
    /// follows), -1 to end the handshake. 2 and not 1, so that the client gets a new ticket each time: one is to be used once,
    /// or connections can be linked by it (RFC 8446, C.4).
    func open(
        name: UnsafePointer<UInt8>, iv: UnsafePointer<UInt8>, cipher: OpaquePointer, mac: OpaquePointer
    ) -> Int32 {
        for index in 0..<(ring.count / Self.keyBytes) {
            let key = unsafe bytes(index)
            // A name is no secret: every ticket shows it.
            var isNamed = true
            for place in 0..<Self.nameBytes where unsafe key[place] != name[place] { isNamed = false }
            guard isNamed else { continue }
            guard unsafe prepare(key, iv, cipher, mac, seals: false) else { return -1 }
            return 2
        }
        return 0
    }

    private func prepare(
        _ key: UnsafeMutablePointer<UInt8>, _ iv: UnsafePointer<UInt8>, _ cipher: OpaquePointer, _ mac: OpaquePointer,
        seals: Bool
    ) -> Bool {
        let macKey = unsafe key + Self.nameBytes
        // Both keys lie in the ring's `keyBytes` bytes at `key`.
        return unsafe copenssl_ticket_mac(mac, macKey, Self.macKeyBytes) == 1
            && EVP_CipherInit_ex(
                cipher, Self.cipher.pointer, nil, macKey + Self.macKeyBytes, iv, seals ? 1 : 0) == 1
    }

    /// Where a key of the ring stands.
    private func bytes(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        unsafe (ring.address + index * Self.keyBytes).assumingMemoryBound(to: UInt8.self)
    }
}

/// AES-256-CBC, fetched once a process and never changed: EVP_aes_256_cbc(3) would be looked up for each ticket.
@safe
private struct TicketCipher: @unchecked Sendable {
    let pointer: OpaquePointer

    init() {
        guard let fetched = unsafe EVP_CIPHER_fetch(nil, "AES-256-CBC", nil) else {
            fatalError("libcrypto has no AES-256-CBC")
        }
        unsafe pointer = fetched
    }
}
