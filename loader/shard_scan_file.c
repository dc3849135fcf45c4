/* Scans a local tar file: its bytes come from pread, and it must not change meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/index_build.h"
#include "loader/shard_scan.h"

struct file {
    const char *path;
    int fd;
};

static int fail_read(const struct file *file, uint64_t offset_bytes, struct error *error)
{
    return error_set(error, ERROR_IO,
                     "%s: reading at offset %" PRIu64 " failed: %s. Check the disk or the network.",
                     file->path, offset_bytes, strerror(errno));
}

static int fail_changed(const struct file *file, uint64_t offset_bytes, const char *what,
                        struct error *error)
{
    return error_set(error, ERROR_DATASET,
                     "%s: at offset %" PRIu64 ": %s. Index it when nobody writes to it any more.",
                     file->path, offset_bytes, what);
}

static int read_file(void *context, uint64_t offset_bytes, uint8_t *bytes, size_t size_bytes,
                     struct error *error)
{
    const struct file *file = context;
    for (size_t done = 0; done < size_bytes;) {
        ssize_t count =
            pread(file->fd, bytes + done, size_bytes - done, (off_t)(offset_bytes + done));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return fail_read(file, offset_bytes + done, error);
        }
        if (count == 0) {
            return fail_changed(file, offset_bytes + done,
                                "the file became shorter while it was read", error);
        }
        done += (size_t)count;
    }
    return 0;
}

/* Status before and after: a shard that is still written would give a mixed index. */
static int scan_open_file(const struct file *file, const struct timespec *now,
                          struct index_progress *progress, struct shard_scan *scan,
                          struct error *error)
{
    struct stat status, after;
    if (fstat(file->fd, &status) != 0) {
        return fail_read(file, 0, error);
    }
    posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM); /* read-ahead would fetch the images */
    struct shard_bytes source = {
        .size_bytes = (uint64_t)status.st_size, .read = read_file, .context = (void *)file};
    if (shard_scan_bytes(file->path, &source, progress, scan, error) < 0) {
        return -1;
    }
    scan->mtime_ns = index_build_mtime_ns(&status.st_mtim, now);
    if (fstat(file->fd, &after) != 0 || after.st_size != status.st_size ||
        after.st_mtim.tv_sec != status.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != status.st_mtim.tv_nsec) {
        shard_scan_clear(scan);
        return fail_changed(file, 0, "the file changed while it was read", error);
    }
    return 0;
}

int shard_scan_file(const char *path, const struct timespec *now, struct index_progress *progress,
                    struct shard_scan *scan, struct error *error)
{
    *scan = (struct shard_scan){0};
    struct file file = {path, open(path, O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) {
        return error_set(error, ERROR_DATASET,
                         "%s: cannot be opened: %s. Check the path and who may read it.", path,
                         strerror(errno));
    }
    int result = scan_open_file(&file, now, progress, scan, error);
    close(file.fd);
    return result;
}
