/*
 * allocations.so: counts a process's heap calls, so that a script can say how many allocations a
 * delivered message costs.
 *
 *     LD_PRELOAD=.../allocations.so ALLOCATIONS_DIR=DIR program
 *
 * Each process keeps its counters in DIR/PID, a file mapped shared: a script reads them while the
 * process runs, before and after a window of steady load, and takes the difference. The file is
 * opened when the library is loaded, so a process may drop its privileges afterwards. Without
 * ALLOCATIONS_DIR, or when the file can't be made, the counts are kept but not shown.
 *
 * The file is seven native 64-bit integers (`od -An -v -w56 -t u8 FILE`), see `struct counters`.
 *
 * The calls go straight to glibc's own entry points (`__libc_malloc` and kin), not through
 * dlsym(RTLD_NEXT): that allocates itself and would need a heap before there is one. Hence glibc only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct counters {
    _Atomic uint64_t malloc_calls;
    _Atomic uint64_t calloc_calls;
    _Atomic uint64_t realloc_calls; /* of an existing block or of NULL */
    _Atomic uint64_t aligned_calls; /* posix_memalign, aligned_alloc, memalign */
    _Atomic uint64_t free_calls;    /* of NULL not counted */
    _Atomic uint64_t failed_calls;  /* of the first four, those that returned NULL */
    _Atomic uint64_t bytes;         /* asked for by the first four */
};

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

/* Allocations come before the constructor below; they are counted here and carried over. */
static struct counters unshared;
static struct counters *_Atomic counters = &unshared;

static inline void add(size_t offset, uint64_t count) {
    char *base = (char *)atomic_load_explicit(&counters, memory_order_acquire);
    atomic_fetch_add_explicit((_Atomic uint64_t *)(base + offset), count, memory_order_relaxed);
}

static inline void *counted(size_t kind, void *result, size_t bytes) {
    add(kind, 1);
    add(offsetof(struct counters, bytes), bytes);
    if (!result) add(offsetof(struct counters, failed_calls), 1);
    return result;
}

void *malloc(size_t size) {
    return counted(offsetof(struct counters, malloc_calls), __libc_malloc(size), size);
}

void *calloc(size_t count, size_t size) {
    return counted(offsetof(struct counters, calloc_calls), __libc_calloc(count, size), count * size);
}

void *realloc(void *block, size_t size) {
    return counted(offsetof(struct counters, realloc_calls), __libc_realloc(block, size), size);
}

void *memalign(size_t alignment, size_t size) {
    return counted(offsetof(struct counters, aligned_calls), __libc_memalign(alignment, size), size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
    int saved = errno; /* posix_memalign reports by its result alone */
    void *block = memalign(alignment, size);
    errno = saved;
    if (!block) return ENOMEM;
    *result = block;
    return 0;
}

void free(void *block) {
    if (block) add(offsetof(struct counters, free_calls), 1);
    __libc_free(block);
}

__attribute__((constructor)) static void open_counters(void) {
    const char *directory = getenv("ALLOCATIONS_DIR");
    char path[4096];
    if (!directory || (size_t)snprintf(path, sizeof path, "%s/%d", directory, (int)getpid()) >= sizeof path) return;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return;
    if (ftruncate(fd, sizeof(struct counters)) == 0) {
        struct counters *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (shared != MAP_FAILED) {
            _Atomic uint64_t *from = (_Atomic uint64_t *)&unshared, *to = (_Atomic uint64_t *)shared;
            for (size_t i = 0; i < sizeof unshared / sizeof *from; i++) atomic_store(&to[i], atomic_load(&from[i]));
            atomic_store_explicit(&counters, shared, memory_order_release);
        }
    }
    close(fd);
}
