// A worker that an attacker has taken over, from its first moment on: it takes its launch, says that it serves, and
// then does what the file `mode` beside it says, in the sandbox, for as long as it is let.
//
//     scribble    writes into all memory that it can map for writing, again and again
//     die         the same once, and ends
//     nonsense    sends bytes that are no message, and messages that are too long
//     misplaced   says again what it has said, and what others should say
//     keys        tells of a host key of another room each time, without end
//     flood       tells of one host key, without end
//     close       closes its control channel and goes on
//     call        makes a system call that it may not
//     failure     says at length that it can't begin
//     inbox       sends to every inbox whatever comes to its mind, with descriptors
//     noise       fills the log's stream
//     sleep       does nothing any more, not even beat

#include "cageprobe.h"

#include <CSandbox.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CONTROL 3
#define DESCRIPTORS_MAX 253
/// Of one mapping, as much as has anything in it.
#define SCRIBBLED_MAX (64 << 20)
#define MAPPINGS_MAX 16

enum { LAUNCH = 1, INBOXES = 2, HOST_KEYS = 3, START = 5, READY = 6, FAILED = 8, ROUTED = 16, MOVED = 18 };

static uint8_t message[1 << 17];
static uint16_t version;
static struct {
    uint64_t *words;
    size_t count;
} mappings[MAPPINGS_MAX];
static size_t mapping_count;
static int inboxes[DESCRIPTORS_MAX];
static size_t inbox_count;
static uint64_t chance = 88172645463325252ULL;

static uint64_t draw(void) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    return chance ^= chance << 17;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/// One message; -1 at the end.
static ssize_t receive(int *descriptors, size_t *count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec vector = {.iov_base = message, .iov_len = sizeof message};
    struct msghdr head = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd polled = {.fd = CONTROL, .events = POLLIN};
    poll(&polled, 1, -1);
    ssize_t received = recvmsg(CONTROL, &head, MSG_CMSG_CLOEXEC);
    *count = 0;
    struct cmsghdr *header = received > 0 ? CMSG_FIRSTHDR(&head) : NULL;
    if (header != NULL) {
        *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(descriptors, CMSG_DATA(header), *count * sizeof(int));
    }
    return received;
}

/// False when the channel is full.
static int say(const void *bytes, size_t count) {
    while (send(CONTROL, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != ENOBUFS) return 0;
        struct pollfd polled = {.fd = CONTROL, .events = POLLOUT};
        poll(&polled, 1, 100);
        return 0;
    }
    return 1;
}

static size_t put(size_t at, uint64_t value, size_t bytes) {
    memcpy(message + at, &value, bytes);
    return at + bytes;
}

static size_t begin(uint16_t kind) { return put(put(0, version, 2), kind, 2); }

static void map_all(const int *descriptors, size_t count) {
    for (size_t i = 0; i < count && mapping_count < MAPPINGS_MAX; i++) {
        struct stat status;
        if (fstat(descriptors[i], &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) continue;
        size_t bytes = status.st_size > SCRIBBLED_MAX ? SCRIBBLED_MAX : (size_t)status.st_size;
        void *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[i], 0);
        if (words == MAP_FAILED) continue;
        mappings[mapping_count].words = words;
        mappings[mapping_count++].count = bytes / 8;
    }
}

static void scribble(int round) {
    for (size_t i = 0; i < mapping_count; i++) {
        for (size_t word = 0; word < mappings[i].count; word++) {
            mappings[i].words[word] = round % 3 == 0 ? UINT64_MAX : round % 3 == 1 ? draw() : (1ULL << 42) - 1;
        }
    }
}

static void host_keys(int many) {
    size_t at = put(begin(HOST_KEYS), (uint64_t)many, 4);
    for (int i = 0; i < many; i++) {
        at = put(at, 256, 4);
        for (int byte = 0; byte < 256; byte += 8) at = put(at, many == 1 ? 7 : draw(), 8);
        at = put(at, 32, 4);
        for (int byte = 0; byte < 32; byte += 8) at = put(at, draw(), 8);
        at = put(at, 0, 8);
    }
    say(message, at);
}

static void ready(void) { say(message, put(begin(READY), 31, 4)); }

