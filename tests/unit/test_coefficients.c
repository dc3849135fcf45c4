#include "decode/coefficients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "decode/coefficient_format.h"
#include "decode/image.h"
#include "tests/tools/jpeg_samples.h"

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % limit);
}

static struct image_reader *make_reader(enum kernel_level level)
{
    const struct image_limits limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                                        .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                                        .level_max = level};
    struct image_reader *reader = image_reader_create(&limits);
    assert_non_null(reader);
    return reader;
}

/* Decode a region, in bands of random height, to dense rows in `pixels`. */
static enum decode_status decode_region(struct image_reader *reader, const uint8_t *bytes,
                                        size_t size_bytes, struct image_rect region,
                                        uint8_t *pixels, struct decode_error *error)
{
    struct image_info info;
    size_t row_bytes = (size_t)region.width_px * 3;
    enum decode_status status = image_open(reader, bytes, size_bytes, &info, error);
    if (status == DECODE_OK) {
        status = image_start(reader, region, error);
    }
    for (uint32_t y = 0; status == DECODE_OK;) {
        const uint8_t *rows = NULL;
        size_t stride_bytes = 0;
        uint32_t count = 0;
        status = image_band(reader, 1 + random_below(40), &rows, &stride_bytes, &count, error);
        if (status != DECODE_OK || count == 0) {
            return status == DECODE_OK ? image_finish(reader, error) : status;
        }
        for (uint32_t i = 0; i < count; i++, y++) {
            memcpy(pixels + y * row_bytes, rows + i * stride_bytes, row_bytes);
        }
    }
    return status;
}

static void check_region(struct image_reader *reader, const struct jpeg_sample *sample,
                         const uint8_t *record, size_t record_bytes, const uint8_t *full,
                         struct image_rect region)
{
    struct decode_error error = {.reason = "pixels differ"};
    size_t row_bytes = (size_t)region.width_px * 3;
    uint8_t *pixels = malloc(row_bytes * region.height_px);
    bool is_good = decode_region(reader, record, record_bytes, region, pixels, &error) == DECODE_OK;
    for (uint32_t y = 0; y < region.height_px && is_good; y++) {
        size_t at = ((size_t)(region.y_px + y) * sample->width_px + region.x_px) * 3;
        is_good = memcmp(full + at, pixels + y * row_bytes, row_bytes) == 0;
    }
    if (!is_good) {
        fail_msg("%ux%u color %d sampling %u%u,%u%u,%u%u progressive %d split %d: region %u,%u "
                 "%ux%u: %s",
                 sample->width_px, sample->height_px, (int)sample->color, sample->sampling[0][0],
                 sample->sampling[0][1], sample->sampling[1][0], sample->sampling[1][1],
                 sample->sampling[2][0], sample->sampling[2][1], sample->is_progressive,
                 sample->is_split, region.x_px, region.y_px, region.width_px, region.height_px,
                 error.reason);
    }
    free(pixels);
}

static struct image_rect random_region(uint32_t width_px, uint32_t height_px)
{
    struct image_rect region = {.x_px = random_below(width_px), .y_px = random_below(height_px)};
    region.width_px = 1 + random_below(width_px - region.x_px);
    region.height_px = 1 + random_below(height_px - region.y_px);
    return region;
}

/* Both forms, at every level, whole and in regions, against libjpeg's decode of the JPEG. */
static void check_sample(const struct jpeg_sample *sample, uint32_t region_count)
{
    static const enum kernel_level levels[] = {KERNEL_SCALAR, KERNEL_AVX2, KERNEL_AVX512};
    size_t jpeg_bytes = 0, record_bytes = 0;
    const uint8_t *record = NULL;
    struct decode_error error;
    struct coefficients_info info;
    struct coefficients_encoder *encoder = coefficients_encoder_create(NULL);
    uint8_t *jpeg = jpeg_sample_make(sample, &jpeg_bytes);
    uint8_t *full = jpeg_sample_decode(jpeg, jpeg_bytes);
    for (int form = COEFFICIENTS_FAST; form <= COEFFICIENTS_COMPACT; form++) {
        if (coefficients_encode(encoder, jpeg, jpeg_bytes, (enum coefficients_form)form, &record,
                                &record_bytes, &error) != DECODE_OK) {
            fail_msg("%s", error.reason);
        }
        assert_int_equal(coefficients_check(record, record_bytes, &info, &error), DECODE_OK);
        assert_int_equal(info.form, form);
        assert_int_equal(info.width_px, sample->width_px);
        assert_int_equal(info.height_px, sample->height_px);
        for (size_t level = 0; level < 3; level++) {
            struct image_reader *reader = make_reader(levels[level]);
            struct image_rect region = {0, 0, sample->width_px, sample->height_px};
            for (uint32_t i = 0; i < region_count; i++) {
                check_region(reader, sample, record, record_bytes, full, region);
                region = random_region(sample->width_px, sample->height_px);
            }
            image_reader_destroy(reader);
        }
    }
    free(full);
    free(jpeg);
    coefficients_encoder_destroy(encoder);
}

