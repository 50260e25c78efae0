/*
 * What attackers and watchers of hostile.c share: time, sockets with an address of their own, tokens, requests, frames
 * and TLS. No state but the TLS context.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
    KIB = 1024,
    MIB = 1024 * 1024,
    MEMBER_FRAME_HEADER_BYTES_MAX = 14, /* of a client's frame: with its mask */
    REQUEST_BYTES_MAX = 4096,
};

/* RFC 6455, section 5.2. */
enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, FINAL = 0x80 };

static void *must(void *pointer) {
    if (!pointer) {
        fprintf(stderr, "hostile: out of memory\n");
        exit(71);
    }
    return pointer;
}

/* ---- time: CLOCK_MONOTONIC, nanoseconds ---- */

static const uint64_t SECOND = 1000000000, MILLISECOND = 1000000;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t after_seconds(double seconds) { return now() + (uint64_t)(seconds * 1e9); }

static void pause_until(uint64_t time) {
    struct timespec until = {.tv_sec = (time_t)(time / SECOND), .tv_nsec = (long)(time % SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
}

/* ---- sockets ---- */

static struct sockaddr_in address_of(const char *text, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
        fprintf(stderr, "hostile: %s is no IPv4 address\n", text);
        exit(64);
    }
    return address;
}

/* A socket that connects from `from`, or -1. It does not block; `receive_bytes` of 0 leaves SO_RCVBUF alone. */
static int dial(struct sockaddr_in from, struct sockaddr_in to, int receive_bytes) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_bytes) {
        /* Beyond net.core.rmem_max only with the privilege. */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes);
    }
    if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
        (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS)) {
        return fd;
    }
    int failed = errno;
    close(fd);
    errno = failed;
    return -1;
}

/* Closes with a reset: no port stays in TIME_WAIT, of which there are 28,000 for an address. */
static void hang_up(int fd) {
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(fd);
}

/* ---- tokens and requests (docs/wire-protocol.md, "Joining") ---- */

struct host_key {
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret_key[crypto_sign_SECRETKEYBYTES];
};

static size_t base64url(char *to, size_t size, const void *from, size_t count) {
    sodium_bin2base64(to, size, from, count, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return strlen(to);
}

/* A request that joins `room`, as its host or a guest; `fields` are further header fields, each with its CRLF. */
static char *join_request(const struct host_key *key, const char *room, bool is_host, const char *fields) {
    char claims[256], token[1024], pubkey[64] = "", signed_text[128];
    uint8_t signature[crypto_sign_BYTES];
    int count = snprintf(claims, sizeof claims, "{\"room_id\":\"%s\",\"peer_id\":\"%s\",\"role\":\"%s\"}", room,
                         is_host ? "host" : "guest", is_host ? "host" : "guest");
    strcpy(token, "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.");
    size_t length = strlen(token);
    length += base64url(token + length, sizeof token - length, claims, (size_t)count);
    crypto_sign_detached(signature, NULL, (const uint8_t *)token, length, key->secret_key);
    base64url(signed_text, sizeof signed_text, signature, sizeof signature);
    if (is_host) {
        strcpy(pubkey, "&pubkey=");
        base64url(pubkey + 8, sizeof pubkey - 8, key->public_key, sizeof key->public_key);
    }
    char *request = must(malloc(REQUEST_BYTES_MAX));
    snprintf(request, REQUEST_BYTES_MAX,
             "GET /ws?room=%s&token=%s.%s%s HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
             room, token, signed_text, pubkey, fields);
    return request;
}

/* ---- frames: with a mask of zeros, so that many connections can send the same bytes ---- */

static size_t frame_header(uint8_t *to, int first, size_t count) {
    size_t length = 2;
    to[0] = (uint8_t)first;
    if (count < 126) {
        to[1] = (uint8_t)(0x80 | count);
    } else if (count <= UINT16_MAX) {
        to[1] = 0x80 | 126;
        to[2] = (uint8_t)(count >> 8);
        to[3] = (uint8_t)count;
        length = 4;
    } else {
        to[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) to[2 + i] = (uint8_t)((uint64_t)count >> (56 - 8 * i));
        length = 10;
    }
    memset(to + length, 0, 4);
    return length + 4;
}

/* ---- TLS ---- */

static SSL_CTX *tls; /* NULL: plain */

static void use_tls(void) {
    tls = must(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
}

static SSL *tls_client(int fd) {
    SSL *ssl = must(SSL_new(tls));
    SSL_set_fd(ssl, fd);
    SSL_set_connect_state(ssl);
    return ssl;
}

/* What the next SSL calls write goes to memory, not to the socket. */
static void tls_write_to_memory(SSL *ssl) { SSL_set0_wbio(ssl, must(BIO_new(BIO_s_mem()))); }

/* What has gone there, as memory of the caller's. */
static uint8_t *tls_written(SSL *ssl, size_t *count) {
    char *bytes;
    *count = (size_t)BIO_get_mem_data(SSL_get_wbio(ssl), &bytes);
    uint8_t *copy = must(malloc(*count + 1));
    memcpy(copy, bytes, *count);
    (void)BIO_reset(SSL_get_wbio(ssl));
    return copy;
}

#endif
