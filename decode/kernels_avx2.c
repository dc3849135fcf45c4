/*
 * kernels_avx2.c - kernels for processors with AVX2 and F16C.
 *
 * The resize rests on vpmaddwd, which multiplies signed 16-bit numbers and adds neighbouring
 * products into 32 bits: two taps at once. A weight (24 bits with sign) does not fit 16 bits, so it
 * is split in weight = high * 2^11 + low with low in 0 .. 2047; the two parts have sums of their
 * own, and (high << 11) + low joins them at the end. All of it is integer arithmetic modulo 2^32
 * whose result fits, so it is exact.
 */
#include "decode/kernels_table.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    LOW,
    HIGH,
    PARTS,
    LOW_BITS = 11,
    ROWS_AT_ONCE = 4 /* rows that share the preparation of weights in the columns pass */
};

ALWAYS_INLINE uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A group of four weights as factors of vpmaddwd: pairs[part][0] for taps 0 and 1, [1] for 2 and 3.
 * Each 128-bit lane may serve another output. */
struct factors {
    __m256i pairs[PARTS][2];
};

ALWAYS_INLINE struct factors split_weights(__m256i weights)
{
    struct factors result;
    __m256i low = _mm256_and_si256(weights, _mm256_set1_epi32((1 << LOW_BITS) - 1));
    __m256i high = _mm256_srai_epi32(weights, LOW_BITS);
    __m256i both = _mm256_packs_epi32(low, high); /* per lane: four low parts, four high parts */
    result.pairs[LOW][0] = _mm256_shuffle_epi32(both, 0x00);
    result.pairs[LOW][1] = _mm256_shuffle_epi32(both, 0x55);
    result.pairs[HIGH][0] = _mm256_shuffle_epi32(both, 0xaa);
    result.pairs[HIGH][1] = _mm256_shuffle_epi32(both, 0xff);
    return result;
}

/* Add a pair of taps for 8 outputs; `pixels` holds them as 16-bit neighbours. */
ALWAYS_INLINE void add_pair(__m256i sums[PARTS], __m256i pixels, const struct factors *factors,
                            int pair)
{
    for (int part = 0; part < PARTS; part++) {
        sums[part] =
            _mm256_add_epi32(sums[part], _mm256_madd_epi16(pixels, factors->pairs[part][pair]));
    }
}

ALWAYS_INLINE void clear_sums(__m256i sums[PARTS])
{
    sums[LOW] = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1)); /* rounds the final shift */
    sums[HIGH] = _mm256_setzero_si256();
}

/* 8 results, not yet clipped to 0 .. 255. */
ALWAYS_INLINE __m256i join_sums(const __m256i sums[PARTS])
{
    __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(sums[HIGH], LOW_BITS), sums[LOW]);
    return _mm256_srai_epi32(sum, WEIGHT_BITS);
}

/* Four vectors of results to bytes: per 128-bit lane 4 bytes of each vector, in order. */
ALWAYS_INLINE __m256i clip_to_bytes(__m256i a, __m256i b, __m256i c, __m256i d)
{
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}

/* ---- columns ---- */

/* Pixels x and x + 1 of ROWS_AT_ONCE rows, each pixel in the low three bytes of an element. One
 * 128-bit lane serves each of the two: it holds the sums of red, green, blue and a fourth that is
 * thrown away. */
