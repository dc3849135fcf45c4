/*
 * source_shards.h - inside source.c: descriptors of shards, kept open between reads.
 *
 * Threads: one at a time, under the caller's lock. Opening is a blocking call here: it happens
 * once per shard, not once per sample.
 */
#ifndef PENSTOCK_LOADER_SOURCE_SHARDS_H
#define PENSTOCK_LOADER_SOURCE_SHARDS_H

#include "loader/source_engine.h"

enum { SHARDS_OPEN_MAX = 256 };

struct shard;

struct shard_cache {
    struct shard *shards[SHARDS_OPEN_MAX];
    uint32_t shard_count;
    uint64_t clock; /* counts uses: the least recently used shard makes room */
};

/* Find or open the shard of a request: 0 with a hold on it in *shard, or an errno; ESTALE when
 * it is not the one that the request expects. */
int shard_acquire(struct shard_cache *cache, const struct read_request *request,
                  struct shard **shard);
void shard_release(struct shard *shard);
const struct read_file *shard_file(const struct shard *shard);

/* Nothing is held any more. */
void shard_cache_clear(struct shard_cache *cache);

#endif /* PENSTOCK_LOADER_SOURCE_SHARDS_H */
