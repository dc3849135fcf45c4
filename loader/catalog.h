/*
 * catalog.h - the shards of remote tar data sets, and the index of each as it becomes known.
 *
 * A catalog knows its shards' names, sizes and versions from the start. Who needs samples of a
 * shard wants it; threads of the registry then take its index from the cache folder, or read the
 * shard through the store, its chunks prefetched while its headers are parsed. Sessions go on with
 * the shards that are known; when all are, their indices become one (catalog_whole).
 *
 * A shard's index belongs to the shard's content, so it serves every data set that names the shard.
 *
 * Threads: any, for everything but creating and ending the registry. on_change is called on a
 * thread of the registry, without locks, whenever a shard became known or failed.
 */
#ifndef PENSTOCK_LOADER_CATALOG_H
#define PENSTOCK_LOADER_CATALOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/dataset.h"
#include "loader/index.h"

/* ---- The registry ---------------------------------------------------------------------------- */

struct catalogs;

struct catalogs_options {
    struct store *store;      /* borrowed, like all of these */
    const char *cache_folder; /* of index files; NULL: none */
    void (*on_change)(void *context);
    void *context;
};

/* Starts no thread before a shard is wanted. NULL: no memory. */
struct catalogs *catalogs_create(const struct catalogs_options *options);
/* Ends the threads; what waits fails. Before what on_change needs goes. */
void catalogs_stop(struct catalogs *catalogs); /* NULL is accepted, here and below */
/* All catalogs have been let go. */
void catalogs_destroy(struct catalogs *catalogs);

/* ---- A catalog ------------------------------------------------------------------------------- */

struct catalog;

/* The catalog of a remote tar data set, with one reference: the one that is there if the same
 * shards are in use already, else a new one. Takes the data set's content. NULL and *error. */
struct catalog *catalog_open(struct catalogs *catalogs, struct dataset *dataset,
                             const char *profile, struct error *error);
struct catalog *catalog_ref(struct catalog *catalog);
void catalog_unref(struct catalog *catalog); /* NULL is accepted */

const struct dataset *catalog_dataset(const struct catalog *catalog);
const char *catalog_profile(const struct catalog *catalog);
const uint8_t *catalog_fingerprint(const struct catalog *catalog);
uint32_t catalog_shard_count(const struct catalog *catalog);
uint64_t catalog_data_bytes(const struct catalog *catalog); /* of all shards */

/* The index of one shard (its shard 0), NULL while it is unknown; lives as long as the catalog. */
const struct index *catalog_shard(const struct catalog *catalog, uint32_t shard);
/* Of all shards; UINT64_MAX until they are all known. */
uint64_t catalog_sample_count(const struct catalog *catalog);
/* Bytes of the shards that are known or scanned so far. */
uint64_t catalog_known_bytes(const struct catalog *catalog);

/* Ask for shards, in this order and before those that were asked for later; cheap, never waits. A
 * shard that failed is tried again. */
void catalog_want(struct catalog *catalog, const uint32_t *shards, uint32_t count);
/* Ask for all, after those. */
void catalog_want_all(struct catalog *catalog);

/* Raised by each shard that becomes known or fails. */
uint64_t catalog_changes(const struct catalog *catalog);
/* Why a shard cannot be had; false: it did not fail. */
bool catalog_has_failed(struct catalog *catalog, uint32_t shard, struct error *error);
/* Wait until catalog_changes() differs from `seen`, at most 100 ms. */
void catalog_wait(struct catalog *catalog, uint64_t seen);

/* Wait for all shards and return the index of them together, with one reference; it is kept, in
 * the cache folder too. `progress` shows bytes. NULL and *error: the first shard that failed,
 * cancelled, memory. */
struct index *catalog_whole(struct catalog *catalog, struct index_progress *progress, char *warning,
                            struct error *error);

#endif /* PENSTOCK_LOADER_CATALOG_H */
