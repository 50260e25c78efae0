/*
 * The attacks. Each is a function that a row of `patterns` (hostile.c) names, with the row's numbers: it sets up, calls
 * `attack_begins`, and returns when the attack is over. What is still open then stays so for a moment, and is closed
 * with the attackers' process.
 */
#ifndef HOSTILE_PATTERNS_H
#define HOSTILE_PATTERNS_H

#include <signal.h>

#include "hostile_crowd.h"
#include "hostile_watch.h"

enum {
    READ_BYTES = 64 * 1024,           /* what the relay reads at a time */
    SETUP_SECONDS = 20,
    ROOM_MEMBERS = 20,                /* RELAY_MAX_CLIENTS_PER_ROOM */
};

struct pattern {
    const char *name;
    int finding;                      /* of the review that found it, 0: new */
    bool tls;
    bool honest;                      /* whoever is closed is an innocent */
    bool limits;                      /* with the relay's default limits for each address; else without any */
    const char *settings;             /* further settings of the relay */
    int count;                        /* connections, or rooms where `members` is set */
    int members;                      /* of each room, host included */
    double seconds;                   /* how long it must last; 0: as the caller likes */
    size_t (*fill)(uint8_t *bytes, size_t size); /* what is sent, at most `size` bytes; returns how many */
    const char *text;                 /* or this */
    int option;                       /* the function's own */
    void (*attack)(const struct pattern *);
    const char *what;
};

struct attacker {
    struct sockaddr_in from, to;
    double seconds;
    pid_t supervisor;
    struct host_key key;
};

static struct attacker me;

static void attack_begins(void) { figures->phase = ATTACKING; }

static uint64_t attack_end(void) { return after_seconds(me.seconds); }

static void impossible(const char *why) {
    snprintf(figures->impossible, sizeof figures->impossible, "%s", why);
    exit(1);
}

/* The processes that a process has started; at most `most` of them. */
static int children_of(pid_t parent, pid_t *to, int most) {
    char path[64], text[1024] = "", *next = text;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", parent, parent);
    FILE *file = fopen(path, "r");
    int count = 0;
    if (!file) return 0;
    if (fgets(text, sizeof text, file)) {
        for (pid_t pid; count < most && (pid = (pid_t)strtol(next, &next, 10)) > 0;) to[count++] = pid;
    }
    fclose(file);
    return count;
}

#define NOTE(...) snprintf(figures->note, sizeof figures->note, __VA_ARGS__)

static struct crowd *crowd_of(int count) { return crowd_new(count, me.from, me.to); }

/* Bytes that are shared by all who send them, never given back. */
static uint8_t *bytes_of(size_t size) { return must(calloc(1, size)); }

/* As many whole copies of a text as fit. */
static size_t repeat(uint8_t *bytes, size_t size, const void *unit, size_t length) {
    size_t count = 0;
    for (; count + length <= size; count += length) memcpy(bytes + count, unit, length);
    return count;
}

/* What the row says is sent: its text or what `fill` makes, repeated up to `size`. */
static uint8_t *payload(const struct pattern *p, size_t size, size_t *count) {
    uint8_t *bytes = bytes_of(size);
    *count = p->fill ? p->fill(bytes, size) : repeat(bytes, size, p->text, strlen(p->text));
    return bytes;
}

/* ---- frames for `fill` ---- */

static size_t repeat_frame(uint8_t *bytes, size_t size, int first, const void *content, size_t length) {
    uint8_t *frame = bytes_of(MEMBER_FRAME_HEADER_BYTES_MAX + length);
    size_t header = frame_header(frame, first, length);
    if (length) memcpy(frame + header, content, length);
    size_t count = repeat(bytes, size, frame, header + length);
    free(frame);
    return count;
}

