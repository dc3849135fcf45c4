/* Every variant of the kernels against the plain C one, on random and extreme input of awkward
 * sizes; and cut axes against whole ones. Agreement of the plain C with Pillow and torch is the
 * business of tests/python/test_resize_pillow.py and test_pack_torch.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "decode/kernels.h"
#include "decode/pack.h"
#include "decode/resize.h"

enum { GUARD = 0xa5, GUARD_BYTES = 80, READ_MARGIN = 64 };

static uint64_t random_state = 20261123;

/* xorshift64*: enough for test input, the same in every run. */
static uint32_t random_u32(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1d) >> 32);
}

static uint32_t random_between(uint32_t low, uint32_t high)
{
    return low + random_u32() % (high - low + 1);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    assert_non_null(memory);
    return memory;
}

/* Noise, all 0, all 255, or a hard pattern of the two, which drives the bicubic past both ends. */
static uint8_t *make_bytes(size_t bytes)
{
    uint8_t *memory = allocate(bytes);
    uint32_t kind = random_u32() % 6;
    for (size_t i = 0; i < bytes; i++) {
        uint32_t value = random_u32();
        memory[i] = kind == 0 ? 0 : kind == 1 ? 255 : kind <= 3 ? (value & 1) * 255 : value & 255;
    }
    return memory;
}

static bool is_guard(const uint8_t *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (memory[i] != GUARD) {
            return false;
        }
    }
    return true;
}

/* The vector levels of this processor; the plain C is what they are compared with. */
static size_t vector_levels(enum kernel_level levels[3])
{
    size_t count = 0;
    for (int level = KERNEL_NEON; level <= KERNEL_AVX512; level++) {
        if (kernels_detect((enum kernel_level)level) == (enum kernel_level)level) {
            levels[count++] = (enum kernel_level)level;
        }
    }
    return count;
}

/* ---- resize ---- */

struct plane_size {
    uint32_t in;
    uint32_t out;
};

static const struct plane_size special_sizes[] = {{331, 224}, {277, 224}, {500, 224}, {763, 224},
                                                  {800, 224}, {4000, 7},  {3, 500},   {1000, 1},
                                                  {1, 99},    {224, 224}, {65, 64},   {9000, 2}};
enum { SPECIAL_COUNT = sizeof(special_sizes) / sizeof(special_sizes[0]), SIZE_ROUNDS = 400 };

static struct plane_size size_of_round(int round)
{
    if (round < SPECIAL_COUNT) {
        return special_sizes[round];
    }
    return (struct plane_size){random_between(1, 70), random_between(1, 70)};
}

static struct resize_axis *make_axis(enum resize_filter filter, struct plane_size size,
                                     uint32_t first, uint32_t count)
{
    struct resize_axis *axis = resize_axis_create();
    uint32_t in_first, in_count;
    assert_non_null(axis);
    assert_true(resize_axis_set(axis, filter, size.in, size.out, first, count));
    resize_axis_input(axis, &in_first, &in_count);
    assert_true(in_count >= 1 && in_first < size.in && in_count <= size.in - in_first);
    return axis;
}

/* One pass into a fresh buffer whose rows have GUARD_BYTES between them that must stay as they
 * are. The caller frees it. */
static uint8_t *columns_pass(enum kernel_level level, const struct resize_axis *axis,
                             const uint8_t *source, size_t source_stride, uint32_t out_count,
                             uint32_t row_count)
{
    size_t row_bytes = 3 * (size_t)out_count;
    size_t stride = row_bytes + GUARD_BYTES;
    uint8_t *target = allocate(stride * row_count);
    memset(target, GUARD, stride * row_count);
    resize_columns(kernels_get(level), axis, source, source_stride, target, stride, row_count);
    for (uint32_t y = 0; y < row_count; y++) {
        assert_true(is_guard(target + y * stride + row_bytes, GUARD_BYTES));
    }
    return target;
}

static uint8_t *rows_pass(enum kernel_level level, const struct resize_axis *axis,
                          const uint8_t *source, uint32_t row_bytes, uint32_t out_count)
{
    size_t stride = row_bytes + GUARD_BYTES;
    uint8_t *target = allocate(stride * out_count);
    memset(target, GUARD, stride * out_count);
    resize_rows(kernels_get(level), axis, source, row_bytes, target, stride, row_bytes);
    for (uint32_t y = 0; y < out_count; y++) {
        assert_true(is_guard(target + y * stride + row_bytes, GUARD_BYTES));
    }
    return target;
}

