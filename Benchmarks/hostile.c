/*
 * hostile: attacks a relay from one address while others use it, and says what became of them. `Benchmarks/hostile`
 * starts it.
 *
 *     hostile list                      the patterns, a line each, tab-separated:
 *                                       name, tls or plain, limits or open, further settings (or -), descriptors,
 *                                       what it does
 *     hostile head                      the table's first lines
 *     hostile run NAME --port N --metrics N --relay PID --seconds S --memory BYTES [--from ADDRESS]
 *                                       one attack on a relay on 127.0.0.1, and the pattern's line
 *
 * Exit status of `run`: 0; 1 if an innocent was closed, a stranger shut out or a worker died; 2 if it could not be run,
 * with the reason in its line.
 *
 * Processes: this one scrapes metrics and /proc; watchers (hostile_watch.h); the attackers (hostile_patterns.h). They
 * share one struct figures. A new pattern is a row of `patterns` and, where none fits, a function.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/resource.h>

#include "hostile_patterns.h"

#define UNKNOWN_ROOM \
    "GET /ws?room=nobody&token=x HTTP/1.1\r\nHost:\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
static const char ROOT[] = "GET / HTTP/1.1\r\nHost:\r\n\r\n";

/* clang-format off */
static const struct pattern patterns[] = {
    {.name = "nothing", .attack = nothing, .what = "nobody attacks"},
    {.name = "nothing-tls", .tls = true, .attack = nothing, .what = "nobody attacks, over TLS"},

    {.name = "get-root", .finding = 1, .count = 50, .text = ROOT, .attack = flood_requests,
     .what = "50 connections with pipelined GET /"},
    {.name = "get-root-500", .finding = 1, .count = 500, .text = ROOT, .attack = flood_requests,
     .what = "500 connections with pipelined GET /"},
    {.name = "get-root-once", .finding = 1, .count = 500, .text = ROOT, .attack = requests_once,
     .what = "500 connections with 64 KiB of GET / each, once"},
    {.name = "get-root-waiting", .finding = 1, .count = 500, .text = ROOT, .option = 1, .seconds = 5,
     .attack = requests_once, .what = "the same, all of it there when the worker gets its CPU again"},
    {.name = "get-404-waiting", .finding = 1, .count = 500, .text = "GET /x HTTP/1.1\r\nHost:\r\n\r\n", .option = 1,
     .seconds = 5, .attack = requests_once,
     .what = "500 with 64 KiB of GET /x each, all there when the worker gets its CPU again"},
    {.name = "head-root", .finding = 1, .count = 200, .seconds = 5, .text = "HEAD / HTTP/1.1\r\nHost:\r\n\r\n",
     .attack = flood_requests, .what = "200 connections with pipelined HEAD /"},
    {.name = "get-404", .finding = 1, .count = 500, .text = "GET /x HTTP/1.1\r\nHost:\r\n\r\n",
     .attack = flood_requests, .what = "500 connections with pipelined GET /x"},
    {.name = "get-health", .finding = 1, .count = 200, .text = "GET /health HTTP/1.1\r\nHost:\r\n\r\n",
     .attack = flood_requests, .what = "200 connections with pipelined GET /health"},
    {.name = "head-fields", .count = 100, .fill = fill_fields, .attack = flood_requests,
     .what = "100 connections with heads of 3,800 fields"},
    {.name = "bad-requests", .count = 100, .text = "GET / HTTP/1.1\n\n", .attack = come_and_go,
     .what = "100 at a time connect, send what is no request, come again"},
    {.name = "unknown-rooms", .count = 100, .attack = come_and_go, .text = UNKNOWN_ROOM,
     .what = "100 at a time ask for a room that is not there, come again"},
    {.name = "long-queries", .count = 50, .fill = fill_query, .attack = come_and_go,
     .what = "50 at a time join with 15 KiB of escaped parameters, come again"},
    {.name = "long-forwarded", .settings = "RELAY_TRUSTED_PROXIES=127.0.0.0/8", .count = 50, .fill = fill_forwarded,
     .attack = come_and_go, .what = "50 at a time, through a proxy that is trusted, with 1,400 addresses in a header"},
    {.name = "bad-tokens", .count = 100, .attack = bad_tokens,
     .what = "100 at a time join with a wrong signature, come again"},

    {.name = "slow-readers", .finding = 2, .count = 60, .members = 20, .fill = fill_binary, .attack = last_bytes,
     .what = "60 rooms x 19 that do not read, messages of 1 MiB whose last bytes come together"},
    {.name = "slow-readers-7", .finding = 2, .count = 20, .members = 20, .fill = fill_binary, .attack = slow_readers,
     .what = "20 rooms x 19 that do not read, 7 messages of 1 MiB"},
    {.name = "sips", .count = 20, .members = 20, .fill = fill_binary, .option = 2048, .attack = slow_readers,
     .what = "the same, and they read 2 KiB each 10 ms"},
    {.name = "all-at-once", .finding = 2, .honest = true, .count = 1, .members = 20, .fill = fill_binary,
     .attack = all_at_once, .what = "honest: a room of 20, each sends 1 MiB at once, all read"},
    {.name = "half-messages", .finding = 3, .count = 15000, .option = 40000, .attack = half_messages,
     .what = "15,000 with 40,000 bytes of a message that never ends"},
    {.name = "half-messages-1M", .finding = 7, .count = 700, .option = MIB - 64, .attack = half_messages,
     .what = "700 with 1 MiB of a message that never ends"},

    {.name = "one-byte-tls", .finding = 4, .tls = true, .count = 3000, .text = "\x16", .seconds = 5, .attack = sit,
     .what = "3,000 connections with one byte of TLS, renewed when closed"},
    {.name = "half-hello", .finding = 4, .tls = true, .count = 4000, .option = 50, .seconds = 5, .attack = begun_hellos,
     .what = "4,000 with half a ClientHello"},
    {.name = "hello-replayed", .tls = true, .count = 200, .option = 100, .attack = begun_hellos,
     .what = "200 at a time send a recorded ClientHello, leave at the answer, come again"},
    {.name = "handshakes", .tls = true, .count = 50, .attack = handshakes,
     .what = "50 at a time make a TLS handshake, come again"},
    {.name = "tls-garbage", .tls = true, .count = 100, .text = "\x16\x03\x01\xFF\xFF garbage", .attack = come_and_go,
     .what = "100 at a time send a record that is none, come again"},

    {.name = "all-rooms", .finding = 5, .limits = true, .count = 1500, .seconds = 10, .attack = all_rooms,
     .what = "one address opens rooms as fast as the limits let it"},
    {.name = "all-connections", .finding = 5, .limits = true, .settings = "RELAY_MAX_CONNECTIONS=2000", .count = 2500,
     .seconds = 5, .attack = all_connections, .what = "one address opens connections and asks /health now and then"},
    {.name = "silent-connections", .finding = 5, .limits = true, .settings = "RELAY_MAX_CONNECTIONS=2000",
     .count = 2500, .attack = sit, .what = "one address opens connections and says nothing"},

    {.name = "key-updates", .finding = 6, .tls = true, .count = 60, .option = 1, .attack = records,
     .what = "60 members send a KeyUpdate and a byte, again and again"},
    {.name = "key-updates-31", .finding = 6, .tls = true, .count = 60, .option = 31, .attack = records,
     .what = "60 members send 31 KeyUpdates and a byte"},
    {.name = "key-updates-asked", .tls = true, .count = 60, .option = -31, .attack = records,
     .what = "the same, each wants one in return"},
    {.name = "tiny-records", .tls = true, .count = 60, .option = 0, .attack = records,
     .what = "60 members send records of one byte"},
    {.name = "half-records", .finding = 7, .tls = true, .count = 1500, .attack = half_records,
     .what = "1,500 members with a record that lacks its end"},

    {.name = "unread-answers", .finding = 7, .count = 4000, .text = ROOT, .attack = unread_answers,
     .what = "4,000 with requests whose answers are not read"},
    {.name = "endless-heads", .finding = 7, .count = 6000, .option = 16000, .attack = heads,
     .what = "6,000 with 16,000 bytes of a head that has no end"},
    {.name = "slow-heads", .count = 5000, .option = 24, .attack = heads,
     .what = "5,000 with a head that grows by a byte a second"},
    {.name = "pings-unread", .finding = 7, .count = 2000, .members = 1, .fill = fill_pings, .option = UNREAD,
     .attack = flood_members, .what = "2,000 members that send pings and do not read"},

    {.name = "escaped-names", .finding = 8, .count = 40, .members = 1, .fill = fill_json, .attack = last_bytes,
     .what = "40 first messages of 1 MiB with escaped names, last bytes together"},
    {.name = "escaped-names-450", .finding = 8, .count = 450, .members = 1, .fill = fill_json, .attack = last_bytes,
     .what = "450 of them"},
    {.name = "nested-names", .count = 100, .members = 1, .fill = fill_nested, .attack = last_bytes,
     .what = "100 first messages of 1 MiB, nested 1 MiB deep, last bytes together"},
    {.name = "large-together", .finding = 8, .count = 60, .members = 10, .fill = fill_binary, .option = 1,
     .attack = last_bytes, .what = "60 rooms x 9 that read, messages of 1 MiB whose last bytes come together"},
    {.name = "empty-20", .finding = 8, .count = 20, .members = 1, .fill = fill_empty, .attack = flood_members,
     .what = "20 members with empty messages"},
    {.name = "empty-300", .finding = 8, .count = 300, .members = 1, .fill = fill_empty, .attack = flood_members,
     .what = "300 members with empty messages"},
    {.name = "fragments-300", .finding = 8, .count = 300, .members = 1, .fill = fill_fragments, .attack = flood_members,
     .what = "300 members with fragments of one byte"},
    {.name = "pings-300", .finding = 8, .count = 300, .members = 1, .fill = fill_pings, .attack = flood_members,
     .what = "300 members with pings, which read the pongs"},
    {.name = "pongs-300", .count = 300, .members = 1, .fill = fill_pongs, .attack = flood_members,
     .what = "300 members with pongs that nobody asked for"},
    {.name = "text-300", .count = 300, .members = 1, .fill = fill_text, .attack = flood_members,
     .what = "300 members with text of four bytes a character"},
    {.name = "murmurs", .count = 2000, .members = 1, .attack = murmur,
     .what = "2,000 members with a message of 100 bytes each 20 ms"},
    {.name = "fan-out-tiny", .count = 10, .members = 20, .fill = fill_tiny, .attack = flood_members,
     .what = "10 rooms: one sends messages of a byte, 19 read"},
    {.name = "fan-out-voice", .count = 10, .members = 20, .fill = fill_voice, .attack = flood_members,
     .what = "10 rooms: one sends voice of two bytes, 19 read"},
    {.name = "fan-out-1K", .count = 10, .members = 20, .fill = fill_kib, .attack = flood_members,
     .what = "10 rooms: one sends messages of 1 KiB, 19 read"},

    {.name = "silent-together", .finding = 9, .count = 14000, .option = 1, .seconds = 12, .attack = sit,
     .what = "14,000 silent connections whose time is up together"},
    {.name = "silent-together-tls", .finding = 9, .tls = true, .count = 3000, .text = "\x16", .option = 1,
     .seconds = 12, .attack = sit, .what = "3,000 begun handshakes whose time is up together"},
    {.name = "drop-together", .finding = 9, .count = 500, .members = 20, .attack = drop_together,
     .what = "10,000 members of 500 rooms whose sockets die together"},
    {.name = "reload-waiting", .finding = 14, .count = 18, .members = 20, .fill = fill_binary, .attack = reload_waiting,
     .what = "a reload while 1 MiB waits for each of 342 members"},
    {.name = "reload-busy", .count = 300, .members = 1, .fill = fill_empty, .option = WITH_RELOAD,
     .attack = flood_members, .what = "a reload while 300 members send empty messages"},
    {.name = "guests-come-and-go", .count = 10, .attack = join_and_leave,
     .what = "10 at a time join a room with others and leave"},
    {.name = "rooms-come-and-go", .count = 50, .option = 1, .attack = join_and_leave,
     .what = "50 at a time open a room and leave"},
    {.name = "forwarded", .finding = 12, .limits = true, .settings = "RELAY_TRUSTED_PROXIES=127.0.0.1", .count = 600,
     .attack = forwarded, .what = "600 joins with a made-up X-Forwarded-For beside a true X-Real-IP"},
};
/* clang-format on */

