/*
 * bench_stages.c - times the stages of decoding on real files, each alone, on one thread.
 *
 *   bench_stages [--json] [--rounds N] < list of JPEG files, one a line
 *
 * Prints microseconds of CPU time an image: the mean over the files, of that the median, least
 * and greatest of N rounds (default 5). Within a round all stages of an image run one after
 * another, so that a machine that changes its speed changes it for all. Crops are those that
 * RandomResizedCrop(224) draws, other ones every round.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <jpeglib.h>

#include "decode/decoder.h"
#include "decode/geometry.h"
#include "decode/image.h"
#include "decode/pack.h"
#include "decode/recipe.h"
#include "decode/resize.h"

enum { OUT_PX = 224, RESIZE_PX = 256, ROUNDS_MAX = 1000, SLACK_BYTES = 64 };

enum stage {
    STAGE_HEADER,
    STAGE_ENTROPY,
    STAGE_FULL,
    STAGE_OUR_FULL,
    STAGE_CROP,
    STAGE_RESIZE,
    STAGE_PACK_U8_NHWC,
    STAGE_PACK_U8_NCHW,
    STAGE_PACK_F32_NCHW,
    STAGE_TRAIN,
    STAGE_EVAL,
    STAGE_COUNT,
};

static const char *const stage_names[STAGE_COUNT] = {
    [STAGE_HEADER] = "header",
    [STAGE_ENTROPY] = "entropy decoding, libjpeg-turbo",
    [STAGE_FULL] = "full decode, libjpeg-turbo",
    [STAGE_OUR_FULL] = "full decode, decode/image.h",
    [STAGE_CROP] = "decode of the crop",
    [STAGE_RESIZE] = "resize of the crop to 224x224",
    [STAGE_PACK_U8_NHWC] = "pack uint8 NHWC",
    [STAGE_PACK_U8_NCHW] = "pack uint8 NCHW",
    [STAGE_PACK_F32_NCHW] = "pack float32 NCHW, normalised",
    [STAGE_TRAIN] = "all: RandomResizedCrop, flip",
    [STAGE_EVAL] = "all: Resize, CenterCrop",
};

struct file {
    char *path;
    uint8_t *bytes;
    size_t size_bytes;
};

struct files {
    struct file *items;
    size_t count, capacity;
};

/* Everything one thread needs; buffers grow to the largest image. */
struct bench {
    struct image_reader *reader;
    struct decoder *decoder;
    struct recipe *train, *eval;
    struct resize_axis *x, *y;
    const struct kernels *kernels;
    uint8_t *picture; /* a decoded crop, dense rows */
    size_t picture_capacity;
    uint8_t *between; /* after the pass over columns */
    size_t between_capacity;
    uint8_t *resized;
    float *packed;
    double seconds[STAGE_COUNT]; /* of the round in progress */
};

struct jpeg_trap {
    struct jpeg_error_mgr manager; /* first: libjpeg knows only this */
    jmp_buf escape;
};

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "bench_stages: %s%s%s\n", what, detail ? ": " : "", detail ? detail : "");
    exit(1);
}

static void *need(void *memory)
{
    if (memory == NULL) {
        fail("out of memory", NULL);
    }
    return memory;
}

static void reserve(uint8_t **buffer, size_t *capacity, size_t size_bytes)
{
    if (size_bytes > *capacity) {
        *buffer = need(realloc(*buffer, size_bytes));
        memset(*buffer, 0, size_bytes);
        *capacity = size_bytes;
    }
}

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check(const struct file *file, enum decode_status status,
                  const struct decode_error *error)
{
    if (status != DECODE_OK) {
        fail(file->path, error->reason);
    }
}

/* ---- files ------------------------------------------------------------------------------------
 */

static void read_file(struct file *file)
{
    struct stat facts;
    FILE *stream = fopen(file->path, "rb");
    if (stream == NULL || fstat(fileno(stream), &facts) != 0) {
        fail(file->path, strerror(errno));
    }
    file->size_bytes = (size_t)facts.st_size;
    file->bytes = need(malloc(file->size_bytes + 1));
    if (fread(file->bytes, 1, file->size_bytes, stream) != file->size_bytes) {
        fail(file->path, "read error");
    }
    fclose(stream);
}