static const uint8_t samplings[][4][2] = {
    {{1, 1}, {1, 1}, {1, 1}}, {{2, 1}, {1, 1}, {1, 1}}, {{2, 2}, {1, 1}, {1, 1}},
    {{1, 2}, {1, 1}, {1, 1}}, {{4, 1}, {1, 1}, {1, 1}}, {{4, 2}, {1, 1}, {1, 1}},
    {{1, 4}, {1, 1}, {1, 1}}, {{2, 4}, {1, 1}, {1, 1}}, {{3, 1}, {1, 1}, {1, 1}},
    {{1, 1}, {2, 2}, {2, 2}}, {{2, 2}, {1, 2}, {2, 1}}, {{2, 2}, {2, 1}, {1, 1}},
    {{4, 1}, {2, 1}, {2, 1}}, {{1, 2}, {1, 1}, {1, 2}}, {{2, 1}, {2, 1}, {1, 1}},
};

static const uint32_t sizes[][2] = {{1, 1},   {1, 40},   {40, 1},   {2, 3},    {5, 5},   {8, 8},
                                    {16, 16}, {17, 17},  {33, 31},  {64, 48},  {75, 9},  {9, 75},
                                    {97, 61}, {31, 130}, {300, 37}, {257, 66}, {513, 21}};

static void test_every_kind(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof samplings / sizeof samplings[0]; s++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (uint32_t kind = 0; kind < 4; kind++) {
                struct jpeg_sample sample = {
                    .width_px = sizes[i][0],
                    .height_px = sizes[i][1],
                    .color = (s + i) % 7 == 0 ? SAMPLE_RGB : SAMPLE_YCC,
                    .is_progressive = kind == 1,
                    .is_split = kind == 2,
                    .restart_interval = kind == 3 ? 3 : 0,
                    .quality = kind == 0 ? 100 : 10 + 20 * kind + random_below(20),
                    .seed = i,
                };
                memcpy(sample.sampling, samplings[s], sizeof sample.sampling);
                check_sample(&sample, 6);
            }
        }
    }
}

static void test_grey(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct jpeg_sample sample = {.width_px = sizes[i][0],
                                     .height_px = sizes[i][1],
                                     .color = SAMPLE_GREY,
                                     .sampling = {{i % 2 ? 2 : 1, i % 3 ? 2 : 1}},
                                     .is_progressive = i % 5 == 0,
                                     .quality = 30 + 4 * (uint32_t)i};
        check_sample(&sample, 10);
    }
}

static void test_many_regions(void **state)
{
    (void)state;
    for (size_t s = 0; s < 4; s++) {
        struct jpeg_sample sample = {.width_px = 331, .height_px = 203, .color = SAMPLE_YCC};
        memcpy(sample.sampling, samplings[s], sizeof sample.sampling);
        check_sample(&sample, 1000);
    }
}

static enum decode_status encode(const uint8_t *bytes, size_t size_bytes,
                                 struct decode_error *error)
{
    struct coefficients_encoder *encoder = coefficients_encoder_create(NULL);
    const uint8_t *record = NULL;
    size_t record_bytes = 0;
    enum decode_status status = coefficients_encode(encoder, bytes, size_bytes, COEFFICIENTS_FAST,
                                                    &record, &record_bytes, error);
    coefficients_encoder_destroy(encoder);
    return status;
}

/* What is not stored stays with the direct path. */
static void test_refusals(void **state)
{
    static const struct jpeg_sample unsuitable[] = {
        {.width_px = 40, .height_px = 30, .color = SAMPLE_CMYK},
        {.width_px = 40, .height_px = 30, .color = SAMPLE_YCCK},
        {.width_px = 40, .height_px = 30, .color = SAMPLE_YCC, .is_arithmetic = true},
    };
    struct decode_error error;
    (void)state;
    for (size_t i = 0; i < sizeof unsuitable / sizeof unsuitable[0]; i++) {
        size_t size_bytes = 0;
        uint8_t *bytes = jpeg_sample_make(&unsuitable[i], &size_bytes);
        assert_int_equal(encode(bytes, size_bytes, &error), DECODE_UNSUPPORTED);
        free(bytes);
    }
    assert_int_equal(encode((const uint8_t *)"\x89PNG\r\n\x1a\n", 8, &error), DECODE_UNSUPPORTED);
    assert_int_equal(encode((const uint8_t *)"", 0, &error), DECODE_UNSUPPORTED);
}

