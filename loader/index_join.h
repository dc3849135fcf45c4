/*
 * index_join.h - indices of single shards become one: their samples one after the other.
 *
 * Used both for shards that were just scanned and for shards whose index was kept.
 */
#ifndef PENSTOCK_LOADER_INDEX_JOIN_H
#define PENSTOCK_LOADER_INDEX_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/index.h"
#include "loader/index_draft.h"
#include "loader/shard_scan.h"

/* One shard's samples, borrowed. Names are offsets into strings; members and extensions count from
 * 0; `place` of a sample is not looked at. */
struct index_part {
    const char *path; /* of the shard */
    const char *tag;  /* "" for files */
    uint64_t size_bytes;
    int64_t mtime_ns;
    uint64_t data_bytes;
    const struct index_sample *samples;
    const struct index_member *members;
    const uint64_t *extensions;
    const char *strings;
    size_t sample_count, member_count, extension_count;
};

/* What a scan found, as a part. */
struct index_part index_part_of_scan(const char *path, const char *tag,
                                     const struct shard_scan *scan);
/* The only shard of an index. */
struct index_part index_part_of_index(const struct index *index);

/* Append a shard. Memory that runs out shows in the draft. */
void index_join(struct index_draft *draft, const struct index_part *part);

#endif /* PENSTOCK_LOADER_INDEX_JOIN_H */