enum { PATTERNS = sizeof patterns / sizeof *patterns };

/* ---- aims: what is marked when it is missed ---- */

static const double TURN_MS = 10, VOICE_P99_MS = 20, STRANGER_MS = 1000, GAUGE_SHARE = 0.25;

/* ---- metrics ---- */

enum { PAGE_BYTES = 256 * 1024 };

static int metrics_port;

/* A page of the relay's metrics; empty if it did not answer within 2 s. */
static char *scrape(void) {
    char *page = must(malloc(PAGE_BYTES));
    const char request[] = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    struct timeval patience = {.tv_sec = 2};
    struct sockaddr_in to = address_of("127.0.0.1", metrics_port);
    size_t count = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0) {
        for (ssize_t got; (got = recv(fd, page + count, PAGE_BYTES - 1 - count, 0)) > 0;) count += (size_t)got;
    }
    close(fd);
    page[count] = 0;
    return page;
}

/* The sum of a metric's samples; with a label in `name`, that sample. Negative if there is none. */
static double metric(const char *page, const char *name) {
    size_t length = strlen(name);
    double sum = -1;
    for (const char *line = page; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        if (strncmp(line, name, length) != 0 || !strchr("{ ", line[length])) continue;
        const char *value = strchr(line + (line[length] == '{' ? strcspn(line, "}") : length), ' ');
        if (value) sum = (sum < 0 ? 0 : sum) + atof(value);
    }
    return sum;
}