static void read_list(struct files *files)
{
    char *line = NULL;
    size_t line_capacity = 0;
    ssize_t length = 0;
    while ((length = getline(&line, &line_capacity, stdin)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (files->count == files->capacity) {
            files->capacity = files->capacity ? 2 * files->capacity : 256;
            files->items = need(realloc(files->items, files->capacity * sizeof *files->items));
        }
        struct file *file = &files->items[files->count++];
        file->path = need(strdup(line));
        read_file(file);
    }
    free(line);
    if (files->count == 0) {
        fail("no files", "give their names on standard input, one a line");
    }
}

/* ---- libjpeg-turbo by itself ------------------------------------------------------------------
 */

static void on_jpeg_error(j_common_ptr info)
{
    struct jpeg_trap *trap = (struct jpeg_trap *)info->err;
    longjmp(trap->escape, 1);
}

static void on_jpeg_message(j_common_ptr info)
{
    (void)info;
}

static void read_rows(struct jpeg_decompress_struct *info, uint8_t *row)
{
    info->out_color_space = JCS_RGB;
    jpeg_start_decompress(info);
    while (info->output_scanline < info->output_height) {
        jpeg_read_scanlines(info, &row, 1);
    }
}

/* Entropy decoding only, or everything, by the plainest use of the library. */
static void run_libjpeg(const struct file *file, bool entropy_only, uint8_t *row)
{
    struct jpeg_decompress_struct info;
    struct jpeg_trap trap;
    info.err = jpeg_std_error(&trap.manager);
    trap.manager.error_exit = on_jpeg_error;
    trap.manager.output_message = on_jpeg_message;
    if (setjmp(trap.escape)) {
        fail(file->path, "libjpeg-turbo cannot decode it");
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, file->bytes, file->size_bytes);
    jpeg_read_header(&info, TRUE);
    if (entropy_only) {
        jpeg_read_coefficients(&info);
    } else {
        read_rows(&info, row);
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
}

/* ---- our stages -------------------------------------------------------------------------------
 */

/* Decode a region into b->picture, dense rows. */
static void decode_region(struct bench *b, const struct file *file, struct image_rect region)
{
    struct image_info info;
    struct decode_error error;
    const uint8_t *rows = NULL;
    size_t stride_bytes = 0;
    uint32_t row_count = 0;
    check(file, image_open(b->reader, file->bytes, file->size_bytes, &info, &error), &error);
    check(file, image_start(b->reader, region, &error), &error);
    uint8_t *target = b->picture;
    do {
        check(file, image_band(b->reader, 32, &rows, &stride_bytes, &row_count, &error), &error);
        for (uint32_t row = 0; row < row_count; row++, target += 3 * (size_t)region.width_px) {
            memcpy(target, rows + row * stride_bytes, 3 * (size_t)region.width_px);
        }
    } while (row_count > 0);
    check(file, image_finish(b->reader, &error), &error);
}

static void resize(struct bench *b, struct image_rect region)
{
    if (!resize_axis_set(b->x, RESIZE_BILINEAR, region.width_px, OUT_PX, 0, OUT_PX) ||
        !resize_axis_set(b->y, RESIZE_BILINEAR, region.height_px, OUT_PX, 0, OUT_PX)) {
        fail("out of memory", NULL);
    }
    resize_columns(b->kernels, b->x, b->picture, 3 * (size_t)region.width_px, b->between,
                   3 * OUT_PX, region.height_px);
    resize_rows(b->kernels, b->y, b->between, 3 * OUT_PX, b->resized, 3 * OUT_PX, 3 * OUT_PX);
}

static void pack(struct bench *b, enum pack_dtype dtype, enum pack_layout layout)
{
    struct pack_format format = {.dtype = dtype,
                                 .layout = layout,
                                 .scale = dtype != PACK_U8,
                                 .normalize = dtype != PACK_U8,
                                 .mean = {0.485f, 0.456f, 0.406f},
                                 .std = {0.229f, 0.224f, 0.225f}};
    pack_image(b->kernels, &format, b->resized, 3 * OUT_PX, OUT_PX, OUT_PX, false, false,
               b->packed);
}

/* The rectangle that RandomResizedCrop draws for this sample. */
static struct image_rect draw_region(struct bench *b, const struct file *file,
                                     const struct image_info *info, struct sample_key key)
{
    struct geometry geometry;
    struct decode_error error;
    check(file, geometry_draw(b->train, key, info->width_px, info->height_px, &geometry, &error),
          &error);
    if (geometry.step_count == 0 || geometry.steps[0].kind != GEOMETRY_CROP) {
        return (struct image_rect){0, 0, info->width_px, info->height_px};
    }
    const struct geometry_step *crop = &geometry.steps[0];
    return (struct image_rect){crop->first_px[GEOMETRY_X], crop->first_px[GEOMETRY_Y],
                               crop->out_px[GEOMETRY_X], crop->out_px[GEOMETRY_Y]};
}

/* ---- rounds -----------------------------------------------------------------------------------
 */

static void lap(struct bench *b, enum stage stage, double *since)
{
    double now = cpu_seconds();
    b->seconds[stage] += now - *since;
    *since = cpu_seconds();
}

static void run_image(struct bench *b, const struct file *file, struct sample_key key)
{
    struct decode_error error;
    struct image_info info;
    double since = cpu_seconds();
    check(file, image_open(b->reader, file->bytes, file->size_bytes, &info, &error), &error);
    lap(b, STAGE_HEADER, &since);
    struct image_rect whole = {0, 0, info.width_px, info.height_px};
    struct image_rect region = draw_region(b, file, &info, key);
    reserve(&b->picture, &b->picture_capacity,
            3 * (size_t)info.width_px * info.height_px + SLACK_BYTES);
    reserve(&b->between, &b->between_capacity, 3 * (size_t)OUT_PX * info.height_px + SLACK_BYTES);

    since = cpu_seconds();
    run_libjpeg(file, true, b->picture);
    lap(b, STAGE_ENTROPY, &since);
    run_libjpeg(file, false, b->picture);
    lap(b, STAGE_FULL, &since);
    decode_region(b, file, whole);
    lap(b, STAGE_OUR_FULL, &since);
    decode_region(b, file, region);
    lap(b, STAGE_CROP, &since);
    resize(b, region);
    lap(b, STAGE_RESIZE, &since);
    pack(b, PACK_U8, PACK_NHWC);
    lap(b, STAGE_PACK_U8_NHWC, &since);
    pack(b, PACK_U8, PACK_NCHW);
    lap(b, STAGE_PACK_U8_NCHW, &since);
    pack(b, PACK_F32, PACK_NCHW);
    lap(b, STAGE_PACK_F32_NCHW, &since);
    check(file,
          decoder_run(b->decoder, b->train, key, file->bytes, file->size_bytes, b->packed, &error),
          &error);
    lap(b, STAGE_TRAIN, &since);
    check(file,
          decoder_run(b->decoder, b->eval, key, file->bytes, file->size_bytes, b->packed, &error),
          &error);
    lap(b, STAGE_EVAL, &since);
}

static void run_rounds(struct bench *b, const struct files *files, int round_count,
                       double us[STAGE_COUNT][ROUNDS_MAX])
{
    /* Round -1 is not counted: it brings buffers and caches to size. */
    for (int round = -1; round < round_count; round++) {
        memset(b->seconds, 0, sizeof b->seconds);
        for (size_t i = 0; i < files->count; i++) {
            struct sample_key key = {.seed = 0, .epoch = (uint64_t)(round + 1), .sample_id = i};
            run_image(b, &files->items[i], key);
        }
        for (int stage = 0; round >= 0 && stage < STAGE_COUNT; stage++) {
            us[stage][round] = b->seconds[stage] * 1e6 / (double)files->count;
        }
    }
}

/* ---- set-up and output ------------------------------------------------------------------------
 */

static struct recipe *make_recipe(const struct transform *transforms, size_t count)
{
    struct recipe *recipe = NULL;
    struct decode_error error;
    if (recipe_create(transforms, count, PACK_NHWC, &recipe, &error) != DECODE_OK) {
        fail("recipe", error.reason);
    }
    return recipe;
}

static void setup(struct bench *b)
{
    const struct transform train[] = {
        {.kind = TRANSFORM_RANDOM_RESIZED_CROP,
         .height_px = OUT_PX,
         .width_px = OUT_PX,
         .filter = RESIZE_BILINEAR,
         .scale_min = 0.08,
         .scale_max = 1.0,
         .ratio_min = 3.0 / 4.0,
         .ratio_max = 4.0 / 3.0},
        {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.5},
    };
    const struct transform eval[] = {
        {.kind = TRANSFORM_RESIZE, .shorter_px = RESIZE_PX, .filter = RESIZE_BILINEAR},
        {.kind = TRANSFORM_CENTER_CROP, .height_px = OUT_PX, .width_px = OUT_PX},
    };
    const struct decoder_options options = {
        .limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT, .scans_max = IMAGE_SCANS_MAX_DEFAULT},
        .level_max = KERNEL_AVX512};
    b->train = make_recipe(train, 2);
    b->eval = make_recipe(eval, 2);
    b->reader = need(image_reader_create(NULL));
    b->decoder = need(decoder_create(&options));
    b->x = need(resize_axis_create());
    b->y = need(resize_axis_create());
    b->kernels = kernels_get(kernels_detect(KERNEL_AVX512));
    b->resized = need(calloc(1, 3 * OUT_PX * OUT_PX + SLACK_BYTES));
    b->packed = need(calloc(3 * OUT_PX * OUT_PX, sizeof(float)));
}

static void teardown(struct bench *b, struct files *files)
{
    recipe_destroy(b->train);
    recipe_destroy(b->eval);
    image_reader_destroy(b->reader);
    decoder_destroy(b->decoder);
    resize_axis_destroy(b->x);
    resize_axis_destroy(b->y);
    free(b->picture);
    free(b->between);
    free(b->resized);
    free(b->packed);
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].path);
        free(files->items[i].bytes);
    }
    free(files->items);
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void print_results(double us[STAGE_COUNT][ROUNDS_MAX], int round_count, size_t file_count,
                          bool json)
{
    const char *kernels = kernel_level_name(kernels_detect(KERNEL_AVX512));
    if (json) {
        printf("{\"unit\": \"us\", \"images\": %zu, \"rounds\": %d, \"kernels\": \"%s\", "
               "\"stages\": {",
               file_count, round_count, kernels);
    } else {
        printf("%zu images, %d rounds, kernels: %s\n%-36s %8s %8s %8s\n", file_count, round_count,
               kernels, "microseconds of CPU an image", "median", "least", "greatest");
    }
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        qsort(us[stage], (size_t)round_count, sizeof us[stage][0], compare_doubles);
        double median = us[stage][round_count / 2];
        double least = us[stage][0];
        double greatest = us[stage][round_count - 1];
        if (json) {
            printf("%s\n  \"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}",
                   stage ? "," : "", stage_names[stage], median, least, greatest);
        } else {
            printf("%-36s %8.1f %8.1f %8.1f\n", stage_names[stage], median, least, greatest);
        }
    }
    if (json) {
        printf("\n}}\n");
    }
}

int main(int argc, char **argv)
{
    bool json = false;
    int round_count = 5;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            json = true;
        } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
            round_count = atoi(argv[++i]);
        } else {
            fail("usage: bench_stages [--json] [--rounds N] < list of files", NULL);
        }
    }
    if (round_count < 1 || round_count > ROUNDS_MAX) {
        fail("--rounds takes 1 to 1000", NULL);
    }

    static double us[STAGE_COUNT][ROUNDS_MAX];
    struct files files = {0};
    struct bench bench = {0};
    read_list(&files);
    setup(&bench);
    run_rounds(&bench, &files, round_count, us);
    print_results(us, round_count, files.count, json);
    teardown(&bench, &files);
    return 0;
}
