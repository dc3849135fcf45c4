/* Making and unmaking sessions: every check of what was asked happens here, before any slot. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/region.h"
#include "loader/clock.h"
#include "loader/remote/remote.h"
#include "loader/session_private.h"

enum { MEMORY_RESERVE_BYTES = 64 * 1024 * 1024 };

/* Bytes as a person reads them. */
static double to_mib(uint64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

/* ---- The samples ------------------------------------------------------------------------ */

static int check_subset(const struct index *index, const uint64_t *subset, uint64_t count,
                        struct error *error)
{
    uint64_t sample_count = index_sample_count(index);
    for (uint64_t i = 0; i < count; i++) {
        if (subset[i] >= sample_count) {
            return error_set(error, ERROR_USAGE,
                             "subset: entry %llu is %llu, but the data set has %llu samples "
                             "(0 .. %llu).",
                             (unsigned long long)i, (unsigned long long)subset[i],
                             (unsigned long long)sample_count,
                             (unsigned long long)sample_count - 1);
        }
    }
    return 0;
}

/* The shard of a canonical index, by bisection. */
static uint32_t shard_of(const uint64_t *shard_first, uint32_t shard_count, uint64_t canonical)
{
    uint32_t low = 0;
    uint32_t high = shard_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (shard_first[middle] <= canonical) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* For PLAN_WINDOW: put the subset's entries shard by shard (keeping their order within a shard),
 * and count them. */
static bool group_subset(struct session *session, const uint64_t *subset, uint64_t count)
{
    uint32_t shard_count = index_shard_count(session->samples.index);
    const uint64_t *index_first = index_shard_first(session->samples.index);
    uint64_t *first = calloc((size_t)shard_count + 1, sizeof *first);
    uint64_t *place = calloc((size_t)shard_count + 1, sizeof *place);
    if (first != NULL && place != NULL) {
        for (uint64_t i = 0; i < count; i++) {
            first[shard_of(index_first, shard_count, subset[i]) + 1]++;
        }
        for (uint32_t shard = 0; shard < shard_count; shard++) {
            first[shard + 1] += first[shard];
            place[shard] = first[shard];
        }
        for (uint64_t i = 0; i < count; i++) {
            uint32_t shard = shard_of(index_first, shard_count, subset[i]);
            session->subset[place[shard]++] = subset[i];
        }
    }
    bool is_done = first != NULL && place != NULL;
    free(place);
    session->shard_first = first;
    return is_done;
}

static int take_samples(struct session *session, const uint64_t *subset, uint64_t count,
                        struct error *error)
{
    uint64_t sample_count = index_sample_count(session->samples.index);
    if (subset != NULL) {
        if (check_subset(session->samples.index, subset, count, error) != 0) {
            return -1;
        }
        session->subset = malloc(count > 0 ? count * sizeof *subset : sizeof *subset);
        if (session->subset == NULL) {
            return error_set(error, ERROR_MEMORY, "no memory for a subset of %llu samples.",
                             (unsigned long long)count);
        }
        memcpy(session->subset, subset, count * sizeof *subset);
        sample_count = count;
    }
    if (sample_count == 0) {
        return error_set(error, ERROR_DATASET, "the data set has no samples: name another one.");
    }
    session->order = (struct plan_order){
        .kind = session->spec.order,
        .seed = session->spec.seed,
        .sample_count = sample_count,
        .shard_count = index_shard_count(session->samples.index),
        .window_shards = session->spec.window_shards,
        .shard_first = index_shard_first(session->samples.index),
    };
    if (session->spec.order == PLAN_WINDOW && subset != NULL) {
        if (!group_subset(session, subset, count)) {
            return error_set(error, ERROR_MEMORY, "no memory for a subset of %llu samples.",
                             (unsigned long long)count);
        }
        session->order.shard_first = session->shard_first;
    }
    return 0;
}

static int cut_samples(struct session *session, struct error *error)
{
    const struct session_spec *spec = &session->spec;
    session->cut = (struct plan_cut){
        .sample_count = session->order.sample_count,
        .batch = spec->batch,
        .world = spec->world,
        .tail = spec->tail,
    };
    if (spec->world == 0 || spec->rank >= spec->world || !plan_cut_is_valid(&session->cut)) {
        return error_set(error, ERROR_USAGE,
                         "a global batch of %llu over %u ranks (this is rank %u) cannot be cut: "
                         "it needs at least one sample per rank, and rank < world_size.",
                         (unsigned long long)spec->batch, spec->world, spec->rank);
    }
    if (plan_batch_count(&session->cut) == 0) {
        return error_set(error, ERROR_USAGE,
                         "drop_last=True leaves no batch: the global batch of %llu is larger than "
                         "the %llu samples. Use a smaller batch_size or drop_last=False.",
                         (unsigned long long)spec->batch,
                         (unsigned long long)session->order.sample_count);
    }
    if (spec->position > session->order.sample_count) {
        return error_set(error, ERROR_STATE,
                         "position %llu lies behind the end of the epoch (%llu samples): the state "
                         "belongs to another data set; start without it.",
                         (unsigned long long)spec->position,
                         (unsigned long long)session->order.sample_count);
    }
    return 0;
}

/* ---- The transforms
 * --------------------------------------------------------------------------------
 */

static int make_recipe(struct session *session, struct error *error)
{
    struct decode_error decode_error;
    enum decode_status status =
        recipe_create(session->spec.transforms, session->spec.transform_count, session->spec.layout,
                      &session->recipe, &decode_error);
    if (status == DECODE_NO_MEMORY) {
        return error_set(error, ERROR_MEMORY, "no memory for the transforms.");
    }
    if (status != DECODE_OK) {
        return error_set(error, ERROR_USAGE, "transforms: %s.", decode_error.reason);
    }
    return 0;
}

/* ---- The ring --------------------------------------------------------------------------- */

static int make_ring(struct session *session, struct error *error)
{
    uint32_t slots = session->spec.slots;
    uint64_t bytes = session->layout.slot_bytes * slots;
    uint64_t available = region_memory_available_bytes();
    if (available != UINT64_MAX && bytes + MEMORY_RESERVE_BYTES > available) {
        return error_set(error, ERROR_MEMORY,
                         "the ring needs %.0f MiB (%u slots of %.1f MiB), but only %.0f MiB are "
                         "left in this memory cgroup or machine. Use a smaller batch_size, "
                         "prefetch_factor or image, or raise the limit.",
                         to_mib(bytes), slots, to_mib(session->layout.slot_bytes),
                         to_mib(available));
    }
    int status = ring_create(slots, session->layout.slot_bytes, &session->ring);
    if (status != 0) {
        return error_set(error, ERROR_MEMORY, "cannot make a ring of %.0f MiB: %s.", to_mib(bytes),
                         strerror(-status));
    }
    for (uint32_t slot = 0; slot < slots; slot++) {
        session->fills[slot].is_good = calloc(session->layout.place_count, 1);
        if (session->fills[slot].is_good == NULL) {
            return error_set(error, ERROR_MEMORY, "no memory for the slots of a session.");
        }
    }
    return 0;
}

/* Larger than memory: reading around the page cache costs a fifth of the CPU. */
static bool wants_direct(const struct samples *samples)
{
    uint64_t available = region_memory_available_bytes();
    return available != UINT64_MAX && samples_data_bytes(samples) > available;
}

static int begin_at_plan(struct session *session, struct error *error)
{
    const struct session_spec *spec = &session->spec;
    session->plan = plan_epoch_create(&session->order, spec->epoch);
    if (session->plan == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for the plan of an epoch.");
    }
    session->plan_epoch_number = spec->epoch;
    session->cut.start = spec->position;
    session->cursor_batches = plan_batch_count(&session->cut);
    return 0;
}

static bool is_remote(const struct session_data *data)
{
    if (data->catalog != NULL) {
        return true;
    }
    const char *url, *tag;
    uint64_t size_bytes;
    index_shard_object(data->index, 0, &url, &tag, &size_bytes);
    return remote_is_url(url);
}

static void begin_read_ahead(struct session *session, const struct session_data *data,
                             uint32_t shard)
{
    const struct session_spec *spec = &session->spec;
    if (data->store == NULL || !is_remote(data)) {
        return;
    }
    struct read_ahead_options options = {.store = data->store,
                                         .spec = spec,
                                         .index = session->samples.index,
                                         .catalog = session->samples.catalog,
                                         .order = &session->order,
                                         .subset = session->subset,
                                         .shard = shard};
    session->read_ahead = read_ahead_create(&options);
    read_ahead_move(session->read_ahead, spec->epoch, spec->position, spec->window_ordinal,
                    spec->window_first);
}

static int build(struct session *session, const struct session_data *data, struct error *error)
{
    const struct session_spec *spec = &session->spec;
    uint32_t shard = 0;
    if (data->catalog != NULL) {
        if (session_windows_create(session, data->progress, &shard, error) != 0) {
            return -1;
        }
    } else if (take_samples(session, data->subset, data->subset_count, error) != 0 ||
               cut_samples(session, error) != 0) {
        return -1;
    }
    if (samples_resolve(&session->samples, spec, shard, error) != 0 ||
        make_recipe(session, error) != 0) {
        return -1;
    }
    struct recipe_output image = recipe_output(session->recipe);
    session->layout = batch_layout_make(spec, &image);
    session->reads_direct = wants_direct(&session->samples);
    if (make_ring(session, error) != 0) {
        return -1;
    }
    if (data->catalog == NULL && begin_at_plan(session, error) != 0) {
        return -1;
    }
    begin_read_ahead(session, data, shard);
    return 0;
}

int session_create(uint64_t id, const struct session_spec *spec, const struct session_data *data,
                   struct session **session, struct error *error)
{
    struct session *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for a session.");
    }
    made->id = id;
    made->spec = *spec;
    samples_init(&made->samples, data->index, data->catalog);
    made->bad_samples = data->bad_samples;
    made->opened_ns = clock_now_ns();
    made->noted_ns = made->opened_ns;
    made->rate_ns = made->opened_ns;
    made->waits.opened_ns = made->opened_ns;
    if (build(made, data, error) != 0) {
        session_destroy(made);
        return -1;
    }
    *session = made;
    return 0;
}

void session_destroy(struct session *session)
{
    if (session == NULL) {
        return;
    }
    for (uint32_t slot = 0; slot < LAYOUT_SLOTS_MAX; slot++) {
        free(session->fills[slot].is_good);
    }
    read_ahead_destroy(session->read_ahead);
    plan_epoch_destroy(session->plan);
    ring_destroy(session->ring);
    recipe_destroy(session->recipe);
    session_windows_destroy(session);
    samples_clear(&session->samples);
    free(session->shard_first);
    free(session->subset);
    free(session);
}
