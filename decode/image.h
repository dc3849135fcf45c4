/*
 * image.h - one compressed image in, bands of RGB rows out.
 *
 *     image_open -> image_start(region) -> image_band ... -> image_finish
 *
 * Formats    JPEG (all that libjpeg-turbo reads), PNG, WebP, and records of a JPEG's coefficients
 *            (coefficients.h); found by content, never by name.
 * Result     What Pillow's Image.open(f).convert("RGB") gives, to the bit: 8-bit R,G,B, no EXIF
 *            rotation, alpha dropped, first frame only. Every region of an image equals the same
 *            region of its full decode. What Pillow refuses is refused here.
 * Ownership  A reader belongs to one thread and is reused for any number of images; the
 *            compressed bytes are borrowed from image_open to image_finish (or to the next
 *            image_open, which abandons the image before it; image_start may be called once).
 * Errors     Returned as enum decode_status with the story in *error (see status.h). After an
 *            error only image_open and image_reader_destroy may follow.
 */
#ifndef PENSTOCK_DECODE_IMAGE_H
#define PENSTOCK_DECODE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/kernels.h"
#include "decode/status.h"

struct image_limits {
    uint64_t pixels_max; /* width * height above this is DECODE_TOO_LARGE */
    uint32_t scans_max;  /* scans of a progressive JPEG above this are DECODE_TOO_LARGE */
    bool plain_huffman;  /* libjpeg-turbo's entropy decoder also where ours would do: the twin */
    enum kernel_level level_max; /* of the kernels for coefficient records */
};

enum {
    IMAGE_PIXELS_MAX_DEFAULT = 178956970, /* where Pillow raises DecompressionBombError */
    IMAGE_SCANS_MAX_DEFAULT = 100,
};

enum image_format { IMAGE_JPEG = 1, IMAGE_PNG, IMAGE_WEBP, IMAGE_COEFFICIENTS };

struct image_info {
    enum image_format format;
    uint32_t width_px;  /* >= 1 */
    uint32_t height_px; /* >= 1 */
};

/* A rectangle inside an image: 0 <= x, x + width <= image width, and so for y. */
struct image_rect {
    uint32_t x_px, y_px, width_px, height_px;
};

struct image_reader;

/* NULL when memory is short. `limits` is copied; NULL means the defaults above. */
struct image_reader *image_reader_create(const struct image_limits *limits);
void image_reader_destroy(struct image_reader *reader); /* NULL is accepted */

/* Read the header of the image in bytes[0, size_bytes). */
enum decode_status image_open(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                              struct image_info *info, struct decode_error *error);

/* Get ready to deliver the rows of `region`, top to bottom. */
enum decode_status image_start(struct image_reader *reader, struct image_rect region,
                               struct decode_error *error);

/* The next rows of the region: at most row_count_max (>= 1), at least one while rows are left,
 * *row_count == 0 when all were delivered. Row i begins at *rows + i * *stride_bytes and holds
 * region.width_px RGB triples; at least 64 readable bytes follow the last row, so that vector
 * code may load past it. Borrowed until the next call on this reader. */
enum decode_status image_band(struct image_reader *reader, uint32_t row_count_max,
                              const uint8_t **rows, size_t *stride_bytes, uint32_t *row_count,
                              struct decode_error *error);

/* Give up the image that image_start() began. The verdict on its tail: a JPEG without an
 * end-of-image marker after its first scan is decoded on to its last row, and is DECODE_TRUNCATED
 * if its bytes do not last, as it is for Pillow. May be called once all rows that the caller
 * wants were read. */
enum decode_status image_finish(struct image_reader *reader, struct decode_error *error);

#endif /* PENSTOCK_DECODE_IMAGE_H */
