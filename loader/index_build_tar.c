/* Tar shards become a draft: each is scanned on its own, several at a time, then they are joined
 * in order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "loader/index_build.h"
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
        if (shard_scan(work->paths->texts[number], &work->start, work->progress,
                       &work->scans[number], &error) < 0) {
            work_fail(work, number, &error);
        }
    }
    return NULL;
}

/* The number in the draft of each extension of a shard. */
static bool join_extensions(struct index_draft *draft, const struct shard_scan *scan,
                            struct growing *numbers)
{
    const uint64_t *offsets = (const uint64_t *)scan->extensions.bytes;
    size_t count = scan->extensions.size_bytes / sizeof *offsets;
    numbers->size_bytes = 0;
    uint32_t *to = growing_add(numbers, count * sizeof *to);
    if (to == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *text = (const char *)scan->strings.bytes + offsets[i];
        size_t known = index_draft_count(draft, INDEX_EXTENSIONS, sizeof(uint64_t));
        size_t number = 0;
        for (; number < known; number++) {
            const uint64_t *all = (const uint64_t *)draft->section[INDEX_EXTENSIONS].bytes;
            if (strcmp((char *)draft->section[INDEX_STRINGS].bytes + all[number], text) == 0) {
                break;
            }
        }
        if (number == known) {
            uint64_t offset = index_draft_string(draft, text, strlen(text));
            index_draft_add(draft, INDEX_EXTENSIONS, &offset, sizeof offset);
        }
        to[i] = (uint32_t)number;
    }
    return !draft->is_out_of_memory;
}

static void join_samples(struct index_draft *draft, const struct shard_scan *scan, uint32_t place,
                         const uint32_t *extension_numbers)
{
    uint64_t member_base = index_draft_count(draft, INDEX_MEMBERS, sizeof(struct index_member));
    const struct index_sample *samples = (const struct index_sample *)scan->samples.bytes;
    size_t sample_count = scan->samples.size_bytes / sizeof *samples;
    for (size_t i = 0; i < sample_count; i++) {
        struct index_sample sample = samples[i];
        const char *key = (const char *)scan->strings.bytes + sample.name;
        sample.name = index_draft_string(draft, key, strlen(key));
        sample.member_first += member_base;
        sample.place = place;
        index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
    }
    const struct index_member *members = (const struct index_member *)scan->members.bytes;
    size_t member_count = scan->members.size_bytes / sizeof *members;
    for (size_t i = 0; i < member_count; i++) {
        struct index_member member = members[i];
        member.extension = extension_numbers[member.extension];
        index_draft_add(draft, INDEX_MEMBERS, &member, sizeof member);
    }
    draft->data_bytes += scan->data_bytes;
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
    struct growing numbers = {0};
    bool is_joined = fingerprint != NULL;
    if (is_joined) {
        index_hash_add_u64(fingerprint, INDEX_TAR);
    }
    for (size_t i = 0; i < work->paths->count && is_joined; i++) {
        const char *path = work->paths->texts[i];
        struct shard_scan *scan = &work->scans[i];
        struct index_shard shard = {
            .path = index_draft_string(draft, path, strlen(path)),
            .sample_first = index_draft_count(draft, INDEX_SAMPLES, sizeof(struct index_sample)),
            .size_bytes = scan->size_bytes,
            .mtime_ns = scan->mtime_ns,
        };
        index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
        is_joined = join_extensions(draft, scan, &numbers);
        if (is_joined) {
            join_samples(draft, scan, (uint32_t)i, (const uint32_t *)numbers.bytes);
        }
        fingerprint_shard(fingerprint, path, scan);
        shard_scan_clear(scan);
    }
    if (fingerprint != NULL) {
        index_hash_value128(fingerprint, draft->fingerprint);
    }
    index_hash_destroy(fingerprint);
    growing_clear(&numbers);
    return is_joined && !draft->is_out_of_memory ? 0 : index_build_no_memory(error);
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
