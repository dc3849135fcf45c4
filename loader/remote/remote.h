/*
 * remote.h - bytes of objects behind s3://, https:// and http:// URLs.
 *
 * One network thread drives every connection (libcurl's multi interface on epoll). A *part* is one
 * range of one object: it is asked for, checked, tried again, asked for a second time when it is
 * slow, and ends once, either complete or with an error for the user. No byte is delivered that is
 * not known to be of the version and the place that was asked for.
 *
 * URLs: s3://bucket/key (the key is taken as it stands, nothing in it is decoded), or an http:// or
 * https:// URL as a browser takes it. Where an s3:// URL leads (endpoint, region, style) and with
 * which credentials is settled as the AWS SDKs do it: the options below, then the environment, then
 * the shared config files, for the named profile. Credentials are found and refreshed on a thread
 * of their own.
 *
 * Threads: everything but create and destroy may be called by any thread. Callbacks run on the
 * network thread: they must be short, and may call remote_part_start() and remote_part_cancel()
 * only. Nothing here survives fork().
 */
#ifndef PENSTOCK_LOADER_REMOTE_REMOTE_H
#define PENSTOCK_LOADER_REMOTE_REMOTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"

struct remote;
struct exchange;

/* What is 0 or NULL is the default. Texts are copied. */
struct remote_options {
    uint32_t connections_max;    /* 64: requests in progress at once; the rest wait, in order */
    uint32_t connect_timeout_ms; /* 5,000 */
    uint32_t stall_timeout_ms;   /* 5,000: an answer that brings (nearly) nothing is given up */
    uint32_t give_up_ms;         /* 120,000 without a new byte: the part fails */
    uint32_t retry_delay_max_ms; /* 2,500; Retry-After may ask for more */
    uint32_t hedge_percent;      /* 5: second requests for slow parts, of all; UINT32_MAX: none */
    const char *endpoint;        /* over AWS_ENDPOINT_URL_S3 and the like */
    const char *region;          /* over AWS_REGION */
    const char *addressing;      /* "path", "virtual" or "auto" */
    const char *ca_file;         /* PEM; over AWS_CA_BUNDLE, SSL_CERT_FILE */
    bool anonymous;              /* sign nothing, as with AWS_NO_SIGN_REQUEST=true */
    bool requester_pays;         /* or AWS_REQUEST_PAYER=requester */
};

/* NULL with *error set when an option is wrong or the machine refuses threads or descriptors. */
struct remote *remote_create(const struct remote_options *options, struct error *error);

/* Parts in progress end as cancelled first, their on_done included. No blocking call may be in
 * progress. */
void remote_destroy(struct remote *remote);

/* Whether `path` is a URL for this module rather than a local path. */
bool remote_is_url(const char *path);

enum { REMOTE_TAG_BYTES = 192, REMOTE_URL_BYTES = 4096 };

/* Which content an object has. */
struct remote_version {
    uint64_t size_bytes;
    /* The strong ETag as the server sends it, with its quotes; of a server that has none "@" and
     * the Last-Modified date; "": unknown, and size_bytes means nothing. */
    char tag[REMOTE_TAG_BYTES];
};

/* ---- Parts ---------------------------------------------------------------------------------- */

/* The caller fills in the first half and keeps the part, its texts and its buffer until on_done.
 * Zero it first. */
struct remote_part {
    const char *url;
    const char *profile;           /* of the shared config files; NULL or "": the default */
    struct remote_version version; /* the content wanted; without a tag the answer teaches it */
    uint64_t offset_bytes;
    uint64_t length_bytes; /* > 0; the range must lie in the object */
    uint8_t *buffer;       /* length_bytes; what lies beyond received_bytes may be scribbled on */
    /* The first contiguous_bytes of the buffer are final. Called when there are new ones, not for
     * each packet; not the last time, which is on_done's. May be NULL. */
    void (*on_progress)(struct remote_part *part, uint64_t contiguous_bytes);
    /* Exactly once; afterwards the part is the caller's again. error.kind ERROR_NONE: all of it
     * is there. ERROR_CHANGED: the object is no longer the version wanted. ERROR_MISSING,
     * ERROR_ACCESS, ERROR_IO, ERROR_CANCELLED as the names say. */
    void (*on_done)(struct remote_part *part);
    void *owner; /* the caller's */

