/* block_kernels_avx512.c - block_kernels.h for AVX-512 with VBMI and VBMI2: four blocks at once. */
#include "decode/block_kernels.h"

#include <immintrin.h>
#include <string.h>

typedef __m512i vec;
#define VEC_BYTES          64
#define V_ZERO()           _mm512_setzero_si512()
#define V_SET1_8(x)        _mm512_set1_epi8(x)
#define V_SET1_16(x)       _mm512_set1_epi16((int16_t)(x))
#define V_SET1_32(x)       _mm512_set1_epi32(x)
#define V_LOAD(at)         _mm512_loadu_si512(at)
#define V_STORE(at, x)     _mm512_storeu_si512(at, x)
#define V_LOAD_WORDS(at)   _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(at)))
#define V_OR(x, y)         _mm512_or_si512(x, y)
#define V_ADD8(x, y)       _mm512_add_epi8(x, y)
#define V_ADD16(x, y)      _mm512_add_epi16(x, y)
#define V_SUB16(x, y)      _mm512_sub_epi16(x, y)
#define V_MULHI16(x, y)    _mm512_mulhi_epi16(x, y)
#define V_SRLI16(x, n)     _mm512_srli_epi16(x, n)
#define V_SRAI16(x, n)     _mm512_srai_epi16(x, n)
#define V_SLLI16(x, n)     _mm512_slli_epi16(x, n)
#define V_ADD32(x, y)      _mm512_add_epi32(x, y)
#define V_SUB32(x, y)      _mm512_sub_epi32(x, y)
#define V_SRAI32(x, n)     _mm512_srai_epi32(x, (unsigned)(n))
#define V_MADD(x, y)       _mm512_madd_epi16(x, y)
#define V_PACKS16(x, y)    _mm512_packs_epi16(x, y)
#define V_PACKUS16(x, y)   _mm512_packus_epi16(x, y)
#define V_PACKS32(x, y)    _mm512_packs_epi32(x, y)
#define V_UNPACKLO8(x, y)  _mm512_unpacklo_epi8(x, y)
#define V_UNPACKHI8(x, y)  _mm512_unpackhi_epi8(x, y)
#define V_UNPACKLO16(x, y) _mm512_unpacklo_epi16(x, y)
#define V_UNPACKHI16(x, y) _mm512_unpackhi_epi16(x, y)
#define V_UNPACKLO32(x, y) _mm512_unpacklo_epi32(x, y)
#define V_UNPACKHI32(x, y) _mm512_unpackhi_epi32(x, y)

/* The rows of four blocks: row r of each in x[r]. */
static inline __attribute__((always_inline)) void load_rows(const int16_t *blocks, vec x[8])
{
    for (int half = 0; half < 2; half++) {
        vec block[4];
        for (int i = 0; i < 4; i++) {
            block[i] = V_LOAD(blocks + BLOCK_COEFFICIENTS * i + 32 * half);
        }
        vec rows01_a = _mm512_shuffle_i64x2(block[0], block[1], 0x44);
        vec rows23_a = _mm512_shuffle_i64x2(block[0], block[1], 0xee);
        vec rows01_b = _mm512_shuffle_i64x2(block[2], block[3], 0x44);
        vec rows23_b = _mm512_shuffle_i64x2(block[2], block[3], 0xee);
        x[4 * half] = _mm512_shuffle_i64x2(rows01_a, rows01_b, 0x88);
        x[4 * half + 1] = _mm512_shuffle_i64x2(rows01_a, rows01_b, 0xdd);
        x[4 * half + 2] = _mm512_shuffle_i64x2(rows23_a, rows23_b, 0x88);
        x[4 * half + 3] = _mm512_shuffle_i64x2(rows23_a, rows23_b, 0xdd);
    }
}

/* Two rows of 8 bytes in each lane to two rows of 32. */
static inline __attribute__((always_inline)) void store_rows(vec rows, uint8_t *at,
                                                             size_t stride_bytes)
{
    rows = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), rows);
    _mm256_storeu_si256((void *)at, _mm512_castsi512_si256(rows));
    _mm256_storeu_si256((void *)(at + stride_bytes), _mm512_extracti64x4_epi64(rows, 1));
}

/* Lanes of both in turn. */
static inline void store_interleaved(vec low, vec high, uint8_t *at)
{
    const vec first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const vec second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    V_STORE(at, _mm512_permutex2var_epi64(low, first, high));
    V_STORE(at + VEC_BYTES, _mm512_permutex2var_epi64(low, second, high));
}

/* Which byte of 64 red (0 to 63) and green (64 to 127) ones stands at place `i` of the third
 * `part` of 192 bytes; blue: any. */
#define RG(part, i)                                                                                \
    (char)((64 * (part) + (i)) % 3 == 1 ? 64 + (64 * (part) + (i)) / 3 : (64 * (part) + (i)) / 3)
#define RG8(part, i)                                                                               \
    RG(part, i), RG(part, i + 1), RG(part, i + 2), RG(part, i + 3), RG(part, i + 4),               \
        RG(part, i + 5), RG(part, i + 6), RG(part, i + 7)
#define RG64(part)                                                                                 \
    {                                                                                              \
        RG8(part, 0), RG8(part, 8), RG8(part, 16), RG8(part, 24), RG8(part, 32), RG8(part, 40),    \
            RG8(part, 48), RG8(part, 56)                                                           \
    }

