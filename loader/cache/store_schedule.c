/* What is fetched ahead, what is worth keeping, what makes room. */
#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "loader/cache/store_private.h"
#include "loader/clock.h"

enum {
    VICTIM_SHARE = 256, /* of so many chunk files one is noted when all are looked at */
    FEW_FILES = 4096,   /* so many are looked at whenever it is asked */
    RESCAN_NS = 50000000,
    AHEAD_SECONDS = 10, /* of the measured throughput */
};

/* ---- Distances --------------------------------------------------------------------------- */

struct need *chunk_first_need(const struct chunk *chunk)
{
    struct need *best = NULL;
    for (struct need *need = chunk->needs; need != NULL; need = need->next) {
        if (!need_is_over(need) && (best == NULL || need_distance(need) < need_distance(best))) {
            best = need;
        }
    }
    return best;
}

uint64_t chunk_distance(const struct store *store, const struct chunk *chunk, uint64_t *last)
{
    const struct need *need = chunk_first_need(chunk);
    if (last != NULL) {
        *last = need != NULL ? need_end(need) : distance_unneeded;
    }
    return need != NULL ? need_distance(need) : distance_unneeded + store->clock - chunk->used_at;
}

/* ---- Victims ----------------------------------------------------------------------------- */

void schedule_forget_victim(struct store *store, struct chunk *chunk)
{
    if (chunk->victim_index != UINT32_MAX) {
        store->victims.list[chunk->victim_index].chunk = NULL;
        chunk->victim_index = UINT32_MAX;
    }
}

static void forget_victims(struct store *store)
{
    for (size_t i = store->victims.used; i < store->victims.count; i++) {
        if (store->victims.list[i].chunk != NULL) {
            store->victims.list[i].chunk->victim_index = UINT32_MAX;
        }
    }
    store->victims.used = store->victims.count = 0;
}

void schedule_changed(struct store *store)
{
    store->victims.none_until_ns = 0;
    for (struct store_job *job = store->jobs; job != NULL; job = job->next) {
        job->is_blocked = false;
    }
}

static bool may_go(const struct chunk *chunk)
{
    return chunk->on_disk && chunk->user_count == 0 && !chunk->is_pinned;
}

static uint64_t victim_distance(const struct store *store, const struct chunk *chunk, int64_t now_s)
{
    return rules_expired(chunk, now_s) ? UINT64_MAX : chunk_distance(store, chunk, NULL);
}

