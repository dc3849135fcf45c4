/*
 * shelf_journal.h - inside prepared/: the bytes of a shelf's journal.
 *
 *     journal_header (4096 bytes) | journal_entry ...
 *
 * Little-endian. The header is written once, under a temporary name; entries are appended. Reading
 * ends at the first entry whose checksum does not hold: what follows a torn write is not looked
 * at, and is cut off before anything is appended.
 */
#ifndef PENSTOCK_LOADER_PREPARED_SHELF_JOURNAL_H
#define PENSTOCK_LOADER_PREPARED_SHELF_JOURNAL_H

#include <assert.h>
#include <stdint.h>

#include "loader/prepared/prepared.h"

enum { JOURNAL_VERSION = 1, JOURNAL_HEADER_BYTES = 4096 };
#define JOURNAL_MAGIC "PSSHELF\x01"

struct journal_header {
    char magic[8];
    uint32_t version;
    uint32_t form;
    uint8_t key[SHELF_KEY_BYTES];
    uint64_t sample_count;
    char name[SHELF_NAME_BYTES];
    uint32_t crc32c; /* of what is before it */
    uint32_t reserved;
};
static_assert(sizeof(struct journal_header) <= JOURNAL_HEADER_BYTES, "journal header");

enum journal_kind {
    JOURNAL_RECORD = 1,
    JOURNAL_UNSUITABLE,
    JOURNAL_DROPPED,
};

struct journal_entry {
    uint64_t canonical;
    uint64_t pack;         /* in the pack's name; 0 but for records */
    uint64_t offset_bytes; /* of the record's header in the pack */
    uint64_t source_bytes;
    int64_t source_mtime_ns;
    uint32_t record_bytes; /* without header */
    uint16_t kind;         /* enum journal_kind */
    uint16_t reserved;
    uint32_t crc32c; /* of what is before it */
    uint32_t zero;
};
static_assert(sizeof(struct journal_entry) == 56, "journal entry");

/* Make FOLDER/journal for a new shelf. 0 or -errno. */
int journal_create(int folder_fd, const struct shelf_about *about);

/* The header, checked: 0, -ENOENT, -EBADMSG (damaged, or of another version), -errno. */
int journal_read_header(int fd, struct shelf_about *about);

/* Every good entry from the first on, to take(). The bytes up to where reading ended, header
 * included, or -errno. */
int64_t journal_read(int fd, void (*take)(void *context, const struct journal_entry *entry),
                     void *context);

/* Seals the entry and appends it. 0 or -errno. */
int journal_append(int fd, struct journal_entry *entry);

#endif /* PENSTOCK_LOADER_PREPARED_SHELF_JOURNAL_H */
