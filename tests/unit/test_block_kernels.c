#include "decode/block_kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROUNDS = 3000, ROW_SAMPLES = 400, BLOCKS = GROUP_BLOCKS + BLOCKS_BEYOND };

static const enum kernel_level levels[] = {KERNEL_AVX2, KERNEL_AVX512};
enum { LEVEL_COUNT = sizeof levels / sizeof levels[0] };

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % limit);
}

/* The variant of a level that this processor runs, else NULL. */
static const struct block_kernels *variant(size_t i)
{
    return kernels_detect(levels[i]) == levels[i] ? block_kernels_get(levels[i]) : NULL;
}

/* Any value: ordinary ones, and now and then the extremes. */
static int16_t random_coefficient(uint32_t kind)
{
    static const int16_t extremes[] = {INT16_MIN, INT16_MAX, 8191, -8192, 1024, -1, 0, 127};
    switch (kind % 4) {
    case 0: return (int16_t)random_below(65536);
    case 1: return extremes[random_below(8)];
    case 2: return random_below(3) == 0 ? (int16_t)(random_below(801) - 400) : 0;
    default: return random_below(20) == 0 ? (int16_t)(random_below(65536)) : 0;
    }
}

static void test_idct(void **state)
{
    static _Alignas(64) int16_t blocks[BLOCKS * BLOCK_COEFFICIENTS];
    const size_t stride_bytes = 8 * BLOCKS;
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint8_t expected[64 * BLOCKS], got[64 * BLOCKS];
        uint32_t count = 1 + random_below(GROUP_BLOCKS);
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
            blocks[i] = random_coefficient(round);
        }
        block_kernels_scalar.idct(blocks, count, expected, stride_bytes);
        for (size_t level = 0; level < LEVEL_COUNT; level++) {
            if (variant(level) == NULL) {
                continue;
            }
            variant(level)->idct(blocks, count, got, stride_bytes);
            for (size_t y = 0; y < 8; y++) {
                assert_memory_equal(expected + y * stride_bytes, got + y * stride_bytes,
                                    8 * (size_t)count);
            }
        }
    }
}

/* The verdicts must agree; of a group that is accepted, the blocks and the cursors, too. */
static void check_expand(const struct block_group *group, const uint16_t *quantisation)
{
    static _Alignas(64) int16_t expected[GROUP_BLOCKS * BLOCK_COEFFICIENTS];
    static _Alignas(64) int16_t got[GROUP_BLOCKS * BLOCK_COEFFICIENTS];
    struct block_group twin = *group;
    bool is_good = block_kernels_scalar.expand(&twin, quantisation, expected);
    is_good = is_good && twin.escapes == twin.words;
    for (size_t level = 0; level < LEVEL_COUNT; level++) {
        struct block_group other = *group;
        if (variant(level) == NULL) {
            continue;
        }
        bool is_same = variant(level)->expand(&other, quantisation, got);
        is_same = is_same && other.escapes == other.words;
        assert_int_equal(is_good, is_same);
        if (is_good) {
            assert_ptr_equal(twin.masks, other.masks);
            assert_ptr_equal(twin.nibbles, other.nibbles);
            assert_ptr_equal(twin.words, other.words);
            assert_memory_equal(expected, got, sizeof(int16_t) * BLOCK_COEFFICIENTS * group->count);
        }
    }
}

