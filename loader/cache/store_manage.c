/* Looking at what is in the cache, and removing it by hand. */
#include "loader/cache/store_manage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/cache/store_private.h"

enum { POLL_NS = 10000000 };

static bool is_cancelled(const struct store_watch *watch)
{
    return watch != NULL && watch->cancel != NULL && atomic_load(watch->cancel);
}

static void show(const struct store_watch *watch, uint64_t done, uint64_t total)
{
    if (watch != NULL && watch->done_count != NULL && watch->total_count != NULL) {
        atomic_store(watch->total_count, total);
        atomic_store(watch->done_count, done);
    }
}

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_MEMORY, "no memory for a list of what is in the cache.");
}

/* ---- What chunk files are of --------------------------------------------------------------- */

/* Does a header that held belong to the chunk under whose name it was found? */
static bool is_of_chunk(const struct store *store, const struct chunk_identity *identity,
                        const struct chunk *chunk)
{
    struct store_object object = {
        .url = identity->url, .tag = identity->tag, .size_bytes = identity->object_bytes};
    uint8_t key[CHUNK_KEY_BYTES];
    uint64_t begin = (uint64_t)identity->number * store->chunk_bytes;
    if (identity->kind != CHUNK_OBJECT || identity->number != chunk->number ||
        identity->chunk_bytes != store->chunk_bytes || begin >= identity->object_bytes ||
        strlen(identity->url) >= REMOTE_URL_BYTES || strlen(identity->tag) >= REMOTE_TAG_BYTES ||
        identity->data_bytes != chunk_data_bytes(store, identity->object_bytes, chunk->number)) {
        return false;
    }
    store_object_key(store, &object, key);
    return memcmp(key, chunk->key, sizeof key) == 0;
}

static bool is_unknown(const struct chunk *chunk)
{
    return chunk->object == NULL || chunk->fetched_s == 0;
}

/* A time that a header tells, as far as it can be believed. */
static uint32_t believed_time(int64_t fetched_s)
{
    int64_t now_s = time(NULL);
    return (uint32_t)(fetched_s < 1 ? 1 : fetched_s > now_s ? now_s : fetched_s);
}

/* Read the header of a chunk's file. What is no good is dropped; false: not now. */
static bool identify(struct store *store, struct chunk *chunk)
{
    struct chunk_header_room *room =
        aligned_alloc(_Alignof(struct chunk_header_room), sizeof *room);
    if (room == NULL) {
        return false;
    }
    char name[CHUNK_NAME_BYTES];
    struct chunk_identity identity;
    int64_t fetched_s = 0;
    files_name(chunk, name);
    chunk->user_count++;
    pthread_mutex_unlock(&store->lock);
    int error = chunk_file_identify(store->folder_fd, name, &identity, &fetched_s, room);
    pthread_mutex_lock(&store->lock);
    bool is_done = error != ENOMEM && error != EMFILE && error != ENFILE;
    if (chunk->on_disk && is_done) {
        struct store_object object = {0};
        if (error == 0 && is_of_chunk(store, &identity, chunk)) {
            object = (struct store_object){.url = identity.url,
                                           .profile = object_profile(store, chunk->key),
                                           .tag = identity.tag,
                                           .size_bytes = identity.object_bytes};
            chunk->fetched_s = believed_time(fetched_s);
            is_done = chunk->object != NULL || chunk_set_object(store, chunk, &object);
        } else {
            store->stats.corrupt_count++;
            disk_remove(store, chunk);
        }
    }
    free(room);
    chunk_release(store, chunk);
    return is_done;
}

/* Until all are known, or those that are left cannot be read now. The list changes meanwhile, so
 * it is gone through again when something was done. Called and returns with the lock. */
static void identify_all(struct store *store, const struct store_watch *watch)
{
    for (bool was_done = true; was_done;) {
        was_done = false;
        for (size_t i = 0; i < store->disk_count && !store->is_stopping && !is_cancelled(watch);
             i++) {
            if (is_unknown(store->disk_list[i])) {
                was_done |= identify(store, store->disk_list[i]);
                show(watch, i + 1, store->disk_count);
            }
        }
    }
}

void manage_identify_all(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    identify_all(store, NULL);
    pthread_mutex_unlock(&store->lock);
}

int store_identify(struct store *store, const struct store_watch *watch, struct error *error)
{
    pthread_mutex_lock(&store->lock);
    while (store->is_scanning && !store->is_stopping && !is_cancelled(watch)) {
        pthread_mutex_unlock(&store->lock);
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        pthread_mutex_lock(&store->lock);
    }
    identify_all(store, watch);
    bool is_stopping = store->is_stopping;
    pthread_mutex_unlock(&store->lock);
    return is_stopping || is_cancelled(watch)
               ? error_set(error, ERROR_CANCELLED, "The look at the cache was cancelled.")
               : 0;
}

/* ---- What there is ------------------------------------------------------------------------- */

struct gathered {
    struct object *object;
    struct store_entry entry;
    bool is_chosen;
};

