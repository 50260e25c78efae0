/*
 * fanout: the smallest WebSocket fan-out server that is still fast and correct.
 *
 *     fanout --port N          listens on 127.0.0.1:N (0: any free port, printed on stdout)
 *            [--tls ssl|evp --tls-cert FILE --tls-key FILE]      see fanout_tls.h
 *            [--processes N]       so many of it share the port, each with its own rooms
 *            [--unsent BYTES]      TCP_NOTSENT_LOWAT, as the relay's sockets have
 *            [--gather 1]          rooms that are flushed too often wait for some 2 ms, as in a busy relay
 *
 * It is the baseline that the relay's CPU time per delivered message is compared with, so it has
 * the relay's shape and nothing else: no tokens, no rate limits, no voice queues, no timers.
 *
 *   GET /health          200 {"status":"ok"}
 *   GET /ws?room=ID      101; every message goes, as one unfragmented binary frame, to every
 *                        other member of the room and never back to its sender
 *
 * One iteration of its one loop:
 *
 *   epoll_wait -> accept, read, parse, append each message once to its ROOM's buffer
 *              -> flush: one send(2) a member, of the buffer's ranges that are not the member's own
 *              -> free what was closed
 *
 * Invariants
 *   - An idle connection owns no buffer: reads go into one buffer of the loop, and a connection
 *     gets one of its own only while a request head, a frame or a fragmented message is incomplete.
 *   - A room's buffer is empty between iterations, unless the room waits. What the kernel did not take of a member's
 *     ranges is copied to that member's backlog, and from then on everything for that member goes
 *     through the backlog until EPOLLOUT has emptied it: so frames are never reordered or torn.
 *   - A closed connection has fd -1, is in no room, and is freed at the end of the iteration (the
 *     batch of events may still point to it).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fanout.h"
#include "fanout_tls.h"

enum {
    EVENTS_MAX = 256,                  /* events an iteration, and so recv(2) calls before a flush */
    ACCEPTS_MAX = 64,                  /* accepts an iteration: joins must not starve members */
    RECEIVE_BYTES = 64 * 1024,         /* the loop's receive buffer */
    HEAD_BYTES_MAX = 16 * 1024,        /* a request head */
    BACKLOG_BYTES_MAX = 64 * 1024 * 1024, /* beyond it a reader is hopeless and closed */
    OUTPUT_BYTES_KEPT = 1024 * 1024,   /* a room's buffer above this is given back after a flush */
    RANGES_MAX = 256,                  /* iovecs a send; more ranges take more sends */
    FLUSH_NANOSECONDS = 2000000,       /* --gather: between a room's flushes, as in the relay, from when it is */
    FLUSHES_AHEAD = 16,                /* so many ahead of that pace; but never where as much waits as */
    FLUSH_BYTES = 32768,
    FLUSH_MESSAGE_BYTES = 1024,        /* or as large a message */
    ROOM_BUCKETS = 4096,
};

/* Bytes [start, end) of `data` are in use. */
struct buffer {
    uint8_t *data;
    size_t start, end, capacity;
};

/* One speaker's consecutive frames in a room's output. `next` is the speaker's next span, or NONE. */
struct span {
    size_t start, end;
    uint32_t next;
};
#define NONE UINT32_MAX

struct room {
    struct room *next;                 /* in its hash bucket */
    char *id;
    size_t id_length;
    struct connection **members;
    uint32_t count, capacity;
    /* Until the next flush only. */
    struct buffer output;              /* messages, as frames */
    struct span *spans;
    uint32_t span_count, span_capacity;
    size_t longest;                    /* message in the output, with its header */
    bool dirty;                        /* in the list of rooms to flush */
    struct room *next_dirty;
    uint64_t pace;                     /* when its flushes are within the pace again (GCRA), nanoseconds */
};

enum state { HEAD, OPEN, ENDING };     /* ENDING: closes as soon as its backlog is sent */

struct connection {
    int fd;                            /* -1: closed */
    enum state state;
    bool wants_write;                  /* EPOLLOUT is armed: exactly while the backlog holds bytes */
    bool fragmented;                   /* between a first fragment and its last one */
    struct tls *tls;                   /* NULL without TLS */
    struct buffer record;              /* TLS evp: the start of a record */
    struct buffer input;               /* the start of a head or frame, sized to the whole of it */
    struct buffer message;             /* unmasked fragments */
    struct buffer backlog;             /* what the kernel has not taken yet; TLS evp: as records */
    struct room *room;
    uint32_t index;                    /* in room->members */
    /* Until the room's next flush only. */
    size_t joined_at;                  /* the room's output before it is older than this member */
    uint32_t first_span, last_span;    /* its own frames, which it must not get back */
    struct connection *next_dead;
};

