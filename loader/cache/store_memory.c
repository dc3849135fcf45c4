/* Buffers of chunks: the memory tier together with what is being fetched. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "loader/cache/store_private.h"

enum { HUGE_PAGE_BYTES = 2 << 20 };

static size_t padded_bytes(const struct chunk *chunk)
{
    size_t unit = CHUNK_ALIGNMENT_BYTES;
    return (chunk->data_bytes + unit - 1) / unit * unit;
}

static uint8_t *new_buffer(struct store *store, size_t bytes)
{
    if (bytes == store->chunk_bytes && store->spare_buffers != NULL) {
        uint8_t *buffer = store->spare_buffers;
        memcpy(&store->spare_buffers, buffer, sizeof store->spare_buffers);
        store->spare_count--;
        return buffer;
    }
    size_t alignment = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : CHUNK_ALIGNMENT_BYTES;
    void *buffer;
    if (posix_memalign(&buffer, alignment, bytes) != 0) {
        return NULL;
    }
    if (alignment == HUGE_PAGE_BYTES) {
        madvise(buffer, bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES, MADV_HUGEPAGE);
    }
    return buffer;
}

/* Whole chunks' buffers are kept for the next ones, with their pages: faulting 8 MiB in costs as
 * much as receiving a tenth of it. */
static void free_buffer(struct store *store, uint8_t *buffer, size_t bytes)
{
    uint64_t spare_bytes = (uint64_t)(store->spare_count + 1) * store->chunk_bytes;
    if (bytes == store->chunk_bytes &&
        store->memory_used_bytes + spare_bytes <= store->memory_limit_bytes) {
        memcpy(buffer, &store->spare_buffers, sizeof store->spare_buffers);
        store->spare_buffers = buffer;
        store->spare_count++;
    } else {
        free(buffer);
    }
}

static bool list_memory(struct store *store, struct chunk *chunk)
{
    if (store->memory_count == store->memory_capacity) {
        size_t capacity = store->memory_capacity == 0 ? 64 : 2 * store->memory_capacity;
        struct chunk **list = realloc(store->memory_list, capacity * sizeof *list);
        if (list == NULL) {
            return false;
        }
        store->memory_list = list;
        store->memory_capacity = capacity;
    }
    chunk->memory_index = (uint32_t)store->memory_count;
    store->memory_list[store->memory_count++] = chunk;
    return true;
}

void memory_release(struct store *store, struct chunk *chunk)
{
    assert(chunk->user_count == 0 && chunk->fetch == NULL && chunk->buffer != NULL);
    struct chunk *last = store->memory_list[--store->memory_count];
    store->memory_list[chunk->memory_index] = last;
    last->memory_index = chunk->memory_index;
    chunk->memory_index = UINT32_MAX;
    store->memory_used_bytes -= padded_bytes(chunk);
    free_buffer(store, chunk->buffer, padded_bytes(chunk));
    chunk->buffer = NULL;
    chunk->ready_bytes = 0;
    chunk->is_void = false;
}

/* What is to be given up for a chunk that is needed at `distance`: what is on disk, too, else what
 * is needed later. The farthest of its kind, or NULL. */
static struct chunk *find_farthest(struct store *store, uint64_t distance, bool on_disk)
{
    struct chunk *best = NULL;
    uint64_t best_distance = 0;
    for (size_t i = 0; i < store->memory_count; i++) {
        struct chunk *chunk = store->memory_list[i];
        if (chunk->user_count > 0 || chunk->fetch != NULL || chunk->is_writing ||
            chunk->on_disk != on_disk || chunk->is_spilled) {
            continue;
        }
        uint64_t its_distance = chunk_distance(store, chunk, NULL);
        bool may_go = on_disk || its_distance > distance;
        if (may_go && (best == NULL || its_distance > best_distance)) {
            best = chunk;
            best_distance = its_distance;
        }
    }
    return best;
}

/* Make room by one chunk. False when there is nothing that may go now. */
static bool give_up_one(struct store *store, uint64_t distance)
{
    struct chunk *chunk = find_farthest(store, distance, true);
    if (chunk == NULL) {
        chunk = find_farthest(store, distance, false);
        if (chunk == NULL) {
            return false;
        }
        /* Not on disk: does it deserve to be? Then its buffer is free once it is written. */
        if (disk_is_usable(store) &&
            (store->disk_used_bytes + chunk->data_bytes < disk_limit(store) ||
             schedule_victim(store, chunk_distance(store, chunk, NULL)) != NULL)) {
            disk_spill(store, chunk);
            return false;
        }
    }
    if (chunk->is_queued) {
        return false; /* the writers come to it soon */
    }
    memory_release(store, chunk);
    schedule_not_ahead(store, chunk);
    schedule_lost(chunk);
    chunk_forget_if_unused(store, chunk);
    return true;
}

/* A quarter is left to reads that wait: without a buffer they would fetch their range only, and the
 * chunk once more later. */
bool memory_acquire(struct store *store, struct chunk *chunk, uint64_t distance, bool is_ahead)
{
    uint64_t limit = store->memory_limit_bytes / 4 * (is_ahead ? 3 : 4);
    size_t bytes = padded_bytes(chunk);
    chunk->user_count++; /* not to be forgotten on the way */
    bool has_room = true;
    while (has_room && store->memory_used_bytes + bytes > limit) {
        has_room = give_up_one(store, distance);
    }
    if (has_room && list_memory(store, chunk)) {
        chunk->buffer = new_buffer(store, bytes);
        store->memory_used_bytes += bytes;
        chunk->ready_bytes = 0;
    }
    bool failed = has_room && chunk->memory_index != UINT32_MAX && chunk->buffer == NULL;
    if (failed) { /* no memory at all */
        store->memory_list[--store->memory_count] = NULL;
        chunk->memory_index = UINT32_MAX;
        store->memory_used_bytes -= bytes;
    }
    chunk->user_count--;
    return chunk->buffer != NULL;
}

void memory_clear(struct store *store)
{
    while (store->spare_buffers != NULL) {
        free(new_buffer(store, store->chunk_bytes));
    }
}
