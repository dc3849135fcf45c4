/*
 * session_spec.h - what a trainer asks for when it attaches, as plain checked values.
 *
 * Filled by request.c from a control message; docs/protocol.md tells each member's meaning.
 */
#ifndef PENSTOCK_LOADER_SESSION_SPEC_H
#define PENSTOCK_LOADER_SESSION_SPEC_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/recipe.h"
#include "loader/index.h"
#include "loader/plan.h"

enum bad_policy { BAD_RAISE = 0, BAD_SKIP, BAD_ZERO, BAD_REPLACE };

enum field_kind { FIELD_IMAGE = 0, FIELD_LABEL, FIELD_TEXT, FIELD_BYTES };

struct field_spec {
    char name[64];
    enum field_kind kind;
    char pattern[256]; /* "jpg;jpeg;png" for tars */
};

enum {
    SESSION_JOB_BYTES = 64,
    SESSION_PROFILE_BYTES = 128,
    SESSION_NAME_BYTES = 256,
    SESSION_SIDE_BYTES_DEFAULT = 4096,
    SESSION_SLOTS_DEFAULT = 4,
};

struct session_spec {
    /* order */
    enum plan_kind order;
    uint32_t window_shards;
    uint64_t seed;
    uint64_t batch; /* global */
    uint32_t rank, world;
    enum plan_tail tail;
    uint64_t epoch, position;              /* where to begin */
    uint64_t window_ordinal, window_first; /* PLAN_WINDOW: the window that holds it, if known, and
                                              its first position; else both 0 */

    /* samples */
    struct transform transforms[RECIPE_TRANSFORMS_MAX];
    size_t transform_count;
    enum pack_layout layout;
    struct field_spec fields[INDEX_FIELDS_MAX];
    size_t field_count;
    uint32_t side_bytes; /* side area of a slot, per sample */
    enum bad_policy on_error;

    /* resources */
    uint32_t slots;
    uint32_t workers; /* 0: no cap */
    double weight;
    char job[SESSION_JOB_BYTES];
    char profile[SESSION_PROFILE_BYTES]; /* of the shared AWS config; "": the default */
    char name[SESSION_NAME_BYTES];
    cpu_set_t cpus;
    bool has_cpus;
};

#endif /* PENSTOCK_LOADER_SESSION_SPEC_H */
