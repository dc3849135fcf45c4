/*
 * index_store.h - where index files are kept: CACHE_FOLDER/index/HASH.psi, HASH being that of the
 * data set's paths, or of a remote shard's URL and version. Files are private to the user (0600 in
 * a folder of 0700), written under another name and renamed, so that a reader sees a whole file or
 * none and of two writers the last one wins.
 */
#ifndef PENSTOCK_LOADER_INDEX_STORE_H
#define PENSTOCK_LOADER_INDEX_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "loader/dataset.h"
#include "loader/error.h"
#include "loader/index_draft.h"

/* The name of an index file. */
struct index_key {
    char name[64]; /* "0123...cdef.psi" */
};

/* False when memory is short. */
bool index_key_of_dataset(const struct dataset *dataset, struct index_key *key);
bool index_key_of_shard(const char *url, const struct dataset_object *object,
                        struct index_key *key);

/* The stored file, open for reading; -1 when there is none that is ours. */
int index_store_open(const char *cache_folder, const struct index_key *key);

/* Store a draft and return it open for reading. Where that fails (a full disk, a folder that may
 * not be written, cache_folder NULL), a sealed memfd, and *warning (ERROR_TEXT_BYTES long, may be
 * NULL) says why unless cache_folder is NULL. -1 and *error: memory is short. */
int index_store_save(const char *cache_folder, const struct index_key *key,
                     const struct index_draft *draft, char *warning, struct error *error);

#endif /* PENSTOCK_LOADER_INDEX_STORE_H */