ALWAYS_INLINE void column_pair(const struct resize_taps *taps, uint32_t x,
                               const uint8_t *const in[ROWS_AT_ONCE],
                               int32_t pixels[2][ROWS_AT_ONCE])
{
    const __m256i pick01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i pick23 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const int32_t *weights = taps->weights + (size_t)x * TAP_GROUP;
    size_t left = 3 * (size_t)taps->first[x];
    size_t right = 3 * (size_t)taps->first[x + 1];
    __m256i sums[ROWS_AT_ONCE][PARTS];
    for (int i = 0; i < ROWS_AT_ONCE; i++) {
        clear_sums(sums[i]);
    }
    uint32_t group = 0;
    do { /* mostly once, which the compiler does better by if it sees that it is not zero times */
        struct factors factors = split_weights(_mm256_loadu_si256((const __m256i *)weights));
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            __m256i bytes = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(in[i] + left))),
                _mm_loadu_si128((const __m128i *)(in[i] + right)), 1);
            add_pair(sums[i], _mm256_shuffle_epi8(bytes, pick01), &factors, 0);
            add_pair(sums[i], _mm256_shuffle_epi8(bytes, pick23), &factors, 1);
        }
        weights += (size_t)taps->out_stride * TAP_GROUP;
        left += 3 * TAP_GROUP;
        right += 3 * TAP_GROUP;
    } while (++group < taps->group_count);
    _mm256_storeu_si256((__m256i *)pixels, clip_to_bytes(join_sums(sums[0]), join_sums(sums[1]),
                                                         join_sums(sums[2]), join_sums(sums[3])));
}

/* Up to ROWS_AT_ONCE rows, which share the preparation of weights. Rows missing from a full set are
 * computed as copies of the last one. */
static void resize_columns_some(const struct resize_taps *taps, const uint8_t *source,
                                size_t source_stride_bytes, uint8_t *target,
                                size_t target_stride_bytes, uint32_t row_count)
{
    const uint8_t *in[ROWS_AT_ONCE];
    uint8_t *out[ROWS_AT_ONCE];
    int32_t pixels[2][ROWS_AT_ONCE];
    for (uint32_t i = 0; i < ROWS_AT_ONCE; i++) {
        in[i] = source + min_u32(i, row_count - 1) * source_stride_bytes;
        out[i] = target + min_u32(i, row_count - 1) * target_stride_bytes;
    }
    uint32_t x = 0;
    for (; x + 2 < taps->out_count; x += 2) {
        column_pair(taps, x, in, pixels);
        for (int i = 0; i < ROWS_AT_ONCE; i++) { /* the fourth bytes are overwritten later */
            memcpy(out[i] + 3 * (size_t)x, &pixels[0][i], 4);
            memcpy(out[i] + 3 * (size_t)x + 3, &pixels[1][i], 4);
        }
    }
    column_pair(taps, x, in, pixels);
    for (int i = 0; i < ROWS_AT_ONCE; i++) {
        memcpy(out[i] + 3 * (size_t)x, &pixels[0][i], 3);
        if (x + 1 < taps->out_count) {
            memcpy(out[i] + 3 * (size_t)x + 3, &pixels[1][i], 3);
        }
    }
}

static void resize_columns(const struct resize_taps *taps, const uint8_t *source,
                           size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                           uint32_t row_count)
{
    for (uint32_t y = 0; y < row_count; y += ROWS_AT_ONCE) {
        resize_columns_some(taps, source + y * source_stride_bytes, source_stride_bytes,
                            target + y * target_stride_bytes, target_stride_bytes, row_count - y);
    }
}

/* ---- rows ---- */

/* The four source rows of a tap group and their weights. Rows past the last one have weight 0; the
 * last one stands in for them. */
struct row_group {
    const uint8_t *rows[TAP_GROUP];
    struct factors factors;
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
    result.factors =
        split_weights(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)weights)));
    return result;
}

/* Add four rows for 32 columns from `at`. The bytes of two rows are interleaved within 128-bit
 * lanes and widened; sums[0] gets columns 0-3 of each lane, sums[1] 4-7, and so on, which is the
 * order that the packing at the end undoes. */
