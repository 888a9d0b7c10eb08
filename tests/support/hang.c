/* A disk that hangs, without privileges: a layer between the program and the operating system (LD_PRELOAD).
 *
 * HANG_FILE is a file of lines "<operations> <beginning of a path>": as long as one of them stands there, these operations on
 * these paths do not come back, whoever asks for them. Operations are read, write, sync, open, rename, truncate and look, with
 * commas between them, or all. Each call that begins to hang appends "<operation> <path>" to HANG_MET, once. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *told, *met;

__attribute__((constructor)) static void begin(void) {
    told = getenv("HANG_FILE");
    met = getenv("HANG_MET");
    if (!told || !met)
        abort();
}

static int is_among(const char *word, const char *words) {
    size_t length = strlen(word);
    for (const char *at = words; *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == 0))
            return 1;
    return strcmp(words, "all") == 0;
}

static int hangs(const char *what, const char *path) {
    char text[4096], *rest = text;
    int fd = syscall(SYS_openat, AT_FDCWD, told, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *begins = strchr(line, ' ');
        if (!begins)
            continue;
        *begins++ = 0;
        if (is_among(what, line) && strncmp(path, begins, strlen(begins)) == 0)
            return 1;
    }
    return 0;
}

static void hold(const char *what, const char *path) {
    int why = errno;
    if (hangs(what, path)) {
        char line[4352];
        int length = snprintf(line, sizeof line, "%s %s\n", what, path);
        int fd = syscall(SYS_openat, AT_FDCWD, met, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || syscall(SYS_write, fd, line, length) != length)
            abort();
        syscall(SYS_close, fd);
        while (hangs(what, path))
            usleep(10000);
    }
    errno = why;
}

/* Whole, as the program names it. */
static void hold_name(const char *what, int folder, const char *path) {
    char whole[8192], here[4096];
    if (path[0] == '/' || folder != AT_FDCWD || !getcwd(here, sizeof here)) {
        hold(what, path);
        return;
    }
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    hold(what, whole);
}

static void hold_file(const char *what, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/')
        return;
    path[length] = 0;
    hold(what, path);
}

ssize_t read(int fd, void *bytes, size_t length) {
    hold_file("read", fd);
    return syscall(SYS_read, fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
    hold_file("read", fd);
    return syscall(SYS_pread64, fd, bytes, length, offset);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return pread64(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    hold_file("write", fd);
    return syscall(SYS_write, fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    hold_file("write", fd);
    return syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    hold_file("write", fd);
    return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

int ftruncate64(int fd, off64_t length) {
    hold_file("truncate", fd);
    return syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    hold_file("sync", fd);
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    hold_file("sync", fd);
    return syscall(SYS_fdatasync, fd);
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    hold_name("open", folder, path);
    return syscall(SYS_openat, folder, path, flags, mode);
}

#define MODE(flags)                                                                                                            \
    mode_t mode = 0;                                                                                                           \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                                   \
        va_list rest;                                                                                                          \
        va_start(rest, flags);                                                                                                 \
        mode = va_arg(rest, mode_t);                                                                                           \
        va_end(rest);                                                                                                          \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }

int rename(const char *from, const char *to) {
    hold_name("rename", AT_FDCWD, from);
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
    hold_name("rename", AT_FDCWD, path);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode) {
    hold_name("rename", AT_FDCWD, path);
    return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* What std::fs::metadata and SQLite ask with. */
int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict found) {
    /* An empty one, or none, asks about a file that is open. */
    if (!(flags & AT_EMPTY_PATH))
        hold_name("look", folder, path);
    return syscall(SYS_statx, folder, path, flags, mask, found);
}

int stat(const char *restrict path, struct stat *restrict found) {
    hold_name("look", AT_FDCWD, path);
    return syscall(SYS_newfstatat, AT_FDCWD, path, found, 0);
}

int stat64(const char *restrict path, struct stat64 *restrict found) {
    hold_name("look", AT_FDCWD, path);
    return syscall(SYS_newfstatat, AT_FDCWD, path, found, 0);
}
