/*
 * source.h - bytes of local files, many reads at once: io_uring, or a pool of pread threads where
 * io_uring is refused. Both give the same bytes and the same errors.
 *
 * Threads    submit and reap: one thread at a time (the caller holds a lock over both), and none
 *            that submitted may end while its reads are in flight; interrupt: any thread. A read
 *            of cached pages by io_uring is done, copy and all, inside submit or reap.
 * Ownership  A request and its buffer belong to the source from submit until reap hands it back.
 */
#ifndef PENSTOCK_LOADER_SOURCE_H
#define PENSTOCK_LOADER_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"

struct read_file;
struct store_job;
struct store_read;

enum source_engine { SOURCE_AUTO = 0, SOURCE_URING, SOURCE_PREAD };

struct source_options {
    enum source_engine engine; /* AUTO: io_uring, else pread with the reason kept */
    uint32_t depth;            /* reads in flight at most, 1..1024 */
    uint64_t file_bytes_max;   /* larger files and ranges fail with EFBIG */
};

struct read_request {
    /* set by the caller */
    const char *path; /* must stay valid until reaped; with a tag: a URL */
    bool keep_open;   /* a shard: its descriptor is kept for further reads (LRU) */
    bool direct;      /* O_DIRECT if the file system can, else buffered */
    uint64_t offset_bytes;
    uint64_t length_bytes;   /* 0: the whole file, whatever its size is when it is opened (and
                                offset_bytes is not looked at); of a shard: nothing, an empty
                                member */
    uint64_t expect_bytes;   /* keep_open: size and mtime that the shard must have, else ESTALE; */
    int64_t expect_mtime_ns; /* 0: not checked */
    const struct read_file *file; /* keep_open: an open file in the place of path, borrowed; */
    void *owner;                  /* NULL: path */

    /* for reader.h only: which version of a remote object. With a tag, path is its URL,
     * length_bytes 0 means the whole object, and keep_open, direct and what is expected are not
     * looked at. */
    const char *tag;       /* NULL: a local file, and the rest of this is not looked at */
    uint64_t object_bytes; /* size of the whole object */
    const char *profile;   /* NULL: the default credentials */
    struct store_job *job; /* whose read it is, for its figures; may be NULL */

    /* set by the source: the result */
    int error;            /* 0, or an errno: ENOENT, EIO, ESTALE, EFBIG, ENODATA (the file ended
                             before the range did), EISDIR, EINVAL (a FIFO, a device), ... */
    struct error failure; /* of remote requests: the error told, kind ERROR_NONE without one; error
                             is then EREMOTEIO, or ECANCELED. It was retried before it was told */
    uint8_t *bytes; /* in the buffer below; 64 zero bytes follow the last. NULL after an error */
    size_t size_bytes;

    /* kept by the source between uses; zero before the first */
    uint8_t *buffer;
    size_t buffer_bytes;
    uint32_t state;
    int fd;
    uint64_t done_bytes;
    uint64_t wanted_bytes;
    uint32_t align_bytes;
    void *shard;
    struct store_read *remote;
    struct read_request *next;
};

/* Free the buffer of a request that is not in flight. Buffers over keep_bytes_max are freed by
 * request_trim() after use, so that one huge image does not stay. */
void read_request_trim(struct read_request *request, size_t keep_bytes_max);
void read_request_clear(struct read_request *request);

struct source;

/* NULL when neither engine can be made (memory). */
struct source *source_create(const struct source_options *options);
void source_destroy(struct source *source); /* waits for reads in flight; NULL is accepted */

enum source_engine source_engine(const struct source *source);
/* Why io_uring is not used: "io_uring_setup: Operation not permitted (EPERM)...", or "". */
const char *source_engine_reason(const struct source *source);

/* Start reads. At most depth may be in flight: the caller counts. */
void source_submit(struct source *source, struct read_request *const *requests, size_t count);

/* Finished reads, at most `max`. With timeout_ms > 0 waits that long for the first one; 0 only
 * looks. Returns early, perhaps with none, after source_interrupt(). */
size_t source_reap(struct source *source, struct read_request **done, size_t max, int timeout_ms);

/* Make a source_reap() that waits (or the next one) return. */
void source_interrupt(struct source *source);

#endif /* PENSTOCK_LOADER_SOURCE_H */
