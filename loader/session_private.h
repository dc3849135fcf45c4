/*
 * session_private.h - the inside of a session, for session.c and session_create.c only.
 */
#ifndef PENSTOCK_LOADER_SESSION_PRIVATE_H
#define PENSTOCK_LOADER_SESSION_PRIVATE_H

#include <stdatomic.h>

#include "ipc/layout.h"
#include "loader/field_map.h"
#include "loader/session.h"
#include "loader/wait_window.h"

/* A slot being filled. The daemon never reads shared memory to know where it stands. */
struct fill {
    bool is_active;
    uint8_t *is_good; /* [places]; made once per slot */
    uint32_t slot;
    uint32_t generation; /* of the session when it was claimed; older: to be thrown away */
    uint64_t epoch, step, first_position;
    uint64_t next_epoch, next_position, next_window_ordinal, next_window_first;
    bool is_last;
    uint32_t place_count;   /* padding included */
    uint32_t sample_count;  /* places [0, sample_count) are samples */
    uint32_t planned_count; /* of them, given out as work */
    uint32_t pending_count; /* of them, not finished */
    uint32_t bad_count;
    _Atomic uint64_t side_used_bytes; /* decode threads reserve with fetch_add */
    struct error error;               /* of the lowest place that failed for good */
    uint32_t error_place;
};

struct session {
    /* Constant after session_create(). */
    uint64_t id;
    struct session_spec spec;
    struct index *index;
    struct field_map fields;
    struct recipe *recipe;
    uint64_t *subset;      /* canonical indices in the order of the plan; NULL: all */
    uint64_t *shard_first; /* of the subset's shards, for PLAN_WINDOW; else NULL */
    struct plan_order order;
    struct batch_layout layout;
    bool reads_direct; /* the data exceeds memory: O_DIRECT */
    struct bad_samples *bad_samples;
    uint64_t opened_ns;

    /* The rest is guarded by the pipeline's lock. */
    struct ring *ring;
    struct plan_epoch *plan; /* of the cursor's epoch */
    uint64_t plan_epoch_number;
    struct plan_cut cut;     /* of the cursor's epoch, from where the stream entered it */
    uint64_t cursor_batch;   /* next batch of the cut */
    uint64_t cursor_batches; /* of the cut */
    uint32_t generation;     /* raised by each seek */
    bool has_ended;          /* an error was published; nothing follows until a seek */

    struct fill fills[LAYOUT_SLOTS_MAX];    /* by slot */
    struct fill *planning;                  /* whose places are given out now, or NULL */
    uint32_t order_queue[LAYOUT_SLOTS_MAX]; /* slots in order of publication */
    uint32_t order_head, order_tail;

    uint64_t published_batches, published_samples, bad_count;
    uint64_t last_epoch, last_step;
    uint64_t noted_ns, full_ns;
    bool was_full;
    uint64_t rate_ns, rate_samples;
    double images_per_second;
    struct wait_window waits;

    struct session_queue queue;
};

/* ---- session_batches.c; under the pipeline's lock, but session_place() */

/* Stand at (epoch, position); false when memory for the epoch's plan is short. */
bool session_move_cursor(struct session *session, uint64_t epoch, uint64_t position);
/* Canonical index of the sample at a position of the cursor's epoch. */
uint64_t session_canonical_at(const struct session *session, uint64_t position);
/* Claim a slot for the cursor's batch and make it the one that is planned; false without one. */
bool session_begin_fill(struct session *session);
/* Publish or put back every finished slot whose turn has come. */
void session_settle_fills(struct session *session);

/* Where a field of a place lies. */
uint8_t *session_place(struct session *session, uint32_t slot, size_t field, uint32_t place);
void session_write_id(struct session *session, uint32_t slot, uint32_t place, uint64_t sample_id);
void session_write_valid(struct session *session, uint32_t slot, uint32_t place, bool is_valid);
/* Everything of a place but id and validity as for a sample that does not exist. */
void session_write_blank(struct session *session, uint32_t slot, uint32_t place);

#endif /* PENSTOCK_LOADER_SESSION_PRIVATE_H */
