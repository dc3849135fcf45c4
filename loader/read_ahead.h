/*
 * read_ahead.h - tells the store which chunks a session will need, and when: so that they are
 * fetched before they are asked for, and what is needed soonest stays.
 *
 * A thread of its own goes through the order of the running epoch and of the next one, as far as
 * shards are known, and hands the store the list; of shards that are not known yet it says that
 * they come after the others. It is never in the way of the pipeline.
 *
 * Threads: create and destroy block; the others are cheap and need one caller at a time.
 */
#ifndef PENSTOCK_LOADER_READ_AHEAD_H
#define PENSTOCK_LOADER_READ_AHEAD_H

#include <stdint.h>

#include "loader/plan.h"
#include "loader/session_spec.h"

struct catalog;
struct index;
struct read_ahead;
struct store;
struct store_job;

/* Borrowed as long as the read-ahead lives. */
struct read_ahead_options {
    struct store *store;
    const struct session_spec *spec;
    struct index *index;     /* or: */
    struct catalog *catalog; /* PLAN_WINDOW, all samples */
    const struct plan_order *order;
    const uint64_t *subset; /* NULL: all samples */
    uint32_t shard;         /* with a catalog: one that is known */
};

/* NULL without memory or threads: then the session goes without. */
struct read_ahead *read_ahead_create(const struct read_ahead_options *options);
void read_ahead_destroy(struct read_ahead *ahead); /* NULL is accepted, here and below */

/* The job of the session's reads; NULL without. */
struct store_job *read_ahead_job(const struct read_ahead *ahead);

/* The stream goes on at a place; epoch and position are of its next batch. */
void read_ahead_move(struct read_ahead *ahead, uint64_t epoch, uint64_t position,
                     uint64_t window_ordinal, uint64_t window_first);
/* Batches before this place are read. */
void read_ahead_note(struct read_ahead *ahead, uint64_t epoch, uint64_t position);

#endif /* PENSTOCK_LOADER_READ_AHEAD_H */
