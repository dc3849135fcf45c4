/*
 * store_private.h - the inside of the store, for store*.c and store_port.c only.
 *
 * One lock, store->lock, guards everything here that is not said to be constant, jobs and ports
 * included. It is never held over I/O, copies of data or checksums; what these work on is held by
 * chunk->user_count. remote_part_start() and remote_part_cancel() are called under it (their own
 * lock is never held while a callback runs). Names: functions want the lock held unless their
 * comment says "no lock".
 */
#ifndef PENSTOCK_LOADER_CACHE_STORE_PRIVATE_H
#define PENSTOCK_LOADER_CACHE_STORE_PRIVATE_H

#include <pthread.h>

#include "loader/cache/chunk_file.h"
#include "loader/cache/store.h"
#include "loader/cache/store_port.h"
#include "loader/source.h"

enum {
    WRITERS = 2,
    OPEN_FILES_MAX = 512,
    FLOW_START_CHUNKS = 16, /* bytes in flight at first */
};

/* Distances in positions until a chunk is needed. A chunk that no job needs lies beyond all that
 * some job needs; among such, one not used for longer lies farther. */
static const uint64_t distance_unneeded = (uint64_t)1 << 61;

/* An object's content, shared by its chunks. */
struct object {
    uint8_t key[CHUNK_KEY_BYTES];
    uint64_t size_bytes;
    uint32_t ref_count;  /* chunks, and who manages the cache */
    size_t gathered;     /* place in a list of store_manage.c, from 1; under manage_lock */
    char *profile;       /* of whoever asked last; never NULL */
    struct object *next; /* in the bucket */
    const char *tag;     /* in url's memory */
    char url[];
};

/* That a job needs a chunk between two of its times; see struct store_job. */
struct need {
    struct chunk *chunk;
    struct store_job *job;
    uint64_t first, last;
    uint32_t uses;
    bool has_failed;
    struct need *next; /* of the chunk */
};

struct chunk {
    struct chunk *hash_next;
    uint8_t key[CHUNK_KEY_BYTES];
    uint32_t number;
    uint32_t data_bytes;   /* 0: found in the folder and not asked for yet */
    uint32_t file_bytes;   /* while on_disk or is_leaving */
    uint32_t fetched_s;    /* Unix time; 0: not known */
    uint32_t ttl_s;        /* of the rules; 0: none */
    struct object *object; /* NULL: found in the folder and not asked for yet */
    struct need *needs;
    uint64_t used_at;                  /* the store's clock, for LRU */
    uint32_t user_count;               /* whoever works on buffer or file without the lock */
    uint32_t disk_index, memory_index; /* in the lists of the store; UINT32_MAX: not in it */
    uint32_t victim_index;

    bool on_disk;    /* its file is complete */
    bool is_leaving; /* its file is being removed */
    bool is_queued;  /* for the writers */
    bool is_spilled; /* ... because memory is short: other files may have to go for it */
    bool is_writing;
    bool is_void; /* the fetch failed: the buffer goes with its last user */
    bool is_pinned;
    bool is_ahead; /* fetched ahead and not read yet: counted in ahead_bytes */

    uint8_t *buffer;      /* data_bytes and padding; NULL: not in memory */
    uint32_t ready_bytes; /* of buffer; data_bytes: complete */
    struct fetch *fetch;  /* fills the buffer */
    struct segment *waiters;
    uint64_t fresh_job_id; /* was fetched for this job's ... */
    uint64_t fresh_until;  /* ... needs up to this time; 0: it was there before */

    struct chunk_file *file; /* open, see store_files.c */
    struct chunk *file_older, *file_newer;
    struct chunk *queue_next; /* of the writers */
};

/* A ranged GET: of a whole chunk into its buffer, or of one segment into its request's. */
struct fetch {
    struct remote_part part;
    struct store *store;
    struct chunk *chunk;
    struct segment *segment; /* NULL: the whole chunk */
    char *profile;
    bool is_ahead; /* nobody waited when it was started */
    uint64_t counted_bytes;
    struct fetch *next, *previous;
};

