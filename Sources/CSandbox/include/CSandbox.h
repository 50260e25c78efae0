// The cage of a process that needs nothing but what it has: descriptors, memory, and the kernel's word on both.
//
// Each part takes something away for good. A part that the kernel, or who started the process, does not allow is left
// out and told; the others hold all the same.
#pragma once

#include <stdint.h>

/// What a process can be without.
enum csandbox_part {
    /// Capabilities: none in any set, none in the bounding set where that may be changed.
    CSANDBOX_CAPABILITIES = 1,
    /// PR_SET_NO_NEW_PRIVS: no program that it might execute would have more rights.
    CSANDBOX_NO_NEW_PRIVILEGES = 2,
    /// Resource limits: no new process, no core dump, no file beyond a size.
    CSANDBOX_LIMITS = 4,
    /// Landlock without a rule: no file opened or changed, no TCP port bound or connected to, nobody outside signalled.
    CSANDBOX_LANDLOCK = 8,
    /// seccomp: no system call but those of sandbox.c's list.
    CSANDBOX_SECCOMP = 16,
};

#define CSANDBOX_ALL 31

/// In the words of /proc and capabilities(7), what a process is to be without.
struct csandbox {
    /// `csandbox_part`s that are wanted.
    uint32_t parts;
    /// RLIMIT_FSIZE, bytes; UINT64_MAX: not limited.
    uint64_t file_bytes_max;
    /// Where the number of a system call that is not allowed is written, with bit 63 set, before the process ends by
    /// SIGSYS; or NULL.
    uint64_t *violation;
};

/// How far it came.
struct csandbox_result {
    /// Parts that hold: `csandbox_part`s together.
    uint32_t parts;
    /// errno of each part that does not, in the order of the enumeration.
    int errors[5];
    /// The version of Landlock that the kernel has; 0: none.
    int landlock;
};

/// If root: takes away what of capabilities takes privilege to give up (bounding set, securebits), and becomes this
/// user: setgroups(2), setresgid(2), setresuid(2). If not root: as far as allowed, and nothing else. Returns 0, or -1
/// with errno if it is still root.
int csandbox_become(uint32_t user, uint32_t group);

/// Shuts the cage around the calling process, which must have one thread. There is no way out.
void csandbox_enter(const struct csandbox *sandbox, struct csandbox_result *result);

/// How many system calls the list has for this machine's architecture, and the number of one of them; `conditional`
/// says whether it is allowed with some arguments alone. For tests.
int csandbox_call_count(void);
int csandbox_call(int index, int *conditional);
