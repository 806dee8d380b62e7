/* LD_PRELOAD: makes chosen system calls fail for files below one directory.
 *
 * FAULT_DIR      only calls on files below this directory are touched
 * FAULT_SWITCH   faults happen while this file exists
 * FAULT_CALL     name of the call: open mkdir pwrite fdatasync fstat ftruncate unlink rename
 *                posix_fallocate mmap flock; renumber: a name shows another inode at each look;
 *                renumber_all: so does each descriptor
 * FAULT_ERRNO    the error; 0 with pwrite: a short write; -N: a stall of N milliseconds
 * FAULT_SUFFIX   only files whose name ends so (".jsonl", ".ring", ".ring.tmp")
 * FAULT_COUNT    how many calls fail; 0: all
 * FAULT_LOG      a file that gets one byte for each fault, so that a test knows it happened
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_long faults;

static int ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text);
    size_t m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* 1 when this call is to fail; *error says how. */
static int struck(const char *call, const char *path, int *error) {
    const char *wanted = getenv("FAULT_CALL");
    const char *directory = getenv("FAULT_DIR");
    const char *toggle = getenv("FAULT_SWITCH");
    const char *suffix = getenv("FAULT_SUFFIX");
    const char *count = getenv("FAULT_COUNT");
    if (wanted == NULL || directory == NULL || toggle == NULL || strcmp(wanted, call) != 0) return 0;
    if (strncmp(path, directory, strlen(directory)) != 0) return 0;
    if (suffix != NULL && !ends_with(path, suffix)) return 0;
    if (syscall(SYS_access, toggle, F_OK) != 0) return 0;
    long most = count != NULL ? atol(count) : 0;
    if (atomic_fetch_add(&faults, 1) >= most && most != 0) return 0;
    *error = atoi(getenv("FAULT_ERRNO"));
    const char *log = getenv("FAULT_LOG");
    if (log != NULL) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        if (fd >= 0) {
            syscall(SYS_write, fd, "x", 1);
            syscall(SYS_close, fd);
        }
    }
    if (*error < 0) {
        struct timespec stall = {-*error / 1000, (-*error % 1000) * 1000000L};
        syscall(SYS_nanosleep, &stall, NULL);
        return 0;
    }
    return 1;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = '\0';
    return n >= 0;
}

static int struck_fd(const char *call, int fd, int *error) {
    char path[PATH_MAX];
    return path_of(fd, path) && struck(call, path, error);
}

static int struck_at(const char *call, int directory, const char *name, int *error) {
    char below[PATH_MAX];
    char path[2 * PATH_MAX];
    if (directory == AT_FDCWD || name[0] == '/') return struck(call, name, error);
    if (!path_of(directory, below)) return 0;
    snprintf(path, sizeof path, "%s/%s", below, name);
    return struck(call, path, error);
}

/* Fail with the error of a call that is struck. */
#define FAIL_IF(is_struck) \
    do { \
        int error; \
        if (is_struck) { \
            errno = error; \
            return -1; \
        } \
    } while (0)

static int open_at(int directory, const char *name, int flags, mode_t mode) {
    FAIL_IF(struck_at("open", directory, name, &error));
    return (int)syscall(SYS_openat, directory, name, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *name, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_at(directory, name, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    FAIL_IF(struck("mkdir", path, &error));
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    int error;
    if (struck_fd("pwrite", fd, &error)) {
        if (error == 0 && size > 1) return syscall(SYS_pwrite64, fd, bytes, size / 2, offset);
        errno = error != 0 ? error : ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

int fdatasync(int fd) {
    FAIL_IF(struck_fd("fdatasync", fd, &error));
    return (int)syscall(SYS_fdatasync, fd);
}

/* As file systems do that make inode numbers up. */
int fstatat(int directory, const char *name, struct stat *info, int flags) {
    int error;
    const long result = syscall(SYS_newfstatat, directory, name, info, flags);
    if (result == 0 && (struck_at("renumber", directory, name, &error) ||
                        struck_at("renumber_all", directory, name, &error))) {
        info->st_ino += 1000000 + (ino_t)atomic_fetch_add(&faults, 1);
    }
    return (int)result;
}

int fstat(int fd, struct stat *info) {
    int error;
    if (struck_fd("renumber_all", fd, &error)) {
        const long result = syscall(SYS_newfstatat, fd, "", info, AT_EMPTY_PATH);
        info->st_ino += 1000 + (ino_t)fd;
        return (int)result;
    }
    FAIL_IF(struck_fd("fstat", fd, &error));
    return (int)syscall(SYS_newfstatat, fd, "", info, AT_EMPTY_PATH);
}

int ftruncate(int fd, off_t size) {
    FAIL_IF(struck_fd("ftruncate", fd, &error));
    return (int)syscall(SYS_ftruncate, fd, size);
}

int unlinkat(int directory, const char *name, int flags) {
    FAIL_IF(struck_at("unlink", directory, name, &error));
    return (int)syscall(SYS_unlinkat, directory, name, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat(int from, const char *old_name, int to, const char *new_name) {
    FAIL_IF(struck_at("rename", from, old_name, &error));
    return (int)syscall(SYS_renameat2, from, old_name, to, new_name, 0);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int posix_fallocate(int fd, off_t offset, off_t size) {
    int error;
    if (struck_fd("posix_fallocate", fd, &error)) return error;
    return syscall(SYS_fallocate, fd, 0, offset, size) == 0 ? 0 : errno;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    int error;
    if (fd >= 0 && struck_fd("mmap", fd, &error)) {
        errno = error;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

int flock(int fd, int operation) {
    FAIL_IF(struck_fd("flock", fd, &error));
    return (int)syscall(SYS_flock, fd, operation);
}
