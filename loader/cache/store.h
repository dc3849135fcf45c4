/*
 * store.h - the bytes of remote objects: in memory, on the local disk, or fetched.
 *
 * Objects are cut into chunks (8 MiB, aligned in the object; the last one, or a small object, is
 * shorter). A chunk is in the memory tier, in a file of the cache folder, being fetched, or absent.
 * Whoever asks for bytes that are being fetched waits for that fetch: a chunk is never fetched
 * twice at the same time, and a read is served as soon as its own bytes have come.
 *
 * One scheduler decides for all jobs together. A job says which chunks it needs and when (its
 * positions); from this follow what is fetched ahead and in which order, what is kept and what
 * makes room: of the chunks that may go, the one that is needed last over all jobs, and never for
 * one that is needed later than it. Chunks that no job needs go first, least recently used first.
 * A read of a chunk that would not be kept fetches its own range only.
 *
 * What comes from the cache folder is believed only after its checksums held (chunk_file.h); what
 * does not hold is dropped, counted and fetched again. A cache folder that fails (full, read-only,
 * vanished) makes the store slower, never wrong.
 *
 * Threads: any for everything but create and destroy; one lock inside, held for look-ups only.
 * The store runs two writer threads and, after the start, one that looks through the folder.
 */
#ifndef PENSTOCK_LOADER_CACHE_STORE_H
#define PENSTOCK_LOADER_CACHE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"
#include "loader/remote/remote.h"

enum {
    STORE_CHUNK_BYTES = 8 << 20,
    STORE_PARTS_MAX = 64,        /* fetches under way at once, at most */
    STORE_MEMORY_CHUNKS_MIN = 8, /* the memory limit is at least so many chunks */
};

struct store;

struct store_options {
    const char *folder;          /* the cache folder; files go into its "chunks"; "": no disk */
    uint64_t disk_limit_bytes;   /* of all files together, headers included; 0: a fifth of what
                                    they take and what is free, settled once at the start */
    uint64_t free_floor_bytes;   /* so much of the file system is left to others; 0: 5 % of it,
                                    at most 10 GiB */
    uint64_t memory_limit_bytes; /* of the memory tier with what is being fetched; 0: a tenth of
                                    the available memory, at most 1 GiB */
    uint32_t chunk_bytes;        /* a multiple of 64 KiB; 0: STORE_CHUNK_BYTES */
    struct remote *remote;       /* borrowed: outlives the store */
};

/* Does not wait for the folder to be looked through. A folder that cannot be used is logged, and
 * the store goes on without disk. NULL and *error: memory, threads. */
struct store *store_create(const struct store_options *options, struct error *error);

/* Cancels what is being fetched and waits for it. No read may be waiting; jobs have ended. */
void store_destroy(struct store *store); /* NULL is accepted */

uint32_t store_chunk_bytes(const struct store *store);

/* Which content: texts are borrowed for the call and copied if they are needed longer. */
struct store_object {
    const char *url;
    const char *profile; /* name of an AWS profile; NULL or "": the default credentials */
    const char *tag;     /* as in struct remote_version; never "" */
    uint64_t size_bytes;
};

/* Bytes [offset, offset + length) of an object into the buffer; waits. *cancel (may be NULL) is
 * looked at every 100 ms. 0, or -1 and *error: ERROR_CHANGED, ERROR_ACCESS, ERROR_MISSING,
 * ERROR_IO, ERROR_CANCELLED. For pool threads: reader.h. */
int store_read(struct store *store, const struct store_object *object, uint64_t offset_bytes,
               uint64_t length_bytes, uint8_t *buffer, const atomic_bool *cancel,
               struct error *error);

/* ---- Jobs --------------------------------------------------------------------------------- */

/* A stream of reads whose order is known: a session of a trainer, the scan of a shard's index, a
 * preload. */
struct store_job;

enum store_job_kind {
    STORE_JOB_READ,    /* somebody reads along: fetches run ahead of its position */
    STORE_JOB_PRELOAD, /* nobody reads: all needs are fetched as fast as they come and fit */
};

/* A chunk and the positions (samples of the epoch, counted from 0) at which the job needs it. */
struct store_need {
    uint32_t object; /* place in the list of objects */
    uint32_t chunk;
    uint64_t first_position, last_position;
    uint32_t uses; /* samples that lie in the chunk, at least in part; 0 means 1 */
};

struct store_plan {
    uint64_t epoch;
    uint64_t position_count; /* positions of this epoch: the next one begins there */
    const struct store_object *objects;
    size_t object_count;
    const struct store_need *needs; /* ascending first_position */
    size_t need_count;
};

/* NULL: no memory. */
struct store_job *store_job_create(struct store *store, enum store_job_kind kind);
void store_job_destroy(struct store_job *job); /* NULL is accepted */

/* What the job needs in an epoch; a copy is kept. Give the running epoch and, as soon as it is
 * known, the next one (eviction looks that far); an epoch given again replaces what was said, and
 * epochs before the position's are forgotten. May be given in growing pieces while an index is
 * being completed. 0, or -1 and *error (memory). */
int store_job_plan(struct store_job *job, const struct store_plan *plan, struct error *error);

/* The job has read everything before this position. Cheap: call it for every batch. */
void store_job_position(struct store_job *job, uint64_t epoch, uint64_t position);

/* How far a preload has come. `missing_bytes` are still to be fetched; when `is_full`, the cache
 * takes no more and nothing further will come. */
struct store_job_progress {
    uint64_t needed_bytes, missing_bytes;
    uint64_t failed_count; /* chunks whose fetch failed for good */
    struct error error;    /* the first of these failures */
    bool is_full;
    bool is_done; /* nothing is missing, or nothing more will come */
};
struct store_job_progress store_job_progress(struct store_job *job);

/* Bytes of the job's reads (read_request.job) since it began. A miss was fetched for this reading
 * of the data, ahead of it or for it; a hit was there before, from an earlier epoch, run or job. */
struct store_job_stats {
    uint64_t hit_bytes, miss_bytes;
};
struct store_job_stats store_job_stats(struct store_job *job);

/* ---- Figures ------------------------------------------------------------------------------ */

struct store_stats {
    uint64_t memory_hit_bytes, disk_hit_bytes; /* of reads */
    uint64_t joined_bytes;                     /* ... that waited for a fetch under way */
    uint64_t miss_bytes;                       /* ... that started a fetch */
    uint64_t fetched_bytes;                    /* received from the origin, whole parts */
    uint64_t fetch_count, fetch_failed_count;
    uint64_t prefetched_bytes;   /* of fetched_bytes: before anybody waited for them */
    uint64_t written_bytes;      /* to chunk files */
    uint64_t evicted_count;      /* chunk files removed to make room */
    uint64_t corrupt_count;      /* chunk files dropped because a check failed, or gone */
    uint64_t write_failed_count; /* disk full and the like */
    uint64_t disk_used_bytes, disk_limit_bytes, disk_chunk_count;
    uint64_t memory_used_bytes, memory_limit_bytes;
    uint64_t bytes_in_flight;       /* being fetched now */
    uint64_t bytes_in_flight_limit; /* the scheduler's present limit */
    uint64_t ahead_bytes;           /* fetched and not yet asked for */
    uint32_t job_count;
    bool is_scanning; /* the folder is still being looked through */
    bool has_disk;    /* chunk files are used by this daemon */
};
void store_stats_get(struct store *store, struct store_stats *stats);

#endif /* PENSTOCK_LOADER_CACHE_STORE_H */
