/* Fetches from the origin: whole chunks into the memory tier, or a read's range. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/cache/store_private.h"

static void link_fetch(struct store *store, struct fetch *fetch)
{
    fetch->next = store->fetches;
    if (store->fetches != NULL) {
        store->fetches->previous = fetch;
    }
    store->fetches = fetch;
    store->fetch_count++;
    store->stats.fetch_count++;
}

static void unlink_fetch(struct store *store, struct fetch *fetch)
{
    if (fetch->previous != NULL) {
        fetch->previous->next = fetch->next;
    } else {
        store->fetches = fetch->next;
    }
    if (fetch->next != NULL) {
        fetch->next->previous = fetch->previous;
    }
    store->fetch_count--;
    free(fetch->profile);
    free(fetch);
}

/* Bytes that have come since the last call, for the measure of throughput. */
static void count_bytes(struct fetch *fetch, uint64_t received_bytes)
{
    if (received_bytes > fetch->counted_bytes) {
        uint64_t more = received_bytes - fetch->counted_bytes;
        fetch->counted_bytes = received_bytes;
        fetch->store->stats.fetched_bytes += more;
        flow_note(fetch->store, more);
    }
}

/* ---- Callbacks: the network thread, no lock ---------------------------------------------- */

static void on_progress(struct remote_part *part, uint64_t contiguous_bytes)
{
    struct fetch *fetch = part->owner;
    struct store *store = fetch->store;
    pthread_mutex_lock(&store->lock);
    count_bytes(fetch, contiguous_bytes);
    if (fetch->segment == NULL) {
        fetch->chunk->ready_bytes = (uint32_t)contiguous_bytes;
        port_serve(store, fetch->chunk);
    }
    pthread_mutex_unlock(&store->lock);
}

static void note_failure(struct store *store, struct fetch *fetch, const struct error *error)
{
    store->stats.fetch_failed_count += error->kind != ERROR_CANCELLED;
    for (struct need *need = fetch->chunk->needs; need != NULL; need = need->next) {
        if (need->job->kind == STORE_JOB_PRELOAD && error->kind != ERROR_CANCELLED) {
            if (need->job->failed_count++ == 0) {
                need->job->error = *error;
            }
        }
        need->has_failed = true; /* not fetched ahead again; a read of it tries */
    }
}

static void finish_chunk(struct store *store, struct fetch *fetch)
{
    struct chunk *chunk = fetch->chunk;
    const struct error *error = &fetch->part.error;
    chunk->fetch = NULL;
    store->in_flight_bytes -= chunk->data_bytes;
    chunk->user_count++;
    if (error->kind == ERROR_NONE) {
        chunk->ready_bytes = chunk->data_bytes;
        chunk->fetched_s = (uint32_t)time(NULL);
        if (fetch->is_ahead) {
            store->stats.prefetched_bytes += chunk->data_bytes;
        }
        port_serve(store, chunk);
        disk_offer(store, chunk);
    } else {
        note_failure(store, fetch, error);
        chunk->is_void = true;
        port_fail_waiters(store, chunk, error);
    }
    chunk_release(store, chunk);
}

static void on_done(struct remote_part *part)
{
    struct fetch *fetch = part->owner;
    struct store *store = fetch->store;
    pthread_mutex_lock(&store->lock);
    bool is_good = part->error.kind == ERROR_NONE;
    count_bytes(fetch, part->received_bytes);
    if (fetch->segment != NULL) {
        struct segment *segment = fetch->segment;
        store->stats.fetch_failed_count += !is_good && fetch->part.error.kind != ERROR_CANCELLED;
        segment->fetch = NULL;
        segment_finish(store, segment, is_good ? NULL : &part->error);
    } else {
        finish_chunk(store, fetch);
    }
    unlink_fetch(store, fetch);
    schedule(store);
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
}

/* ---- Starting ---------------------------------------------------------------------------- */

static struct fetch *new_fetch(struct store *store, struct chunk *chunk, uint64_t offset_bytes,
                               uint64_t length_bytes)
{
    struct fetch *fetch = calloc(1, sizeof *fetch);
    char *profile = strdup(chunk->object->profile);
    if (fetch == NULL || profile == NULL) {
        free(fetch);
        free(profile);
        return NULL;
    }
    fetch->store = store;
    fetch->chunk = chunk;
    fetch->profile = profile;
    fetch->part.url = chunk->object->url;
    fetch->part.profile = profile;
    fetch->part.version.size_bytes = chunk->object->size_bytes;
    strncpy(fetch->part.version.tag, chunk->object->tag, sizeof fetch->part.version.tag - 1);
    fetch->part.offset_bytes = (uint64_t)chunk->number * store->chunk_bytes + offset_bytes;
    fetch->part.length_bytes = length_bytes;
    fetch->part.on_progress = on_progress;
    fetch->part.on_done = on_done;
    fetch->part.owner = fetch;
    return fetch;
}

bool fetch_chunk(struct store *store, struct chunk *chunk, struct store_job *job, bool is_ahead)
{
    assert(chunk->buffer == NULL && chunk->fetch == NULL);
    if (store->is_stopping) {
        return false;
    }
    struct fetch *fetch = new_fetch(store, chunk, 0, chunk->data_bytes);
    if (fetch == NULL ||
        !memory_acquire(store, chunk, chunk_distance(store, chunk, NULL), is_ahead)) {
        if (fetch != NULL) {
            free(fetch->profile);
            free(fetch);
        }
        return false;
    }
    struct need *need = chunk_first_need(chunk);
    chunk->fresh_job_id = need != NULL ? need->job->id : job != NULL ? job->id : 0;
    chunk->fresh_until = need != NULL ? need->last : job != NULL ? job->now : 0;
    chunk->fetch = fetch;
    fetch->is_ahead = is_ahead;
    fetch->part.buffer = chunk->buffer;
    store->in_flight_bytes += chunk->data_bytes;
    link_fetch(store, fetch);
    remote_part_start(store->remote, &fetch->part);
    return true;
}

bool fetch_range(struct store *store, struct segment *segment)
{
    struct fetch *fetch =
        new_fetch(store, segment->chunk, segment->offset_bytes, segment->length_bytes);
    if (fetch == NULL) {
        return false;
    }
    fetch->segment = segment;
    fetch->part.buffer = segment->read->request->buffer + segment->out_bytes;
    segment->fetch = fetch;
    link_fetch(store, fetch);
    remote_part_start(store->remote, &fetch->part);
    return true;
}

void fetch_cancel_unwanted(struct store *store)
{
    for (struct fetch *fetch = store->fetches; fetch != NULL; fetch = fetch->next) {
        if (fetch->segment == NULL && fetch->is_ahead && fetch->chunk->needs == NULL &&
            fetch->chunk->waiters == NULL) {
            remote_part_cancel(store->remote, &fetch->part);
        }
    }
}

void fetch_cancel_all(struct store *store)
{
    for (struct fetch *fetch = store->fetches; fetch != NULL; fetch = fetch->next) {
        remote_part_cancel(store->remote, &fetch->part);
    }
}
