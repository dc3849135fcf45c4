/* block_kernels_avx2.c - block_kernels.h for AVX2 and BMI2: two blocks at once. */
#include "decode/block_kernels.h"

#include <immintrin.h>
#include <string.h>

typedef __m256i vec;
#define VEC_BYTES          32
#define V_ZERO()           _mm256_setzero_si256()
#define V_SET1_8(x)        _mm256_set1_epi8(x)
#define V_SET1_16(x)       _mm256_set1_epi16((int16_t)(x))
#define V_SET1_32(x)       _mm256_set1_epi32(x)
#define V_LOAD(at)         _mm256_loadu_si256((const void *)(at))
#define V_STORE(at, x)     _mm256_storeu_si256((void *)(at), x)
#define V_LOAD_WORDS(at)   _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(at)))
#define V_OR(x, y)         _mm256_or_si256(x, y)
#define V_ADD8(x, y)       _mm256_add_epi8(x, y)
#define V_ADD16(x, y)      _mm256_add_epi16(x, y)
#define V_SUB16(x, y)      _mm256_sub_epi16(x, y)
#define V_MULHI16(x, y)    _mm256_mulhi_epi16(x, y)
#define V_SRLI16(x, n)     _mm256_srli_epi16(x, n)
#define V_SRAI16(x, n)     _mm256_srai_epi16(x, n)
#define V_SLLI16(x, n)     _mm256_slli_epi16(x, n)
#define V_ADD32(x, y)      _mm256_add_epi32(x, y)
#define V_SUB32(x, y)      _mm256_sub_epi32(x, y)
#define V_SRAI32(x, n)     _mm256_srai_epi32(x, n)
#define V_MADD(x, y)       _mm256_madd_epi16(x, y)
#define V_PACKS16(x, y)    _mm256_packs_epi16(x, y)
#define V_PACKUS16(x, y)   _mm256_packus_epi16(x, y)
#define V_PACKS32(x, y)    _mm256_packs_epi32(x, y)
#define V_UNPACKLO8(x, y)  _mm256_unpacklo_epi8(x, y)
#define V_UNPACKHI8(x, y)  _mm256_unpackhi_epi8(x, y)
#define V_UNPACKLO16(x, y) _mm256_unpacklo_epi16(x, y)
#define V_UNPACKHI16(x, y) _mm256_unpackhi_epi16(x, y)
#define V_UNPACKLO32(x, y) _mm256_unpacklo_epi32(x, y)
#define V_UNPACKHI32(x, y) _mm256_unpackhi_epi32(x, y)

/* The rows of two blocks: row r of each in x[r]. */
static inline __attribute__((always_inline)) void load_rows(const int16_t *blocks, vec x[8])
{
    for (int i = 0; i < 4; i++) {
        vec first = V_LOAD(blocks + 16 * i);
        vec second = V_LOAD(blocks + BLOCK_COEFFICIENTS + 16 * i);
        x[2 * i] = _mm256_permute2x128_si256(first, second, 0x20);
        x[2 * i + 1] = _mm256_permute2x128_si256(first, second, 0x31);
    }
}

/* Two rows of 8 bytes in each lane to two rows of 16. */
static inline __attribute__((always_inline)) void store_rows(vec rows, uint8_t *at,
                                                             size_t stride_bytes)
{
    rows = _mm256_permute4x64_epi64(rows, 0xd8);
    _mm_storeu_si128((void *)at, _mm256_castsi256_si128(rows));
    _mm_storeu_si128((void *)(at + stride_bytes), _mm256_extracti128_si256(rows, 1));
}

/* Lanes of both in turn. */
static inline void store_interleaved(vec low, vec high, uint8_t *at)
{
    V_STORE(at, _mm256_permute2x128_si256(low, high, 0x20));
    V_STORE(at + VEC_BYTES, _mm256_permute2x128_si256(low, high, 0x31));
}