static void misplaced(void) {
    ready();
    say(message, begin(ROUTED));
    size_t at = begin(MOVED);
    for (int i = 0; i < 4; i++) at = put(at, UINT64_MAX, 8);
    say(message, at);
    say(message, put(put(begin(FAILED), 1, 4), 'x', 1));
    say(message, begin(START));
}

static void nonsense(void) {
    size_t count = 1 + draw() % (draw() % 8 == 0 ? sizeof message : 64);
    for (size_t at = 0; at + 8 <= count; at += 8) put(at, draw(), 8);
    if (draw() % 2 == 0) begin((uint16_t)(draw() % 24));
    say(message, count);
}

static void send_anything(int inbox) {
    size_t count = draw() % 512;
    for (size_t at = 0; at + 8 <= count; at += 8) put(at, draw(), 8);
    int descriptors[2] = {2, 0};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof descriptors)];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof descriptors), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), descriptors, sizeof descriptors);
    struct iovec vector = {.iov_base = message, .iov_len = count};
    struct msghdr head = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    sendmsg(inbox, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/// The mode is a word in a file beside the program, for a worker has no variables of its own.
static void read_mode(char *mode, size_t bytes) {
    char path[4096];
    ssize_t count = readlink("/proc/self/exe", path, sizeof path - 8);
    while (count > 0 && path[count - 1] != '/') count--;
    if (count <= 0) exit(64);
    strcpy(path + count, "mode");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    count = read(file, mode, bytes - 1);
    mode[count > 0 ? count : 0] = 0;
    mode[strcspn(mode, "\n")] = 0;
    close(file);
}

int false_worker(void) {
    char mode[32];
    read_mode(mode, sizeof mode);
    int descriptors[DESCRIPTORS_MAX];
    size_t count;
    uint32_t page_index = 0;
    for (;;) {
        ssize_t received = receive(descriptors, &count);
        if (received <= 0) return 71;
        uint16_t kind;
        memcpy(&version, message, 2);
        memcpy(&kind, message + 2, 2);
        if (kind == LAUNCH) {
            map_all(descriptors, count);
            memcpy(&page_index, message + 12, sizeof page_index);
        }
        if (kind == INBOXES) {
            memcpy(inboxes, descriptors, count * sizeof(int));
            inbox_count = count;
        }
        if (kind == START) break;
    }
    // SharedMemory.swift's byte map: state and heartbeat are the first words of the worker's page.
    volatile uint64_t *page = mapping_count > 0 ? mappings[0].words + 1024 * (1 + page_index) : NULL;
    struct csandbox sandbox = {.parts = CSANDBOX_ALL, .file_bytes_max = UINT64_MAX, .violation = NULL};
    struct csandbox_result result;
    // A user of its own: the kernel counts descriptors in messages by user, and stops whoever shares one with this
    // worker.
    if (csandbox_become(65533, 65533) != 0) return 71;
    csandbox_enter(&sandbox, &result);
    if (strcmp(mode, "failure") == 0) {
        size_t at = put(begin(FAILED), 16000, 4);
        memset(message + at, 0x1B, 16000);
        say(message, at + 16000);
        return 71;
    }
    if (page != NULL) page[0] = 2;
    ready();
    for (int round = 0;; round++) {
        if (page != NULL && strcmp(mode, "sleep") != 0) page[1] = now();
        if (strcmp(mode, "scribble") == 0) scribble(round);
        else if (strcmp(mode, "die") == 0) {
            scribble(1);
            return 1;
        }
        else if (strcmp(mode, "nonsense") == 0) nonsense();
        else if (strcmp(mode, "misplaced") == 0) misplaced();
        else if (strcmp(mode, "keys") == 0) host_keys(48);
        else if (strcmp(mode, "flood") == 0) host_keys(1);
        else if (strcmp(mode, "close") == 0) close(CONTROL);
        else if (strcmp(mode, "call") == 0) syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
        else if (strcmp(mode, "inbox") == 0) {
            for (size_t i = 0; i < inbox_count; i++) send_anything(inboxes[i]);
        }
        else if (strcmp(mode, "noise") == 0 && round < 4096) {
            memset(message, 'x', 4096);
            if (write(2, message, 4096) < 0 && errno != EAGAIN) return 1;
            continue;
        }
        struct timespec moment = {0, 1000000};
        if (strcmp(mode, "keys") != 0 && strcmp(mode, "flood") != 0 && strcmp(mode, "nonsense") != 0)
            nanosleep(&moment, NULL);
    }
}
