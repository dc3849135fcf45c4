/*
 * index.h - the index of a data set: built once, checked, kept in the cache folder, mapped.
 *
 * An index is immutable and reference-counted; any thread may read it. index_open() blocks while
 * it lists or scans, so the daemon calls it on a thread of its own; it reports progress and can
 * be cancelled. A stored index is used only if its checksums hold and nothing changed: for
 * folders the modification times of every directory, for tars size and modification time of
 * every shard, for remote data the version of every object. Remote tars are indexed by catalog.h.
 */
#ifndef PENSTOCK_LOADER_INDEX_H
#define PENSTOCK_LOADER_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/index_format.h"
#include "loader/error.h"

/* Written by the builder (relaxed atomics), read by whoever shows progress. */
struct index_progress {
    atomic_uint_fast64_t done_count;  /* files listed or bytes scanned */
    atomic_uint_fast64_t total_count; /* 0 while unknown */
    atomic_bool is_cancelled;         /* set by the caller: index_open() soon returns -1 */
};

struct index_options {
    const char *const *urls; /* the data set: a local folder, tar files, patterns; see dataset.h */
    size_t url_count;
    const char *cache_folder; /* where index files are kept; NULL: in memory only */
    uint32_t thread_count;    /* for listing and scanning, >= 1 */
    bool rebuild;             /* ignore a stored index */
};

struct index;

/* 0 and *index with one reference, or -1 and *error. progress may be NULL. *was_built (may be
 * NULL) tells whether it had to be made. A full disk is no error: the index then lives in memory,
 * and *warning (ERROR_TEXT_BYTES long, may be NULL; "" without one) says so; it also tells of tars
 * that may have been cut short. What changed less than 2 s before it was indexed might change again
 * without a trace, so an index of it serves this call but is built once more at the next. */
int index_open(const struct index_options *options, struct index_progress *progress,
               struct index **index, bool *was_built, char *warning, struct error *error);

struct dataset;
struct index_draft;

/* The same for a data set that was resolved; not for remote tars. urls are not looked at. */
int index_open_dataset(const struct index_options *options, const struct dataset *dataset,
                       struct index_progress *progress, struct index **index, bool *was_built,
                       char *warning, struct error *error);
/* The stored index of a data set if it holds what is there now, else NULL. */
struct index *index_open_stored(const char *cache_folder, const struct dataset *dataset);
/* Store a draft that is whole and open it; clears the draft. NULL and *error: memory. */
struct index *index_finish(const struct index_options *options, const struct dataset *dataset,
                           struct index_draft *draft, char *warning, struct error *error);
struct index *index_ref(struct index *index);
void index_unref(struct index *index); /* NULL is accepted */

/* Check bytes from outside as an index file: header, checksums, every offset and order. 0 or -1. */
int index_check(const uint8_t *bytes, size_t size_bytes, struct error *error);

const struct index_header *index_header(const struct index *index);
int index_fd(const struct index *index); /* borrowed: the file or memfd, to be passed on */
uint64_t index_sample_count(const struct index *index);
uint32_t index_shard_count(const struct index *index);
uint32_t index_class_count(const struct index *index);
const char *index_class_name(const struct index *index, uint32_t class_number);
/* shard_count + 1 canonical indices: shard s holds [first[s], first[s + 1]). */
const uint64_t *index_shard_first(const struct index *index);

/* A shard's path or URL, and what was indexed of it; the tag is "" for files. */
void index_shard_object(const struct index *index, uint32_t shard, const char **path,
                        const char **tag, uint64_t *size_bytes);

/* A sample's id: shard << 32 | position in the shard; a folder is one shard. Stable. */
uint64_t index_sample_id(const struct index *index, uint64_t canonical);
/* The reverse; false if there is no such sample. */
bool index_sample_find(const struct index *index, uint64_t sample_id, uint64_t *canonical);

/* Which members of a tar sample the fields of a loader are: patterns "jpg;jpeg;png" in order of
 * preference, matched without regard to case. With must_have a pattern that no member of the whole
 * data set matches is an error. A folder has one field, whatever its pattern; more are an error. */
struct index_fields; /* patterns resolved to extension numbers; immutable */
int index_fields_create(const struct index *index, const char *const *patterns, size_t count,
                        bool must_have, struct index_fields **fields, struct error *error);
void index_fields_destroy(struct index_fields *fields);

enum { INDEX_FIELDS_MAX = 8 };

/* Where the bytes of a sample are: one range of one file that covers all wanted fields. */
struct sample_place {
    const char *path;       /* borrowed from the index when is_shard, else written into buffer */
    bool is_shard;          /* a tar: the file is opened once and kept */
    uint64_t offset_bytes;  /* tar; 0 for files */
    uint64_t length_bytes;  /* tar; 0 for files: to the end, found when it is opened. A tar's 0:
                               every wanted field is missing or empty, nothing is to be read */
    uint64_t shard_bytes;   /* tar: expected size of the whole file */
    int64_t shard_mtime_ns; /* 0: not to be relied on */
    const char *tag;        /* remote: which version of the object; borrowed. NULL: a file */
    uint64_t object_bytes;  /* remote: size of the whole object */
    int64_t label;
    /* field f of index_fields lies at [offset, offset + length) of the range; a missing field has
     * length UINT64_MAX. A file is its field 0, of length 0 here: found when it is opened. */
    struct {
        uint64_t offset_bytes, length_bytes;
    } field[INDEX_FIELDS_MAX];
};

/* `buffer` (at least buffer_bytes >= 4096) receives a file's path. -1: path too long. */
int index_sample_place(const struct index *index, const struct index_fields *fields,
                       uint64_t canonical, struct sample_place *place, char *buffer,
                       size_t buffer_bytes);

/* "folder/n01/x.jpg" or "shard-0001.tar:key", for messages; always NUL-terminated. */
void index_sample_label(const struct index *index, uint64_t canonical, char *text, size_t bytes);

#endif /* PENSTOCK_LOADER_INDEX_H */
