/*
 * session_private.h - the inside of a session, for session.c and session_create.c only.
 */
#ifndef PENSTOCK_LOADER_SESSION_PRIVATE_H
#define PENSTOCK_LOADER_SESSION_PRIVATE_H

#include <stdatomic.h>

#include "ipc/layout.h"
#include "loader/read_ahead.h"
#include "loader/samples.h"
#include "loader/session.h"
#include "loader/wait_window.h"
#include "loader/window_walk.h"

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

/* The cursor of a session on a catalog: session_windows.c. */
struct session_windows {
    struct window_walk *walk; /* NULL: the session has a whole index */
    uint64_t position;        /* where the cursor's batch begins */
    struct walk_batch batch;  /* has_batch: the cursor's */
    bool has_batch;
    bool is_waiting;         /* for shards, since ... */
    uint64_t changes;        /* ... the catalog's changes were these */
    uint64_t wanted_ordinal; /* windows before this one were asked for */
    struct error error;      /* kind ERROR_NONE: no shard that is needed has failed */
};

/* The next batch, from whichever cursor. */
struct next_batch {
    uint64_t step;
    struct plan_slice slice;
    uint64_t next_epoch, next_position, next_window_ordinal, next_window_first;
    bool is_last;
    const struct error *error; /* instead of a batch; NULL: none */
};

struct session {
    /* Constant after session_create(). */
    uint64_t id;
    struct session_spec spec;
    struct samples samples;
    struct read_ahead *read_ahead; /* of remote data; else, and without memory, NULL */
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
    struct plan_epoch *plan; /* of the cursor's epoch; NULL with a catalog */
    uint64_t plan_epoch_number;
    struct plan_cut cut;            /* of the cursor's epoch, from where the stream entered it */
    uint64_t cursor_batch;          /* next batch of the cut */
    uint64_t cursor_batches;        /* of the cut; not with a catalog */
    struct session_windows windows; /* with a catalog */
    uint32_t generation;            /* raised by each seek */
    bool has_ended;                 /* an error was published; nothing follows until a seek */

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

/* ---- session_windows.c; under the pipeline's lock, but session_windows_create() */

/* Stand at the spec's place and wait until its first batch can be told. *shard: one that is known.
 * 0, or -1 and *error. */
int session_windows_create(struct session *session, struct index_progress *progress,
                           uint32_t *shard, struct error *error);
void session_windows_destroy(struct session *session);
/* Stand at a position; the window that holds it begins at window_first, or is looked for from the
 * epoch's start (both 0). */
void session_windows_move(struct session *session, uint64_t epoch, uint64_t position,
                          uint64_t window_ordinal, uint64_t window_first);
/* Whether session_windows_next() would give something. Asks for shards. */
bool session_windows_are_ready(struct session *session);
/* The cursor's batch; the cursor moves past it. Only after session_windows_are_ready(). */
struct next_batch session_windows_next(struct session *session);
/* Samples of the epoch; UINT64_MAX while unknown. */
uint64_t session_windows_sample_count(const struct session *session);
/* The sample at a position of the batch that is planned, as its id. */
uint64_t session_windows_sample(const struct session *session, uint64_t position);

/* Where a field of a place lies. */
uint8_t *session_place(struct session *session, uint32_t slot, size_t field, uint32_t place);
void session_write_id(struct session *session, uint32_t slot, uint32_t place, uint64_t sample_id);
void session_write_valid(struct session *session, uint32_t slot, uint32_t place, bool is_valid);
/* Everything of a place but id and validity as for a sample that does not exist. */
void session_write_blank(struct session *session, uint32_t slot, uint32_t place);

#endif /* PENSTOCK_LOADER_SESSION_PRIVATE_H */