/* Random bytes are groups as good as any; how many escapes they have is found out by trying. */
static void test_expand(void **state)
{
    static uint8_t masks[GROUP_REACH_BYTES], nibbles[GROUP_REACH_BYTES];
    static uint8_t escapes[4 * GROUP_REACH_BYTES];
    static _Alignas(64) int16_t blocks[GROUP_BLOCKS * BLOCK_COEFFICIENTS];
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint16_t quantisation[BLOCK_COEFFICIENTS];
        int16_t dc[GROUP_BLOCKS];
        struct block_group group = {.count = 1 + random_below(GROUP_BLOCKS),
                                    .dc = dc,
                                    .masks = masks,
                                    .nibbles = nibbles,
                                    .escapes = escapes};
        uint32_t density = random_below(4);
        for (size_t i = 0; i < sizeof masks; i++) {
            masks[i] = (uint8_t)random_below(256);
            masks[i] = density == 0 ? masks[i] & (uint8_t)random_below(256) : masks[i];
            masks[i] = i % 8 == 7 ? masks[i] & 0x7f : masks[i];
            nibbles[i] = (uint8_t)random_below(density == 1 ? 16 : 256);
        }
        for (size_t i = 0; i < sizeof escapes; i++) {
            escapes[i] = (uint8_t)(random_below(60) == 0 ? 0x80 : random_below(256));
        }
        for (int i = 0; i < BLOCK_COEFFICIENTS; i++) {
            quantisation[i] = (uint16_t)(1 + random_below(round % 2 ? 255 : 65535));
        }
        for (uint32_t i = 0; i < GROUP_BLOCKS; i++) {
            dc[i] = (int16_t)random_below(65536);
            group.sizes |= (uint64_t)random_below(round % 16 == 0 ? 16 : 9) << (4 * i);
        }
        /* The words' end that makes the cursors meet: each word is an escape and two bytes more. */
        struct block_group trial = group;
        trial.words = escapes + sizeof escapes;
        if (block_kernels_scalar.expand(&trial, quantisation, blocks)) {
            group.words = trial.escapes + (escapes + sizeof escapes - trial.words);
        } else {
            group.words = escapes + random_below(GROUP_REACH_BYTES);
        }
        check_expand(&group, quantisation);
        group.words = escapes + random_below(64);
        check_expand(&group, quantisation);
    }
}

/* Rows of samples with something readable around them. */
struct rows {
    uint8_t before[64];
    uint8_t samples[ROW_SAMPLES + ROW_BEYOND_BYTES];
};

static void fill(struct rows *rows, uint32_t kind)
{
    for (size_t i = 0; i < sizeof rows->before; i++) {
        rows->before[i] = (uint8_t)random_below(256);
    }
    for (size_t i = 0; i < sizeof rows->samples; i++) {
        rows->samples[i] = (uint8_t)(kind % 3 == 0 ? 255 * random_below(2) : random_below(256));
    }
}

static void test_rows(void **state)
{
    static uint8_t expected[3 * ROW_SAMPLES + 2 * ROW_BEYOND_BYTES];
    static uint8_t got[3 * ROW_SAMPLES + 2 * ROW_BEYOND_BYTES];
    const struct block_kernels *twin = &block_kernels_scalar;
    struct rows a, b, c;
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t count = 1 + random_below(ROW_SAMPLES);
        fill(&a, round);
        fill(&b, round / 3);
        fill(&c, round / 9);
        for (size_t level = 0; level < LEVEL_COUNT; level++) {
            const struct block_kernels *kernels = variant(level);
            if (kernels == NULL) {
                continue;
            }
            twin->upsample_h2v1(a.samples, count, expected);
            kernels->upsample_h2v1(a.samples, count, got);
            assert_memory_equal(expected, got, 2 * (size_t)count);
            twin->upsample_h2v2(a.samples, b.samples, count, expected);
            kernels->upsample_h2v2(a.samples, b.samples, count, got);
            assert_memory_equal(expected, got, 2 * (size_t)count);
            twin->ycc_to_rgb(a.samples, b.samples, c.samples, count, expected);
            kernels->ycc_to_rgb(a.samples, b.samples, c.samples, count, got);
            assert_memory_equal(expected, got, 3 * (size_t)count);
            twin->grey_to_rgb(a.samples, count, expected);
            kernels->grey_to_rgb(a.samples, count, got);
            assert_memory_equal(expected, got, 3 * (size_t)count);
        }
    }
}

/* All 2^24 colours. */
static void test_every_colour(void **state)
{
    static uint8_t y[256 + ROW_BEYOND_BYTES], cb[256 + ROW_BEYOND_BYTES];
    static uint8_t cr[256 + ROW_BEYOND_BYTES];
    static uint8_t expected[3 * 256 + ROW_BEYOND_BYTES], got[3 * 256 + ROW_BEYOND_BYTES];
    (void)state;
    for (int i = 0; i < 256; i++) {
        y[i] = (uint8_t)i;
    }
    for (int blue = 0; blue < 256; blue++) {
        for (int red = 0; red < 256; red++) {
            memset(cb, blue, sizeof cb);
            memset(cr, red, sizeof cr);
            block_kernels_scalar.ycc_to_rgb(y, cb, cr, 256, expected);
            for (size_t level = 0; level < LEVEL_COUNT; level++) {
                if (variant(level) != NULL) {
                    variant(level)->ycc_to_rgb(y, cb, cr, 256, got);
                    assert_memory_equal(expected, got, sizeof(uint8_t) * 3 * 256);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idct),
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_every_colour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
