/*
 * A crowd: connections by the thousand, of one process with one epoll, that are opened, send given bytes and read or
 * do not.
 *
 *   QUEUED -> CONNECTING -> (SHAKING) -> (ASKING) -> OPEN -> ENDED
 *
 * SHAKING is a TLS handshake, ASKING the request that a peer was given and the head of its answer. An OPEN peer sends
 * `bytes`, once or again and again, and throws away what it reads, if it reads. A peer that the relay ended is queued
 * again where the crowd reopens.
 */
#ifndef HOSTILE_CROWD_H
#define HOSTILE_CROWD_H

#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "hostile.h"

enum {
    PENDING_MAX = 200,          /* connections that are being opened: fewer than a listener's queue holds */
    SEND_BYTES = 64 * 1024,     /* for one event */
    CROWD_EVENTS = 512,
};

enum peer_state { QUEUED, CONNECTING, SHAKING, ASKING, OPEN, ENDED };

struct peer {
    int fd;
    enum peer_state state;
    uint32_t events;            /* that epoll watches */
    bool reads;                 /* once it is open */
    bool again;                 /* sends `bytes` again and again */
    bool asked;                 /* the request has left */
    bool answered;              /* something has been read from it since it is open */
    int status;                 /* of the answer to its request */
    SSL *ssl;                   /* what an open peer sends is not given to it: `bytes` are records then */
    struct sockaddr_in from;
    const char *request;        /* sent first, if any, and its answer awaited */
    const uint8_t *bytes;
    size_t length, at;
};

struct crowd {
    struct peer *peers;
    int count;
    int epoll;
    struct sockaddr_in to;
    int receive_bytes;          /* SO_RCVBUF of new peers, or 0 */
    bool handshakes;            /* new peers make a TLS handshake */
    bool reopens;               /* who was ended comes again */
    bool ends_answered;         /* a peer that has been answered ends, so that it comes again */
    double opens_per_second;    /* 0: as fast as it goes */
    int *queue, queue_first, queue_count;
    int pending, open;
    uint64_t opening_since;
    long dialed, let_in, refused, ended_by_relay, no_socket;
    int refused_status;         /* the latest */
    uint8_t scratch[256 * 1024];
};

static void crowd_watch(struct crowd *c, struct peer *p) {
    uint32_t events = 0;
    switch (p->state) {
        case CONNECTING: events = EPOLLOUT; break;
        case SHAKING: events = SSL_want_write(p->ssl) ? EPOLLOUT : EPOLLIN; break;
        case ASKING: events = p->asked ? EPOLLIN : EPOLLOUT; break;
        case OPEN: events = (p->reads ? EPOLLIN : 0) | (p->at < p->length ? EPOLLOUT : 0); break;
        case QUEUED: case ENDED: return;
    }
    if (events == p->events) return;
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(p - c->peers)};
    epoll_ctl(c->epoll, p->events == UINT32_MAX ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, p->fd, &event);
    p->events = events;
}

static void crowd_queue(struct crowd *c, struct peer *p) {
    p->state = QUEUED;
    c->queue[(c->queue_first + c->queue_count++) % c->count] = (int)(p - c->peers);
}

static void crowd_end(struct crowd *c, struct peer *p, bool by_relay) {
    if (p->state == OPEN) c->open--; else c->pending--;
    if (by_relay && p->state == OPEN) c->ended_by_relay++;
    SSL_free(p->ssl);
    p->ssl = NULL;
    hang_up(p->fd);
    p->state = ENDED;
    if (c->reopens) crowd_queue(c, p);
}

static void crowd_dial(struct crowd *c) {
    while (c->queue_count && c->pending < PENDING_MAX) {
        if (c->opens_per_second > 0 &&
            (double)c->dialed > (double)(now() - c->opening_since) / 1e9 * c->opens_per_second) return;
        struct peer *p = &c->peers[c->queue[c->queue_first]];
        int fd = dial(p->from, c->to, c->receive_bytes);
        if (fd < 0) { /* no port or descriptor just now: those of others are given back */
            c->no_socket++;
            return;
        }
        c->queue_first = (c->queue_first + 1) % c->count;
        c->queue_count--;
        c->dialed++;
        c->pending++;
        p->fd = fd;
        p->state = CONNECTING;
        p->events = UINT32_MAX;
        p->asked = p->answered = false;
        p->at = 0;
        crowd_watch(c, p);
    }
}

static void crowd_opened(struct crowd *c, struct peer *p) {
    p->state = OPEN;
    c->pending--;
    c->open++;
    c->let_in++;
}

static void crowd_ask(struct crowd *c, struct peer *p) {
    if (p->request) p->state = ASKING; else crowd_opened(c, p);
}

