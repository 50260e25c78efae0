#include "CSandbox.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/securebits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// What headers of Debian 12 do not have yet.
#define ACCESS_FS_TRUNCATE (1ULL << 14)  // Landlock 3
#define ACCESS_FS_IOCTL_DEV (1ULL << 15) // Landlock 5
#define ACCESS_NET_BIND_TCP (1ULL << 0)  // Landlock 4
#define ACCESS_NET_CONNECT_TCP (1ULL << 1)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0) // Landlock 6
#define SCOPE_SIGNAL (1ULL << 1)
#ifndef SO_INCOMING_CPU
#define SO_INCOMING_CPU 49
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif

// ---- Capabilities and the user ----

static int without_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) == 0 ? 0 : -1;
}

int csandbox_become(uint32_t user, uint32_t group) {
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    // Both need CAP_SETPCAP. Without it the bounding set stays, which no_new_privs makes meaningless.
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(
        PR_SET_SECUREBITS,
        SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
            SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
        0, 0, 0);
    if (geteuid() != 0) return 0;
    gid_t groups[] = {group};
    if (setgroups(1, groups) != 0 || setresgid(group, group, group) != 0) return -1;
    return setresuid(user, user, user);
}

// ---- Resource limits ----

static int limit(int resource, uint64_t most) {
    struct rlimit now, next;
    if (getrlimit(resource, &now) != 0) return -1;
    next.rlim_max = most < now.rlim_max ? most : now.rlim_max;
    next.rlim_cur = next.rlim_max < now.rlim_cur ? next.rlim_max : now.rlim_cur;
    return setrlimit(resource, &next);
}

static int with_limits(uint64_t file_bytes_max) {
    umask(0077);
    if (limit(RLIMIT_CORE, 0) != 0 || limit(RLIMIT_NPROC, 0) != 0) return -1;
    // A write beyond it fails with EFBIG, for SIGXFSZ is ignored.
    signal(SIGXFSZ, SIG_IGN);
    return file_bytes_max == UINT64_MAX ? 0 : limit(RLIMIT_FSIZE, file_bytes_max);
}

// ---- Landlock ----

/// struct landlock_ruleset_attr as of Landlock 6.
struct ruleset {
    uint64_t access_fs, access_net, scoped;
};

static int landlock_version(void) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version > 0 ? (int)version : 0;
}

/// Everything that the kernel's version can forbid, and no rule that allows any of it.
static int with_landlock(int version) {
    if (version == 0) return -1; // errno: ENOSYS, EOPNOTSUPP, or what a profile of a container says
    struct ruleset ruleset = {.access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
    if (version >= 2) ruleset.access_fs |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3) ruleset.access_fs |= ACCESS_FS_TRUNCATE;
    if (version >= 5) ruleset.access_fs |= ACCESS_FS_IOCTL_DEV;
    if (version >= 4) ruleset.access_net = ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP;
    if (version >= 6) ruleset.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
    size_t size = version >= 6 ? sizeof ruleset : version >= 4 ? offsetof(struct ruleset, scoped) : sizeof(uint64_t);
    int number = (int)syscall(SYS_landlock_create_ruleset, &ruleset, size, 0);
    if (number < 0) return -1;
    int result = (int)syscall(SYS_landlock_restrict_self, number, 0);
    int error = errno;
    close(number);
    errno = error;
    return result == 0 ? 0 : -1;
}

// ---- seccomp ----

// A worker's system calls, after it has begun. Those of one line are of one kind.
static const char *const allowed[] = {
    // Clients, other workers and the supervisor. They are unconditional: the kernel then asks no filter for them.
    "recvfrom", "recvmsg", "sendto", "sendmsg", "accept4", "close", "epoll_wait", "epoll_pwait", "epoll_ctl",
    "read", "write", "writev", "pwritev2", "poll", "ppoll",
    // Files without a name, of which messages between workers have some.
    "memfd_create", "fstat", "pread64", "pwrite64", "ftruncate",
    // Memory
    "brk", "munmap", "madvise",
    // Time, chance, and threads that there are none of
    "clock_gettime", "clock_getres", "gettimeofday", "time", "clock_nanosleep", "nanosleep", "getrandom", "futex",
    "sched_yield", "getcpu", "restart_syscall",
    // The end, also the one by a failed check: abort(3) and a trap's signal
    "exit", "exit_group", "getpid", "gettid", "rt_sigprocmask", "rt_sigreturn",
};

#define IS(argument, value) SCMP_CMP64(argument, SCMP_CMP_EQ, (scmp_datum_t)(value))
#define LACKS(argument, bits) SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, (scmp_datum_t)(bits), 0)
// An int: the upper half of the register is anybody's.
#define IS_INT(argument, value) SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, 0xFFFFFFFF, (scmp_datum_t)(uint32_t)(value))

/// One that is allowed with some arguments alone: with those of any of its lines.
struct rule {
    const char *name;
    unsigned count;
    struct scmp_arg_cmp arguments[2];
};

