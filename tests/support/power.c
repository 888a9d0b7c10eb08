/* A power cut without privileges: a layer between the program and the operating system (LD_PRELOAD) that notes how each file
 * was before what has not been synced yet, so that a test can take it back once the process is killed.
 *
 * POWER_ROOT is the folder that is watched, POWER_NOTES the one where the notes are kept:
 *   <inode>        what writes and truncations have changed of a file: { offset, size before, length, bytes before }, oldest
 *                  first; a sync adds { ~0, the length of the notes when it began, 0 }, or empties them
 *   names-<inode>  what happened to the names of a folder: a line each, and one for a sync of the folder
 *   kept-<number>  the file that a name stood for before it was removed or replaced
 *
 * A sync takes POWER_SYNC_US and touches no disk: the machine keeps its power.
 *
 * A note is written before what it is about happens, so that SIGKILL in between does no harm. What is mapped into memory is not
 * seen: in SQLite that is the index of the write-ahead log, which is built anew after a crash. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST = 65536 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *notes;
static ino_t watched[MOST];
static int notes_of[MOST];
static int files, kept;
static useconds_t sync_us;

__attribute__((constructor)) static void begin(void) {
    root = getenv("POWER_ROOT");
    notes = getenv("POWER_NOTES");
    const char *takes = getenv("POWER_SYNC_US");
    sync_us = takes ? atoi(takes) : 0;
}

/* A harness that cannot note anything must not go on as if it did. */
static void must(int is_well) {
    if (!is_well) {
        static const char why[] = "power.c: cannot keep notes\n";
        syscall(SYS_write, 2, why, sizeof why - 1);
        abort();
    }
}

static int open_notes(const char *kind, uint64_t number) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%llu", notes, kind, (unsigned long long)number);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    must(fd >= 0);
    return fd;
}

/* The place of a watched file in the tables; -1 for one that is not watched. */
static int find(int fd, struct stat *now) {
    if (fstat(fd, now) != 0 || !S_ISREG(now->st_mode))
        return -1;
    for (int at = files - 1; at >= 0; at--)
        if (watched[at] == now->st_ino)
            return at;
    return -1;
}

static void watch(int fd) {
    char link[64], path[4096];
    struct stat now;
    if (!root || !notes || fstat(fd, &now) != 0 || !S_ISREG(now.st_mode))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t of_root = strlen(root);
    if (length <= (ssize_t)of_root || strncmp(path, root, of_root) != 0 || path[of_root] != '/')
        return;
    if (find(fd, &now) >= 0)
        return;
    must(files < MOST);
    watched[files] = now.st_ino;
    notes_of[files++] = open_notes("", now.st_ino);
}

