// Bytes that nobody but the code that needs them may see: keys, and secrets that keys are made of.
//
// They stand in a block of their own that never moves, so that no copy stays behind where the value has been, and that is
// overwritten before it is given back. They never become an array or a string, which are copied at will. Core dumps: a worker
// is not dumpable (CLinux, clinux_harden), so the kernel writes none of its memory, plaintext and libssl's heap included;
// MADV_DONTDUMP on these blocks alone would add nothing to that.

import COpenSSL
import Glibc

/// A fixed number of secret bytes. Wiped in `deinit`.
@safe
struct Secret: ~Copyable {
    private let storage: UnsafeMutableRawPointer
    let count: Int

    /// All zero.
    init(count: Int) {
        precondition(count > 0, "a secret has bytes")
        guard let fresh = unsafe calloc(1, count) else { fatalError("out of memory: \(count) bytes") }
        unsafe storage = fresh
        self.count = count
    }

    init(copying bytes: UnsafeRawBufferPointer) {
        self.init(count: bytes.count)
        // As many as were allocated; a buffer of more than no bytes has an address.
        unsafe unsafeBytes.copyMemory(from: bytes)
    }

    deinit {
        unsafe OPENSSL_cleanse(storage, count)
        unsafe free(storage)
    }

    /// Where the bytes are, for code that knows their offsets; valid while the value lives.
    var address: UnsafeMutableRawPointer { unsafe storage }

    /// The bytes in place, valid while the value lives. Its owner alone changes them.
    var unsafeBytes: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: storage, count: count)
    }
}
