/*
 * huffman.h - the Huffman-coded data of a baseline JPEG scan: bits in, quantised coefficients out.
 *
 * Four fifths of a JPEG's decode time goes here, so it is written for speed: 64 bits are kept
 * ready, and one look-up in a table of HUFFMAN_LOOK_BITS gives run, size and value of a
 * coefficient at once. Blocks whose pixels nobody wants are passed over by a second table that
 * takes several coefficients in a step.
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
    /* By the next HUFFMAN_LOOK_BITS bits: bits to drop | run << 8 | size << 12 | value << 16. A
     * size above 0: the value's bits follow those dropped. 0: the code is longer. */
    uint32_t look[1 << HUFFMAN_LOOK_BITS];
    /* For passing over: bits to drop | coefficients << 5 | HUFFMAN_SKIP_END; 0: the code is
     * longer. */
    uint16_t skip[1 << HUFFMAN_LOOK_BITS];
    /* For longer codes: the smallest code that is longer than each length, left-aligned to 16
     * bits, and the place of its symbols. */
    uint32_t limit[HUFFMAN_CODE_BITS_MAX + 2];
    int32_t offset[HUFFMAN_CODE_BITS_MAX + 1];
    bool is_made;
};

enum { HUFFMAN_SKIP_END = 1 << 12 };

/* Prepare `table` for `code` unless it is already; for coefficients (AC) or differences (DC).
 * False if the code is none: then the table may not be used. */
bool huffman_table_make(struct huffman_table *table, const struct huffman_code *code, bool is_ac);

/* The bits of one scan. `next` stands at the first byte that is not in `bits` yet. */
struct huffman_bits {
    uint64_t bits;       /* left-aligned: the next bit is the highest */
    int32_t count;       /* how many of them, made-up ones included */
    int32_t made_up;     /* zeros added behind a marker or the end; using them is odd */
    const uint8_t *next; /* at a marker's 0xff once that was reached */
    const uint8_t *end;
};

struct huffman_bits huffman_bits_begin(const uint8_t *bytes, const uint8_t *end);

/* Expect marker RST0 + number here, with less than a byte of padding before it, and go behind it.
 * False if it is not there. */
bool huffman_bits_restart(struct huffman_bits *bits, unsigned number);

/* Decode a block: `block` holds 64 zeros and receives the coefficients in natural order, not
 * dequantised; *dc is the running prediction of the component. False: odd. */
bool huffman_decode_block(struct huffman_bits *bits, const struct huffman_table *dc_table,
                          const struct huffman_table *ac_table, int32_t *dc, int16_t *block);

/* Pass over a block; only the prediction is kept. */
bool huffman_skip_block(struct huffman_bits *bits, const struct huffman_table *dc_table,
                        const struct huffman_table *ac_table, int32_t *dc);

#endif /* PENSTOCK_DECODE_HUFFMAN_H */