static size_t fill_empty(uint8_t *b, size_t size) { return repeat_frame(b, size, FINAL | BINARY, "", 0); }
static size_t fill_tiny(uint8_t *b, size_t size) { return repeat_frame(b, size, FINAL | BINARY, "x", 1); }
static size_t fill_pings(uint8_t *b, size_t size) { return repeat_frame(b, size, FINAL | PING, "", 0); }
static size_t fill_pongs(uint8_t *b, size_t size) { return repeat_frame(b, size, FINAL | PONG, "", 0); }
static size_t fill_voice(uint8_t *b, size_t size) { return repeat_frame(b, size, FINAL | BINARY, "KV", 2); }
static size_t fill_kib(uint8_t *b, size_t size) {
    static const uint8_t content[KIB];
    return repeat_frame(b, size, FINAL | BINARY, content, sizeof content);
}

/* One message of as many fragments of one byte as fit. */
static size_t fill_fragments(uint8_t *bytes, size_t size) {
    size_t frames = size / 7;
    for (size_t i = 0; i < frames; i++) {
        frame_header(bytes + i * 7, i == 0 ? BINARY : i == frames - 1 ? FINAL | CONTINUATION : CONTINUATION, 1);
    }
    return frames * 7;
}

/* Text of four bytes a character: each byte must be looked at. */
static size_t fill_text(uint8_t *bytes, size_t size) {
    size_t header = frame_header(bytes, FINAL | TEXT, (size - MEMBER_FRAME_HEADER_BYTES_MAX) & ~(size_t)3);
    return header + repeat(bytes + header, size - MEMBER_FRAME_HEADER_BYTES_MAX, "\xF0\x9F\x99\x82", 4);
}

/* A first message of data whose member names must be unescaped before they can be compared. */
static size_t fill_json(uint8_t *bytes, size_t size) {
    size_t length = size - MEMBER_FRAME_HEADER_BYTES_MAX;
    size_t header = frame_header(bytes, FINAL | TEXT, length);
    uint8_t *content = bytes + header;
    memset(content, ' ', length);
    content[0] = '{';
    size_t count = repeat(content + 1, length - 16, "\"\\u0066rox\":0,", 14);
    memcpy(content + 1 + count, "\"x\":0}", 6);
    return header + length;
}

/* The same, nested as deeply as it is long. */
static size_t fill_nested(uint8_t *bytes, size_t size) {
    size_t length = size - MEMBER_FRAME_HEADER_BYTES_MAX;
    size_t header = frame_header(bytes, FINAL | TEXT, length);
    memset(bytes + header, '[', length);
    memcpy(bytes + header, "{\"a\":", 5);
    return header + length;
}

static size_t fill_binary(uint8_t *bytes, size_t size) {
    size_t length = size - MEMBER_FRAME_HEADER_BYTES_MAX;
    return frame_header(bytes, FINAL | BINARY, length) + length;
}

/* Requests with 15 KiB of header fields, as short as fields can be. */
static size_t fill_fields(uint8_t *bytes, size_t size) {
    size_t count = 0;
    while (count + 15 * KIB + 64 <= size) {
        count += (size_t)sprintf((char *)bytes + count, "GET / HTTP/1.1\r\nHost:\r\n");
        count += repeat(bytes + count, 15 * KIB, "a:\r\n", 4);
        memcpy(bytes + count, "\r\n", 2);
        count += 2;
    }
    return count;
}

/* One request whose head is nearly as long as it may be; it is refused, for its token is none. */
static size_t long_join(uint8_t *bytes, const char *query, const char *field, const char *unit) {
    size_t count = (size_t)sprintf((char *)bytes, "GET /ws?room=nobody&token=x%s", query);
    if (*query) count += repeat(bytes + count, 15 * KIB, unit, strlen(unit));
    count += (size_t)sprintf((char *)bytes + count,
                             " HTTP/1.1\r\nHost:\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%s",
                             field);
    if (*field) count += repeat(bytes + count, 15 * KIB, unit, strlen(unit));
    return count + (size_t)sprintf((char *)bytes + count, "%s\r\n", *field ? "127.0.0.1\r\n" : "");
}