struct gathering {
    struct gathered *list;
    size_t count, capacity;
};

static bool is_memory_only(const struct chunk *chunk)
{
    return chunk->buffer != NULL && !chunk->on_disk && !chunk->is_void && chunk->fetch == NULL &&
           chunk->ready_bytes == chunk->data_bytes;
}

static struct gathered *gathered_of(struct store *store, struct gathering *gathering,
                                    struct object *object)
{
    if (object->gathered == 0) {
        if (gathering->count == gathering->capacity) {
            size_t capacity = 2 * gathering->capacity + 64;
            struct gathered *list = realloc(gathering->list, capacity * sizeof *list);
            if (list == NULL) {
                return NULL;
            }
            gathering->list = list;
            gathering->capacity = capacity;
        }
        uint64_t chunks = (object->size_bytes + store->chunk_bytes - 1) / store->chunk_bytes;
        gathering->list[gathering->count++] = (struct gathered){
            .object = object,
            .entry = {.url = object->url,
                      .tag = object->tag,
                      .size_bytes = object->size_bytes,
                      .chunks_total = (uint32_t)chunks},
        };
        object->gathered = gathering->count;
        object->ref_count++;
    }
    return &gathering->list[object->gathered - 1];
}

static bool gather_chunk(struct store *store, struct gathering *gathering, const char *prefix,
                         const struct chunk *chunk)
{
    if (chunk->object == NULL || strncmp(chunk->object->url, prefix, strlen(prefix)) != 0) {
        return true;
    }
    struct gathered *gathered = gathered_of(store, gathering, chunk->object);
    if (gathered == NULL) {
        return false;
    }
    struct store_entry *entry = &gathered->entry;
    entry->chunk_count++;
    entry->disk_bytes += chunk->on_disk ? chunk->file_bytes : 0;
    entry->memory_bytes += chunk->on_disk ? 0 : chunk->data_bytes;
    entry->is_pinned |= chunk->is_pinned;
    int64_t expires_s = (int64_t)chunk->fetched_s + chunk->ttl_s;
    if (chunk->ttl_s > 0 && chunk->fetched_s > 0 && !chunk->is_pinned &&
        (entry->expires_s == 0 || expires_s < entry->expires_s)) {
        entry->expires_s = expires_s;
    }
    return true;
}

static void let_go(struct store *store, struct gathering *gathering)
{
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < gathering->count; i++) {
        gathering->list[i].object->gathered = 0;
        object_release(store, gathering->list[i].object);
    }
    pthread_mutex_unlock(&store->lock);
    free(gathering->list);
}

/* The objects under a prefix, held until let_go(). Under manage_lock; takes the other one. */
static int gather(struct store *store, const char *prefix, struct gathering *gathering,
                  struct error *error)
{
    *gathering = (struct gathering){0};
    bool is_good = true;
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < store->disk_count && is_good; i++) {
        is_good = gather_chunk(store, gathering, prefix, store->disk_list[i]);
    }
    for (size_t i = 0; i < store->memory_count && is_good; i++) {
        const struct chunk *chunk = store->memory_list[i];
        is_good = !is_memory_only(chunk) || gather_chunk(store, gathering, prefix, chunk);
    }
    pthread_mutex_unlock(&store->lock);
    if (!is_good) {
        let_go(store, gathering);
        return no_memory(error);
    }
    return 0;
}

static int compare_entries(const void *a, const void *b, void *context)
{
    const struct gathering *gathering = context;
    const struct store_entry *x = &gathering->list[*(const size_t *)a].entry;
    const struct store_entry *y = &gathering->list[*(const size_t *)b].entry;
    int order = strcmp(x->url, y->url);
    return order != 0 ? order : strcmp(x->tag, y->tag);
}

/* The list itself stays as it is: objects know their places in it. */
static int visit_sorted(struct gathering *gathering,
                        bool (*visit)(void *context, const struct store_entry *entry),
                        void *context, struct error *error)
{
    size_t *order = calloc(gathering->count + 1, sizeof *order);
    if (order == NULL) {
        return no_memory(error);
    }
    for (size_t i = 0; i < gathering->count; i++) {
        order[i] = i;
    }
    qsort_r(order, gathering->count, sizeof *order, compare_entries, gathering);
    for (size_t i = 0; i < gathering->count; i++) {
        if (!visit(context, &gathering->list[order[i]].entry)) {
            break;
        }
    }
    free(order);
    return 0;
}

int store_list(struct store *store, const char *prefix,
               bool (*visit)(void *context, const struct store_entry *entry), void *context,
               struct error *error)
{
    if (store_identify(store, NULL, error) != 0) {
        return -1;
    }
    struct gathering gathering;
    pthread_mutex_lock(&store->manage_lock);
    int status = gather(store, prefix, &gathering, error);
    if (status == 0) {
        status = visit_sorted(&gathering, visit, context, error);
        let_go(store, &gathering);
    }
    pthread_mutex_unlock(&store->manage_lock);
    return status;
}

