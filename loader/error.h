/*
 * error.h - a failure told to a user: what kind, and one or two sentences that name the object,
 * the offset and the reason and end with what to do next.
 */
#ifndef PENSTOCK_LOADER_ERROR_H
#define PENSTOCK_LOADER_ERROR_H

/* The kinds cross the socket by name (docs/protocol.md); the Python client has an exception class
 * for each. */
enum error_kind {
    ERROR_NONE = 0,
    ERROR_USAGE,     /* an argument is wrong: "usage" */
    ERROR_DATASET,   /* the data set cannot be used as it is: "dataset" */
    ERROR_SAMPLE,    /* a bad sample under on_error="raise", or too many: "sample" */
    ERROR_IO,        /* reading failed after retries: "io" */
    ERROR_MEMORY,    /* the machine or cgroup has too little: "memory" */
    ERROR_STATE,     /* a saved state does not fit this loader: "state" */
    ERROR_PROTOCOL,  /* the peer broke the protocol: "protocol" */
    ERROR_INTERNAL,  /* a fault of ours: "internal" */
    ERROR_CHANGED,   /* a remote object was replaced while it was in use: "changed" */
    ERROR_ACCESS,    /* credentials are missing, wrong or not enough: "access" */
    ERROR_MISSING,   /* a remote object or bucket is not there: "missing" */
    ERROR_CANCELLED, /* whoever asked wants it no longer; never crosses the socket */
};

enum { ERROR_TEXT_BYTES = 1536 };

struct error {
    enum error_kind kind;
    char text[ERROR_TEXT_BYTES];
};

/* Fill *error (may be NULL) and return -1, so that `return error_set(...)` reads well. */
int error_set(struct error *error, enum error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

const char *error_kind_name(enum error_kind kind);

#endif /* PENSTOCK_LOADER_ERROR_H */
