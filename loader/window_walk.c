#include "loader/window_walk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "loader/permutation.h"

/* A window whose shards are known. */
struct open_window {
    struct plan_window window;
    struct permutation permutation; /* of its samples */
    uint32_t *shards;               /* canonical numbers, in order of the epoch */
    uint64_t *offsets;              /* of each shard's first sample, then of the end */
};

struct window_walk {
    struct plan_order order;
    window_walk_count count;
    void *context;
    uint64_t epoch;
    uint64_t next_ordinal, end; /* the window to come, and its first position */
    struct open_window *windows;
    uint32_t window_count, window_capacity;
};

struct window_walk *window_walk_create(const struct plan_order *order, window_walk_count count,
                                       void *context)
{
    assert(order->kind == PLAN_WINDOW && order->shard_count >= 1);
    struct window_walk *walk = calloc(1, sizeof *walk);
    if (walk != NULL) {
        walk->order = *order;
        walk->count = count;
        walk->context = context;
    }
    return walk;
}

static void close_window(struct open_window *window)
{
    free(window->shards);
    free(window->offsets);
}

static void forget_windows(struct window_walk *walk, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        close_window(&walk->windows[i]);
    }
    walk->window_count -= count;
    if (count > 0) {
        memmove(walk->windows, walk->windows + count, walk->window_count * sizeof *walk->windows);
    }
}

void window_walk_destroy(struct window_walk *walk)
{
    if (walk != NULL) {
        forget_windows(walk, walk->window_count);
        free(walk->windows);
        free(walk);
    }
}

void window_walk_start(struct window_walk *walk, uint64_t epoch, uint64_t ordinal,
                       uint64_t position)
{
    forget_windows(walk, walk->window_count);
    walk->epoch = epoch;
    walk->next_ordinal = ordinal;
    walk->end = position;
}

uint64_t window_walk_epoch(const struct window_walk *walk)
{
    return walk->epoch;
}

uint64_t window_walk_end(const struct window_walk *walk)
{
    return walk->end;
}

struct plan_window window_walk_next(const struct window_walk *walk)
{
    struct plan_window window = plan_window(&walk->order, walk->epoch, walk->next_ordinal);
    window.position_first = walk->end;
    return window;
}

bool window_walk_is_complete(const struct window_walk *walk)
{
    return window_walk_next(walk).shard_count == 0;
}

/* ---- Taking in windows ------------------------------------------------------------------- */

static bool is_known(const struct window_walk *walk, const struct plan_window *window)
{
    for (uint32_t i = 0; i < window->shard_count; i++) {
        uint32_t shard = plan_shard(&walk->order, walk->epoch, window->shard_first + i);
        if (walk->count(walk->context, shard) == WALK_UNKNOWN) {
            return false;
        }
    }
    return true;
}

static struct open_window *add_window(struct window_walk *walk, uint32_t shard_count)
{
    if (walk->window_count == walk->window_capacity) {
        uint32_t capacity = walk->window_capacity * 2 + 4;
        struct open_window *windows = realloc(walk->windows, capacity * sizeof *windows);
        if (windows == NULL) {
            return NULL;
        }
        walk->windows = windows;
        walk->window_capacity = capacity;
    }
    struct open_window *window = &walk->windows[walk->window_count];
    window->shards = calloc(shard_count, sizeof *window->shards);
    window->offsets = calloc((size_t)shard_count + 1, sizeof *window->offsets);
    if (window->shards == NULL || window->offsets == NULL) {
        close_window(window);
        return NULL;
    }
    walk->window_count++;
    return window;
}

static enum walk_result take_window(struct window_walk *walk)
{
    struct plan_window next = window_walk_next(walk);
    if (next.shard_count == 0) {
        return WALK_OVER;
    }
    if (!is_known(walk, &next)) {
        return WALK_WAIT;
    }
    struct open_window *window = add_window(walk, next.shard_count);
    if (window == NULL) {
        return WALK_NO_MEMORY;
    }
    for (uint32_t i = 0; i < next.shard_count; i++) {
        uint32_t shard = plan_shard(&walk->order, walk->epoch, next.shard_first + i);
        int64_t count = walk->count(walk->context, shard);
        assert(count != WALK_UNKNOWN);
        window->shards[i] = shard;
        window->offsets[i] = next.sample_count;
        next.sample_count += (uint64_t)count;
    }
    window->offsets[next.shard_count] = next.sample_count;
    window->permutation =
        plan_window_permutation(&walk->order, walk->epoch, next.ordinal, next.sample_count);
    window->window = next;
    walk->next_ordinal++;
    walk->end += next.sample_count;
    return WALK_READY;
}

enum walk_result window_walk_reach(struct window_walk *walk, uint64_t position)
{
    while (walk->end <= position) {
        enum walk_result result = take_window(walk);
        if (result != WALK_READY) {
            return result;
        }
    }
    return WALK_READY;
}

/* ---- Looking ----------------------------------------------------------------------------- */

/* The window that holds a known position. */
static const struct open_window *find_window(const struct window_walk *walk, uint64_t position)
{
    assert(position < walk->end && walk->window_count > 0);
    const struct open_window *window = &walk->windows[walk->window_count - 1];
    while (window->window.position_first > position) {
        assert(window > walk->windows);
        window--;
    }
    return window;
}

struct plan_place window_walk_at(const struct window_walk *walk, uint64_t position)
{
    const struct open_window *window = find_window(walk, position);
    uint64_t offset =
        permutation_at(&window->permutation, position - window->window.position_first);
    uint32_t low = 0, high = window->window.shard_count; /* offsets[low] <= offset < [high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (window->offsets[middle] <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (struct plan_place){window->shards[low], offset - window->offsets[low]};
}

struct plan_window window_walk_window(const struct window_walk *walk, uint64_t position)
{
    return position >= walk->end ? window_walk_next(walk) : find_window(walk, position)->window;
}

void window_walk_forget(struct window_walk *walk, uint64_t position)
{
    uint32_t count = 0;
    while (count < walk->window_count &&
           walk->windows[count].window.position_first + walk->windows[count].window.sample_count <=
               position) {
        count++;
    }
    forget_windows(walk, count);
}

/* ---- Batches ----------------------------------------------------------------------------- */

/* How far the walk must reach to tell whether another batch follows the one at `start`. */
static uint64_t wanted_end(const struct plan_cut *cut)
{
    return cut->start + cut->batch + (cut->tail == PLAN_DROP ? cut->batch : 1);
}

enum walk_result window_walk_batch(struct window_walk *walk, const struct plan_cut *cut,
                                   uint32_t rank, struct walk_batch *batch)
{
    struct plan_cut known = *cut;
    uint64_t wanted = wanted_end(cut);
    if (cut->sample_count != WALK_UNKNOWN_COUNT && wanted > cut->sample_count) {
        wanted = cut->sample_count;
    }
    enum walk_result result = wanted == 0 ? WALK_READY : window_walk_reach(walk, wanted - 1);
    if (result == WALK_WAIT || result == WALK_NO_MEMORY) {
        return result;
    }
    if (result == WALK_OVER) {
        known.sample_count = walk->end;
    } else if (cut->sample_count == WALK_UNKNOWN_COUNT) {
        known.sample_count = wanted; /* at least so many: enough to cut this batch and the next */
    }
    if (known.start > known.sample_count || plan_batch_count(&known) == 0) {
        return WALK_OVER;
    }
    batch->slice = plan_slice(&known, 0, rank);
    batch->next_position = plan_position_after(&known, 0);
    batch->is_last = plan_batch_count(&known) == 1;
    return WALK_READY;
}
