#include "decode/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tools/jpeg_samples.h"

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % limit);
}

/* Decode a region, in bands of random height, to a dense picture that the caller frees. */
static enum decode_status decode_region(struct image_reader *reader, const uint8_t *bytes,
                                        size_t size_bytes, struct image_rect region,
                                        uint8_t **pixels, struct decode_error *error)
{
    struct image_info info;
    size_t row_bytes = (size_t)region.width_px * 3;
    *pixels = NULL;
    enum decode_status status = image_open(reader, bytes, size_bytes, &info, error);
    if (status != DECODE_OK || (status = image_start(reader, region, error)) != DECODE_OK) {
        return status;
    }
    *pixels = malloc(row_bytes * region.height_px);
    assert_non_null(*pixels);
    for (uint32_t y = 0;;) {
        const uint8_t *rows = NULL;
        size_t stride_bytes = 0;
        uint32_t count_max = 1 + random_below(40), count = 0;
        status = image_band(reader, count_max, &rows, &stride_bytes, &count, error);
        if (status != DECODE_OK) {
            return status;
        }
        assert_true(count <= count_max && count <= region.height_px - y);
        assert_int_equal(count == 0, y == region.height_px);
        if (count == 0) {
            return image_finish(reader, error);
        }
        for (uint32_t i = 0; i < count; i++) {
            memcpy(*pixels + (size_t)(y + i) * row_bytes, rows + i * stride_bytes, row_bytes);
        }
        uint8_t sum = 0;
        for (int i = 0; i < 64; i++) { /* readable, as promised; the sanitizer watches */
            sum = (uint8_t)(sum + rows[(count - 1) * stride_bytes + row_bytes + (size_t)i]);
        }
        (void)sum;
        y += count;
    }
}

static enum decode_status refuse(struct image_reader *reader, const uint8_t *bytes,
                                 size_t size_bytes, struct decode_error *error)
{
    struct image_rect corner = {0, 0, 1, 1};
    uint8_t *pixels = NULL;
    memset(error, 0, sizeof *error);
    enum decode_status status = decode_region(reader, bytes, size_bytes, corner, &pixels, error);
    free(pixels);
    if (status != DECODE_OK) {
        assert_int_equal(status, error->status);
        assert_true(error->reason[0] != '\0');
        assert_true(error->offset_bytes <= size_bytes);
    }
    return status;
}

static bool is_equal(const uint8_t *full, uint32_t width_px, struct image_rect region,
                     const uint8_t *pixels)
{
    size_t row_bytes = (size_t)region.width_px * 3;
    for (uint32_t y = 0; y < region.height_px; y++) {
        if (memcmp(full + ((size_t)(region.y_px + y) * width_px + region.x_px) * 3,
                   pixels + y * row_bytes, row_bytes) != 0) {
            return false;
        }
    }
    return true;
}

/* All regions of interest of one file against its full decode. */
static void check_sample(struct image_reader *reader, const struct jpeg_sample *sample,
                         uint32_t region_count)
{
    size_t size_bytes = 0;
    uint8_t *bytes = jpeg_sample_make(sample, &size_bytes);
    uint8_t *full = jpeg_sample_decode(bytes, size_bytes);
    for (uint32_t i = 0; i < region_count; i++) {
        struct image_rect region = {0, 0, sample->width_px, sample->height_px};
        struct decode_error error = {.reason = "pixels differ"};
        if (i > 0) {
            region.x_px = random_below(sample->width_px);
            region.y_px = random_below(sample->height_px);
            region.width_px = 1 + random_below(sample->width_px - region.x_px);
            region.height_px = 1 + random_below(sample->height_px - region.y_px);
        }
        uint8_t *pixels = NULL;
        enum decode_status status =
            decode_region(reader, bytes, size_bytes, region, &pixels, &error);
        if (status != DECODE_OK || !is_equal(full, sample->width_px, region, pixels)) {
            fail_msg("%ux%u color %d sampling %u%u,%u%u,%u%u progressive %d split %d arithmetic %d "
                     "restart %u: region %u,%u %ux%u: %s",
                     sample->width_px, sample->height_px, (int)sample->color,
                     sample->sampling[0][0], sample->sampling[0][1], sample->sampling[1][0],
                     sample->sampling[1][1], sample->sampling[2][0], sample->sampling[2][1],
                     sample->is_progressive, sample->is_split, sample->is_arithmetic,
                     sample->restart_interval, region.x_px, region.y_px, region.width_px,
                     region.height_px, error.reason);
        }
        free(pixels);
    }
    free(full);
    free(bytes);
}

