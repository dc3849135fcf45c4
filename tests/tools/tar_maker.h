/*
 * tar_maker.h - writes tar archives block by block into memory, well-formed or not, for tests.
 */
#ifndef PENSTOCK_TESTS_TAR_MAKER_H
#define PENSTOCK_TESTS_TAR_MAKER_H

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAKER_BLOCK_BYTES = 512 };

/* Zero is empty; the bytes are malloc'd. */
struct tar_maker {
    uint8_t *bytes;
    size_t size_bytes;
};

/* Zeroed bytes at the end. The returned pointer holds until the next call. */
static inline uint8_t *maker_grow(struct tar_maker *maker, size_t size_bytes)
{
    uint8_t *grown = realloc(maker->bytes, maker->size_bytes + size_bytes + 1);
    assert(grown != NULL);
    maker->bytes = grown;
    uint8_t *room = grown + maker->size_bytes;
    memset(room, 0, size_bytes);
    maker->size_bytes += size_bytes;
    return room;
}

static inline void maker_clear(struct tar_maker *maker)
{
    free(maker->bytes);
    *maker = (struct tar_maker){0};
}

/* Set the checksum of the header at offset `at`, after its fields were changed. */
static inline void maker_sum(struct tar_maker *maker, size_t at)
{
    uint8_t *block = maker->bytes + at;
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < MAKER_BLOCK_BYTES; i++) {
        sum += block[i];
    }
    snprintf((char *)block + 148, 8, "%06o", sum);
}

/* A ustar header; returns its offset. Longer names are cut. */
static inline size_t maker_header(struct tar_maker *maker, const char *name, char type,
                                  uint64_t size_bytes)
{
    size_t at = maker->size_bytes;
    uint8_t *block = maker_grow(maker, MAKER_BLOCK_BYTES);
    size_t length = strlen(name);
    memcpy(block, name, length < 100 ? length : 100);
    memcpy(block + 100, "0000644", 8);
    char digits[32];
    snprintf(digits, sizeof digits, "%011llo", (unsigned long long)size_bytes);
    memcpy(block + 124, digits, 11);
    memcpy(block + 136, "00000000000", 12);
    block[156] = (uint8_t)type;
    memcpy(block + 257, "ustar\00000", 8);
    maker_sum(maker, at);
    return at;
}

/* Data with its padding. */
static inline void maker_data(struct tar_maker *maker, const void *data, size_t size_bytes)
{
    size_t padded = (size_bytes + MAKER_BLOCK_BYTES - 1) / MAKER_BLOCK_BYTES * MAKER_BLOCK_BYTES;
    uint8_t *room = maker_grow(maker, padded);
    if (size_bytes > 0) {
        memcpy(room, data, size_bytes);
    }
}

static inline void maker_file(struct tar_maker *maker, const char *name, const char *text)
{
    maker_header(maker, name, '0', strlen(text));
    maker_data(maker, text, strlen(text));
}

/* A header that describes the next member: pax ('x', 'g') or a GNU long name ('L'). */
static inline void maker_extended(struct tar_maker *maker, char type, const void *data,
                                  size_t size_bytes)
{
    maker_header(maker, "extended", type, size_bytes);
    maker_data(maker, data, size_bytes);
}

/* One pax record "LENGTH keyword=value\n"; returns its length. */
static inline size_t maker_pax_record(char *record, size_t record_bytes, const char *keyword,
                                      const char *value)
{
    size_t body = strlen(keyword) + strlen(value) + 3;
    size_t digits = body + 1 < 10 ? 1 : body + 2 < 100 ? 2 : body + 3 < 1000 ? 3 : 4;
    int length = snprintf(record, record_bytes, "%zu %s=%s\n", body + digits, keyword, value);
    assert((size_t)length == body + digits && (size_t)length < record_bytes);
    return (size_t)length;
}

/* Two zero blocks. */
static inline void maker_end(struct tar_maker *maker)
{
    maker_grow(maker, 2 * (size_t)MAKER_BLOCK_BYTES);
}

static inline void maker_save(const struct tar_maker *maker, const char *path)
{
    FILE *file = fopen(path, "wb");
    assert(file != NULL);
    size_t written = fwrite(maker->bytes, 1, maker->size_bytes, file);
    int closed = fclose(file);
    assert(written == maker->size_bytes && closed == 0);
}

#endif /* PENSTOCK_TESTS_TAR_MAKER_H */
