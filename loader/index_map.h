/*
 * index_map.h - the inside of struct index, for index*.c: the mapped file, section by section.
 * Everything here has passed index_check().
 */
#ifndef PENSTOCK_LOADER_INDEX_MAP_H
#define PENSTOCK_LOADER_INDEX_MAP_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/index.h"

struct index {
    atomic_uint reference_count;
    int fd;               /* -1: the bytes are in memory of their own */
    const uint8_t *bytes; /* mapped, read-only */
    size_t size_bytes;
    const struct index_header *header;
    const struct index_shard *shards;
    const struct index_directory *directories;
    const uint64_t *classes;
    const uint64_t *extensions;
    const struct index_sample *samples;
    const struct index_member *members;
    const struct index_object *objects; /* one per sample, or none: object_count */
    const char *strings;
    uint64_t sample_count, directory_count, object_count;
    uint32_t shard_count, class_count, extension_count;
    uint64_t *shard_first; /* shard_count + 1 */
};

/* Map and check an index file. Takes fd over, also on failure; NULL and *error when it is no good
 * index or memory is short. The caller has the one reference. */
struct index *index_map(int fd, struct error *error);
/* The same with the file's bytes in memory of its own and the file closed: for indices of which
 * there are many. index_fd() is then -1. */
struct index *index_load(int fd, struct error *error);
void index_unmap(struct index *index); /* for index_unref() */

static inline const char *index_string(const struct index *index, uint64_t offset)
{
    return index->strings + offset;
}

#endif /* PENSTOCK_LOADER_INDEX_MAP_H */
