/*
 * catalog_private.h - the inside of catalogs, for catalog.c (state) and catalog_scan.c (one shard).
 */
#ifndef PENSTOCK_LOADER_CATALOG_PRIVATE_H
#define PENSTOCK_LOADER_CATALOG_PRIVATE_H

#include <pthread.h>

#include "loader/catalog.h"

/* What a scan is about; borrowed by catalog_scan_shard() only. */
struct catalog_scan {
    struct store *store;
    const char *cache_folder;
    const char *profile;
    const char *url;
    const struct dataset_object *object;
    struct index_progress *progress; /* bytes are added while it goes on; its flag ends it */
};

/* The index of one shard, from the cache folder or by reading it. NULL and *error. Blocks. */
struct index *catalog_scan_shard(const struct catalog_scan *scan, struct error *error);

#endif /* PENSTOCK_LOADER_CATALOG_PRIVATE_H */
