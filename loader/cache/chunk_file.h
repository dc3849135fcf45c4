/*
 * chunk_file.h - one chunk of a remote object as a file of the cache folder.
 *
 *     header_bytes  struct chunk_header, CRC-32C of each 64 KiB block of the data, URL, tag; zeros
 *     data          rounded up to 4 KiB with zeros
 *
 * A file appears whole under its name or not at all, and is never changed afterwards. Nothing is
 * synced: what a crash of the machine leaves behind is found out by its checksums, which cover
 * every byte that is used. Header and data are written and read with O_DIRECT where that works.
 *
 * Names tell what the start of a daemon needs to know, without opening the file:
 *     KK/KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK-NNNNNNNN-T-BBBBBBBB
 * key (hash of URL, tag, object size and chunk size), chunk number, kind, file size; all in hex.
 *
 * Threads: none here; a struct chunk_file may be read from several.
 */
#ifndef PENSTOCK_LOADER_CACHE_CHUNK_FILE_H
#define PENSTOCK_LOADER_CACHE_CHUNK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/source_engine.h"

enum {
    CHUNK_BLOCK_BYTES = 64 << 10,
    CHUNK_KEY_BYTES = 16,
    CHUNK_NAME_BYTES = 64,             /* with NUL */
    CHUNK_DATA_BYTES_MAX = 64 << 20,   /* of one file */
    CHUNK_HEADER_BYTES_MAX = 16 << 10, /* longer URLs are not cached */
    CHUNK_ALIGNMENT_BYTES = 4096,
};

enum chunk_kind {
    CHUNK_OBJECT = 1, /* bytes of the object as they are */
    CHUNK_KINDS,
};

/* What a chunk file is of. */
struct chunk_identity {
    uint8_t key[CHUNK_KEY_BYTES];
    enum chunk_kind kind;
    uint32_t number;
    uint64_t object_bytes;
    uint32_t chunk_bytes; /* of the chunks but the last */
    uint32_t data_bytes;  /* of this one */
    const char *url, *tag;
};

/* How many bytes such a file takes; 0 when the texts are too long for one. */
uint32_t chunk_file_bytes(const struct chunk_identity *identity);

/* A name and back. False for a name of any other form. */
struct chunk_name {
    uint8_t key[CHUNK_KEY_BYTES];
    enum chunk_kind kind;
    uint32_t number, file_bytes;
};
void chunk_name_format(const struct chunk_name *name, char text[CHUNK_NAME_BYTES]);
/* `text` is the part after the sub-folder. */
bool chunk_name_parse(const char *text, struct chunk_name *name);

/* Write a file under `name` in the folder, in the place of an older one. The data is aligned and
 * has room for zeros up to a multiple of 4 KiB (they are written there). 0 or an errno, and then
 * nothing remains. */
int chunk_file_write(int folder_fd, const char *name, const struct chunk_identity *identity,
                     int64_t fetched_s, uint8_t *data);

/* An open file whose header held. */
struct chunk_file {
    struct read_file file;
    uint32_t header_bytes, data_bytes;
    int64_t fetched_s;   /* Unix time */
    uint32_t user_count; /* the owner's */
    uint32_t block_crcs[];
};

/* 0 with a new *file; EBADMSG when it is not the file of that identity, whole and unharmed; or
 * another errno. */
int chunk_file_open(int folder_fd, const char *name, const struct chunk_identity *identity,
                    struct chunk_file **file);
void chunk_file_close(struct chunk_file *file); /* NULL is accepted */

/* Does `size_bytes` of data from the start of a block on match the checksums? The end is the end
 * of a block or of the data. */
bool chunk_file_check(const struct chunk_file *file, uint32_t first_block, const uint8_t *bytes,
                      uint32_t size_bytes);

/* What an unknown file is of, by its checked header. The texts lie in `room`. 0, EBADMSG or
 * another errno. */
struct chunk_header_room {
    _Alignas(CHUNK_ALIGNMENT_BYTES) uint8_t bytes[CHUNK_HEADER_BYTES_MAX];
};
int chunk_file_identify(int folder_fd, const char *name, struct chunk_identity *identity,
                        int64_t *fetched_s, struct chunk_header_room *room);

#endif /* PENSTOCK_LOADER_CACHE_CHUNK_FILE_H */
