// The Linux calls that Swift's Glibc module does not show, as plain prototypes.
//
// No feature-test macro in this header: `_GNU_SOURCE` here would make two C modules disagree about
// libc's types. It is defined for linux.c alone.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/types.h>

/// accept4(2), non-blocking and close-on-exec. Returns the descriptor or -1.
int clinux_accept(int listener, struct sockaddr_storage *address);

/// memfd_create(2), close-on-exec, never to be executed where the kernel can see to that, and to be sealed.
int clinux_memfd(const char *name);

/// What of a memfd nobody can do any more (F_ADD_SEALS): make it shorter; change its size, or the seals; the same and
/// write into it.
enum clinux_seals { CLINUX_SEAL_SHRINK, CLINUX_SEAL_SIZE, CLINUX_SEAL_ALL };
int clinux_seal(int file, enum clinux_seals seals);

/// Another descriptor of the same file, close-on-exec and for reading alone: who gets no other can't map it for
/// writing, now or later. -1 with errno.
int clinux_reopen_for_reading(int file);

/// The size of an open file: fstat(2) itself, because what glibc makes of its name is a call that takes paths. -1 with
/// errno.
int64_t clinux_file_bytes(int file);

/// write(2) that never waits, whatever the flags of the open file are, which all its users share: pwritev2(2) with
/// RWF_NOWAIT for pipes and sockets, if poll(2) says that they take something. A file is written as usual, and so is
/// what the kernel knows no such write for (a terminal, a pipe before Linux 6.4). Returns the count of bytes, or -1.
ssize_t clinux_write_now(int file, const void *bytes, size_t count);

/// Whether it is an open file of a file system's: one that may be anywhere and of any size.
int clinux_is_regular(int file);

/// socketpair(2) of SOCK_SEQPACKET, non-blocking, close-on-exec, both buffers asked to be `buffer` bytes.
int clinux_seqpacket_pair(int pair[2], int buffer);

/// Most descriptors that the kernel takes in one message (SCM_MAX_FD).
#define CLINUX_DESCRIPTORS_MAX 253

/// One message with descriptors beside it: sendmsg(2) with SCM_RIGHTS, MSG_DONTWAIT, MSG_NOSIGNAL.
/// Returns 0, or -1 with errno; on failure nothing was queued and the caller still owns everything.
int clinux_send_message(int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count);

/// One message and the descriptors beside it: recvmsg(2), MSG_DONTWAIT, MSG_CMSG_CLOEXEC.
/// Returns the count of bytes (0 at end of file), or -1 with errno. A message that does not fit, or whose
/// descriptors do not, is refused with EMSGSIZE; the descriptors that came with it are closed.
ssize_t clinux_receive_message(
    int socket, void *bytes, size_t capacity, int *descriptors, size_t descriptor_capacity, size_t *descriptor_count);

/// ioctl(2) SIOCOUTQ: bytes of memory that what was sent at this end of a Unix socket, and has not been read, takes; -1 with errno.
int clinux_unread_bytes(int socket);

/// posix_spawn(3) of the program that is open as `program` (a number above 4) with `control` as its descriptor 3;
/// stderr is inherited, stdin and stdout are /dev/null, and `program` itself is 4, which it must close; default signal
/// handlers, no signal blocked. Returns 0 or the error number.
int clinux_spawn(int program, char *const argv[], char *const envp[], int control, pid_t *pid);

/// Executes what is open as `program`: execveat(2) with AT_EMPTY_PATH; a script, whose interpreter must open it, by its
/// name in /proc. Returns -1 with errno, if it returns.
int clinux_execute(int program, char *const argv[], char *const envp[]);

/// What waitpid(2) said: whether it exited (and its status), else the signal that ended it.
int clinux_wait_exited(int status);
int clinux_wait_exit_status(int status);
int clinux_wait_signal(int status);

/// CPUs in this process's affinity mask (sched_getaffinity(2)).
int clinux_cpu_count(void);

/// prctl(2) PR_SET_DUMPABLE 0, RLIMIT_CORE 0, PR_SET_NO_NEW_PRIVS 1. Returns 0 or -1 with errno.
int clinux_harden(void);

/// mallopt(3): allocations of `mapped_min` bytes and more are mappings of their own, `mappings_max` at the most,
/// whatever sizes come and go; the heap's free end is given back from four times as many bytes on.
void clinux_tune_heap(int mapped_min, int mappings_max);

/// malloc_trim(3): gives free memory of the heap back to the kernel.
void clinux_trim_heap(void);

/// prctl(2) PR_SET_NAME.
void clinux_set_name(const char *name);

/// Raises RLIMIT_NOFILE's soft limit to the hard one; returns the limit in force.
uint64_t clinux_raise_descriptor_limit(void);

/// A signalfd(2), non-blocking and close-on-exec, for the signals in `set` (count numbers), which it blocks.
int clinux_signalfd(const int *signals, size_t count);

/// environ(7): Swift can't name a variable that any thread may change.
char *const *clinux_environment(void);

/// setsockopt(2) of TCP_NODELAY, TCP_NOTSENT_LOWAT with `unsent_bytes`, and TCP_USER_TIMEOUT with `milliseconds`.
/// Accepted sockets inherit them from their listener. Returns 0 or -1 with errno.
int clinux_tune_listener(int listener, int unsent_bytes, unsigned milliseconds);

/// A listening AF_UNIX stream socket with this abstract name (unix(7)), non-blocking and close-on-exec. It needs no file
/// system, has no permissions, and goes with its last descriptor. Returns the descriptor or -1.
int clinux_abstract_listen(const char *name, int backlog);

/// A stream socket connected to the one with this abstract name, non-blocking and close-on-exec. Returns the descriptor or -1.
int clinux_abstract_connect(const char *name);

/// The effective user id and, unless NULL, the process of a connected AF_UNIX socket's peer, as of its connect(2) or
/// listen(2): SO_PEERCRED. Returns 0 or -1 with errno.
int clinux_peer(int socket, uint32_t *user, pid_t *process);

/// wait4(2) of any child, WNOHANG: its id, how it ended, and the CPU time it took in microseconds. 0 or -1 if there is none.
pid_t clinux_reap(int *status, uint64_t *cpu_microseconds);
