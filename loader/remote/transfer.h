/*
 * transfer.h - HTTP requests in progress, many at once, on one thread of their own: libcurl's multi
 * interface on epoll.
 *
 * A transfer is one attempt: it is sent, its answer streams in, it ends. Nothing is tried again
 * here.
 *
 * Threads: transfer_loop_wake() may be called by any; transfer_start() and transfer_stop() only
 * on the loop's thread, that is from the callbacks.
 */
#ifndef PENSTOCK_LOADER_REMOTE_TRANSFER_H
#define PENSTOCK_LOADER_REMOTE_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"
#include "loader/remote/answer.h"

struct transfer_loop;
struct transfer;

struct transfer_loop_options {
    uint32_t connections_max;
    uint32_t connect_timeout_ms;
    const char *ca_file; /* PEM; NULL: the system's */
    /* Called on the loop's thread after each batch of events, when woken and when due. Returns when
     * it wants to be called next at the latest (clock_now_ns). */
    uint64_t (*on_turn)(void *context, uint64_t now_ns);
    void *context;
};

/* The thread runs from here on. */
struct transfer_loop *transfer_loop_create(const struct transfer_loop_options *options,
                                           struct error *error);

/* End the thread after one more turn, and wait for that. */
void transfer_loop_stop(struct transfer_loop *loop);

/* After transfer_loop_stop(); no transfer may be left. */
void transfer_loop_destroy(struct transfer_loop *loop);

void transfer_loop_wake(struct transfer_loop *loop);

/* How a transfer ended. */
enum transfer_end {
    TRANSFER_COMPLETE,   /* an answer with its whole body, whatever its status */
    TRANSFER_REFUSED,    /* a callback returned false */
    TRANSFER_NO_NAME,    /* DNS */
    TRANSFER_NO_CONNECT, /* nobody listens, no route, or no answer in connect_timeout_ms */
    TRANSFER_NO_PROXY,   /* the proxy's name or port */
    TRANSFER_NO_TRUST,   /* TLS: the certificate, or the CA file */
    TRANSFER_BROKEN,     /* reset, closed early, or not HTTP */
    TRANSFER_UNFIT,      /* the URL or a setting cannot be used */
};

struct transfer_result {
    enum transfer_end end;
    char reason[256];       /* libcurl's words; "" when complete */
    uint32_t connections;   /* opened for it: 0 when one was at hand */
    uint64_t first_byte_ns; /* from start to the answer's first byte; 0: none came */
    uint64_t total_ns;
};

/* What to send. Borrowed for the call of transfer_start(), except for body. */
struct transfer_request {
    const char *method; /* "GET", "HEAD" or "PUT" */
    const char *url;
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    const char *range;      /* "0-99", or NULL */
    const char *signing;    /* "aws:amz:REGION:s3", or NULL: unsigned */
    const char *access_key; /* with signing */
    const char *secret_key;
    const void *body; /* for PUT; stays until the end */
    size_t body_bytes;
    bool is_connection_new; /* use none that is at hand */
    bool is_followed;       /* follow redirects */
};

/* The callbacks run on the loop's thread. on_head comes once, before on_body and before on_done,
 * if there is an answer at all. False from on_head or on_body ends the transfer. */
struct transfer_callbacks {
    bool (*on_head)(void *context, const struct answer *answer);
    bool (*on_body)(void *context, const uint8_t *data, size_t size_bytes);
    /* The transfer is gone when this returns. */
    void (*on_done)(void *context, const struct answer *answer,
                    const struct transfer_result *result);
};

/* NULL: out of memory. The transfer's first callback never comes from inside this call. */
struct transfer *transfer_start(struct transfer_loop *loop, const struct transfer_request *request,
                                const struct transfer_callbacks *callbacks, void *context);

/* Ends it at once, without on_done. Not from its own on_head or on_body: return false there. */
void transfer_stop(struct transfer *transfer);

#endif /* PENSTOCK_LOADER_REMOTE_TRANSFER_H */
