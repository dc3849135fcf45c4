/*
 * block_kernels.h - from the groups of a coefficient record to pixels: the inner loops, in plain C
 * and in variants for vector units. Every variant gives the same as its plain C twin
 * (tests/unit/test_block_kernels.c), and the twin the same as libjpeg-turbo.
 */
#ifndef PENSTOCK_DECODE_BLOCK_KERNELS_H
#define PENSTOCK_DECODE_BLOCK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/coefficient_format.h"
#include "decode/kernels.h"

enum {
    /* However wrong its content: a group's pieces are read within this many bytes of their
     * beginnings (words excepted, which are read back to the cursor of the escapes). */
    GROUP_REACH_BYTES = 1280,
    /* Blocks that idct() may read, and columns / 8 that it may write, beyond the last. */
    BLOCKS_BEYOND = 3,
    /* Bytes that the functions for rows may write beyond the last pixel, and read beyond the last
     * sample. */
    ROW_BEYOND_BYTES = 192,
};

/* A group's pieces (coefficient_format.h); expand() moves the cursors to where it has read. */
struct block_group {
    uint32_t count;    /* blocks, 1 to GROUP_BLOCKS */
    uint64_t sizes;    /* a nibble a block */
    const int16_t *dc; /* a coefficient a block */
    const uint8_t *masks, *nibbles, *escapes;
    const uint8_t *words; /* behind the first; goes down, never below `escapes` */
};

struct block_kernels {
    /* All blocks of the group, dequantised, modulo 2^16, in natural order, to blocks[0, 64 *
     * count). False if the group has what no group can have; the blocks are no good then. */
    bool (*expand)(struct block_group *group, const uint16_t quantisation[BLOCK_COEFFICIENTS],
                   int16_t *blocks);

    /* libjpeg's inverse DCT ISLOW of `count` blocks that stand side by side: 8 rows of 8 * count
     * samples. `blocks` is aligned to 64 bytes. */
    void (*idct)(const int16_t *blocks, uint32_t count, uint8_t *samples, size_t stride_bytes);

    /* libjpeg's fancy upsampling of `count` samples to 2 * count; samples -1 and `count` are read
     * and weigh as neighbours do. near: the row that the output lies in, far: the next to it. */
    void (*upsample_h2v1)(const uint8_t *samples, uint32_t count, uint8_t *target);
    void (*upsample_h2v2)(const uint8_t *near, const uint8_t *far, uint32_t count, uint8_t *target);

    /* `count` pixels from full rows of samples to RGB, as libjpeg does it. */
    void (*ycc_to_rgb)(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint32_t count,
                       uint8_t *rgb);
    void (*grey_to_rgb)(const uint8_t *y, uint32_t count, uint8_t *rgb);
};

/* The table of a level that kernels_detect() has returned or that is below it. */
const struct block_kernels *block_kernels_get(enum kernel_level level);

extern const struct block_kernels block_kernels_scalar;
#if defined(__x86_64__)
extern const struct block_kernels block_kernels_avx2;   /* AVX2, BMI1, BMI2 */
extern const struct block_kernels block_kernels_avx512; /* F, BW, DQ, VL, VBMI, VBMI2 */
#endif

/* The value that the escape at *escape stands for. False: a word that is not there. */
static inline bool block_escape(struct block_group *group, int16_t *value)
{
    *value = (int8_t)*group->escapes++;
    if (*value == INT8_MIN) {
        if (group->words - group->escapes < 2) {
            return false;
        }
        group->words -= 2;
        *value = (int16_t)get_u16(group->words);
    }
    return true;
}

/* Is a nibble of sizes above 8? */
static inline bool block_sizes_are_wrong(uint64_t sizes)
{
    const uint64_t eights = 0x8888888888888888u;
    return (sizes & eights & ((sizes & ~eights) + ~eights)) != 0;
}

#endif /* PENSTOCK_DECODE_BLOCK_KERNELS_H */
