/* A disk that fails: calls of the C library that write below one folder fail when told.

   Loaded before the C library (LD_PRELOAD). Until elision_fail is called, every call goes
   through. Calls below the folder are counted, bytes for writes; the first that exceeds
   what is left fails, and so do those after it. A write that fits in part is done in part,
   as a disk does it.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, RENAMES = 4, MAKES = 8 };

static char folder[PATH_MAX], but[PATH_MAX], aside[PATH_MAX];
static int error, counted, failing, has_failed;
static long left;

/* Begin: calls `counted` below `folder`, but not below `but`, have `left` to go. After that
   the calls `failing` fail with `error`; or, where `aside` is given, the folder is renamed
   to it, and the system answers. */
void elision_fail(const char *folder_, const char *but_, const char *aside_, int error_,
                  int counted_, int failing_, long left_)
{
    snprintf(folder, sizeof folder, "%s", folder_);
    snprintf(but, sizeof but, "%s", but_);
    snprintf(aside, sizeof aside, "%s", aside_);
    error = error_, counted = counted_, failing = failing_, left = left_, has_failed = 0;
}

static int below(const char *path, const char *top)
{
    size_t length = strlen(top);
    return length && !strncmp(path, top, length)
           && (path[length] == '/' || path[length] == 0 || top[length - 1] == '/');
}

static int meant_path(const char *path)
{
    char whole[2 * PATH_MAX], here[PATH_MAX];
    if (!folder[0])
        return 0;
    if (path[0] != '/' && getcwd(here, sizeof here)) {
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    return below(path, folder) && !below(path, but);
}

static int meant_file(int handle)
{
    char link[64], path[PATH_MAX];
    ssize_t size;
    if (!folder[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return path[0] == '/' && meant_path(path); /* a pipe has no path */
}

/* How much of a call's size may be done; -1: it fails, and errno is set. */
static long allowed(int kind, long size)
{
    long part;
    if (!has_failed && (counted & kind)) {
        part = size <= left ? size : left;
        left -= part;
        if (part == size)
            return size;
        has_failed = 1;
        if (aside[0])
            rename(folder, aside);
        if (part && kind == WRITES)
            return part;
    }
    if (!has_failed || !(failing & kind))
        return size;
    errno = error;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int handle, const void *data, size_t size)
{
    long part = size && meant_file(handle) ? allowed(WRITES, (long)size) : (long)size;
    return part < 0 ? -1 : REAL(write)(handle, data, (size_t)part);
}

ssize_t writev(int handle, const struct iovec *parts, int count)
{
    if (folder[0] && count && meant_file(handle)) /* fewer bytes than asked for is allowed */
        return write(handle, parts[0].iov_base, parts[0].iov_len);
    return REAL(writev)(handle, parts, count);
}

ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at)
{
    long part = size && meant_file(handle) ? allowed(WRITES, (long)size) : (long)size;
    return part < 0 ? -1 : REAL(pwrite64)(handle, data, (size_t)part, at);
}

ssize_t pwrite(int handle, const void *data, size_t size, off_t at)
{
    return pwrite64(handle, data, size, at);
}

int fsync(int handle)
{
    return meant_file(handle) && allowed(SYNCS, 1) < 0 ? -1 : REAL(fsync)(handle);
}

int rename(const char *old, const char *new)
{
    static __thread int inside; /* `aside` is a renaming, too */
    int answer;
    if (!inside && meant_path(new) && (inside = 1, answer = (int)allowed(RENAMES, 1), inside = 0, answer < 0))
        return -1;
    return REAL(rename)(old, new);
}

int mkdir(const char *path, mode_t mode)
{
    return meant_path(path) && allowed(MAKES, 1) < 0 ? -1 : REAL(mkdir)(path, mode);
}

static int may_open(const char *path, int flags)
{
    return !(flags & O_CREAT) || !meant_path(path) || allowed(MAKES, 1) >= 0;
}

#define OPENS(name)                                             \
    int name(const char *path, int flags, ...)                  \
    {                                                           \
        va_list rest;                                           \
        mode_t mode;                                            \
        va_start(rest, flags);                                  \
        mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                           \
        if (!may_open(path, flags))                             \
            return -1;                                          \
        return REAL(name)(path, flags, mode);                   \
    }

OPENS(open)
OPENS(open64)
