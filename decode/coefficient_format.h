/*
 * coefficient_format.h - the layout of a coefficient record, and a checked view of one.
 *
 * All numbers are little-endian. A record is
 *     header      COEFFICIENT_HEADER_BYTES, then table_count quantisation tables of 64 u16 each,
 *                 in zigzag order
 *     index       one u32 a group
 *     sizes       STREAM_COUNT u32: the stored bytes of each stream
 *     streams     sizes, dc, masks, nibbles, escapes, one after another
 * Groups are the blocks of a component's block row, 16 at a time (fewer at its end), rows from top
 * to bottom, components one after another. In every stream the groups follow each other in this
 * order, and an entry of the index says how many bytes of each are the group's (GROUP_*). A stream
 * is stored as it is if its stored bytes are as many as the index says, else as one zstd frame.
 *
 * One block, its 63 AC coefficients in zigzag order:
 *     sizes       a nibble (the low one first): how many bytes of mask it has, 0 to 8
 *     masks       bit i of these bytes, counted from the lowest of the first: is coefficient
 *                 i + 1 not zero?
 *     nibbles     for each of those a nibble (low first): -8 to 7 as two's complement; 0: the
 *                 value is an escape. A block begins with a byte of its own.
 *     escapes     for each of those a signed byte; -128: the value is a word. The group's words
 *                 (i16) stand at the end of its piece, the first one last.
 *     dc          the first block's DC coefficient as i16, then for each block the difference from
 *                 the one before, as i8, or in groups with GROUP_IS_WIDE as u16, modulo 2^16
 */
#ifndef PENSTOCK_DECODE_COEFFICIENT_FORMAT_H
#define PENSTOCK_DECODE_COEFFICIENT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/coefficients.h"
#include "decode/image.h"
#include "decode/status.h"

enum {
    COEFFICIENT_MAGIC_BYTES = 8,
    COEFFICIENT_HEADER_BYTES = 48,
    BLOCK_COEFFICIENTS = 64,
    GROUP_BLOCKS = 16,
    COMPONENTS_MAX = 3,
    SAMPLING_MAX = 4,
};

/* Offsets in the header. */
enum {
    HEADER_CHECKSUM = 8, /* u64: XXH3 of all that follows it */
    HEADER_SIZE = 16,    /* u32: bytes of the record */
    HEADER_FORM = 20,    /* u8 */
    HEADER_COLOR = 21,   /* u8: enum coefficient_color */
    HEADER_COMPONENTS = 22,
    HEADER_TABLES = 23,
    HEADER_WIDTH = 24,   /* u32, pixels */
    HEADER_HEIGHT = 28,  /* u32 */
    HEADER_SAMPLING = 32 /* 4 u8 a component: horizontal, vertical factor, table, 0 */
};

enum coefficient_color { COEFFICIENT_GREY = 1, COEFFICIENT_YCC, COEFFICIENT_RGB };

enum coefficient_stream {
    STREAM_SIZES,
    STREAM_DC,
    STREAM_MASKS,
    STREAM_NIBBLES,
    STREAM_ESCAPES,
    STREAM_COUNT,
};

/* The parts of an index entry; the bytes of sizes and dc follow from the group's blocks. */
#define GROUP_MASK_BYTES(entry)   ((entry)&0xff)
#define GROUP_NIBBLE_BYTES(entry) ((entry) >> 8 & 0x3ff)
#define GROUP_ESCAPE_BYTES(entry) ((entry) >> 18 & 0xfff)
#define GROUP_IS_WIDE(entry)      ((entry) >> 30 & 1)
#define GROUP_ENTRY(masks, nibbles, escapes, wide)                                                 \
    ((uint32_t)(masks) | (uint32_t)(nibbles) << 8 | (uint32_t)(escapes) << 18 |                    \
     (uint32_t)(wide) << 30)

extern const uint8_t coefficient_magic[COEFFICIENT_MAGIC_BYTES];

/* Place of the k-th coefficient of the zigzag in a block of rows. */
extern const uint8_t coefficient_natural_order[BLOCK_COEFFICIENTS];

struct coefficient_component {
    uint8_t h, v;                              /* sampling factors */
    uint8_t table;                             /* which of the quantisation tables */
    uint32_t width_blocks, height_blocks;      /* those with pixels of the image in them */
    uint32_t width_samples, height_samples;    /* of the image; the rest of blocks is filling */
    uint32_t row_groups;                       /* groups of a block row */
    uint32_t first_group;                      /* of the index */
    uint16_t quantisation[BLOCK_COEFFICIENTS]; /* natural order */
};

/* What a header says. Plain values. */
struct coefficient_layout {
    enum coefficients_form form;
    enum coefficient_color color;
    uint32_t width_px, height_px;
    uint8_t component_count, table_count;
    uint8_t h_max, v_max; /* of the components */
    struct coefficient_component components[COMPONENTS_MAX];
    uint32_t group_count;
};

/* Fill what follows from size and sampling factors. False if there is no such image. */
bool coefficient_layout_complete(struct coefficient_layout *layout);

/* A record, borrowed, of which the header, the checksum and the extent of all parts were checked,
 * but not the streams' content. */
struct coefficient_view {
    struct coefficient_layout layout;
    const uint8_t *tables; /* the quantisation tables as they are stored */
    const uint8_t *index;
    const uint8_t *streams[STREAM_COUNT];
    size_t stored_bytes[STREAM_COUNT];
    size_t stream_bytes[STREAM_COUNT]; /* by the index; more than stored: a zstd frame */
};

enum decode_status coefficient_view_open(struct coefficient_view *view, const uint8_t *record,
                                         size_t record_bytes, struct decode_error *error);

/* The bytes of a group's piece in each stream. */
void coefficient_group_bytes(uint32_t entry, uint32_t block_count, size_t bytes[STREAM_COUNT]);

/* Blocks of group `group` of a block row. */
static inline uint32_t coefficient_group_blocks(const struct coefficient_component *component,
                                                uint32_t group)
{
    uint32_t left = component->width_blocks - group * GROUP_BLOCKS;
    return left < GROUP_BLOCKS ? left : GROUP_BLOCKS;
}

/* XXH3 of what follows a record's checksum. */
uint64_t coefficient_checksum(const uint8_t *record, size_t record_bytes);

static inline uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t get_u64(const uint8_t *at)
{
    return (uint64_t)get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

static inline void put_u16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, value);
    put_u16(at + 2, value >> 16);
}

static inline void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)value);
    put_u32(at + 4, (uint32_t)(value >> 32));
}

#endif /* PENSTOCK_DECODE_COEFFICIENT_FORMAT_H */
