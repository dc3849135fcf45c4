#include "loader/source_shards.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct shard {
    struct read_file file;
    bool direct; /* asked for, whether or not the file system can */
    bool listed; /* in the cache's table; else it goes with its last user */
    uint32_t user_count;
    uint64_t used_at;
    uint64_t path_hash;
    char path[];
};

static uint64_t hash_path(const char *path) /* FNV-1a */
{
    uint64_t hash = 14695981039346656037u;
    for (; *path != '\0'; path++) {
        hash = (hash ^ (uint8_t)*path) * 1099511628211u;
    }
    return hash;
}

static void destroy_if_unused(struct shard *shard)
{
    if (shard->listed || shard->user_count > 0) {
        return;
    }
    close(shard->file.fd);
    free(shard);
}

static void unlist(struct shard_cache *cache, uint32_t index)
{
    struct shard *shard = cache->shards[index];
    cache->shards[index] = cache->shards[--cache->shard_count];
    shard->listed = false;
    destroy_if_unused(shard);
}

static uint32_t find_least_recent(const struct shard_cache *cache)
{
    uint32_t least = 0;
    for (uint32_t i = 1; i < cache->shard_count; i++) {
        if (cache->shards[i]->used_at < cache->shards[least]->used_at) {
            least = i;
        }
    }
    return least;
}

static bool is_expected(const struct read_file *file, const struct read_request *request)
{
    return (request->expect_bytes == 0 || file->size_bytes == request->expect_bytes) &&
           (request->expect_mtime_ns == 0 || file->mtime_ns == request->expect_mtime_ns);
}

static int open_shard(const struct read_request *request, uint64_t path_hash, struct shard **result)
{
    /* Through a request of its own, so that flags and the retry without O_DIRECT are the same. */
    struct read_request opening = {.path = request->path, .direct = request->direct};
    read_begin(&opening);
    int fd = open(opening.path, read_open_flags(&opening));
    if (fd < 0 && errno == EINVAL && opening.direct) {
        opening.align_bytes = 0;
        fd = open(opening.path, read_open_flags(&opening));
    }
    if (fd < 0) {
        return errno;
    }
    size_t path_bytes = strlen(request->path) + 1;
    struct shard *shard = calloc(1, sizeof *shard + path_bytes);
    int error =
        shard == NULL ? ENOMEM : read_file_inspect(&shard->file, fd, opening.align_bytes != 0);
    if (error != 0) {
        close(fd);
        free(shard);
        return error;
    }
    shard->direct = request->direct;
    shard->path_hash = path_hash;
    memcpy(shard->path, request->path, path_bytes);
    *result = shard;
    return 0;
}

/* A shard that is open already; NULL when there is none or it is not the expected one any more,
 * neither in the table nor (perhaps) on disk. */
static struct shard *find_listed(struct shard_cache *cache, const struct read_request *request,
                                 uint64_t path_hash)
{
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        struct shard *shard = cache->shards[i];
        if (shard->path_hash != path_hash || shard->direct != request->direct ||
            strcmp(shard->path, request->path) != 0) {
            continue;
        }
        /* Look again: somebody may have written to it since. */
        struct stat status;
        bool known = fstat(shard->file.fd, &status) == 0;
        if (known) {
            shard->file.size_bytes = (uint64_t)status.st_size;
            shard->file.mtime_ns =
                (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
        }
        if (known && is_expected(&shard->file, request)) {
            return shard;
        }
        unlist(cache, i);
        return NULL;
    }
    return NULL;
}

int shard_acquire(struct shard_cache *cache, const struct read_request *request,
                  struct shard **result)
{
    uint64_t path_hash = hash_path(request->path);
    struct shard *shard = find_listed(cache, request, path_hash);
    if (shard == NULL) {
        int error = open_shard(request, path_hash, &shard);
        if (error != 0) {
            return error;
        }
        if (!is_expected(&shard->file, request)) {
            destroy_if_unused(shard);
            return ESTALE;
        }
        if (cache->shard_count == SHARDS_OPEN_MAX) {
            unlist(cache, find_least_recent(cache));
        }
        shard->listed = true;
        cache->shards[cache->shard_count++] = shard;
    }
    shard->used_at = ++cache->clock;
    shard->user_count++;
    *result = shard;
    return 0;
}

void shard_release(struct shard *shard)
{
    assert(shard->user_count > 0);
    shard->user_count--;
    destroy_if_unused(shard);
}

const struct read_file *shard_file(const struct shard *shard)
{
    return &shard->file;
}

void shard_cache_clear(struct shard_cache *cache)
{
    while (cache->shard_count > 0) {
        unlist(cache, cache->shard_count - 1);
    }
}
