/*
 * plan.h - which sample comes at which position, and which rank gets it. Pure arithmetic.
 *
 * An epoch is a permutation of the data set's samples: position p of epoch e holds the sample
 * plan_index(), a function of (order, seed, e, p) and nothing else. Samples are named by their
 * canonical index, 0 <= index < sample_count, in which shards follow one another.
 *
 * PLAN_SEQUENTIAL  the canonical order.
 * PLAN_FULL        one keyed permutation (permutation.h) of all samples.
 * PLAN_WINDOW      the shards are permuted and cut into windows of `window_shards` shards; in
 *                  epoch 0 the first windows are 1, 2, 4, ... shards up to that, always. Inside
 *                  a window all its samples are permuted. Where a window's samples are follows
 *                  from the counts of its own shards alone: plan_window(), plan_shard() and
 *                  plan_window_sample() serve a data set whose other shards nobody indexed yet,
 *                  and give what plan_index() gives.
 *
 * Positions [start, sample_count) of an epoch are cut into global batches of `batch` positions,
 * and those over the ranks: plan_batch_count() and plan_slice(). A run that stops after any batch
 * goes on with a cut whose start is the position reached, with whatever batch and world size.
 *
 * No function here blocks, and none but plan_epoch_create() allocates. A plan_epoch is constant
 * and may be used by any number of threads.
 */
#ifndef PENSTOCK_LOADER_PLAN_H
#define PENSTOCK_LOADER_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/permutation.h"

enum { PLAN_WINDOW_SHARDS_DEFAULT = 16 };

/* Samples and shards of a data set above these are refused by whoever reads its index. */
#define PLAN_SAMPLES_MAX ((uint64_t)1 << 40)
#define PLAN_SHARDS_MAX  ((uint32_t)1 << 31)

enum plan_kind { PLAN_SEQUENTIAL = 1, PLAN_FULL, PLAN_WINDOW };

struct plan_order {
    enum plan_kind kind;
    uint64_t seed;
    uint64_t sample_count; /* <= PLAN_SAMPLES_MAX; plan_window ... plan_window_sample ignore it */
    /* PLAN_WINDOW only: */
    uint32_t shard_count;        /* 1 .. PLAN_SHARDS_MAX */
    uint32_t window_shards;      /* >= 1 */
    const uint64_t *shard_first; /* shard_count + 1 indices: of each shard's first sample, then
                                  * sample_count; read by plan_epoch_create() and by plan_index(),
                                  * borrowed */
};

/* ---- Positions to samples ------------------------------------------------------------------- */

struct plan_epoch;

/* `order` is copied (its shard_first is borrowed until destroy). NULL when memory is short;
 * PLAN_WINDOW takes some 300 bytes a window and 12 bytes a shard, the others nothing of note. */
struct plan_epoch *plan_epoch_create(const struct plan_order *order, uint64_t epoch);
void plan_epoch_destroy(struct plan_epoch *epoch); /* NULL is accepted */

/* The canonical index at `position` < sample_count. */
uint64_t plan_index(const struct plan_epoch *epoch, uint64_t position);

/* A window and, by plan_epoch_window(), where it lies in the epoch. */
struct plan_window {
    uint64_t ordinal;        /* 0, 1, ... in order of the epoch */
    uint32_t shard_first;    /* its shards are plan_shard(shard_first ...) */
    uint32_t shard_count;    /* 0: the epoch has no such window */
    uint64_t position_first; /* of its first sample; 0 from plan_window() */
    uint64_t sample_count;   /* 0 from plan_window() */
};

/* PLAN_WINDOW: the window that holds `position` < sample_count. */
struct plan_window plan_epoch_window(const struct plan_epoch *epoch, uint64_t position);

/* ---- The same without knowing other windows' shards ------------------------------------------ */

struct plan_window plan_window(const struct plan_order *order, uint64_t epoch, uint64_t ordinal);

/* The shard at `place` < shard_count of the epoch's order of shards. */
uint32_t plan_shard(const struct plan_order *order, uint64_t epoch, uint32_t place);

struct plan_place {
    uint32_t shard;    /* canonical number */
    uint64_t position; /* in that shard */
};

/* Sample `offset` of a window whose shards, in order of the epoch, hold sample_counts[0 ..
 * window->shard_count) samples; offset < their sum. */
struct plan_place plan_window_sample(const struct plan_order *order, uint64_t epoch,
                                     const struct plan_window *window,
                                     const uint64_t *sample_counts, uint64_t offset);

/* What permutes the samples of a window of so many; for those who keep it (window_walk.h). */
struct permutation plan_window_permutation(const struct plan_order *order, uint64_t epoch,
                                           uint64_t ordinal, uint64_t sample_count);

/* ---- Batches and ranks ----------------------------------------------------------------------- */

/* What becomes of the last m = (sample_count - start) mod batch samples, m > 0:
 * PLAN_DROP  they are left out.
 * PLAN_EVEN  a batch of m, split so that the ranks' sizes differ by at most 1; with m < world
 *            every rank has one place, and those without a sample are padded.
 * PLAN_PAD   every rank has as many places as in a full batch and samples in proportion to its
 *            places: where batch is a multiple of world, the samples that PLAN_EVEN gives it. */
enum plan_tail { PLAN_DROP = 1, PLAN_EVEN, PLAN_PAD };

struct plan_cut {
    uint64_t sample_count; /* <= PLAN_SAMPLES_MAX */
    uint64_t start;        /* <= sample_count */
    uint64_t batch;        /* positions of a global batch; world <= batch < 2^32 */
    uint32_t world;        /* ranks, >= 1 */
    enum plan_tail tail;
};

/* True when the members are in their ranges, each of which the functions below assert. */
bool plan_cut_is_valid(const struct plan_cut *cut);

/* Batches of the epoch, the same for every rank. */
uint64_t plan_batch_count(const struct plan_cut *cut);

/* One rank's part of one global batch: samples at positions [first, first + count), and
 * padded_count more places without a sample. */
struct plan_slice {
    uint64_t first;
    uint32_t count;
    uint32_t padded_count;
};
struct plan_slice plan_slice(const struct plan_cut *cut, uint64_t batch, uint32_t rank);

/* The position after global batch `batch`: where a run that has done it goes on. */
uint64_t plan_position_after(const struct plan_cut *cut, uint64_t batch);

#endif /* PENSTOCK_LOADER_PLAN_H */