/* A JPEG that ends early, anywhere, or is damaged so that libjpeg warns, is never stored. */
static void test_damage_is_not_stored(void **state)
{
    struct decode_error error;
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct jpeg_sample sample = {.width_px = 61,
                                     .height_px = 45,
                                     .color = SAMPLE_YCC,
                                     .sampling = {{2, 2}, {1, 1}, {1, 1}},
                                     .is_progressive = kind == 1,
                                     .is_split = kind == 2,
                                     .restart_interval = kind == 3 ? 2 : 0};
        size_t size_bytes = 0;
        uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
        assert_int_equal(encode(bytes, size_bytes, &error), DECODE_OK);
        for (size_t cut = 0; cut < size_bytes; cut += 7) {
            assert_int_not_equal(encode(bytes, cut, &error), DECODE_OK);
        }
        assert_int_not_equal(encode(bytes, size_bytes - 1, &error), DECODE_OK);
        free(bytes);
    }
}

/* A record converted is the record encoded, to the byte. */
static void test_convert(void **state)
{
    struct decode_error error;
    struct coefficients_encoder *one = coefficients_encoder_create(NULL);
    struct coefficients_encoder *other = coefficients_encoder_create(NULL);
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        struct jpeg_sample sample = {.width_px = 1 + 150 * i,
                                     .height_px = 1 + 40 * i,
                                     .color = i % 3 == 0 ? SAMPLE_GREY : SAMPLE_YCC,
                                     .quality = 12 * i + 5};
        size_t jpeg_bytes = 0;
        uint8_t *jpeg = jpeg_sample_make(&sample, &jpeg_bytes);
        for (int from = COEFFICIENTS_FAST; from <= COEFFICIENTS_COMPACT; from++) {
            for (int to = COEFFICIENTS_FAST; to <= COEFFICIENTS_COMPACT; to++) {
                const uint8_t *record = NULL, *converted = NULL;
                size_t record_bytes = 0, converted_bytes = 0;
                assert_int_equal(coefficients_encode(one, jpeg, jpeg_bytes,
                                                     (enum coefficients_form)from, &record,
                                                     &record_bytes, &error),
                                 DECODE_OK);
                assert_int_equal(coefficients_convert(other, record, record_bytes,
                                                      (enum coefficients_form)to, &converted,
                                                      &converted_bytes, &error),
                                 DECODE_OK);
                assert_int_equal(coefficients_encode(one, jpeg, jpeg_bytes,
                                                     (enum coefficients_form)to, &record,
                                                     &record_bytes, &error),
                                 DECODE_OK);
                assert_int_equal(record_bytes, converted_bytes);
                assert_memory_equal(record, converted, record_bytes);
            }
        }
        free(jpeg);
    }
    coefficients_encoder_destroy(one);
    coefficients_encoder_destroy(other);
}

/* Any changed bit is noticed, by image_open() as by coefficients_check(). */
static void test_changed_records(void **state)
{
    struct jpeg_sample sample = {.width_px = 90, .height_px = 70, .color = SAMPLE_YCC};
    size_t jpeg_bytes = 0, record_bytes = 0;
    const uint8_t *record = NULL;
    struct decode_error error;
    struct coefficients_info info;
    struct image_info image;
    struct coefficients_encoder *encoder = coefficients_encoder_create(NULL);
    struct image_reader *reader = make_reader(KERNEL_AVX512);
    uint8_t *jpeg = jpeg_sample_make(&sample, &jpeg_bytes);
    (void)state;
    assert_int_equal(coefficients_encode(encoder, jpeg, jpeg_bytes, COEFFICIENTS_FAST, &record,
                                         &record_bytes, &error),
                     DECODE_OK);
    uint8_t *copy = malloc(record_bytes);
    memcpy(copy, record, record_bytes);
    for (int i = 0; i < 100000; i++) {
        uint32_t bit = random_below((uint32_t)(8 * record_bytes));
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(coefficients_check(copy, record_bytes, &info, &error), DECODE_OK);
        assert_int_not_equal(image_open(reader, copy, record_bytes, &image, &error), DECODE_OK);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < record_bytes; cut += 1 + cut / 20) {
        assert_int_not_equal(coefficients_check(copy, cut, &info, &error), DECODE_OK);
    }
    free(copy);
    free(jpeg);
    image_reader_destroy(reader);
    coefficients_encoder_destroy(encoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_grey),
        cmocka_unit_test(test_many_regions),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_damage_is_not_stored),
        cmocka_unit_test(test_changed_records),
        cmocka_unit_test(test_convert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
