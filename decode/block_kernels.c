/* block_kernels.c - the twins in plain C, and the choice of a variant. */
#include "decode/block_kernels.h"

#include <string.h>

const struct block_kernels *block_kernels_get(enum kernel_level level)
{
    switch (level) {
#if defined(__x86_64__)
    case KERNEL_AVX512: return &block_kernels_avx512;
    case KERNEL_AVX2: return &block_kernels_avx2;
#else
    case KERNEL_AVX512:
    case KERNEL_AVX2:
#endif
    case KERNEL_NEON:
    case KERNEL_SCALAR: break;
    }
    return &block_kernels_scalar;
}

/* ---- expand ----------------------------------------------------------------------------------
 */

static bool expand_block(struct block_group *group, uint64_t mask, const uint16_t *quantisation,
                         int16_t *block)
{
    uint32_t taken = 0;
    for (; mask != 0; mask &= mask - 1, taken++) {
        uint32_t k = 1 + (uint32_t)__builtin_ctzll(mask);
        int16_t value = group->nibbles[taken / 2] >> (4 * (taken % 2)) & 15;
        value = (int16_t)((value ^ 8) - 8);
        if (value == 0 && !block_escape(group, &value)) {
            return false;
        }
        uint32_t place = coefficient_natural_order[k];
        block[place] = (int16_t)((uint32_t)value * quantisation[place]);
    }
    group->nibbles += (taken + 1) / 2;
    return true;
}

static bool expand(struct block_group *group, const uint16_t quantisation[BLOCK_COEFFICIENTS],
                   int16_t *blocks)
{
    if (block_sizes_are_wrong(group->sizes)) {
        return false;
    }
    memset(blocks, 0, sizeof(int16_t) * BLOCK_COEFFICIENTS * group->count);
    for (uint32_t i = 0; i < group->count; i++, blocks += BLOCK_COEFFICIENTS) {
        uint64_t mask = 0;
        uint32_t size = group->sizes >> (4 * i) & 15;
        for (uint32_t byte = 0; byte < size; byte++) {
            mask |= (uint64_t)*group->masks++ << (8 * byte);
        }
        if (mask >> 63 != 0 || !expand_block(group, mask, quantisation, blocks)) {
            return false;
        }
        blocks[0] = (int16_t)((uint32_t)group->dc[i] * quantisation[0]);
    }
    return true;
}

/* ---- idct ------------------------------------------------------------------------------------
 */

/* The algorithm is Loeffler, Ligtenberg and Moschytz's with 11 multiplications, scaled and rounded
 * as libjpeg's slow integer variant is; sums are kept to 16 bits where libjpeg-turbo's vector code
 * keeps them, and results saturated where it does, so that hopeless coefficients give the same. */
enum { CONST_BITS = 13, PASS1_BITS = 2 };

enum {
    FIX_0_298631336 = 2446,
    FIX_0_390180644 = 3196,
    FIX_0_541196100 = 4433,
    FIX_0_765366865 = 6270,
    FIX_0_899976223 = 7373,
    FIX_1_175875602 = 9633,
    FIX_1_501321110 = 12299,
    FIX_1_847759065 = 15137,
    FIX_1_961570560 = 16069,
    FIX_2_053119869 = 16819,
    FIX_2_562915447 = 20995,
    FIX_3_072711026 = 25172,
};

static int16_t wrap16(int32_t value)
{
    return (int16_t)(uint16_t)value;
}