static double max(double a, double b) { return a > b ? a : b; }

static double rise(const char *before, const char *after, const char *name) {
    double from = metric(before, name), to = metric(after, name);
    return to < 0 ? 0 : from < 0 ? to : to - from;
}

/*
 * What the longest turn of the loop took at the least, seconds, by the highest bucket that has risen; `over`: turns
 * beyond 10 ms.
 */
static double longest_bucket(const char *before, const char *after, double *over) {
    const char prefix[] = "relay_loop_lag_seconds_bucket{le=\"";
    double total = rise(before, after, "relay_loop_lag_seconds_count"), least = 0;
    *over = 0;
    for (const char *line = strstr(after, prefix); line; line = strstr(line + 1, prefix)) {
        char name[96];
        size_t length = strcspn(line, "}") + 1;
        if (length >= sizeof name) continue;
        memcpy(name, line, length);
        name[length] = 0;
        double count = rise(before, after, name);
        double bound = atof(line + sizeof prefix - 1);
        if (bound == 0.01) *over = total - count;
        if (count >= total) break;
        least = bound;
    }
    return total > 0 ? least : 0;
}

/* Samples of a family that have risen, as "label:by", without those named in `skip`. */
static void risen(const char *before, const char *after, const char *family, const char *label, const char *skip,
                  char *to, size_t size) {
    char prefix[96];
    snprintf(prefix, sizeof prefix, "%s{%s=\"", family, label);
    for (const char *line = strstr(after, prefix); line; line = strstr(line + 1, prefix)) {
        const char *word = line + strlen(prefix);
        size_t length = strcspn(word, "\"");
        char name[128], quoted[64];
        snprintf(name, sizeof name, "%.*s", (int)(strcspn(line, "}") + 1), line);
        snprintf(quoted, sizeof quoted, " %.*s ", (int)length, word);
        double by = rise(before, after, name);
        if (by <= 0 || strstr(skip, quoted)) continue;
        size_t have = strlen(to);
        snprintf(to + have, size - have, "%s%.*s:%.0f", have ? " " : "", (int)length, word, by);
    }
}

