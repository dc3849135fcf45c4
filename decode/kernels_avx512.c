/*
 * kernels_avx512.c - kernels for processors with AVX-512 F, BW, DQ, VL, VBMI and VNNI.
 *
 * The resize rests on vpdpbusd, which multiplies four unsigned bytes by four signed bytes and adds
 * the products to a 32-bit lane: four taps at once, straight from pixels, without widening. A
 * weight (24 bits with sign) is written in three digits of 8 signed bits,
 *     weight = high * 65536 + middle * 256 + low,   each digit in -128 .. 127,
 * each digit has a sum of its own, and ((high << 8) + middle << 8) + low joins the sums at the end.
 * All of it is integer arithmetic modulo 2^32 whose result fits, so it is exact.
 */
#include "decode/kernels_table.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    LOW,
    MIDDLE,
    HIGH,
    DIGITS,
    ROWS_AT_ONCE = 6, /* rows that share the preparation of weights in the dense columns pass */
    WIDE_ROWS_AT_ONCE = 4,                     /* the same in the wide columns pass */
    DENSE_REACH_MAX = (64 - 3 * TAP_GROUP) / 3 /* see resize_columns_dense() */
};

ALWAYS_INLINE uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The lowest `count` bits set; count is 0 .. 64. */
ALWAYS_INLINE uint64_t low_bits(uint64_t count)
{
    return _bzhi_u64(~(uint64_t)0, (uint32_t)count);
}

/* Four weights in each 128-bit lane to their digits: the first 32 bits of the lane get the four low
 * digits, the next the middle ones, the third the high ones. Adding 0x808080 carries what is above
 * 127 into the next digit; the exclusive or takes the added 128 back from each. */
ALWAYS_INLINE __m512i weights_to_digits(__m512i weights)
{
    const __m512i bias = _mm512_set1_epi32(0x808080);
    const __m512i transpose =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    weights = _mm512_xor_si512(_mm512_add_epi32(weights, bias), bias);
    return _mm512_shuffle_epi8(weights, transpose);
}

/* Add four taps for 16 outputs. */
ALWAYS_INLINE void add_taps(__m512i sums[DIGITS], __m512i pixels, const __m512i digits[DIGITS])
{
    for (int i = 0; i < DIGITS; i++) {
        sums[i] = _mm512_dpbusd_epi32(sums[i], pixels, digits[i]);
    }
}

ALWAYS_INLINE void clear_sums(__m512i sums[DIGITS])
{
    sums[LOW] = _mm512_set1_epi32(1 << (WEIGHT_BITS - 1)); /* rounds the final shift */
    sums[MIDDLE] = _mm512_setzero_si512();
    sums[HIGH] = _mm512_setzero_si512();
}

/* 16 results, not yet clipped to 0 .. 255. */
ALWAYS_INLINE __m512i join_sums(const __m512i sums[DIGITS])
{
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(sums[HIGH], 8), sums[MIDDLE]);
    sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), sums[LOW]);
    return _mm512_srai_epi32(sum, WEIGHT_BITS);
}

ALWAYS_INLINE __m128i clip_to_bytes(__m512i values)
{
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(values, _mm512_setzero_si512()));
}

/* ---- columns ---- */

/* How the 16 outputs of a block of the dense pass get their pixels and weights. */
struct dense_block {
    uint32_t pixel;     /* the block's first output value belongs to this output pixel */
    size_t offset;      /* where in a source row its window begins */
    __m512i pick;       /* bytes of the window: for each output value its first four taps */
    __m512i lane_pixel; /* output pixel of each 32-bit lane, counted from `pixel` */
};