enum segment_state {
    SEGMENT_NEW = 0,
    SEGMENT_COPY,  /* in the port's list `ready`: its bytes are in the chunk's buffer */
    SEGMENT_FILE,  /* in the port's list `local`: to be read from the chunk's file */
    SEGMENT_LOCAL, /* the reader has it */
    SEGMENT_WAIT,  /* in the chunk's list of waiters */
    SEGMENT_RANGE, /* has a fetch of its own */
    SEGMENT_DONE,
};

/* The part of a read that lies in one chunk. */
struct segment {
    struct store_read *read;
    struct chunk *chunk; /* held */
    enum segment_state state;
    uint32_t offset_bytes, length_bytes; /* in the chunk */
    uint64_t out_bytes;                  /* where in the read */
    struct fetch *fetch;
    struct chunk_file *file; /* while SEGMENT_LOCAL */
    struct segment *next;
    struct read_request local;
};

struct store_read {
    struct read_request *request;
    struct store_port *port;
    uint64_t length_bytes;
    uint32_t segment_count, pending_count;
    bool is_cancelled;
    struct store_read *next;
    struct segment segments[];
};

struct segment_list {
    struct segment *first, *last;
};

struct store_port {
    struct store *store;
    void (*wake)(void *context);
    void *context;
    bool is_waiting;
    struct segment_list ready, local;
    struct store_read *done_first, *done_last;
    struct read_list refused; /* without memory for a struct store_read; no lock */
    uint32_t read_count;      /* in flight */
};

struct plan_needs {
    uint64_t epoch;
    uint64_t base; /* the job's time at position 0 */
    uint64_t position_count;
    struct need *needs; /* ascending first */
    size_t count;
    size_t cursor; /* before it nothing is to be fetched ahead */
};

/* A job's time is a count of positions that goes on from epoch to epoch. */
struct store_job {
    struct store *store;
    enum store_job_kind kind;
    uint64_t id;
    uint64_t now;
    struct plan_needs plans[2]; /* the running epoch and the next */
    uint32_t plan_count;
    bool is_blocked; /* what it needs next would not be kept; until something changes */
    struct store_job_stats stats;
    uint64_t failed_count;
    struct error error;
    struct store_job *next;
};

/* Positions until a need begins, and until it is over. */
static inline uint64_t need_distance(const struct need *need)
{
    return need->first > need->job->now ? need->first - need->job->now : 0;
}

static inline uint64_t need_end(const struct need *need)
{
    return need->last > need->job->now ? need->last - need->job->now : 0;
}

static inline bool need_is_over(const struct need *need)
{
    return need->last < need->job->now;
}

/* How many bytes are asked for at once: more as long as more comes. */
struct flow {
    uint64_t limit_bytes, limit_max_bytes;
    uint64_t interval_ns, interval_bytes; /* since then so much has come */
    bool was_full;                        /* the limit was reached in this interval */
    uint64_t best_bytes_per_s, before_limit_bytes, hold_until_ns;
    uint64_t bytes_per_s; /* of the last interval */
};

/* Chunk files found to be needed last, in one look at all of them. */
struct victims {
    struct victim {
        struct chunk *chunk; /* NULL: it has gone meanwhile */
        uint64_t distance;
    } *list; /* farthest first from `used` on */
    size_t count, used, capacity;
    uint64_t none_beyond;   /* nothing lay farther than this ... */
    uint64_t none_until_ns; /* ... which is believed until then */
};

struct removal;
struct rules;

struct store {
    /* Constant after create (disk_limit_bytes, if it was 0: after the scan). */
    struct remote *remote;
    uint32_t chunk_bytes;
    uint64_t disk_limit_bytes, free_floor_bytes, memory_limit_bytes;
    int folder_fd; /* of "chunks"; -1: none */
    char folder[1100];

    pthread_mutex_t lock;
    pthread_cond_t work_came; /* for the writers */
    pthread_cond_t changed;   /* for whoever waits for fetches, writes or removals to end */
    bool is_stopping;

    struct chunk **buckets;
    size_t bucket_count, chunk_count;
    struct object **object_buckets;
    size_t object_bucket_count, object_count;
    uint64_t clock;