static size_t fill_query(uint8_t *b, size_t size) { return (void)size, long_join(b, "&", "", "%72oom=%41&"); }
static size_t fill_forwarded(uint8_t *b, size_t size) {
    return (void)size, long_join(b, "", "X-Forwarded-For: ", "127.0.0.1, ");
}

/* ---- members of rooms ---- */

/* Requests for rooms of the attackers' own: the first peer of each `members` is its host. */
static void give_rooms(struct crowd *c, int members, const char *fields) {
    const char *guest = NULL;
    for (int i = 0; i < c->count; i++) {
        char room[32];
        snprintf(room, sizeof room, "attack-%d", i / members);
        bool is_host = i % members == 0;
        if (is_host || !guest) guest = members > 1 ? join_request(&me.key, room, false, fields) : NULL;
        c->peers[i].request = is_host ? join_request(&me.key, room, true, fields) : guest;
    }
}

/* Opens rooms: hosts first, for a guest is let in only where its room is. Returns when all are in that get in. */
static struct crowd *rooms(int count, int members, bool guests_read, int receive_bytes) {
    struct crowd *c = crowd_of(count * members);
    c->receive_bytes = receive_bytes;
    give_rooms(c, members, "");
    c->queue_count = 0;
    uint64_t until = after_seconds(SETUP_SECONDS);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < c->count; i++) {
            if ((i % members == 0) != (pass == 0)) continue;
            c->peers[i].reads = guests_read;
            crowd_queue(c, &c->peers[i]);
        }
        crowd_await_open(c, until);
    }
    if (!c->open) {
        NOTE("none got in: %ld refused, latest %d", c->refused, c->refused_status);
    } else if (c->open < c->count) {
        NOTE("%d of %d in, %ld refused, latest %d", c->open, c->count, c->refused, c->refused_status);
    }
    return c;
}

/* ---- finding 1: requests ---- */

/* `count` connections send requests as fast as they are taken and throw the answers away. */
static void flood_requests(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    size_t length;
    const uint8_t *bytes = payload(p, READ_BYTES, &length);
    c->handshakes = false; /* plain HTTP on a TLS port is answered too */
    for (int i = 0; i < c->count; i++) {
        c->peers[i].bytes = bytes;
        c->peers[i].length = length;
        c->peers[i].again = true;
    }
    c->reopens = true;
    attack_begins();
    crowd_run(c, attack_end());
    if (c->ended_by_relay) NOTE("%ld connections ended and opened again", c->ended_by_relay);
}

/*
 * The same connections, a read's worth of requests each, once. `option` 1: the relay's workers are stopped until all
 * requests wait for them, as if they had been without a CPU for so long: one turn of the loop then finds the most that
 * there can be.
 */
static void requests_once(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    c->receive_bytes = 4 * MIB; /* whatever is answered is taken */
    int count = p->option == 1 ? children_of(me.supervisor, figures->stopped, 64) : 0;
    crowd_await_open(c, after_seconds(SETUP_SECONDS));
    size_t length;
    const uint8_t *bytes = payload(p, READ_BYTES, &length);
    if (!count) attack_begins();
    figures->stopped_count = count;
    for (int i = 0; i < count; i++) kill(figures->stopped[i], SIGSTOP);
    for (int i = 0; i < c->count; i++) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, length);
    }
    if (count) crowd_await_sent(c, after_seconds(1));
    for (int i = 0; i < count; i++) kill(figures->stopped[i], SIGCONT);
    figures->stopped_count = 0;
    if (count) {
        figures->voice_since = now();
        attack_begins();
    }
    crowd_run(c, attack_end());
}