/* For each 16 of 48 bytes of RGB, where in 16 bytes of a colour each comes from; -1: another. */
static const int8_t rgb_places[3][3][16] = {
    {{0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
     {-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
     {-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1}},
    {{-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
     {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
     {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1}},
    {{-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1},
     {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1},
     {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15}},
};

static inline vec load_twice(const void *at)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(at));
}

static inline void store_rgb(vec red, vec green, vec blue, uint8_t *at)
{
    for (int part = 0; part < 3; part++) {
        vec bytes = _mm256_shuffle_epi8(red, load_twice(rgb_places[part][0]));
        bytes = V_OR(bytes, _mm256_shuffle_epi8(green, load_twice(rgb_places[part][1])));
        bytes = V_OR(bytes, _mm256_shuffle_epi8(blue, load_twice(rgb_places[part][2])));
        _mm_storeu_si128((void *)(at + 16 * part), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((void *)(at + 48 + 16 * part), _mm256_extracti128_si256(bytes, 1));
    }
}

#include "decode/block_kernels_vector.h"

/* ---- expand ----------------------------------------------------------------------------------
 */

/* 64 nibbles to signed bytes, in order; the low nibble first. */
static inline void unpack_nibbles(const uint64_t nibbles[4], vec bytes[2])
{
    const vec signs = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
    vec packed = V_LOAD(nibbles), mask = V_SET1_8(0x0f);
    vec low = _mm256_shuffle_epi8(signs, _mm256_and_si256(packed, mask));
    vec high = _mm256_shuffle_epi8(signs, _mm256_and_si256(V_SRLI16(packed, 4), mask));
    vec even = V_UNPACKLO8(low, high), odd = V_UNPACKHI8(low, high);
    bytes[0] = _mm256_permute2x128_si256(even, odd, 0x20);
    bytes[1] = _mm256_permute2x128_si256(even, odd, 0x31);
}

/* The 16 nibbles from number `index` on. */
static inline uint64_t load_nibbles(const uint8_t *nibbles, uint32_t index)
{
    uint64_t low, shift = 4 * (index & 1);
    memcpy(&low, nibbles + index / 2, sizeof low);
    uint64_t high = nibbles[index / 2 + 8];
    return low >> shift | high << 1 << (63 - shift);
}

/* A block's nibbles to their places in the zigzag, 16 places at a time. */
static inline uint32_t spread_nibbles(const uint8_t *nibbles, uint64_t mask, uint64_t spread[4])
{
    uint32_t taken = 0;
    for (int i = 0; i < 4; i++, mask >>= 16) {
        uint64_t places = _pdep_u64(mask & 0xffff, 0x1111111111111111) * 15;
        spread[i] = _pdep_u64(load_nibbles(nibbles, taken), places);
        taken += (uint32_t)_mm_popcnt_u64(mask & 0xffff);
    }
    return taken;
}

/* Where a group's words belong: number of the block * BLOCK_COEFFICIENTS + place in the zigzag. */
struct word_places {
    uint32_t count;
    uint16_t places[GROUP_BLOCKS * BLOCK_COEFFICIENTS];
};

/* A group in zigzag order, but for the words. Returns its masks, put together. */
static inline uint64_t gather_group(struct block_group *group, int8_t values[][BLOCK_COEFFICIENTS],
                                    struct word_places *words)
{
    uint64_t sizes = group->sizes, all_masks = 0;
    words->count = 0;
    for (uint32_t i = 0; i < group->count; i++, sizes >>= 4) {
        uint64_t mask, spread[4];
        vec bytes[2];
        memcpy(&mask, group->masks, sizeof mask);
        group->masks += sizes & 15;
        mask = _bzhi_u64(mask, 8 * (uint32_t)(sizes & 15));
        all_masks |= mask;
        group->nibbles += (spread_nibbles(group->nibbles, mask << 1, spread) + 1) / 2;
        unpack_nibbles(spread, bytes);
        uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes[0], V_ZERO()));
        uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes[1], V_ZERO()));
        V_STORE(values[i], bytes[0]);
        V_STORE(values[i] + VEC_BYTES, bytes[1]);
        uint64_t escaped = (low | (uint64_t)high << 32) & mask << 1;
        for (; escaped != 0; escaped &= escaped - 1) {
            int8_t value = (int8_t)*group->escapes++;
            uint64_t place = _tzcnt_u64(escaped);
            values[i][place] = value;
            words->places[words->count] = (uint16_t)(i * BLOCK_COEFFICIENTS + place);
            words->count += value == INT8_MIN;
        }
    }
    return all_masks;
}

