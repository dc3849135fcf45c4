/*
 * call.h - one small request and its answer in memory, for a thread that waits for it.
 */
#ifndef PENSTOCK_LOADER_REMOTE_CALL_H
#define PENSTOCK_LOADER_REMOTE_CALL_H

#include <stddef.h>
#include <stdint.h>

#include "loader/remote/remote.h"

struct call {
    const char *method; /* "GET", "HEAD", "PUT" */
    const char *url;
    const char *query; /* of an S3 request to the bucket; NULL: to the object */
    const void *body;  /* for PUT */
    size_t body_bytes;
    uint64_t limit_bytes; /* of the answer's body */
};

struct call_answer {
    char *content; /* malloc'd, one byte of 0 behind it; NULL when there is none */
    size_t content_bytes;
    struct remote_version version;
};

/* Waits. 0, or -1 with *error set and nothing to free. */
int call_make(struct remote *remote, const struct call *call, const struct remote_call *how,
              struct call_answer *answer, struct error *error);

#endif /* PENSTOCK_LOADER_REMOTE_CALL_H */
