/*
 * failure.h - what to do about an attempt that failed, and how to say it to a user.
 *
 * No secret gets into a text: neither keys, tokens, nor the query of a URL. Pure; any thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_FAILURE_H
#define PENSTOCK_LOADER_REMOTE_FAILURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"
#include "loader/remote/answer.h"
#include "loader/remote/identity.h"
#include "loader/remote/transfer.h"

enum failure_action {
    FAILURE_AGAIN,   /* try again, later each time */
    FAILURE_RENEW,   /* try again with fresh credentials */
    FAILURE_MOVED,   /* try again in failure.region */
    FAILURE_CHANGED, /* the object is no longer the version that was wanted */
    FAILURE_VAGUE,   /* a HEAD's answer cannot say why: ask with GET */
    FAILURE_FINAL,
};

struct failure {
    enum failure_action action;
    bool is_busy; /* the server asks to come again */
    char region[S3_REGION_BYTES];
    struct error error; /* whole sentences, for when it stays at that */
};

/* What was attempted. */
struct failure_scene {
    const char *url;                 /* the user's */
    const struct s3_target *target;  /* where it led */
    const struct identity *identity; /* NULL for http(s):// */
    const char *profile;
    bool is_head;
    bool is_write;
};

enum { FAILURE_BODY_BYTES = 16 * 1024 };

/* An answer with another status than 2xx; `body` is its first FAILURE_BODY_BYTES at most. */
void failure_judge_answer(const struct failure_scene *scene, const struct answer *answer,
                          const char *body, size_t body_bytes, struct failure *failure);

/* No whole answer came. */
void failure_judge_transfer(const struct failure_scene *scene, const struct transfer_result *result,
                            struct failure *failure);

#endif /* PENSTOCK_LOADER_REMOTE_FAILURE_H */
