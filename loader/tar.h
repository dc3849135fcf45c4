/*
 * tar.h - reads the headers of a tar archive: ustar, pax, GNU long names and large sizes, V7.
 *
 * Pure: it never reads a file. It says which bytes it wants, gets them, and says what they were:
 *
 *     while (tar_want(&tar, &offset, &length))
 *         switch (tar_feed(&tar, bytes, &member, &problem)) ...
 *
 * so the data of members need not be read at all. Bytes are hostile: every size, offset, checksum
 * and name is checked, memory is bounded by TAR_EXTENDED_BYTES_MAX.
 *
 * What is refused (TAR_BAD): a wrong checksum, negative or unreadable sizes, members that reach
 * past the end of the file, absolute names and names with "..", sparse members, anything but zeros
 * right after the end of the archive. What is accepted: a missing end of archive (two zero blocks)
 * after a whole member with its padding; `is_end_missing` tells.
 */
#ifndef PENSTOCK_LOADER_TAR_H
#define PENSTOCK_LOADER_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TAR_BLOCK_BYTES = 512,
    TAR_NAME_BYTES = 4096,            /* longest name, with its NUL */
    TAR_EXTENDED_BYTES_MAX = 1 << 20, /* of one pax header or long name */
};

struct tar_member {
    char name[TAR_NAME_BYTES];
    uint64_t header_offset_bytes; /* of its first header, pax headers included */
    uint64_t data_offset_bytes;
    uint64_t size_bytes;
    bool is_file; /* else a directory, link, device or something unknown: no data to use */
};

enum tar_result {
    TAR_MORE,   /* nothing yet: ask tar_want() again */
    TAR_MEMBER, /* *member is filled */
    TAR_BAD,    /* *problem is filled; the archive cannot be read further */
};

struct tar_problem {
    uint64_t offset_bytes; /* of the header at fault */
    const char *text;      /* "its checksum is wrong"; a constant */
};

/* Values that pax headers or long-name members set for the member that follows. */
struct tar_overrides {
    bool has_name, has_size;
    uint64_t size_bytes;
    char name[TAR_NAME_BYTES];
};

/* Private to tar.c, but for is_end_missing once tar_want() has returned false. */
struct tar {
    uint64_t archive_bytes;
    uint64_t at_bytes;     /* where the wanted bytes start */
    uint64_t length_bytes; /* how many */
    uint64_t record_offset_bytes;
    enum tar_state {
        TAR_HEADER,
        TAR_PAX,
        TAR_PAX_GLOBAL,
        TAR_LONG_NAME,
        TAR_TAIL,
        TAR_ENDED
    } state;
    bool is_end_missing;
    struct tar_overrides local, global;
};

/* An archive of archive_bytes, from its start. */
void tar_init(struct tar *tar, uint64_t archive_bytes);

/* The next bytes wanted: 1 <= *length_bytes <= TAR_EXTENDED_BYTES_MAX, all inside the archive.
 * False at the end, or after TAR_BAD. */
bool tar_want(const struct tar *tar, uint64_t *offset_bytes, size_t *length_bytes);

/* Give them. */
enum tar_result tar_feed(struct tar *tar, const uint8_t *bytes, struct tar_member *member,
                         struct tar_problem *problem);

#endif /* PENSTOCK_LOADER_TAR_H */