/* `count` connections at a time that each send something, wait for the beginning of an answer and come again. */
static void churn(const struct pattern *p, const uint8_t *bytes, size_t length) {
    struct crowd *c = crowd_of(p->count);
    c->handshakes = false;
    for (int i = 0; i < c->count; i++) {
        c->peers[i].bytes = bytes;
        c->peers[i].length = length;
    }
    c->reopens = c->ends_answered = true;
    attack_begins();
    crowd_run(c, attack_end());
    figures->units = c->let_in;
}

static void come_and_go(const struct pattern *p) {
    size_t length;
    const uint8_t *bytes = payload(p, p->text ? strlen(p->text) : 16 * KIB, &length);
    churn(p, bytes, length);
}

/* Joins that cost a check of a signature and are refused. */
static void bad_tokens(const struct pattern *p) {
    char *request = join_request(&me.key, "attack", true, "");
    char *signature = strstr(request, "&pubkey=") - 20;
    *signature = *signature == 'A' ? 'B' : 'A';
    churn(p, (uint8_t *)request, strlen(request));
}

/* ---- findings 2 and 8: what is prepared and set off at one moment ---- */

/*
 * In each room one message of 1 MiB less a byte, then the last byte of all. `option` 1: guests read what comes.
 * The hosts send; with one member a room they are the only ones.
 */
static void last_bytes(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, p->option == 1, p->option == 1 ? 0 : 16 * KIB);
    size_t length;
    const uint8_t *bytes = payload(p, MIB, &length);
    for (int i = 0; i < c->count; i += p->members) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, length - 1);
    }
    crowd_await_sent(c, after_seconds(SETUP_SECONDS));
    attack_begins();
    for (int i = 0; i < c->count; i += p->members) {
        if (c->peers[i].state != OPEN) continue;
        crowd_say(c, &c->peers[i], bytes + length - 1, 1);
        figures->units++;
    }
    crowd_run(c, attack_end());
}

/* Members that do not read, or `option` bytes each 10 ms, and `members` messages for each room of 1 MiB. */
static void slow_readers(const struct pattern *p) {
    enum { MESSAGES = 7 };
    struct crowd *c = rooms(p->count, p->members, false, 16 * KIB);
    size_t length;
    uint8_t *message = payload(p, MIB, &length), *bytes = bytes_of(MESSAGES * length);
    repeat(bytes, MESSAGES * length, message, length);
    attack_begins();
    for (int i = 0; i < c->count; i += p->members) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, MESSAGES * length);
    }
    uint64_t until = attack_end();
    while (now() < until) {
        crowd_run(c, now() + 10 * MILLISECOND);
        for (int i = 0; p->option && i < c->count; i++) {
            if (c->peers[i].state == OPEN) recv(c->peers[i].fd, c->scratch, (size_t)p->option, 0);
        }
    }
}

/* Honest: everybody in the rooms sends 1 MiB at once, and reads. Nobody may be closed. */
static void all_at_once(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, true, 0);
    size_t length;
    const uint8_t *bytes = payload(p, MIB, &length);
    attack_begins();
    for (int i = 0; i < c->count; i++) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, length);
    }
    crowd_run(c, attack_end());
}

/* Messages of 1 MiB that stop after `option` bytes. */
static void half_messages(const struct pattern *p) {
    struct crowd *c = rooms(p->count, 1, true, 0);
    const uint8_t *bytes = bytes_of(MIB);
    frame_header((uint8_t *)bytes, FINAL | BINARY, MIB - MEMBER_FRAME_HEADER_BYTES_MAX);
    attack_begins();
    for (int i = 0; i < c->count; i++) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, (size_t)p->option);
    }
    crowd_run(c, attack_end());
    if (c->ended_by_relay) NOTE("%ld of them closed", c->ended_by_relay);
}

/* All members' sockets die in one moment. */
static void drop_together(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, true, 0);
    attack_begins();
    for (int i = 0; i < c->count; i++) {
        if (c->peers[i].state == OPEN) crowd_end(c, &c->peers[i], false);
    }
    pause_until(attack_end());
}