static const char red_green_places[3][64]
    __attribute__((aligned(64))) = {RG64(0), RG64(1), RG64(2)};

static inline void store_rgb(vec red, vec green, vec blue, uint8_t *at)
{
    /* Bits of the places of blue: every third, in each part one further. */
    static const uint64_t blue_places[3] = {0x4924924924924924, 0x2492492492492492,
                                            0x9249249249249249};
    for (int part = 0; part < 3; part++) {
        vec places = V_LOAD(red_green_places[part]);
        vec bytes = _mm512_permutex2var_epi8(red, places, green);
        bytes = _mm512_mask_permutexvar_epi8(bytes, blue_places[part], places, blue);
        V_STORE(at + VEC_BYTES * part, bytes);
    }
}

#include "decode/block_kernels_vector.h"

/* ---- expand ----------------------------------------------------------------------------------
 */

/* Nibbles to signed bytes, in order; the low nibble first. */
static inline vec unpack_nibbles(const uint8_t *nibbles)
{
    const vec signs = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
    vec words = V_LOAD_WORDS(nibbles);
    words = _mm512_ternarylogic_epi32(words, V_SLLI16(words, 4), V_SET1_8(0x0f), 0xa8);
    return _mm512_shuffle_epi8(signs, words);
}

/* For each place of a block the place of its coefficient in the zigzag. */
static const uint8_t zigzag_places[BLOCK_COEFFICIENTS] __attribute__((aligned(64))) = {
    0,  1,  5,  6,  14, 15, 27, 28, 2,  4,  7,  13, 16, 26, 29, 42, 3,  8,  12, 17, 25, 30,
    41, 43, 9,  11, 18, 24, 31, 40, 44, 53, 10, 19, 23, 32, 39, 45, 52, 54, 20, 22, 33, 38,
    46, 51, 55, 60, 21, 34, 37, 47, 50, 56, 59, 61, 35, 36, 48, 49, 57, 58, 62, 63,
};

/* The rare block with values of 16 bits: `bytes` is the block with -128 where they belong, `wide`
 * where. They are put in after dequantisation. */
static __attribute__((noinline)) bool put_words(struct block_group *group, uint64_t wide,
                                                const uint8_t *escapes,
                                                const uint16_t *quantisation, int16_t *block)
{
    for (; wide != 0; wide &= wide - 1) {
        uint32_t place = coefficient_natural_order[__builtin_ctzll(wide)];
        if (group->words - escapes < 2) {
            return false;
        }
        group->words -= 2;
        block[place] = (int16_t)((uint32_t)get_u16(group->words) * quantisation[place]);
    }
    return true;
}

static bool expand(struct block_group *group, const uint16_t quantisation[BLOCK_COEFFICIENTS],
                   int16_t *blocks)
{
    const vec places = V_LOAD(zigzag_places);
    const vec low_factors = V_LOAD(quantisation), high_factors = V_LOAD(quantisation + 32);
    const uint8_t *masks = group->masks, *nibbles = group->nibbles, *escapes = group->escapes;
    uint64_t sizes = group->sizes, all_masks = 0;
    if (block_sizes_are_wrong(sizes)) {
        return false;
    }
    for (uint32_t i = 0; i < group->count; i++, blocks += BLOCK_COEFFICIENTS, sizes >>= 4) {
        uint64_t mask;
        memcpy(&mask, masks, sizeof mask);
        masks += sizes & 15;
        mask = _bzhi_u64(mask, 8 * (uint32_t)(sizes & 15));
        all_masks |= mask;
        uint32_t count = (uint32_t)_mm_popcnt_u64(mask);
        vec values = unpack_nibbles(nibbles);
        nibbles += (count + 1) / 2;
        uint64_t escaped = _bzhi_u64(_mm512_testn_epi8_mask(values, values), count);
        values = _mm512_mask_expand_epi8(values, escaped, V_LOAD(escapes));
        escapes += _mm_popcnt_u64(escaped);
        values = _mm512_maskz_expand_epi8(mask << 1, values);
        uint64_t wide = _mm512_cmpeq_epi8_mask(values, V_SET1_8(-128));
        values = _mm512_permutexvar_epi8(places, values);
        vec low = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(values));
        vec high = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(values, 1));
        low = _mm512_mask_mov_epi16(low, 1, V_SET1_16(group->dc[i]));
        _mm512_store_si512(blocks, _mm512_mullo_epi16(low, low_factors));
        _mm512_store_si512(blocks + 32, _mm512_mullo_epi16(high, high_factors));
        if (__builtin_expect(wide != 0, 0) &&
            !put_words(group, wide, escapes, quantisation, blocks)) {
            return false;
        }
    }
    group->masks = masks;
    group->nibbles = nibbles;
    group->escapes = escapes;
    return all_masks >> 63 == 0;
}

const struct block_kernels block_kernels_avx512 = {
    .expand = expand,
    .idct = idct,
    .upsample_h2v1 = upsample_h2v1,
    .upsample_h2v2 = upsample_h2v2,
    .ycc_to_rgb = ycc_to_rgb,
    .grey_to_rgb = grey_to_rgb,
};
