/* The index of one remote shard: kept from an earlier time, or from its headers, read through the
 * store while its chunks are fetched ahead. */
#include <stdlib.h>
#include <string.h>

#include "loader/cache/store.h"
#include "loader/catalog_private.h"
#include "loader/index_build.h"
#include "loader/index_join.h"
#include "loader/index_map.h"
#include "loader/index_store.h"
#include "loader/shard_scan.h"

struct reading {
    const struct catalog_scan *scan;
    struct store_object object;
    struct store_job *job; /* fetches ahead; NULL: no memory for it, then it goes slower */
    uint64_t chunk;        /* that was read last */
};

static bool is_of_shard(const struct index *index, const struct catalog_scan *scan)
{
    return index->header->kind == INDEX_TAR && index->shard_count == 1 &&
           index->shards[0].size_bytes == scan->object->size_bytes &&
           strcmp(index_string(index, index->shards[0].path), scan->url) == 0 &&
           strcmp(index_string(index, index->shards[0].tag), scan->object->tag) == 0;
}

static struct index *open_kept(const struct catalog_scan *scan, const struct index_key *key)
{
    int fd = scan->cache_folder != NULL ? index_store_open(scan->cache_folder, key) : -1;
    struct index *index = fd >= 0 ? index_load(fd, NULL) : NULL;
    if (index != NULL && !is_of_shard(index, scan)) {
        index_unref(index);
        index = NULL;
    }
    return index;
}

static int read_shard(void *context, uint64_t offset_bytes, uint8_t *bytes, size_t size_bytes,
                      struct error *error)
{
    struct reading *reading = context;
    uint64_t chunk = offset_bytes / store_chunk_bytes(reading->scan->store);
    if (chunk != reading->chunk && reading->job != NULL) {
        store_job_position(reading->job, 0, chunk);
    }
    reading->chunk = chunk;
    return store_read(reading->scan->store, &reading->object, offset_bytes, size_bytes, bytes,
                      &reading->scan->progress->is_cancelled, error);
}

/* A position for each chunk. */
static void fetch_ahead(struct reading *reading)
{
    uint64_t chunk_bytes = store_chunk_bytes(reading->scan->store);
    size_t count = (size_t)((reading->object.size_bytes + chunk_bytes - 1) / chunk_bytes);
    struct store_need *needs = calloc(count, sizeof *needs);
    reading->job = needs != NULL ? store_job_create(reading->scan->store, STORE_JOB_READ) : NULL;
    if (reading->job != NULL) {
        for (size_t i = 0; i < count; i++) {
            needs[i] = (struct store_need){
                .chunk = (uint32_t)i, .first_position = i, .last_position = i, .uses = 1};
        }
        struct store_plan plan = {.position_count = count,
                                  .objects = &reading->object,
                                  .object_count = 1,
                                  .needs = needs,
                                  .need_count = count};
        store_job_plan(reading->job, &plan, NULL); /* without it: slower */
    }
    free(needs);
}

static int scan_headers(const struct catalog_scan *scan, struct shard_scan *found,
                        struct error *error)
{
    struct reading reading = {.scan = scan,
                              .object = {.url = scan->url,
                                         .profile = scan->profile,
                                         .tag = scan->object->tag,
                                         .size_bytes = scan->object->size_bytes}};
    fetch_ahead(&reading);
    struct shard_bytes source = {
        .size_bytes = scan->object->size_bytes, .read = read_shard, .context = &reading};
    int result = shard_scan_bytes(scan->url, &source, scan->progress, found, error);
    store_job_destroy(reading.job);
    return result;
}

struct index *catalog_scan_shard(const struct catalog_scan *scan, struct error *error)
{
    struct index_key key;
    if (!index_key_of_shard(scan->url, scan->object, &key)) {
        error_set(error, ERROR_MEMORY, "No memory is left to index %s.", scan->url);
        return NULL;
    }
    struct index *index = open_kept(scan, &key);
    if (index != NULL) {
        index_build_advance(scan->progress, scan->object->size_bytes);
        return index;
    }
    struct shard_scan found;
    if (scan_headers(scan, &found, error) < 0) {
        return NULL;
    }
    struct index_draft draft;
    index_draft_init(&draft, INDEX_TAR);
    struct index_part part = index_part_of_scan(scan->url, scan->object->tag, &found);
    index_join(&draft, &part);
    shard_scan_clear(&found);
    int fd = -1;
    if (draft.is_out_of_memory) {
        error_set(error, ERROR_MEMORY, "No memory is left for the index of %s.", scan->url);
    } else {
        fd = index_store_save(scan->cache_folder, &key, &draft, NULL, error);
    }
    index_draft_clear(&draft);
    return fd >= 0 ? index_load(fd, error) : NULL;
}