static int epoll;
static struct room *rooms[ROOM_BUCKETS];
static struct room *dirty_rooms;
static bool gathers;                   /* --gather */
static int unsent_bytes;               /* --unsent; 0: as the kernel likes */
static uint64_t now;                   /* nanoseconds at the iteration's beginning */
static struct connection *dead_connections;
static uint8_t received[RECEIVE_BYTES];
static struct buffer gathered;         /* TLS: what is sent at once, in one piece */

/* ---- memory ---- */

static void *must(void *pointer) {
    if (!pointer) {
        fprintf(stderr, "fanout: out of memory\n");
        exit(1);
    }
    return pointer;
}

/* Makes room for `count` more bytes and returns where they go; the caller then advances `end`. */
static uint8_t *buffer_reserve(struct buffer *b, size_t count) {
    if (b->end + count > b->capacity) {
        size_t used = b->end - b->start;
        if (b->start > 0) {
            memmove(b->data, b->data + b->start, used);
            b->start = 0;
            b->end = used;
        }
        if (used + count > b->capacity) {
            size_t doubled = b->capacity * 2;
            b->capacity = used + count > doubled ? used + count : doubled;
            b->data = must(realloc(b->data, b->capacity));
        }
    }
    return b->data + b->end;
}

static void buffer_append(struct buffer *b, const void *bytes, size_t count) {
    memcpy(buffer_reserve(b, count), bytes, count);
    b->end += count;
}

static void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}

/* ---- rooms ---- */

static struct room **room_slot(const char *id, size_t length) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)id[i]) * 16777619u;
    struct room **slot = &rooms[hash % ROOM_BUCKETS];
    while (*slot && ((*slot)->id_length != length || memcmp((*slot)->id, id, length) != 0)) slot = &(*slot)->next;
    return slot;
}

static void room_mark_dirty(struct room *r) {
    if (r->dirty) return;
    r->dirty = true;
    r->next_dirty = dirty_rooms;
    dirty_rooms = r;
}

static void room_join(struct connection *c, const char *id, size_t length) {
    struct room **slot = room_slot(id, length);
    struct room *r = *slot;
    if (!r) {
        r = *slot = must(calloc(1, sizeof *r));
        r->id = must(malloc(length + 1));
        memcpy(r->id, id, length);
        r->id_length = length;
    }
    if (r->count == r->capacity) {
        r->capacity = r->capacity ? r->capacity * 2 : 4;
        r->members = must(realloc(r->members, r->capacity * sizeof *r->members));
    }
    c->room = r;
    c->index = r->count;
    c->joined_at = r->output.end;
    c->first_span = c->last_span = NONE;
    r->members[r->count++] = c;
    room_mark_dirty(r); /* the flush resets `joined_at` */
}

static void room_leave(struct connection *c) {
    struct room *r = c->room;
    if (!r) return;
    c->room = NULL;
    struct connection *last = r->members[--r->count];
    r->members[c->index] = last;
    last->index = c->index;
    if (r->count == 0) room_mark_dirty(r); /* the flush frees it */
}

static void room_free(struct room *r) {
    *room_slot(r->id, r->id_length) = r->next;
    buffer_free(&r->output);
    free(r->spans);
    free(r->members);
    free(r->id);
    free(r);
}

/* ---- connections: output ---- */

/* RFC 8446, 6.1: a last word, if the socket takes it. */
static void connection_say_goodbye(struct connection *c) {
    if (!c->tls || !c->tls->open || c->wants_write) return;
    if (tls_mode == TLS_SSL) {
        SSL_shutdown(c->tls->ssl);
        return;
    }
    uint8_t record[RECORD_OVERHEAD_BYTES + 2] = {[RECORD_HEADER_BYTES] = 1, 0}; /* warning, close_notify */
    size_t length = tls_seal(&c->tls->writing, record, 2, ALERT);
    send(c->fd, record, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void connection_close(struct connection *c) {
    if (c->fd < 0) return;
    room_leave(c);
    connection_say_goodbye(c);
    close(c->fd); /* the only descriptor of this socket, so epoll forgets it too */
    c->fd = -1;
    c->next_dead = dead_connections;
    dead_connections = c;
}

static void connection_watch(struct connection *c, bool wants_write) {
    if (c->wants_write == wants_write) return;
    c->wants_write = wants_write;
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event) < 0) connection_close(c);
}

