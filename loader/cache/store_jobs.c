/* Jobs: what they need, where they stand. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "loader/cache/store_private.h"

enum { NEEDS_PER_LOCK = 512 }; /* a long list is taken in without keeping others waiting */

struct store_job *store_job_create(struct store *store, enum store_job_kind kind)
{
    struct store_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return NULL;
    }
    job->store = store;
    job->kind = kind;
    pthread_mutex_lock(&store->lock);
    job->id = ++store->last_job_id;
    job->next = store->jobs;
    store->jobs = job;
    store->stats.job_count++;
    pthread_mutex_unlock(&store->lock);
    return job;
}

/* ---- Plans ------------------------------------------------------------------------------- */

static void unlink_need(struct store *store, struct need *need)
{
    struct chunk *chunk = need->chunk;
    struct need **link = &chunk->needs;
    while (*link != need) {
        link = &(*link)->next;
    }
    *link = need->next;
    chunk_forget_if_unused(store, chunk);
}

static void lock_again(struct store *store)
{
    pthread_mutex_unlock(&store->lock);
    pthread_mutex_lock(&store->lock);
}

/* Drop needs that are in no plan of the job any more. Lets others have the lock now and then. */
static void drop_needs(struct store *store, struct need *needs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unlink_need(store, &needs[i]);
        if (i % NEEDS_PER_LOCK == NEEDS_PER_LOCK - 1) {
            lock_again(store);
        }
    }
    free(needs);
}

/* Take a plan out of the job. */
static void drop_plan(struct store_job *job, uint32_t place)
{
    struct plan_needs plan = job->plans[place];
    job->plan_count--;
    for (uint32_t i = place; i < job->plan_count; i++) {
        job->plans[i] = job->plans[i + 1];
    }
    drop_needs(job->store, plan.needs, plan.count);
}

static bool link_needs(struct store_job *job, const struct store_plan *plan, uint64_t base,
                       struct need *needs)
{
    struct store *store = job->store;
    uint8_t key[CHUNK_KEY_BYTES];
    uint32_t keyed = UINT32_MAX;
    for (size_t i = 0; i < plan->need_count; i++) {
        const struct store_need *from = &plan->needs[i];
        const struct store_object *object = &plan->objects[from->object];
        assert(from->object < plan->object_count && from->first_position <= from->last_position);
        if (keyed != from->object) {
            store_object_key(store, object, key);
            keyed = from->object;
        }
        struct chunk *chunk = chunk_of_object(store, object, key, from->chunk);
        if (chunk == NULL) {
            drop_needs(store, needs, i);
            return false;
        }
        needs[i] = (struct need){
            .chunk = chunk,
            .job = job,
            .first = base + from->first_position,
            .last = base + from->last_position,
            .uses = from->uses > 0 ? from->uses : 1,
            .next = chunk->needs,
        };
        chunk->needs = &needs[i];
        if (i % NEEDS_PER_LOCK == NEEDS_PER_LOCK - 1) {
            lock_again(store);
        }
    }
    return true;
}

/* The job's time at the start of an epoch. Plans that do not go with it are dropped. */
static uint64_t place_epoch(struct store_job *job, const struct store_plan *plan)
{
    for (uint32_t i = 0; i < job->plan_count; i++) {
        struct plan_needs *known = &job->plans[i];
        if (known->epoch == plan->epoch) {
            uint64_t base = known->base;
            while (job->plan_count > i) { /* what follows may begin elsewhere now */
                drop_plan(job, job->plan_count - 1);
            }
            return base;
        }
        if (known->epoch + 1 == plan->epoch) {
            while (job->plan_count > i + 1) {
                drop_plan(job, job->plan_count - 1);
            }
            if (job->plan_count == 2) {
                drop_plan(job, 0);
            }
            return job->plans[job->plan_count - 1].base +
                   job->plans[job->plan_count - 1].position_count;
        }
    }
    while (job->plan_count > 0) {
        drop_plan(job, job->plan_count - 1);
    }
    return job->now;
}

int store_job_plan(struct store_job *job, const struct store_plan *plan, struct error *error)
{
    struct store *store = job->store;
    struct need *needs = calloc(plan->need_count > 0 ? plan->need_count : 1, sizeof *needs);
    if (needs == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for a plan of %zu chunks.",
                         plan->need_count);
    }
    pthread_mutex_lock(&store->lock);
    uint64_t base = place_epoch(job, plan);
    bool linked = link_needs(job, plan, base, needs);
    if (linked) {
        assert(job->plan_count < 2);
        job->plans[job->plan_count++] = (struct plan_needs){
            .epoch = plan->epoch,
            .base = base,
            .position_count = plan->position_count,
            .needs = needs,
            .count = plan->need_count,
        };
        schedule_changed(store);
        schedule(store);
    }
    pthread_mutex_unlock(&store->lock);
    return linked ? 0 : error_set(error, ERROR_MEMORY, "no memory for a plan of chunks.");
}

