#include "loader/read_ahead.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "loader/cache/store.h"
#include "loader/needs.h"

enum {
    FIRST_POSITIONS = 16384, /* listed at once, before the whole epoch is gone through */
    LOOK_MS = 100,           /* between looks at a catalog that is not complete */
};

struct place {
    uint64_t epoch, position, window_ordinal, window_first;
};

struct read_ahead {
    struct read_ahead_options options;
    struct needs *needs;
    struct store_job *job;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct place place; /* under the lock */
    bool has_place, has_moved;
    atomic_bool is_stopping;
};

struct store_job *read_ahead_job(const struct read_ahead *ahead)
{
    return ahead != NULL ? ahead->job : NULL;
}

static bool give_plan(struct read_ahead *ahead, const struct place *place, uint64_t count_max)
{
    struct needs_place from = {place->epoch, place->position, place->window_ordinal,
                               place->window_first};
    struct store_plan plan;
    bool is_whole = needs_list(ahead->needs, &from, count_max, &ahead->is_stopping, &plan);
    if (plan.need_count > 0 && !atomic_load(&ahead->is_stopping)) {
        store_job_plan(ahead->job, &plan, NULL); /* without it: slower */
    }
    return is_whole;
}

/* Wait for a move; true when there was one. */
static bool wait_for_move(struct read_ahead *ahead, struct place *place, bool is_whole)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->has_moved && !atomic_load(&ahead->is_stopping)) {
        if (is_whole) {
            pthread_cond_wait(&ahead->moved, &ahead->lock);
        } else if (pthread_cond_timedwait(&ahead->moved, &ahead->lock, &until) != 0) {
            break;
        }
    }
    bool has_moved = ahead->has_moved;
    ahead->has_moved = false;
    *place = ahead->place;
    pthread_mutex_unlock(&ahead->lock);
    return has_moved;
}

static void *run(void *argument)
{
    struct read_ahead *ahead = argument;
    struct place place;
    bool is_whole = true;
    uint64_t changes = 0;
    while (!atomic_load(&ahead->is_stopping)) {
        bool has_moved = wait_for_move(ahead, &place, is_whole);
        uint64_t now = needs_changes(ahead->needs);
        if (atomic_load(&ahead->is_stopping) || (!has_moved && now == changes)) {
            continue;
        }
        changes = now;
        give_plan(ahead, &place, FIRST_POSITIONS);
        is_whole = give_plan(ahead, &place, UINT64_MAX);
        if (is_whole) {
            struct place next = {.epoch = place.epoch + 1};
            give_plan(ahead, &next, UINT64_MAX);
        }
    }
    return NULL;
}

void read_ahead_move(struct read_ahead *ahead, uint64_t epoch, uint64_t position,
                     uint64_t window_ordinal, uint64_t window_first)
{
    if (ahead == NULL) {
        return;
    }
    store_job_position(ahead->job, epoch, position);
    pthread_mutex_lock(&ahead->lock);
    if (!ahead->has_place || ahead->place.epoch != epoch || ahead->place.position != position) {
        ahead->place = (struct place){epoch, position, window_ordinal, window_first};
        ahead->has_place = true;
        ahead->has_moved = true;
        pthread_cond_signal(&ahead->moved);
    }
    pthread_mutex_unlock(&ahead->lock);
}

void read_ahead_note(struct read_ahead *ahead, uint64_t epoch, uint64_t position)
{
    if (ahead != NULL) {
        store_job_position(ahead->job, epoch, position);
    }
}

struct read_ahead *read_ahead_create(const struct read_ahead_options *options)
{
    struct read_ahead *ahead = calloc(1, sizeof *ahead);
    if (ahead == NULL) {
        return NULL;
    }
    ahead->options = *options;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&ahead->moved, &attributes);
    pthread_condattr_destroy(&attributes);
    ahead->needs = needs_create(&ahead->options);
    ahead->job = store_job_create(options->store, STORE_JOB_READ);
    if (ahead->needs == NULL || ahead->job == NULL ||
        pthread_create(&ahead->thread, NULL, run, ahead) != 0) {
        store_job_destroy(ahead->job);
        needs_destroy(ahead->needs);
        pthread_cond_destroy(&ahead->moved);
        pthread_mutex_destroy(&ahead->lock);
        free(ahead);
        return NULL;
    }
    return ahead;
}

void read_ahead_destroy(struct read_ahead *ahead)
{
    if (ahead == NULL) {
        return;
    }
    pthread_mutex_lock(&ahead->lock);
    atomic_store(&ahead->is_stopping, true);
    pthread_cond_signal(&ahead->moved);
    pthread_mutex_unlock(&ahead->lock);
    pthread_join(ahead->thread, NULL);
    store_job_destroy(ahead->job);
    needs_destroy(ahead->needs);
    pthread_cond_destroy(&ahead->moved);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}
