/*
 * window_walk.h - an epoch in PLAN_WINDOW order, walked window by window while shards become known.
 *
 * What plan_index(), plan_slice() and plan_batch_count() give for a whole index, the walk gives as
 * soon as the shards of the windows concerned are known, and from any window on, without those
 * before it. It holds the windows from the last window_walk_forget() to the last one that was
 * reached; memory is some 300 bytes a window and 12 bytes a shard of these.
 *
 * Pure but for memory; one thread at a time.
 */
#ifndef PENSTOCK_LOADER_WINDOW_WALK_H
#define PENSTOCK_LOADER_WINDOW_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/plan.h"

struct window_walk;

enum { WALK_UNKNOWN = -1 };

/* How many samples (>= 1) a shard has, or WALK_UNKNOWN; once known it never changes. */
typedef int64_t (*window_walk_count)(void *context, uint32_t shard);

/* `order` is of PLAN_WINDOW; its sample_count and shard_first are not looked at. NULL: no memory.
 */
struct window_walk *window_walk_create(const struct plan_order *order, window_walk_count count,
                                       void *context);
void window_walk_destroy(struct window_walk *walk); /* NULL is accepted */

/* Stand before window `ordinal` of an epoch, whose first sample is at `position`. */
void window_walk_start(struct window_walk *walk, uint64_t epoch, uint64_t ordinal,
                       uint64_t position);
uint64_t window_walk_epoch(const struct window_walk *walk);

enum walk_result {
    WALK_READY,
    WALK_WAIT, /* for shards: those of window_walk_next() */
    WALK_OVER, /* the epoch ends before it */
    WALK_NO_MEMORY,
};

/* Take in windows until the sample at `position` is known. */
enum walk_result window_walk_reach(struct window_walk *walk, uint64_t position);

/* Positions below this, from where the walk started or forgot, are known. */
uint64_t window_walk_end(const struct window_walk *walk);
/* Whether there is no window after these: window_walk_end() is the epoch's sample count. */
bool window_walk_is_complete(const struct window_walk *walk);
/* The window after the last one that is known, its shards only; none (shard_count 0) at the end. */
struct plan_window window_walk_next(const struct window_walk *walk);

/* The sample at a position that is known and not forgotten. */
struct plan_place window_walk_at(const struct window_walk *walk, uint64_t position);
/* The window of such a position, or of window_walk_end(). */
struct plan_window window_walk_window(const struct window_walk *walk, uint64_t position);

/* Windows that end at or before `position` are not asked for any more. */
void window_walk_forget(struct window_walk *walk, uint64_t position);

/* One rank's part of a global batch. */
struct walk_batch {
    struct plan_slice slice;
    uint64_t next_position; /* after the batch */
    bool is_last;           /* of the epoch */
};

/* The batch that begins at cut->start: WALK_READY when its samples are known, and whether it is the
 * last one; WALK_OVER when the epoch has no batch from there on. cut->sample_count is that of the
 * epoch where it is known otherwise, else WALK_UNKNOWN_COUNT. */
#define WALK_UNKNOWN_COUNT UINT64_MAX
enum walk_result window_walk_batch(struct window_walk *walk, const struct plan_cut *cut,
                                   uint32_t rank, struct walk_batch *batch);

#endif /* PENSTOCK_LOADER_WINDOW_WALK_H */