/* A reload while a message waits for everybody. */
static void reload_waiting(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, false, 16 * KIB);
    size_t length;
    const uint8_t *bytes = payload(p, MIB, &length);
    for (int i = 0; i < c->count; i += p->members) {
        if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], bytes, length);
    }
    crowd_await_sent(c, after_seconds(SETUP_SECONDS));
    crowd_run(c, after_seconds(0.3));
    attack_begins();
    kill(me.supervisor, SIGHUP);
    crowd_run(c, attack_end());
}

/* ---- rooms that talk ---- */

enum { UNREAD = 2, WITH_RELOAD = 4 };

/*
 * The host of each room sends as fast as it is read; its guests read. `option`: the host reads nothing; the relay
 * reloads meanwhile.
 */
static void flood_members(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, true, 0);
    size_t length;
    const uint8_t *bytes = payload(p, READ_BYTES, &length);
    attack_begins();
    for (int i = 0; i < c->count; i += p->members) {
        if (c->peers[i].state != OPEN) continue;
        c->peers[i].reads = !(p->option & UNREAD);
        crowd_say(c, &c->peers[i], bytes, length);
        c->peers[i].again = true;
    }
    uint64_t until = attack_end();
    if (p->option & WITH_RELOAD) {
        crowd_run(c, after_seconds(0.3));
        kill(me.supervisor, SIGHUP);
    }
    crowd_run(c, until);
    if (c->ended_by_relay) NOTE("%ld of them closed", c->ended_by_relay);
}

/* Members that send little, but all of them each 20 ms: many are ready in each turn, none has much. */
static void murmur(const struct pattern *p) {
    struct crowd *c = rooms(p->count, p->members, true, 0);
    uint8_t frame[MEMBER_FRAME_HEADER_BYTES_MAX + 100] = {0};
    size_t length = frame_header(frame, FINAL | BINARY, 100) + 100;
    attack_begins();
    uint64_t until = attack_end(), due = now();
    while (now() < until) {
        for (int i = 0; i < c->count; i++) {
            if (c->peers[i].state == OPEN && send(c->peers[i].fd, frame, length, MSG_NOSIGNAL) > 0) figures->units++;
            if (i % 200 == 0) crowd_turn(c, 0);
        }
        due += 20 * MILLISECOND;
        do crowd_turn(c, 1); while (now() < due);
        if (due < now()) due = now();
    }
}

/* Guests come and go in a room whose other members hear of each leave; `option` 1: hosts, each with its own room. */
static void join_and_leave(const struct pattern *p) {
    struct crowd *audience = p->option ? NULL : rooms(1, ROOM_MEMBERS - p->count, true, 0);
    struct crowd *c = crowd_of(p->count);
    for (int i = 0; i < c->count; i++) {
        char room[32];
        snprintf(room, sizeof room, "churn-%d", i);
        c->peers[i].request = join_request(&me.key, p->option ? room : "attack-0", p->option, "");
    }
    c->reopens = true;
    attack_begins();
    for (uint64_t until = attack_end(); now() < until;) {
        crowd_turn(c, 2);
        if (audience) crowd_turn(audience, 0);
        for (int i = 0; i < c->count; i++) {
            if (c->peers[i].state == OPEN) crowd_end(c, &c->peers[i], false);
        }
    }
    figures->units = c->let_in;
}

/* ---- findings 4, 5, 7 and 9: connections that want little ---- */

/* The beginning of a ClientHello that a server would go on with, or all of it. */
static uint8_t *client_hello(size_t *length) {
    SSL *ssl = tls_client(-1);
    SSL_set0_rbio(ssl, must(BIO_new(BIO_s_mem())));
    tls_write_to_memory(ssl);
    SSL_do_handshake(ssl);
    return tls_written(ssl, length);
}

