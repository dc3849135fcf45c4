/*
 * fuzz_coefficients.c - any bytes as a coefficient record. The checksum is put right first, so that
 * what lies behind it is reached. Whatever the record holds, the three kernel levels must agree on
 * it, a region must have the pixels of the whole, and no foreign memory be touched. Bytes that are
 * a JPEG are made a record of, which must have the JPEG's pixels.
 */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "decode/coefficient_format.h"
#include "decode/coefficients.h"
#include "decode/image.h"
#include "tests/tools/jpeg_samples.h"

enum { PIXELS_MAX = 1 << 17, SCANS_MAX = 20, LEVEL_COUNT = 3 };

static const enum kernel_level levels[LEVEL_COUNT] = {KERNEL_AVX512, KERNEL_AVX2, KERNEL_SCALAR};

static struct image_limits limits_of(enum kernel_level level)
{
    return (struct image_limits){
        .pixels_max = PIXELS_MAX, .scans_max = SCANS_MAX, .level_max = level};
}

/* Decode `region`, or all of the image when its width is 0; NULL when refused. */
static uint8_t *decode(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                       struct image_rect *region)
{
    struct decode_error error;
    struct image_info info;
    if (image_open(reader, bytes, size_bytes, &info, &error) != DECODE_OK) {
        return NULL;
    }
    if (region->width_px == 0) {
        *region = (struct image_rect){0, 0, info.width_px, info.height_px};
    }
    if (image_start(reader, *region, &error) != DECODE_OK) {
        return NULL;
    }
    size_t row_bytes = (size_t)region->width_px * 3;
    uint8_t *pixels = malloc(row_bytes * region->height_px);
    for (uint32_t y = 0;;) {
        const uint8_t *rows = NULL;
        size_t stride_bytes = 0;
        uint32_t count = 0;
        if (image_band(reader, 7, &rows, &stride_bytes, &count, &error) != DECODE_OK ||
            (count == 0 && image_finish(reader, &error) != DECODE_OK)) {
            free(pixels);
            return NULL;
        }
        if (count == 0) {
            return pixels;
        }
        for (uint32_t i = 0; i < count; i++, y++) {
            memcpy(pixels + y * row_bytes, rows + i * stride_bytes, row_bytes);
        }
    }
}

static void check_region(struct image_reader *reader, const uint8_t *record, size_t record_bytes,
                         struct image_rect whole, const uint8_t *pixels)
{
    const uint8_t *tail = record + record_bytes - 4;
    struct image_rect region = {tail[0] % whole.width_px, tail[1] % whole.height_px, 0, 0};
    region.width_px = 1 + tail[2] % (whole.width_px - region.x_px);
    region.height_px = 1 + tail[3] % (whole.height_px - region.y_px);
    uint8_t *part = decode(reader, record, record_bytes, &region);
    for (uint32_t y = 0; y < region.height_px; y++) {
        size_t at = ((size_t)(region.y_px + y) * whole.width_px + region.x_px) * 3;
        if (part == NULL || memcmp(pixels + at, part + (size_t)y * region.width_px * 3,
                                   (size_t)region.width_px * 3) != 0) {
            abort();
        }
    }
    free(part);
}

/* `expected`: the whole's pixels, or NULL if they are not known. Levels need to agree only on what
 * an encoder could have made: libjpeg's IDCT overflows in other ways than ours. */
static void check_record(const uint8_t *record, size_t record_bytes, const uint8_t *expected)
{
    uint8_t *pixels[LEVEL_COUNT];
    struct image_rect whole = {0, 0, 0, 0};
    for (int i = 0; i < LEVEL_COUNT; i++) {
        struct image_limits limits = limits_of(levels[i]);
        struct image_reader *reader = image_reader_create(&limits);
        whole.width_px = 0;
        pixels[i] = decode(reader, record, record_bytes, &whole);
        if (pixels[i] != NULL) {
            check_region(reader, record, record_bytes, whole, pixels[i]);
        }
        image_reader_destroy(reader);
    }
    size_t bytes = 3 * (size_t)whole.width_px * whole.height_px;
    bool is_good = pixels[0] != NULL;
    if (is_good != (pixels[1] != NULL) || is_good != (pixels[2] != NULL) ||
        (is_good && memcmp(pixels[0], pixels[1], bytes) != 0) ||
        (expected != NULL && (!is_good || memcmp(expected, pixels[0], bytes) != 0 ||
                              memcmp(expected, pixels[2], bytes) != 0))) {
        abort();
    }
    for (int i = 0; i < LEVEL_COUNT; i++) {
        free(pixels[i]);
    }
}

