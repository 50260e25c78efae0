#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int clinux_accept(int listener, struct sockaddr_storage *address) {
    socklen_t length = sizeof *address;
    return accept4(listener, (struct sockaddr *)address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U // Linux 6.3
#endif

int clinux_memfd(const char *name) {
    static unsigned known = MFD_NOEXEC_SEAL;
    int file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | known);
    if (file >= 0 || errno != EINVAL || known == 0) return file;
    known = 0;
    return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int clinux_seal(int file, enum clinux_seals seals) {
    int flags = F_SEAL_SHRINK;
    if (seals != CLINUX_SEAL_SHRINK) flags |= F_SEAL_GROW | F_SEAL_SEAL;
    if (seals == CLINUX_SEAL_ALL) flags |= F_SEAL_WRITE;
    return fcntl(file, F_ADD_SEALS, flags);
}

int clinux_reopen_for_reading(int file) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int64_t clinux_file_bytes(int file) {
    struct stat status;
    return syscall(SYS_fstat, file, &status) == 0 ? (int64_t)status.st_size : -1;
}

ssize_t clinux_write_now(int file, const void *bytes, size_t count) {
    // A pipe that nobody reads any more would raise SIGPIPE.
    struct pollfd polled = {.fd = file, .events = POLLOUT};
    if (poll(&polled, 1, 0) != 1 || polled.revents != POLLOUT) return -1;
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
    ssize_t written = pwritev2(file, &vector, 1, -1, RWF_NOWAIT);
    // A file's pages may have to be waited for, which is no reader's doing: EAGAIN means nothing there.
    if (written >= 0 || errno == EPIPE || errno == EBADF) return written;
    if (errno == EAGAIN) {
        struct stat status;
        int is_file = syscall(SYS_fstat, file, &status) == 0 && S_ISREG(status.st_mode);
        errno = EAGAIN;
        if (!is_file) return -1;
    }
    return write(file, bytes, count);
}

int clinux_is_regular(int file) {
    struct stat status;
    return fstat(file, &status) == 0 && S_ISREG(status.st_mode);
}

int clinux_seqpacket_pair(int pair[2], int buffer) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return -1;
    for (int i = 0; i < 2; i++) {
        // FORCE needs CAP_NET_ADMIN; without it net.core.wmem_max bounds what the plain option grants.
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) != 0)
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        if (setsockopt(pair[i], SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0)
            setsockopt(pair[i], SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    return 0;
}

int clinux_send_message(int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count) {
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(CLINUX_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    if (descriptor_count > CLINUX_DESCRIPTORS_MAX) {
        errno = EINVAL;
        return -1;
    }
    if (descriptor_count > 0) {
        memset(&control, 0, CMSG_SPACE(descriptor_count * sizeof(int)));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(descriptor_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(descriptor_count * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, descriptor_count * sizeof(int));
    }
    for (;;) {
        ssize_t sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) return 0;
        if (errno != EINTR) return -1;
    }
}

ssize_t clinux_receive_message(
    int socket, void *bytes, size_t capacity, int *descriptors, size_t descriptor_capacity, size_t *descriptor_count) {
    struct iovec vector = {.iov_base = bytes, .iov_len = capacity};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(CLINUX_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received;
    do {
        received = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    *descriptor_count = 0;
    if (received < 0) return -1;
    int refused = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
            if (!refused && *descriptor_count < descriptor_capacity) {
                descriptors[(*descriptor_count)++] = descriptor;
            } else {
                refused = 1;
                close(descriptor);
            }
        }
    }
    if (!refused) return received;
    for (size_t i = 0; i < *descriptor_count; i++) close(descriptors[i]);
    *descriptor_count = 0;
    errno = EMSGSIZE;
    return -1;
}

int clinux_unread_bytes(int socket) {
    int bytes = 0;
    return ioctl(socket, SIOCOUTQ, &bytes) == 0 ? bytes : -1;
}

int clinux_spawn(int program, char *const argv[], char *const envp[], int control, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) return error;
    error = posix_spawnattr_init(&attributes);
    if (error != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    // Nothing is said there, and what stdout is may be a terminal or a pipe of somebody's.
    if (error == 0) error = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    // dup2 of a descriptor onto itself would keep close-on-exec: the caller's `control` is never 3 by accident,
    // because posix_spawn clears the flag in that case (glibc 2.29 and later).
    if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, control, 3);
    if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, program, 4);
    if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, 5);
    if (error == 0) error = posix_spawn(pid, "/proc/self/fd/4", &actions, &attributes, argv, envp);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

