/*
 * kernels_neon.c - kernels for AArch64, whose processors all have NEON.
 *
 * The resize multiplies pixels by whole weights in 32-bit lanes (vmla), which is exact as it is.
 */
#include "decode/kernels_table.h"

#include <arm_neon.h>

enum { PIXELS_AT_ONCE = 16 };

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The taps of output x that lie within the input. */
static inline uint32_t taps_inside(const struct resize_taps *taps, uint32_t x)
{
    return min_u32(taps->in_count - taps->first[x], taps->group_count * TAP_GROUP);
}

static inline int32_t tap_weight(const struct resize_taps *taps, uint32_t x, uint32_t tap)
{
    size_t group = tap / TAP_GROUP;
    return taps->weights[(group * taps->out_stride + x) * TAP_GROUP + tap % TAP_GROUP];
}

/* Sums that carry the half which rounds the final shift. */
static inline int32x4_t start_sums(void)
{
    return vdupq_n_s32(1 << (WEIGHT_BITS - 1));
}

/* 8 sums to 8 bytes. */
static inline uint8x8_t clip_to_bytes(int32x4_t low, int32x4_t high)
{
    low = vshrq_n_s32(low, WEIGHT_BITS);
    high = vshrq_n_s32(high, WEIGHT_BITS);
    return vqmovun_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)));
}

/* 16 bytes to sums += bytes * weight. */
static inline void add_bytes(int32x4_t sums[4], uint8x16_t bytes, int32_t weight)
{
    int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
    int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(bytes)));
    sums[0] = vmlaq_n_s32(sums[0], vmovl_s16(vget_low_s16(low)), weight);
    sums[1] = vmlaq_n_s32(sums[1], vmovl_s16(vget_high_s16(low)), weight);
    sums[2] = vmlaq_n_s32(sums[2], vmovl_s16(vget_low_s16(high)), weight);
    sums[3] = vmlaq_n_s32(sums[3], vmovl_s16(vget_high_s16(high)), weight);
}

/* ---- resize ---- */

/* One output pixel at a time: red, green, blue and a lane that is thrown away. Each load takes 8
 * bytes for the sake of three; the room past a row's end is the caller's promise. */
static void resize_columns(const struct resize_taps *taps, const uint8_t *source,
                           size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                           uint32_t row_count)
{
    for (uint32_t y = 0; y < row_count; y++) {
        const uint8_t *row = source + y * source_stride_bytes;
        uint8_t *out = target + y * target_stride_bytes;
        for (uint32_t x = 0; x < taps->out_count; x++, out += 3) {
            const uint8_t *pixel = row + 3 * (size_t)taps->first[x];
            uint32_t tap_count = taps_inside(taps, x);
            int32x4_t sums = start_sums();
            for (uint32_t tap = 0; tap < tap_count; tap++, pixel += 3) {
                int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(pixel)));
                sums = vmlaq_n_s32(sums, vmovl_s16(vget_low_s16(wide)), tap_weight(taps, x, tap));
            }
            uint8x8_t result = clip_to_bytes(sums, sums);
            out[0] = vget_lane_u8(result, 0);
            out[1] = vget_lane_u8(result, 1);
            out[2] = vget_lane_u8(result, 2);
        }
    }
}

static void resize_rows(const struct resize_taps *taps, const uint8_t *source,
                        size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                        uint32_t row_bytes)
{
    if (row_bytes < 16) {
        kernels_scalar.resize_rows(taps, source, source_stride_bytes, target, target_stride_bytes,
                                   row_bytes);
        return;
    }
    for (uint32_t y = 0; y < taps->out_count; y++, target += target_stride_bytes) {
        const uint8_t *rows = source + taps->first[y] * source_stride_bytes;
        uint32_t tap_count = taps_inside(taps, y);
        for (uint32_t begin = 0; begin < row_bytes; begin += 16) {
            uint32_t at = min_u32(begin, row_bytes - 16); /* the last block overlaps */
            int32x4_t sums[4] = {start_sums(), start_sums(), start_sums(), start_sums()};
            for (uint32_t tap = 0; tap < tap_count; tap++) {
                add_bytes(sums, vld1q_u8(rows + tap * source_stride_bytes + at),
                          tap_weight(taps, y, tap));
            }
            vst1q_u8(target + at,
                     vcombine_u8(clip_to_bytes(sums[0], sums[1]), clip_to_bytes(sums[2], sums[3])));
        }
    }
}

/* ---- split and mirror ---- */

static inline uint8x16_t reverse_bytes(uint8x16_t bytes)
{
    bytes = vrev64q_u8(bytes);
    return vextq_u8(bytes, bytes, 8);
}

