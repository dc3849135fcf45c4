/*
 * index_sections.h - the inside of struct index, for index*.c: the mapped file, section by section.
 * Everything here has passed index_check().
 */
#ifndef PENSTOCK_LOADER_INDEX_SECTIONS_H
#define PENSTOCK_LOADER_INDEX_SECTIONS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/index.h"

struct index {
    atomic_uint reference_count;
    int fd;
    const uint8_t *bytes; /* mapped, read-only */
    size_t size_bytes;
    const struct index_header *header;
    const struct index_shard *shards;
    const struct index_directory *directories;
    const uint64_t *classes;
    const uint64_t *extensions;
    const struct index_sample *samples;
    const struct index_member *members;
    const char *strings;
    uint64_t sample_count, directory_count;
    uint32_t shard_count, class_count, extension_count;
    uint64_t *shard_first; /* shard_count + 1 */
};

static inline const char *index_string(const struct index *index, uint64_t offset)
{
    return index->strings + offset;
}

#endif /* PENSTOCK_LOADER_INDEX_SECTIONS_H */