/* A record of the other form that is made of one has its pixels. */
static void check_convert(const uint8_t *record, size_t record_bytes)
{
    struct image_limits limits = limits_of(KERNEL_AVX512);
    struct coefficients_encoder *encoder = coefficients_encoder_create(&limits);
    struct image_reader *reader = image_reader_create(&limits);
    struct image_rect whole = {0, 0, 0, 0};
    uint8_t *pixels = decode(reader, record, record_bytes, &whole);
    for (int form = COEFFICIENTS_FAST; form <= COEFFICIENTS_COMPACT && pixels != NULL; form++) {
        const uint8_t *converted = NULL;
        size_t converted_bytes = 0;
        struct decode_error error;
        if (coefficients_convert(encoder, record, record_bytes, (enum coefficients_form)form,
                                 &converted, &converted_bytes, &error) != DECODE_OK) {
            abort();
        }
        uint8_t *same = decode(reader, converted, converted_bytes, &whole);
        if (same == NULL ||
            memcmp(same, pixels, 3 * (size_t)whole.width_px * whole.height_px) != 0) {
            abort();
        }
        free(same);
    }
    free(pixels);
    image_reader_destroy(reader);
    coefficients_encoder_destroy(encoder);
}

/* What is stored of a JPEG is what the direct path decodes. */
static void check_jpeg(const uint8_t *jpeg, size_t jpeg_bytes)
{
    struct image_limits limits = limits_of(KERNEL_AVX512);
    struct coefficients_encoder *encoder = coefficients_encoder_create(&limits);
    struct image_reader *reader = image_reader_create(&limits);
    for (int form = COEFFICIENTS_FAST; form <= COEFFICIENTS_COMPACT; form++) {
        const uint8_t *record = NULL;
        size_t record_bytes = 0;
        struct decode_error error;
        if (coefficients_encode(encoder, jpeg, jpeg_bytes, (enum coefficients_form)form, &record,
                                &record_bytes, &error) != DECODE_OK) {
            break;
        }
        struct image_rect whole = {0, 0, 0, 0};
        uint8_t *pixels = decode(reader, jpeg, jpeg_bytes, &whole);
        if (pixels == NULL) {
            abort();
        }
        check_record(record, record_bytes, pixels);
        free(pixels);
    }
    image_reader_destroy(reader);
    coefficients_encoder_destroy(encoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    if (size_bytes >= 2 && bytes[0] == 0xff) {
        check_jpeg(bytes, size_bytes);
        return 0;
    }
    uint8_t *record = malloc(size_bytes > 0 ? size_bytes : 1);
    memcpy(record, bytes, size_bytes);
    if (size_bytes >= COEFFICIENT_HEADER_BYTES) {
        memcpy(record, coefficient_magic, COEFFICIENT_MAGIC_BYTES);
        put_u32(record + HEADER_SIZE, (uint32_t)size_bytes);
        put_u64(record + HEADER_CHECKSUM, coefficient_checksum(record, size_bytes));
        check_record(record, size_bytes, NULL);
        if (bytes[size_bytes - 1] % 8 == 0) {
            check_convert(record, size_bytes);
        }
    }
    free(record);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    static const struct jpeg_sample samples[] = {
        {.width_px = 45, .height_px = 37, .color = SAMPLE_GREY},
        {.width_px = 45, .height_px = 37, .color = SAMPLE_YCC},
        {.width_px = 145, .height_px = 17, .color = SAMPLE_YCC, .sampling = {{2, 2}}},
        {.width_px = 149, .height_px = 9, .color = SAMPLE_YCC, .sampling = {{2, 1}}},
        {.width_px = 23, .height_px = 37, .color = SAMPLE_YCC, .sampling = {{1, 2}}},
        {.width_px = 45, .height_px = 37, .color = SAMPLE_RGB, .quality = 100},
        {.width_px = 3, .height_px = 70, .color = SAMPLE_YCC, .sampling = {{4, 1}}},
        {.width_px = 60, .height_px = 40, .color = SAMPLE_YCC, .quality = 100},
    };
    enum { SAMPLE_COUNT = sizeof samples / sizeof samples[0], FORMS = 3 };
    if (index >= FORMS * SAMPLE_COUNT) {
        return 0;
    }
    struct jpeg_sample sample = samples[index / FORMS];
    for (int i = 1; i < 3; i++) {
        sample.sampling[i][0] = sample.sampling[i][1] = 1;
    }
    sample.sampling[0][0] = sample.sampling[0][0] == 0 ? 1 : sample.sampling[0][0];
    sample.sampling[0][1] = sample.sampling[0][1] == 0 ? 1 : sample.sampling[0][1];
    const uint8_t *bytes = NULL;
    size_t size = 0;
    struct decode_error error;
    struct coefficients_encoder *encoder = coefficients_encoder_create(NULL);
    uint8_t *jpeg = jpeg_sample_make(&sample, &size);
    bytes = jpeg;
    if (index % FORMS != 0 &&
        coefficients_encode(encoder, jpeg, size, (enum coefficients_form)(index % FORMS), &bytes,
                            &size, &error) != DECODE_OK) {
        abort();
    }
    size = size < size_max_bytes ? size : size_max_bytes;
    memcpy(buffer, bytes, size);
    free(jpeg);
    coefficients_encoder_destroy(encoder);
    return size;
}