    /* Result. */
    struct error error;
    uint64_t received_bytes;    /* contiguous from the front; also after an error */
    struct remote_version seen; /* the version that these bytes are of; tag "": no answer came */

    /* Private. */
    struct remote_part *next;
    struct exchange *exchange;
    atomic_bool is_cancelled;
};

/* Parts start in the order of these calls. */
void remote_part_start(struct remote *remote, struct remote_part *part);

/* Want it no longer: on_done comes soon, with ERROR_CANCELLED unless it was done already. Harmless
 * for a part that has just ended, as long as its memory is there. */
void remote_part_cancel(struct remote *remote, struct remote_part *part);

/* ---- For threads that may wait -------------------------------------------------------------- */

/* How a call that waits is meant: whose credentials, and what ends it early (NULL: nothing; looked
 * at every 100 ms; the call then fails with ERROR_CANCELLED). */
struct remote_call {
    const char *profile;
    const atomic_bool *cancel;
};

/* Size and tag of an object. Each of these is 0, or -1 with *error set. */
int remote_head(struct remote *remote, const char *url, const struct remote_call *call,
                struct remote_version *version, struct error *error);

/* One entry of a listing: an object, or, with a delimiter, a common prefix (its URL ends with '/',
 * its version is empty). Texts live until the visitor returns. */
struct remote_entry {
    const char *url;
    bool is_prefix;
    struct remote_version version; /* tag "" when the server lists none that is strong */
};

/* False ends the listing early, with success. */
typedef bool (*remote_visitor)(void *context, const struct remote_entry *entry);

/* Everything below an s3:// URL, in the order of the keys' bytes: url is "s3://bucket/prefix".
 * is_deep: all objects; else only up to the next '/', with common prefixes. The visitor runs on
 * the calling thread. http(s):// cannot be listed: ERROR_USAGE. An empty listing is no error. */
int remote_list(struct remote *remote, const char *url, bool is_deep,
                const struct remote_call *call, remote_visitor visit, void *context,
                struct error *error);

/* A whole object of at most limit_bytes, into memory that the caller frees; one byte of 0 follows
 * the content. *version (may be NULL) is what it is the content of. */
int remote_read(struct remote *remote, const char *url, uint64_t limit_bytes,
                const struct remote_call *call, void **content, size_t *size_bytes,
                struct remote_version *version, struct error *error);

/* Put an object (s3:// only) in one request, over what may be there. */
int remote_write(struct remote *remote, const char *url, const void *content, size_t size_bytes,
                 const struct remote_call *call, struct error *error);

/* ---- Figures -------------------------------------------------------------------------------- */

/* Since remote_create(), but where the name says otherwise. */
struct remote_stats {
    uint64_t requests;       /* HTTP requests sent */
    uint64_t hedges;         /* of these: second requests for slow parts */
    uint64_t hedges_won;     /* ... that ended first */
    uint64_t retries;        /* ... that repeat a failed one */
    uint64_t received_bytes; /* of bodies */
    uint64_t wasted_bytes;   /* ... that were dropped: repeated, or refused by a check */
    uint64_t connections;    /* opened */
    uint64_t failed_connect; /* failures of attempts, by kind: no connection (DNS included) */
    uint64_t failed_stall;   /* nothing, or nearly nothing, came in stall_timeout_ms */
    uint64_t failed_broken;  /* reset or closed in mid-answer */
    uint64_t failed_busy;    /* 503, 429 and other answers that ask to come again */
    uint64_t failed_check;   /* a wrong range, length, version or checksum */
    uint64_t failed_refused; /* 4xx: no attempt follows */
    uint32_t active_now;     /* requests in progress */
    uint32_t waiting_now;    /* parts that wait for their turn, for credentials or to be retried */
    uint64_t latency_ns;     /* running median of the time to the first byte */
    uint64_t bytes_per_second; /* running median of one connection's rate, after the first byte */
};

void remote_stats_get(struct remote *remote, struct remote_stats *stats);

#endif /* PENSTOCK_LOADER_REMOTE_REMOTE_H */