static void check_columns(enum resize_filter filter, struct plane_size size)
{
    enum kernel_level levels[3];
    size_t level_count = vector_levels(levels);
    struct resize_axis *axis = make_axis(filter, size, 0, size.out);
    uint32_t in_first, in_count;
    resize_axis_input(axis, &in_first, &in_count);
    uint32_t row_count = random_between(1, 15);
    size_t stride = 3 * (size_t)in_count + random_u32() % 4;
    size_t source_bytes = stride * (row_count - 1) + 3 * (size_t)in_count + READ_MARGIN;
    uint8_t *source = make_bytes(source_bytes);
    uint8_t *expected = columns_pass(KERNEL_SCALAR, axis, source, stride, size.out, row_count);
    size_t target_bytes = (3 * (size_t)size.out + GUARD_BYTES) * row_count;
    for (size_t i = 0; i < level_count; i++) {
        uint8_t *got = columns_pass(levels[i], axis, source, stride, size.out, row_count);
        assert_memory_equal(got, expected, target_bytes);
        free(got);
    }
    free(expected);
    free(source);
    resize_axis_destroy(axis);
}

static void check_rows(enum resize_filter filter, struct plane_size size)
{
    enum kernel_level levels[3];
    size_t level_count = vector_levels(levels);
    struct resize_axis *axis = make_axis(filter, size, 0, size.out);
    uint32_t in_first, in_count;
    resize_axis_input(axis, &in_first, &in_count);
    uint32_t row_bytes = random_between(1, 200);
    uint8_t *source = make_bytes((size_t)row_bytes * in_count);
    uint8_t *expected = rows_pass(KERNEL_SCALAR, axis, source, row_bytes, size.out);
    size_t target_bytes = ((size_t)row_bytes + GUARD_BYTES) * size.out;
    for (size_t i = 0; i < level_count; i++) {
        uint8_t *got = rows_pass(levels[i], axis, source, row_bytes, size.out);
        assert_memory_equal(got, expected, target_bytes);
        free(got);
    }
    free(expected);
    free(source);
    resize_axis_destroy(axis);
}

static void test_columns_equal_plain_c(void **state)
{
    (void)state;
    for (int round = 0; round < SIZE_ROUNDS; round++) {
        for (int filter = RESIZE_NEAREST; filter <= RESIZE_BICUBIC; filter++) {
            check_columns((enum resize_filter)filter, size_of_round(round));
        }
    }
}

static void test_rows_equal_plain_c(void **state)
{
    (void)state;
    for (int round = 0; round < SIZE_ROUNDS; round++) {
        for (int filter = RESIZE_NEAREST; filter <= RESIZE_BICUBIC; filter++) {
            check_rows((enum resize_filter)filter, size_of_round(round));
        }
    }
}

/* A row resized with a cut axis against the same positions of the whole. */
static void check_cut(enum resize_filter filter, struct plane_size size, enum kernel_level level)
{
    uint32_t first = random_between(0, size.out - 1);
    uint32_t count = random_between(1, size.out - first);
    struct resize_axis *whole = make_axis(filter, size, 0, size.out);
    struct resize_axis *cut = make_axis(filter, size, first, count);
    uint32_t cut_first, cut_count, whole_first, whole_count;
    resize_axis_input(whole, &whole_first, &whole_count);
    resize_axis_input(cut, &cut_first, &cut_count);
    assert_true(cut_first >= whole_first);
    assert_true(cut_first + cut_count <= whole_first + whole_count);
    uint8_t *source = make_bytes(3 * (size_t)size.in + READ_MARGIN);

    uint8_t *all = columns_pass(level, whole, source + 3 * (size_t)whole_first, 0, size.out, 1);
    uint8_t *some = columns_pass(level, cut, source + 3 * (size_t)cut_first, 0, count, 1);
    assert_memory_equal(some, all + 3 * (size_t)first, 3 * (size_t)count);
    free(some);

    /* The same numbers as a column of three bytes: the rows pass of either axis agrees too. */
    some = rows_pass(level, cut, source + 3 * (size_t)cut_first, 3, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_memory_equal(some + (size_t)i * (3 + GUARD_BYTES), all + 3 * (size_t)(first + i), 3);
    }
    free(some);
    free(all);
    free(source);
    resize_axis_destroy(whole);
    resize_axis_destroy(cut);
}