/* Block number `block` holds bytes 16 * block to 16 * block + 15 of the output row. */
ALWAYS_INLINE struct dense_block dense_block(const struct resize_taps *taps, uint32_t block)
{
    const __m512i replicate = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const __m512i third = _mm512_set1_epi32(0x5556); /* x * 0x5556 >> 16 is x / 3 for small x */
    const __m512i tap_bytes = _mm512_set1_epi32(0x09060300);
    struct dense_block result;
    uint32_t phase = block % 3; /* 16 * block % 3: the channel of the first byte */
    result.pixel = (16 * block - phase) / 3;
    result.offset = 3 * (size_t)taps->first[result.pixel];

    __m512i value = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    value = _mm512_add_epi32(value, _mm512_set1_epi32((int)phase));
    result.lane_pixel = _mm512_srli_epi32(_mm512_mullo_epi32(value, third), 16);
    __m512i first =
        _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(taps->first + result.pixel)));
    first = _mm512_permutexvar_epi32(result.lane_pixel, first);
    first = _mm512_sub_epi32(first, _mm512_set1_epi32((int)taps->first[result.pixel]));
    /* Byte of the window = 3 * (first - first of the block) + channel, and
     * channel = value - 3 * lane_pixel. */
    __m512i pixel = _mm512_sub_epi32(first, result.lane_pixel);
    __m512i byte = _mm512_add_epi32(_mm512_add_epi32(pixel, _mm512_slli_epi32(pixel, 1)), value);
    result.pick = _mm512_add_epi8(_mm512_shuffle_epi8(byte, replicate), tap_bytes);
    return result;
}

/* Digits of the weights of tap group `group` for the 16 lanes of a block. */
ALWAYS_INLINE void dense_digits(const struct resize_taps *taps, const struct dense_block *block,
                                uint32_t group, __m512i digits[DIGITS])
{
    const int32_t *weights =
        taps->weights + ((size_t)group * taps->out_stride + block->pixel) * TAP_GROUP;
    __m512i low_pixels = weights_to_digits(_mm512_loadu_si512(weights));
    __m512i high_pixels = weights_to_digits(_mm512_loadu_si512(weights + 16));
    __m512i lane = _mm512_slli_epi32(block->lane_pixel, 2);
    for (int i = 0; i < DIGITS; i++) {
        digits[i] = _mm512_permutex2var_epi32(
            low_pixels, _mm512_add_epi32(lane, _mm512_set1_epi32(i)), high_pixels);
    }
}

/* The common case. A vector computes 16 consecutive bytes of the output row. They belong to at most
 * 6 pixels, and if those begin within DENSE_REACH_MAX positions of each other the taps of all lie
 * within one 64-byte window, from which one byte permute brings each lane its four taps. The next
 * four taps lie 12 bytes on, in the same order. Up to ROWS_AT_ONCE rows share the preparation; rows
 * missing from a full set are computed as copies of the last one. */
static void resize_columns_dense(const struct resize_taps *taps, const uint8_t *source,
                                 size_t source_stride_bytes, uint8_t *target,
                                 size_t target_stride_bytes, uint32_t row_count)
{
    uint32_t row_bytes = 3 * taps->out_count;
    const uint8_t *in[ROWS_AT_ONCE];
    uint8_t *out[ROWS_AT_ONCE];
    for (int i = 0; i < ROWS_AT_ONCE; i++) {
        uint32_t row = min_u32((uint32_t)i, row_count - 1);
        in[i] = source + row * source_stride_bytes;
        out[i] = target + row * target_stride_bytes;
    }
    for (uint32_t at = 0; at < row_bytes; at += 16) {
        struct dense_block block = dense_block(taps, at / 16);
        __m512i sums[ROWS_AT_ONCE][DIGITS];
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            clear_sums(sums[i]);
        }
        for (uint32_t group = 0; group < taps->group_count; group++) {
            __m512i digits[DIGITS];
            dense_digits(taps, &block, group, digits);
            for (int i = 0; i < ROWS_AT_ONCE; i++) {
                const uint8_t *window = in[i] + block.offset + 3 * TAP_GROUP * (size_t)group;
                add_taps(sums[i], _mm512_permutexvar_epi8(block.pick, _mm512_loadu_si512(window)),
                         digits);
            }
        }
        __mmask16 mask = (__mmask16)low_bits(min_u32(row_bytes - at, 16));
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            _mm_mask_storeu_epi8(out[i] + at, mask, clip_to_bytes(join_sums(sums[i])));
        }
    }
}

/* 16 bytes from each of four places. */
ALWAYS_INLINE __m512i load_four(const uint8_t *row, const uint32_t *first)
{
    __m128i a = _mm_loadu_si128((const __m128i *)(row + 3 * (size_t)first[0]));
    __m128i b = _mm_loadu_si128((const __m128i *)(row + 3 * (size_t)first[1]));
    __m128i c = _mm_loadu_si128((const __m128i *)(row + 3 * (size_t)first[2]));
    __m128i d = _mm_loadu_si128((const __m128i *)(row + 3 * (size_t)first[3]));
    __m256i ab = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    __m256i cd = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
}

