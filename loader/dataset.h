/*
 * dataset.h - from what a user names as a data set to objects: one folder, or a list of tar shards.
 *
 * A name is a path, or one of these, alone or in a list of names:
 *     train-{000000..000146}.tar  {train,val}.tar  *.tar      brace lists, shell patterns (sorted)
 *     a.tar::b-{0..9}.tar                                     several names in one
 *     file:///data/a.tar
 *     s3://bucket/train-{00..99}.tar  s3://bucket/train-*.tar  https://host/a.tar
 *     s3://bucket/train/                                      a prefix is a folder: what follows it
 *                                                             up to the next '/' is the class
 * A local path that exists is taken as it is, whatever characters it has.
 */
#ifndef PENSTOCK_LOADER_DATASET_H
#define PENSTOCK_LOADER_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/index_format.h"
#include "loader/error.h"
#include "loader/index_hash.h"
#include "loader/origin.h"
#include "loader/pattern.h"

/* A remote object: a shard, or something below a prefix. */
struct dataset_object {
    char *key; /* below the prefix; NULL for shards. "a/b/": a directory without images */
    char *tag; /* which version; NULL while unknown, and for directories */
    uint64_t size_bytes;
};

struct dataset {
    enum index_kind kind;
    bool is_remote;
    struct text_list paths; /* the folder's real path, or the shards in order; absolute. Remote:
                               the prefix without its last '/', or the shards' URLs */
    struct dataset_object *objects; /* remote: of each path; of a prefix what lies below it */
    size_t object_count, object_capacity;
};

/* 0, or -1 and *error, which names what is wrong and says what to do. Looks at every file (stat, or
 * listings and HEAD requests), reads none. Relative paths start at the working directory of this
 * process. `origin` may be NULL: then remote names are refused. */
int dataset_resolve(const char *const *urls, size_t url_count, const struct origin *origin,
                    struct dataset *dataset, struct error *error);
void dataset_clear(struct dataset *dataset);

/* Of a remote data set: a hash of names below the common folder, sizes and versions. False when
 * memory is short. */
bool dataset_fingerprint(const struct dataset *dataset, uint8_t fingerprint[INDEX_HASH_BYTES]);

/* dataset_remote.c, for dataset.c: the same for names that are all remote. */
int dataset_resolve_remote(const struct text_list *names, const struct origin *origin,
                           struct dataset *dataset, struct error *error);

#endif /* PENSTOCK_LOADER_DATASET_H */
