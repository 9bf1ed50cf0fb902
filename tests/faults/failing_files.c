/* The Nth operation on a file below a folder fails, as a full or a broken disk makes it fail.

   Preloaded into a process and inherited by its forks: Python, SQLite, Arrow and safetensors all ask libc.
   What is to fail is read from a file in shared memory that FAULT_PLAN names: see `Plan` in disk.py.
   An operation is counted before it is done, in all processes together, and not done if it fails.
   Operations on one file that follow one another and are of one kind count once: a file of 400 kB is
   copied in 50 writes, and what the first of them meets the others would meet. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct plan {
    int number;      /* of the operation that fails, from 1; 0: none */
    int error;       /* ENOSPC or EIO; 0: its process is killed with SIGKILL, -1: and its parent */
    int lasts;       /* whether all further ones fail, too */
    int count;       /* of operations so far */
    int failed;      /* how many have failed */
    char home[1024]; /* only what lies below it; empty: nothing is counted */
    char only[1024]; /* only operations that this is a part of; empty: all */
    char last[1024]; /* the operation before this one */
    char hit[1024];  /* the first that failed */
};

enum kind { TAKES_ROOM, CHANGES, READS }; /* a full disk refuses only what takes room */

static struct plan *plan;

static int open_plainly(const char *name)
{
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(name, O_RDWR | O_CLOEXEC);
}

__attribute__((constructor)) static void map_plan(void)
{
    const char *name = getenv("FAULT_PLAN");
    int file = name ? open_plainly(name) : -1;
    if (file == -1)
        return;
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (plan == MAP_FAILED)
        plan = NULL;
    close(file);
}

/* 1 and errno, if this operation is to fail. */
static int hits(const char *verb, const char *path, enum kind kind)
{
    char what[1024];
    size_t length;
    if (!plan || !plan->home[0])
        return 0;
    length = strlen(plan->home);
    if (strncmp(path, plan->home, length) || path[length] != '/')
        return 0;
    if (plan->error == ENOSPC && kind != TAKES_ROOM)
        return 0;
    snprintf(what, sizeof what, "%s %s", verb, path + length + 1);
    if (!strstr(what, plan->only) || !strcmp(what, plan->last))
        return 0;
    memcpy(plan->last, what, sizeof what);
    int count = __atomic_add_fetch(&plan->count, 1, __ATOMIC_SEQ_CST);
    if (!plan->number || (plan->lasts ? count < plan->number : count != plan->number))
        return 0;
    if (__atomic_fetch_add(&plan->failed, 1, __ATOMIC_SEQ_CST) == 0)
        memcpy(plan->hit, what, sizeof what);
    plan->last[0] = 0; /* the same again is another attempt */
    errno = plan->error;
    return 1;
}

static int hits_at(const char *verb, int folder, const char *path, enum kind kind)
{
    char link[64], whole[PATH_MAX];
    ssize_t length;
    int before = errno;
    if (!plan || !plan->home[0])
        return 0;
    if (path[0] == '/')
        return hits(verb, path, kind);
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, whole, sizeof whole - strlen(path) - 2);
    errno = before;
    if (length < 0)
        return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return hits(verb, whole, kind);
}

