/* The engine for where io_uring is refused: a few threads that open and pread. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/source_engine.h"

enum { THREADS_MAX = 8 };

struct pool {
    uint64_t file_bytes_max;
    pthread_t threads[THREADS_MAX];
    uint32_t thread_count;

    pthread_mutex_t lock; /* over all below */
    pthread_cond_t work_came, work_done;
    struct read_list waiting, done;
    bool interrupted;
    bool stop;
};

static void *run_thread(void *argument)
{
    struct pool *pool = argument;
    pthread_setname_np(pthread_self(), "penstock-read");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct read_request *request = read_list_take(&pool->waiting);
        if (request != NULL) {
            pthread_mutex_unlock(&pool->lock);
            read_run(request, pool->file_bytes_max);
            pthread_mutex_lock(&pool->lock);
            read_list_append(&pool->done, request);
            pthread_cond_signal(&pool->work_done);
        } else if (pool->stop) {
            break;
        } else {
            pthread_cond_wait(&pool->work_came, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void pool_submit(void *engine, struct read_request *const *requests, size_t count)
{
    struct pool *pool = engine;
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < count; i++) {
        read_list_append(&pool->waiting, requests[i]);
    }
    if (count == 1) {
        pthread_cond_signal(&pool->work_came);
    } else {
        pthread_cond_broadcast(&pool->work_came);
    }
    pthread_mutex_unlock(&pool->lock);
}

static struct timespec deadline_after(int timeout_ms)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += timeout_ms / 1000;
    time.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (time.tv_nsec >= 1000000000L) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000L;
    }
    return time;
}

static size_t pool_reap(void *engine, struct read_request **done, size_t max, int timeout_ms)
{
    struct pool *pool = engine;
    size_t count = 0;
    pthread_mutex_lock(&pool->lock);
    if (timeout_ms > 0) {
        struct timespec deadline = deadline_after(timeout_ms);
        int error = 0;
        while (pool->done.first == NULL && !pool->interrupted && error != ETIMEDOUT) {
            error = pthread_cond_timedwait(&pool->work_done, &pool->lock, &deadline);
        }
    }
    pool->interrupted = false;
    while (count < max && (done[count] = read_list_take(&pool->done)) != NULL) {
        count++;
    }
    pthread_mutex_unlock(&pool->lock);
    return count;
}

static void pool_interrupt(void *engine)
{
    struct pool *pool = engine;
    pthread_mutex_lock(&pool->lock);
    pool->interrupted = true;
    pthread_cond_signal(&pool->work_done);
    pthread_mutex_unlock(&pool->lock);
}

static void pool_destroy(void *engine)
{
    struct pool *pool = engine;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->work_came);
    pthread_cond_destroy(&pool->work_done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Start up to `count` threads; signals stay with the threads of the program. */
static int start_threads(struct pool *pool, uint32_t count)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = 0;
    while (pool->thread_count < count && error == 0) {
        error = pthread_create(&pool->threads[pool->thread_count], NULL, run_thread, pool);
        if (error == 0) {
            pool->thread_count++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return pool->thread_count > 0 ? 0 : error; /* fewer threads do, too */
}

static void *pool_create(uint32_t depth, uint64_t file_bytes_max, char *reason, size_t reason_bytes)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        snprintf(reason, reason_bytes, "out of memory");
        return NULL;
    }
    pool->file_bytes_max = file_bytes_max;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work_came, NULL);
    pthread_cond_init(&pool->work_done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = start_threads(pool, depth < THREADS_MAX ? depth : THREADS_MAX);
    if (error != 0) {
        snprintf(reason, reason_bytes, "pthread_create: %s", strerror(error));
        pool_destroy(pool);
        return NULL;
    }
    return pool;
}

const struct source_ops *source_pread_ops(void)
{
    static const struct source_ops ops = {
        .kind = SOURCE_PREAD,
        .create = pool_create,
        .destroy = pool_destroy,
        .submit = pool_submit,
        .reap = pool_reap,
        .interrupt = pool_interrupt,
    };
    return &ops;
}
