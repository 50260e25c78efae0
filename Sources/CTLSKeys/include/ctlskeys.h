// The traffic secrets of a TLS 1.3 handshake that libssl makes.
//
// libssl has no call for them but the key log callback, which is for debugging and writes each in hexadecimal. It takes all
// derivations of its key schedule, though, from the algorithm TLS13-KDF of EVP_KDF-TLS13_KDF(7), and that it fetches from
// whichever provider its SSL_CTX prefers. This is such a provider (provider(7)): the same derivations (RFC 8446, 7.1) on
// libcrypto's SHA-256 and SHA-384, and the two secrets wanted stay here to be taken.
//
// Each handshake checks it: a client whose keys are others can't read the server's first flight.
#pragma once

#include <stddef.h>

struct evp_md_st; // EVP_MD of <openssl/types.h>

/// The longest hash of a TLS 1.3 suite, SHA-384's bytes: a traffic secret is as long as its suite's hash.
#define CTLSKEYS_SECRET_BYTES_MAX 48

/// For SSL_CTX_new_ex(3): prefers the provider where it has an algorithm.
#define CTLSKEYS_PROPERTIES "?provider=ctlskeys"

/// Loads the provider into the default library context, beside those that are there; once a process. Returns 1, or 0 if libssl would
/// not get its derivations from it, or for it would get other algorithms from elsewhere than OpenSSL's configuration says; or
/// memory is short.
int ctlskeys_load(void);

enum ctlskeys_side { CTLSKEYS_CLIENT, CTLSKEYS_SERVER };

/// Moves the side's last secret that was derived on this thread, client_application_traffic_secret_0 or
/// server_application_traffic_secret_0, to `secret`, which has room for CTLSKEYS_SECRET_BYTES_MAX. libssl derives on the thread
/// that takes a step of a handshake: to be called behind each step, or the next handshake's takes its place.
///
/// Returns the secret's bytes, or 0 if none was derived since the last call.
size_t ctlskeys_take(enum ctlskeys_side side, unsigned char *secret);

/// HKDF-Expand for one block at the most (RFC 5869, 2.3): HMAC (RFC 2104) of `info`, which ends with the counter. `output` may be the
/// secret's own bytes. The digest is one that was fetched: HMAC(3) fetches it, and a MAC, each time. Needs no provider.
///
/// Returns 1, or 0 if memory is short or a length is none of TLS 1.3's.
int ctlskeys_expand(
    const struct evp_md_st *digest, const unsigned char *secret, size_t secret_bytes, const unsigned char *info,
    size_t info_bytes, unsigned char *output, size_t output_bytes);
