/*
 * The others, whom an attack must not hurt, each kind in a process of its own:
 *
 *   voice       a room whose host sends 50 frames a second, with their time in them, to two guests
 *   bystanders  a room with 1 MiB of data a second for a guest that is a little slow, and rooms of one that say nothing
 *   stranger    comes every 0.5 s, makes a handshake and joins a room of its own
 *
 * They have addresses of their own and write what they see into memory that they share with hostile.c.
 */
#ifndef HOSTILE_WATCH_H
#define HOSTILE_WATCH_H

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "hostile.h"

#define VOICE_HOST "127.0.0.2"
#define VOICE_GUESTS "127.0.0.3"
#define STRANGER "127.0.0.4"
#define SLOW_ROOM "127.0.0.5"
#define QUIET_ROOMS "127.0.0.6"

enum {
    VOICE_SAMPLES_MAX = 20000,
    VOICE_BYTES = 120,                /* "KV", time, then as much as a codec's frame has */
    VOICE_INTERVAL_MS = 20,
    QUIET_COUNT = 20,
    DATA_INTERVAL_MS = 1000,          /* of a message of 1 MiB, which the slow guest reads at */
    SLOW_READ_BYTES = 160 * 1024,     /* each */
    SLOW_READ_INTERVAL_MS = 100,
    STRANGER_INTERVAL_MS = 500,
    STRANGERS_MAX = 100,
    STRANGER_RETRY_MS = 100,          /* after a refusal */
    SHUT_OUT_MS = 3000,               /* a stranger that has tried so long is shut out */
    REASON_BYTES = 48,
};

enum phase { WARMING, SETTING_UP, ATTACKING, HOLDING, OVER };

/* Memory of all processes of one run. */
struct figures {
    _Atomic int phase;
    _Atomic int ready;                /* watchers that have begun */
    _Atomic int failed;               /* watchers that could not begin */
    _Atomic uint32_t voice_count;
    uint32_t voice_us[VOICE_SAMPLES_MAX]; /* of the attack itself, in the order heard */
    _Atomic uint32_t voice_worst_us;  /* with what came before: setting up may hurt too */
    _Atomic uint64_t voice_since;     /* frames from before are not looked at: a pattern that stops the relay sets it */
    _Atomic uint32_t voice_own_us;    /* how late the speaker itself was, at most */
    _Atomic int innocents_closed;
    char innocent[REASON_BYTES];      /* the first of them */
    _Atomic uint32_t data_sent, data_heard;
    _Atomic int strangers, strangers_in, strangers_shut_out;
    uint32_t stranger_ms[STRANGERS_MAX];
    char stranger_refusal[REASON_BYTES];
    pid_t stopped[64];                /* workers that a pattern has stopped and not yet let go on */
    _Atomic int stopped_count;
    long units;                       /* things that the relay had to do in the attack, where a pattern counts them */
    bool broken;                      /* a pattern's own finding: `note` says what */
    char note[160];                   /* of the attack */
    char impossible[160];             /* why it could not be run */
};

static struct figures *figures;

/* ---- one connection, read frame by frame ---- */

struct line {
    int fd;                           /* -1: closed */
    SSL *ssl;
    int status;                       /* of the answer to its request; 0: none came */
    int code;                         /* of the close frame; 0: none came */
    uint8_t header[10];
    size_t have;                      /* of the header */
    uint64_t remaining;               /* of the payload */
    uint64_t length;
    uint8_t payload[128];             /* the first bytes of it */
    uint32_t heard;                   /* voice: frames, those before it included */
    void (*frame)(struct line *, int opcode);
};

static void line_close(struct line *l) {
    if (l->fd < 0) return;
    SSL_free(l->ssl);
    l->ssl = NULL;
    hang_up(l->fd);
    l->fd = -1;
}