/* Any scale: a vector computes four output pixels, each in a 128-bit lane that holds the sums of
 * red, green, blue and a fourth that is thrown away. Rows as in resize_columns_dense(). */
static void resize_columns_wide(const struct resize_taps *taps, const uint8_t *source,
                                size_t source_stride_bytes, uint8_t *target,
                                size_t target_stride_bytes, uint32_t row_count)
{
    const __m512i pick =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    const __m128i close_up = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    for (uint32_t x = 0; x < taps->out_count; x += 4) {
        __m512i sums[WIDE_ROWS_AT_ONCE][DIGITS];
        for (int i = 0; i < WIDE_ROWS_AT_ONCE; i++) {
            clear_sums(sums[i]);
        }
        for (size_t group = 0; group < taps->group_count; group++) {
            __m512i all = weights_to_digits(
                _mm512_loadu_si512(taps->weights + (group * taps->out_stride + x) * TAP_GROUP));
            const __m512i digits[DIGITS] = {_mm512_shuffle_epi32(all, _MM_PERM_AAAA),
                                            _mm512_shuffle_epi32(all, _MM_PERM_BBBB),
                                            _mm512_shuffle_epi32(all, _MM_PERM_CCCC)};
            for (int i = 0; i < WIDE_ROWS_AT_ONCE; i++) {
                const uint8_t *row = source +
                                     min_u32((uint32_t)i, row_count - 1) * source_stride_bytes +
                                     3 * TAP_GROUP * group;
                __m512i pixels = load_four(row, taps->first + x);
                add_taps(sums[i], _mm512_shuffle_epi8(pixels, pick), digits);
            }
        }
        __mmask16 mask = (__mmask16)low_bits(3 * min_u32(taps->out_count - x, 4));
        for (int i = 0; i < WIDE_ROWS_AT_ONCE; i++) {
            __m128i pixels = _mm_shuffle_epi8(clip_to_bytes(join_sums(sums[i])), close_up);
            _mm_mask_storeu_epi8(
                target + min_u32((uint32_t)i, row_count - 1) * target_stride_bytes + 3 * (size_t)x,
                mask, pixels);
        }
    }
}

static void resize_columns(const struct resize_taps *taps, const uint8_t *source,
                           size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                           uint32_t row_count)
{
    bool dense = taps->reach <= DENSE_REACH_MAX;
    uint32_t step = dense ? ROWS_AT_ONCE : WIDE_ROWS_AT_ONCE;
    for (uint32_t y = 0; y < row_count; y += step) {
        const uint8_t *in = source + y * source_stride_bytes;
        uint8_t *out = target + y * target_stride_bytes;
        if (dense) {
            resize_columns_dense(taps, in, source_stride_bytes, out, target_stride_bytes,
                                 row_count - y);
        } else {
            resize_columns_wide(taps, in, source_stride_bytes, out, target_stride_bytes,
                                row_count - y);
        }
    }
}

/* ---- rows ---- */

/* The four source rows of a tap group and the digits of their weights. Rows past the last one have
 * weight 0; the last one stands in for them. */
struct row_group {
    const uint8_t *rows[TAP_GROUP];
    __m512i digits[DIGITS];
};

ALWAYS_INLINE struct row_group row_group(const struct resize_taps *taps, uint32_t y, size_t group,
                                         const uint8_t *source, size_t source_stride_bytes)
{
    struct row_group result;
    uint32_t first = taps->first[y] + (uint32_t)group * TAP_GROUP;
    for (uint32_t i = 0; i < TAP_GROUP; i++) {
        result.rows[i] = source + min_u32(first + i, taps->in_count - 1) * source_stride_bytes;
    }
    const int32_t *weights = taps->weights + (group * taps->out_stride + y) * TAP_GROUP;
    __m512i all =
        weights_to_digits(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)weights)));
    result.digits[LOW] = _mm512_shuffle_epi32(all, _MM_PERM_AAAA);
    result.digits[MIDDLE] = _mm512_shuffle_epi32(all, _MM_PERM_BBBB);
    result.digits[HIGH] = _mm512_shuffle_epi32(all, _MM_PERM_CCCC);
    return result;
}

/* Add four rows for the 64 columns from `at`, of which `mask` exist. The bytes of the four rows are
 * interleaved within 128-bit lanes; sums[0] gets columns 0-3 of each lane, sums[1] 4-7, and so on,
 * which is the order that the packing at the end undoes. */
