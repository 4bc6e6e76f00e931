/* Lets calls that change files fail, and the clock jump. LD_PRELOAD loads it into every process of a command.

   FAULT_CONTROL names a file of the size of `struct control`, which fault_shim.py writes and reads. Calls on files
   whose path starts with `prefix` are counted over all processes. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t count;       /* counted calls so far */
    int64_t first, last; /* the calls with these numbers, from 1, and those between them, fail */
    int64_t error;       /* with this errno; 0: SIGKILL ends the process */
    int64_t flock_error; /* flock fails with this errno, unless 0 */
    int64_t jump;        /* seconds by which CLOCK_REALTIME jumps forth and back */
    int64_t jump_every;  /* number of readings of the clock between two jumps */
    int64_t clock_reads;
    char prefix[256];
    char failed[512]; /* the first call that failed, and its path */
};

static struct control *control;

__attribute__((constructor)) static void open_control(void) {
    const char *file = getenv("FAULT_CONTROL");
    int fd = file ? syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) control = memory;
    syscall(SYS_close, fd);
}

static int fails(const char *call, const char *path) {
    if (!control || !control->prefix[0] || strncmp(path, control->prefix, strlen(control->prefix))) return 0;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (number < control->first || number > control->last) return 0;
    if (number == control->first) {
        strncpy(control->failed, call, 32);
        strcat(control->failed, " ");
        strncat(control->failed, path, 400);
    }
    if (!control->error) kill(getpid(), SIGKILL);
    errno = control->error;
    return 1;
}

static int fails_fd(const char *call, int fd) {
    char link[64], path[4096];
    if (!control || !control->prefix[0] || fd < 3) return 0;
    char digits[16], *end = digits + 15;
    for (*end = 0; fd; fd /= 10) *--end = '0' + fd % 10;
    strcpy(link, "/proc/self/fd/");
    strcat(link, end);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

static int fails_at(const char *call, int folder, const char *path) {
    return path[0] == '/' || folder == AT_FDCWD ? fails(call, path) : fails_fd(call, folder);
}

ssize_t write(int fd, const void *data, size_t size) {
    return fails_fd("write", fd) ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails_fd("write", fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return fails_fd("write", fd) ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }

ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
    return fails_fd("write", to) ? -1 : syscall(SYS_sendfile, to, from, offset, count);
}

ssize_t sendfile64(int to, int from, off_t *offset, size_t count) { return sendfile(to, from, offset, count); }

int ftruncate(int fd, off_t size) { return fails_fd("truncate", fd) ? -1 : syscall(SYS_ftruncate, fd, size); }

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int fsync(int fd) { return fails_fd("fsync", fd) ? -1 : syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return fails_fd("fsync", fd) ? -1 : syscall(SYS_fdatasync, fd); }

int mkdirat(int folder, const char *path, mode_t mode) {
    return fails_at("mkdir", folder, path) ? -1 : syscall(SYS_mkdirat, folder, path, mode);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int renameat(int old_folder, const char *old, int folder, const char *path) {
    return fails_at("rename", folder, path) ? -1 : syscall(SYS_renameat2, old_folder, old, folder, path, 0);
}

int rename(const char *old, const char *path) { return renameat(AT_FDCWD, old, AT_FDCWD, path); }

int symlinkat(const char *target, int folder, const char *path) {
    return fails_at("symlink", folder, path) ? -1 : syscall(SYS_symlinkat, target, folder, path);
}

int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int openat(int folder, const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    if ((flags & O_CREAT) && fails_at("create", folder, path)) return -1;
    return syscall(SYS_openat, folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return openat(folder, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return openat(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return openat(AT_FDCWD, path, flags, mode);
}

int flock(int fd, int operation) {
    if (control && control->flock_error) {
        errno = control->flock_error;
        return -1;
    }
    return syscall(SYS_flock, fd, operation);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && clock == CLOCK_REALTIME && control && control->jump_every) {
        int64_t reads = __atomic_add_fetch(&control->clock_reads, 1, __ATOMIC_SEQ_CST);
        int64_t steps = reads / control->jump_every % 4; /* now, ahead, now, behind */
        now->tv_sec += steps == 1 ? control->jump : steps == 3 ? -control->jump : 0;
    }
    return code;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    result->tv_sec = now.tv_sec;
    result->tv_usec = now.tv_nsec / 1000;
    (void)zone;
    return 0;
}
