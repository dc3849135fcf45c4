#include "loader/index.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loader/index_build.h"
#include "loader/index_map.h"
#include "loader/index_store.h"

static bool same_time(const struct timespec *now, int64_t stored_ns)
{
    return stored_ns != INDEX_MTIME_RACY && index_build_time_ns(now) == stored_ns;
}

static bool is_folder_unchanged(const struct index *index)
{
    int root = open(index_string(index, index->shards[0].path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return false;
    }
    bool is_unchanged = true;
    for (uint64_t i = 0; i < index->directory_count && is_unchanged; i++) {
        const char *path = index_string(index, index->directories[i].path);
        struct stat status;
        is_unchanged = fstatat(root, path[0] != '\0' ? path : ".", &status, 0) == 0 &&
                       same_time(&status.st_mtim, index->directories[i].mtime_ns);
    }
    close(root);
    return is_unchanged;
}

static bool are_shards_unchanged(const struct index *index)
{
    for (uint32_t i = 0; i < index->shard_count; i++) {
        struct stat status;
        if (stat(index_string(index, index->shards[i].path), &status) != 0 ||
            (uint64_t)status.st_size != index->shards[i].size_bytes ||
            !same_time(&status.st_mtim, index->shards[i].mtime_ns)) {
            return false;
        }
    }
    return true;
}

static bool are_versions_current(const struct index *index, const struct dataset *dataset)
{
    uint8_t fingerprint[INDEX_HASH_BYTES];
    return dataset_fingerprint(dataset, fingerprint) &&
           memcmp(fingerprint, index->header->fingerprint, sizeof fingerprint) == 0;
}

/* Whether an index that passed index_check() is that of the data set as it is now. */
static bool is_current(const struct index *index, const struct dataset *dataset)
{
    if (index->header->kind != dataset->kind || index->shard_count != dataset->paths.count) {
        return false;
    }
    for (uint32_t i = 0; i < index->shard_count; i++) {
        if (strcmp(index_string(index, index->shards[i].path), dataset->paths.texts[i]) != 0) {
            return false;
        }
    }
    if (dataset->is_remote) {
        return are_versions_current(index, dataset);
    }
    return dataset->kind == INDEX_FOLDER ? is_folder_unchanged(index) : are_shards_unchanged(index);
}

struct index *index_open_stored(const char *cache_folder, const struct dataset *dataset)
{
    struct index_key key;
    int fd = index_key_of_dataset(dataset, &key) ? index_store_open(cache_folder, &key) : -1;
    struct index *index = fd >= 0 ? index_map(fd, NULL) : NULL;
    if (index != NULL && !is_current(index, dataset)) {
        index_unref(index);
        index = NULL;
    }
    return index;
}

struct index *index_finish(const struct index_options *options, const struct dataset *dataset,
                           struct index_draft *draft, char *warning, struct error *error)
{
    struct index_key key;
    int fd = -1;
    if (index_key_of_dataset(dataset, &key)) {
        fd = index_store_save(options->cache_folder, &key, draft, warning, error);
    } else {
        index_build_no_memory(error);
    }
    index_draft_clear(draft);
    return fd >= 0 ? index_map(fd, error) : NULL;
}

static struct index *build(const struct index_options *options, const struct dataset *dataset,
                           struct index_progress *progress, char *warning, struct error *error)
{
    struct index_draft draft;
    index_draft_init(&draft, dataset->kind);
    int result;
    if (dataset->kind == INDEX_TAR) {
        assert(!dataset->is_remote); /* catalog.h */
        result = index_build_tar(dataset, options->thread_count, progress, &draft, warning, error);
    } else if (dataset->is_remote) {
        result = index_build_prefix(dataset, &draft, error);
    } else {
        result = index_build_folder(dataset, options->thread_count, progress, &draft, error);
    }
    if (result < 0) {
        index_draft_clear(&draft);
        return NULL;
    }
    return index_finish(options, dataset, &draft, warning, error);
}

int index_open_dataset(const struct index_options *options, const struct dataset *dataset,
                       struct index_progress *progress, struct index **index, bool *was_built,
                       char *warning, struct error *error)
{
    assert(options->thread_count >= 1);
    *index = NULL;
    if (warning != NULL) {
        warning[0] = '\0';
    }
    if (options->cache_folder != NULL && !options->rebuild) {
        *index = index_open_stored(options->cache_folder, dataset);
    }
    if (was_built != NULL) {
        *was_built = *index == NULL;
    }
    if (*index == NULL) {
        *index = build(options, dataset, progress, warning, error);
    }
    return *index != NULL ? 0 : -1;
}

int index_open(const struct index_options *options, struct index_progress *progress,
               struct index **index, bool *was_built, char *warning, struct error *error)
{
    *index = NULL;
    struct dataset dataset;
    if (dataset_resolve(options->urls, options->url_count, NULL, &dataset, error) < 0) {
        return -1;
    }
    int result = index_open_dataset(options, &dataset, progress, index, was_built, warning, error);
    dataset_clear(&dataset);
    return result;
}

struct index *index_ref(struct index *index)
{
    atomic_fetch_add_explicit(&index->reference_count, 1, memory_order_relaxed);
    return index;
}

void index_unref(struct index *index)
{
    if (index != NULL &&
        atomic_fetch_sub_explicit(&index->reference_count, 1, memory_order_acq_rel) == 1) {
        index_unmap(index);
    }
}

const struct index_header *index_header(const struct index *index)
{
    return index->header;
}

int index_fd(const struct index *index)
{
    return index->fd;
}

uint64_t index_sample_count(const struct index *index)
{
    return index->sample_count;
}

uint32_t index_shard_count(const struct index *index)
{
    return index->shard_count;
}

uint32_t index_class_count(const struct index *index)
{
    return index->class_count;
}

const char *index_class_name(const struct index *index, uint32_t class_number)
{
    assert(class_number < index->class_count);
    return index_string(index, index->classes[class_number]);
}

const uint64_t *index_shard_first(const struct index *index)
{
    return index->shard_first;
}

void index_shard_object(const struct index *index, uint32_t shard, const char **path,
                        const char **tag, uint64_t *size_bytes)
{
    assert(shard < index->shard_count);
    *path = index_string(index, index->shards[shard].path);
    *tag = index_string(index, index->shards[shard].tag);
    *size_bytes = index->shards[shard].size_bytes;
}

/* The shard of a sample: a tar's samples name it, a folder is one. */
static uint32_t shard_of(const struct index *index, uint64_t canonical)
{
    return index->header->kind == INDEX_TAR ? index->samples[canonical].place : 0;
}

uint64_t index_sample_id(const struct index *index, uint64_t canonical)
{
    assert(canonical < index->sample_count);
    uint32_t shard = shard_of(index, canonical);
    return (uint64_t)shard << 32 | (canonical - index->shard_first[shard]);
}

bool index_sample_find(const struct index *index, uint64_t sample_id, uint64_t *canonical)
{
    uint64_t shard = sample_id >> 32, position = sample_id & UINT32_MAX;
    if (shard >= index->shard_count ||
        position >= index->shard_first[shard + 1] - index->shard_first[shard]) {
        return false;
    }
    *canonical = index->shard_first[shard] + position;
    return true;
}

void index_sample_label(const struct index *index, uint64_t canonical, char *text, size_t bytes)
{
    assert(canonical < index->sample_count);
    const struct index_sample *sample = &index->samples[canonical];
    const char *name = index_string(index, sample->name);
    const char *root = index_string(index, index->shards[shard_of(index, canonical)].path);
    if (index->header->kind == INDEX_TAR) {
        snprintf(text, bytes, "%s:%s", root, name);
        return;
    }
    const char *directory = index_string(index, index->directories[sample->place].path);
    snprintf(text, bytes, "%s/%s/%s", root, directory, name);
}