/* send(2), or SSL_write of as much as the kernel takes. After EAGAIN the same bytes must come first again. */
static ssize_t connection_write(struct connection *c, const uint8_t *bytes, size_t count) {
    if (tls_mode != TLS_SSL) return send(c->fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    size_t total = 0;
    ERR_clear_error();
    while (total < count) { /* with partial writes a record at a time */
        int n = SSL_write(c->tls->ssl, bytes + total, (int)(count - total));
        if (n > 0) {
            total += (size_t)n;
            continue;
        }
        errno = SSL_get_error(c->tls->ssl, n) == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
        return total ? (ssize_t)total : -1;
    }
    return (ssize_t)total;
}

/* TLS: puts the ranges into one piece for SSL_write (ssl), or into as few records as hold them (evp). */
static struct iovec gather(struct connection *c, const struct iovec *ranges, size_t count) {
    size_t total = 0, filled = 0;
    for (size_t i = 0; i < count; i++) total += ranges[i].iov_len;
    size_t records = total / RECORD_PLAINTEXT_BYTES_MAX + 1;
    gathered.start = gathered.end = 0;
    uint8_t *start = buffer_reserve(&gathered, total + records * RECORD_OVERHEAD_BYTES), *to = start;
    size_t header = tls_mode == TLS_EVP ? RECORD_HEADER_BYTES : 0;
    size_t most = tls_mode == TLS_EVP ? RECORD_PLAINTEXT_BYTES_MAX : total;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = ranges[i].iov_base;
        for (size_t left = ranges[i].iov_len, piece; left > 0; left -= piece, from += piece) {
            piece = left < most - filled ? left : most - filled;
            memcpy(to + header + filled, from, piece);
            filled += piece;
            if (filled < most) continue;
            to += header ? tls_seal(&c->tls->writing, to, filled, APPLICATION_DATA) : filled;
            filled = 0;
        }
    }
    if (filled) to += tls_seal(&c->tls->writing, to, filled, APPLICATION_DATA);
    return (struct iovec){start, (size_t)(to - start)};
}

/*
 * Sends the ranges, or as much of them as the kernel takes; the rest becomes backlog.
 * `ranges` are consumed. May close the connection.
 */
static void connection_send(struct connection *c, struct iovec *ranges, size_t count) {
    size_t sent = 0;
    if (tls_mode == TLS_EVP || (tls_mode == TLS_SSL && count > 1)) {
        ranges[0] = gather(c, ranges, count);
        count = 1;
    }
    if (!c->wants_write) {
        ssize_t n;
        do {
            if (count == 1) {
                n = connection_write(c, ranges[0].iov_base, ranges[0].iov_len);
            } else {
                struct msghdr header = {.msg_iov = ranges, .msg_iovlen = count};
                n = sendmsg(c->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
            }
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EAGAIN) {
            connection_close(c);
            return;
        }
        sent = n < 0 ? 0 : (size_t)n;
    }
    for (size_t i = 0; i < count; i++) {
        size_t skip = sent < ranges[i].iov_len ? sent : ranges[i].iov_len;
        sent -= skip;
        if (skip < ranges[i].iov_len)
            buffer_append(&c->backlog, (uint8_t *)ranges[i].iov_base + skip, ranges[i].iov_len - skip);
    }
    if (c->backlog.end - c->backlog.start > BACKLOG_BYTES_MAX) {
        fprintf(stderr, "fanout: a reader fell %d MiB behind and is closed\n", BACKLOG_BYTES_MAX >> 20);
        connection_close(c);
        return;
    }
    connection_watch(c, c->backlog.end > c->backlog.start);
}

static void connection_send_bytes(struct connection *c, const void *bytes, size_t count) {
    struct iovec range = {.iov_base = (void *)bytes, .iov_len = count};
    connection_send(c, &range, 1);
}

/* Everything that is to be sent has been handed over: close now, or when the backlog is out. */
static void connection_end(struct connection *c) {
    if (c->fd < 0) return;
    room_leave(c);
    c->state = ENDING;
    if (!c->wants_write) connection_close(c);
}

/* The socket takes bytes again. */
static void connection_drain(struct connection *c) {
    struct buffer *b = &c->backlog;
    while (b->start < b->end) {
        ssize_t n = connection_write(c, b->data + b->start, b->end - b->start);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            if (errno != EAGAIN) connection_close(c);
            return;
        }
        b->start += (size_t)n;
    }
    buffer_free(b);
    connection_watch(c, false);
    if (c->state == ENDING) connection_close(c);
}