static int hits_file(const char *verb, int file, enum kind kind)
{
    char link[64], whole[PATH_MAX];
    ssize_t length;
    int before = errno;
    if (!plan || !plan->home[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, whole, sizeof whole - 1);
    errno = before;
    if (length < 0)
        return 0;
    whole[length] = 0;
    return hits(verb, whole, kind);
}

/* 1: the operation is not to be done. Does not return where the process is to die of it. */
static int die_or_fail(void)
{
    if (plan->error < 0)
        kill(getppid(), SIGKILL);
    if (plan->error <= 0)
        kill(getpid(), SIGKILL);
    return 1;
}

static int fails_at(const char *verb, int folder, const char *path, enum kind kind)
{
    return hits_at(verb, folder, path, kind) && die_or_fail();
}

static int fails_file(const char *verb, int file, enum kind kind)
{
    return hits_file(verb, file, kind) && die_or_fail();
}

static enum kind opening(int folder, const char *path, int flags)
{
    if (flags & O_CREAT && faccessat(folder, path, F_OK, 0) != 0)
        return TAKES_ROOM;
    return READS;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                      \
    int name(const char *path, int flags, ...)                                          \
    {                                                                                   \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        mode_t mode = va_arg(rest, mode_t);                                             \
        va_end(rest);                                                                   \
        if (fails_at("open", AT_FDCWD, path, opening(AT_FDCWD, path, flags)))           \
            return -1;                                                                  \
        return REAL(int, name, const char *, int, ...)(path, flags, mode);              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                    \
    int name(int folder, const char *path, int flags, ...)                              \
    {                                                                                   \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        mode_t mode = va_arg(rest, mode_t);                                             \
        va_end(rest);                                                                   \
        if (fails_at("open", folder, path, opening(folder, path, flags)))               \
            return -1;                                                                  \
        return REAL(int, name, int, const char *, int, ...)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define OPEN_2(name)                                                                    \
    int name(const char *path, int flags)                                               \
    {                                                                                   \
        if (fails_at("open", AT_FDCWD, path, opening(AT_FDCWD, path, flags)))           \
            return -1;                                                                  \
        return REAL(int, name, const char *, int)(path, flags);                         \
    }
OPEN_2(__open_2)
OPEN_2(__open64_2)

#define FOPEN(name)                                                                     \
    FILE *name(const char *path, const char *mode)                                      \
    {                                                                                   \
        int flags = mode[0] == 'r' ? O_RDONLY : O_CREAT | O_WRONLY;                     \
        if (fails_at("open", AT_FDCWD, path, opening(AT_FDCWD, path, flags)))           \
            return NULL;                                                                \
        return REAL(FILE *, name, const char *, const char *)(path, mode);              \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* Operations on an open file. */
#define ON_FILE(type, name, verb, kind, parameters, types, arguments)                   \
    type name parameters                                                                \
    {                                                                                   \
        if (fails_file(verb, file, kind))                                               \
            return -1;                                                                  \
        return ((type(*) types)dlsym(RTLD_NEXT, #name))arguments;                       \
    }
/* A write that fails has written half: the disk was not full before it. */
#define WRITE(name, parameters, types, half, arguments)                                 \
    ssize_t name parameters                                                             \
    {                                                                                   \
        ssize_t(*real) types = dlsym(RTLD_NEXT, #name);                                 \
        if (!hits_file("write", file, TAKES_ROOM))                                      \
            return real arguments;                                                      \
        real half;                                                                      \
        errno = plan->error;                                                            \
        return -die_or_fail();                                                          \
    }
WRITE(write, (int file, const void *data, size_t size), (int, const void *, size_t),
      (file, data, size / 2), (file, data, size))
WRITE(pwrite, (int file, const void *data, size_t size, off_t at), (int, const void *, size_t, off_t),
      (file, data, size / 2, at), (file, data, size, at))
WRITE(pwrite64, (int file, const void *data, size_t size, off64_t at),
      (int, const void *, size_t, off64_t), (file, data, size / 2, at), (file, data, size, at))
ON_FILE(ssize_t, writev, "write", TAKES_ROOM, (int file, const struct iovec *data, int count),
        (int, const struct iovec *, int), (file, data, count))
ON_FILE(ssize_t, sendfile, "write", TAKES_ROOM, (int file, int in, off_t *at, size_t size),
        (int, int, off_t *, size_t), (file, in, at, size))
ON_FILE(ssize_t, sendfile64, "write", TAKES_ROOM, (int file, int in, off64_t *at, size_t size),
        (int, int, off64_t *, size_t), (file, in, at, size))
ON_FILE(int, fsync, "fsync", TAKES_ROOM, (int file), (int), (file))
ON_FILE(int, fdatasync, "fsync", TAKES_ROOM, (int file), (int), (file))
ON_FILE(int, ftruncate, "truncate", CHANGES, (int file, off_t size), (int, off_t), (file, size))
ON_FILE(int, ftruncate64, "truncate", CHANGES, (int file, off64_t size), (int, off64_t), (file, size))
ON_FILE(ssize_t, read, "read", READS, (int file, void *data, size_t size), (int, void *, size_t),
        (file, data, size))
ON_FILE(ssize_t, pread, "read", READS, (int file, void *data, size_t size, off_t at),
        (int, void *, size_t, off_t), (file, data, size, at))
ON_FILE(ssize_t, pread64, "read", READS, (int file, void *data, size_t size, off64_t at),
        (int, void *, size_t, off64_t), (file, data, size, at))

/* Operations on a name in a folder. */
#define ON_NAME(name, verb, kind, folder, path, parameters, types, arguments)           \
    int name parameters                                                                 \
    {                                                                                   \
        if (fails_at(verb, folder, path, kind))                                         \
            return -1;                                                                  \
        return ((int(*) types)dlsym(RTLD_NEXT, #name))arguments;                        \
    }
ON_NAME(mkdir, "mkdir", TAKES_ROOM, AT_FDCWD, path, (const char *path, mode_t mode),
        (const char *, mode_t), (path, mode))
ON_NAME(mkdirat, "mkdir", TAKES_ROOM, in, path, (int in, const char *path, mode_t mode),
        (int, const char *, mode_t), (in, path, mode))
ON_NAME(rename, "rename", TAKES_ROOM, AT_FDCWD, path, (const char *path, const char *to),
        (const char *, const char *), (path, to))
ON_NAME(renameat, "rename", TAKES_ROOM, in, path, (int in, const char *path, int out, const char *to),
        (int, const char *, int, const char *), (in, path, out, to))
ON_NAME(link, "link", TAKES_ROOM, AT_FDCWD, to, (const char *path, const char *to),
        (const char *, const char *), (path, to))
ON_NAME(unlink, "unlink", CHANGES, AT_FDCWD, path, (const char *path), (const char *), (path))
ON_NAME(unlinkat, "unlink", CHANGES, in, path, (int in, const char *path, int flags),
        (int, const char *, int), (in, path, flags))
ON_NAME(rmdir, "unlink", CHANGES, AT_FDCWD, path, (const char *path), (const char *), (path))