/* Notes what is at `offset` now, as far as the file goes. */
static void note(int at, int fd, const struct stat *now, uint64_t offset, uint64_t length) {
    uint64_t size = now->st_size;
    uint64_t old = offset >= size ? 0 : (size - offset < length ? size - offset : length);
    uint64_t head[3] = {offset, size, old};
    char *bytes = malloc(sizeof head + old);
    must(bytes != NULL);
    memcpy(bytes, head, sizeof head);
    /* The file may have been opened for writing only. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (old > 0) {
        int reading = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        must(reading >= 0 && syscall(SYS_pread64, reading, bytes + sizeof head, old, offset) == (long)old);
        syscall(SYS_close, reading);
    }
    must(syscall(SYS_write, notes_of[at], bytes, sizeof head + old) == (long)(sizeof head + old));
    free(bytes);
}

static uint64_t offset_of(int fd, const struct stat *now) {
    if (fcntl(fd, F_GETFL) & O_APPEND)
        return now->st_size;
    return lseek(fd, 0, SEEK_CUR);
}

static int is_file(int fd) {
    struct stat now;
    return notes && fstat(fd, &now) == 0 && S_ISREG(now.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct stat now;
    if (!is_file(fd))
        return syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&lock);
    int at = find(fd, &now);
    if (at >= 0)
        note(at, fd, &now, offset_of(fd, &now), length);
    ssize_t done = syscall(SYS_write, fd, bytes, length);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat now;
    size_t length = 0;
    if (!is_file(fd))
        return syscall(SYS_writev, fd, parts, count);
    for (int part = 0; part < count; part++)
        length += parts[part].iov_len;
    pthread_mutex_lock(&lock);
    int at = find(fd, &now);
    if (at >= 0)
        note(at, fd, &now, offset_of(fd, &now), length);
    ssize_t done = syscall(SYS_writev, fd, parts, count);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    struct stat now;
    pthread_mutex_lock(&lock);
    int at = find(fd, &now);
    if (at >= 0)
        note(at, fd, &now, offset, length);
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

int ftruncate64(int fd, off64_t length) {
    struct stat now;
    pthread_mutex_lock(&lock);
    int at = find(fd, &now);
    if (at >= 0)
        note(at, fd, &now, length, length < now.st_size ? now.st_size - length : 0);
    int done = syscall(SYS_ftruncate, fd, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static uint64_t length_of(int fd) {
    struct stat now;
    must(fstat(fd, &now) == 0);
    return now.st_size;
}

/* What was there when a sync began is not taken back once it has ended. */
static int synced(int fd) {
    struct stat now;
    if (fstat(fd, &now) != 0)
        return -1;
    pthread_mutex_lock(&lock);
    int is_folder = notes && S_ISDIR(now.st_mode);
    int at = find(fd, &now);
    int names = is_folder ? open_notes("names-", now.st_ino) : -1;
    uint64_t began = at >= 0 ? length_of(notes_of[at]) : is_folder ? length_of(names) : 0;
    pthread_mutex_unlock(&lock);
    usleep(sync_us);
    pthread_mutex_lock(&lock);
    /* Another sync of the file may have ended and emptied its notes meanwhile: then all that was there is safe, and more. */
    uint64_t length = at >= 0 ? length_of(notes_of[at]) : 0;
    if (at >= 0 && length == began) {
        must(syscall(SYS_ftruncate, notes_of[at], 0) == 0);
    } else if (at >= 0) {
        uint64_t mark[3] = {~0ULL, began, 0};
        must(syscall(SYS_write, notes_of[at], mark, sizeof mark) == sizeof mark);
    }
    if (is_folder) {
        char line[64];
        int length = snprintf(line, sizeof line, "synced\t%llu\t-\t-\n", (unsigned long long)began);
        must(syscall(SYS_write, names, line, length) == length);
        syscall(SYS_close, names);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

/* Whole, and in the root; otherwise of no concern. */
static int is_watched(const char *path, char *whole, size_t room) {
    if (!root || !notes)
        return 0;
    if (path[0] == '/') {
        snprintf(whole, room, "%s", path);
    } else {
        char here[4096];
        if (!getcwd(here, sizeof here))
            return 0;
        snprintf(whole, room, "%s/%s", here, path);
    }
    size_t of_root = strlen(root);
    return strncmp(whole, root, of_root) == 0 && whole[of_root] == '/';
}

/* Notes what happens to a name. `other` and `keeping` may be "-". */
static void note_name(const char *what, const char *path, const char *other, const char *keeping) {
    char folder[4096], line[16384];
    struct stat now;
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    if (stat(folder, &now) != 0)
        return;
    int fd = open_notes("names-", now.st_ino);
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", what, path, other, keeping);
    must(syscall(SYS_write, fd, line, length) == length);
    syscall(SYS_close, fd);
}

/* Keeps what a name stands for; "-" where it stands for nothing. */
static void keep(const char *path, char *keeping, size_t room) {
    snprintf(keeping, room, "%s/kept-%d-%d", notes, getpid(), kept++);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, keeping, 0) != 0)
        snprintf(keeping, room, "-");
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char whole[4096];
    pthread_mutex_lock(&lock);
    int is_new = 0;
    if ((flags & O_CREAT) && folder == AT_FDCWD && is_watched(path, whole, sizeof whole)) {
        is_new = syscall(SYS_faccessat, AT_FDCWD, whole, F_OK, 0) != 0;
        if (is_new)
            note_name("made", whole, "-", "-");
    }
    /* What O_TRUNC throws away is noted first. */
    int fd = syscall(SYS_openat, folder, path, flags & ~O_TRUNC, mode);
    if (fd >= 0) {
        if ((flags & O_ACCMODE) != O_RDONLY) {
            struct stat now;
            watch(fd);
            if (flags & O_TRUNC) {
                int at = find(fd, &now);
                if (at >= 0)
                    note(at, fd, &now, 0, now.st_size);
                syscall(SYS_ftruncate, fd, 0);
            }
        }
    }
    int why = errno;
    pthread_mutex_unlock(&lock);
    errno = why;
    return fd;
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
    char old[4096], new[4096], keeping[4096];
    pthread_mutex_lock(&lock);
    if (is_watched(from, old, sizeof old) && is_watched(to, new, sizeof new)) {
        keep(new, keeping, sizeof keeping);
        note_name("moved", new, old, keeping);
    }
    int done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    char whole[4096], keeping[4096];
    pthread_mutex_lock(&lock);
    if (is_watched(path, whole, sizeof whole)) {
        keep(whole, keeping, sizeof keeping);
        if (keeping[0] != '-')
            note_name("removed", whole, "-", keeping);
    }
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
