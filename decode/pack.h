/*
 * pack.h - a finished RGB picture into its place in the batch: mirror, layout, type, normalise.
 *
 * Arithmetic of the float types, in this order and in IEEE single precision without fused
 * multiply-add, as torchvision v2's to_dtype(scale=True) and normalize do it (see
 * tests/python/test_pack_*.py):
 *     value = pixel * (1/255) or pixel / 255, whichever torchvision uses   [scale]
 *     value = (value - mean[c]) / std[c]                                   [normalize]
 * then one rounding (to nearest even) to the target type.
 */
#ifndef PENSTOCK_DECODE_PACK_H
#define PENSTOCK_DECODE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/kernels.h"

enum pack_dtype { PACK_U8 = 1, PACK_F32, PACK_F16, PACK_BF16 };
enum pack_layout { PACK_NCHW = 1, PACK_NHWC };

struct pack_format {
    enum pack_dtype dtype;
    enum pack_layout layout;
    bool scale;     /* floats only: 0..255 becomes 0..1 */
    bool normalize; /* floats only: subtract mean, divide by std */
    float mean[3];
    float std[3]; /* no zeros */
};

/* Bytes of one value: 1, 4, 2, 2. */
size_t pack_dtype_bytes(enum pack_dtype dtype);

/* Write width_px * height_px RGB pixels to `target`, dense, in the given format. `source` rows are
 * source_stride_bytes apart. With mirror_x columns are reversed, with mirror_y rows are. Writes
 * exactly 3 * width * height * pack_dtype_bytes() bytes and reads only the pixels themselves. */
void pack_image(const struct kernels *kernels, const struct pack_format *format,
                const uint8_t *source, size_t source_stride_bytes, uint32_t width_px,
                uint32_t height_px, bool mirror_x, bool mirror_y, void *target);

#endif /* PENSTOCK_DECODE_PACK_H */
