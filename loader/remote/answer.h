/*
 * answer.h - the head of an HTTP answer, and what must hold before a byte of its body is believed.
 *
 * Everything in an answer is hostile until checked here. No I/O, no memory, any thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_ANSWER_H
#define PENSTOCK_LOADER_REMOTE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/remote/checksum.h"
#include "loader/remote/remote.h"

/* What the fields of a head say; texts are "" and numbers negative or 0 where a field is absent.
 * A field that is too long, malformed or contradicts an earlier one counts as absent, except for
 * Content-Range, which then makes the answer unusable. */
struct answer {
    int status; /* 0: no head came */
    int64_t content_length_bytes;
    bool has_range;
    bool is_range_bad;
    uint64_t range_first, range_last;
    int64_t range_total_bytes; /* -1: "*" */
    char tag[REMOTE_TAG_BYTES];
    char last_modified[64];
    char date[64];
    char region[64];     /* x-amz-bucket-region */
    char request_id[96]; /* x-amz-request-id */
    uint32_t retry_after_s;
    bool is_checksum_partial; /* of parts, not of the object */
    struct checksum checksum; /* the strongest that was offered */
};

/* Take in one line of a head, with or without its end of line. A status line starts a new head and
 * forgets the one before (100 Continue, redirects). */
void answer_take_line(struct answer *answer, const char *line, size_t length);

/* A tag that may stand in a header of ours: quotes around visible ASCII, or "@" and a date. */
bool answer_tag_is_usable(const char *tag);

/* Make a usable tag from an ETag as servers and listings write it: weak ones give "", missing
 * quotes are added. */
void answer_tag_copy(char tag[REMOTE_TAG_BYTES], const char *text, size_t length);

/* The version that a complete answer is of: its tag, and the object's whole size. False when the
 * answer does not say how large the object is. */
bool answer_version(const struct answer *answer, struct remote_version *version);

enum answer_verdict {
    ANSWER_GOOD,
    ANSWER_BAD,     /* another try may give a good one */
    ANSWER_CHANGED, /* of another version than the one wanted */
};

enum { ANSWER_WHY_BYTES = 256 };

/* May the body be taken as bytes [offset, offset + length) of `wanted` (tag "": of any version)?
 * 206 must say exactly this range; 200 will do when the range is the whole object. Otherwise `why`
 * is a clause for the user. */
enum answer_verdict answer_check(const struct answer *answer, const struct remote_version *wanted,
                                 uint64_t offset_bytes, uint64_t length_bytes,
                                 char why[ANSWER_WHY_BYTES]);

#endif /* PENSTOCK_LOADER_REMOTE_ANSWER_H */
