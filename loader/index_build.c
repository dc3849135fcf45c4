#include "loader/index_build.h"

#include <pthread.h>

int64_t index_build_time_ns(const struct timespec *time)
{
    return (int64_t)((uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec);
}

int64_t index_build_mtime_ns(const struct timespec *mtime, const struct timespec *now)
{
    /* Two seconds is the coarsest clock of a file system in use (FAT). */
    bool is_racy = mtime->tv_sec >= now->tv_sec - 2;
    return is_racy ? INDEX_MTIME_RACY : index_build_time_ns(mtime);
}

bool index_build_is_cancelled(const struct index_progress *progress)
{
    return progress != NULL && atomic_load_explicit(&progress->is_cancelled, memory_order_relaxed);
}

void index_build_advance(struct index_progress *progress, uint64_t count)
{
    if (progress != NULL) {
        atomic_fetch_add_explicit(&progress->done_count, count, memory_order_relaxed);
    }
}

int index_build_cancelled(struct error *error)
{
    return error_set(error, ERROR_DATASET, "Indexing was cancelled.");
}

int index_build_no_memory(struct error *error)
{
    return error_set(error, ERROR_MEMORY,
                     "No memory is left for the index of the data set (about 60 bytes a sample, "
                     "twice while it is made). Free some memory and try again.");
}

enum { THREADS_MAX = 256 };

void index_build_run(uint32_t thread_count, void *(*work)(void *), void *argument)
{
    pthread_t threads[THREADS_MAX];
    uint32_t started = 0;
    while (started + 1 < thread_count && started < THREADS_MAX) {
        if (pthread_create(&threads[started], NULL, work, argument) != 0) {
            break;
        }
        started++;
    }
    work(argument);
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
}