/* ---- /proc ---- */

static pid_t relay;

/* A number of a file: what stands after `name`, or at its beginning. Negative if there is none. */
static double number_in(const char *path, const char *name) {
    char text[8192];
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    size_t count = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[count] = 0;
    const char *at = strstr(text, name);
    return at ? atof(at + strlen(name)) : -1;
}

struct usage {
    double high_water;                /* the largest worker's VmHWM, bytes */
    double kernel;                    /* the sockets' memory, bytes */
    double cpu, waited;               /* of all workers, since the first look, seconds */
    pid_t pids[64];
    double cpu_of[64], waited_of[64];
    int count;
};

/* The relay's children are its workers. What a worker that has died took since the last look is lost. */
static void look(struct usage *u) {
    char path[64];
    pid_t pids[64];
    int count = children_of(relay, pids, 64);
    for (int child = 0; child < count; child++) {
        pid_t pid = pids[child];
        int i = 0;
        while (i < u->count && u->pids[i] != pid) i++;
        if (i == 64) continue;
        if (i == u->count) u->pids[u->count++] = pid;
        snprintf(path, sizeof path, "/proc/%d/status", pid);
        double peak = number_in(path, "VmHWM:") * KIB;
        if (peak > u->high_water) u->high_water = peak;
        double cpu = 0, waited = 0;
        snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fscanf(file, "%lf %lf", &cpu, &waited) == 2) {
            u->cpu += (cpu - u->cpu_of[i]) / 1e9;
            u->waited += (waited - u->waited_of[i]) / 1e9;
            u->cpu_of[i] = cpu;
            u->waited_of[i] = waited;
        }
        fclose(file);
    }
    double kernel = number_in("/proc/net/sockstat", " mem ") * (double)sysconf(_SC_PAGESIZE);
    if (kernel > u->kernel) u->kernel = kernel;
}

