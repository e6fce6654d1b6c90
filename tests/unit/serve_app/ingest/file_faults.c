/* Preloaded into a process: ends it, or fails its calls, at the n-th change of a file below a folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL_BEFORE = 0, KILL_AFTER = 1, DISK_FULL = 2 };

static char below[PATH_MAX];
static int fault;
static atomic_long left = LONG_MAX;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void file_faults_arm(const char *folder, long at, int kind) {
    snprintf(below, sizeof below, "%s", folder);
    fault = kind;
    atomic_store(&left, at);
}

/* How many changes were seen since, of `at`. */
long file_faults_left(void) { return atomic_load(&left); }

static int is_below(const char *path) { return below[0] && path && strncmp(path, below, strlen(below)) == 0; }

static int is_fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int is_at_below(int folder, const char *path) { return path[0] == '/' ? is_below(path) : is_fd_below(folder); }

/* Whether this change is the one; a full disk stays full. */
static int is_due(void) {
    long seen = atomic_fetch_sub(&left, 1);
    return fault == DISK_FULL ? seen <= 0 : seen == 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define CHANGE(is_here, takes_space, call)                                   \
    do {                                                                     \
        if (!(is_here) || !is_due()) return call;                            \
        if (fault == DISK_FULL) {                                            \
            if (!(takes_space)) return call;                                 \
            errno = ENOSPC;                                                  \
            return -1;                                                       \
        }                                                                    \
        if (fault == KILL_AFTER) (void)!(call);                              \
        die();                                                               \
        return -1;                                                           \
    } while (0)

#define OPEN(name)                                                           \
    int name(const char *path, int flags, ...) {                             \
        va_list more;                                                        \
        va_start(more, flags);                                               \
        mode_t mode = va_arg(more, mode_t);                                  \
        va_end(more);                                                        \
        CHANGE((flags & O_CREAT) && is_below(path), 1, REAL(name)(path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name)                                                        \
    int name(int folder, const char *path, int flags, ...) {                 \
        va_list more;                                                        \
        va_start(more, flags);                                               \
        mode_t mode = va_arg(more, mode_t);                                  \
        va_end(more);                                                        \
        CHANGE((flags & O_CREAT) && is_at_below(folder, path), 1, REAL(name)(folder, path, flags, mode)); \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

/* A write that the end comes into the middle of leaves half of its bytes. */
ssize_t write(int fd, const void *bytes, size_t count) {
    CHANGE(fd > 2 && is_fd_below(fd), 1, REAL(write)(fd, bytes, fault == KILL_AFTER && atomic_load(&left) < 0 ? count / 2 : count));
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    CHANGE(fd > 2 && is_fd_below(fd), 1, REAL(pwrite64)(fd, bytes, count, at));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    CHANGE(fd > 2 && is_fd_below(fd), 1, REAL(writev)(fd, parts, count));
}
int rename(const char *from, const char *to) { CHANGE(is_below(to), 0, REAL(rename)(from, to)); }
int link(const char *from, const char *to) { CHANGE(is_below(to), 1, REAL(link)(from, to)); }
int linkat(int in, const char *from, int into, const char *to, int flags) {
    CHANGE(is_at_below(into, to), 1, REAL(linkat)(in, from, into, to, flags));
}
int unlink(const char *path) { CHANGE(is_below(path), 0, REAL(unlink)(path)); }
int unlinkat(int folder, const char *path, int flags) { CHANGE(is_at_below(folder, path), 0, REAL(unlinkat)(folder, path, flags)); }
int mkdir(const char *path, mode_t mode) { CHANGE(is_below(path), 1, REAL(mkdir)(path, mode)); }
int rmdir(const char *path) { CHANGE(is_below(path), 0, REAL(rmdir)(path)); }
int ftruncate64(int fd, off64_t length) { CHANGE(is_fd_below(fd), 0, REAL(ftruncate64)(fd, length)); }
