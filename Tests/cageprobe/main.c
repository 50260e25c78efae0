// What a worker that was taken over would do first: tries everything from inside the sandbox, and says in a line each
// what became of it. For Tests/workerTests/Control/SandboxTests.swift and
// Tests/integrationTests/FalseWorkerTests.swift; no part of the relay.
//
//     cageprobe calls        every system call number: "NUMBER OUTCOME", and behind it what the page tells of a violation
//     cageprobe arguments    calls that are allowed with some arguments: "NAME OUTCOME"
//     cageprobe parts        each part of the sandbox by itself: "NAME OUTCOME"
//     cageprobe ends         how a process in the sandbox ends: "NAME OUTCOME"
//
// As `relay-worker` (descriptor 3 is a control channel) it is a false worker: see false_worker.c.

#include "cageprobe.h"

#include <CSandbox.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOBODY 65534

/// Shared with children: where a violation is told.
static uint64_t *word;

static void shut(uint32_t parts) {
    struct csandbox sandbox = {.parts = parts, .file_bytes_max = 1 << 20, .violation = word};
    struct csandbox_result result;
    if (csandbox_become(NOBODY, NOBODY) != 0) _exit(99);
    csandbox_enter(&sandbox, &result);
    if (result.parts != parts) _exit(98);
}

/// How a child ended: "exit N", "signal N", or "blocked" if it had to be killed.
static void tell_end(pid_t child) {
    int status = 0;
    for (int tries = 0; tries < 2500; tries++) {
        if (waitpid(child, &status, WNOHANG) == child) {
            if (WIFSIGNALED(status)) printf("signal %d", WTERMSIG(status));
            else printf("exit %d", WEXITSTATUS(status));
            return;
        }
        usleep(tries < 20 ? 200 : 2000);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    printf("blocked");
}

static void try_call(long number, const char *name, const long *arguments) {
    *word = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        shut(CSANDBOX_ALL);
        syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
        syscall(SYS_exit_group, 0);
    }
    if (name != NULL) printf("%s ", name);
    else printf("%ld ", number);
    tell_end(child);
    if (*word >> 63) printf(" told %u", (uint32_t)*word);
    printf("\n");
}

static void try_calls(void) {
    const long arguments[6] = {-1, 0, 0, 0, 0, 0};
    for (long number = 0; number < 1024; number++) try_call(number, NULL, arguments);
#ifdef __x86_64__
    // Those of the x32 ABI.
    for (long number = 0x40000000; number < 0x40000000 + 600; number += 7) try_call(number, NULL, arguments);
#endif
    try_call(0x7FFFFFFF, NULL, arguments);
    int conditional;
    for (int index = 0; index < csandbox_call_count(); index++) {
        int number = csandbox_call(index, &conditional);
        if (number >= 0) printf("list %d %s\n", number, conditional ? "sometimes" : "always");
    }
}

static void try_arguments(void) {
    int pair[2], listener = socket(AF_INET, SOCK_STREAM, 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0 || listener < 0) exit(1);
    const long self = getpid();
    const struct {
        const char *name;
        long number, arguments[6];
    } tries[] = {
        {"mmap-read-write", SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mmap-executable", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mprotect-executable", SYS_mprotect, {0, 4096, PROT_READ | PROT_EXEC, 0, 0, 0}},
        {"mprotect-read", SYS_mprotect, {0, 4096, PROT_READ, 0, 0, 0}},
        {"shutdown-read", SYS_shutdown, {listener, SHUT_RD, 0, 0, 0, 0}},
        {"shutdown-write", SYS_shutdown, {listener, SHUT_WR, 0, 0, 0, 0}},
        {"shutdown-both", SYS_shutdown, {listener, SHUT_RDWR, 0, 0, 0, 0}},
        {"fcntl-getfl", SYS_fcntl, {2, F_GETFL, 0, 0, 0, 0}},
        {"fcntl-setfl", SYS_fcntl, {2, F_SETFL, O_NONBLOCK, 0, 0, 0}},
        {"fcntl-setfl-high-bits", SYS_fcntl, {2, 0x100000000L | F_SETFL, O_NONBLOCK, 0, 0, 0}},
        {"fcntl-dupfd", SYS_fcntl, {2, F_DUPFD, 0, 0, 0, 0}},
        {"fcntl-setown", SYS_fcntl, {pair[0], F_SETOWN, self, 0, 0, 0}},
        {"ioctl-siocoutq", SYS_ioctl, {pair[0], 0x5411, (long)word, 0, 0, 0}},
        {"ioctl-tiocsti", SYS_ioctl, {2, TIOCSTI, (long)"x", 0, 0, 0}},
        {"ioctl-fionbio", SYS_ioctl, {2, FIONBIO, (long)"x", 0, 0, 0}},
        {"setsockopt-user-timeout", SYS_setsockopt, {listener, IPPROTO_TCP, TCP_USER_TIMEOUT, (long)word, 4, 0}},
        {"setsockopt-reuseport-program", SYS_setsockopt, {listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, 0, 0, 0}},
        {"setsockopt-mark", SYS_setsockopt, {listener, SOL_SOCKET, SO_MARK, (long)word, 4, 0}},
        {"getsockopt-tcp-info", SYS_getsockopt, {listener, IPPROTO_TCP, TCP_INFO, (long)word, (long)word, 0}},
        {"getsockopt-peer-credentials", SYS_getsockopt, {pair[0], SOL_SOCKET, SO_PEERCRED, (long)word, (long)word, 0}},
        {"tgkill-parent", SYS_tgkill, {self, self, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++)
        try_call(tries[i].number, tries[i].name, tries[i].arguments);
}

// ---- Parts by themselves ----

static int open_file(void) { return open("/etc/passwd", O_RDONLY | O_CLOEXEC); }
static int make_file(void) { return open("/tmp", O_TMPFILE | O_RDWR, 0600); }
static int reach_tcp(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}
static int hold_tcp(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(48999), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}
static int signal_parent(void) { return kill(getppid(), 0); }
static int make_process(void) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    return child;
}
static int write_much(void) {
    int file = memfd_create("probe", MFD_CLOEXEC);
    return ftruncate(file, 2 << 20);
}
static int have_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) != 0) return -1;
    errno = EPERM;
    return (data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective | data[1].permitted |
               data[1].inheritable)
        ? 0 : -1;
}
static int become_root(void) { return setuid(0); }