/* What the workers had used at the latest looks, the oldest overwritten. */
static struct {
    uint64_t time;
    double cpu, waited;
} looks[256];
static int look_count;

static void remember(const struct usage *u) {
    int i = look_count++ % 256;
    looks[i].time = now();
    looks[i].cpu = u->cpu;
    looks[i].waited = u->waited;
}

/*
 * A turn of so many seconds has been in the last two: what part of it the worker had a CPU. It was busy or waiting all
 * the time then, so the turn is taken to be where most of such a time was.
 */
static double cpu_share(double seconds) {
    double busiest = 0, share = 1;
    int first = look_count > 256 ? look_count - 256 : 0;
    uint64_t since = now() - 2 * SECOND - (uint64_t)(seconds * 1e9);
    for (int i = first, j = first; i < look_count; i++) {
        if (looks[i % 256].time < since) continue;
        if (j < i) j = i;
        while (j < look_count && (double)(looks[j % 256].time - looks[i % 256].time) < seconds * 1e9) j++;
        if (j == look_count) break;
        double cpu = looks[j % 256].cpu - looks[i % 256].cpu, waited = looks[j % 256].waited - looks[i % 256].waited;
        if (cpu + waited <= busiest) continue;
        busiest = cpu + waited;
        share = cpu / busiest;
    }
    return share;
}

/* ---- one run ---- */

static int larger(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static pid_t children[8];
static int child_count;

static void end_children(void) {
    for (int i = 0; i < child_count; i++) {
        if (children[i] <= 0) continue;
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
        children[i] = 0;
    }
    for (int i = 0; i < figures->stopped_count; i++) kill(figures->stopped[i], SIGCONT);
}

static void interrupted(int number) {
    end_children();
    _exit(128 + number);
}

static int start(void (*watch)(struct sockaddr_in), bool first) {
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGTERM, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        if (first) come_first();
        watch(me.to);
        exit(0);
    }
    children[child_count++] = pid;
    return child_count - 1;
}

static bool has_ended(int child) {
    if (children[child] > 0 && waitpid(children[child], NULL, WNOHANG) != 0) children[child] = 0;
    return children[child] == 0;
}

static const struct pattern *chosen;
static void attack(struct sockaddr_in to) {
    (void)to;
    figures->phase = SETTING_UP;
    chosen->attack(chosen);
    figures->phase = HOLDING;
    /* A gauge is of the last whole second, and strangers wait: what is open stays so. */
    pause_until(after_seconds(1.2));
    figures->phase = OVER;
    _exit(0);
}

