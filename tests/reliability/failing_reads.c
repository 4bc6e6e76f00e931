/* Makes reads of the shards of split train fail or wait; preloaded into a command by LD_PRELOAD.
 *
 * FAILING_READS=ERRNO:SKIP:COUNT:RANK  after SKIP reads of a process of this rank (-1: of any) the next COUNT (-1: all)
 *                                      fail with ERRNO.
 * SLOW_READS=MILLISECONDS              every read waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int num_reads;
static pid_t counted_process;

static int is_shard(int fd) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return 0;
    name[length] = 0;
    return strstr(name, ".train.") && strstr(name, ".h5");
}

static int fails(int fd) {
    const char *failing = getenv("FAILING_READS"), *slow = getenv("SLOW_READS");
    if ((!failing && !slow) || !is_shard(fd))
        return 0;
    if (slow)
        usleep(1000 * atoi(slow));
    int number, skip, count, rank;
    if (!failing || sscanf(failing, "%d:%d:%d:%d", &number, &skip, &count, &rank) != 4)
        return 0;
    const char *own_rank = getenv("RANK");
    if (rank >= 0 && rank != (own_rank ? atoi(own_rank) : 0))
        return 0;
    if (counted_process != getpid()) { /* a forked loader worker counts its own reads */
        counted_process = getpid();
        num_reads = 0;
    }
    int read_before = atomic_fetch_add(&num_reads, 1) - skip;
    if (read_before < 0 || (count >= 0 && read_before >= count))
        return 0;
    errno = number;
    return 1;
}

#define WRAP(name, parameters, arguments)                                                                              \
    ssize_t name parameters {                                                                                          \
        static ssize_t(*original) parameters;                                                                          \
        if (!original)                                                                                                 \
            original = dlsym(RTLD_NEXT, #name);                                                                        \
        return fails(fd) ? -1 : original arguments;                                                                    \
    }

WRAP(read, (int fd, void *buffer, size_t size), (fd, buffer, size))
WRAP(pread, (int fd, void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
WRAP(pread64, (int fd, void *buffer, size_t size, off64_t offset), (fd, buffer, size, offset))
