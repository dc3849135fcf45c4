#include "loader/plan.h"

#include <assert.h>
#include <stdlib.h>

/* The keys of an epoch's permutations; part of the results, never to change. */
enum { PURPOSE_SAMPLES = 0, PURPOSE_SHARDS = 1, PURPOSE_WINDOW_FIRST = 2 };

struct plan_epoch {
    struct plan_order order;
    uint64_t epoch;
    struct permutation samples; /* PLAN_FULL */
    /* PLAN_WINDOW */
    uint32_t *shards;            /* canonical numbers in order of the epoch */
    uint64_t *position_first;    /* of each of them, then sample_count */
    struct permutation *windows; /* by ordinal */
    uint64_t window_count;
};

/* ---- Windows ---------------------------------------------------------------------------- */

/* Windows of epoch 0 that are still growing: 1, 2, 4, ... below window_shards. */
static uint32_t growing_count(const struct plan_order *order, uint64_t epoch)
{
    uint32_t count = 0;
    if (epoch == 0) {
        while (((uint64_t)1 << count) < order->window_shards) {
            count++;
        }
    }
    return count;
}

struct plan_window plan_window(const struct plan_order *order, uint64_t epoch, uint64_t ordinal)
{
    assert(order->window_shards >= 1);
    struct plan_window window = {.ordinal = ordinal};
    uint32_t growing = growing_count(order, epoch);
    uint64_t first, count;
    if (ordinal < growing) {
        count = (uint64_t)1 << ordinal;
        first = count - 1;
    } else {
        count = order->window_shards;
        uint64_t steps = ordinal - growing;
        if (steps > order->shard_count) {
            steps = order->shard_count; /* beyond the end; keeps the product from overflowing */
        }
        first = ((uint64_t)1 << growing) - 1 + steps * count;
    }
    if (first < order->shard_count) {
        uint64_t left = order->shard_count - first;
        window.shard_first = (uint32_t)first;
        window.shard_count = (uint32_t)(count < left ? count : left);
    }
    return window;
}

/* The ordinal of the window that holds the shard at `place`. */
static uint64_t window_of_place(const struct plan_order *order, uint64_t epoch, uint32_t place)
{
    uint32_t growing = growing_count(order, epoch);
    uint64_t grown_shards = ((uint64_t)1 << growing) - 1;
    if (place >= grown_shards) {
        return growing + (place - grown_shards) / order->window_shards;
    }
    uint32_t ordinal = 0;
    while (place >= ((uint64_t)2 << ordinal) - 1) {
        ordinal++;
    }
    return ordinal;
}

static struct permutation shard_permutation(const struct plan_order *order, uint64_t epoch)
{
    assert(order->shard_count <= PLAN_SHARDS_MAX);
    return permutation_begin(order->seed, epoch, PURPOSE_SHARDS, order->shard_count);
}

struct permutation plan_window_permutation(const struct plan_order *order, uint64_t epoch,
                                           uint64_t ordinal, uint64_t sample_count)
{
    return permutation_begin(order->seed, epoch, PURPOSE_WINDOW_FIRST + ordinal, sample_count);
}

uint32_t plan_shard(const struct plan_order *order, uint64_t epoch, uint32_t place)
{
    struct permutation permutation = shard_permutation(order, epoch);
    return (uint32_t)permutation_at(&permutation, place);
}

struct plan_place plan_window_sample(const struct plan_order *order, uint64_t epoch,
                                     const struct plan_window *window,
                                     const uint64_t *sample_counts, uint64_t offset)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < window->shard_count; i++) {
        total += sample_counts[i];
    }
    struct permutation permutation = plan_window_permutation(order, epoch, window->ordinal, total);
    uint64_t position = permutation_at(&permutation, offset);
    uint32_t i = 0;
    while (position >= sample_counts[i]) {
        position -= sample_counts[i++];
    }
    return (struct plan_place){plan_shard(order, epoch, window->shard_first + i), position};
}

/* ---- Epochs ----------------------------------------------------------------------------- */

/* Order the shards, add up their samples, key the windows; false when memory is short. */
static bool window_epoch_fill(struct plan_epoch *epoch)
{
    const struct plan_order *order = &epoch->order;
    assert(order->shard_count >= 1 && order->window_shards >= 1);
    assert(order->shard_first[order->shard_count] == order->sample_count);
    epoch->window_count = window_of_place(order, epoch->epoch, order->shard_count - 1) + 1;
    epoch->shards = calloc(order->shard_count, sizeof *epoch->shards);
    epoch->position_first = calloc((size_t)order->shard_count + 1, sizeof *epoch->position_first);
    epoch->windows = calloc(epoch->window_count, sizeof *epoch->windows);
    if (epoch->shards == NULL || epoch->position_first == NULL || epoch->windows == NULL) {
        return false;
    }
    struct permutation permutation = shard_permutation(order, epoch->epoch);
    uint64_t position = 0;
    for (uint32_t place = 0; place < order->shard_count; place++) {
        uint32_t shard = (uint32_t)permutation_at(&permutation, place);
        epoch->shards[place] = shard;
        epoch->position_first[place] = position;
        position += order->shard_first[shard + 1] - order->shard_first[shard];
    }
    epoch->position_first[order->shard_count] = position;
    for (uint64_t ordinal = 0; ordinal < epoch->window_count; ordinal++) {
        struct plan_window window = plan_window(order, epoch->epoch, ordinal);
        uint64_t sample_count = epoch->position_first[window.shard_first + window.shard_count] -
                                epoch->position_first[window.shard_first];
        epoch->windows[ordinal] =
            plan_window_permutation(order, epoch->epoch, ordinal, sample_count);
    }
    return true;
}