static const struct rule rules[] = {
    // No memory that can be executed, neither from the beginning nor later.
    {"mmap", 1, {LACKS(2, PROT_EXEC)}},
    {"mprotect", 1, {LACKS(2, PROT_EXEC)}},
    // The half of a connection that a worker writes. SHUT_RD of a listener would end it for its successors as well, and
    // make of it a socket that can be connected (MSG_FASTOPEN).
    {"shutdown", 1, {IS_INT(1, SHUT_WR)}},
    // Not F_SETFL, which would reach the log's pipe in every process and the terminal of who started the relay; not
    // F_DUPFD, F_SETOWN.
    {"fcntl", 1, {IS_INT(1, F_GETFD)}},
    {"fcntl", 1, {IS_INT(1, F_GETFL)}},
    {"fcntl", 1, {IS_INT(1, F_ADD_SEALS)}},
    {"fcntl", 1, {IS_INT(1, F_GET_SEALS)}},
    // Bytes that wait in a socket: not TIOCSTI and the like.
    {"ioctl", 1, {IS_INT(1, SIOCOUTQ)}},
    {"ioctl", 1, {IS_INT(1, SIOCINQ)}},
    {"ioctl", 1, {IS_INT(1, SIOCOUTQNSD)}},
    {"getsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_ERROR)}},
    {"getsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_INCOMING_CPU)}},
    {"getsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_MEMINFO)}},
    {"getsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_SNDBUF)}},
    {"getsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_RCVBUF)}},
    {"getsockopt", 2, {IS_INT(1, IPPROTO_TCP), IS_INT(2, TCP_INFO)}},
    {"setsockopt", 2, {IS_INT(1, IPPROTO_TCP), IS_INT(2, TCP_USER_TIMEOUT)}},
    {"setsockopt", 2, {IS_INT(1, IPPROTO_TCP), IS_INT(2, TCP_NODELAY)}},
    {"setsockopt", 2, {IS_INT(1, IPPROTO_TCP), IS_INT(2, TCP_NOTSENT_LOWAT)}},
    {"setsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_LINGER)}},
    {"setsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_SNDBUF)}},
    {"setsockopt", 2, {IS_INT(1, SOL_SOCKET), IS_INT(2, SO_RCVBUF)}},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t *violation;

/// Says which call it was, and ends the process. The handler is installed with SA_RESETHAND and SA_NODEFER, so this
/// signal's own is the end; and rt_sigaction(2) is not on the list, so nobody puts another in its place.
static void tell(int signal, siginfo_t *information, void *context) {
    (void)context;
    uint64_t *word = violation;
    if (word != NULL) __atomic_store_n(word, 1ULL << 63 | (uint32_t)information->si_syscall, __ATOMIC_SEQ_CST);
    syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), signal);
}

static int add_rules(scmp_filter_ctx filter) {
    for (size_t i = 0; i < COUNT(allowed); i++) {
        int number = seccomp_syscall_resolve_name(allowed[i]);
        // Not every architecture has each.
        if (number < 0) continue;
        int result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 0, NULL);
        if (result != 0) return result;
    }
    for (size_t i = 0; i < COUNT(rules); i++) {
        int number = seccomp_syscall_resolve_name(rules[i].name);
        if (number < 0) continue;
        int result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, rules[i].count, rules[i].arguments);
        if (result != 0) return result;
    }
    // It could make what is mapped for writing of the shared memory longer. realloc(3) does without it.
    int remap = seccomp_syscall_resolve_name("mremap");
    int refused = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(ENOMEM), remap, 0, NULL);
    if (refused != 0) return refused;
    // A signal to itself alone: abort(3), and the end of `tell`.
    const struct scmp_arg_cmp itself = IS_INT(0, getpid());
    int number = seccomp_syscall_resolve_name("tgkill");
    return number < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &itself);
}

static int with_seccomp(uint64_t *word) {
    // glibc reads the time zone once, even for what is UTC (gmtime(3), for a certificate's dates).
    tzset();
    // A runtime that reports an error walks the stack, for which glibc loads a library once.
    void *frames[1];
    backtrace(frames, 1);
    violation = word;
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL) != 0) return -1;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    if (filter == NULL) {
        errno = ENOMEM;
        return -1;
    }
    // Calls of another architecture, such as those of 32 bits, have no business here.
    int result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    // no_new_privs is set already, and where it is not there is no filter.
    if (result == 0) result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
    if (result == 0) seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (result == 0) result = add_rules(filter);
    if (result == 0) result = seccomp_load(filter);
    seccomp_release(filter);
    if (result == 0) return 0;
    errno = -result;
    return -1;
}

// ---- All of it ----

void csandbox_enter(const struct csandbox *sandbox, struct csandbox_result *result) {
    memset(result, 0, sizeof *result);
    int outcomes[5];
    result->landlock = landlock_version();
    int landlock_error = errno;
    // In the order of the enumeration, which is the order in which one part may need another.
    for (int part = 0; part < 5; part++) {
        if ((sandbox->parts & 1u << part) == 0) continue;
        errno = 0;
        switch (1 << part) {
        case CSANDBOX_CAPABILITIES: outcomes[part] = without_capabilities(); break;
        case CSANDBOX_NO_NEW_PRIVILEGES: outcomes[part] = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); break;
        case CSANDBOX_LIMITS: outcomes[part] = with_limits(sandbox->file_bytes_max); break;
        case CSANDBOX_LANDLOCK:
            errno = landlock_error;
            outcomes[part] = with_landlock(result->landlock);
            break;
        default: outcomes[part] = with_seccomp(sandbox->violation); break;
        }
        if (outcomes[part] == 0) result->parts |= 1u << part;
        else result->errors[part] = errno;
    }
}

int csandbox_call_count(void) { return (int)(COUNT(allowed) + COUNT(rules) + 2); }

int csandbox_call(int index, int *conditional) {
    size_t place = (size_t)index;
    *conditional = place >= COUNT(allowed);
    if (place < COUNT(allowed)) return seccomp_syscall_resolve_name(allowed[place]);
    if (place < COUNT(allowed) + COUNT(rules)) return seccomp_syscall_resolve_name(rules[place - COUNT(allowed)].name);
    return seccomp_syscall_resolve_name(place == COUNT(allowed) + COUNT(rules) ? "tgkill" : "mremap");
}