int clinux_execute(int program, char *const argv[], char *const envp[]) {
    syscall(SYS_execveat, program, "", argv, envp, AT_EMPTY_PATH);
    if (errno != ENOENT) return -1;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    fcntl(program, F_SETFD, 0);
    execve(path, argv, envp);
    int error = errno;
    fcntl(program, F_SETFD, FD_CLOEXEC);
    errno = error;
    return -1;
}

int clinux_wait_exited(int status) { return WIFEXITED(status); }
int clinux_wait_exit_status(int status) { return WEXITSTATUS(status); }
int clinux_wait_signal(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }

int clinux_cpu_count(void) {
    // Room for 16,384 CPUs; the kernel refuses a mask smaller than its own.
    static cpu_set_t sets[16];
    if (sched_getaffinity(0, sizeof sets, sets) != 0) return 1;
    return CPU_COUNT_S(sizeof sets, sets);
}

int clinux_harden(void) {
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0) return -1;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void clinux_tune_heap(int mapped_min, int mappings_max) {
    mallopt(M_MMAP_THRESHOLD, mapped_min);
    mallopt(M_MMAP_MAX, mappings_max);
    mallopt(M_TRIM_THRESHOLD, 4 * mapped_min);
}

void clinux_trim_heap(void) { malloc_trim(0); }

void clinux_set_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

uint64_t clinux_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return raised.rlim_cur;
    }
    return limit.rlim_cur;
}

int clinux_signalfd(const int *signals, size_t count) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++) sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

char *const *clinux_environment(void) { return environ; }

int clinux_tune_listener(int listener, int unsent_bytes, unsigned milliseconds) {
    int on = 1;
    if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) return -1;
    if (setsockopt(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds) != 0) return -1;
    return setsockopt(listener, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof unsent_bytes);
}

// The name begins with a NUL and is as long as the address says. Returns the address's length, 0 if the name does not fit.
static socklen_t abstract_address(const char *name, struct sockaddr_un *address) {
    size_t length = strlen(name);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (length + 1 > sizeof address->sun_path) return 0;
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

static int abstract_socket(const char *name, int backlog) {
    struct sockaddr_un address;
    socklen_t length = abstract_address(name, &address);
    if (length == 0) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int number = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (number < 0) return -1;
    int failed = backlog > 0
        ? bind(number, (struct sockaddr *)&address, length) != 0 || listen(number, backlog) != 0
        : connect(number, (struct sockaddr *)&address, length) != 0;
    if (!failed) return number;
    int error = errno;
    close(number);
    errno = error;
    return -1;
}

int clinux_abstract_listen(const char *name, int backlog) { return abstract_socket(name, backlog); }
int clinux_abstract_connect(const char *name) { return abstract_socket(name, 0); }

int clinux_peer(int socket, uint32_t *user, pid_t *process) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return -1;
    *user = peer.uid;
    if (process != NULL) *process = peer.pid;
    return 0;
}

pid_t clinux_reap(int *status, uint64_t *cpu_microseconds) {
    struct rusage usage;
    pid_t pid = wait4(-1, status, WNOHANG, &usage);
    if (pid > 0) {
        *cpu_microseconds = (uint64_t)usage.ru_utime.tv_sec * 1000000 + (uint64_t)usage.ru_utime.tv_usec +
            (uint64_t)usage.ru_stime.tv_sec * 1000000 + (uint64_t)usage.ru_stime.tv_usec;
    }
    return pid;
}
