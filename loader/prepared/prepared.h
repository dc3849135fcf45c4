/*
 * prepared.h - coefficient records of images, kept on the local disk between epochs and runs.
 *
 * A *shelf* holds the records of one data set in one form: at most one for each sample, made from
 * the sample's file as it was then (its size and modification time, or zeros where the data set's
 * key covers the content: tar shards, remote objects).
 *
 *     FOLDER/prepared/KEY/journal     what there is: a header, then one entry for each event
 *     FOLDER/prepared/KEY/pack-*      records one after the other, each behind a header of its own
 *
 * Both are only ever appended to and never synced: an entry counts if its checksum holds, a record
 * if the header in front of it says what the entry said (shelf_record()) and if its own checksum
 * holds, which is the decoder's to check. Whatever a crash, a full disk or a bad sector leaves is
 * found out, dropped and counted, and the sample is read from its original again.
 *
 * All shelves together keep within a limit. When it is reached, shelves that nobody has open go,
 * the one not used for longest first; then nothing more is added.
 *
 * Threads: any for all functions but create and destroy. One lock guards the list of shelves, one
 * in each shelf its table; neither is held while records are written.
 */
#ifndef PENSTOCK_LOADER_PREPARED_PREPARED_H
#define PENSTOCK_LOADER_PREPARED_PREPARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"

enum {
    SHELF_KEY_BYTES = 16,
    SHELF_NAME_BYTES = 1024,
    SHELF_RECORD_HEADER_BYTES = 64,
    SHELF_RECORD_BYTES_MAX = 64 << 20,
};

struct prepared;
struct shelf;

struct prepared_options {
    const char *folder;        /* the cache folder */
    uint64_t limit_bytes;      /* of all shelves */
    uint64_t free_floor_bytes; /* so much of the file system is left to others */
};

/* NULL and *error when the folder cannot be used. */
struct prepared *prepared_create(const struct prepared_options *options, struct error *error);
void prepared_destroy(struct prepared *prepared); /* all shelves are closed; NULL is accepted */

/* ---- Shelves ------------------------------------------------------------------------------ */

struct shelf_about {
    uint8_t key[SHELF_KEY_BYTES]; /* of the data set's content and places, and of the form */
    uint32_t form;                /* the caller's, kept for listings */
    uint64_t sample_count;
    char name[SHELF_NAME_BYTES]; /* the data set, for listings */
};

/* The shelf with this key, made if there is none; shared by all who open it. NULL: memory or the
 * disk is short, or another daemon writes to it; the log says which. */
struct shelf *shelf_open(struct prepared *prepared, const struct shelf_about *about);
void shelf_close(struct shelf *shelf); /* NULL is accepted */

/* Which file a record was made from. */
struct shelf_source {
    uint64_t size_bytes;
    int64_t mtime_ns;
};

enum shelf_state {
    SHELF_ABSENT = 0,
    SHELF_PRESENT,
    SHELF_UNSUITABLE, /* looked at: this sample stays as it is */
};

/* Where a record is, with its header: to be read as a range of a file, then shelf_record(). */
struct shelf_place {
    const char *path; /* lives as long as the shelf */
    uint64_t offset_bytes, length_bytes;
    struct shelf_source source;
};
enum shelf_state shelf_find(struct shelf *shelf, uint64_t canonical, struct shelf_place *place);

/* What was read from a place: the record in it, or false if it is not that sample's. */
bool shelf_record(const struct shelf *shelf, uint64_t canonical, const struct shelf_place *place,
                  const uint8_t *bytes, size_t size_bytes, const uint8_t **record,
                  size_t *record_bytes);

/* Keep a record. 0, -EEXIST, -ENOSPC (the limit, or the disk: shelf_is_full() from now on) or
 * another -errno. */
int shelf_add(struct shelf *shelf, uint64_t canonical, const struct shelf_source *source,
              const uint8_t *record, size_t record_bytes);

void shelf_mark_unsuitable(struct shelf *shelf, uint64_t canonical,
                           const struct shelf_source *source);

/* The record proved wrong, or its file has changed: forget it. */
enum shelf_fault { SHELF_CORRUPT, SHELF_OUTDATED };
void shelf_drop(struct shelf *shelf, uint64_t canonical, enum shelf_fault fault);

bool shelf_is_full(struct shelf *shelf);

struct shelf_stats {
    uint64_t sample_count;
    uint64_t record_count, unsuitable_count;
    uint64_t record_bytes;                  /* of the records that count, headers included */
    uint64_t source_bytes;                  /* of the files they were made from, where known */
    uint64_t disk_bytes;                    /* journal, and records dropped since, included */
    uint64_t corrupt_count, outdated_count; /* since it was opened */
    bool is_full;
};
struct shelf_stats shelf_stats(struct shelf *shelf);

/* ---- All shelves -------------------------------------------------------------------------- */

struct prepared_stats {
    uint64_t limit_bytes, used_bytes;
    uint32_t shelf_count;
    uint64_t added_count, added_bytes, corrupt_count, outdated_count; /* since create */
};
struct prepared_stats prepared_stats(struct prepared *prepared);

/* Every shelf on the disk; false from the visitor ends it. */
struct shelf_entry {
    struct shelf_about about;
    struct shelf_stats stats; /* of a shelf that is not open: counted from its journal */
    bool is_open;
};
typedef bool (*shelf_visitor)(void *context, const struct shelf_entry *entry);
void prepared_list(struct prepared *prepared, shelf_visitor visit, void *context);

/* Remove a shelf; -EBUSY while it is open, -ENOENT. */
int prepared_remove(struct prepared *prepared, const uint8_t key[SHELF_KEY_BYTES]);

#endif /* PENSTOCK_LOADER_PREPARED_PREPARED_H */
