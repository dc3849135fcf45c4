/* kernels_scalar.c - the kernels in plain C: the definition that every other variant must equal. */
#include "decode/kernels_table.h"

#include <string.h>

static uint8_t clip8(int32_t sum)
{
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* The taps of output x that lie within the input. */
static uint32_t taps_inside(const struct resize_taps *taps, uint32_t x)
{
    uint32_t left = taps->in_count - taps->first[x];
    uint32_t all = taps->group_count * TAP_GROUP;
    return left < all ? left : all;
}

static int32_t tap_weight(const struct resize_taps *taps, uint32_t x, uint32_t tap)
{
    size_t group = tap / TAP_GROUP;
    return taps->weights[(group * taps->out_stride + x) * TAP_GROUP + tap % TAP_GROUP];
}

static void resize_columns(const struct resize_taps *taps, const uint8_t *source,
                           size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                           uint32_t row_count)
{
    for (uint32_t x = 0; x < taps->out_count; x++) {
        uint32_t tap_count = taps_inside(taps, x);
        for (uint32_t y = 0; y < row_count; y++) {
            const uint8_t *pixel = source + y * source_stride_bytes + 3 * (size_t)taps->first[x];
            int32_t red = 1 << (WEIGHT_BITS - 1);
            int32_t green = red;
            int32_t blue = red;
            for (uint32_t tap = 0; tap < tap_count; tap++, pixel += 3) {
                int32_t weight = tap_weight(taps, x, tap);
                red += pixel[0] * weight;
                green += pixel[1] * weight;
                blue += pixel[2] * weight;
            }
            uint8_t *out = target + y * target_stride_bytes + 3 * (size_t)x;
            out[0] = clip8(red);
            out[1] = clip8(green);
            out[2] = clip8(blue);
        }
    }
}

/* One output row, a block of columns at a time so that the sums stay in cache and the inner loop
 * runs along memory. */
static void resize_row(const struct resize_taps *taps, uint32_t y, const uint8_t *source,
                       size_t source_stride_bytes, uint8_t *target, uint32_t row_bytes)
{
    enum { BLOCK = 256 };
    int32_t sums[BLOCK];
    uint32_t tap_count = taps_inside(taps, y);
    source += taps->first[y] * source_stride_bytes;
    for (uint32_t begin = 0; begin < row_bytes; begin += BLOCK) {
        uint32_t count = row_bytes - begin < BLOCK ? row_bytes - begin : BLOCK;
        for (uint32_t i = 0; i < count; i++) {
            sums[i] = 1 << (WEIGHT_BITS - 1);
        }
        for (uint32_t tap = 0; tap < tap_count; tap++) {
            int32_t weight = tap_weight(taps, y, tap);
            const uint8_t *row = source + tap * source_stride_bytes + begin;
            for (uint32_t i = 0; i < count; i++) {
                sums[i] += row[i] * weight;
            }
        }
        for (uint32_t i = 0; i < count; i++) {
            target[begin + i] = clip8(sums[i]);
        }
    }
}

static void resize_rows(const struct resize_taps *taps, const uint8_t *source,
                        size_t source_stride_bytes, uint8_t *target, size_t target_stride_bytes,
                        uint32_t row_bytes)
{
    for (uint32_t y = 0; y < taps->out_count; y++) {
        resize_row(taps, y, source, source_stride_bytes, target + y * target_stride_bytes,
                   row_bytes);
    }
}

static void split_rgb(const uint8_t *source, uint32_t count, bool mirror, uint8_t *red,
                      uint8_t *green, uint8_t *blue)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *pixel = source + 3 * (size_t)(mirror ? count - 1 - i : i);
        red[i] = pixel[0];
        green[i] = pixel[1];
        blue[i] = pixel[2];
    }
}

static void mirror_rgb(const uint8_t *source, uint32_t count, uint8_t *target)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(target + 3 * i, source + 3 * (count - 1 - i), 3);
    }
}

static float pack_value(const struct pack_constants *constants, uint8_t pixel, size_t lane)
{
    float value = (float)pixel * constants->scale;
    if (constants->normalize) {
        value = (value - constants->mean[lane]) / constants->std[lane];
    }
    return value;
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* To nearest, ties to even. Not for NaN, which the arithmetic above cannot produce. */
static uint16_t round_to_bf16(float value)
{
    uint32_t bits = float_bits(value);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* `value` without its low `shift` bits, rounded to nearest, ties to even. shift is 1..31. */
static uint32_t shift_to_even(uint32_t value, uint32_t shift)
{
    uint32_t half = (uint32_t)1 << (shift - 1);
    return (value + half - 1 + ((value >> shift) & 1)) >> shift;
}

/* To nearest, ties to even, with infinities and denormal results; not for NaN. */
static uint16_t round_to_f16(float value)
{
    uint32_t bits = float_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t exponent = bits >> 23 & 0xff;
    uint32_t result;
    if (exponent >= 127 + 16) { /* 2^16 and above, infinity */
        result = 0x7c00;
    } else if (exponent >= 127 - 14) { /* a carry out of the mantissa moves into the exponent */
        result = shift_to_even((bits & 0x7fffffff) - ((127 - 15) << 23), 13);
    } else if (exponent >= 127 - 25) { /* denormal: units of 2^-24 */
        uint32_t mantissa = (bits & 0x7fffff) | 0x800000;
        result = shift_to_even(mantissa, 127 - 1 - exponent);
    } else {
        result = 0;
    }
    return (uint16_t)(sign | result);
}

static void convert_f32(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        float *target)
{
    for (size_t i = 0; i < count; i++) {
        target[i] = pack_value(constants, source[i], i % PACK_PATTERN_SIZE);
    }
}

static void convert_f16(const struct pack_constants *constants, const uint8_t *source, size_t count,
                        uint16_t *target)
{
    for (size_t i = 0; i < count; i++) {
        target[i] = round_to_f16(pack_value(constants, source[i], i % PACK_PATTERN_SIZE));
    }
}

static void convert_bf16(const struct pack_constants *constants, const uint8_t *source,
                         size_t count, uint16_t *target)
{
    for (size_t i = 0; i < count; i++) {
        target[i] = round_to_bf16(pack_value(constants, source[i], i % PACK_PATTERN_SIZE));
    }
}

const struct kernels kernels_scalar = {
    .resize_columns = resize_columns,
    .resize_rows = resize_rows,
    .split_rgb = split_rgb,
    .mirror_rgb = mirror_rgb,
    .convert_f32 = convert_f32,
    .convert_f16 = convert_f16,
    .convert_bf16 = convert_bf16,
};
