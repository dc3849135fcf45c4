#include "loader/source.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "loader/source_engine.h"
#include "loader/source_shards.h"

struct source {
    const struct source_ops *ops;
    void *engine;
    char reason[256];
    uint32_t depth;
    uint64_t file_bytes_max;
    uint32_t in_flight_count;
    struct read_list done; /* requests that were finished without the engine */
    struct shard_cache shards;
};

static bool start_engine(struct source *source, const struct source_ops *ops, char *reason,
                         size_t reason_bytes)
{
    source->engine = ops->create(source->depth, source->file_bytes_max, reason, reason_bytes);
    source->ops = ops;
    return source->engine != NULL;
}

struct source *source_create(const struct source_options *options)
{
    if (options->depth < 1 || options->depth > 1024) {
        return NULL;
    }
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        return NULL;
    }
    source->depth = options->depth;
    source->file_bytes_max = options->file_bytes_max;
    char ignored[64];
    bool started = false;
    if (options->engine != SOURCE_PREAD) {
        started = start_engine(source, source_uring_ops(), source->reason, sizeof source->reason);
    } else {
        snprintf(source->reason, sizeof source->reason, "the pread engine was asked for");
    }
    if (!started && !start_engine(source, source_pread_ops(), ignored, sizeof ignored)) {
        free(source);
        return NULL;
    }
    return source;
}

enum source_engine source_engine(const struct source *source)
{
    return source->ops->kind;
}

const char *source_engine_reason(const struct source *source)
{
    return source->reason;
}

/* Find the request's shard, or finish it with the error. */
static void begin_shard(struct source *source, struct read_request *request)
{
    struct shard *shard;
    int error = shard_acquire(&source->shards, request, &shard);
    if (error != 0) {
        request->error = error;
        request->state = READ_DONE;
        return;
    }
    request->shard = shard;
    read_use_file(request, shard_file(shard), source->file_bytes_max);
}

void source_submit(struct source *source, struct read_request *const *requests, size_t count)
{
    assert(count <= source->depth - source->in_flight_count);
    enum { GROUP = 64 };
    struct read_request *group[GROUP];
    size_t group_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct read_request *request = requests[i];
        assert(request->state == READ_IDLE);
        read_begin(request);
        request->shard = NULL;
        if (request->file != NULL) {
            read_use_file(request, request->file, source->file_bytes_max);
        } else if (request->keep_open) {
            begin_shard(source, request);
        }
        if (request->state == READ_DONE) {
            read_list_append(&source->done, request);
        } else {
            group[group_count++] = request;
        }
        if (group_count == GROUP || (i + 1 == count && group_count > 0)) {
            source->ops->submit(source->engine, group, group_count);
            group_count = 0;
        }
    }
    source->in_flight_count += (uint32_t)count;
}

size_t source_reap(struct source *source, struct read_request **done, size_t max, int timeout_ms)
{
    size_t count = 0;
    while (count < max && (done[count] = read_list_take(&source->done)) != NULL) {
        count++;
    }
    if (count < max) {
        count += source->ops->reap(source->engine, done + count, max - count,
                                   count > 0 ? 0 : timeout_ms);
    }
    for (size_t i = 0; i < count; i++) {
        assert(done[i]->state == READ_DONE);
        if (done[i]->shard != NULL) {
            shard_release(done[i]->shard);
        }
        done[i]->shard = NULL;
        done[i]->state = READ_IDLE;
    }
    source->in_flight_count -= (uint32_t)count;
    return count;
}

void source_interrupt(struct source *source)
{
    source->ops->interrupt(source->engine);
}

void source_destroy(struct source *source)
{
    if (source == NULL) {
        return;
    }
    struct read_request *done[16];
    while (source->in_flight_count > 0) {
        source_reap(source, done, sizeof done / sizeof *done, 1000);
    }
    source->ops->destroy(source->engine);
    shard_cache_clear(&source->shards);
    free(source);
}