/* Bytes moved; 0: nothing can be just now; -1: the line is dead. */
static ssize_t line_move(struct line *l, void *bytes, size_t count, bool out) {
    ssize_t moved;
    if (l->ssl) {
        moved = out ? SSL_write(l->ssl, bytes, (int)count) : SSL_read(l->ssl, bytes, (int)count);
        if (moved > 0) return moved;
        int error = SSL_get_error(l->ssl, (int)moved);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    moved = out ? send(l->fd, bytes, count, MSG_NOSIGNAL) : recv(l->fd, bytes, count, 0);
    if (moved > 0) return moved;
    return moved < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static bool line_wait(struct line *l, short events, uint64_t until) {
    uint64_t time = now();
    if (time >= until) return false;
    struct pollfd p = {.fd = l->fd, .events = events};
    return poll(&p, 1, (int)((until - time) / MILLISECOND) + 1) >= 0;
}

static void line_frame(struct line *l) {
    int opcode = l->header[0] & 15;
    if (opcode == CLOSE) l->code = l->length >= 2 ? l->payload[0] << 8 | l->payload[1] : 1005;
    if (opcode == PING) {
        uint8_t pong[MEMBER_FRAME_HEADER_BYTES_MAX + 128];
        size_t length = frame_header(pong, FINAL | PONG, l->length);
        memcpy(pong + length, l->payload, l->length);
        line_move(l, pong, length + l->length, true);
    }
    if (l->frame) l->frame(l, opcode);
}

static void line_feed(struct line *l, const uint8_t *bytes, size_t count) {
    while (count) {
        if (l->remaining) {
            size_t part = count < l->remaining ? count : l->remaining, at = l->length - l->remaining;
            if (at < sizeof l->payload) {
                memcpy(l->payload + at, bytes, part < sizeof l->payload - at ? part : sizeof l->payload - at);
            }
            l->remaining -= part;
            bytes += part;
            count -= part;
        } else {
            l->header[l->have++] = *bytes++;
            count--;
            size_t size = l->have < 2 ? 2 : l->header[1] == 127 ? 10 : l->header[1] == 126 ? 4 : 2;
            if (l->have < size) continue;
            l->length = size == 2 ? l->header[1] : 0;
            for (size_t i = 2; i < size; i++) l->length = l->length << 8 | l->header[i];
            l->remaining = l->length;
            l->have = 0;
        }
        if (!l->remaining && !l->have) line_frame(l);
    }
}

/* Reads what is there, `count` bytes at most. False: the line is dead. */
static bool line_read(struct line *l, size_t count) {
    static uint8_t bytes[64 * 1024];
    while (l->fd >= 0 && count) {
        ssize_t moved = line_move(l, bytes, count < sizeof bytes ? count : sizeof bytes, false);
        if (moved < 0) return false;
        if (moved == 0) return true;
        line_feed(l, bytes, (size_t)moved);
        count -= (size_t)moved;
    }
    return l->fd >= 0;
}

/* Connects, makes a handshake over TLS, asks, and reads the head of the answer. `status` is 101 if it is in. */
static void line_open(struct line *l, const char *from, struct sockaddr_in to, const char *request, int receive_bytes,
                      uint64_t until) {
    memset(l, 0, offsetof(struct line, heard));
    l->fd = dial(address_of(from, 0), to, receive_bytes);
    if (l->fd < 0) return;
    line_wait(l, POLLOUT, until);
    if (tls) {
        l->ssl = tls_client(l->fd);
        for (int result; (result = SSL_do_handshake(l->ssl)) != 1;) {
            int error = SSL_get_error(l->ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return line_close(l);
            if (!line_wait(l, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until)) return line_close(l);
        }
    }
    if (line_move(l, (void *)request, strlen(request), true) <= 0) return line_close(l);
    char head[2048];
    size_t have = 0;
    while (have < sizeof head - 1) {
        /* Byte by byte: what stands behind the head is a frame's. */
        ssize_t moved = line_move(l, head + have, 1, false);
        if (moved < 0 || (moved == 0 && !line_wait(l, POLLIN, until))) return line_close(l);
        have += (size_t)moved;
        head[have] = 0;
        if (have > 12) l->status = atoi(head + 9);
        if (have > 12 && l->status != 101) return line_close(l);
        if (have >= 4 && memcmp(head + have - 4, "\r\n\r\n", 4) == 0) return;
    }
    line_close(l);
}

/* ---- watchers ---- */

static bool over(void) { return figures->phase == OVER; }

static void innocent_closed(const char *who, struct line *l) {
    if (figures->phase != OVER && atomic_fetch_add(&figures->innocents_closed, 1) == 0) {
        snprintf(figures->innocent, sizeof figures->innocent, "%s %d", who, l->code);
    }
    line_close(l);
}

/* Voice and strangers share a CPU with the attackers: those who watch come first, where they have the privilege. */
static void come_first(void) {
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &priority);
}

static struct host_key new_key(void) {
    struct host_key key;
    crypto_sign_keypair(key.public_key, key.secret_key);
    return key;
}

static void must_join(struct line *l, const char *from, struct sockaddr_in to, const char *request, int receive_bytes) {
    line_open(l, from, to, request, receive_bytes, after_seconds(5));
    if (l->fd >= 0) return;
    figures->failed++;
    exit(1);
}

/* Waits until `until` or until something can be read from one of the lines. */
static void lines_wait(struct line *lines, int count, uint64_t until) {
    struct pollfd polls[64];
    for (int i = 0; i < count; i++) polls[i] = (struct pollfd){.fd = lines[i].fd, .events = POLLIN};
    uint64_t time = now();
    if (time >= until) return;
    struct timespec wait = {.tv_sec = (time_t)((until - time) / SECOND), .tv_nsec = (long)((until - time) % SECOND)};
    ppoll(polls, (nfds_t)count, &wait, NULL);
}

struct voice {
    uint32_t number;
    uint64_t sent;
};

static void voice_took(const struct voice *v) {
    uint32_t took = (uint32_t)((now() - v->sent) / 1000), index = figures->voice_count;
    if (figures->phase == WARMING || v->sent < figures->voice_since) return;
    if (took > figures->voice_worst_us) figures->voice_worst_us = took;
    if (figures->phase == SETTING_UP || index == VOICE_SAMPLES_MAX) return;
    figures->voice_us[index] = took;
    figures->voice_count++;
}

static void voice_frame(struct line *l, int opcode) {
    if (opcode != BINARY || l->length != VOICE_BYTES) return;
    struct voice v;
    memcpy(&v, l->payload + 2, sizeof v);
    l->heard = v.number + 1;
    if (!over()) voice_took(&v);
}

static void watch_voice(struct sockaddr_in to) {
    enum { HOST, GUEST, ANOTHER, MEMBERS };
    struct host_key key = new_key();
    const char *host = join_request(&key, "voice", true, ""), *guest = join_request(&key, "voice", false, "");
    struct line members[MEMBERS] = {{.frame = voice_frame}, {.frame = voice_frame}, {.frame = voice_frame}};
    for (int i = 0; i < MEMBERS; i++) {
        must_join(&members[i], i == HOST ? VOICE_HOST : VOICE_GUESTS, to, i == HOST ? host : guest, 0);
    }
    figures->ready++;
    uint8_t frame[MEMBER_FRAME_HEADER_BYTES_MAX + VOICE_BYTES] = {0};
    size_t header = frame_header(frame, FINAL | BINARY, VOICE_BYTES);
    memcpy(frame + header, "KV", 2);
    struct voice v = {0};
    static uint64_t sent[VOICE_SAMPLES_MAX];
    for (uint64_t due = now(); !over() && v.number < VOICE_SAMPLES_MAX;) {
        lines_wait(members, MEMBERS, due);
        for (int i = 0; i < MEMBERS; i++) {
            if (members[i].fd >= 0 && !line_read(&members[i], SIZE_MAX)) {
                innocent_closed("voice", &members[i]);
                due = now() + 100 * MILLISECOND;
            }
            /* Back as a client comes back, and counted once for each time. */
            if (members[i].fd < 0 && now() >= due) {
                members[i].heard = v.number;
                line_open(&members[i], i == HOST ? VOICE_HOST : VOICE_GUESTS, to, i == HOST ? host : guest, 0,
                          after_seconds(0.5));
            }
        }
        uint64_t time = now();
        if (time < due) continue;
        if (figures->phase != WARMING && figures->voice_own_us < (time - due) / 1000) {
            figures->voice_own_us = (uint32_t)((time - due) / 1000);
        }
        v.sent = sent[v.number] = time;
        memcpy(frame + header + 2, &v, sizeof v);
        if (members[HOST].fd >= 0 && line_move(&members[HOST], frame, header + VOICE_BYTES, true) > 0) v.number++;
        /* One that was late does not catch up: a microphone has no backlog. */
        due += VOICE_INTERVAL_MS * MILLISECOND;
        if (due < time) due = time + VOICE_INTERVAL_MS * MILLISECOND;
    }
    /* What has not arrived by now takes at least so long. */
    for (int i = GUEST; i < MEMBERS; i++) {
        for (uint32_t number = members[i].heard; members[i].fd >= 0 && number < v.number; number++) {
            struct voice missing = {.number = number, .sent = sent[number]};
            if (now() - missing.sent > VOICE_INTERVAL_MS * MILLISECOND) voice_took(&missing);
        }
    }
}

static void data_frame(struct line *l, int opcode) {
    if (opcode == BINARY && l->length == MIB) figures->data_heard++;
}

static void watch_bystanders(struct sockaddr_in to) {
    enum { SENDER, READER, QUIET };
    struct line lines[QUIET + QUIET_COUNT] = {[READER] = {.frame = data_frame}};
    struct host_key key = new_key();
    must_join(&lines[SENDER], SLOW_ROOM, to, join_request(&key, "slow", true, ""), 0);
    must_join(&lines[READER], SLOW_ROOM, to, join_request(&key, "slow", false, ""), 64 * KIB);
    for (int i = QUIET; i < QUIET + QUIET_COUNT; i++) {
        char room[32];
        snprintf(room, sizeof room, "quiet-%d", i);
        must_join(&lines[i], QUIET_ROOMS, to, join_request(&key, room, true, ""), 0);
    }
    figures->ready++;
    uint8_t *message = must(calloc(1, MEMBER_FRAME_HEADER_BYTES_MAX + MIB));
    size_t length = frame_header(message, FINAL | BINARY, MIB) + MIB, at = 0;
    uint64_t next_message = now(), next_read = now();
    while (!over()) {
        uint64_t time = now();
        if (time >= next_message && lines[SENDER].fd >= 0) {
            /* TLS may take less at a time; the rest of the message waits for the next look. */
            ssize_t moved;
            while (at < length && (moved = line_move(&lines[SENDER], message + at, length - at, true)) > 0) {
                at += (size_t)moved;
            }
            if (at == length) {
                at = 0;
                figures->data_sent++;
                next_message += DATA_INTERVAL_MS * MILLISECOND;
            }
        }
        if (time >= next_read) {
            next_read = time + SLOW_READ_INTERVAL_MS * MILLISECOND;
            if (lines[READER].fd >= 0 && !line_read(&lines[READER], SLOW_READ_BYTES)) {
                innocent_closed("slow guest", &lines[READER]);
            }
            for (int i = 0; i < QUIET + QUIET_COUNT; i++) {
                if (i == READER || lines[i].fd < 0 || line_read(&lines[i], SIZE_MAX)) continue;
                innocent_closed(i == SENDER ? "sender of 1 MiB" : "quiet member", &lines[i]);
            }
        }
        pause_until(time + 5 * MILLISECOND);
    }
}

/* In a process of its own: one stranger, that comes again when it is refused. */
static void try_to_get_in(struct sockaddr_in to, int number) {
    char room[32];
    struct host_key key = new_key();
    snprintf(room, sizeof room, "stranger-%d", number);
    const char *request = join_request(&key, room, true, "");
    uint64_t began = now(), until = began + SHUT_OUT_MS * MILLISECOND;
    struct line line = {0};
    while (now() < until && !over()) {
        line_open(&line, STRANGER, to, request, 0, until);
        uint32_t took = (uint32_t)((now() - began) / MILLISECOND);
        figures->stranger_ms[number] = took;
        if (line.status == 101 && line.fd >= 0) {
            figures->strangers_in++;
            line_close(&line);
            exit(0);
        }
        if (line.status) snprintf(figures->stranger_refusal, REASON_BYTES, "%d", line.status);
        pause_until(now() + STRANGER_RETRY_MS * MILLISECOND);
    }
    if (now() >= until) figures->strangers_shut_out++;
    exit(0);
}

static void watch_for_strangers(struct sockaddr_in to) {
    figures->ready++;
    while (figures->phase == WARMING) pause_until(now() + 2 * MILLISECOND);
    for (uint64_t due = now(); figures->phase < HOLDING && figures->strangers < STRANGERS_MAX;
         due += STRANGER_INTERVAL_MS * MILLISECOND) {
        pause_until(due);
        int number = figures->strangers++;
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            try_to_get_in(to, number);
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    while (wait(NULL) > 0 || errno == EINTR) {}
}

#endif
