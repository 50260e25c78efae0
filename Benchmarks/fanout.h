/*
 * The parts of WebSocket (RFC 6455) and HTTP that fanout needs, as functions from bytes to values:
 * no I/O, no allocation, no state.
 */
#ifndef FANOUT_H
#define FANOUT_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    MESSAGE_BYTES_MAX = 1024 * 1024, /* a message, whatever its fragments */
    FRAME_HEADER_BYTES_MAX = 10,     /* of a server's frame */
    KEY_BYTES = 24,                  /* Sec-WebSocket-Key: 16 bytes in base64 */
    ACCEPT_BYTES = 29,               /* Sec-WebSocket-Accept: 20 bytes in base64, and a NUL */
};

/* RFC 6455, section 5.2. */
enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* Copies and unmasks at once, 8 bytes at a time. A zero key is a plain copy. */
static inline void unmask(uint8_t *restrict to, const uint8_t *restrict from, size_t count, uint32_t key) {
    uint64_t key8 = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t word;
        memcpy(&word, from + i, 8);
        word ^= key8;
        memcpy(to + i, &word, 8);
    }
    const uint8_t *keys = (const uint8_t *)&key8; /* i is a multiple of 8 here */
    for (; i < count; i++) to[i] = from[i] ^ keys[i & 3];
}

/* RFC 6455, section 5.2: FIN, binary, not masked. Returns the header's length. */
static inline size_t encode_header(uint8_t *to, size_t count) {
    to[0] = 0x80 | BINARY;
    if (count < 126) {
        to[1] = (uint8_t)count;
        return 2;
    }
    if (count <= UINT16_MAX) {
        to[1] = 126;
        to[2] = (uint8_t)(count >> 8);
        to[3] = (uint8_t)count;
        return 4;
    }
    to[1] = 127;
    for (int i = 0; i < 8; i++) to[2 + i] = (uint8_t)((uint64_t)count >> (56 - 8 * i));
    return 10;
}

struct frame {
    bool final;
    int opcode;
    uint32_t key;
    const uint8_t *payload;
    size_t length;
};

/*
 * Parses one frame. Returns the bytes needed before the next step can be made: of the whole frame,
 * once its header is there, and else of the header so far known. The frame is complete when that is
 * at most `count`. 0 is a violation; `*code` says which.
 */
static inline size_t parse_frame(const uint8_t *bytes, size_t count, struct frame *f, unsigned *code) {
    if (count < 2) return 2;
    *code = 1002;
    f->final = bytes[0] & 0x80;
    f->opcode = bytes[0] & 0x0F;
    if (bytes[0] & 0x70 || !(bytes[1] & 0x80)) return 0; /* reserved bits; unmasked client frame (5.1) */
    if (f->opcode > PONG || (f->opcode > BINARY && f->opcode < CLOSE)) return 0;
    uint64_t length = bytes[1] & 0x7F;
    if (f->opcode >= CLOSE && (!f->final || length > 125)) return 0; /* section 5.5 */
    size_t header = length == 127 ? 14 : length == 126 ? 8 : 6;
    if (count < header) return header;
    if (header > 6) {
        uint64_t least = header == 8 ? 126 : UINT16_MAX + 1;
        length = 0;
        for (size_t i = 2; i < header - 4; i++) length = length << 8 | bytes[i];
        if (length < least) return 0; /* lengths are minimal */
    }
    if (length > MESSAGE_BYTES_MAX) {
        *code = 1009;
        return 0;
    }
    memcpy(&f->key, bytes + header - 4, 4);
    f->payload = bytes + header;
    f->length = length;
    return header + length;
}

/* The value of a header field, or NULL. `head` is a C string of complete lines. */
static inline const char *header_value(const char *head, const char *name, size_t *length) {
    size_t name_length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, name_length) != 0 || line[name_length] != ':') continue;
        const char *value = line + name_length + 1;
        value += strspn(value, " \t");
        *length = strcspn(value, "\r");
        while (*length && strchr(" \t", value[*length - 1])) --*length;
        return value;
    }
    return NULL;
}

/*
 * The value of the first `room` in a request line's query: its raw bytes, without percent-decoding,
 * are the room's name. NULL when there is none, or an empty one.
 */
static inline const char *room_parameter(const char *query, size_t *length) {
    for (;;) {
        size_t parameter = strcspn(query, "& \r");
        bool found = strncmp(query, "room=", 5) == 0;
        if (found || query[parameter] != '&') {
            *length = found ? parameter - 5 : 0;
            return *length ? query + 5 : NULL;
        }
        query += parameter + 1;
    }
}

/* RFC 6455, section 4.2.2: base64(SHA-1(key and GUID)). `key` has KEY_BYTES. */
static inline void accept_value(char accept[ACCEPT_BYTES], const char *key) {
    char text[KEY_BYTES + 36 + 1];
    unsigned char digest[EVP_MAX_MD_SIZE];
    int count = snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", KEY_BYTES, key);
    EVP_Digest(text, (size_t)count, digest, NULL, EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)accept, digest, 20);
}

#endif
