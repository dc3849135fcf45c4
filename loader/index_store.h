/*
 * index_store.h - where index files are kept: CACHE_FOLDER/index/HASH.psi, HASH being that of the
 * data set's paths. Files are private to the user (0600 in a folder of 0700), written under
 * another name and renamed, so that a reader sees a whole file or none and of two writers the last
 * one wins.
 */
#ifndef PENSTOCK_LOADER_INDEX_STORE_H
#define PENSTOCK_LOADER_INDEX_STORE_H

#include <stddef.h>

#include "loader/dataset.h"
#include "loader/error.h"
#include "loader/index_draft.h"

/* The stored file of a data set, open for reading; -1 when there is none that is ours. */
int index_store_open(const char *cache_folder, const struct dataset *dataset);

/* Store a draft and return it open for reading. Where that fails (a full disk, a folder that may
 * not be written, cache_folder NULL), a sealed memfd, and *warning (ERROR_TEXT_BYTES long, may be
 * NULL) says why unless cache_folder is NULL. -1 and *error: memory is short. */
int index_store_save(const char *cache_folder, const struct dataset *dataset,
                     const struct index_draft *draft, char *warning, struct error *error);

#endif /* PENSTOCK_LOADER_INDEX_STORE_H */
