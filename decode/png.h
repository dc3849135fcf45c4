/*
 * png.h - PNG, chunk by chunk as Pillow reads it.
 *
 * PNG libraries are stricter than Pillow in places (checksums of pixel data, chunk order) and
 * more lenient in others (broken side chunks), and what is refused has to be the same. So the
 * chunks are walked here, by Pillow's rules:
 *   - checksums and side chunks before the pixels must be right; checksums after them are not read;
 *   - a compressed profile or text of more than 1 MiB is refused;
 *   - pixel data that ends early, but with a row, leaves the rest at sample 0 (mostly black);
 *   - of an animation the first frame is read, with the same around it where it is smaller.
 */
#ifndef PENSTOCK_DECODE_PNG_H
#define PENSTOCK_DECODE_PNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/status.h"

enum png_color {
    PNG_GREY = 0,
    PNG_RGB = 2,
    PNG_PALETTE = 3,
    PNG_GREY_ALPHA = 4,
    PNG_RGB_ALPHA = 6,
};

/* What the chunks up to the first pixel data say. */
struct png_header {
    uint32_t width_px, height_px;
    uint8_t depth_bits;
    enum png_color color;
    bool is_interlaced;
    struct image_rect frame;    /* the part of the image that the pixel data fills */
    uint8_t lookup[256][3];     /* palette, or the greys, for samples of at most 8 bits */
    size_t data_offset_bytes;   /* first pixel data: this offset, */
    uint32_t data_length_bytes; /* as many bytes as its chunk claims */
    bool is_animated;           /* has frames after the first */
    bool has_sequence;          /* an animation chunk was seen; the last had this number: */
    uint32_t sequence;
};

/* Bits of one pixel in a row: 1 to 64. */
unsigned png_pixel_bits(const struct png_header *header);

enum decode_status png_open(const uint8_t *bytes, size_t size_bytes,
                            const struct image_limits *limits, struct png_header *header,
                            struct decode_error *error);

/* Decode the whole stream, for the verdict on it, and put `region` of the image into `target`:
 * rows of region.width_px RGB triples without gaps, which the caller has set to zero. */
enum decode_status png_decode(const uint8_t *bytes, size_t size_bytes,
                              const struct png_header *header, struct image_rect region,
                              uint8_t *target, struct decode_error *error);

#endif /* PENSTOCK_DECODE_PNG_H */