/* A control frame: at most 125 bytes, RFC 6455 section 5.5. */
static void connection_send_control(struct connection *c, int opcode, const uint8_t *payload, size_t count) {
    uint8_t frame[2 + 125] = {(uint8_t)(0x80 | opcode), (uint8_t)count};
    if (count) memcpy(frame + 2, payload, count);
    connection_send_bytes(c, frame, 2 + count);
}

static void connection_fail(struct connection *c, unsigned code) {
    uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    connection_send_control(c, CLOSE, payload, sizeof payload);
    connection_end(c);
}

/* ---- the room buffer ---- */

/* Encodes one message into the room's buffer and notes whose it is. */
static void room_append(struct connection *c, const uint8_t *payload, size_t count, uint32_t key) {
    struct room *r = c->room;
    if (r->count < 2) return; /* nobody to hear it */
    room_mark_dirty(r);
    uint8_t *to = buffer_reserve(&r->output, FRAME_HEADER_BYTES_MAX + count);
    size_t start = r->output.end;
    size_t header = encode_header(to, count);
    unmask(to + header, payload, count, key);
    r->output.end += header + count;
    if (header + count > r->longest) r->longest = header + count;

    if (c->last_span != NONE && r->spans[c->last_span].end == start) {
        r->spans[c->last_span].end = r->output.end;
        return;
    }
    if (r->span_count == r->span_capacity) {
        r->span_capacity = r->span_capacity ? r->span_capacity * 2 : 16;
        r->spans = must(realloc(r->spans, r->span_capacity * sizeof *r->spans));
    }
    uint32_t index = r->span_count++;
    r->spans[index] = (struct span){.start = start, .end = r->output.end, .next = NONE};
    if (c->last_span == NONE) c->first_span = index;
    else r->spans[c->last_span].next = index;
    c->last_span = index;
}

/* Sends a member the room's output since it joined, around its own frames. */
static void room_flush_member(struct room *r, struct connection *c) {
    struct iovec ranges[RANGES_MAX];
    size_t count = 0, position = c->joined_at;
    for (uint32_t i = c->first_span; i != NONE; i = r->spans[i].next) {
        if (r->spans[i].start > position) {
            if (count == RANGES_MAX) {
                connection_send(c, ranges, count);
                if (c->fd < 0) return;
                count = 0;
            }
            ranges[count++] = (struct iovec){r->output.data + position, r->spans[i].start - position};
        }
        position = r->spans[i].end;
    }
    if (count == RANGES_MAX) {
        connection_send(c, ranges, count);
        if (c->fd < 0) return;
        count = 0;
    }
    if (r->output.end > position)
        ranges[count++] = (struct iovec){r->output.data + position, r->output.end - position};
    c->joined_at = 0;
    c->first_span = c->last_span = NONE;
    if (count) connection_send(c, ranges, count);
}

/* The relay's rule, except that this server knows neither load nor voice: that of `voice` is far below the pace. */
static bool room_waits(struct room *r) {
    if (!gathers || r->count == 0) return false;
    if (r->output.end == 0 || r->output.end >= FLUSH_BYTES || r->longest >= FLUSH_MESSAGE_BYTES) return false;
    return r->pace > now + (uint64_t)FLUSHES_AHEAD * FLUSH_NANOSECONDS;
}