void store_job_position(struct store_job *job, uint64_t epoch, uint64_t position)
{
    struct store *store = job->store;
    pthread_mutex_lock(&store->lock);
    while (job->plan_count > 1 && job->plans[0].epoch < epoch && job->plans[1].epoch <= epoch) {
        drop_plan(job, 0);
    }
    for (uint32_t i = 0; i < job->plan_count; i++) {
        struct plan_needs *plan = &job->plans[i];
        if (plan->epoch != epoch) {
            continue;
        }
        uint64_t now =
            plan->base + (position < plan->position_count ? position : plan->position_count);
        if (now < job->now) { /* a step back: what was passed over is needed again */
            for (uint32_t j = 0; j < job->plan_count; j++) {
                job->plans[j].cursor = 0;
            }
        }
        job->now = now;
        schedule_changed(store);
        schedule(store);
        break;
    }
    pthread_mutex_unlock(&store->lock);
}

/* ---- For the scheduler ------------------------------------------------------------------- */

static bool is_here(const struct chunk *chunk)
{
    return chunk->on_disk || chunk->buffer != NULL || chunk->fetch != NULL;
}

struct need *job_next_need(struct store_job *job)
{
    for (uint32_t i = 0; i < job->plan_count; i++) {
        struct plan_needs *plan = &job->plans[i];
        for (; plan->cursor < plan->count; plan->cursor++) {
            struct need *need = &plan->needs[plan->cursor];
            if (!need_is_over(need) && !need->has_failed && !need->chunk->is_leaving &&
                !is_here(need->chunk)) {
                return need;
            }
        }
    }
    return NULL;
}

void job_skip_need(struct store_job *job, struct need *need)
{
    for (uint32_t i = 0; i < job->plan_count; i++) {
        struct plan_needs *plan = &job->plans[i];
        if (plan->cursor < plan->count && need == &plan->needs[plan->cursor]) {
            plan->cursor++;
        }
    }
}

/* ---- The end, and figures ----------------------------------------------------------------- */

void store_job_destroy(struct store_job *job)
{
    if (job == NULL) {
        return;
    }
    struct store *store = job->store;
    pthread_mutex_lock(&store->lock);
    struct store_job **link = &store->jobs;
    while (*link != job) {
        link = &(*link)->next;
    }
    *link = job->next;
    store->stats.job_count--;
    while (job->plan_count > 0) {
        drop_plan(job, job->plan_count - 1);
    }
    fetch_cancel_unwanted(store);
    schedule_changed(store);
    schedule(store);
    pthread_mutex_unlock(&store->lock);
    free(job);
}

struct store_job_stats store_job_stats(struct store_job *job)
{
    pthread_mutex_lock(&job->store->lock);
    struct store_job_stats stats = job->stats;
    pthread_mutex_unlock(&job->store->lock);
    return stats;
}

/* Is anything of the needs still on its way to where it is to be kept? */
static bool is_under_way(const struct store *store, const struct chunk *chunk)
{
    return chunk->fetch != NULL || chunk->is_writing || (chunk->is_queued && disk_is_usable(store));
}

struct store_job_progress store_job_progress(struct store_job *job)
{
    struct store *store = job->store;
    pthread_mutex_lock(&store->lock);
    struct store_job_progress progress = {
        .failed_count = job->failed_count,
        .error = job->error,
    };
    bool is_moving = false;
    bool has_next = job_next_need(job) != NULL && !job->is_blocked;
    for (uint32_t i = 0; i < job->plan_count; i++) {
        for (size_t j = 0; j < job->plans[i].count; j++) {
            const struct chunk *chunk = job->plans[i].needs[j].chunk;
            bool is_kept = chunk->on_disk || (chunk->buffer != NULL && chunk->fetch == NULL &&
                                              !disk_is_usable(store));
            progress.needed_bytes += chunk->data_bytes;
            progress.missing_bytes += is_kept ? 0 : chunk->data_bytes;
            is_moving |= is_under_way(store, chunk);
        }
    }
    progress.is_full = progress.missing_bytes > 0 && progress.failed_count == 0 && !is_moving &&
                       !has_next && !store->is_scanning;
    progress.is_done =
        progress.missing_bytes == 0 || (!is_moving && !has_next && !store->is_scanning);
    pthread_mutex_unlock(&store->lock);
    return progress;
}