/* `count` connections that send the row's text and no more; one that is closed comes again, `option` 1: does not. */
static void sit(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    c->handshakes = false;
    c->reopens = p->option != 1;
    for (int i = 0; p->text && i < c->count; i++) {
        c->peers[i].bytes = (const uint8_t *)p->text;
        c->peers[i].length = strlen(p->text);
    }
    attack_begins();
    crowd_run(c, attack_end());
    NOTE("%d of %d open, %ld opened", c->open, c->count, c->let_in);
}

/* The same with a part of a ClientHello, `option` percent of it; 100 is an attack by its CPU time as well. */
static void begun_hellos(const struct pattern *p) {
    size_t length;
    const uint8_t *hello = client_hello(&length);
    if (p->option == 100) return churn(p, hello, length);
    struct crowd *c = crowd_of(p->count);
    c->handshakes = false;
    c->reopens = true;
    for (int i = 0; i < c->count; i++) {
        c->peers[i].bytes = hello;
        c->peers[i].length = length * (size_t)p->option / 100;
    }
    attack_begins();
    crowd_run(c, attack_end());
    NOTE("%d of %d open, %ld opened", c->open, c->count, c->let_in);
}

/* Whole handshakes, one after another. */
static void handshakes(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    c->reopens = true;
    attack_begins();
    for (uint64_t until = attack_end(); now() < until;) {
        crowd_turn(c, 2);
        for (int i = 0; i < c->count; i++) {
            if (c->peers[i].state == OPEN) crowd_end(c, &c->peers[i], false);
        }
    }
    figures->units = c->let_in;
}

/* Heads that grow by a byte a second, up to `option` bytes at once first. */
static void heads(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    c->handshakes = false;
    c->reopens = true;
    uint8_t *bytes = bytes_of(16 * KIB);
    memset(bytes, 'a', 16 * KIB);
    memcpy(bytes, "GET / HTTP/1.1\r\nHost:", 21);
    for (int i = 0; i < c->count; i++) {
        c->peers[i].bytes = bytes;
        c->peers[i].length = (size_t)p->option;
    }
    attack_begins();
    for (uint64_t until = attack_end(); now() < until;) {
        crowd_run(c, after_seconds(1));
        for (int i = 0; i < c->count; i++) {
            struct peer *peer = &c->peers[i];
            if (peer->state == OPEN && peer->at == peer->length) send(peer->fd, "a", 1, MSG_NOSIGNAL);
        }
    }
    NOTE("%d of %d open, %ld opened", c->open, c->count, c->let_in);
}

/* Requests whose answers are not read. */
static void unread_answers(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    c->handshakes = false;
    size_t length;
    const uint8_t *bytes = payload(p, 256 * KIB, &length);
    for (int i = 0; i < c->count; i++) {
        c->peers[i].reads = false;
        c->peers[i].bytes = bytes;
        c->peers[i].length = length;
    }
    attack_begins();
    crowd_run(c, attack_end());
}

/* As many rooms as one address gets. */
static void all_rooms(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    give_rooms(c, 1, "");
    c->reopens = true;
    attack_begins();
    crowd_run(c, attack_end());
    NOTE("%d rooms of one address; %ld refused, latest %d", c->open, c->refused, c->refused_status);
}

/* As many connections as one address gets, each with a request now and then. */
static void all_connections(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    const char *request = "GET /health HTTP/1.1\r\nHost:\r\n\r\n";
    for (int i = 0; i < c->count; i++) c->peers[i].request = request;
    c->reopens = true;
    c->opens_per_second = 2000;
    attack_begins();
    uint64_t until = attack_end(), next = after_seconds(3);
    while (now() < until) {
        crowd_turn(c, 2);
        if (now() < next) continue;
        next = after_seconds(3);
        for (int i = 0; i < c->count; i++) {
            if (c->peers[i].state == OPEN) crowd_say(c, &c->peers[i], request, strlen(request));
        }
    }
    NOTE("%d connections of one address; %ld refused, latest %d", c->open, c->refused, c->refused_status);
}