static const uint8_t samplings[][4][2] = {
    {{1, 1}, {1, 1}, {1, 1}, {1, 1}}, /* 4:4:4 */
    {{2, 1}, {1, 1}, {1, 1}, {2, 1}}, /* 4:2:2 */
    {{2, 2}, {1, 1}, {1, 1}, {2, 2}}, /* 4:2:0 */
    {{1, 2}, {1, 1}, {1, 1}, {1, 2}}, /* 4:4:0 */
    {{4, 1}, {1, 1}, {1, 1}, {1, 1}}, /* 4:1:1 */
    {{4, 2}, {1, 1}, {1, 1}, {0, 0}}, /* 4:1:0 */
    {{1, 4}, {1, 1}, {1, 1}, {0, 0}}, /* and what nobody makes but the format allows */
    {{2, 4}, {1, 1}, {1, 1}, {0, 0}}, {{3, 1}, {1, 1}, {1, 1}, {1, 1}},
    {{1, 1}, {2, 2}, {2, 2}, {1, 1}}, {{2, 2}, {1, 2}, {2, 1}, {1, 1}},
    {{2, 2}, {2, 1}, {1, 1}, {1, 1}}, {{4, 1}, {2, 1}, {2, 1}, {1, 1}},
    {{2, 2}, {2, 2}, {1, 1}, {0, 0}}, {{1, 2}, {1, 1}, {1, 2}, {1, 1}},
};
enum { SAMPLING_COUNT = sizeof samplings / sizeof samplings[0] };

static const uint32_t sizes[][2] = {{1, 1},  {1, 40},  {40, 1},  {2, 3},    {5, 5},
                                    {8, 8},  {16, 16}, {17, 17}, {33, 31},  {64, 48},
                                    {75, 9}, {9, 75},  {97, 61}, {130, 67}, {31, 200}};
enum { SIZE_COUNT = sizeof sizes / sizeof sizes[0] };

/* `kind` numbers the ways to store the same picture. */
static void check_kinds(const struct jpeg_sample *base, uint32_t region_count)
{
    struct image_reader *reader = image_reader_create(NULL);
    assert_non_null(reader);
    for (size_t s = 0; s < SAMPLING_COUNT; s++) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            struct jpeg_sample sample = *base;
            memcpy(sample.sampling, samplings[s], sizeof sample.sampling);
            sample.width_px = sizes[i][0];
            sample.height_px = sizes[i][1];
            sample.seed = s * 100 + i;
            if (sample.color == SAMPLE_CMYK || sample.color == SAMPLE_YCCK) {
                if (sample.sampling[3][0] == 0) {
                    continue; /* more blocks in an MCU than the format allows */
                }
            }
            check_sample(reader, &sample, region_count);
        }
    }
    image_reader_destroy(reader);
}

static void test_baseline(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC}, 40);
}

static void test_progressive(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC, .is_progressive = true}, 12);
}

static void test_arithmetic(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC, .is_arithmetic = true}, 8);
}

static void test_split_scans(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC, .is_split = true}, 12);
}

static void test_restart_markers(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC, .restart_interval = 1}, 12);
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCC, .restart_interval = 5}, 12);
}

static void test_other_colors(void **state)
{
    (void)state;
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_RGB}, 8);
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_CMYK}, 8);
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCCK}, 8);
    check_kinds(&(struct jpeg_sample){.color = SAMPLE_YCCK, .is_progressive = true}, 8);
}

static void test_grey(void **state)
{
    (void)state;
    static const uint8_t factors[][2] = {{1, 1}, {2, 2}, {4, 1}, {1, 3}};
    struct image_reader *reader = image_reader_create(NULL);
    for (size_t f = 0; f < 4; f++) {
        for (size_t i = 0; i < SIZE_COUNT * 2; i++) {
            struct jpeg_sample sample = {.width_px = sizes[i / 2][0],
                                         .height_px = sizes[i / 2][1],
                                         .color = SAMPLE_GREY,
                                         .is_progressive = i % 2 != 0,
                                         .seed = i};
            memcpy(sample.sampling[0], factors[f], 2);
            check_sample(reader, &sample, 12);
        }
    }
    image_reader_destroy(reader);
}

/* Every place of every narrow region, where the left and right edges meet. */
static void test_every_column(void **state)
{
    (void)state;
    struct image_reader *reader = image_reader_create(NULL);
    for (size_t s = 0; s < 5; s++) {
        struct jpeg_sample sample = {.width_px = 83, .height_px = 19, .color = SAMPLE_YCC};
        memcpy(sample.sampling, samplings[s], sizeof sample.sampling);
        size_t size_bytes = 0;
        uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
        uint8_t *full = jpeg_sample_decode(bytes, size_bytes);
        for (uint32_t x = 0; x < 83; x++) {
            for (uint32_t width = 1; width <= 83 - x; width += width < 4 ? 1 : 13) {
                uint8_t *pixels = NULL;
                struct image_rect region = {x, x % 19, width, 19 - x % 19};
                assert_int_equal(decode_region(reader, bytes, size_bytes, region, &pixels, NULL),
                                 DECODE_OK);
                assert_true(is_equal(full, 83, region, pixels));
                free(pixels);
            }
        }
        free(full);
        free(bytes);
    }
    image_reader_destroy(reader);
}

