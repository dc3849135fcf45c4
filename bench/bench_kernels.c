/*
 * bench_kernels.c - times every kernel in every variant that this processor runs.
 *
 *   bench_kernels [--json] [--rounds N]
 *
 * Times are of the calls that the decoder makes (resize.h, pack.h), in microseconds: the median of
 * N rounds (default 15) of about 2 ms each. The picture is a crop of 331x277 resized to 224x224
 * unless the name says otherwise.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decode/kernels.h"
#include "decode/pack.h"
#include "decode/resize.h"

enum { OUT = 224, ROUNDS_MAX = 1000 };

struct subject {
    const struct kernels *kernels;
    struct resize_axis *x;
    struct resize_axis *y;
    struct pack_format format;
    bool mirror;
    enum resize_filter filter;
    uint32_t in_width;
    uint32_t in_height;
    uint8_t *source;
    uint8_t *middle;
    uint8_t *resized;
    uint8_t *packed;
};

struct item {
    const char *name;
    void (*run)(struct subject *subject);
    enum resize_filter filter;
    uint32_t in_width, in_height;
    enum pack_dtype dtype;
    enum pack_layout layout;
    bool normalize, mirror;
};

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory) {
        fail("out of memory");
    }
    memset(memory, 0, bytes);
    return memory;
}

static void run_weights(struct subject *s)
{
    if (!resize_axis_set(s->x, s->filter, s->in_width, OUT, 0, OUT) ||
        !resize_axis_set(s->y, s->filter, s->in_height, OUT, 0, OUT)) {
        fail("out of memory");
    }
}

static void run_columns(struct subject *s)
{
    resize_columns(s->kernels, s->x, s->source, 3 * (size_t)s->in_width, s->middle, 3 * OUT,
                   s->in_height);
}

static void run_rows(struct subject *s)
{
    resize_rows(s->kernels, s->y, s->middle, 3 * OUT, s->resized, 3 * OUT, 3 * OUT);
}

static void run_resize(struct subject *s)
{
    run_weights(s);
    run_columns(s);
    run_rows(s);
}

static void run_pack(struct subject *s)
{
    pack_image(s->kernels, &s->format, s->resized, 3 * OUT, OUT, OUT, s->mirror, false, s->packed);
}

static const struct item items[] = {
    {"weights of both axes", run_weights, RESIZE_BILINEAR, 331, 277, 0, 0, 0, 0},
    {"columns bilinear", run_columns, RESIZE_BILINEAR, 331, 277, 0, 0, 0, 0},
    {"rows bilinear", run_rows, RESIZE_BILINEAR, 331, 277, 0, 0, 0, 0},
    {"resize bilinear", run_resize, RESIZE_BILINEAR, 331, 277, 0, 0, 0, 0},
    {"resize bicubic", run_resize, RESIZE_BICUBIC, 331, 277, 0, 0, 0, 0},
    {"resize bilinear 500x375", run_resize, RESIZE_BILINEAR, 500, 375, 0, 0, 0, 0},
    {"resize bilinear 150x150 (up)", run_resize, RESIZE_BILINEAR, 150, 150, 0, 0, 0, 0},
    {"resize bilinear 4000x3000", run_resize, RESIZE_BILINEAR, 4000, 3000, 0, 0, 0, 0},
    {"resize nearest", run_resize, RESIZE_NEAREST, 331, 277, 0, 0, 0, 0},
    {"pack u8 NHWC", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_U8, PACK_NHWC, 0, 0},
    {"pack u8 NHWC mirror", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_U8, PACK_NHWC, 0, 1},
    {"pack u8 NCHW", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_U8, PACK_NCHW, 0, 0},
    {"pack u8 NCHW mirror", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_U8, PACK_NCHW, 0, 1},
    {"pack f32 NCHW", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_F32, PACK_NCHW, 1, 0},
    {"pack f32 NCHW scaled only", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_F32, PACK_NCHW, 0, 0},
    {"pack f32 NHWC mirror", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_F32, PACK_NHWC, 1, 1},
    {"pack f16 NCHW", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_F16, PACK_NCHW, 1, 0},
    {"pack bf16 NCHW", run_pack, RESIZE_BILINEAR, OUT, OUT, PACK_BF16, PACK_NCHW, 1, 0},
};
enum { ITEM_COUNT = sizeof(items) / sizeof(items[0]) };

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double time_item(const struct item *item, struct subject *s, int round_count)
{
    double times[ROUNDS_MAX];
    s->filter = item->filter;
    s->in_width = item->in_width;
    s->in_height = item->in_height;
    s->mirror = item->mirror;
    s->format = (struct pack_format){.dtype = item->dtype,
                                     .layout = item->layout,
                                     .scale = item->dtype != PACK_U8,
                                     .normalize = item->normalize,
                                     .mean = {0.485f, 0.456f, 0.406f},
                                     .std = {0.229f, 0.224f, 0.225f}};
    run_weights(s);
    double begin = now_us();
    item->run(s);
    item->run(s);
    int calls = 1 + (int)(2000.0 / ((now_us() - begin) / 2 + 0.1));
    for (int round = 0; round < round_count; round++) {
        begin = now_us();
        for (int i = 0; i < calls; i++) {
            item->run(s);
        }
        times[round] = (now_us() - begin) / calls;
    }
    qsort(times, (size_t)round_count, sizeof(times[0]), compare_doubles);
    return times[round_count / 2];
}

static void print_table(double times[][KERNEL_AVX512 + 1], const bool *present)
{
    printf("%-30s", "microseconds");
    for (int level = 0; level <= KERNEL_AVX512; level++) {
        if (present[level]) {
            printf("%10s", kernel_level_name((enum kernel_level)level));
        }
    }
    printf("\n");
    for (int i = 0; i < ITEM_COUNT; i++) {
        printf("%-30s", items[i].name);
        for (int level = 0; level <= KERNEL_AVX512; level++) {
            if (present[level]) {
                printf("%10.1f", times[i][level]);
            }
        }
        printf("\n");
    }
}

static void print_json(double times[][KERNEL_AVX512 + 1], const bool *present)
{
    printf("{\"unit\": \"us\", \"kernels\": {");
    for (int i = 0; i < ITEM_COUNT; i++) {
        const char *comma = "";
        printf("%s\n  \"%s\": {", i ? "," : "", items[i].name);
        for (int level = 0; level <= KERNEL_AVX512; level++) {
            if (!present[level]) {
                continue;
            }
            printf("%s\"%s\": %.2f", comma, kernel_level_name((enum kernel_level)level),
                   times[i][level]);
            comma = ", ";
        }
        printf("}");
    }
    printf("\n}}\n");
}

static void setup(struct subject *s)
{
    size_t source_bytes = (size_t)4000 * 3000 * 3;
    s->x = resize_axis_create();
    s->y = resize_axis_create();
    if (!s->x || !s->y) {
        fail("out of memory");
    }
    s->source = allocate(source_bytes + 64);
    s->middle = allocate(3 * OUT * (size_t)3000 + 64);
    s->resized = allocate(3 * OUT * OUT + 64);
    s->packed = allocate(sizeof(float) * 3 * OUT * OUT);
    uint32_t state = 1;
    for (size_t i = 0; i < source_bytes; i++) {
        state = state * 1664525 + 1013904223;
        s->source[i] = (uint8_t)(state >> 24);
    }
    memcpy(s->resized, s->source, 3 * OUT * OUT);
}

static void teardown(struct subject *s)
{
    resize_axis_destroy(s->x);
    resize_axis_destroy(s->y);
    free(s->source);
    free(s->middle);
    free(s->resized);
    free(s->packed);
}

int main(int argc, char **argv)
{
    bool json = false;
    int round_count = 15;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            json = true;
        } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
            round_count = atoi(argv[++i]);
        } else {
            fail("usage: bench_kernels [--json] [--rounds N]");
        }
    }
    if (round_count < 1 || round_count > ROUNDS_MAX) {
        fail("--rounds takes 1 to 1000");
    }

    struct subject subject = {0};
    static double times[ITEM_COUNT][KERNEL_AVX512 + 1];
    bool present[KERNEL_AVX512 + 1] = {false};
    setup(&subject);
    for (int level = 0; level <= KERNEL_AVX512; level++) {
        if (kernels_detect((enum kernel_level)level) != (enum kernel_level)level) {
            continue;
        }
        present[level] = true;
        subject.kernels = kernels_get((enum kernel_level)level);
        for (int i = 0; i < ITEM_COUNT; i++) {
            times[i][level] = time_item(&items[i], &subject, round_count);
        }
    }
    teardown(&subject);
    if (json) {
        print_json(times, present);
    } else {
        print_table(times, present);
    }
    return 0;
}
