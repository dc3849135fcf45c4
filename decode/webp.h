/*
 * webp.h - WebP by libwebp: lossy, lossless, with alpha (which is dropped), first frame.
 */
#ifndef PENSTOCK_DECODE_WEBP_H
#define PENSTOCK_DECODE_WEBP_H

#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/status.h"

/* The bytes begin as a WebP does. Fills width_px and height_px of *info. */
enum decode_status webp_open(const uint8_t *bytes, size_t size_bytes,
                             const struct image_limits *limits, struct image_info *info,
                             struct decode_error *error);

/* Decode the first frame and put `region` of the image into `target`: rows of region.width_px RGB
 * triples without gaps, which the caller has set to zero. Takes 4 bytes a pixel meanwhile. */
enum decode_status webp_decode(const uint8_t *bytes, size_t size_bytes, struct image_rect region,
                               uint8_t *target, struct decode_error *error);

#endif /* PENSTOCK_DECODE_WEBP_H */
