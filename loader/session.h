/*
 * session.h - one trainer's stream of batches: what to make next, and what is made.
 *
 * A session cuts the plan into batches for its rank, gives out places of batch slots as work,
 * takes the finished work back, applies the policy for bad samples and publishes whole batches in
 * order. It starts no thread and does no I/O: pipeline.c drives it.
 *
 * Threads: everything here is called under the pipeline's lock, except session_create(),
 * session_destroy() and session_make(), which a decode thread calls for work that it holds.
 */
#ifndef PENSTOCK_LOADER_SESSION_H
#define PENSTOCK_LOADER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "decode/decoder.h"
#include "ipc/ring.h"
#include "loader/bad_samples.h"
#include "loader/batch_layout.h"
#include "loader/error.h"
#include "loader/index.h"
#include "loader/session_spec.h"
#include "loader/source.h"

struct session;

/* A place of a batch on its way: planned -> read -> made -> finished. Belongs to the pipeline's
 * pool; the session fills it. */
struct work {
    struct read_request request; /* first: the source hands this back */
    struct session *session;
    uint32_t slot;
    uint32_t place;
    uint64_t epoch;
    uint64_t canonical; /* index of the sample in the data set */
    uint64_t sample_id;
    uint32_t read_attempts;
    uint32_t replacements;  /* how often another sample took the place, under BAD_REPLACE */
    uint64_t not_before_ns; /* a read is tried again at this time */
    uint64_t submitted_ns;
    struct sample_place where;
    bool has_no_bytes; /* the tar lacks every field that is wanted: nothing is to be read */
    struct work *next;
    char path[4096];
};

struct catalog;

/* What a session is made of; borrowed for the call but for store and bad_samples. */
struct session_data {
    struct index *index;     /* whole, or: */
    struct catalog *catalog; /* PLAN_WINDOW without a subset and BAD_REPLACE, remote tars */
    const uint64_t *subset;  /* canonical indices, checked here; NULL: all samples */
    uint64_t subset_count;
    struct store *store; /* of remote data, else NULL */
    struct bad_samples *bad_samples;
    struct index_progress *progress; /* with a catalog: what is waited for; may be NULL */
};

/* Make a session at spec->epoch, spec->position. Takes its own references on the index or catalog
 * and its own copy of the subset. Builds the recipe, the layout and the ring. With a catalog it
 * waits for the shards of the first batch. 0, or -1 and *error. */
int session_create(uint64_t id, const struct session_spec *spec, const struct session_data *data,
                   struct session **session, struct error *error);
void session_destroy(struct session *session); /* NULL is accepted; no work may be outstanding */

uint64_t session_id(const struct session *session);
const struct session_spec *session_spec(const struct session *session);
const struct batch_layout *session_layout(const struct session *session);
struct recipe_output session_image(const struct session *session);
struct ring *session_ring(struct session *session);
/* Of the subset; UINT64_MAX while shards are unknown. */
uint64_t session_sample_count(const struct session *session);
uint64_t session_mean_bytes(const struct session *session); /* of a sample; 0: unknown */

/* Batches of the rest of an epoch that begins at `position`; UINT64_MAX while shards are unknown.
 */
uint64_t session_batches_from(const struct session *session, uint64_t position);

/* ---- Work --------------------------------------------------------------------------------- */

/* Plan the next place into *work: claims a slot when needed. False when there is nothing to plan
 * now: no free slot, or the stream has ended with an error. */
bool session_next(struct session *session, struct work *work);

/* Is there anything that session_next() would give? */
bool session_has_next(struct session *session);

/* Is this work still of use? Not after a seek, or when the session is closing. */
bool session_wants(const struct session *session, const struct work *work);

/* Turn the bytes that were read into the sample, in its slot (no lock held). */
enum decode_status session_make(struct session *session, struct work *work, struct decoder *decoder,
                                struct decode_error *error);

/* What is to become of work whose sample was made, or could not be. */
enum work_fate {
    WORK_DONE,  /* the place is finished */
    WORK_RETRY, /* read it again, or read the sample that replaces it: *work says which */
};
enum work_fate session_finish(struct session *session, struct work *work, enum decode_status status,
                              const struct decode_error *error);

/* Reading failed with work->request.error. */
enum work_fate session_read_failed(struct session *session, struct work *work);

/* ---- Trainer ------------------------------------------------------------------------------ */

/* Slots given back by the trainer become free. True if there were any. */
bool session_collect(struct session *session);

/* Bring the figures that are over time up to now. Called when slots move, and every second. */
void session_note_time(struct session *session);

/* A place in the order; the window as in session_spec.h. */
struct session_place {
    uint64_t epoch, position, window_ordinal, window_first;
};

/* Begin again at a place. `taken_count` as in ring_rewind(). 0, or -1 and *error. */
int session_seek(struct session *session, const struct session_place *place, uint32_t taken_count,
                 struct error *error);

struct session_stats {
    uint64_t batch_count, sample_count, bad_count; /* published */
    uint64_t epoch, step;                          /* of the last published batch */
    uint64_t batches_per_epoch;
    double images_per_second; /* over the last second */
    uint64_t full_ns;         /* all slots were full: the trainer was the slower one */
    uint64_t waited_ns;       /* the trainer's own word on how long it waited for batches */
    double wait_ratio;        /* of the last seconds, see wait_window.h */
    uint64_t opened_ns;
    struct ring_usage ring;
    uint32_t slot_count;
};
struct session_stats session_stats(const struct session *session);

/* How far ahead of its trainer this rank is, for fairness: batches ready or held, and the
 * finished share of the one being filled. */
double session_lead(const struct session *session);

/* Bookkeeping of pipeline.c, under its lock; no other file reads these. */
struct session_queue {
    struct work *ready_head, *ready_tail; /* read, waiting for a decode thread */
    uint32_t ready_count;
    uint32_t reading_count;  /* with the source, or waiting for another attempt */
    uint32_t decoding_count; /* with decode threads */
    struct share *share;     /* of the job that it belongs to */
    bool is_closing;
    struct session *next;
    uint64_t read_bytes, read_ns, decode_ns;
};
struct session_queue *session_queue(struct session *session);

#endif /* PENSTOCK_LOADER_SESSION_H */