static bool add_usage(void *context, const struct store_entry *entry)
{
    struct store_usage *usage = context;
    usage->object_count++;
    usage->complete_count += entry->chunk_count == entry->chunks_total;
    usage->chunk_count += entry->chunk_count;
    usage->object_bytes += entry->size_bytes;
    usage->disk_bytes += entry->disk_bytes;
    usage->memory_bytes += entry->memory_bytes;
    usage->pinned_bytes += entry->is_pinned ? entry->disk_bytes : 0;
    return true;
}

int store_usage(struct store *store, const char *prefix, struct store_usage *usage,
                struct error *error)
{
    *usage = (struct store_usage){0};
    return store_list(store, prefix, add_usage, usage, error);
}

/* ---- Removing ------------------------------------------------------------------------------ */

static bool is_in_use(const struct chunk *chunk)
{
    return chunk->user_count > 0 || chunk->fetch != NULL || chunk->is_writing || chunk->is_queued ||
           chunk->is_leaving;
}

bool manage_drop(struct store *store, struct chunk *chunk)
{
    if (is_in_use(chunk)) {
        return false;
    }
    if (chunk->on_disk) {
        chunk->user_count++;
        disk_remove(store, chunk);
        chunk->user_count--;
    }
    if (chunk->buffer != NULL && !is_in_use(chunk)) {
        memory_release(store, chunk);
    }
    if (chunk->buffer == NULL) {
        schedule_not_ahead(store, chunk);
        schedule_lost(chunk);
    }
    chunk_forget_if_unused(store, chunk);
    return true;
}

struct eviction {
    struct store *store;
    const struct store_choice *choice;
    const struct store_watch *watch;
    struct gathering gathering;
    struct store_evicted *evicted;
    uint64_t pinned_count, busy_count; /* of this pass */
};

static bool is_chosen(const struct eviction *eviction, const struct chunk *chunk)
{
    const struct object *object = chunk->object;
    return object != NULL && object->gathered > 0 &&
           eviction->gathering.list[object->gathered - 1].is_chosen;
}

/* Go through a list once; what is dropped leaves its place to another one. How many were dropped.
 */
static size_t evict_listed(struct eviction *eviction, struct chunk ***list, const size_t *count,
                           bool is_of_memory)
{
    size_t dropped = 0;
    for (size_t i = 0; i < *count && !is_cancelled(eviction->watch);) {
        struct chunk *chunk = (*list)[i];
        uint64_t bytes = is_of_memory ? chunk->data_bytes : chunk->file_bytes;
        bool is_meant = is_chosen(eviction, chunk) && (!is_of_memory || is_memory_only(chunk));
        if (is_meant && chunk->is_pinned && !eviction->choice->is_forced) {
            eviction->pinned_count++;
            is_meant = false;
        } else if (is_meant && is_in_use(chunk)) {
            eviction->busy_count++;
            is_meant = false;
        }
        if (is_meant) {
            eviction->evicted->chunk_count++;
            eviction->evicted->bytes += bytes;
        }
        if (is_meant && !eviction->choice->is_dry && manage_drop(eviction->store, chunk)) {
            dropped++;
            show(eviction->watch, eviction->evicted->chunk_count,
                 eviction->evicted->chunk_count + *count - i);
        } else {
            i++;
        }
    }
    return dropped;
}

/* The lists change whenever the lock is let go, so they are gone through until nothing is found. */
static void evict_chosen(struct eviction *eviction)
{
    struct store *store = eviction->store;
    size_t dropped;
    pthread_mutex_lock(&store->lock);
    do {
        eviction->pinned_count = eviction->busy_count = 0;
        dropped = evict_listed(eviction, &store->disk_list, &store->disk_count, false);
        dropped += evict_listed(eviction, &store->memory_list, &store->memory_count, true);
    } while (dropped > 0);
    schedule_changed(store);
    schedule(store);
    pthread_mutex_unlock(&store->lock);
    eviction->evicted->pinned_count = eviction->pinned_count;
    eviction->evicted->busy_count = eviction->busy_count;
}

int store_evict(struct store *store, const struct store_choice *choice,
                const struct store_watch *watch, struct store_evicted *evicted, struct error *error)
{
    *evicted = (struct store_evicted){0};
    if (store_identify(store, watch, error) != 0) {
        return -1;
    }
    struct eviction eviction = {
        .store = store, .choice = choice, .watch = watch, .evicted = evicted};
    pthread_mutex_lock(&store->manage_lock);
    int status = gather(store, choice->prefix, &eviction.gathering, error);
    if (status == 0) {
        for (size_t i = 0; i < eviction.gathering.count; i++) {
            struct gathered *gathered = &eviction.gathering.list[i];
            gathered->is_chosen =
                choice->wants == NULL || choice->wants(choice->context, &gathered->entry);
        }
        evict_chosen(&eviction);
        let_go(store, &eviction.gathering);
    }
    pthread_mutex_unlock(&store->manage_lock);
    if (status == 0 && is_cancelled(watch)) {
        status = error_set(error, ERROR_CANCELLED, "The eviction was cancelled.");
    }
    return status;
}