/* Every first row with every number of rows after it. */
static void test_every_row(void **state)
{
    (void)state;
    struct image_reader *reader = image_reader_create(NULL);
    for (size_t s = 0; s < SAMPLING_COUNT; s++) {
        struct jpeg_sample sample = {.width_px = 41, .height_px = 71, .color = SAMPLE_YCC};
        memcpy(sample.sampling, samplings[s], sizeof sample.sampling);
        size_t size_bytes = 0;
        uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
        uint8_t *full = jpeg_sample_decode(bytes, size_bytes);
        for (uint32_t y = 0; y < 71; y++) {
            uint8_t *pixels = NULL;
            struct image_rect region = {3, y, 30, 71 - y};
            assert_int_equal(decode_region(reader, bytes, size_bytes, region, &pixels, NULL),
                             DECODE_OK);
            if (!is_equal(full, 41, region, pixels)) {
                fail_msg("sampling %zu, first row %u", s, y);
            }
            free(pixels);
        }
        free(full);
        free(bytes);
    }
    image_reader_destroy(reader);
}

static void test_truncated(void **state)
{
    (void)state;
    struct image_reader *reader = image_reader_create(NULL);
    for (int progressive = 0; progressive < 2; progressive++) {
        struct jpeg_sample sample = {.width_px = 50,
                                     .height_px = 40,
                                     .color = SAMPLE_YCC,
                                     .is_progressive = progressive != 0};
        struct decode_error error;
        size_t size_bytes = 0;
        uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
        assert_int_equal(refuse(reader, bytes, size_bytes, &error), DECODE_OK);
        for (size_t size = 3; size < size_bytes - 2; size++) {
            uint8_t *cut = malloc(size); /* exact, so that the sanitizer sees a read past it */
            memcpy(cut, bytes, size);
            assert_int_equal(refuse(reader, cut, size, &error), DECODE_TRUNCATED);
            free(cut);
        }
        free(bytes);
    }
    image_reader_destroy(reader);
}

/* An image without tables must not be decoded with those of the image before. */
static void test_nothing_is_carried_over(void **state)
{
    (void)state;
    struct image_reader *reader = image_reader_create(NULL);
    struct decode_error error;
    struct jpeg_sample sample = {.width_px = 16, .height_px = 16, .color = SAMPLE_YCC};
    size_t size_bytes = 0;
    uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
    assert_int_equal(refuse(reader, bytes, size_bytes, &error), DECODE_OK);
    for (size_t i = 2; bytes[i + 1] != 0xda;) { /* make every table a comment */
        if (bytes[i + 1] == 0xdb) {
            bytes[i + 1] = 0xfe;
        }
        i += 2u + (size_t)(bytes[i + 2] << 8) + bytes[i + 3];
    }
    assert_int_equal(refuse(reader, bytes, size_bytes, &error), DECODE_CORRUPT);
    free(bytes);
    image_reader_destroy(reader);
}

static void test_limits(void **state)
{
    (void)state;
    struct image_limits limits = {.pixels_max = 50 * 40, .scans_max = 3};
    struct image_reader *reader = image_reader_create(&limits);
    struct jpeg_sample sample = {.width_px = 50, .height_px = 40, .color = SAMPLE_YCC};
    struct decode_error error;
    for (int i = 0; i < 3; i++) {
        size_t size_bytes = 0;
        sample.height_px = i == 1 ? 41 : 40;
        sample.is_progressive = i == 2;
        uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
        assert_int_equal(refuse(reader, bytes, size_bytes, &error),
                         i == 0 ? DECODE_OK : DECODE_TOO_LARGE);
        free(bytes);
    }
    image_reader_destroy(reader);
}

static void test_not_an_image(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size_bytes;
        enum decode_status status;
        const char *reason;
    } cases[] = {
        {"", 0, DECODE_CORRUPT, "not an image: there are no bytes"},
        {"hello, world", 12, DECODE_CORRUPT, "not an image: begins with 68 65 6c 6c 6f 2c 20 77"},
        {"\xff", 1, DECODE_CORRUPT, "not an image: begins with ff"},
        {"GIF89a", 6, DECODE_UNSUPPORTED, "a GIF image; JPEG, PNG and WebP are read"},
        {"BM      ", 8, DECODE_UNSUPPORTED, "a BMP image; JPEG, PNG and WebP are read"},
        {"\xff\xd8\xff", 3, DECODE_TRUNCATED, NULL},
        {"\x89PNG\r\n\x1a\n", 8, DECODE_TRUNCATED, NULL},
        {"RIFF\0\0\0\0WEBPVP8 ", 16, DECODE_TRUNCATED, NULL},
    };
    struct image_reader *reader = image_reader_create(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct decode_error error;
        const uint8_t *bytes = (const uint8_t *)cases[i].bytes;
        assert_int_equal(refuse(reader, bytes, cases[i].size_bytes, &error), cases[i].status);
        if (cases[i].reason != NULL) {
            assert_string_equal(error.reason, cases[i].reason);
        }
    }
    image_reader_destroy(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_baseline),
        cmocka_unit_test(test_progressive),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_split_scans),
        cmocka_unit_test(test_restart_markers),
        cmocka_unit_test(test_other_colors),
        cmocka_unit_test(test_grey),
        cmocka_unit_test(test_every_column),
        cmocka_unit_test(test_every_row),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_nothing_is_carried_over),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_not_an_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