/* Sink the first of `count` victims, of which the rest is a heap with the nearest on top. */
static void sink(struct victim *heap, size_t count)
{
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        child += child + 1 < count && heap[child + 1].distance < heap[child].distance;
        if (heap[at].distance <= heap[child].distance) {
            return;
        }
        struct victim moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

static int compare_victims(const void *a, const void *b)
{
    const struct victim *x = a, *y = b;
    return x->distance < y->distance ? 1 : x->distance > y->distance ? -1 : 0;
}

/* Look at all chunk files and note the farthest. */
static void find_victims(struct store *store)
{
    struct victims *victims = &store->victims;
    size_t wanted = store->disk_count / VICTIM_SHARE + 1;
    forget_victims(store);
    if (wanted > victims->capacity) {
        struct victim *list = realloc(victims->list, 2 * wanted * sizeof *list);
        if (list == NULL) {
            wanted = victims->capacity;
        } else {
            victims->list = list;
            victims->capacity = 2 * wanted;
        }
    }
    int64_t now_s = time(NULL);
    struct victim *heap = victims->list;
    size_t count = 0;
    for (size_t i = 0; i < store->disk_count && wanted > 0; i++) {
        struct chunk *chunk = store->disk_list[i];
        if (!may_go(chunk)) {
            continue;
        }
        struct victim victim = {chunk, victim_distance(store, chunk, now_s)};
        if (count < wanted) {
            heap[count++] = victim;
            if (count == wanted) {
                qsort(heap, count, sizeof *heap, compare_victims);
                for (size_t j = 0; j < count / 2; j++) { /* ascending order is a heap */
                    struct victim moved = heap[j];
                    heap[j] = heap[count - 1 - j];
                    heap[count - 1 - j] = moved;
                }
            }
        } else if (victim.distance > heap[0].distance) {
            heap[0] = victim;
            sink(heap, count);
        }
    }
    qsort(heap, count, sizeof *heap, compare_victims);
    victims->count = count;
    for (size_t i = 0; i < count; i++) {
        heap[i].chunk->victim_index = (uint32_t)i;
    }
}

/* The farthest of those noted that still may go and are where they were. */
static struct chunk *noted_victim(struct store *store, uint64_t distance)
{
    struct victims *victims = &store->victims;
    int64_t now_s = time(NULL);
    for (; victims->used < victims->count; victims->used++) {
        struct chunk *chunk = victims->list[victims->used].chunk;
        if (chunk == NULL) {
            continue;
        }
        if (may_go(chunk) && victim_distance(store, chunk, now_s) > distance) {
            return chunk;
        }
        chunk->victim_index = UINT32_MAX;
    }
    return NULL;
}

struct chunk *schedule_victim(struct store *store, uint64_t distance)
{
    struct victims *victims = &store->victims;
    bool is_few = store->disk_count <= FEW_FILES;
    struct chunk *chunk = is_few ? NULL : noted_victim(store, distance);
    if (chunk != NULL) {
        return chunk;
    }
    uint64_t now_ns = clock_now_ns();
    if (!is_few && now_ns < victims->none_until_ns && distance >= victims->none_beyond) {
        return NULL;
    }
    find_victims(store);
    uint64_t farthest = victims->count > 0 ? victims->list[0].distance : 0;
    chunk = noted_victim(store, distance);
    if (chunk == NULL) {
        victims->none_beyond = farthest;
        victims->none_until_ns = now_ns + RESCAN_NS;
    }
    return chunk;
}

/* ---- Admission --------------------------------------------------------------------------- */

/* Bytes that are or will be in memory without being on disk. */
static uint64_t unwritten_bytes(const struct store *store)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < store->memory_count; i++) {
        const struct chunk *chunk = store->memory_list[i];
        bytes += chunk->on_disk || chunk->is_writing ? 0 : chunk->data_bytes;
    }
    return bytes;
}

/* Of a chunk that is in use, so much has passed that the rest is cheaper to fetch by itself. */
static bool is_nearly_over(const struct chunk *chunk)
{
    const struct need *need = chunk_first_need(chunk);
    if (need == NULL || need->first >= need->job->now) {
        return false;
    }
    return (need->last - need->job->now) < (need->last - need->first) / 4;
}

static bool fits_on_disk(const struct store *store, const struct chunk *chunk)
{
    return disk_is_usable(store) && store->disk_used_bytes + unwritten_bytes(store) +
                                            chunk->data_bytes + CHUNK_HEADER_BYTES_MAX <=
                                        disk_limit(store);
}

static bool memory_has_later(const struct store *store, uint64_t distance)
{
    for (size_t i = 0; i < store->memory_count; i++) {
        const struct chunk *chunk = store->memory_list[i];
        if (chunk->user_count == 0 && chunk->fetch == NULL && !chunk->on_disk &&
            chunk_distance(store, chunk, NULL) > distance) {
            return true;
        }
    }
    return false;
}

bool schedule_admits(struct store *store, struct chunk *chunk)
{
    uint64_t last;
    chunk_distance(store, chunk, &last);
    if (is_nearly_over(chunk)) {
        return false;
    }
    if (fits_on_disk(store, chunk) ||
        store->memory_used_bytes + chunk->data_bytes <= store->memory_limit_bytes) {
        return true;
    }
    return (disk_is_usable(store) && schedule_victim(store, last) != NULL) ||
           memory_has_later(store, last);
}

/* ---- Fetching ahead ---------------------------------------------------------------------- */

