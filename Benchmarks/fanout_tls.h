/*
 * TLS 1.3 for fanout, in the two ways that a server in C has to choose from:
 *
 *   ssl   libssl does everything: SSL_read and SSL_write for the life of the connection
 *   evp   libssl does the handshake; then its traffic secrets are taken from the key log callback, the SSL
 *         is freed, and records are sealed and opened with libcrypto's AES-128-GCM, in the relay's calls
 *
 * One suite, TLS_AES_128_GCM_SHA256, which is the relay's first choice as well. `evp` knows no KeyUpdate:
 * relay-load's bench sends none. This is a baseline for measurements, not a TLS server for anything else.
 */
#ifndef FANOUT_TLS_H
#define FANOUT_TLS_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum tls_mode { TLS_NONE, TLS_SSL, TLS_EVP };

enum {
    RECORD_HEADER_BYTES = 5,
    RECORD_PLAINTEXT_BYTES_MAX = 16384,
    RECORD_OVERHEAD_BYTES = RECORD_HEADER_BYTES + 1 + 16, /* header, content type, tag */
    RECORD_BYTES_MAX = RECORD_HEADER_BYTES + RECORD_PLAINTEXT_BYTES_MAX + 256,
    ALERT = 21, APPLICATION_DATA = 23, /* RFC 8446, B.1 */
    SECRET_BYTES = 32,
    TICKETS = 2,                       /* after a full handshake: libssl's default */
};

/* One direction's record protection (RFC 8446, 5.2 and 5.3). */
struct direction {
    EVP_CIPHER_CTX *context;
    uint8_t iv[12];
    uint64_t sequence;
};

struct tls {
    SSL *ssl;                          /* evp: NULL once the handshake is over */
    bool open;                         /* the handshake is over */
    struct direction reading, writing; /* evp only, as is what follows */
    uint8_t *secrets;                  /* client's and server's, during the handshake */
};

static enum tls_mode tls_mode;
static SSL_CTX *tls_context;
static EVP_CIPHER *tls_cipher;

/* ---- evp: the key schedule's last step ---- */

/* Called by libssl with "LABEL CLIENT_RANDOM SECRET", the last two in hexadecimal. */
static void tls_secret_logged(const SSL *ssl, const char *line) {
    struct tls *t = SSL_get_app_data(ssl);
    bool server = strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24) == 0;
    if (!server && strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) != 0) return;
    const char *hex = strrchr(line, ' ') + 1;
    for (int i = 0; i < SECRET_BYTES; i++) sscanf(hex + 2 * i, "%2hhx", t->secrets + server * SECRET_BYTES + i);
    if (server) t->writing.sequence = 0;
}

/* Counts the records that libssl itself writes under the server's last key: the tickets. */
static void tls_record_passed(
    int sent, int version, int type, const void *bytes, size_t count, SSL *ssl, void *unused) {
    (void)version, (void)bytes, (void)count, (void)unused;
    struct tls *t = SSL_get_app_data(ssl);
    if (sent && type == SSL3_RT_HEADER) t->writing.sequence++;
}

/* RFC 8446, 7.1: HKDF-Expand-Label, for at most one hash's length. */
static void tls_expand(const uint8_t *secret, const char *label, uint8_t *to, size_t count) {
    uint8_t info[32] = {0, (uint8_t)count}, block[EVP_MAX_MD_SIZE];
    int length = snprintf((char *)info + 3, sizeof info - 3, "tls13 %s", label);
    info[2] = (uint8_t)length;
    info[3 + length] = 0; /* no context */
    info[4 + length] = 1; /* the first block */
    HMAC(EVP_sha256(), secret, SECRET_BYTES, info, (size_t)length + 5, block, NULL);
    memcpy(to, block, count);
}

static void tls_begin(struct direction *d, const uint8_t *secret, bool seals) {
    uint8_t key[16];
    tls_expand(secret, "key", key, sizeof key);
    tls_expand(secret, "iv", d->iv, sizeof d->iv);
    d->context = EVP_CIPHER_CTX_new();
    EVP_CipherInit_ex(d->context, tls_cipher, NULL, key, NULL, seals);
}

/* ---- evp: records ---- */

static inline void tls_nonce(uint8_t nonce[12], struct direction *d) {
    uint64_t sequence = d->sequence++;
    memcpy(nonce, d->iv, 12);
    for (int i = 0; i < 8; i++) nonce[11 - i] ^= (uint8_t)(sequence >> (8 * i));
}