struct plan_epoch *plan_epoch_create(const struct plan_order *order, uint64_t epoch_number)
{
    assert(order->sample_count <= PLAN_SAMPLES_MAX);
    struct plan_epoch *epoch = calloc(1, sizeof *epoch);
    if (epoch == NULL) {
        return NULL;
    }
    epoch->order = *order;
    epoch->epoch = epoch_number;
    if (order->kind == PLAN_FULL) {
        epoch->samples =
            permutation_begin(order->seed, epoch_number, PURPOSE_SAMPLES, order->sample_count);
    } else if (order->kind == PLAN_WINDOW && !window_epoch_fill(epoch)) {
        plan_epoch_destroy(epoch);
        return NULL;
    }
    return epoch;
}

void plan_epoch_destroy(struct plan_epoch *epoch)
{
    if (epoch != NULL) {
        free(epoch->shards);
        free(epoch->position_first);
        free(epoch->windows);
        free(epoch);
    }
}

/* The place of the shard that holds `position`: the last that begins at or before it. */
static uint32_t place_of_position(const struct plan_epoch *epoch, uint64_t position)
{
    uint32_t low = 0, high = epoch->order.shard_count; /* begin[low] <= position < begin[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (epoch->position_first[middle] <= position) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

struct plan_window plan_epoch_window(const struct plan_epoch *epoch, uint64_t position)
{
    assert(epoch->order.kind == PLAN_WINDOW && position < epoch->order.sample_count);
    uint32_t place = place_of_position(epoch, position);
    uint64_t ordinal = window_of_place(&epoch->order, epoch->epoch, place);
    struct plan_window window = plan_window(&epoch->order, epoch->epoch, ordinal);
    window.position_first = epoch->position_first[window.shard_first];
    window.sample_count =
        epoch->position_first[window.shard_first + window.shard_count] - window.position_first;
    return window;
}

static uint64_t window_index(const struct plan_epoch *epoch, uint64_t position)
{
    struct plan_window window = plan_epoch_window(epoch, position);
    uint64_t moved = window.position_first + permutation_at(&epoch->windows[window.ordinal],
                                                            position - window.position_first);
    uint32_t place = place_of_position(epoch, moved);
    return epoch->order.shard_first[epoch->shards[place]] + moved - epoch->position_first[place];
}

uint64_t plan_index(const struct plan_epoch *epoch, uint64_t position)
{
    assert(position < epoch->order.sample_count);
    switch (epoch->order.kind) {
    case PLAN_SEQUENTIAL: return position;
    case PLAN_FULL: return permutation_at(&epoch->samples, position);
    case PLAN_WINDOW: return window_index(epoch, position);
    }
    assert(!"no such order");
    return 0;
}

/* ---- Batches and ranks ------------------------------------------------------------------ */

bool plan_cut_is_valid(const struct plan_cut *cut)
{
    return cut->sample_count <= PLAN_SAMPLES_MAX && cut->start <= cut->sample_count &&
           cut->world >= 1 && cut->batch >= cut->world && cut->batch <= UINT32_MAX &&
           cut->tail >= PLAN_DROP && cut->tail <= PLAN_PAD;
}

uint64_t plan_batch_count(const struct plan_cut *cut)
{
    assert(plan_cut_is_valid(cut));
    uint64_t left = cut->sample_count - cut->start;
    return left / cut->batch + (cut->tail != PLAN_DROP && left % cut->batch > 0);
}

/* Where rank's part of `count` things begins: parts differ by at most 1 and leave nothing out. */
static uint64_t share_first(uint64_t count, uint32_t rank, uint32_t world)
{
    return count * rank / world; /* both factors below 2^32 */
}

struct plan_slice plan_slice(const struct plan_cut *cut, uint64_t batch, uint32_t rank)
{
    assert(batch < plan_batch_count(cut) && rank < cut->world);
    uint64_t first = cut->start + batch * cut->batch;
    uint64_t left = cut->sample_count - first;
    uint64_t count = left < cut->batch ? left : cut->batch;
    uint64_t begin = share_first(count, rank, cut->world);
    uint64_t end = share_first(count, rank + 1, cut->world);
    uint64_t places = end > begin ? end - begin : 1;
    if (cut->tail == PLAN_PAD) {
        uint64_t places_begin = share_first(cut->batch, rank, cut->world);
        uint64_t places_end = share_first(cut->batch, rank + 1, cut->world);
        /* In proportion, since an even split can give a rank more than its places: 7 samples over
         * 5 ranks are 1 1 2 1 2, the places of a batch of 8 are 1 2 1 2 2. */
        begin = count * places_begin / cut->batch;
        end = count * places_end / cut->batch;
        places = places_end - places_begin;
    }
    assert(places >= end - begin);
    return (struct plan_slice){
        .first = first + begin,
        .count = (uint32_t)(end - begin),
        .padded_count = (uint32_t)(places - (end - begin)),
    };
}

uint64_t plan_position_after(const struct plan_cut *cut, uint64_t batch)
{
    assert(batch < plan_batch_count(cut));
    uint64_t left = cut->sample_count - cut->start - batch * cut->batch;
    return cut->sample_count - left + (left < cut->batch ? left : cut->batch);
}