static void try_parts(void) {
    const struct {
        const char *name;
        uint32_t parts;
        int (*attempt)(void);
    } tries[] = {
        {"open-file", CSANDBOX_NO_NEW_PRIVILEGES | CSANDBOX_LANDLOCK, open_file},
        {"make-file", CSANDBOX_NO_NEW_PRIVILEGES | CSANDBOX_LANDLOCK, make_file},
        {"reach-tcp", CSANDBOX_NO_NEW_PRIVILEGES | CSANDBOX_LANDLOCK, reach_tcp},
        {"hold-tcp", CSANDBOX_NO_NEW_PRIVILEGES | CSANDBOX_LANDLOCK, hold_tcp},
        {"signal-parent", CSANDBOX_NO_NEW_PRIVILEGES | CSANDBOX_LANDLOCK, signal_parent},
        {"make-process", CSANDBOX_LIMITS, make_process},
        {"write-much", CSANDBOX_LIMITS, write_much},
        {"have-capabilities", CSANDBOX_CAPABILITIES, have_capabilities},
        {"become-root", CSANDBOX_CAPABILITIES, become_root},
    };
    struct csandbox none = {0};
    struct csandbox_result result;
    fflush(stdout);
    csandbox_enter(&none, &result);
    printf("landlock version %d\n", result.landlock);
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        for (int caged = 0; caged < 2; caged++) {
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) {
                if (caged) shut(tries[i].parts);
                _exit(tries[i].attempt() >= 0 ? 0 : errno);
            }
            printf("%s %s ", tries[i].name, caged ? "inside" : "outside");
            tell_end(child);
            printf("\n");
        }
    }
}

// ---- Ends ----

static void end_by_abort(void) { abort(); }
static void end_by_trap(void) { __builtin_trap(); }
static void end_by_fault(void) { *(volatile char *)8 = 1; }
static void end_by_heap(void) {
    char *volatile block = malloc(64);
    free(block);
    free(block);
    free(block);
}
static void end_by_exit(void) { exit(7); }
static void end_by_second_handler(void) {
    // The handler of a violation can't be replaced.
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(SIGSYS, &action, NULL);
}
static void end_by_blocked_signal(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void try_ends(void) {
    const struct {
        const char *name;
        void (*end)(void);
    } tries[] = {
        {"abort", end_by_abort}, {"trap", end_by_trap}, {"fault", end_by_fault}, {"heap", end_by_heap},
        {"exit", end_by_exit}, {"handler", end_by_second_handler}, {"blocked", end_by_blocked_signal},
    };
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, 2);
            shut(CSANDBOX_ALL);
            tries[i].end();
            syscall(SYS_exit_group, 0);
        }
        printf("%s ", tries[i].name);
        tell_end(child);
        printf("\n");
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return false_worker();
    word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (word == MAP_FAILED) return 1;
    if (strcmp(argv[1], "calls") == 0) try_calls();
    else if (strcmp(argv[1], "arguments") == 0) try_arguments();
    else if (strcmp(argv[1], "parts") == 0) try_parts();
    else if (strcmp(argv[1], "ends") == 0) try_ends();
    else return 64;
    return 0;
}
