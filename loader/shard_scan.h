/*
 * shard_scan.h - the samples of one tar shard, from its headers: runs of members with the same
 * key, in file order.
 *
 * Keys and extensions are WebDataset's: a member's name is cut at the first dot of its last
 * component, "a/b.seg.png" has key "a/b" and extension "seg.png" (lower case). Members without an
 * extension or a key (".x.png") are left out, and so are directories and links.
 *
 * Stricter than WebDataset, which would make two half samples: a key that comes again in the same
 * shard after another one is an error. So is an extension that comes twice in a sample.
 */
#ifndef PENSTOCK_LOADER_SHARD_SCAN_H
#define PENSTOCK_LOADER_SHARD_SCAN_H

#include <stdbool.h>
#include <time.h>

#include "loader/error.h"
#include "loader/index.h"
#include "loader/index_draft.h"

/* What a scan found; names are offsets into strings, members and extensions count from 0. */
struct shard_scan {
    uint64_t size_bytes;
    int64_t mtime_ns;
    struct growing samples;    /* struct index_sample, place unset */
    struct growing members;    /* struct index_member */
    struct growing extensions; /* uint64_t string offsets */
    struct growing strings;
    uint64_t data_bytes;
    bool is_end_missing; /* see tar.h */
};

/* Where the bytes of a shard come from. */
struct shard_bytes {
    uint64_t size_bytes; /* of the shard */
    /* Bytes [offset, offset + size), all inside the shard. 0, or -1 and *error. */
    int (*read)(void *context, uint64_t offset_bytes, uint8_t *bytes, size_t size_bytes,
                struct error *error);
    void *context;
};

/* 0, or -1 and *error naming path, offset and reason. Reads headers and "cls" members only, from
 * front to back. */
int shard_scan_bytes(const char *path, const struct shard_bytes *source,
                     struct index_progress *progress, struct shard_scan *scan, struct error *error);
/* The same for a local file (shard_scan_file.c). */
int shard_scan_file(const char *path, const struct timespec *now, struct index_progress *progress,
                    struct shard_scan *scan, struct error *error);
void shard_scan_clear(struct shard_scan *scan);

#endif /* PENSTOCK_LOADER_SHARD_SCAN_H */