/*
 * A proxy that passes a client's own X-Forwarded-For on, beside the X-Real-IP that it sets: half of the headers are
 * made up, half name the stranger. The relay trusts the proxy, which is the attackers' address here.
 */
static void forwarded(const struct pattern *p) {
    struct crowd *c = crowd_of(p->count);
    for (int i = 0; i < c->count; i++) {
        char fields[128], room[32];
        snprintf(fields, sizeof fields, "X-Forwarded-For: %s%d\r\nX-Real-IP: 203.0.113.7\r\n",
                 i % 2 ? "198.51.100." : STRANGER "\r\nX-Made-Up: ", i / 2 % 250);
        snprintf(room, sizeof room, "attack-%d", i);
        c->peers[i].request = join_request(&me.key, room, true, fields);
    }
    attack_begins();
    crowd_run(c, attack_end());
    /* The default is 200 at once, and 100 a second: all come within a moment. */
    figures->broken = c->let_in > 400;
    NOTE("%ld joins of %d passed the limit of one address, %ld refused", c->let_in, c->count, c->refused);
}

/* ---- finding 6: records ---- */

/*
 * Members send records that they have prepared: a byte of a message, and in front of it `option` KeyUpdates (negative:
 * that want one in return).
 */
static void records(const struct pattern *p) {
    enum { PREPARED_BYTES = 96 * KIB };
    struct crowd *c = rooms(p->count, 1, true, 0);
    uint8_t frame[MEMBER_FRAME_HEADER_BYTES_MAX];
    size_t header = frame_header(frame, FINAL | BINARY, 0), at = 0;
    int type = p->option < 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    for (int i = 0; i < c->count; i++) {
        struct peer *peer = &c->peers[i];
        if (peer->state != OPEN) continue;
        tls_write_to_memory(peer->ssl);
        at = 0;
        while (BIO_pending(SSL_get_wbio(peer->ssl)) < PREPARED_BYTES) {
            for (int update = 0; update < abs(p->option); update++) {
                if (SSL_key_update(peer->ssl, type) != 1 || SSL_do_handshake(peer->ssl) != 1) {
                    impossible("libssl makes no KeyUpdate");
                }
            }
            if (SSL_write(peer->ssl, frame + at, 1) != 1) impossible("libssl makes no record");
            at = (at + 1) % header;
        }
        peer->bytes = tls_written(peer->ssl, &peer->length);
    }
    attack_begins();
    for (int i = 0; i < c->count; i++) {
        if (c->peers[i].state == OPEN) crowd_watch(c, &c->peers[i]);
    }
    crowd_run(c, attack_end());
    size_t sent = 0;
    for (int i = 0; i < c->count; i++) sent += c->peers[i].at;
    NOTE("%.1f MB sent; %ld of %d closed", (double)sent / 1e6, c->ended_by_relay, c->count);
}

/* Members send half of a full record, and no more. */
static void half_records(const struct pattern *p) {
    struct crowd *c = rooms(p->count, 1, true, 0);
    static uint8_t content[16 * KIB];
    frame_header(content, FINAL | BINARY, MIB / 2);
    attack_begins();
    for (int i = 0; i < c->count; i++) {
        struct peer *peer = &c->peers[i];
        if (peer->state != OPEN) continue;
        tls_write_to_memory(peer->ssl);
        SSL_write(peer->ssl, content, sizeof content);
        size_t length;
        uint8_t *record = tls_written(peer->ssl, &length);
        crowd_say(c, peer, record, length - 64);
        crowd_turn(c, 0);
    }
    crowd_run(c, attack_end());
}

/* Nobody attacks: what the machine and the watchers make by themselves. */
static void nothing(const struct pattern *p) {
    (void)p;
    attack_begins();
    pause_until(attack_end());
}

#endif