static void could_not(const char *why) {
    end_children();
    printf("%-19s could not run: %s\n", chosen->name, why);
    exit(2);
}

static int descriptors(const struct pattern *p) { return p->count * (p->members ? p->members : 1) + 200; }

static double seconds_of(const struct pattern *p, double asked) { return p->seconds > 0 ? p->seconds : asked; }

/* Closes that are a client's own doing, or what an attacker's reset looks like. */
static const char *const by_clients[] = {
    "relay_closes_total{reason=\"by_peer\"}",
    "relay_closes_total{reason=\"peer_gone\"}",
    "relay_closes_total{reason=\"socket_error\"}",
};

/* The first of these that a relay has says what it thinks it uses, in bytes. */
static const char *const memory_gauges[] = {"relay_memory_bytes", "relay_memory_used_bytes", "relay_queued_bytes"};

static double memory_gauge(const char *page) {
    for (size_t i = 0; i < sizeof memory_gauges / sizeof *memory_gauges; i++) {
        double value = metric(page, memory_gauges[i]);
        if (value >= 0) return value;
    }
    return 0;
}

/* The columns of the table; `print_head` and the end of `run` have them in this order. */
static const char head_format[] = "%-19s %8s %8s %6s %7s %5s %5s %6s %6s %7s %7s %8s %8s %6s %7s %11s  %s\n";
static const char line_format[] =
    "%-19s %8.1f %8.1f %6.0f %7s %5.0f %5.0f %6.0f %6.0f %7.0f %7.1f %8.1f %8.1f %6.1f %7s %11s  %s";

static void print_head(void) {
    printf(head_format, "", "turn ms", "turn ms", "turns", "us per", "CPU", "waits", "peak", "gauge", "kernel", "voice",
           "voice", "voice", "own", "in, of", "after ms", "missed");
    printf(head_format, "pattern", "wall", "CPU", ">10 ms", "64 KiB", "%", "%", "MB", "MB", "MB", "p50 ms", "p99 ms",
           "max ms", "ms", "all", "p50/max", "aims");
}