void schedule_lost(struct chunk *chunk)
{
    if (chunk->on_disk || chunk->buffer != NULL) {
        return;
    }
    for (struct need *need = chunk->needs; need != NULL; need = need->next) {
        struct store_job *job = need->job;
        for (uint32_t i = 0; i < job->plan_count; i++) {
            struct plan_needs *plan = &job->plans[i];
            if (need >= plan->needs && need < plan->needs + plan->cursor) {
                plan->cursor = (size_t)(need - plan->needs);
            }
        }
    }
}

void schedule_not_ahead(struct store *store, struct chunk *chunk)
{
    if (chunk->is_ahead) {
        chunk->is_ahead = false;
        store->ahead_bytes -= chunk->data_bytes;
    }
}

static uint64_t ahead_limit(const struct store *store)
{
    uint64_t least = store->memory_limit_bytes / 2;
    uint64_t most = disk_is_usable(store) ? disk_limit(store) / 2 : 0;
    uint64_t wanted = store->flow.bytes_per_s * AHEAD_SECONDS;
    wanted = wanted < most ? wanted : most;
    return wanted > least ? wanted : least;
}

/* Whose chunk is to come next: the one that is needed soonest, preloads after readers. */
static struct need *choose_need(struct store *store)
{
    struct need *best = NULL;
    bool is_far_ahead = store->ahead_bytes >= ahead_limit(store);
    for (struct store_job *job = store->jobs; job != NULL; job = job->next) {
        bool is_preload = job->kind == STORE_JOB_PRELOAD;
        if (job->is_blocked || (is_far_ahead && !is_preload)) {
            continue;
        }
        struct need *need = job_next_need(job);
        if (need == NULL) {
            job->is_blocked = true;
            continue;
        }
        bool best_is_preload = best != NULL && best->job->kind == STORE_JOB_PRELOAD;
        if (best == NULL || (best_is_preload && !is_preload) ||
            (best_is_preload == is_preload && need_distance(need) < need_distance(best))) {
            best = need;
        }
    }
    return best;
}

/* A preload is for the disk where there is one, and takes no needed chunk's place. */
static bool admits_preload(struct store *store, const struct chunk *chunk)
{
    if (!disk_is_usable(store)) {
        return store->memory_used_bytes + chunk->data_bytes <= store->memory_limit_bytes;
    }
    return fits_on_disk(store, chunk) || schedule_victim(store, distance_unneeded) != NULL;
}

/* For an epoch that has not begun, room in memory alone is not enough: what is fetched so early
 * would have to make room again before it is read. */
static bool admits_ahead(struct store *store, const struct need *need)
{
    const struct plan_needs *plan = &need->job->plans[0];
    bool is_of_next_epoch = need < plan->needs || need >= plan->needs + plan->count;
    if (!is_of_next_epoch || fits_on_disk(store, need->chunk)) {
        return schedule_admits(store, need->chunk);
    }
    return disk_is_usable(store) ? schedule_victim(store, need_end(need)) != NULL
                                 : schedule_admits(store, need->chunk);
}

static void start_ahead(struct store *store, struct need *need)
{
    struct store_job *job = need->job;
    struct chunk *chunk = need->chunk;
    bool is_preload = job->kind == STORE_JOB_PRELOAD;
    if (!is_preload && is_nearly_over(chunk)) {
        job_skip_need(job, need);
        return;
    }
    if (!(is_preload ? admits_preload(store, chunk) : admits_ahead(store, need)) ||
        !fetch_chunk(store, chunk, job, true)) {
        job->is_blocked = true;
        return;
    }
    if (!is_preload) {
        chunk->is_ahead = true;
        store->ahead_bytes += chunk->data_bytes;
    }
}

void schedule(struct store *store)
{
    if (store->is_stopping) {
        return;
    }
    struct need *need = NULL;
    bool has_room;
    while ((has_room = store->in_flight_bytes < flow_limit(store) &&
                       store->fetch_count < STORE_PARTS_MAX) &&
           (need = choose_need(store)) != NULL) {
        start_ahead(store, need);
    }
    store->flow.was_full |= !has_room;
}