static void rooms_flush(void) {
    struct room *waiting = NULL;
    while (dirty_rooms) {
        struct room *r = dirty_rooms;
        if (room_waits(r)) {
            dirty_rooms = r->next_dirty;
            r->next_dirty = waiting;
            waiting = r;
            continue;
        }
        if (r->output.end > 0) {
            uint64_t most = now + (uint64_t)(FLUSHES_AHEAD + 1) * FLUSH_NANOSECONDS;
            r->pace = (r->pace > now ? r->pace : now) + FLUSH_NANOSECONDS;
            if (r->pace > most) r->pace = most;
        }
        /* Downwards: a member closed on the way is replaced by the last one, which has been served. */
        for (uint32_t i = r->count; i-- > 0;) room_flush_member(r, r->members[i]);
        dirty_rooms = r->next_dirty;
        r->dirty = false;
        r->output.start = r->output.end = 0;
        r->span_count = 0;
        r->longest = 0;
        if (r->output.capacity > OUTPUT_BYTES_KEPT) buffer_free(&r->output);
        if (r->count == 0) room_free(r);
    }
    dirty_rooms = waiting;
}

/* ---- frames ---- */

static void handle_data(struct connection *c, const struct frame *f) {
    if ((f->opcode == CONTINUATION) != c->fragmented) { /* section 5.4 */
        connection_fail(c, 1002);
    } else if (f->final && !c->fragmented) { /* the usual case */
        room_append(c, f->payload, f->length, f->key);
    } else if (c->message.end + f->length > MESSAGE_BYTES_MAX) {
        connection_fail(c, 1009);
    } else {
        unmask(buffer_reserve(&c->message, f->length + 1), f->payload, f->length, f->key);
        c->message.end += f->length;
        c->fragmented = !f->final;
        if (f->final) {
            room_append(c, c->message.data, c->message.end, 0);
            buffer_free(&c->message);
        }
    }
}

static void handle_frame(struct connection *c, const struct frame *f) {
    if (f->opcode < CLOSE) {
        handle_data(c, f);
        return;
    }
    uint8_t payload[125];
    unmask(payload, f->payload, f->length, f->key);
    if (f->opcode == PING) {
        connection_send_control(c, PONG, payload, f->length);
    } else if (f->opcode == CLOSE) {
        connection_send_control(c, CLOSE, payload, f->length < 2 ? 0 : 2); /* echo the code, section 5.5.1 */
        connection_end(c);
    }
}

/* ---- HTTP ---- */

static void respond(struct connection *c, const char *status, const char *type, const char *body) {
    char text[256];
    int count = snprintf(text, sizeof text,
                         "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                         "Connection: close\r\n\r\n%s",
                         status, type, strlen(body), body);
    connection_send_bytes(c, text, (size_t)count);
    connection_end(c);
}

static void upgrade(struct connection *c, const char *key) {
    char text[256], accept[ACCEPT_BYTES];
    accept_value(accept, key);
    int count = snprintf(text, sizeof text,
                         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Accept: %s\r\n\r\n",
                         accept);
    connection_send_bytes(c, text, (size_t)count);
}

/* `head` is a C string: the request line and the header fields. */
static void handle_request(struct connection *c, const char *head) {
    if (strncmp(head, "GET /health ", 12) == 0) {
        respond(c, "200 OK", "application/json", "{\"status\":\"ok\"}");
        return;
    }
    if (strncmp(head, "GET /ws?", 8) != 0) {
        respond(c, "404 Not Found", "text/plain", "not found");
        return;
    }
    size_t room_length = 0;
    const char *room = room_parameter(head + 8, &room_length);
    size_t key_length = 0, upgrade_length = 0;
    const char *key = header_value(head, "Sec-WebSocket-Key", &key_length);
    const char *protocol = header_value(head, "Upgrade", &upgrade_length);
    if (!room || !key || key_length != KEY_BYTES || !protocol || upgrade_length != 9 ||
        strncasecmp(protocol, "websocket", 9) != 0) {
        respond(c, "400 Bad Request", "text/plain", "bad request");
        return;
    }
    upgrade(c, key);
    if (c->fd < 0) return;
    c->state = OPEN;
    room_join(c, room, room_length);
}

/* ---- connections: input ---- */

/*
 * Handles the first head or frame of `bytes`. Returns how many bytes it took, or, if it is not all
 * there, 0 and in `*needed` the size up to which it should be gathered.
 */
