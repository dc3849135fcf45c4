/*
 * pipeline.h - moves every sample of every session through its stages on a pool of threads.
 *
 *     plan -> read -> make (decode, crop, resize, pack into the slot) -> publish
 *
 * There is no thread per stage. A pool thread that looks for work takes a sample whose bytes are
 * there; if nobody looks after the reads at that moment, it first starts more of them and collects
 * the finished ones; if no bytes are there yet it waits for them on behalf of all. So in the warm
 * case a sample is read and made by one thread without any hand-over between threads.
 *
 * Credit: a read starts only for a place in a claimed slot, so memory is bounded and no queue can
 * overflow; how far reads run ahead adapts to how long they take, within READ_AHEAD_BYTES_MAX.
 *
 * Fairness: jobs get decode time by weight; inside a job the rank whose trainer has least ahead
 * of it is served first; `workers` caps how many threads work for one rank.
 *
 * Threads: create, add, remove, seek and destroy belong to one thread (control), the others to
 * any. One lock guards all state, inside the sessions too; decoding and reading happen outside
 * it.
 */
#ifndef PENSTOCK_LOADER_PIPELINE_H
#define PENSTOCK_LOADER_PIPELINE_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/kernels.h"
#include "loader/error.h"
#include "loader/reader.h"
#include "loader/session.h"

enum {
    PIPELINE_THREADS_MAX = 512,
    PIPELINE_READ_AHEAD_MAX = 64,             /* samples */
    PIPELINE_READ_AHEAD_BYTES_MAX = 32 << 20, /* of compressed data, roughly */
    PIPELINE_FILE_BYTES_MAX = 512 << 20,      /* a larger file is a bad sample */
};

struct pipeline_options {
    uint32_t threads; /* 0: one per CPU of the union of the sessions' affinities */
    enum source_engine engine;
    enum kernel_level level_max;
    struct store *store; /* borrowed: of remote objects; NULL: reading them fails */
};

struct pipeline;

/* Starts no thread before the first session. NULL and *error when a part cannot be made. */
struct pipeline *pipeline_create(const struct pipeline_options *options, struct error *error);
/* Ends all sessions and threads; waits for reads in flight. NULL is accepted. */
void pipeline_destroy(struct pipeline *pipeline);

/* Start no more reads; what is read or being decoded is finished, and published as far as batches
 * become whole. There is no way back. */
void pipeline_drain(struct pipeline *pipeline);
/* After pipeline_drain(): is nothing being read, decoded or waiting for it? */
bool pipeline_is_drained(struct pipeline *pipeline);

/* Bring the rates of all sessions up to now. To be called every second or so. */
void pipeline_note_time(struct pipeline *pipeline);

/* Begin to fill the session's ring. 0; or -1 and *error, and the session stays the caller's. */
int pipeline_add(struct pipeline *pipeline, struct session *session, struct error *error);

/* Stop working for the session and destroy it, now or when the last sample on its way is done. */
void pipeline_remove(struct pipeline *pipeline, struct session *session);

/* The trainer gave slots back (its eventfd is readable). */
void pipeline_collect(struct pipeline *pipeline, struct session *session);

/* As session_seek(); *batches_left as session_batches_from(). */
int pipeline_seek(struct pipeline *pipeline, struct session *session,
                  const struct session_place *place, uint32_t taken_count, uint64_t *batches_left,
                  struct error *error);

/* Something that sessions wait for may have come: look for work again. */
void pipeline_wake(struct pipeline *pipeline);

struct pipeline_session_stats {
    struct session_stats session;
    uint64_t read_bytes, read_ns, decode_ns;
    uint32_t reading_count, ready_count, decoding_count;
};
struct pipeline_session_stats pipeline_session_stats(struct pipeline *pipeline,
                                                     struct session *session);

struct pipeline_stats {
    uint32_t thread_count; /* that decode; before the first session: that would */
    uint64_t busy_ns;      /* sum over threads, decoding */
    uint64_t read_wait_ns; /* sum over threads: nothing to decode, reads under way */
    uint64_t sample_count, bad_count, read_bytes, batch_count; /* all sessions, ended ones too */
    uint32_t session_count;
    enum source_engine engine;
    const char *engine_reason; /* constant */
    enum kernel_level level;
};
struct pipeline_stats pipeline_stats(struct pipeline *pipeline);

#endif /* PENSTOCK_LOADER_PIPELINE_H */