    struct chunk **disk_list, **memory_list;
    size_t disk_count, disk_capacity, memory_count, memory_capacity;
    uint64_t disk_used_bytes; /* reservations and files being removed included */
    uint64_t memory_used_bytes;
    uint8_t *spare_buffers; /* of chunk_bytes each, linked through their first word */
    size_t spare_count;

    struct fetch *fetches;
    uint32_t fetch_count;     /* whole chunks and ranges */
    uint64_t in_flight_bytes; /* of whole chunks */
    uint64_t ahead_bytes;     /* fetched ahead, not read yet */
    struct flow flow;

    struct store_job *jobs;
    uint64_t last_job_id;
    struct victims victims;

    struct chunk *write_first, *write_last;
    pthread_t writers[WRITERS];
    uint32_t writer_count;
    bool has_first_writer; /* it looks after the folder, too */
    bool owns_folder;      /* the lock file is ours: chunk files are used */
    bool is_scanning;      /* the folder is still being looked through */
    int lock_fd;
    uint64_t look_again_ns, next_lock_try_ns;
    uint64_t floor_room_bytes;     /* what may be written until the free space is at the floor */
    uint64_t write_pause_until_ns; /* the disk was full */

    struct chunk *file_oldest, *file_newest; /* open chunk files */
    uint32_t file_count;

    pthread_mutex_t manage_lock; /* taken before `lock`: one command of an administrator at once */
    struct rules *rules;         /* store_rules.c, changed under both locks; NULL: none */
    struct store_stats stats;
};

/* ---- store_table.c: chunks and objects by name */

void store_object_key(const struct store *store, const struct store_object *object,
                      uint8_t key[CHUNK_KEY_BYTES]); /* no lock */
/* The chunk of an object, made when there is none; NULL: no memory. */
struct chunk *chunk_of_object(struct store *store, const struct store_object *object,
                              const uint8_t key[CHUNK_KEY_BYTES], uint32_t number);
struct chunk *chunk_find(struct store *store, const uint8_t key[CHUNK_KEY_BYTES], uint32_t number);
struct chunk *chunk_add(struct store *store, const uint8_t key[CHUNK_KEY_BYTES], uint32_t number);
/* Give a chunk the object that it is of; false: no memory. */
bool chunk_set_object(struct store *store, struct chunk *chunk, const struct store_object *object);
/* Free the chunk if nothing is known of it any more. */
void chunk_forget_if_unused(struct store *store, struct chunk *chunk);
/* One user less. */
void chunk_release(struct store *store, struct chunk *chunk);
/* With whose credentials the object of a key was asked for last; NULL: nobody asked. */
const char *object_profile(struct store *store, const uint8_t key[CHUNK_KEY_BYTES]);
void object_release(struct store *store, struct object *object); /* NULL is accepted */
void store_table_clear(struct store *store);
struct chunk_identity chunk_identity(const struct store *store, const struct chunk *chunk);
uint32_t chunk_data_bytes(const struct store *store, uint64_t object_bytes, uint32_t number);

/* ---- store_memory.c: buffers */

/* A buffer for a chunk that is needed at `distance`, or NULL: what is there is needed sooner. */
bool memory_acquire(struct store *store, struct chunk *chunk, uint64_t distance, bool is_ahead);
void memory_release(struct store *store, struct chunk *chunk); /* gives chunk->buffer back */
void memory_clear(struct store *store);

/* ---- store_fetch.c */

/* Fetch the whole chunk; false: no memory for it now. */
bool fetch_chunk(struct store *store, struct chunk *chunk, struct store_job *job, bool is_ahead);
/* Fetch just the segment's bytes, into its request's buffer; false: no memory. */
bool fetch_range(struct store *store, struct segment *segment);
/* End fetches that nobody waits for or needs. */
void fetch_cancel_unwanted(struct store *store);
void fetch_cancel_all(struct store *store);

/* ---- store_schedule.c */

