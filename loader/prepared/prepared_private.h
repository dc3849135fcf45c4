/*
 * prepared_private.h - the inside of prepared/, for prepared.c and shelf.c only.
 */
#ifndef PENSTOCK_LOADER_PREPARED_PREPARED_PRIVATE_H
#define PENSTOCK_LOADER_PREPARED_PREPARED_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "loader/prepared/prepared.h"

enum { SHELF_FOLDER_BYTES = 1200, SHELF_FOLDER_NAME_BYTES = 2 * SHELF_KEY_BYTES + 1 };

struct prepared {
    uint64_t limit_bytes, free_floor_bytes;
    int folder_fd; /* of "prepared" */
    char folder[1100];

    pthread_mutex_t lock; /* guards what follows; taken before a shelf's lock, never after it */
    struct shelf *shelves;
    uint64_t used_bytes;          /* of all shelves, open or not; what is reserved included */
    uint64_t floor_checked_bytes; /* used_bytes when the file system was last asked */
    bool is_at_floor;
    uint64_t added_count, added_bytes, corrupt_count, outdated_count;
};

/* A pack file. Its size is fixed at once, sparse: readers may keep it open while it grows. */
struct shelf_pack {
    uint64_t number; /* random, in its name: never used again */
    int fd;          /* -1: it is only read (through its path) */
    char *path;
};

/* What the table knows of a sample. */
struct shelf_slot {
    uint64_t offset_bytes; /* of the record's header in its pack */
    uint64_t source_bytes;
    int64_t source_mtime_ns;
    uint32_t record_bytes;
    uint16_t pack; /* place in packs */
    uint8_t state; /* enum shelf_state */
    bool is_being_added;
};

struct shelf {
    struct prepared *prepared;
    struct shelf *next;       /* under the lock of prepared */
    uint32_t user_count;      /* the same */
    struct shelf_about about; /* constant */
    char folder[SHELF_FOLDER_BYTES];
    int folder_fd, journal_fd; /* the journal is locked (flock) for this daemon */

    pthread_mutex_t lock;     /* guards what follows */
    struct shelf_slot *slots; /* [about.sample_count] */
    struct shelf_pack *packs;
    uint32_t pack_count;
    uint64_t pack_end_bytes; /* of the last one: where the next record goes */
    bool is_full;
    struct shelf_stats stats;
};

/* ---- prepared.c */

/* Count bytes that are about to be written; false: there is no room for them. Makes room by
 * removing shelves that nobody has open. */
bool prepared_reserve(struct prepared *prepared, uint64_t bytes);
void prepared_give_back(struct prepared *prepared, uint64_t bytes);

/* ---- shelf.c */

/* NULL: damaged, locked by another daemon, no memory or disk (logged). */
struct shelf *shelf_load(struct prepared *prepared, const struct shelf_about *about);
void shelf_unload(struct shelf *shelf);

#endif /* PENSTOCK_LOADER_PREPARED_PREPARED_PRIVATE_H */
