#include "loader/task_cache.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/cache/store.h"
#include "loader/catalog.h"
#include "loader/remote/remote.h"

enum { POLL_US = 50000 };

/* ---- cache ------------------------------------------------------------------------------ */

void task_run_cache(struct task *task)
{
    if (task->store == NULL) {
        error_set(&task->error, ERROR_STATE,
                  "This daemon has no cache of remote objects; its log says why.");
        return;
    }
    struct store_stats stats;
    store_stats_get(task->store, &stats);
    task->reply = json_pack(
        "{s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "ok", 1, "has_disk",
        (int)stats.has_disk, "disk_used_bytes", (json_int_t)stats.disk_used_bytes,
        "disk_limit_bytes", (json_int_t)stats.disk_limit_bytes, "disk_chunks",
        (json_int_t)stats.disk_chunk_count, "memory_used_bytes",
        (json_int_t)stats.memory_used_bytes, "memory_limit_bytes",
        (json_int_t)stats.memory_limit_bytes, "memory_hit_bytes",
        (json_int_t)stats.memory_hit_bytes, "disk_hit_bytes", (json_int_t)stats.disk_hit_bytes,
        "miss_bytes", (json_int_t)stats.miss_bytes, "fetched_bytes",
        (json_int_t)stats.fetched_bytes, "evicted_chunks", (json_int_t)stats.evicted_count,
        "corrupt_chunks", (json_int_t)stats.corrupt_count);
}

/* ---- preload ---------------------------------------------------------------------------- */

struct preload {
    struct task *task;
    struct store_object *objects;
    size_t object_count;
    struct store_need *needs;
    size_t need_count;
    bool owns_urls;
};

static size_t count_objects(const struct task *task)
{
    if (task->index == NULL) {
        return catalog_shard_count(task->catalog);
    }
    return index_header(task->index)->kind == INDEX_TAR ? index_shard_count(task->index)
                                                        : index_sample_count(task->index);
}

/* False: no memory, or no remote object. */
static bool fill_object(struct preload *preload, size_t number)
{
    const struct task *task = preload->task;
    struct store_object *object = &preload->objects[number];
    object->profile = task->request.spec.profile;
    if (task->index == NULL) {
        const struct dataset *dataset = catalog_dataset(task->catalog);
        object->url = dataset->paths.texts[number];
        object->tag = dataset->objects[number].tag;
        object->size_bytes = dataset->objects[number].size_bytes;
        return true;
    }
    if (index_header(task->index)->kind == INDEX_TAR) {
        index_shard_object(task->index, (uint32_t)number, &object->url, &object->tag,
                           &object->size_bytes);
        return remote_is_url(object->url);
    }
    struct sample_place place;
    char path[REMOTE_URL_BYTES];
    if (index_sample_place(task->index, NULL, number, &place, path, sizeof path) != 0 ||
        place.tag == NULL) {
        return false;
    }
    object->url = strdup(path);
    object->tag = place.tag;
    object->size_bytes = place.object_bytes;
    preload->owns_urls = true;
    return object->url != NULL;
}

static bool fill(struct preload *preload)
{
    uint64_t chunk_bytes = store_chunk_bytes(preload->task->store);
    size_t count = count_objects(preload->task), chunks = 0;
    preload->objects = calloc(count, sizeof *preload->objects);
    for (; preload->objects != NULL && preload->object_count < count; preload->object_count++) {
        if (!fill_object(preload, preload->object_count)) {
            return false;
        }
        chunks +=
            (preload->objects[preload->object_count].size_bytes + chunk_bytes - 1) / chunk_bytes;
    }
    preload->needs = calloc(chunks + 1, sizeof *preload->needs);
    for (size_t i = 0; preload->needs != NULL && i < preload->object_count; i++) {
        uint64_t size = preload->objects[i].size_bytes;
        for (uint64_t chunk = 0; chunk * chunk_bytes < size; chunk++, preload->need_count++) {
            preload->needs[preload->need_count] =
                (struct store_need){.object = (uint32_t)i,
                                    .chunk = (uint32_t)chunk,
                                    .first_position = preload->need_count,
                                    .last_position = preload->need_count,
                                    .uses = 1};
        }
    }
    return preload->objects != NULL && preload->needs != NULL;
}

static void wait_for(struct task *task, struct store_job *job)
{
    for (;;) {
        struct store_job_progress progress = store_job_progress(job);
        atomic_store(&task->progress.total_count, progress.needed_bytes);
        atomic_store(&task->progress.done_count, progress.needed_bytes - progress.missing_bytes);
        if (progress.is_done) {
            task->reply =
                json_pack("{s:b, s:I, s:I, s:I, s:b, s:s}", "ok", 1, "bytes",
                          (json_int_t)progress.needed_bytes, "missing_bytes",
                          (json_int_t)progress.missing_bytes, "failed",
                          (json_int_t)progress.failed_count, "full", (int)progress.is_full, "error",
                          progress.failed_count > 0 ? progress.error.text : "");
            return;
        }
        if (atomic_load(&task->progress.is_cancelled)) {
            error_set(&task->error, ERROR_STATE, "The preload was cancelled.");
            return;
        }
        usleep(POLL_US);
    }
}

void task_run_preload(struct task *task)
{
    struct preload preload = {.task = task};
    struct store_job *job = NULL;
    if (task->store == NULL || !fill(&preload)) {
        error_set(&task->error, ERROR_USAGE,
                  "%s: only remote data can be preloaded, and memory for its list is needed.",
                  task->request.urls[0]);
    } else {
        struct store_plan plan = {.position_count = preload.need_count,
                                  .objects = preload.objects,
                                  .object_count = preload.object_count,
                                  .needs = preload.needs,
                                  .need_count = preload.need_count};
        job = store_job_create(task->store, STORE_JOB_PRELOAD);
        if (job == NULL) {
            error_set(&task->error, ERROR_MEMORY, "no memory for a preload.");
        } else if (store_job_plan(job, &plan, &task->error) == 0) {
            wait_for(task, job);
        }
    }
    store_job_destroy(job);
    for (size_t i = 0; preload.owns_urls && i < preload.object_count; i++) {
        free((char *)preload.objects[i].url);
    }
    free(preload.objects);
    free(preload.needs);
}
