/*
 * kernels_table.h - what a kernel variant provides. Internal to decode/: resize.c and pack.c call
 * through this table, the kernels_*.c files fill one each.
 */
#ifndef PENSTOCK_DECODE_KERNELS_TABLE_H
#define PENSTOCK_DECODE_KERNELS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WEIGHT_BITS = 22,      /* fractional bits of a resize weight */
    TAP_GROUP = 4,         /* weights are stored and applied four at a time */
    RESIZE_PADDING = 8,    /* entries of first[] and of each weight group past out_count */
    PACK_PATTERN_SIZE = 48 /* values after which the channel pattern of a row repeats: a multiple of
                              3 channels and of 16 lanes */
};

/* Weights of one axis as the kernels read them. Output x is
 *     sum over g, i of input[first[x] + 4g + i] * weights[(g * out_stride + x) * 4 + i].
 * Weights lie below 2^23 in magnitude, and so that no sum of theirs with pixels leaves int32.
 * Weights that pad a group are 0; their positions may lie up to 3 past in_count (and only then
 * when in_count < 4 * group_count). first[] never decreases; its padding repeats the last entry,
 * and the padding of weights is 0. */
struct resize_taps {
    const uint32_t *first; /* counted from the first input position that the axis needs */
    const int32_t *weights;
    uint32_t out_count;
    uint32_t out_stride; /* out_count + RESIZE_PADDING */
    uint32_t group_count;
    uint32_t in_count;
    uint32_t reach; /* the most by which first[x + 5] exceeds first[x] */
};

/* Constants of value = (pixel * scale - mean) / std. Lane i of a run of values uses mean[i % 48]
 * and std[i % 48], which serves planes (48 equal constants) and interleaved RGB alike. */
struct pack_constants {
    bool normalize; /* false: mean and std are not used */
    float scale;
    float mean[PACK_PATTERN_SIZE];
    float std[PACK_PATTERN_SIZE];
};

/* All counts may be 0. Nothing is written beyond what the counts say. */
struct kernels {
    /* Rows of RGB pixels to rows of out_count pixels; reads up to 64 bytes past a source row. */
    void (*resize_columns)(const struct resize_taps *taps, const uint8_t *source,
                           size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                           uint32_t row_count);

    /* out_count rows of row_bytes bytes; reads rows [0, in_count) only, and only row_bytes each. */
    void (*resize_rows)(const struct resize_taps *taps, const uint8_t *source,
                        size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                        uint32_t row_bytes);

    /* RGB pixels to three planes of `count` bytes; with mirror the last pixel comes first. */
    void (*split_rgb)(const uint8_t *source, uint32_t count, bool mirror, uint8_t *red,
                      uint8_t *green, uint8_t *blue);

    /* RGB pixels in reverse order. */
    void (*mirror_rgb)(const uint8_t *source, uint32_t count, uint8_t *target);

    /* Bytes to values; halves and bfloat16 as their bit patterns. */
    void (*convert_f32)(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        float *target);
    void (*convert_f16)(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        uint16_t *target);
    void (*convert_bf16)(const struct pack_constants *constants, const uint8_t *source,
                         size_t count, uint16_t *target);
};

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;   /* AVX2, F16C, BMI1, BMI2 */
extern const struct kernels kernels_avx512; /* F, BW, DQ, VL, VBMI, VBMI2, VNNI */
#elif defined(__aarch64__)
extern const struct kernels kernels_neon;
#endif

#endif /* PENSTOCK_DECODE_KERNELS_TABLE_H */
