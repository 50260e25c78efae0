// A TLS 1.3 client for relay-load, on libssl: as plain prototypes, because most of libssl's calls are macros that Swift
// can't import. The relay has nothing of it, and this has nothing of the relay's record layer: each checks the other.
//
// One thread. A context outlives its connections. Descriptors are non-blocking and stay the caller's.
#pragma once

#include <stddef.h>

struct cloadtls_context;
struct cloadtls;

/// What a call comes to that did not do what it was asked for.
enum {
    CLOADTLS_LATER = -1,   ///< The socket must first become readable, or writable: `cloadtls_wants_write` says which.
    CLOADTLS_ENDED = -2,   ///< The peer has sent close_notify.
    CLOADTLS_FAILED = -3,  ///< `cloadtls_problem` says why.
};

/// `authorities`: a PEM file of trusted certificates, or NULL for the system's. With `verify` 0 any certificate will do.
/// NULL: `problem` says why.
struct cloadtls_context *cloadtls_context_new(const char *authorities, int verify, char *problem, size_t capacity);
void cloadtls_context_free(struct cloadtls_context *context);

/// Whether a ticket is there to resume with.
int cloadtls_context_has_ticket(const struct cloadtls_context *context);

/// A connection over a connected socket. The certificate must be for `host`, a name or an address. With `resume` the
/// context's last ticket is offered. NULL: out of memory, or a host that no certificate can be for.
struct cloadtls *cloadtls_new(struct cloadtls_context *context, int descriptor, const char *host, int resume);

/// Frees it. Neither sends a close_notify nor closes the socket.
void cloadtls_free(struct cloadtls *connection);

/// Goes on with the handshake. 0 when it is done.
int cloadtls_handshake(struct cloadtls *connection);

/// Reads what is there, as much as fits. `capacity` is at least 16384, a record: so nothing stays behind where
/// poll(2) can't see it.
long cloadtls_read(struct cloadtls *connection, void *bytes, size_t capacity);

/// Writes up to a record of it. After CLOADTLS_LATER the same bytes must come first the next time.
long cloadtls_write(struct cloadtls *connection, const void *bytes, size_t count);

/// Makes one record of `count` bytes (at most 16384), to be sent by the caller before anything else. Its length, or
/// CLOADTLS_FAILED.
long cloadtls_seal(struct cloadtls *connection, const void *bytes, size_t count, void *record, size_t capacity);

/// Sends a KeyUpdate (RFC 8446, 4.6.3), which asks the peer for one of its own with `request`. 0 when it is on its way.
int cloadtls_update_keys(struct cloadtls *connection, int request);

/// Sends a close_notify (RFC 8446, 6.1). Reading goes on.
void cloadtls_close_notify(struct cloadtls *connection);

/// Why a call has failed: a sentence without its end.
const char *cloadtls_problem(const struct cloadtls *connection);
int cloadtls_wants_write(const struct cloadtls *connection);

/// Whether the socket's end came without a close_notify.
int cloadtls_is_truncated(const struct cloadtls *connection);
int cloadtls_is_resumed(const struct cloadtls *connection);

/// KeyUpdates that the peer has sent so far.
unsigned cloadtls_key_updates(const struct cloadtls *connection);

/// "TLSv1.3".
const char *cloadtls_version(const struct cloadtls *connection);

/// The protocol agreed by ALPN, into at least 256 bytes; empty without one.
void cloadtls_protocol(const struct cloadtls *connection, char *name);