ALWAYS_INLINE void add_row_group(__m512i sums[4][DIGITS], const struct row_group *group,
                                 uint32_t at, __mmask64 mask)
{
    __m512i a = _mm512_maskz_loadu_epi8(mask, group->rows[0] + at);
    __m512i b = _mm512_maskz_loadu_epi8(mask, group->rows[1] + at);
    __m512i c = _mm512_maskz_loadu_epi8(mask, group->rows[2] + at);
    __m512i d = _mm512_maskz_loadu_epi8(mask, group->rows[3] + at);
    __m512i ab_low = _mm512_unpacklo_epi8(a, b);
    __m512i ab_high = _mm512_unpackhi_epi8(a, b);
    __m512i cd_low = _mm512_unpacklo_epi8(c, d);
    __m512i cd_high = _mm512_unpackhi_epi8(c, d);
    add_taps(sums[0], _mm512_unpacklo_epi16(ab_low, cd_low), group->digits);
    add_taps(sums[1], _mm512_unpackhi_epi16(ab_low, cd_low), group->digits);
    add_taps(sums[2], _mm512_unpacklo_epi16(ab_high, cd_high), group->digits);
    add_taps(sums[3], _mm512_unpackhi_epi16(ab_high, cd_high), group->digits);
}

static void resize_rows(const struct resize_taps *taps, const uint8_t *source,
                        size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                        uint32_t row_bytes)
{
    for (uint32_t y = 0; y < taps->out_count; y++, target += target_stride_bytes) {
        /* Mostly the first group is the only one: it is prepared once for the whole row. */
        struct row_group first = row_group(taps, y, 0, source, source_stride_bytes);
        for (uint32_t at = 0; at < row_bytes; at += 64) {
            __mmask64 mask = low_bits(min_u32(row_bytes - at, 64));
            __m512i sums[4][DIGITS];
            for (int i = 0; i < 4; i++) {
                clear_sums(sums[i]);
            }
            add_row_group(sums, &first, at, mask);
            for (size_t group = 1; group < taps->group_count; group++) {
                struct row_group next = row_group(taps, y, group, source, source_stride_bytes);
                add_row_group(sums, &next, at, mask);
            }
            __m512i low = _mm512_packs_epi32(join_sums(sums[0]), join_sums(sums[1]));
            __m512i high = _mm512_packs_epi32(join_sums(sums[2]), join_sums(sums[3]));
            _mm512_mask_storeu_epi8(target + at, mask, _mm512_packus_epi16(low, high));
        }
    }
}

/* ---- split and mirror ---- */

/* 64 pixels, fewer at the end of a row: the vectors hold 0 beyond them. */
struct rgb64 {
    __m512i bytes[3];
};

ALWAYS_INLINE struct rgb64 load_rgb64(const uint8_t *source, uint32_t pixel_count)
{
    struct rgb64 rgb;
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t begin = 64 * i;
        uint32_t end = 3 * pixel_count;
        __mmask64 mask = low_bits(end > begin ? min_u32(end - begin, 64) : 0);
        rgb.bytes[i] = _mm512_maskz_loadu_epi8(mask, source + begin);
    }
    return rgb;
}

/* Byte index[i] of the 192, for each lane i. The permutes look at the low bits of an index only;
 * its top bit, set from 128 on, says whether the third vector is meant. */
ALWAYS_INLINE __m512i pick_bytes(const struct rgb64 *rgb, __m512i index)
{
    __m512i low = _mm512_permutex2var_epi8(rgb->bytes[0], index, rgb->bytes[1]);
    return _mm512_mask_permutexvar_epi8(low, _mm512_movepi8_mask(index), index, rgb->bytes[2]);
}

/* 0, 1, 2, .. 63 */
ALWAYS_INLINE __m512i lane_numbers(void)
{
    __m512i quarter =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m512i base =
        _mm512_set_epi64(0x3030303030303030, 0x3030303030303030, 0x2020202020202020,
                         0x2020202020202020, 0x1010101010101010, 0x1010101010101010, 0, 0);
    return _mm512_add_epi8(quarter, base);
}