static void test_cut_axis_equals_whole(void **state)
{
    (void)state;
    for (int round = 0; round < SIZE_ROUNDS; round++) {
        for (int filter = RESIZE_NEAREST; filter <= RESIZE_BICUBIC; filter++) {
            for (int level = KERNEL_SCALAR; level <= KERNEL_AVX512; level++) {
                if (kernels_detect((enum kernel_level)level) == (enum kernel_level)level) {
                    check_cut((enum resize_filter)filter, size_of_round(round),
                              (enum kernel_level)level);
                }
            }
        }
    }
}

static void test_axis_is_reusable(void **state)
{
    (void)state;
    const uint8_t source[6] = {0, 10, 20, 100, 110, 120};
    uint8_t padded[6 + READ_MARGIN] = {0};
    uint8_t target[12];
    memcpy(padded, source, sizeof(source));
    struct resize_axis *axis = resize_axis_create();
    assert_non_null(axis);
    assert_true(resize_axis_set(axis, RESIZE_BICUBIC, 3000, 200, 0, 200));
    assert_true(resize_axis_set(axis, RESIZE_BILINEAR, 2, 4, 0, 4));
    resize_columns(kernels_get(KERNEL_SCALAR), axis, padded, 6, target, 12, 1);
    const uint8_t bilinear[12] = {0, 10, 20, 25, 35, 45, 75, 85, 95, 100, 110, 120};
    assert_memory_equal(target, bilinear, 12);
    assert_true(resize_axis_set(axis, RESIZE_NEAREST, 2, 4, 0, 4));
    resize_columns(kernels_get(KERNEL_SCALAR), axis, padded, 6, target, 12, 1);
    const uint8_t nearest[12] = {0, 10, 20, 0, 10, 20, 100, 110, 120, 100, 110, 120};
    assert_memory_equal(target, nearest, 12);
    resize_axis_destroy(axis);
    resize_axis_destroy(NULL);
}

/* ---- pack ---- */

struct picture {
    uint8_t *pixels; /* exactly the pixels, so that a sanitizer sees a read beyond */
    size_t stride;
    uint32_t width, height;
};

static struct picture make_picture(uint32_t width, uint32_t height)
{
    struct picture picture = {.width = width, .height = height};
    picture.stride = 3 * (size_t)width + random_u32() % 5;
    picture.pixels = make_bytes(picture.stride * (height - 1) + 3 * (size_t)width);
    return picture;
}

/* Packed into a buffer with guards on both sides, at an address that is a multiple of the type's
 * size only. The caller frees the buffer; *values points into it. */
static uint8_t *pack(enum kernel_level level, const struct pack_format *format,
                     const struct picture *picture, bool mirror_x, bool mirror_y, uint8_t **values)
{
    size_t bytes = 3 * (size_t)picture->width * picture->height * pack_dtype_bytes(format->dtype);
    uint8_t *buffer = allocate(bytes + 2 * GUARD_BYTES);
    size_t offset = GUARD_BYTES - pack_dtype_bytes(format->dtype);
    memset(buffer, GUARD, bytes + 2 * GUARD_BYTES);
    pack_image(kernels_get(level), format, picture->pixels, picture->stride, picture->width,
               picture->height, mirror_x, mirror_y, buffer + offset);
    assert_true(is_guard(buffer, offset));
    assert_true(is_guard(buffer + offset + bytes, 2 * GUARD_BYTES - offset));
    *values = buffer + offset;
    return buffer;
}

/* Constants that bring every branch of the rounding: usual ones, results beyond the range of a
 * half, denormal halves, ties. */
static const struct pack_format constants[] = {
    {.scale = true,
     .normalize = true,
     .mean = {0.485f, 0.456f, 0.406f},
     .std = {0.229f, 0.224f, 0.225f}},
    {.scale = true},
    {.scale = false},
    {.scale = false, .normalize = true, .mean = {1, 2, 3}, .std = {0.0009765625f, 1e-3f, 0.0038f}},
    {.scale = true, .normalize = true, .mean = {0, 0.5f, 1}, .std = {3e4f, 4e7f, 1.7e4f}},
    {.scale = false, .normalize = true, .mean = {128, 0, 0}, .std = {2097152, -16777216, 33554432}},
    {.scale = false, .normalize = true, .mean = {0.03f, 0, 9}, .std = {0.125f, -0.003f, 7}},
};
enum { CONSTANTS_COUNT = sizeof(constants) / sizeof(constants[0]) };

