/*
 * request.h - control messages to plain values: everything that a client says is checked here.
 *
 * Pure: JSON in, structs out; no I/O. Unknown members, wrong types and values out of range are
 * ERROR_USAGE with the member's name, its value and what is allowed.
 */
#ifndef PENSTOCK_LOADER_REQUEST_H
#define PENSTOCK_LOADER_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "loader/error.h"
#include "loader/session_spec.h"

enum { REQUEST_URLS_MAX = 65536 };

enum request_op {
    REQUEST_HELLO = 1,
    REQUEST_DATASET,
    REQUEST_PLAN,
    REQUEST_ATTACH,
    REQUEST_SEEK,
    REQUEST_STATS,
    REQUEST_SAMPLE,
    REQUEST_STATUS,
    REQUEST_ERRORS,
    REQUEST_LOGS,
    REQUEST_DOCTOR,
    REQUEST_STOP,
    REQUEST_CACHE,
    REQUEST_PRELOAD,
};

struct request {
    enum request_op op;
    char **urls; /* source, when the op has one; owned */
    size_t url_count;
    bool rebuild;
    bool wait; /* dataset: for the index of all shards */
    bool has_subset;
    struct session_spec spec;        /* plan, attach, sample; profile of every source */
    uint64_t protocol;               /* hello */
    uint64_t epoch, position, taken; /* seek */
    uint64_t sample_id;              /* sample, with spec.epoch */
    uint64_t count;                  /* errors, logs */
    bool drain;                      /* stop */
};

/* 0, and the caller passes *request to request_clear(); or -1 and *error. */
int request_parse(const char *bytes, size_t length_bytes, struct request *request,
                  struct error *error);
void request_clear(struct request *request);

#endif /* PENSTOCK_LOADER_REQUEST_H */
