/* pack.c - rows of RGB into the batch: which kernel, in which order. */
#include "decode/pack.h"

#include <string.h>

#include "decode/kernels_table.h"

/* Pixels that go through a buffer on the stack at a time; a multiple of PACK_PATTERN_SIZE, so that
 * the pattern of constants begins anew with each run. */
enum { RUN_PIXELS = 5 * PACK_PATTERN_SIZE };

/* One pack_image() call. */
struct packing {
    const struct kernels *kernels;
    const struct pack_format *format;
    struct pack_constants constants[3]; /* NCHW: one per plane; NHWC: only the first */
    size_t plane_values;                /* width * height */
    bool mirror_x;
    uint8_t *target;
};

size_t pack_dtype_bytes(enum pack_dtype dtype)
{
    switch (dtype) {
    case PACK_U8: return 1;
    case PACK_F32: return 4;
    case PACK_F16: return 2;
    case PACK_BF16: return 2;
    }
    return 0;
}

static void set_constants(struct packing *packing)
{
    const struct pack_format *format = packing->format;
    for (int plane = 0; plane < 3; plane++) {
        struct pack_constants *constants = &packing->constants[plane];
        constants->scale = format->scale ? (float)(1.0 / 255.0) : 1.0f;
        constants->normalize = format->normalize;
        for (int i = 0; i < PACK_PATTERN_SIZE; i++) {
            int channel = format->layout == PACK_NCHW ? plane : i % 3;
            constants->mean[i] = format->normalize ? format->mean[channel] : 0.0f;
            constants->std[i] = format->normalize ? format->std[channel] : 1.0f;
        }
    }
}

/* `count` bytes to values, the first of which is number `at` of the picture. */
static void convert(const struct packing *packing, int plane, const uint8_t *source, size_t count,
                    size_t at)
{
    const struct kernels *kernels = packing->kernels;
    const struct pack_constants *constants = &packing->constants[plane];
    enum pack_dtype dtype = packing->format->dtype;
    uint8_t *target = packing->target + at * pack_dtype_bytes(dtype);
    switch (dtype) {
    case PACK_U8: memcpy(target, source, count); break;
    case PACK_F32: kernels->convert_f32(constants, source, count, (float *)target); break;
    case PACK_F16: kernels->convert_f16(constants, source, count, (uint16_t *)target); break;
    case PACK_BF16: kernels->convert_bf16(constants, source, count, (uint16_t *)target); break;
    }
}

/* A row to planes of floats; `at` is the place of its first pixel in a plane. */
static void pack_row_planes(const struct packing *packing, const uint8_t *row, uint32_t width_px,
                            size_t at)
{
    uint8_t planes[3][RUN_PIXELS];
    for (uint32_t begin = 0; begin < width_px; begin += RUN_PIXELS) {
        uint32_t count = width_px - begin < RUN_PIXELS ? width_px - begin : RUN_PIXELS;
        uint32_t first = packing->mirror_x ? width_px - begin - count : begin;
        packing->kernels->split_rgb(row + 3 * (size_t)first, count, packing->mirror_x, planes[0],
                                    planes[1], planes[2]);
        for (int plane = 0; plane < 3; plane++) {
            convert(packing, plane, planes[plane], count,
                    (size_t)plane * packing->plane_values + at + begin);
        }
    }
}

/* A row to interleaved values of any type; `at` counts pixels. */
static void pack_row_interleaved(const struct packing *packing, const uint8_t *row,
                                 uint32_t width_px, size_t at)
{
    if (!packing->mirror_x) {
        convert(packing, 0, row, 3 * (size_t)width_px, 3 * at);
        return;
    }
    if (packing->format->dtype == PACK_U8) {
        packing->kernels->mirror_rgb(row, width_px, packing->target + 3 * at);
        return;
    }
    uint8_t mirrored[3 * RUN_PIXELS];
    for (uint32_t begin = 0; begin < width_px; begin += RUN_PIXELS) {
        uint32_t count = width_px - begin < RUN_PIXELS ? width_px - begin : RUN_PIXELS;
        packing->kernels->mirror_rgb(row + 3 * (size_t)(width_px - begin - count), count, mirrored);
        convert(packing, 0, mirrored, 3 * (size_t)count, 3 * (at + begin));
    }
}

void pack_image(const struct kernels *kernels, const struct pack_format *format,
                const uint8_t *source, size_t source_stride_bytes, uint32_t width_px,
                uint32_t height_px, bool mirror_x, bool mirror_y, void *target)
{
    struct packing packing = {.kernels = kernels,
                              .format = format,
                              .plane_values = (size_t)width_px * height_px,
                              .mirror_x = mirror_x,
                              .target = target};
    if (format->dtype != PACK_U8) {
        set_constants(&packing);
    }
    for (uint32_t y = 0; y < height_px; y++) {
        const uint8_t *row = source + (mirror_y ? height_px - 1 - y : y) * source_stride_bytes;
        size_t at = (size_t)y * width_px;
        if (format->layout == PACK_NHWC) {
            pack_row_interleaved(&packing, row, width_px, at);
        } else if (format->dtype == PACK_U8) {
            uint8_t *red = packing.target + at;
            kernels->split_rgb(row, width_px, mirror_x, red, red + packing.plane_values,
                               red + 2 * packing.plane_values);
        } else {
            pack_row_planes(&packing, row, width_px, at);
        }
    }
}