/* (sum + half) >> bits, saturated to 16 bits; the sum is modulo 2^32. */
static int16_t descale(uint32_t sum, int bits)
{
    int32_t value = (int32_t)(sum + ((uint32_t)1 << (bits - 1))) >> bits;
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

/* a * x + b * y */
static uint32_t rotate(int16_t x, int32_t a, int16_t y, int32_t b)
{
    return (uint32_t)(x * a) + (uint32_t)(y * b);
}

static void idct_1d(const int16_t *in, size_t in_step, int16_t *out, size_t out_step, int bits)
{
    int16_t x[8];
    for (int i = 0; i < 8; i++) {
        x[i] = in[(size_t)i * in_step];
    }
    uint32_t even2 = rotate(x[2], FIX_0_541196100, x[6], FIX_0_541196100 - FIX_1_847759065);
    uint32_t even3 = rotate(x[2], FIX_0_541196100 + FIX_0_765366865, x[6], FIX_0_541196100);
    uint32_t even0 = (uint32_t)wrap16(x[0] + x[4]) << CONST_BITS;
    uint32_t even1 = (uint32_t)wrap16(x[0] - x[4]) << CONST_BITS;
    uint32_t even[4] = {even0 + even3, even1 + even2, even1 - even2, even0 - even3};

    int16_t z3 = wrap16(x[7] + x[3]), z4 = wrap16(x[5] + x[1]);
    uint32_t w3 = rotate(z3, FIX_1_175875602 - FIX_1_961570560, z4, FIX_1_175875602);
    uint32_t w4 = rotate(z3, FIX_1_175875602, z4, FIX_1_175875602 - FIX_0_390180644);
    uint32_t odd[4] = {
        w4 + rotate(x[7], -FIX_0_899976223, x[1], FIX_1_501321110 - FIX_0_899976223),
        w3 + rotate(x[5], -FIX_2_562915447, x[3], FIX_3_072711026 - FIX_2_562915447),
        w4 + rotate(x[5], FIX_2_053119869 - FIX_2_562915447, x[3], -FIX_2_562915447),
        w3 + rotate(x[7], FIX_0_298631336 - FIX_0_899976223, x[1], -FIX_0_899976223),
    };
    for (size_t i = 0; i < 4; i++) {
        out[i * out_step] = descale(even[i] + odd[i], bits);
        out[(7 - i) * out_step] = descale(even[i] - odd[i], bits);
    }
}

static void idct(const int16_t *blocks, uint32_t count, uint8_t *samples, size_t stride_bytes)
{
    for (uint32_t i = 0; i < count; i++, blocks += BLOCK_COEFFICIENTS, samples += 8) {
        int16_t between[BLOCK_COEFFICIENTS], result[8];
        for (size_t x = 0; x < 8; x++) {
            idct_1d(blocks + x, 8, between + x, 8, CONST_BITS - PASS1_BITS);
        }
        for (size_t y = 0; y < 8; y++) {
            idct_1d(between + 8 * y, 1, result, 1, CONST_BITS + PASS1_BITS + 3);
            for (size_t x = 0; x < 8; x++) {
                int value = result[x] < -128 ? -128 : result[x] > 127 ? 127 : result[x];
                samples[y * stride_bytes + x] = (uint8_t)(value + 128);
            }
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------
 */

static void upsample_h2v1(const uint8_t *samples, uint32_t count, uint8_t *target)
{
    for (int64_t i = 0; i < count; i++) {
        target[2 * i] = (uint8_t)((3 * samples[i] + samples[i - 1] + 1) >> 2);
        target[2 * i + 1] = (uint8_t)((3 * samples[i] + samples[i + 1] + 2) >> 2);
    }
}

static void upsample_h2v2(const uint8_t *near, const uint8_t *far, uint32_t count, uint8_t *target)
{
    int before = 3 * near[-1] + far[-1];
    int here = 3 * near[0] + far[0];
    for (uint32_t i = 0; i < count; i++) {
        int after = 3 * near[i + 1] + far[i + 1];
        target[2 * (size_t)i] = (uint8_t)((3 * here + before + 8) >> 4);
        target[2 * (size_t)i + 1] = (uint8_t)((3 * here + after + 7) >> 4);
        before = here;
        here = after;
    }
}

static uint8_t clip8(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* JFIF's conversion with 16 fractional bits; 1.402 = 91881 / 2^16 and so on. */
static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint32_t count,
                       uint8_t *rgb)
{
    for (uint32_t i = 0; i < count; i++, rgb += 3) {
        int blue = cb[i] - 128, red = cr[i] - 128;
        rgb[0] = clip8(y[i] + ((91881 * red + 32768) >> 16));
        rgb[1] = clip8(y[i] + ((-22554 * blue - 46802 * red + 32768) >> 16));
        rgb[2] = clip8(y[i] + ((116130 * blue + 32768) >> 16));
    }
}

static void grey_to_rgb(const uint8_t *y, uint32_t count, uint8_t *rgb)
{
    for (uint32_t i = 0; i < count; i++, rgb += 3) {
        rgb[0] = rgb[1] = rgb[2] = y[i];
    }
}

const struct block_kernels block_kernels_scalar = {
    .expand = expand,
    .idct = idct,
    .upsample_h2v1 = upsample_h2v1,
    .upsample_h2v2 = upsample_h2v2,
    .ycc_to_rgb = ycc_to_rgb,
    .grey_to_rgb = grey_to_rgb,
};
