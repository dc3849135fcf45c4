/*
 * source_engine.h - inside source.*: the steps of one read, and what an engine does with them.
 *
 * A read is a small state machine. An engine (source_uring.c, source_pread.c) only carries out
 * its system calls; what they mean is decided here, once, so that both engines give the same
 * bytes and the same errors:
 *
 *     read_begin -> [open -> read_opened] -> read_next, a read, read_advance ... -> READ_DONE
 */
#ifndef PENSTOCK_LOADER_SOURCE_ENGINE_H
#define PENSTOCK_LOADER_SOURCE_ENGINE_H

#include <stdint.h>
#include <sys/types.h>

#include "loader/source.h"

/* What a request needs next; request->state. */
enum read_state {
    READ_IDLE = 0, /* the caller's */
    READ_OPEN,     /* open request->path with read_open_flags() */
    READ_BYTES,    /* read what read_next() says from request->fd */
    READ_DONE,     /* request->error tells how it went; the descriptor is closed or the cache's */
};

enum { READ_ALIGNMENT_BYTES = 4096, READ_TAIL_BYTES = 64 };

/* A descriptor with what fstat() said of it. */
struct read_file {
    int fd;
    uint64_t size_bytes;
    int64_t mtime_ns;
    uint32_t align_bytes; /* of O_DIRECT reads; 0: buffered */
};

/* Set the request to its first state: READ_OPEN. */
void read_begin(struct read_request *request);

/* Go on with an open shard (borrowed) instead: READ_BYTES or READ_DONE. */
void read_use_file(struct read_request *request, const struct read_file *file,
                   uint64_t file_bytes_max);

/* Room for need_bytes in the request's buffer, aligned for O_DIRECT; what it held is not kept. */
bool read_reserve(struct read_request *request, uint64_t need_bytes);

int read_open_flags(const struct read_request *request);

/* The open gave a descriptor, or a negative errno. Next state: READ_OPEN once more (without
 * O_DIRECT), READ_BYTES or READ_DONE. */
void read_opened(struct read_request *request, int result, uint64_t file_bytes_max);

struct read_span {
    uint8_t *to;
    uint32_t size_bytes; /* > 0 */
    uint64_t offset_bytes;
};
struct read_span read_next(const struct read_request *request);

/* The read gave a number of bytes, or a negative errno. Next state: READ_BYTES or READ_DONE. */
void read_advance(struct read_request *request, ssize_t result);

/* Carry out all that is left of a request with blocking calls, to READ_DONE. */
void read_run(struct read_request *request, uint64_t file_bytes_max);

/* Fill *file for an open descriptor: 0, or EISDIR, EINVAL (neither file nor folder), ... */
int read_file_inspect(struct read_file *file, int fd, bool direct);

/* An engine. All of it under the caller's lock but interrupt(). */
struct source_ops {
    enum source_engine kind;
    /* NULL with the reason as text. file_bytes_max is passed on to the steps above. */
    void *(*create)(uint32_t depth, uint64_t file_bytes_max, char *reason, size_t reason_bytes);
    void (*destroy)(void *engine); /* nothing is in flight */
    /* Requests in state READ_OPEN or READ_BYTES. */
    void (*submit)(void *engine, struct read_request *const *requests, size_t count);
    /* As source_reap(); gives back requests in state READ_DONE. */
    size_t (*reap)(void *engine, struct read_request **done, size_t max, int timeout_ms);
    void (*interrupt)(void *engine);
};

const struct source_ops *source_uring_ops(void);
const struct source_ops *source_pread_ops(void);

/* A list of requests through request->next, first in, first out. */
struct read_list {
    struct read_request *first, *last;
};
void read_list_append(struct read_list *list, struct read_request *request);
struct read_request *read_list_take(struct read_list *list); /* NULL: empty */

#endif /* PENSTOCK_LOADER_SOURCE_ENGINE_H */