static void check_pack(const struct pack_format *format, const struct picture *picture)
{
    enum kernel_level levels[3];
    size_t level_count = vector_levels(levels);
    size_t bytes = 3 * (size_t)picture->width * picture->height * pack_dtype_bytes(format->dtype);
    for (int mirror = 0; mirror < 4; mirror++) {
        uint8_t *expected;
        uint8_t *expected_buffer =
            pack(KERNEL_SCALAR, format, picture, mirror & 1, mirror & 2, &expected);
        for (size_t i = 0; i < level_count; i++) {
            uint8_t *got;
            uint8_t *got_buffer = pack(levels[i], format, picture, mirror & 1, mirror & 2, &got);
            assert_memory_equal(got, expected, bytes);
            free(got_buffer);
        }
        free(expected_buffer);
    }
}

static void test_pack_equals_plain_c(void **state)
{
    (void)state;
    for (uint32_t width = 1; width <= 300; width += width < 140 ? 1 : 37) {
        struct picture picture = make_picture(width, random_between(1, 3));
        for (int dtype = PACK_U8; dtype <= PACK_BF16; dtype++) {
            for (int layout = PACK_NCHW; layout <= PACK_NHWC; layout++) {
                struct pack_format format = constants[width % CONSTANTS_COUNT];
                format.dtype = (enum pack_dtype)dtype;
                format.layout = (enum pack_layout)layout;
                check_pack(&format, &picture);
            }
        }
        free(picture.pixels);
    }
}

/* All 256 pixel values with all constants: the rounding of every result. */
static void test_pack_all_values(void **state)
{
    (void)state;
    uint8_t pixels[3 * 256];
    for (int i = 0; i < 3 * 256; i++) {
        pixels[i] = (uint8_t)(i / 3);
    }
    struct picture picture = {
        .pixels = pixels, .stride = sizeof(pixels), .width = 256, .height = 1};
    for (int dtype = PACK_F32; dtype <= PACK_BF16; dtype++) {
        for (int i = 0; i < CONSTANTS_COUNT; i++) {
            struct pack_format format = constants[i];
            format.dtype = (enum pack_dtype)dtype;
            format.layout = PACK_NCHW;
            check_pack(&format, &picture);
        }
    }
}

/* The plain C against the definition: where each pixel lands and what becomes of it. */
static void test_pack_definition(void **state)
{
    (void)state;
    const struct pack_format format = {.dtype = PACK_F32,
                                       .layout = PACK_NCHW,
                                       .scale = true,
                                       .normalize = true,
                                       .mean = {0.485f, 0.456f, 0.406f},
                                       .std = {0.229f, 0.224f, 0.225f}};
    struct picture picture = make_picture(7, 5);
    for (int mirror = 0; mirror < 4; mirror++) {
        float got[3][5][7];
        pack_image(kernels_get(KERNEL_SCALAR), &format, picture.pixels, picture.stride, 7, 5,
                   mirror & 1, mirror & 2, got);
        for (uint32_t y = 0; y < 5; y++) {
            for (uint32_t x = 0; x < 7; x++) {
                const uint8_t *pixel = picture.pixels + (mirror & 2 ? 4 - y : y) * picture.stride +
                                       3 * (size_t)(mirror & 1 ? 6 - x : x);
                for (int c = 0; c < 3; c++) {
                    float value = pixel[c] * (float)(1.0 / 255.0);
                    value = (value - format.mean[c]) / format.std[c];
                    assert_memory_equal(&got[c][y][x], &value, sizeof(value));
                }
            }
        }
    }
    free(picture.pixels);
}

static void test_levels(void **state)
{
    (void)state;
    assert_int_equal(kernels_detect(KERNEL_SCALAR), KERNEL_SCALAR);
    enum kernel_level best = kernels_detect(KERNEL_AVX512);
    for (int level = KERNEL_SCALAR; level <= KERNEL_AVX512; level++) {
        assert_true((int)kernels_detect((enum kernel_level)level) <= level);
        if (level <= (int)best) {
            assert_non_null(kernels_get((enum kernel_level)level));
        }
    }
    assert_string_equal(kernel_level_name(KERNEL_SCALAR), "scalar");
    assert_string_equal(kernel_level_name(KERNEL_NEON), "neon");
    assert_string_equal(kernel_level_name(KERNEL_AVX2), "avx2");
    assert_string_equal(kernel_level_name(KERNEL_AVX512), "avx512");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_columns_equal_plain_c),
        cmocka_unit_test(test_rows_equal_plain_c),
        cmocka_unit_test(test_cut_axis_equals_whole),
        cmocka_unit_test(test_axis_is_reusable),
        cmocka_unit_test(test_pack_definition),
        cmocka_unit_test(test_pack_equals_plain_c),
        cmocka_unit_test(test_pack_all_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
