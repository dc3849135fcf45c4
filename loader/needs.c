#include "loader/needs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/remote/remote.h"
#include "loader/samples.h"
#include "loader/window_walk.h"

enum {
    OBJECTS_MAX = 400000, /* of a prefix: what comes later in the epoch is not listed */
    CANCEL_LOOKS = 1024,  /* samples between looks */
};

struct needs {
    const struct read_ahead_options *options;
    struct samples samples;
    struct window_walk *walk; /* with a catalog */
    uint64_t chunk_bytes;
    /* The objects: all shards; of a prefix those that were met. */
    struct store_object *objects;
    size_t object_count, object_capacity;
    uint64_t *chunk_first; /* of shards: object_count + 1 places in needs */
    struct store_need *needs;
    size_t need_count, need_capacity;
    bool is_folder, is_full;
};

static int64_t count_samples(void *context, uint32_t shard)
{
    const struct index *index = catalog_shard(context, shard);
    return index != NULL ? (int64_t)index_sample_count(index) : WALK_UNKNOWN;
}

uint64_t needs_changes(const struct needs *needs)
{
    return needs->samples.catalog != NULL ? catalog_changes(needs->samples.catalog) : 0;
}

/* ---- Objects ---------------------------------------------------------------------------- */

static void clear_objects(struct needs *needs)
{
    for (size_t i = 0; needs->is_folder && i < needs->object_count; i++) {
        free((char *)needs->objects[i].url);
    }
    needs->object_count = needs->is_folder ? 0 : needs->object_count;
}

static uint64_t count_chunks(const struct needs *needs, uint64_t size_bytes)
{
    return (size_bytes + needs->chunk_bytes - 1) / needs->chunk_bytes;
}

static struct store_object shard_object(const struct needs *needs, uint32_t shard)
{
    struct store_object object = {.profile = needs->options->spec->profile};
    if (needs->samples.catalog != NULL) {
        const struct dataset *dataset = catalog_dataset(needs->samples.catalog);
        object.url = dataset->paths.texts[shard];
        object.tag = dataset->objects[shard].tag;
        object.size_bytes = dataset->objects[shard].size_bytes;
    } else {
        index_shard_object(needs->samples.index, shard, &object.url, &object.tag,
                           &object.size_bytes);
    }
    return object;
}

/* All shards are objects, and all their chunks have a place. */
static bool list_shards(struct needs *needs)
{
    uint32_t count = needs->samples.catalog != NULL ? catalog_shard_count(needs->samples.catalog)
                                                    : index_shard_count(needs->samples.index);
    needs->objects = calloc(count, sizeof *needs->objects);
    needs->chunk_first = calloc((size_t)count + 1, sizeof *needs->chunk_first);
    if (needs->objects == NULL || needs->chunk_first == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        needs->objects[i] = shard_object(needs, i);
        needs->chunk_first[i + 1] =
            needs->chunk_first[i] + count_chunks(needs, needs->objects[i].size_bytes);
    }
    needs->object_count = count;
    needs->need_capacity = needs->chunk_first[count];
    needs->needs = calloc(needs->need_capacity + 1, sizeof *needs->needs);
    return needs->needs != NULL;
}

