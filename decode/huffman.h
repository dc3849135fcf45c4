/*
 * huffman.h - the Huffman-coded data of a baseline JPEG scan: bits in, quantised coefficients out.
 *
 * Four fifths of a JPEG's decode time goes here, and there one chain of dependent steps sets the
 * pace: look at the next bits, find the entry, drop as many bits as it says. So nothing else is
 * in that chain and hardly a branch is hard to predict: stuffed zeros are taken out beforehand,
 * bits are refilled without asking, a value is cut out beside the chain. Blocks whose pixels
 * nobody wants are passed over by a second table that takes several coefficients in a step.
 *
 * It decodes what is ordinary and gives up on anything odd (a code that does not exist, a
 * coefficient behind the last, a marker where none should be, too few bits). The caller then has
 * libjpeg-turbo decode the image, whose treatment of damage is the one that counts. What is decoded
 * before is what libjpeg-turbo decodes.
 *
 * Codes, zigzag order and sign extension are ITU-T T.81, figures A.6 and F.12 to F.16.
 */
#ifndef PENSTOCK_DECODE_HUFFMAN_H
#define PENSTOCK_DECODE_HUFFMAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HUFFMAN_LOOK_BITS = 11, HUFFMAN_SYMBOLS_MAX = 256, HUFFMAN_CODE_BITS_MAX = 16 };

/* A table as the DHT segment has it. */
struct huffman_code {
    uint8_t count[HUFFMAN_CODE_BITS_MAX + 1]; /* codes of each length; [0] is not used */
    uint8_t symbol[HUFFMAN_SYMBOLS_MAX];
};

/* The same prepared for decoding. Plain values. */
struct huffman_table {
    struct huffman_code code; /* what it was made from */
    /* By the next HUFFMAN_LOOK_BITS bits: bits of code and value | bits of the code << 8 |
     * size of the value << 12 | run << 16, where a run of 64 ends the block. 0: a longer code. */
    uint32_t look[1 << HUFFMAN_LOOK_BITS];
    /* For passing over: bits to drop | coefficients << 5 | HUFFMAN_SKIP_END; no bits to drop: a
     * longer code. */
    uint16_t skip[1 << HUFFMAN_LOOK_BITS];
    /* For longer codes: the smallest code that is longer than each length, left-aligned to 16
     * bits, and the place of its symbols. */
    uint32_t limit[HUFFMAN_CODE_BITS_MAX + 2];
    int32_t offset[HUFFMAN_CODE_BITS_MAX + 1];
    bool is_made;
};

enum { HUFFMAN_SKIP_END = 1 << 12 };

/* Prepare `table` for `code` unless it is already; for coefficients (AC) or differences (DC).
 * False if the code is none, or has values larger than 8-bit images have: then the table may not be
 * used. */
bool huffman_table_make(struct huffman_table *table, const struct huffman_code *code, bool is_ac);

/* Copy the data from `bytes` up to the next marker, or to `end`, without the zeros that are stuffed
 * behind 0xff, to `target`, and HUFFMAN_TAIL_BYTES zeros behind it. Returns how many bytes the data
 * has, at most end - bytes; *stop is where the marker begins. */
size_t huffman_clean(const uint8_t *bytes, const uint8_t *end, uint8_t *target,
                     const uint8_t **stop);

/* A block that runs into the zeros never looks further than this. */
enum { HUFFMAN_TAIL_BYTES = 512 };

/* Cleaned data up to a marker. */
struct huffman_bits {
    uint64_t bits;       /* left-aligned: the next bit is the highest */
    uint32_t count;      /* how many of them are counted as loaded */
    const uint8_t *next; /* the byte that is loaded next; may lie behind `end` */
    const uint8_t *end;
};

struct huffman_bits huffman_bits_begin(const uint8_t *clean, size_t size_bytes);

/* Bits not used yet; negative when more were used than there are. */
int64_t huffman_bits_left(const struct huffman_bits *bits);

/* Decode a block: `block` holds 64 zeros and receives the coefficients in natural order, not
 * dequantised; *dc is the running prediction of the component. False: odd, and *bits is of no
 * more use. */
bool huffman_decode_block(struct huffman_bits *bits, const struct huffman_table *dc_table,
                          const struct huffman_table *ac_table, int32_t *dc, int16_t *block);

/* Pass over a block; only the prediction is kept. */
bool huffman_skip_block(struct huffman_bits *bits, const struct huffman_table *dc_table,
                        const struct huffman_table *ac_table, int32_t *dc);

#endif /* PENSTOCK_DECODE_HUFFMAN_H */
