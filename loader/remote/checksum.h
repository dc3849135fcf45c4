/*
 * checksum.h - the checksums that S3 keeps with objects: x-amz-checksum-*, in base64.
 *
 * Pure; any thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_CHECKSUM_H
#define PENSTOCK_LOADER_REMOTE_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In order of preference: what is as good and cheaper comes later. */
enum checksum_kind {
    CHECKSUM_NONE = 0,
    CHECKSUM_SHA1,
    CHECKSUM_SHA256,
    CHECKSUM_CRC64NVME,
    CHECKSUM_CRC32,
    CHECKSUM_CRC32C,
};

struct checksum {
    enum checksum_kind kind;
    uint8_t bytes[32]; /* big-endian, as sent */
    size_t length;
};

/* The kind by the end of its header's name ("crc32c"); NONE: unknown. */
enum checksum_kind checksum_kind_find(const char *name, size_t length);

/* False when `text` is not the base64 of a checksum of this kind. */
bool checksum_parse(enum checksum_kind kind, const char *text, size_t length,
                    struct checksum *checksum);

/* Whether `data` has this checksum. True for NONE. */
bool checksum_holds(const struct checksum *checksum, const uint8_t *data, size_t size_bytes);

#endif /* PENSTOCK_LOADER_REMOTE_CHECKSUM_H */