static size_t connection_step(struct connection *c, const uint8_t *bytes, size_t count, size_t *needed) {
    if (c->state == ENDING) return count; /* nothing that comes now matters */
    if (c->state == OPEN) {
        struct frame f;
        unsigned code;
        *needed = parse_frame(bytes, count, &f, &code);
        if (*needed == 0) {
            connection_fail(c, code);
            return count;
        }
        if (*needed > count) return 0;
        handle_frame(c, &f);
        return *needed;
    }
    const uint8_t *end = memmem(bytes, count, "\r\n\r\n", 4);
    size_t length = end ? (size_t)(end - bytes) + 2 : count; /* with the last field's CR LF */
    if (length > HEAD_BYTES_MAX) {
        respond(c, "431 Request Header Fields Too Large", "text/plain", "head too large");
        return count;
    }
    if (!end) {
        *needed = HEAD_BYTES_MAX + 4;
        return 0;
    }
    char head[HEAD_BYTES_MAX + 1];
    memcpy(head, bytes, length);
    head[length] = 0;
    handle_request(c, head);
    return length + 2;
}

/* Handles everything complete in what has been received, behind what was begun earlier, and keeps the rest. */
static void connection_take(struct connection *c, const uint8_t *next, size_t left) {
    struct buffer *input = &c->input;
    size_t needed = 0;
    while (c->fd >= 0 && input->data) { /* first what was begun in an earlier read */
        size_t taken = connection_step(c, input->data, input->end, &needed);
        if (taken) {
            /* A head was gathered without knowing its end: what follows it in `input` comes before `next`. */
            input->start = taken;
            while (c->fd >= 0 && input->start < input->end) {
                taken = connection_step(c, input->data + input->start, input->end - input->start, &needed);
                if (!taken) break;
                input->start += taken;
            }
            if (c->fd < 0) return;
            if (input->start == input->end) {
                buffer_free(input);
                break;
            }
            memmove(input->data, input->data + input->start, input->end - input->start);
            input->end -= input->start;
            input->start = 0;
        }
        if (c->fd < 0) return;
        if (needed > input->capacity) {
            input->data = must(realloc(input->data, needed));
            input->capacity = needed;
        }
        size_t more = needed - input->end < left ? needed - input->end : left;
        if (more == 0) return; /* the rest of it has not come yet */
        memcpy(input->data + input->end, next, more);
        input->end += more;
        next += more;
        left -= more;
    }
    while (c->fd >= 0 && left > 0) { /* then straight from the loop's buffer */
        size_t taken = connection_step(c, next, left, &needed);
        if (c->fd < 0) return;
        if (!taken) {
            buffer_reserve(input, needed);
            buffer_append(input, next, left);
            return;
        }
        next += taken;
        left -= taken;
    }
}

/* One read, and everything complete in it. Level-triggered: what is left comes back next iteration. */
static void read_plain(struct connection *c) {
    struct buffer *input = &c->input;
    struct iovec space[2] = {{input->data + input->end, input->capacity - input->end}, {received, sizeof received}};
    ssize_t n = input->data ? readv(c->fd, space, 2) : recv(c->fd, received, sizeof received, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) connection_close(c);
        return;
    }
    size_t left = (size_t)n, filled = 0;
    if (input->data) filled = left < space[0].iov_len ? left : space[0].iov_len;
    input->end += filled;
    connection_take(c, received, left - filled);
}

/* TLS ssl: everything there is, because what libssl has read ahead raises no event. */
static void read_ssl(struct connection *c) {
    int n = 1;
    while (c->fd >= 0 && n > 0) {
        ERR_clear_error();
        n = SSL_read(c->tls->ssl, received, sizeof received);
        if (n > 0) connection_take(c, received, (size_t)n);
        else if (SSL_get_error(c->tls->ssl, n) != SSL_ERROR_WANT_READ) connection_close(c);
    }
}

/* TLS evp: one read behind the begun record; whole records are opened where they lie. */
static void read_records(struct connection *c) {
    struct buffer *kept = &c->record;
    size_t count = kept->end, start = 0, length;
    if (count) memcpy(received, kept->data, count);
    ssize_t n = recv(c->fd, received + count, sizeof received - count, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) connection_close(c);
        return;
    }
    count += (size_t)n;
    while (c->fd >= 0 && (length = tls_record_bytes(received + start, count - start)) && length <= count - start) {
        uint8_t type = 0;
        long bytes = tls_open(&c->tls->reading, received + start, length, &type);
        if (bytes < 0 || type != APPLICATION_DATA) connection_close(c); /* an alert, such as close_notify, is the end */
        else connection_take(c, received + start + RECORD_HEADER_BYTES, (size_t)bytes);
        start += length;
    }
    if (c->fd < 0) return;
    if (start == count) {
        if (kept->data) buffer_free(kept);
        return;
    }
    kept->end = 0;
    buffer_append(kept, received + start, count - start);
}