ALWAYS_INLINE void add_row_group(__m256i sums[4][PARTS], const struct row_group *group, uint32_t at)
{
    const __m256i zero = _mm256_setzero_si256();
    for (int pair = 0; pair < 2; pair++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(group->rows[2 * pair] + at));
        __m256i b = _mm256_loadu_si256((const __m256i *)(group->rows[2 * pair + 1] + at));
        __m256i low = _mm256_unpacklo_epi8(a, b);
        __m256i high = _mm256_unpackhi_epi8(a, b);
        add_pair(sums[0], _mm256_unpacklo_epi8(low, zero), &group->factors, pair);
        add_pair(sums[1], _mm256_unpackhi_epi8(low, zero), &group->factors, pair);
        add_pair(sums[2], _mm256_unpacklo_epi8(high, zero), &group->factors, pair);
        add_pair(sums[3], _mm256_unpackhi_epi8(high, zero), &group->factors, pair);
    }
}

static void resize_rows(const struct resize_taps *taps, const uint8_t *source,
                        size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                        uint32_t row_bytes)
{
    if (row_bytes < 32) {
        kernels_scalar.resize_rows(taps, source, source_stride_bytes, target, target_stride_bytes,
                                   row_bytes);
        return;
    }
    for (uint32_t y = 0; y < taps->out_count; y++, target += target_stride_bytes) {
        /* Mostly the first group is the only one: it is prepared once for the whole row. */
        struct row_group first = row_group(taps, y, 0, source, source_stride_bytes);
        for (uint32_t begin = 0; begin < row_bytes; begin += 32) {
            uint32_t at = min_u32(begin, row_bytes - 32); /* the last block overlaps */
            __m256i sums[4][PARTS];
            for (int i = 0; i < 4; i++) {
                clear_sums(sums[i]);
            }
            add_row_group(sums, &first, at);
            for (size_t group = 1; group < taps->group_count; group++) {
                struct row_group next = row_group(taps, y, group, source, source_stride_bytes);
                add_row_group(sums, &next, at);
            }
            _mm256_storeu_si256((__m256i *)(target + at),
                                clip_to_bytes(join_sums(sums[0]), join_sums(sums[1]),
                                              join_sums(sums[2]), join_sums(sums[3])));
        }
    }
}

/* ---- split and mirror ---- */

/* 16 bytes from each of two places 48 bytes apart: the same third of two runs of 16 pixels. */
ALWAYS_INLINE __m256i load_thirds(const uint8_t *source)
{
    __m256i first = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)source));
    return _mm256_inserti128_si256(first, _mm_loadu_si128((const __m128i *)(source + 48)), 1);
}

ALWAYS_INLINE __m256i pick(__m256i bytes, __m128i index)
{
    return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(index));
}

ALWAYS_INLINE __m256i or3(__m256i a, __m256i b, __m256i c)
{
    return _mm256_or_si256(_mm256_or_si256(a, b), c);
}

ALWAYS_INLINE void store_plane(uint8_t *target, __m256i bytes, bool mirror)
{
    if (mirror) {
        bytes = pick(bytes, _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        bytes = _mm256_permute2x128_si256(bytes, bytes, 1);
    }
    _mm256_storeu_si256((__m256i *)target, bytes);
}

/* 32 pixels at a time, 16 in each 128-bit lane. Of the three vectors each holds a third of the
 * bytes; a channel is picked out of each third (index -1 gives 0) and the picks are joined. */
static void split_rgb(const uint8_t *source, uint32_t count, bool mirror, uint8_t *red,
                      uint8_t *green, uint8_t *blue)
{
    if (count < 32) {
        kernels_scalar.split_rgb(source, count, mirror, red, green, blue);
        return;
    }
    const __m128i red0 = _mm_setr_epi8(0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i red1 = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14, -1, -1, -1, -1, -1);
    const __m128i red2 = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 4, 7, 10, 13);
    const __m128i green0 =
        _mm_setr_epi8(1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i green1 =
        _mm_setr_epi8(-1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1);
    const __m128i green2 =
        _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14);
    const __m128i blue0 =
        _mm_setr_epi8(2, 5, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i blue1 =
        _mm_setr_epi8(-1, -1, -1, -1, -1, 1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1);
    const __m128i blue2 = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15);
    for (uint32_t begin = 0; begin < count; begin += 32) {
        uint32_t at = min_u32(begin, count - 32); /* the last block overlaps */
        uint32_t to = mirror ? count - 32 - at : at;
        const uint8_t *pixels = source + 3 * (size_t)at;
        __m256i a = load_thirds(pixels);
        __m256i b = load_thirds(pixels + 16);
        __m256i c = load_thirds(pixels + 32);
        store_plane(red + to, or3(pick(a, red0), pick(b, red1), pick(c, red2)), mirror);
        store_plane(green + to, or3(pick(a, green0), pick(b, green1), pick(c, green2)), mirror);
        store_plane(blue + to, or3(pick(a, blue0), pick(b, blue1), pick(c, blue2)), mirror);
    }
}

