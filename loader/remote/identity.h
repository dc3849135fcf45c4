/*
 * identity.h - who we are to S3 and how we get there: credentials and settings of a profile.
 *
 * An identity is found once per profile, on a thread of its own because that may read files, run a
 * program or ask servers; it is found again before it expires, and when a server no longer
 * takes it. Secrets are wiped when the last reference is released.
 *
 * Threads: any.
 */
#ifndef PENSTOCK_LOADER_REMOTE_IDENTITY_H
#define PENSTOCK_LOADER_REMOTE_IDENTITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/error.h"
#include "loader/remote/s3_address.h"

enum { IDENTITY_SOURCE_BYTES = 160 };

/* Immutable once it is shared. */
struct identity {
    struct s3_settings settings;
    char *access_key; /* NULL: requests go unsigned */
    char *secret_key;
    char *session_token;                /* NULL: none */
    int64_t expires_s;                  /* seconds since 1970; 0: never, as far as we know */
    char source[IDENTITY_SOURCE_BYTES]; /* for people: "the environment (AWS_ACCESS_KEY_ID)" */
    atomic_uint references;
};

/* With one reference. NULL: out of memory. */
struct identity *identity_create(void);
struct identity *identity_acquire(struct identity *identity);
void identity_release(struct identity *identity); /* may be NULL */

/* Whether both would sign alike. */
bool identity_equals(const struct identity *left, const struct identity *right);

struct identities;

/* Find the identity of `profile` ("": the default one). May take seconds. *is_temporary: another
 * try may do better. Returns 0 with a new reference, or -1. */
typedef int (*identity_finder)(void *context, const char *profile, struct identity **identity,
                               bool *is_temporary, struct error *error);

/* on_change is called on the finder's thread whenever an answer of identities_get() may be another
 * one. */
struct identities *identities_create(identity_finder find, void (*on_change)(void *context),
                                     void *context, struct error *error);
void identities_destroy(struct identities *identities);

enum identity_state { IDENTITY_READY, IDENTITY_PENDING, IDENTITY_FAILED };

/* Never waits. READY: *identity is a new reference. FAILED: *error, which may be asked about
 * again later. */
enum identity_state identities_get(struct identities *identities, const char *profile,
                                   struct identity **identity, struct error *error);

/* A server refused this identity as expired or unknown: find it anew, unless that was done since.
 * False: it was found anew a moment ago, and is the same; there is no point in going on. */
bool identities_refused(struct identities *identities, const char *profile,
                        const struct identity *identity);

#endif /* PENSTOCK_LOADER_REMOTE_IDENTITY_H */