static void connection_read(struct connection *c) {
    if (c->tls && !c->tls->open) {
        int result = tls_handshake(c->tls);
        if (result < 0) connection_close(c);
        if (result > 0 && tls_mode == TLS_SSL && SSL_has_pending(c->tls->ssl)) read_ssl(c);
    } else if (tls_mode == TLS_NONE) {
        read_plain(c);
    } else if (tls_mode == TLS_SSL) {
        read_ssl(c);
    } else {
        read_records(c);
    }
}

/* ---- the loop ---- */

static void accept_connections(int listener) {
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
            perror("fanout: accept (raise `ulimit -n`?)"); /* a benchmark goes on with all its clients or not at all */
            exit(1);
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (unsent_bytes) setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof unsent_bytes);
        struct connection *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        if (tls_mode != TLS_NONE) c->tls = must(tls_new(fd));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) connection_close(c);
    }
}

static void free_dead(void) {
    while (dead_connections) {
        struct connection *c = dead_connections;
        dead_connections = c->next_dead;
        tls_free(c->tls);
        buffer_free(&c->record);
        buffer_free(&c->input);
        buffer_free(&c->message);
        buffer_free(&c->backlog);
        free(c);
    }
}

static void serve(int listener) {
    struct epoll_event events[EVENTS_MAX];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}; /* NULL: the listener */
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, dirty_rooms ? 1 : -1);
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        now = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                accept_connections(listener);
                continue;
            }
            if (c->fd >= 0 && events[i].events & EPOLLOUT) connection_drain(c);
            if (c->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT) connection_read(c);
        }
        rooms_flush();
        free_dead();
    }
}

static int listen_on(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); /* each process has a listener of its own */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        perror("fanout: listen");
        exit(1);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void usage(void) {
    fprintf(stderr, "usage: fanout --port N [--tls ssl|evp --tls-cert FILE --tls-key FILE] [--processes N]\n"
                    "              [--unsent BYTES] [--gather 1]\n"
                    "       N from 0 to 65535; 0 takes a free port and prints it\n"
                    "       processes from 1 to 64, which share the port and nothing else: each has its own rooms\n");
    exit(64);
}

/* In a child: a process like the first, with a layout of its own, as the relay's workers have. */
static void become_another(char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives the first, which is the one that is ended */
    for (int i = 1; argv[i]; i += 2) {
        if (strcmp(argv[i], "--processes") == 0) argv[i + 1] = "1";
    }
    execv("/proc/self/exe", argv);
    perror("fanout: execv");
    exit(71);
}

int main(int argc, char **argv) {
    const char *port_text = "", *mode = NULL, *certificate = NULL, *key = NULL;
    long processes = 1;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) usage();
        if (strcmp(argv[i], "--port") == 0) port_text = argv[i + 1];
        else if (strcmp(argv[i], "--tls") == 0) mode = argv[i + 1];
        else if (strcmp(argv[i], "--tls-cert") == 0) certificate = argv[i + 1];
        else if (strcmp(argv[i], "--tls-key") == 0) key = argv[i + 1];
        else if (strcmp(argv[i], "--unsent") == 0) unsent_bytes = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--gather") == 0) gathers = strcmp(argv[i + 1], "1") == 0;
        else if (strcmp(argv[i], "--processes") == 0) processes = strtol(argv[i + 1], NULL, 10);
        else usage();
    }
    char *end = NULL;
    long port = strtol(port_text, &end, 10);
    if (port < 0 || port > UINT16_MAX || end == port_text || *end) usage();
    if (processes < 1 || processes > 64 || (processes > 1 && port == 0)) usage();
    if (!mode != !certificate || !mode != !key) usage();
    if (mode && strcmp(mode, "ssl") != 0 && strcmp(mode, "evp") != 0) usage();
    for (; processes > 1; processes--) {
        if (fork() == 0) become_another(argv);
    }
    if (mode) tls_setup(strcmp(mode, "evp") == 0 ? TLS_EVP : TLS_SSL, certificate, key);
    signal(SIGPIPE, SIG_IGN); /* libssl writes with write(2) */
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    serve(listen_on((uint16_t)port));
}