/* Start what should be under way. */
void schedule(struct store *store);
/* Would the whole chunk be kept, in memory or on disk, if it were fetched now? */
bool schedule_admits(struct store *store, struct chunk *chunk);
/* The need that comes first, over all jobs; NULL: nobody has one. */
struct need *chunk_first_need(const struct chunk *chunk);
/* The chunk is not in the cache any more: it may have to be fetched ahead again. */
void schedule_lost(struct chunk *chunk);
/* It was read, or is dropped: no longer ahead. */
void schedule_not_ahead(struct store *store, struct chunk *chunk);
/* Positions until the chunk is needed by any job, and until it is done with (may be NULL). */
uint64_t chunk_distance(const struct store *store, const struct chunk *chunk, uint64_t *last);
/* The chunk file to be removed first, if it is needed later than `distance`; or NULL. */
struct chunk *schedule_victim(struct store *store, uint64_t distance);
void schedule_forget_victim(struct store *store, struct chunk *chunk);
void schedule_changed(struct store *store); /* needs, positions or room are others now */
void flow_note(struct store *store, uint64_t bytes);
uint64_t flow_limit(const struct store *store);

/* ---- store_jobs.c */

/* The next chunk that the job wants fetched ahead, or NULL. */
struct need *job_next_need(struct store_job *job);
/* Pass over the need that job_next_need() gave. */
void job_skip_need(struct store_job *job, struct need *need);

/* ---- store_disk.c: chunk files */

/* Take the folder; without one the store goes on without disk. No lock. */
void disk_open(struct store *store, const char *folder);
void disk_close(struct store *store); /* no lock, no threads left */
int disk_start(struct store *store, struct error *error);
void disk_stop(struct store *store); /* ends the threads; no lock */
/* A complete chunk has come into memory. */
void disk_offer(struct store *store, struct chunk *chunk);
/* Write it although other files have to go for it, and then free its buffer. */
void disk_spill(struct store *store, struct chunk *chunk);
/* Remove a chunk's file. Drops the lock and takes it again; the chunk must be held. */
void disk_remove(struct store *store, struct chunk *chunk);
/* While the folder is looked through: is the file of this chunk there? Then it is used. */
bool disk_find(struct store *store, struct chunk *chunk);
/* May chunk files be written now? */
bool disk_is_usable(const struct store *store);
uint64_t disk_limit(const struct store *store);

/* ---- store_files.c: open chunk files */

/* Open the chunk's file and hold it; NULL: it is gone or wrong, and is now dropped. Drops the lock
 * and takes it again; the chunk must be held. */
struct chunk_file *files_acquire(struct store *store, struct chunk *chunk);
void files_release(struct store *store, struct chunk_file *file);
void files_drop(struct store *store, struct chunk *chunk); /* the table's hold on it */
/* The name of the chunk's file. */
void files_name(const struct chunk *chunk, char text[CHUNK_NAME_BYTES]);

/* ---- store_port.c */

/* Bytes up to chunk->ready_bytes are there: serve who waits for them. */
void port_serve(struct store *store, struct chunk *chunk);
/* The chunk's fetch failed: tell who waits. */
void port_fail_waiters(struct store *store, struct chunk *chunk, const struct error *error);
/* A segment has its bytes (error NULL) or has failed. */
void segment_finish(struct store *store, struct segment *segment, const struct error *error);

/* ---- store_manage.c */

/* Learn of all chunk files what they are of. No lock. */
void manage_identify_all(struct store *store);
/* Remove what there is of a chunk that nobody uses, from disk and memory; false: it is in use.
 * Drops the lock and takes it again. The chunk may be gone afterwards. */
bool manage_drop(struct store *store, struct chunk *chunk);

/* ---- store_rules.c */

/* Read the rules of the folder, in the place of what there was. No lock. */
void rules_load(struct store *store);
void rules_destroy(struct store *store);
/* Find the rules of a chunk whose object is known. */
void rules_apply(struct store *store, struct chunk *chunk);
bool rules_exist(const struct store *store);
bool rules_may_expire(const struct store *store);
bool rules_expired(const struct chunk *chunk, int64_t now_s);

#endif /* PENSTOCK_LOADER_CACHE_STORE_PRIVATE_H */