/* Five pixels at a time, the bytes 1 to 15 of a load of 16. Its store writes one byte too many,
 * which the next one overwrites. */
static void mirror_rgb(const uint8_t *source, uint32_t count, uint8_t *target)
{
    const __m128i reverse = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, -1);
    uint32_t at = 0;
    for (; count - at >= 6; at += 5) {
        const uint8_t *pixels = source + 3 * (size_t)(count - at - 5) - 1;
        __m128i bytes = _mm_loadu_si128((const __m128i *)pixels);
        _mm_storeu_si128((__m128i *)(target + 3 * (size_t)at), _mm_shuffle_epi8(bytes, reverse));
    }
    kernels_scalar.mirror_rgb(source, count - at, target + 3 * (size_t)at);
}

/* ---- conversion ---- */

enum target_type { TYPE_F32, TYPE_F16, TYPE_BF16 };

/* 8 values of a run, the first of which is number `lane` of the pattern of constants. */
ALWAYS_INLINE __m256 pack_values(const struct pack_constants *constants, const uint8_t *source,
                                 size_t lane)
{
    __m256i pixels = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)source));
    __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(pixels), _mm256_set1_ps(constants->scale));
    if (!constants->normalize) {
        return values;
    }
    values = _mm256_sub_ps(values, _mm256_loadu_ps(constants->mean + lane));
    return _mm256_div_ps(values, _mm256_loadu_ps(constants->std + lane));
}

ALWAYS_INLINE void store_values(__m256 values, enum target_type type, uint8_t *target)
{
    if (type == TYPE_F32) {
        _mm256_storeu_ps((float *)target, values);
    } else if (type == TYPE_F16) {
        _mm_storeu_si128((__m128i *)target, _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
    } else { /* the upper half of the bits, rounded to nearest, ties to even */
        __m256i bits = _mm256_castps_si256(values);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        bits = _mm256_srli_epi32(bits, 16);
        _mm_storeu_si128((__m128i *)target, _mm_packus_epi32(_mm256_castsi256_si128(bits),
                                                             _mm256_extracti128_si256(bits, 1)));
    }
}

ALWAYS_INLINE void convert(const struct pack_constants *constants, const uint8_t *source,
                           size_t count, enum target_type type, void *target)
{
    size_t value_bytes = type == TYPE_F32 ? 4 : 2;
    uint8_t *to = target;
    size_t at = 0;
    for (; count - at >= 8; at += 8) {
        store_values(pack_values(constants, source + at, at % PACK_PATTERN_SIZE), type,
                     to + at * value_bytes);
    }
    if (at < count) {
        uint8_t last[8] = {0};
        uint8_t values[8 * sizeof(float)];
        memcpy(last, source + at, count - at);
        store_values(pack_values(constants, last, at % PACK_PATTERN_SIZE), type, values);
        memcpy(to + at * value_bytes, values, (count - at) * value_bytes);
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

const struct kernels kernels_avx2 = {
    .resize_columns = resize_columns,
    .resize_rows = resize_rows,
    .split_rgb = split_rgb,
    .mirror_rgb = mirror_rgb,
    .convert_f32 = convert_f32,
    .convert_f16 = convert_f16,
    .convert_bf16 = convert_bf16,
};
