/* The store's life, its figures, and reads that wait. */
#include "loader/cache/store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/region.h"
#include "loader/cache/store_private.h"

enum { CANCEL_LOOK_MS = 100 };

static uint64_t memory_limit(const struct store_options *options, uint32_t chunk_bytes)
{
    uint64_t limit = options->memory_limit_bytes;
    if (limit == 0) {
        limit = region_memory_available_bytes() / 10;
        limit = limit < (uint64_t)1 << 30 ? limit : (uint64_t)1 << 30;
    }
    uint64_t least = (uint64_t)STORE_MEMORY_CHUNKS_MIN * chunk_bytes;
    return limit > least ? limit : least;
}

static void init_locks(struct store *store)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->manage_lock, NULL);
    pthread_cond_init(&store->work_came, &monotonic);
    pthread_cond_init(&store->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct store *store_create(const struct store_options *options, struct error *error)
{
    uint32_t chunk_bytes = options->chunk_bytes != 0 ? options->chunk_bytes : STORE_CHUNK_BYTES;
    if (chunk_bytes % CHUNK_BLOCK_BYTES != 0 || chunk_bytes > CHUNK_DATA_BYTES_MAX) {
        error_set(error, ERROR_USAGE, "chunks of %u bytes: give a multiple of 64 KiB.",
                  chunk_bytes);
        return NULL;
    }
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        error_set(error, ERROR_MEMORY, "no memory for the cache.");
        return NULL;
    }
    store->remote = options->remote;
    store->chunk_bytes = chunk_bytes;
    store->disk_limit_bytes = options->disk_limit_bytes;
    store->free_floor_bytes = options->free_floor_bytes;
    store->memory_limit_bytes = memory_limit(options, chunk_bytes);
    uint64_t most = (uint64_t)STORE_PARTS_MAX * chunk_bytes;
    uint64_t half = store->memory_limit_bytes / 2;
    uint64_t start = (uint64_t)FLOW_START_CHUNKS * chunk_bytes;
    store->flow.limit_max_bytes = most < half ? most : half;
    store->flow.limit_bytes =
        start < store->flow.limit_max_bytes ? start : store->flow.limit_max_bytes;
    init_locks(store);
    disk_open(store, options->folder);
    if (disk_start(store, error) != 0) {
        store_destroy(store);
        return NULL;
    }
    return store;
}

void store_destroy(struct store *store)
{
    if (store == NULL) {
        return;
    }
    pthread_mutex_lock(&store->lock);
    store->is_stopping = true;
    fetch_cancel_all(store);
    while (store->fetch_count > 0) {
        pthread_cond_wait(&store->changed, &store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    disk_stop(store);
    assert(store->jobs == NULL);
    store_table_clear(store);
    memory_clear(store);
    disk_close(store);
    rules_destroy(store);
    free(store->victims.list);
    pthread_cond_destroy(&store->work_came);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->manage_lock);
    free(store);
}

uint32_t store_chunk_bytes(const struct store *store)
{
    return store->chunk_bytes;
}

void store_stats_get(struct store *store, struct store_stats *stats)
{
    pthread_mutex_lock(&store->lock);
    *stats = store->stats;
    stats->disk_used_bytes = store->disk_used_bytes;
    stats->disk_limit_bytes = store->owns_folder ? store->disk_limit_bytes : 0;
    stats->disk_chunk_count = store->disk_count;
    stats->memory_used_bytes = store->memory_used_bytes;
    stats->memory_limit_bytes = store->memory_limit_bytes;
    stats->bytes_in_flight = store->in_flight_bytes;
    stats->bytes_in_flight_limit = store->flow.limit_bytes;
    stats->ahead_bytes = store->ahead_bytes;
    stats->is_scanning = store->is_scanning;
    stats->has_disk = store->owns_folder;
    pthread_mutex_unlock(&store->lock);
}

/* ---- Reads that wait ----------------------------------------------------------------------- */

struct waiting_read {
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool is_woken;
};

static void wake(void *context)
{
    struct waiting_read *waiting = context;
    pthread_mutex_lock(&waiting->lock);
    waiting->is_woken = true;
    pthread_cond_signal(&waiting->woken);
    pthread_mutex_unlock(&waiting->lock);
}

static void sleep_until_woken(struct waiting_read *waiting)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += CANCEL_LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int status = 0;
    pthread_mutex_lock(&waiting->lock);
    while (!waiting->is_woken && status == 0) {
        status = pthread_cond_timedwait(&waiting->woken, &waiting->lock, &until);
    }
    waiting->is_woken = false;
    pthread_mutex_unlock(&waiting->lock);
}

/* Drive one read to its end. */
static void run_read(struct store_port *port, struct waiting_read *waiting,
                     struct read_request *request, const atomic_bool *cancel)
{
    struct read_request *done;
    bool is_cancelled = false;
    store_port_submit(port, request);
    while (store_port_reap(port, &done, 1) == 0) {
        struct read_request *local;
        while ((local = store_port_take_local(port)) != NULL) {
            read_begin(local);
            read_use_file(local, local->file, UINT64_MAX);
            read_run(local, UINT64_MAX);
            local->state = READ_IDLE;
            store_port_local_done(port, local);
        }
        if (store_port_wait_begin(port)) {
            sleep_until_woken(waiting);
        }
        store_port_wait_end(port);
        if (!is_cancelled && cancel != NULL && atomic_load(cancel)) {
            is_cancelled = true;
            store_port_cancel(port, request);
        }
    }
}

static int take_result(const struct read_request *request, uint8_t *buffer, struct error *error)
{
    if (request->error == 0) {
        memcpy(buffer, request->bytes, request->size_bytes);
        return 0;
    }
    if (request->failure.kind != ERROR_NONE) {
        return error_set(error, request->failure.kind, "%s", request->failure.text);
    }
    return error_set(error, ERROR_IO, "%s: %s.", request->path, strerror(request->error));
}

int store_read(struct store *store, const struct store_object *object, uint64_t offset_bytes,
               uint64_t length_bytes, uint8_t *buffer, const atomic_bool *cancel,
               struct error *error)
{
    struct waiting_read waiting = {.is_woken = false};
    struct read_request *request = calloc(1, sizeof *request);
    struct store_port *port = store_port_create(store, wake, &waiting);
    int status = -1;
    if (request == NULL || port == NULL) {
        error_set(error, ERROR_MEMORY, "no memory to read %s.", object->url);
    } else {
        pthread_condattr_t monotonic;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_mutex_init(&waiting.lock, NULL);
        pthread_cond_init(&waiting.woken, &monotonic);
        pthread_condattr_destroy(&monotonic);
        request->path = object->url;
        request->profile = object->profile;
        request->tag = object->tag;
        request->object_bytes = object->size_bytes;
        request->offset_bytes = offset_bytes;
        request->length_bytes = length_bytes;
        request->keep_open = true; /* a length of 0 is nothing, not everything */
        run_read(port, &waiting, request, cancel);
        status = take_result(request, buffer, error);
        read_request_clear(request);
    }
    store_port_destroy(port);
    if (request != NULL && port != NULL) {
        pthread_cond_destroy(&waiting.woken);
        pthread_mutex_destroy(&waiting.lock);
    }
    free(request);
    return status;
}