static void crowd_advance(struct crowd *c, struct peer *p, uint32_t events) {
    if (p->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) return crowd_end(c, p, true);
        if (c->handshakes) {
            p->ssl = tls_client(p->fd);
            p->state = SHAKING;
        } else {
            crowd_ask(c, p);
        }
    }
    if (p->state == SHAKING) {
        int result = SSL_do_handshake(p->ssl);
        if (result == 1) {
            crowd_ask(c, p);
        } else {
            int error = SSL_get_error(p->ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return crowd_end(c, p, true);
        }
    }
    if (p->state == ASKING && !p->asked) {
        int length = (int)strlen(p->request);
        ssize_t sent = p->ssl ? SSL_write(p->ssl, p->request, length)
                              : send(p->fd, p->request, (size_t)length, MSG_NOSIGNAL);
        if (sent != length) return crowd_end(c, p, true);
        p->asked = true;
    } else if (p->state == ASKING) {
        char head[2048];
        ssize_t count = p->ssl ? SSL_read(p->ssl, head, sizeof head - 1) : recv(p->fd, head, sizeof head - 1, 0);
        if (count <= 0) {
            bool waits = p->ssl ? SSL_get_error(p->ssl, (int)count) == SSL_ERROR_WANT_READ
                                : count < 0 && errno == EAGAIN;
            if (!waits) crowd_end(c, p, true);
            return;
        }
        head[count] = 0;
        p->status = count > 12 ? atoi(head + 9) : 0;
        if (p->status != 101 && p->status != 200) {
            c->refused++;
            c->refused_status = p->status;
            return crowd_end(c, p, true);
        }
        crowd_opened(c, p);
        return;
    }
    if (p->state != OPEN) return;
    if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN)) return crowd_end(c, p, true);
    if (events & EPOLLIN) {
        ssize_t count = recv(p->fd, c->scratch, sizeof c->scratch, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) return crowd_end(c, p, true);
        if (count > 0) p->answered = true;
        if (p->answered && c->ends_answered) return crowd_end(c, p, false);
    }
    if (p->at < p->length) {
        size_t left = p->length - p->at;
        ssize_t sent = send(p->fd, p->bytes + p->at, left < SEND_BYTES ? left : SEND_BYTES, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return crowd_end(c, p, true);
        if (sent > 0) p->at += (size_t)sent;
        if (p->at == p->length && p->again) p->at = 0;
    }
}

/* One round: new connections, then whatever is ready. */
static void crowd_turn(struct crowd *c, int wait_milliseconds) {
    struct epoll_event events[CROWD_EVENTS];
    crowd_dial(c);
    int count = epoll_wait(c->epoll, events, CROWD_EVENTS, wait_milliseconds);
    for (int i = 0; i < count; i++) {
        struct peer *p = &c->peers[events[i].data.u32];
        crowd_advance(c, p, events[i].events);
        crowd_watch(c, p);
    }
}

static void crowd_run(struct crowd *c, uint64_t until) {
    while (now() < until) crowd_turn(c, 2);
}

/* Until all are open or ended, or the time is up. */
static void crowd_await_open(struct crowd *c, uint64_t until) {
    while ((c->pending || c->queue_count) && now() < until) crowd_turn(c, 2);
}

/* Until the relay's kernel has all that the peers have to send, or the time is up. */
static void crowd_await_sent(struct crowd *c, uint64_t until) {
    for (int i = 0; i < c->count && now() < until; i++) {
        struct peer *p = &c->peers[i];
        for (int unsent = 1; p->state == OPEN && (p->at < p->length || unsent) && now() < until;) {
            crowd_turn(c, 1);
            if (p->state != OPEN || ioctl(p->fd, SIOCOUTQ, &unsent) < 0) break;
        }
    }
}

/* Gives an open peer something to send. */
static void crowd_say(struct crowd *c, struct peer *p, const void *bytes, size_t count) {
    p->bytes = bytes;
    p->length = count;
    p->at = 0;
    p->again = false;
    crowd_watch(c, p);
}

static struct crowd *crowd_new(int count, struct sockaddr_in from, struct sockaddr_in to) {
    struct crowd *c = must(calloc(1, sizeof *c));
    c->peers = must(calloc((size_t)count, sizeof *c->peers));
    c->queue = must(calloc((size_t)count, sizeof *c->queue));
    c->count = count;
    c->to = to;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->opening_since = now();
    c->handshakes = tls;
    for (int i = 0; i < count; i++) {
        c->peers[i].from = from;
        c->peers[i].reads = true;
        crowd_queue(c, &c->peers[i]);
    }
    return c;
}

#endif