static bool add_need(struct needs *needs, uint32_t object, uint32_t chunk, uint64_t position)
{
    if (needs->need_count == needs->need_capacity) {
        size_t capacity = needs->need_capacity * 2 + 1024;
        struct store_need *grown = realloc(needs->needs, capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        needs->needs = grown;
        needs->need_capacity = capacity;
    }
    needs->needs[needs->need_count++] = (struct store_need){.object = object,
                                                            .chunk = chunk,
                                                            .first_position = position,
                                                            .last_position = position,
                                                            .uses = 1};
    return true;
}

/* A file of a prefix: an object of its own, met once. */
static bool add_file(struct needs *needs, const struct sample_place *place, uint64_t position)
{
    if (needs->object_count == needs->object_capacity) {
        size_t capacity = needs->object_capacity * 2 + 1024;
        struct store_object *grown = realloc(needs->objects, capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        needs->objects = grown;
        needs->object_capacity = capacity;
    }
    struct store_object object = {.url = strdup(place->path),
                                  .profile = needs->options->spec->profile,
                                  .tag = place->tag,
                                  .size_bytes = place->object_bytes};
    if (object.url == NULL) {
        return false;
    }
    uint32_t number = (uint32_t)needs->object_count;
    needs->objects[needs->object_count++] = object;
    uint64_t chunks = count_chunks(needs, place->object_bytes);
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        if (!add_need(needs, number, (uint32_t)chunk, position)) {
            return false;
        }
    }
    return needs->object_count < OBJECTS_MAX;
}

/* ---- Samples ---------------------------------------------------------------------------- */

static void use_chunks(struct needs *needs, uint32_t shard, const struct sample_place *place,
                       uint64_t position)
{
    if (place->length_bytes == 0) {
        return;
    }
    uint64_t first = place->offset_bytes / needs->chunk_bytes;
    uint64_t last = (place->offset_bytes + place->length_bytes - 1) / needs->chunk_bytes;
    for (uint64_t chunk = first; chunk <= last; chunk++) {
        struct store_need *need = &needs->needs[needs->chunk_first[shard] + chunk];
        if (need->uses++ == 0) {
            need->first_position = position;
        }
        need->last_position = position;
    }
}

static bool use_sample(struct needs *needs, uint64_t number, uint64_t position)
{
    struct sample_place place;
    char path[REMOTE_URL_BYTES];
    if (samples_place(&needs->samples, number, &place, path, sizeof path) != 0 ||
        place.tag == NULL) {
        return true; /* it will fail when it is read */
    }
    if (needs->is_folder) {
        return add_file(needs, &place, position);
    }
    uint32_t shard = (uint32_t)(samples_id(&needs->samples, number) >> 32);
    use_chunks(needs, shard, &place, position);
    return true;
}

/* The samples of one batch of this rank; false: no more can be listed. */
static bool use_slice(struct needs *needs, const struct plan_epoch *plan,
                      const struct plan_slice *slice)
{
    const uint64_t *subset = needs->options->subset;
    for (uint64_t position = slice->first; position < slice->first + slice->count; position++) {
        uint64_t number;
        if (plan != NULL) {
            number = plan_index(plan, position);
            number = subset != NULL ? subset[number] : number;
        } else {
            struct plan_place place = window_walk_at(needs->walk, position);
            number = (uint64_t)place.shard << 32 | place.position;
        }
        if (!use_sample(needs, number, position)) {
            return false;
        }
    }
    return true;
}

/* ---- Epochs ----------------------------------------------------------------------------- */

struct listing {
    const struct needs_place *from;
    uint64_t count_max;
    const atomic_bool *cancel;
    uint64_t end; /* positions gone through */
    bool is_whole;
};

static bool goes_on(const struct listing *listing, uint64_t position)
{
    return position - listing->from->position < listing->count_max &&
           !atomic_load_explicit(listing->cancel, memory_order_relaxed);
}

static struct plan_cut cut_of(const struct needs *needs, const struct needs_place *from,
                              uint64_t sample_count)
{
    const struct session_spec *spec = needs->options->spec;
    return (struct plan_cut){.sample_count = sample_count,
                             .start = from->position,
                             .batch = spec->batch,
                             .world = spec->world,
                             .tail = spec->tail};
}

static void list_whole(struct needs *needs, struct listing *listing)
{
    const struct plan_order *order = needs->options->order;
    struct plan_cut cut = cut_of(needs, listing->from, order->sample_count);
    struct plan_epoch *plan = plan_epoch_create(order, listing->from->epoch);
    if (plan == NULL || !plan_cut_is_valid(&cut)) {
        plan_epoch_destroy(plan);
        return;
    }
    uint64_t batches = plan_batch_count(&cut), batch = 0;
    bool has_room = true;
    while (batch < batches && has_room && goes_on(listing, listing->end)) {
        struct plan_slice slice = plan_slice(&cut, batch, needs->options->spec->rank);
        has_room = use_slice(needs, plan, &slice);
        listing->end = plan_position_after(&cut, batch++);
    }
    listing->is_whole = batch == batches && has_room;
    plan_epoch_destroy(plan);
}

/* Shards after the last window that is known: in their order, after everything else. */
static void list_unknown(struct needs *needs, struct listing *listing)
{
    const struct plan_order *order = needs->options->order;
    uint64_t position = window_walk_end(needs->walk);
    struct plan_window next = window_walk_next(needs->walk);
    for (uint32_t place = next.shard_first; next.shard_count > 0 && place < order->shard_count;
         place++) {
        uint32_t shard = plan_shard(order, listing->from->epoch, place);
        for (uint64_t at = needs->chunk_first[shard]; at < needs->chunk_first[shard + 1]; at++) {
            needs->needs[at].uses = 1;
            needs->needs[at].first_position = position;
            needs->needs[at].last_position = position;
            position++;
        }
    }
    listing->end = position;
}

static void list_windows(struct needs *needs, struct listing *listing)
{
    const struct needs_place *from = listing->from;
    window_walk_start(needs->walk, from->epoch, from->window_ordinal, from->window_first);
    struct plan_cut cut = cut_of(needs, from, catalog_sample_count(needs->samples.catalog));
    enum walk_result result = WALK_READY;
    while (result == WALK_READY && goes_on(listing, cut.start)) {
        struct walk_batch batch;
        result = window_walk_batch(needs->walk, &cut, needs->options->spec->rank, &batch);
        if (result == WALK_READY) {
            use_slice(needs, NULL, &batch.slice);
            cut.start = batch.next_position;
            window_walk_forget(needs->walk, cut.start);
            result = batch.is_last ? WALK_OVER : WALK_READY;
        }
    }
    listing->end = cut.start;
    listing->is_whole = result == WALK_OVER;
    if (result == WALK_WAIT) {
        list_unknown(needs, listing);
    }
}

/* ---- The list --------------------------------------------------------------------------- */

static int compare_needs(const void *a, const void *b)
{
    const struct store_need *left = a, *right = b;
    if (left->first_position != right->first_position) {
        return left->first_position < right->first_position ? -1 : 1;
    }
    if (left->object != right->object) {
        return left->object < right->object ? -1 : 1;
    }
    return (left->chunk > right->chunk) - (left->chunk < right->chunk);
}

/* Chunks of shards start unused. */
static void clear_needs(struct needs *needs)
{
    needs->need_count = 0;
    if (needs->is_folder) {
        return;
    }
    for (size_t object = 0; object < needs->object_count; object++) {
        for (uint64_t at = needs->chunk_first[object]; at < needs->chunk_first[object + 1]; at++) {
            needs->needs[at] = (struct store_need){
                .object = (uint32_t)object, .chunk = (uint32_t)(at - needs->chunk_first[object])};
        }
    }
}

bool needs_list(struct needs *needs, const struct needs_place *from, uint64_t count_max,
                const atomic_bool *cancel, struct store_plan *plan)
{
    struct listing listing = {
        .from = from, .count_max = count_max, .cancel = cancel, .end = from->position};
    clear_objects(needs);
    clear_needs(needs);
    if (needs->walk != NULL) {
        list_windows(needs, &listing);
    } else {
        list_whole(needs, &listing);
    }
    if (!needs->is_folder) {
        for (uint64_t at = 0; at < needs->need_capacity; at++) {
            if (needs->needs[at].uses > 0) {
                needs->needs[needs->need_count++] = needs->needs[at];
            }
        }
    }
    qsort(needs->needs, needs->need_count, sizeof *needs->needs, compare_needs);
    uint64_t known = needs->walk != NULL ? catalog_sample_count(needs->samples.catalog)
                                         : needs->options->order->sample_count;
    *plan = (struct store_plan){
        .epoch = from->epoch,
        .position_count = known != UINT64_MAX && known > listing.end ? known : listing.end,
        .objects = needs->objects,
        .object_count = needs->object_count,
        .needs = needs->needs,
        .need_count = needs->need_count,
    };
    return listing.is_whole;
}

/* ---- Life ------------------------------------------------------------------------------- */

struct needs *needs_create(const struct read_ahead_options *options)
{
    struct needs *needs = calloc(1, sizeof *needs);
    if (needs == NULL) {
        return NULL;
    }
    needs->options = options;
    needs->chunk_bytes = store_chunk_bytes(options->store);
    samples_init(&needs->samples, options->index, options->catalog);
    needs->is_folder = options->index != NULL && index_header(options->index)->kind == INDEX_FOLDER;
    bool is_made = samples_resolve(&needs->samples, options->spec, options->shard, NULL) == 0;
    if (options->catalog != NULL) {
        needs->walk = window_walk_create(options->order, count_samples, options->catalog);
        is_made = is_made && needs->walk != NULL;
    }
    if (!is_made || (!needs->is_folder && !list_shards(needs))) {
        needs_destroy(needs);
        return NULL;
    }
    return needs;
}

void needs_destroy(struct needs *needs)
{
    if (needs == NULL) {
        return;
    }
    clear_objects(needs);
    window_walk_destroy(needs->walk);
    samples_clear(&needs->samples);
    free(needs->objects);
    free(needs->chunk_first);
    free(needs->needs);
    free(needs);
}
