/* Tar shards become a draft: each is scanned on its own, several at a time, then they are joined
 * in order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "loader/index_build.h"
#include "loader/index_join.h"
#include "loader/shard_scan.h"

struct work {
    const struct text_list *paths;
    struct index_progress *progress;
    struct timespec start;
    struct shard_scan *scans; /* one per path */
    atomic_size_t next;
    atomic_bool has_failed;
    pthread_mutex_t lock; /* over the two below */
    size_t failed_number; /* the first of the shards that failed */
    struct error error;
};

static void work_fail(struct work *work, size_t number, const struct error *error)
{
    pthread_mutex_lock(&work->lock);
    if (!atomic_load(&work->has_failed) || number < work->failed_number) {
        work->failed_number = number;
        work->error = *error;
    }
    atomic_store(&work->has_failed, true);
    pthread_mutex_unlock(&work->lock);
}

static void *scan_some(void *argument)
{
    struct work *work = argument;
    size_t number;
    while (!atomic_load(&work->has_failed) &&
           (number = atomic_fetch_add(&work->next, 1)) < work->paths->count) {
        struct error error;
        if (shard_scan_file(work->paths->texts[number], &work->start, work->progress,
                            &work->scans[number], &error) < 0) {
            work_fail(work, number, &error);
        }
    }
    return NULL;
}

/* Names of shards, not their folders: the same data elsewhere is the same data set. */
static void fingerprint_shard(struct index_hash *hash, const char *path,
                              const struct shard_scan *scan)
{
    index_hash_add_text(hash, strrchr(path, '/') + 1);
    index_hash_add_u64(hash, scan->size_bytes);
    index_hash_add_u64(hash, scan->samples.size_bytes);
    index_hash_add(hash, scan->strings.bytes, scan->strings.size_bytes);
    index_hash_add(hash, scan->members.bytes, scan->members.size_bytes);
}

/* Joins every scan and frees it as it goes. */
static int join(struct work *work, struct index_draft *draft, struct error *error)
{
    struct index_hash *fingerprint = index_hash_create();
    if (fingerprint == NULL) {
        return index_build_no_memory(error);
    }
    index_hash_add_u64(fingerprint, INDEX_TAR);
    for (size_t i = 0; i < work->paths->count && !draft->is_out_of_memory; i++) {
        const char *path = work->paths->texts[i];
        struct index_part part = index_part_of_scan(path, "", &work->scans[i]);
        index_join(draft, &part);
        fingerprint_shard(fingerprint, path, &work->scans[i]);
        shard_scan_clear(&work->scans[i]);
    }
    index_hash_value128(fingerprint, draft->fingerprint);
    index_hash_destroy(fingerprint);
    return draft->is_out_of_memory ? index_build_no_memory(error) : 0;
}

static void warn_of_missing_ends(const struct work *work, char *warning)
{
    size_t count = 0, first = 0;
    for (size_t i = work->paths->count; i-- > 0;) {
        if (work->scans[i].is_end_missing) {
            count++;
            first = i;
        }
    }
    if (count > 0 && warning != NULL) {
        snprintf(warning, ERROR_TEXT_BYTES,
                 "%zu of %zu shards have no end-of-archive mark (the first: %.1000s). Some writers "
                 "leave it out; if the files were cut short, samples are missing.",
                 count, work->paths->count, work->paths->texts[first]);
    }
}

static void announce_total(const struct work *work)
{
    uint64_t total = 0;
    struct stat status;
    for (size_t i = 0; i < work->paths->count; i++) {
        if (stat(work->paths->texts[i], &status) == 0) {
            total += (uint64_t)status.st_size;
        }
    }
    if (work->progress != NULL) {
        atomic_store_explicit(&work->progress->total_count, total, memory_order_relaxed);
    }
}

int index_build_tar(const struct dataset *dataset, uint32_t thread_count,
                    struct index_progress *progress, struct index_draft *draft, char *warning,
                    struct error *error)
{
    struct work work = {.paths = &dataset->paths, .progress = progress};
    work.scans = calloc(dataset->paths.count, sizeof *work.scans);
    if (work.scans == NULL) {
        return index_build_no_memory(error);
    }
    clock_gettime(CLOCK_REALTIME, &work.start);
    pthread_mutex_init(&work.lock, NULL);
    announce_total(&work);
    index_build_run(thread_count, scan_some, &work);
    pthread_mutex_destroy(&work.lock);
    int result = 0;
    if (atomic_load(&work.has_failed)) {
        if (error != NULL) {
            *error = work.error;
        }
        result = -1;
    } else {
        warn_of_missing_ends(&work, warning);
        result = join(&work, draft, error);
    }
    for (size_t i = 0; i < dataset->paths.count; i++) {
        shard_scan_clear(&work.scans[i]);
    }
    free(work.scans);
    return result;
}