static int run(double seconds, double memory_bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((rlim_t)descriptors(chosen) > limit.rlim_cur) {
        could_not("it needs more descriptors than there are (ulimit -Hn)");
    }
    me.seconds = seconds = seconds_of(chosen, seconds);
    me.supervisor = relay;
    me.key = new_key();
    if (chosen->tls) use_tls();

    start(watch_voice, true);
    start(watch_bystanders, true);
    start(watch_for_strangers, true);
    for (uint64_t until = after_seconds(8); figures->ready < 3; pause_until(now() + 10 * MILLISECOND)) {
        if (figures->failed || now() > until) could_not("the watchers did not get in");
    }
    struct usage usage = {0};
    pause_until(after_seconds(0.4));
    look(&usage);
    double kernel_before = usage.kernel, cpu_before = usage.cpu;
    uint64_t time_before = now();
    usage.kernel = 0;
    pause_until(after_seconds(0.6));
    look(&usage);
    double cpu_at_rest = (usage.cpu - cpu_before) / ((double)(now() - time_before) / 1e9);

    /* The attack. Once it has begun, what it costs counts from then on; what is closed counts from before. */
    char *first = scrape(), *began = NULL, *ended = NULL, *latest = NULL;
    double lag = 0, share = 1, silence = 0, gauge = 0;
    double cpu_began = usage.cpu, waited_began = usage.waited, cpu_ended = 0, waited_ended = 0;
    if (!*first) could_not("the relay's metrics do not answer");
    int attackers = start(attack, false);
    uint64_t deadline = after_seconds(2 * SETUP_SECONDS + seconds + 15), scraped = 0, time_began = 0, time_ended = 0;
    bool late = false;
    while (figures->phase != OVER) {
        if (now() > deadline || has_ended(attackers)) {
            late = !*figures->impossible && now() > deadline;
            break;
        }
        int phase = figures->phase;
        look(&usage);
        remember(&usage);
        if (phase >= ATTACKING && !began) {
            time_began = now();
            cpu_began = usage.cpu, waited_began = usage.waited;
            began = scrape();
        }
        if (phase >= HOLDING && !ended) {
            time_ended = now();
            cpu_ended = usage.cpu, waited_ended = usage.waited;
            ended = scrape();
        }
        if (now() - scraped > SECOND / 4) {
            scraped = now();
            free(latest);
            latest = scrape();
            double latest_lag = metric(latest, "relay_worker_loop_lag_seconds");
            if (latest_lag > lag) lag = latest_lag, share = cpu_share(lag);
            silence = max(silence, metric(latest, "relay_worker_heartbeat_age_seconds"));
            gauge = max(gauge, memory_gauge(latest));
        }
        pause_until(now() + 20 * MILLISECOND);
    }
    if (*figures->impossible) could_not(figures->impossible);
    if (late) could_not("the attack did not come to an end in its time");
    if (!ended) could_not("the attackers died");
    for (int tries = 0; tries < 40 && !(has_ended(0) && has_ended(1) && has_ended(2)); tries++) {
        pause_until(now() + 50 * MILLISECOND);
    }
    end_children();
    char *last = scrape();
    if (!*last) could_not(kill(relay, 0) == 0 ? "the relay's metrics do not answer" : "the relay itself has ended");

    /* ---- what came of it ---- */
    uint32_t *voice = figures->voice_us, count = figures->voice_count;
    qsort(voice, count, sizeof *voice, larger);
    double p50 = count ? voice[count / 2] / 1e3 : 0, p99 = count ? voice[(count - 1) * 99 / 100] / 1e3 : 0;
    double worst = figures->voice_worst_us / 1e3;
    int strangers = figures->strangers;
    qsort(figures->stranger_ms, (size_t)strangers, sizeof *figures->stranger_ms, larger);
    double stranger_p50 = strangers ? figures->stranger_ms[strangers / 2] : 0;
    double stranger_worst = strangers ? figures->stranger_ms[strangers - 1] : 0;

    /* The attackers' end closes thousands of sockets at once, a pattern of its own: `closing` is from before it. */
    const char *closing = latest && *latest ? latest : ended;
    double deaths = rise(first, last, "relay_worker_restarts_total"), turns_over;
    lag = max(lag, longest_bucket(first, closing, &turns_over));
    /* What no turn has counted, or ever will: a loop that has not turned for so long. An idle one turns each second. */
    if (silence > 1.5) lag = max(lag, silence);
    double wall = (double)(time_ended - time_began) / 1e9;
    double received = rise(began, ended, "relay_network_received_bytes_total");
    double cpu = cpu_ended - cpu_began, reads = received / READ_BYTES;
    double per_read = reads >= 32 ? (cpu - cpu_at_rest * wall) / reads * 1e6 : -1;
    double kernel = usage.kernel - kernel_before;
    double own = figures->voice_own_us / 1e3;
    /* Those that clients ended are the attackers' own and the strangers'. */
    char closed[256] = "", refused[256] = "", missed[160] = "";
    risen(first, closing, "relay_closes_total", "reason", " by_peer peer_gone socket_error ", closed, sizeof closed);
    if (chosen->honest && *closed) {
        double honest = rise(first, closing, "relay_closes_total");
        for (size_t i = 0; i < sizeof by_clients / sizeof *by_clients; i++) {
            honest -= rise(first, closing, by_clients[i]);
        }
        if (!figures->innocents_closed) strcpy(figures->innocent, "honest members");
        figures->innocents_closed += (int)honest;
    }
    risen(first, last, "relay_joins_total", "result", " host guest ", refused, sizeof refused);
    risen(first, last, "relay_connections_refused_total", "reason", "", refused, sizeof refused);

    /* On a machine that is not quiet a turn waits for its CPU too: that is nobody's fault here. */
    double waited = waited_ended - waited_began;
    if (lag * 1000 * share > TURN_MS) strcat(missed, " TURN");
    if (p99 > VOICE_P99_MS || !count) strcat(missed, " VOICE");
    if (usage.high_water > memory_bytes) strcat(missed, " MEMORY");
    /* The gauge is all memory of the relay, where it has such a one; today's is that of some queues. */
    bool whole = metric(last, memory_gauges[0]) >= 0 || metric(last, memory_gauges[1]) >= 0;
    if (whole && (gauge > usage.high_water * (1 + GAUGE_SHARE) || gauge < usage.high_water * (1 - GAUGE_SHARE))) {
        strcat(missed, " GAUGE");
    }
    if (figures->innocents_closed) strcat(missed, " INNOCENT");
    if (figures->strangers_in < strangers || stranger_worst > STRANGER_MS) strcat(missed, " STRANGER");
    if (figures->strangers_shut_out) strcat(missed, " SHUT-OUT");
    if (figures->broken) strcat(missed, " SHARE");
    if (deaths > 0) strcat(missed, " DIED");

    char read[16] = "-", in[24], after[32];
    if (per_read >= 0) snprintf(read, sizeof read, "%.0f", per_read);
    snprintf(in, sizeof in, "%d/%d", (int)figures->strangers_in, strangers);
    snprintf(after, sizeof after, "%.0f/%.0f", stranger_p50, stranger_worst);
    printf(line_format, chosen->name, lag * 1000, lag * 1000 * share, turns_over, read, cpu / wall * 100,
           waited / wall * 100, usage.high_water / 1e6, gauge / 1e6, max(kernel, 0) / 1e6, p50, p99, worst, own, in,
           after, *missed ? missed + 1 : "ok");
    if (figures->innocents_closed) printf("; innocents: %d (%s)", (int)figures->innocents_closed, figures->innocent);
    if (figures->data_heard + 2 < figures->data_sent) {
        printf("; %u of %u messages of 1 MiB arrived", (unsigned)figures->data_heard, (unsigned)figures->data_sent);
    }
    if (deaths > 0) printf("; workers died: %.0f", deaths);
    if (*closed) printf("; closed %s", closed);
    if (*refused) printf("; refused %s", refused);
    if (figures->units) {
        double units = (double)figures->units;
        printf("; %.0f, %.0f us each", units, (cpu - cpu_at_rest * wall) / units * 1e6);
    }
    if (*figures->note) printf("; %s", figures->note);
    printf("\n");
    return figures->innocents_closed || figures->strangers_shut_out || deaths > 0 ? 1 : 0;
}

