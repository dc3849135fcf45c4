/* kernels_library.c - resize.h and pack.h as a shared library that Python's ctypes can call, for
 * the tests that compare with Pillow and torch. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "decode/kernels.h"
#include "decode/pack.h"
#include "decode/resize.h"

#define EXPORTED __attribute__((visibility("default")))

/* A resize of the whole width * height picture to out_width * out_height, of which the rectangle
 * cut_* is computed. */
struct test_resize {
    uint32_t filter;
    uint32_t width, height;
    uint32_t out_width, out_height;
    uint32_t cut_x, cut_y, cut_width, cut_height;
};

EXPORTED int test_kernel_level(int level_max);
EXPORTED bool test_resize(int level, const struct test_resize *job, const uint8_t *source,
                          uint8_t *target);
EXPORTED void test_pack(int level, const struct pack_format *format, const uint8_t *source,
                        uint32_t width, uint32_t height, bool mirror_x, bool mirror_y,
                        void *target);

int test_kernel_level(int level_max)
{
    return (int)kernels_detect((enum kernel_level)level_max);
}

/* Both passes, in Pillow's order, with `middle` between them. */
static void run_passes(const struct kernels *kernels, const struct test_resize *job,
                       const struct resize_axis *x, const struct resize_axis *y,
                       const uint8_t *source, uint8_t *middle, uint8_t *target)
{
    uint32_t x_first, x_count, y_first, y_count;
    resize_axis_input(x, &x_first, &x_count);
    resize_axis_input(y, &y_first, &y_count);
    size_t stride = 3 * (size_t)job->width;
    size_t out_stride = 3 * (size_t)job->cut_width;
    source += y_first * stride + 3 * (size_t)x_first;
    if (resize_rows_first(job->width, job->height, job->out_width, job->out_height)) {
        resize_rows(kernels, y, source, stride, middle, 3 * (size_t)x_count, 3 * x_count);
        resize_columns(kernels, x, middle, 3 * (size_t)x_count, target, out_stride,
                       job->cut_height);
    } else {
        resize_columns(kernels, x, source, stride, middle, out_stride, y_count);
        resize_rows(kernels, y, middle, out_stride, target, out_stride, 3 * job->cut_width);
    }
}

/* `source` has 64 readable bytes after its last pixel. False when memory is short. */
bool test_resize(int level, const struct test_resize *job, const uint8_t *source, uint8_t *target)
{
    const struct kernels *kernels = kernels_get((enum kernel_level)level);
    enum resize_filter filter = (enum resize_filter)job->filter;
    uint32_t middle_width = job->width > job->cut_width ? job->width : job->cut_width;
    uint32_t middle_height = job->height > job->cut_height ? job->height : job->cut_height;
    struct resize_axis *x = resize_axis_create();
    struct resize_axis *y = resize_axis_create();
    uint8_t *middle = malloc(3 * (size_t)middle_width * middle_height + 64);
    bool ok = x && y && middle &&
              resize_axis_set(x, filter, job->width, job->out_width, job->cut_x, job->cut_width) &&
              resize_axis_set(y, filter, job->height, job->out_height, job->cut_y, job->cut_height);
    if (ok) {
        run_passes(kernels, job, x, y, source, middle, target);
    }
    resize_axis_destroy(x);
    resize_axis_destroy(y);
    free(middle);
    return ok;
}

void test_pack(int level, const struct pack_format *format, const uint8_t *source, uint32_t width,
               uint32_t height, bool mirror_x, bool mirror_y, void *target)
{
    pack_image(kernels_get((enum kernel_level)level), format, source, 3 * (size_t)width, width,
               height, mirror_x, mirror_y, target);
}