/* False: there are not as many. */
static bool put_words(struct block_group *group, const struct word_places *words,
                      const uint16_t *quantisation, int16_t *blocks)
{
    if (group->words - group->escapes < 2 * (ptrdiff_t)words->count) {
        return false;
    }
    for (uint32_t i = 0; i < words->count; i++) {
        uint32_t place = coefficient_natural_order[words->places[i] % BLOCK_COEFFICIENTS];
        uint32_t block = words->places[i] / BLOCK_COEFFICIENTS;
        group->words -= 2;
        blocks[block * BLOCK_COEFFICIENTS + place] =
            (int16_t)((uint32_t)get_u16(group->words) * quantisation[place]);
    }
    return true;
}

/* For each place of half a block, where in each 16 bytes of the zigzag it is; -1: in others. */
static const int8_t zigzag_places[2][4][32] = {
    {{0, 1, 5,  6,  14, 15, -1, -1, 2, 4,  7,  13, -1, -1, -1, -1,
      3, 8, 12, -1, -1, -1, -1, -1, 9, 11, -1, -1, -1, -1, -1, -1},
     {-1, -1, -1, -1, -1, -1, 11, 12, -1, -1, -1, -1, 0,  10, 13, -1,
      -1, -1, -1, 1,  9,  14, -1, -1, -1, -1, 2,  8,  15, -1, -1, -1},
     {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 10,
      -1, -1, -1, -1, -1, -1, 9,  11, -1, -1, -1, -1, -1, 8,  12, -1},
     {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 5}},
    {{10, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
     {-1, 3,  7,  -1, -1, -1, -1, -1, 4,  6,  -1, -1, -1, -1, -1, -1,
      5,  -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
     {-1, -1, -1, 0,  7,  13, -1, -1, -1, -1, 1,  6,  14, -1, -1, -1,
      -1, 2,  5,  15, -1, -1, -1, -1, 3,  4,  -1, -1, -1, -1, -1, -1},
     {-1, -1, -1, -1, -1, -1, 4,  6,  -1, -1, -1, -1, -1, 3,  7,  12,
      -1, -1, -1, -1, 2,  8,  11, 13, -1, -1, 0,  1,  9,  10, 14, 15}}};

/* 64 coefficients in zigzag order to natural order, times the factors. */
static inline void order_block(const int8_t *values, const uint16_t *factors, int16_t *block)
{
    vec parts[4];
    for (int i = 0; i < 4; i++) {
        parts[i] = load_twice(values + 16 * i);
    }
    for (int half = 0; half < 2; half++) {
        vec bytes = V_ZERO();
        for (int i = 0; i < 4; i++) {
            bytes = V_OR(bytes, _mm256_shuffle_epi8(parts[i], V_LOAD(zigzag_places[half][i])));
        }
        vec low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes));
        vec high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1));
        const uint16_t *factor = factors + 32 * half;
        V_STORE(block + 32 * half, _mm256_mullo_epi16(low, V_LOAD(factor)));
        V_STORE(block + 32 * half + 16, _mm256_mullo_epi16(high, V_LOAD(factor + 16)));
    }
}

static bool expand(struct block_group *group, const uint16_t quantisation[BLOCK_COEFFICIENTS],
                   int16_t *blocks)
{
    /* Apart from ordering, so that bytes stored one by one have arrived when they are loaded. */
    int8_t values[GROUP_BLOCKS][BLOCK_COEFFICIENTS];
    struct word_places words;
    if (block_sizes_are_wrong(group->sizes)) {
        return false;
    }
    uint64_t all_masks = gather_group(group, values, &words);
    for (uint32_t i = 0; i < group->count; i++) {
        int16_t *block = blocks + (size_t)i * BLOCK_COEFFICIENTS;
        order_block(values[i], quantisation, block);
        block[0] = (int16_t)((uint32_t)group->dc[i] * quantisation[0]);
    }
    return all_masks >> 63 == 0 && put_words(group, &words, quantisation, blocks);
}

const struct block_kernels block_kernels_avx2 = {
    .expand = expand,
    .idct = idct,
    .upsample_h2v1 = upsample_h2v1,
    .upsample_h2v2 = upsample_h2v2,
    .ycc_to_rgb = ycc_to_rgb,
    .grey_to_rgb = grey_to_rgb,
};