static void split_rgb(const uint8_t *source, uint32_t count, bool mirror, uint8_t *red,
                      uint8_t *green, uint8_t *blue)
{
    const __m512i one = _mm512_set1_epi8(1);
    const __m512i lane = lane_numbers();
    const __m512i triple = _mm512_add_epi8(lane, _mm512_add_epi8(lane, lane));
    for (uint32_t at = 0; at < count; at += 64) {
        uint32_t pixels = min_u32(count - at, 64);
        struct rgb64 rgb = load_rgb64(source + 3 * (size_t)at, pixels);
        __m512i index = triple;
        if (mirror) { /* lane i takes pixel pixels - 1 - i */
            index = _mm512_sub_epi8(_mm512_set1_epi8((char)(3 * (pixels - 1))), triple);
        }
        size_t to = mirror ? count - at - pixels : at;
        __mmask64 mask = low_bits(pixels);
        _mm512_mask_storeu_epi8(red + to, mask, pick_bytes(&rgb, index));
        index = _mm512_add_epi8(index, one);
        _mm512_mask_storeu_epi8(green + to, mask, pick_bytes(&rgb, index));
        index = _mm512_add_epi8(index, one);
        _mm512_mask_storeu_epi8(blue + to, mask, pick_bytes(&rgb, index));
    }
}

static void mirror_rgb(const uint8_t *source, uint32_t count, uint8_t *target)
{
    /* Byte i of the result is channel i % 3 of pixel last - i / 3, that is byte
     * 3 * last - i + 2 * (i % 3) of the source. */
    uint8_t offsets[192];
    for (unsigned i = 0; i < 192; i++) {
        offsets[i] = (uint8_t)(2 * (i % 3) - i);
    }
    for (uint32_t at = 0; at < count; at += 64) {
        uint32_t pixels = min_u32(count - at, 64);
        struct rgb64 rgb = load_rgb64(source + 3 * (size_t)at, pixels);
        uint8_t *to = target + 3 * (size_t)(count - at - pixels);
        __m512i last = _mm512_set1_epi8((char)(3 * (pixels - 1)));
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t begin = 64 * i;
            uint32_t end = 3 * pixels;
            __mmask64 mask = low_bits(end > begin ? min_u32(end - begin, 64) : 0);
            __m512i index = _mm512_add_epi8(last, _mm512_loadu_si512(offsets + begin));
            _mm512_mask_storeu_epi8(to + begin, mask, pick_bytes(&rgb, index));
        }
    }
}

/* ---- conversion ---- */

enum target_type { TYPE_F32, TYPE_F16, TYPE_BF16 };

ALWAYS_INLINE void store_values(__m512 values, enum target_type type, void *target, size_t at,
                                __mmask16 mask)
{
    if (type == TYPE_F32) {
        _mm512_mask_storeu_ps((float *)target + at, mask, values);
        return;
    }
    __m256i halves;
    if (type == TYPE_F16) {
        halves = _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else { /* the upper half of the bits, rounded to nearest, ties to even */
        __m512i bits = _mm512_castps_si512(values);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
    }
    _mm256_mask_storeu_epi16((uint16_t *)target + at, mask, halves);
}

ALWAYS_INLINE void convert(const struct pack_constants *constants, const uint8_t *source,
                           size_t count, enum target_type type, void *target)
{
    const __m512 scale = _mm512_set1_ps(constants->scale);
    for (size_t at = 0; at < count; at += 16) {
        size_t lane = at % PACK_PATTERN_SIZE;
        __mmask16 mask = (__mmask16)low_bits(count - at < 16 ? count - at : 16);
        __m512i pixels = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, source + at));
        __m512 values = _mm512_mul_ps(_mm512_cvtepi32_ps(pixels), scale);
        if (constants->normalize) {
            values = _mm512_sub_ps(values, _mm512_loadu_ps(constants->mean + lane));
            values = _mm512_div_ps(values, _mm512_loadu_ps(constants->std + lane));
        }
        store_values(values, type, target, at, mask);
    }
}

static void convert_f32(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        float *target)
{
    convert(constants, source, count, TYPE_F32, target);
}

static void convert_f16(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        uint16_t *target)
{
    convert(constants, source, count, TYPE_F16, target);
}

static void convert_bf16(const struct pack_constants *constants, const uint8_t *source,
                         size_t count, uint16_t *target)
{
    convert(constants, source, count, TYPE_BF16, target);
}

const struct kernels kernels_avx512 = {
    .resize_columns = resize_columns,
    .resize_rows = resize_rows,
    .split_rgb = split_rgb,
    .mirror_rgb = mirror_rgb,
    .convert_f32 = convert_f32,
    .convert_f16 = convert_f16,
    .convert_bf16 = convert_bf16,
};