static void usage_error(void) {
    fprintf(stderr, "usage: hostile list | head\n"
                    "       hostile run NAME --port N --metrics N --relay PID --seconds S --memory BYTES "
                    "[--from ADDRESS]\n");
    exit(64);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN); /* libssl writes with write(2) */
    if (sodium_init() < 0) return 71;
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (int i = 0; i < PATTERNS; i++) {
            const struct pattern *p = &patterns[i];
            printf("%s\t%s\t%s\t%s\t%d\t%s\n", p->name, p->tls ? "tls" : "plain", p->limits ? "limits" : "open",
                   p->settings ? p->settings : "-", descriptors(p), p->what);
        }
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "head") == 0) return print_head(), 0;
    if (argc < 3 || strcmp(argv[1], "run") != 0 || argc % 2 == 0) usage_error();
    for (int i = 0; i < PATTERNS; i++) {
        if (strcmp(patterns[i].name, argv[2]) == 0) chosen = &patterns[i];
    }
    if (!chosen) usage_error();
    const char *from = "127.0.0.1";
    double seconds = 2, memory_bytes = 512.0 * MIB;
    int port = 0;
    for (int i = 3; i < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0) port = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--metrics") == 0) metrics_port = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--relay") == 0) relay = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--memory") == 0) memory_bytes = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--from") == 0) from = argv[i + 1];
        else usage_error();
    }
    if (port <= 0 || metrics_port <= 0 || relay <= 0 || memory_bytes < MIB) usage_error();
    if (seconds < 0.5 || seconds > 120) usage_error();
    me.from = address_of(from, 0);
    me.to = address_of("127.0.0.1", port);
    figures = mmap(NULL, sizeof *figures, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(figures == MAP_FAILED ? NULL : figures);
    signal(SIGTERM, interrupted);
    signal(SIGINT, interrupted);
    return run(seconds, memory_bytes);
}