/* Seals `count` bytes that lie behind room for a header, in place. Returns the record's length. */
static inline size_t tls_seal(struct direction *d, uint8_t *record, size_t count, uint8_t type) {
    uint8_t nonce[12], *inner = record + RECORD_HEADER_BYTES;
    int taken;
    size_t length = count + 1 + 16;
    inner[count] = type;
    memcpy(record, (uint8_t[]){APPLICATION_DATA, 3, 3, (uint8_t)(length >> 8), (uint8_t)length}, RECORD_HEADER_BYTES);
    tls_nonce(nonce, d);
    EVP_EncryptInit_ex(d->context, NULL, NULL, NULL, nonce);
    EVP_EncryptUpdate(d->context, NULL, &taken, record, RECORD_HEADER_BYTES);
    EVP_EncryptUpdate(d->context, inner, &taken, inner, (int)count + 1);
    EVP_EncryptFinal_ex(d->context, inner + taken, &taken);
    EVP_CIPHER_CTX_ctrl(d->context, EVP_CTRL_AEAD_GET_TAG, 16, inner + count + 1);
    return RECORD_HEADER_BYTES + length;
}

/* The length of the record that begins here, 0 while that is not known. */
static inline size_t tls_record_bytes(const uint8_t *bytes, size_t count) {
    return count < RECORD_HEADER_BYTES ? 0 : RECORD_HEADER_BYTES + ((size_t)bytes[3] << 8 | bytes[4]);
}

/* Opens a whole record in place. Returns how many bytes are in it and their type, or -1. */
static inline long tls_open(struct direction *d, uint8_t *record, size_t length, uint8_t *type) {
    uint8_t nonce[12], *inner = record + RECORD_HEADER_BYTES;
    int taken;
    if (record[0] != APPLICATION_DATA || length < RECORD_OVERHEAD_BYTES || length > RECORD_BYTES_MAX) return -1;
    size_t count = length - RECORD_HEADER_BYTES - 16;
    tls_nonce(nonce, d);
    EVP_DecryptInit_ex(d->context, NULL, NULL, NULL, nonce);
    EVP_CIPHER_CTX_ctrl(d->context, EVP_CTRL_AEAD_SET_TAG, 16, inner + count);
    EVP_DecryptUpdate(d->context, NULL, &taken, record, RECORD_HEADER_BYTES);
    EVP_DecryptUpdate(d->context, inner, &taken, inner, (int)count);
    if (EVP_DecryptFinal_ex(d->context, inner + taken, &taken) != 1) return -1;
    while (count > 0 && inner[count - 1] == 0) count--; /* padding */
    if (count == 0) return -1;
    *type = inner[count - 1];
    return (long)count - 1;
}

/* ---- both: handshake and end ---- */

static void tls_setup(enum tls_mode mode, const char *certificate, const char *key) {
    tls_mode = mode;
    tls_context = SSL_CTX_new(TLS_server_method());
    tls_cipher = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(tls_context, TICKETS);
    /* The same in each process, so that tickets are good in all: no secret, but nothing here is. */
    static unsigned char ticket_keys[80];
    SSL_CTX_set_tlsext_ticket_keys(tls_context, ticket_keys, sizeof ticket_keys);
    SSL_CTX_set_session_id_context(tls_context, (const uint8_t *)"fanout", 6);
    if (SSL_CTX_set_ciphersuites(tls_context, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_use_certificate_chain_file(tls_context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    if (mode == TLS_EVP) {
        SSL_CTX_set_keylog_callback(tls_context, tls_secret_logged);
        SSL_CTX_set_msg_callback(tls_context, tls_record_passed);
    } else {
        SSL_CTX_set_read_ahead(tls_context, 1); /* one recv(2) for what has come, not two a record */
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                          SSL_MODE_RELEASE_BUFFERS);
    }
}

/* NULL if memory is short. */
static struct tls *tls_new(int fd) {
    struct tls *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->ssl = SSL_new(tls_context);
    if (tls_mode == TLS_EVP) t->secrets = calloc(2, SECRET_BYTES);
    SSL_set_fd(t->ssl, fd);
    SSL_set_app_data(t->ssl, t);
    SSL_set_accept_state(t->ssl);
    return t;
}

/* evp: after it the connection is its secrets' alone. Without read-ahead libssl has read nothing of what follows. */
static void tls_leave_libssl(struct tls *t) {
    tls_begin(&t->reading, t->secrets, false);
    tls_begin(&t->writing, t->secrets + SECRET_BYTES, true);
    free(t->secrets);
    SSL_free(t->ssl);
    t->secrets = NULL;
    t->ssl = NULL;
}

/* 1: done. 0: later, when more has come (a flight always fits the socket's buffer). -1: failed. */
static int tls_handshake(struct tls *t) {
    ERR_clear_error();
    int result = SSL_do_handshake(t->ssl);
    if (result != 1) return SSL_get_error(t->ssl, result) == SSL_ERROR_WANT_READ ? 0 : -1;
    if (tls_mode == TLS_EVP) tls_leave_libssl(t);
    t->open = true;
    return 1;
}

static void tls_free(struct tls *t) {
    if (!t) return;
    EVP_CIPHER_CTX_free(t->reading.context);
    EVP_CIPHER_CTX_free(t->writing.context);
    SSL_free(t->ssl);
    free(t->secrets);
    free(t);
}

#endif