static void split_rgb(const uint8_t *source, uint32_t count, bool mirror, uint8_t *red,
                      uint8_t *green, uint8_t *blue)
{
    if (count < PIXELS_AT_ONCE) {
        kernels_scalar.split_rgb(source, count, mirror, red, green, blue);
        return;
    }
    for (uint32_t begin = 0; begin < count; begin += PIXELS_AT_ONCE) {
        uint32_t at = min_u32(begin, count - PIXELS_AT_ONCE); /* the last block overlaps */
        uint32_t to = mirror ? count - PIXELS_AT_ONCE - at : at;
        uint8x16x3_t planes = vld3q_u8(source + 3 * (size_t)at);
        for (int i = 0; mirror && i < 3; i++) {
            planes.val[i] = reverse_bytes(planes.val[i]);
        }
        vst1q_u8(red + to, planes.val[0]);
        vst1q_u8(green + to, planes.val[1]);
        vst1q_u8(blue + to, planes.val[2]);
    }
}

static void mirror_rgb(const uint8_t *source, uint32_t count, uint8_t *target)
{
    if (count < PIXELS_AT_ONCE) {
        kernels_scalar.mirror_rgb(source, count, target);
        return;
    }
    for (uint32_t begin = 0; begin < count; begin += PIXELS_AT_ONCE) {
        uint32_t at = min_u32(begin, count - PIXELS_AT_ONCE); /* the last block overlaps */
        uint8x16x3_t planes = vld3q_u8(source + 3 * (size_t)at);
        for (int i = 0; i < 3; i++) {
            planes.val[i] = reverse_bytes(planes.val[i]);
        }
        vst3q_u8(target + 3 * (size_t)(count - PIXELS_AT_ONCE - at), planes);
    }
}

/* ---- conversion ---- */

/* 8 values of a run as two vectors, the first of which is number `lane` of the constants. */
static inline float32x4x2_t pack_values(const struct pack_constants *constants, uint8x8_t bytes,
                                        size_t lane)
{
    uint16x8_t wide = vmovl_u8(bytes);
    float32x4x2_t values = {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))),
                             vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide)))}};
    for (int i = 0; i < 2; i++) {
        size_t at = lane + 4 * (size_t)i;
        values.val[i] = vmulq_n_f32(values.val[i], constants->scale);
        if (constants->normalize) {
            values.val[i] = vdivq_f32(vsubq_f32(values.val[i], vld1q_f32(constants->mean + at)),
                                      vld1q_f32(constants->std + at));
        }
    }
    return values;
}

static void convert_f32(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        float *target)
{
    size_t at = 0;
    for (; count - at >= 8; at += 8) {
        float32x4x2_t values = pack_values(constants, vld1_u8(source + at), at % PACK_PATTERN_SIZE);
        vst1q_f32(target + at, values.val[0]);
        vst1q_f32(target + at + 4, values.val[1]);
    }
    for (; at < count; at++) {
        float32x4x2_t values =
            pack_values(constants, vdup_n_u8(source[at]), at / 8 * 8 % PACK_PATTERN_SIZE);
        target[at] = (at % 8 < 4 ? values.val[0] : values.val[1])[at % 4];
    }
}

static inline uint16x4_t round_to_f16(float32x4_t values)
{
    return vreinterpret_u16_f16(vcvt_f16_f32(values));
}

/* The upper half of the bits, rounded to nearest, ties to even. */
static inline uint16x4_t round_to_bf16(float32x4_t values)
{
    uint32x4_t bits = vreinterpretq_u32_f32(values);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    bits = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    return vshrn_n_u32(bits, 16);
}

static inline void convert_halves(const struct pack_constants *constants, const uint8_t *source,
                                  size_t count, uint16_t *target,
                                  uint16x4_t (*round)(float32x4_t values))
{
    size_t at = 0;
    for (; count - at >= 8; at += 8) {
        float32x4x2_t values = pack_values(constants, vld1_u8(source + at), at % PACK_PATTERN_SIZE);
        vst1_u16(target + at, round(values.val[0]));
        vst1_u16(target + at + 4, round(values.val[1]));
    }
    for (; at < count; at++) {
        float32x4x2_t values =
            pack_values(constants, vdup_n_u8(source[at]), at / 8 * 8 % PACK_PATTERN_SIZE);
        target[at] = round(at % 8 < 4 ? values.val[0] : values.val[1])[at % 4];
    }
}

static void convert_f16(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        uint16_t *target)
{
    convert_halves(constants, source, count, target, round_to_f16);
}

static void convert_bf16(const struct pack_constants *constants, const uint8_t *source,
                         size_t count, uint16_t *target)
{
    convert_halves(constants, source, count, target, round_to_bf16);
}

const struct kernels kernels_neon = {
    .resize_columns = resize_columns,
    .resize_rows = resize_rows,
    .split_rgb = split_rgb,
    .mirror_rgb = mirror_rgb,
    .convert_f32 = convert_f32,
    .convert_f16 = convert_f16,
    .convert_bf16 = convert_bf16,
};
