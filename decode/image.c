#include "decode/image.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/coefficient_reader.h"
#include "decode/coefficients.h"
#include "decode/jpeg.h"
#include "decode/png.h"
#include "decode/webp.h"

enum { TAIL_BYTES = 64 }; /* readable after the last row, as the header promises */

struct image_reader {
    struct image_limits limits;
    struct image_info info;
    const uint8_t *bytes;
    size_t size_bytes;
    struct jpeg_reader *jpeg;
    struct coefficient_reader *coefficients;
    struct png_header png;
    struct image_rect region;
    uint32_t row_next; /* of the region, PNG and WebP */
    uint8_t *pixels;   /* the whole region, PNG and WebP; NULL otherwise */
};

struct image_reader *image_reader_create(const struct image_limits *limits)
{
    static const struct image_limits defaults = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                                                 .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                                                 .level_max = KERNEL_AVX512};
    struct image_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return NULL;
    }
    reader->limits = limits != NULL ? *limits : defaults;
    reader->jpeg = jpeg_reader_create(&reader->limits);
    if (reader->jpeg != NULL) {
        reader->coefficients = coefficient_reader_create(&reader->limits, reader->jpeg);
    }
    if (reader->coefficients == NULL) {
        jpeg_reader_destroy(reader->jpeg);
        free(reader);
        return NULL;
    }
    return reader;
}

static void close_image(struct image_reader *reader)
{
    jpeg_reader_close(reader->jpeg);
    free(reader->pixels);
    reader->pixels = NULL;
}

void image_reader_destroy(struct image_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    close_image(reader);
    coefficient_reader_destroy(reader->coefficients);
    jpeg_reader_destroy(reader->jpeg);
    free(reader);
}

/* First bytes of the formats that people have in their folders, to name what is refused. */
struct signature {
    const char *format;
    const char *bytes;
    size_t size_bytes;
    size_t offset_bytes;
};

static const struct signature known_formats[] = {
    {"GIF", "GIF8", 4, 0},
    {"BMP", "BM", 2, 0},
    {"TIFF", "II*\0", 4, 0},
    {"TIFF", "MM\0*", 4, 0},
    {"PSD", "8BPS", 4, 0},
    {"ICO", "\0\0\1\0", 4, 0},
    {"DDS", "DDS ", 4, 0},
    {"JPEG XL", "\xff\x0a", 2, 0},
    {"AVIF", "ftypavif", 8, 4},
    {"HEIF", "ftypheic", 8, 4},
    {"HEIF", "ftypmif1", 8, 4},
    {"JPEG 2000", "\0\0\0\x0cjP  ", 8, 0},
    {"JPEG 2000", "\xff\x4f\xff\x51", 4, 0},
    {"PPM", "P1", 2, 0},
    {"PPM", "P2", 2, 0},
    {"PPM", "P3", 2, 0},
    {"PPM", "P4", 2, 0},
    {"PPM", "P5", 2, 0},
    {"PPM", "P6", 2, 0},
};

static bool begins_with(const uint8_t *bytes, size_t size_bytes, const char *prefix, size_t length,
                        size_t offset)
{
    return size_bytes >= offset + length && memcmp(bytes + offset, prefix, length) == 0;
}

static enum decode_status refuse_unknown(const uint8_t *bytes, size_t size_bytes,
                                         struct decode_error *error)
{
    if (size_bytes == 0) {
        return decode_fail(error, DECODE_CORRUPT, 0, "not an image: there are no bytes");
    }
    for (size_t i = 0; i < sizeof known_formats / sizeof known_formats[0]; i++) {
        const struct signature *known = &known_formats[i];
        if (begins_with(bytes, size_bytes, known->bytes, known->size_bytes, known->offset_bytes)) {
            return decode_fail(error, DECODE_UNSUPPORTED, 0,
                               "a %s image; JPEG, PNG and WebP are read", known->format);
        }
    }
    char text[64];
    size_t length = 0;
    for (size_t i = 0; i < size_bytes && i < 8; i++) {
        length += (size_t)snprintf(text + length, sizeof text - length, " %02x", bytes[i]);
    }
    return decode_fail(error, DECODE_CORRUPT, 0, "not an image: begins with%s", text);
}

static bool is_webp(const uint8_t *bytes, size_t size_bytes)
{
    return begins_with(bytes, size_bytes, "RIFF", 4, 0) &&
           begins_with(bytes, size_bytes, "WEBPVP8", 7, 8) && size_bytes > 15 &&
           (bytes[15] == ' ' || bytes[15] == 'X' || bytes[15] == 'L');
}

