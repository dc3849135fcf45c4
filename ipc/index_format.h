/*
 * index_format.h - the bytes of an index file: which samples a data set has, and where they are.
 *
 *     index_header | shards | directories | classes | extensions | samples | members | objects |
 *     strings
 *
 * Written once by the daemon (loader/index.c), mapped read-only by it and by the Python client
 * (Dataset.targets and so on without copies). Sections are arrays of the structs below, aligned
 * to 8 bytes; strings are NUL-terminated, referred to by their byte offset in the strings section.
 * Little-endian. A change of any line raises INDEX_VERSION.
 */
#ifndef PENSTOCK_IPC_INDEX_FORMAT_H
#define PENSTOCK_IPC_INDEX_FORMAT_H

#include <assert.h>
#include <stdint.h>

enum { INDEX_VERSION = 2 };
#define INDEX_MAGIC "PSINDEX\x01"

enum index_kind { INDEX_FOLDER = 1, INDEX_TAR = 2 };

enum index_section {
    INDEX_SHARDS,      /* struct index_shard: tar files; a folder has one, its root */
    INDEX_DIRECTORIES, /* struct index_directory: folders only, every directory that was listed */
    INDEX_CLASSES,     /* uint64_t string offset, in order of class number; tars: none */
    INDEX_EXTENSIONS,  /* uint64_t string offset: "jpg", "cls", "seg.png", without first dot */
    INDEX_SAMPLES,     /* struct index_sample, in canonical order */
    INDEX_MEMBERS,     /* struct index_member: tars only */
    INDEX_OBJECTS,     /* struct index_object: remote folders only, one per sample */
    INDEX_STRINGS,     /* bytes */
    INDEX_SECTIONS
};

struct index_header {
    char magic[8];
    uint32_t version;
    uint32_t kind; /* enum index_kind */
    uint64_t file_bytes;
    uint64_t sample_count;
    uint64_t data_bytes; /* of all images; for folders estimated from a sample of the files */
    struct {
        uint64_t offset_bytes, bytes;
    } section[INDEX_SECTIONS];
    uint8_t fingerprint[16]; /* of the canonical list of names and sizes: identifies the data set
                                in saved states, whatever folder it lies in */
    uint64_t payload_xxh3;   /* XXH3-64 of all bytes after this header */
    uint64_t header_xxh3;    /* XXH3-64 of the header's bytes before this member */
};
static_assert(sizeof(struct index_header) == 200, "index header");

struct index_shard {
    uint64_t path; /* string: absolute, or a URL */
    uint64_t sample_first;
    uint64_t size_bytes; /* 0 for folders */
    int64_t mtime_ns;    /* or INDEX_MTIME_RACY; 0 for URLs */
    uint64_t tag;        /* string: which version of a remote tar was indexed; "" for files */
};

struct index_directory {
    uint64_t path; /* string: relative to the root, "" for the root itself */
    int64_t mtime_ns;
};

/* Instead of the modification time of something that changed less than 2 s before it was read: a
 * further change might leave the same time behind, so such an index is built again when it is
 * opened the next time. */
#define INDEX_MTIME_RACY INT64_MIN

enum { INDEX_NO_LABEL = -1 };

struct index_sample {
    uint64_t name;         /* string: folder: file name; tar: key */
    uint64_t member_first; /* tar: its fields are members[member_first .. + member_count) */
    uint32_t member_count; /* folder: 0, the file itself is the image */
    uint32_t place;        /* folder: directory number; tar: shard number */
    int64_t label;         /* folder: class number; tar: the integer in the member "cls", else
                              INDEX_NO_LABEL */
};
static_assert(sizeof(struct index_sample) == 32, "index sample");

struct index_member {
    uint64_t offset_bytes; /* of the data, in the shard */
    uint64_t size_bytes;
    uint32_t extension;
    uint32_t reserved;
};
static_assert(sizeof(struct index_member) == 24, "index member");

/* Longest tag of a version, with its NUL. */
enum { INDEX_TAG_BYTES = 192 };

/* The version of a remote folder's sample that was listed. */
struct index_object {
    uint64_t tag; /* string, never "" */
    uint64_t size_bytes;
};

#endif /* PENSTOCK_IPC_INDEX_FORMAT_H */
