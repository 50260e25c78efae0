// libssl and libcrypto as Swift can import them. Function-like macros, and constants that are casts, get a `static inline`
// wrapper here; so does what is one step for Swift and several calls for C, such as sealing a record.
#pragma once

#include <malloc.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// ---- Memory that is wiped when it is given back ----

static inline void *copenssl_wiping_malloc(size_t count, const char *file, int line) {
    (void)file, (void)line;
    return malloc(count);
}

// What is larger holds no secret: libssl's two record buffers, with ciphertext and the handshake's messages, public or of no
// use after it. What libcrypto makes large and secret it clears itself (BUF_MEM, private exponents' tables).
#define COPENSSL_WIPED_BYTES_MAX 16384

static inline void copenssl_wiping_free(void *memory, const char *file, int line) {
    (void)file, (void)line;
    if (memory == NULL) return;
    size_t held = malloc_usable_size(memory);
    if (held <= COPENSSL_WIPED_BYTES_MAX) explicit_bzero(memory, held);
    free(memory);
}

// realloc(3) may leave the old bytes behind where nobody wipes them.
static inline void *copenssl_wiping_realloc(void *memory, size_t count, const char *file, int line) {
    if (memory == NULL) return malloc(count);
    size_t held = malloc_usable_size(memory);
    if (count == 0) {
        copenssl_wiping_free(memory, file, line);
        return NULL;
    }
    if (count <= held && count >= held / 2) return memory;
    void *fresh = malloc(count);
    if (fresh == NULL) return NULL;
    memcpy(fresh, memory, count < held ? count : held);
    copenssl_wiping_free(memory, file, line);
    return fresh;
}

/// From now on libcrypto and libssl wipe what they free: SSL_free(3) of OpenSSL 3.0 leaves traffic secrets in the heap.
/// Returns 0 if libcrypto has already allocated something: too late.
static inline int copenssl_wipe_freed_memory(void) {
    return CRYPTO_set_mem_functions(copenssl_wiping_malloc, copenssl_wiping_realloc, copenssl_wiping_free);
}

/// Frees memory that libcrypto allocated.
static inline void copenssl_free(void *memory) { OPENSSL_free(memory); }

// ---- Records (RFC 8446, 5.2) ----

#define COPENSSL_TAG_BYTES 16
#define COPENSSL_HEADER_BYTES 5

/// A context with a cipher and no key. NULL if memory is short.
static inline EVP_CIPHER_CTX *copenssl_record_context(const EVP_CIPHER *cipher, int seals) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context != NULL && EVP_CipherInit_ex(context, cipher, NULL, NULL, NULL, seals) == 1) return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

/// Makes a context forget its key, and everything else that it made of it. Returns 0 if memory is short.
static inline int copenssl_record_forget(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, int seals) {
    return EVP_CIPHER_CTX_reset(context) == 1 && EVP_CipherInit_ex(context, cipher, NULL, NULL, NULL, seals) == 1;
}

/// Gives a context its key: what follows passes none.
static inline int copenssl_record_key(EVP_CIPHER_CTX *context, const unsigned char *key, int seals) {
    return EVP_CipherInit_ex(context, NULL, NULL, key, NULL, seals);
}

/// The nonce: the sequence number, big-endian, exclusive-ored into the last eight bytes of the static IV (RFC 8446, 5.3).
static inline void copenssl_record_nonce(unsigned char nonce[12], const unsigned char iv[12], uint64_t sequence) {
    memcpy(nonce, iv, 12);
    for (int index = 0; index < 8; index++) nonce[11 - index] ^= (unsigned char)(sequence >> (8 * index));
}

/// Seals a record in place: a whole header, `count` bytes of TLSInnerPlaintext, room for the tag. `key` may be NULL if the
/// context has it. Returns 1, or 0 if it failed.
static inline int copenssl_record_seal(
    EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *iv, uint64_t sequence,
    unsigned char *record, int count) {
    unsigned char nonce[12];
    int taken = 0;
    unsigned char *inner = record + COPENSSL_HEADER_BYTES;
    copenssl_record_nonce(nonce, iv, sequence);
    return EVP_EncryptInit_ex(context, NULL, NULL, key, nonce) == 1 &&
           EVP_EncryptUpdate(context, NULL, &taken, record, COPENSSL_HEADER_BYTES) == 1 &&
           EVP_EncryptUpdate(context, inner, &taken, inner, count) == 1 &&
           EVP_EncryptFinal_ex(context, inner + taken, &taken) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, COPENSSL_TAG_BYTES, inner + count) == 1;
}

/// Opens a record in place: a whole header, `count` bytes of ciphertext, the tag. Returns 1, or 0 if it is not authentic;
/// then what stands in the record means nothing.
static inline int copenssl_record_open(
    EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *iv, uint64_t sequence,
    unsigned char *record, int count) {
    unsigned char nonce[12];
    int taken = 0;
    unsigned char *inner = record + COPENSSL_HEADER_BYTES;
    copenssl_record_nonce(nonce, iv, sequence);
    return EVP_DecryptInit_ex(context, NULL, NULL, key, nonce) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, COPENSSL_TAG_BYTES, inner + count) == 1 &&
           EVP_DecryptUpdate(context, NULL, &taken, record, COPENSSL_HEADER_BYTES) == 1 &&
           EVP_DecryptUpdate(context, inner, &taken, inner, count) == 1 &&
           EVP_DecryptFinal_ex(context, inner + taken, &taken) == 1;
}

// ---- Handshake ----

/// TLS 1.3 and nothing else; the server's order of suites, but ChaCha20 first for a client that has it first (no AES in
/// hardware); the chain that the operator has given and none that libssl looks for in each handshake.
static inline int copenssl_configure(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_options(
        context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1;
}

static inline int copenssl_set_groups(SSL_CTX *context, const char *groups) {
    return SSL_CTX_set1_groups_list(context, groups) == 1;
}

/// Adds a certificate behind the leaf; on success it is the context's.
static inline int copenssl_add_chain_certificate(SSL_CTX *context, X509 *certificate) {
    return SSL_CTX_add0_chain_cert(context, certificate) == 1;
}

/// The bytes in a memory BIO, valid until it is next changed.
static inline long copenssl_bio_bytes(BIO *bio, char **bytes) { return BIO_get_mem_data(bio, bytes); }

/// Forgets the bytes in a memory BIO.
static inline void copenssl_bio_reset(BIO *bio) { (void)BIO_reset(bio); }

/// An empty memory BIO says "later" and not "end".
static inline void copenssl_bio_waits(BIO *bio) { BIO_set_mem_eof_return(bio, -1); }

/// The reason code of an entry of the error queue.
static inline int copenssl_reason(unsigned long code) { return ERR_GET_REASON(code); }
static inline int copenssl_library(unsigned long code) { return ERR_GET_LIB(code); }

/// Gives the MAC of a ticket its key (RFC 5077, 4).
static inline int copenssl_ticket_mac(EVP_MAC_CTX *mac, unsigned char *key, size_t count) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key, count),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, parameters);
}