enum decode_status image_open(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                              struct image_info *info, struct decode_error *error)
{
    enum decode_status status = DECODE_OK;
    close_image(reader);
    reader->bytes = bytes;
    reader->size_bytes = size_bytes;
    if (begins_with(bytes, size_bytes, "\xff\xd8\xff", 3, 0)) {
        reader->info.format = IMAGE_JPEG;
        status = jpeg_reader_open(reader->jpeg, bytes, size_bytes, &reader->info, error);
    } else if (begins_with(bytes, size_bytes, "\x89PNG\r\n\x1a\n", 8, 0)) {
        reader->info.format = IMAGE_PNG;
        status = png_open(bytes, size_bytes, &reader->limits, &reader->png, error);
        reader->info.width_px = reader->png.width_px;
        reader->info.height_px = reader->png.height_px;
    } else if (is_webp(bytes, size_bytes)) {
        reader->info.format = IMAGE_WEBP;
        status = webp_open(bytes, size_bytes, &reader->limits, &reader->info, error);
    } else if (coefficients_is_record(bytes, size_bytes)) {
        reader->info.format = IMAGE_COEFFICIENTS;
        status =
            coefficient_reader_open(reader->coefficients, bytes, size_bytes, &reader->info, error);
    } else {
        return refuse_unknown(bytes, size_bytes, error);
    }
    *info = reader->info;
    return status;
}

/* PNG and WebP are decoded whole, so that damage anywhere is seen; the region is kept. */
static enum decode_status decode_region(struct image_reader *reader, struct decode_error *error)
{
    size_t row_bytes = (size_t)reader->region.width_px * 3;
    reader->row_next = 0;
    reader->pixels = calloc(1, row_bytes * reader->region.height_px + TAIL_BYTES);
    if (reader->pixels == NULL) {
        return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for %u x %u pixels",
                           (unsigned)reader->region.width_px, (unsigned)reader->region.height_px);
    }
    if (reader->info.format == IMAGE_PNG) {
        return png_decode(reader->bytes, reader->size_bytes, &reader->png, reader->region,
                          reader->pixels, error);
    }
    return webp_decode(reader->bytes, reader->size_bytes, reader->region, reader->pixels, error);
}

enum decode_status image_start(struct image_reader *reader, struct image_rect region,
                               struct decode_error *error)
{
    const struct image_info *info = &reader->info;
    assert(region.width_px >= 1 && region.height_px >= 1);
    assert(region.x_px < info->width_px && region.width_px <= info->width_px - region.x_px);
    assert(region.y_px < info->height_px && region.height_px <= info->height_px - region.y_px);
    reader->region = region;
    if (info->format == IMAGE_JPEG) {
        return jpeg_reader_start(reader->jpeg, region, error);
    }
    if (info->format == IMAGE_COEFFICIENTS) {
        return coefficient_reader_start(reader->coefficients, region, error);
    }
    return decode_region(reader, error);
}

enum decode_status image_band(struct image_reader *reader, uint32_t row_count_max,
                              const uint8_t **rows, size_t *stride_bytes, uint32_t *row_count,
                              struct decode_error *error)
{
    assert(row_count_max >= 1);
    if (reader->info.format == IMAGE_JPEG) {
        return jpeg_reader_band(reader->jpeg, row_count_max, rows, stride_bytes, row_count, error);
    }
    if (reader->info.format == IMAGE_COEFFICIENTS) {
        return coefficient_reader_band(reader->coefficients, row_count_max, rows, stride_bytes,
                                       row_count, error);
    }
    uint32_t left = reader->region.height_px - reader->row_next;
    *stride_bytes = (size_t)reader->region.width_px * 3;
    *rows = reader->pixels + reader->row_next * *stride_bytes;
    *row_count = left < row_count_max ? left : row_count_max;
    reader->row_next += *row_count;
    return DECODE_OK;
}

enum decode_status image_finish(struct image_reader *reader, struct decode_error *error)
{
    enum decode_status status = DECODE_OK;
    if (reader->info.format == IMAGE_JPEG) {
        status = jpeg_reader_finish(reader->jpeg, error);
    } else if (reader->info.format == IMAGE_COEFFICIENTS) {
        status = coefficient_reader_finish(reader->coefficients, error);
    }
    close_image(reader);
    return status;
}
